#!/usr/bin/env bash
# All that is recorded from a machine with an NVIDIA GPU, in calls of a few minutes.
#
#   scripts/gpu_record.sh prepare DIR [DATASETS]    as scripts/gpu_test.sh prepare, with what follows
#   DIR/scripts/gpu_record.sh compile WORK OUT      there: compiles the kernels, runs the tests
#   DIR/scripts/gpu_record.sh measure WORK OUT      times them beside PyTorch
#   DIR/scripts/gpu_record.sh check WORK OUT        the sanitizers, and beside them the other arms of docs/results
#   DIR/scripts/gpu_record.sh begin WORK SECONDS    begins the run of the 124M shape, waits
#   DIR/scripts/gpu_record.sh again WORK SECONDS    kills the long run with SIGKILL, resumes it, waits
#   DIR/scripts/gpu_record.sh wait WORK SECONDS     waits
#   DIR/scripts/gpu_record.sh finish WORK OUT SECONDS   waits for its end, at most so long, then stops it with
#                                                   SIGINT; samples; OUT gets all results
#
# WORK is a folder that stays between the calls; OUT gets .tgz files. RECORD_STEPS is
# the length of the long run (10000 steps), RECORD_KEYS more keys of its recipe, RECORD_ARMS
# the other arms. The long run goes on between calls; without "compile" it has the
# kernels of the program.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
arm=gostd-kjv-124m

prepare() {
  local dir=$1 datasets=${2:-datasets}
  scripts/gpu_test.sh prepare "$dir" &&
    mkdir -p "$dir/cuda/_test" "$dir/datasets" &&
    cp cuda/_test/*.py "$dir/cuda/_test/" &&
    cp scripts/*.sh "$dir/scripts/" &&
    cp -r "$datasets"/* "$dir/datasets/"
}

say() { echo "== [$SECONDS s] $*"; }

# train begins the long run, or resumes it, in a session of its own, so that it
# outlives the call.
train() { # WORK flags …
  local work=$1
  shift
  kernels "$work"
  setsid nohup bin/spinnet train "$@" >>"$work/long.out" 2>>"$work/long.log" </dev/null &
  echo $! >"$work/long.pid"
}

# kernels: those that were compiled here, if any were.
kernels() { # WORK
  [ ! -f "$1/logs/kernels/kernels.json" ] || export SPINNET_CUDA_KERNELS=$1/logs/kernels
}

# running tells whether the long run goes on; what has ended may stay as a zombie.
running() {
  local state
  state=$(sed 's/.*) //' "/proc/$(cat "$1/long.pid")/stat" 2>/dev/null) && [[ $state != Z* ]]
}

# settle waits for the long run to end, at most so many seconds.
settle() { # WORK SECONDS
  local end=$((SECONDS + $2))
  while running "$1" && [ $SECONDS -lt $end ]; do sleep 1; done
}

# there makes the folders of a call.
there() { # WORK OUT
  mkdir -p "$1/logs" "$1/results" "$2"
  work=$(realpath "$1") out=$(realpath "$2")
  runs=$work/results logs=$work/logs
}

compile() {
  local work out runs logs
  there "$@"
  say build
  scripts/gpu_test.sh run "$logs" build 2>&1 | tail -3
  tar czf "$out/kernels.tgz" -C "$logs" kernels
  say tests
  timeout 200 scripts/gpu_test.sh run "$logs" test 2>&1 | grep -v '^gpu\|^kernels\|^go ' | tail -30
  cp "$logs/test.log" "$out/"
  say end
}

measure() {
  local work out runs logs
  there "$@"
  kernels "$work"
  say timings
  timeout 240 scripts/gpu_peers.sh "$logs/peers" train layers 2>&1 | cut -c1-190
  timeout 60 bin/spinnet bench gpu/decode 2>&1 | tee "$logs/decode.txt"
  tar czf "$out/timings.tgz" -C "$logs" peers decode.txt
  say end
}

check() {
  local work out runs logs others
  there "$@"
  kernels "$work"
  say "sanitizers, runs"
  # shellcheck disable=SC2086 # the arms are words
  timeout 240 scripts/results.sh run "$runs" ${RECORD_ARMS:-shakespeare-octonion stories-bytes-classic stories-gpt2-classic} >"$logs/runs.txt" 2>&1 &
  others=$!
  scripts/gpu_test.sh run "$logs" sanitize >"$logs/sanitize.txt" 2>&1
  wait $others
  cat "$logs/runs.txt"
  tail -30 "$logs/sanitize.txt"
  tar czf "$out/logs.tgz" -C "$logs" --exclude=kernels .
  tar czf "$out/results.tgz" -C "$runs" --exclude=checkpoints --exclude='*gpt2*/model.spinnet' --exclude='*124m*' .
  say end
}

begin() { # WORK SECONDS
  local work
  mkdir -p "$1/results"
  work=$(realpath "$1")
  : >"$work/defaults.toml"
  # shellcheck disable=SC2046,SC2086 # the recipe is a list of flags
  train "$work" "$work/defaults.toml" --out_dir="$work/results/$arm" --device=cuda --keep_checkpoints=1 --sample_tokens=0 \
    $(scripts/results.sh keys $arm) --max_iters="${RECORD_STEPS:-10000}" ${RECORD_KEYS:-}
  progress "$work" "$2"
}

again() { # WORK SECONDS
  local work
  work=$(realpath "$1")
  say "SIGKILL at: $(tail -n 1 "$work/long.log")"
  kill -9 "$(cat "$work/long.pid")"
  settle "$work" 20
  train "$work" "$work/results/$arm" --resume
  progress "$work" "$2"
  grep -i resum "$work/long.log" | tail -n 2
}

# progress waits for the long run, at most so many seconds, and says how far it is.
progress() { # WORK SECONDS
  settle "$1" "$2"
  tail -n 2 "$1/long.log"
  nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader
}

finish() {
  local work out run
  work=$(realpath "$1") run=$work/results/$arm
  mkdir -p "$2"
  out=$(realpath "$2")
  settle "$work" "$3"
  if running "$work"; then
    say "stopped before its end"
    kill -INT "$(cat "$work/long.pid")"
    settle "$work" 30
  fi
  tail -n 4 "$work/long.log"
  tail -n 8 "$work/long.out"
  kernels "$work"
  bin/spinnet compress "$run/checkpoints/best" -o "$run/model.spinnet" 2>&1 | tail -n 3
  for prompt in "func (r *Reader) Read(" "And it came to pass"; do
    bin/spinnet generate "$run/model.spinnet" --device=cuda --echo --prompt "$prompt" --max-tokens 200 --seed 1
  done >"$run/sample.txt"
  cat "$run/sample.txt"
  cp "$work/long.log" "$work/long.out" "$run/"
  tar czf "$out/results.tgz" -C "$work/results" --exclude=checkpoints --exclude='*gpt2*/model.spinnet' --exclude='*124m/model.spinnet' .
  say end
}

case ${1:-}/$# in
prepare/[23]) prepare "$2" "${3:-}" ;;
compile/3) compile "$2" "$3" ;;
measure/3) measure "$2" "$3" ;;
check/3) check "$2" "$3" ;;
begin/3) begin "$2" "$3" ;;
again/3) again "$2" "$3" ;;
wait/3) progress "$(realpath "$2")" "$3" ;;
finish/4) finish "$2" "$3" "$4" ;;
*) sed -n '2,17p' "$0" >&2; exit 2 ;;
esac
