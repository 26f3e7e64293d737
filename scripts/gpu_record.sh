#!/usr/bin/env bash
# One pass over all that is recorded from a machine with an NVIDIA GPU, for
# machines that are lent for minutes: what does not disturb each other runs at once.
#
#   scripts/gpu_record.sh prepare DIR [DATASETS]   as scripts/gpu_test.sh prepare, with what follows
#   DIR/scripts/gpu_record.sh run OUT              there: OUT gets kernels.tgz, results.tgz, logs.tgz
#
# In order: the kernels are compiled; the tests, the sanitizers and the runs of
# docs/results go on together; then, alone, the timings beside PyTorch; last the 124M
# shape for RECORD_SECONDS (60), killed with SIGKILL half-way and resumed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

prepare() {
  local dir=$1 datasets=${2:-datasets}
  scripts/gpu_test.sh prepare "$dir" &&
    mkdir -p "$dir/cuda/_test" "$dir/datasets" &&
    cp cuda/_test/*.py "$dir/cuda/_test/" &&
    cp scripts/*.sh "$dir/scripts/" &&
    cp -r "$datasets"/* "$dir/datasets/"
}

say() { echo "== [$SECONDS s] $*"; }

run() {
  local out work runs logs seconds=${RECORD_SECONDS:-60}
  out=$(realpath -m "$1")
  work=$(mktemp -d)
  runs=$work/results logs=$work/logs
  mkdir -p "$out" "$logs" "$runs"
  say build
  scripts/gpu_test.sh run "$logs" build 2>&1 | tail -3
  tar czf "$out/kernels.tgz" -C "$logs" kernels
  export SPINNET_CUDA_KERNELS=$logs/kernels
  say tests, sanitizers, runs
  # shellcheck disable=SC2046 # the arms are words
  timeout 200 scripts/results.sh run "$runs" $(scripts/results.sh arms | grep -v 124m) >"$logs/runs.txt" 2>&1 &
  timeout 200 scripts/gpu_test.sh run "$logs" sanitize >"$logs/sanitize.txt" 2>&1 &
  timeout 200 scripts/gpu_test.sh run "$logs" test 2>&1 | grep -v '^gpu\|^kernels\|^go ' | tail -20
  wait
  cat "$logs/runs.txt"
  tail -20 "$logs/sanitize.txt"
  say timings
  timeout 200 scripts/gpu_peers.sh "$logs/peers" train layers 2>&1 | cut -c1-190
  tar czf "$out/logs.tgz" -C "$logs" --exclude=kernels .
  say 124M
  : >"$runs/defaults.toml"
  # shellcheck disable=SC2046,SC2086
  timeout -s KILL $((seconds / 2)) bin/spinnet train "$runs/defaults.toml" --out_dir="$runs/gostd-kjv-124m" --device=cuda --keep_checkpoints=1 \
    --sample_tokens=0 --checkpoint_interval=50 $(scripts/results.sh keys gostd-kjv-124m) --max_iters=${RECORD_STEPS:-350} 2>&1 | tail -1
  timeout $((seconds + 20)) bin/spinnet train "$runs/gostd-kjv-124m" --resume 2>&1 | grep -v '^step' | tail -4
  bin/spinnet compress "$runs/gostd-kjv-124m/checkpoints/best" -o "$runs/gostd-kjv-124m/model.spinnet" 2>&1 | tail -3
  for prompt in "func (r *Reader) Read(" "And it came to pass"; do
    bin/spinnet generate "$runs/gostd-kjv-124m/model.spinnet" --device=cuda --echo --prompt "$prompt" --max-tokens 200 --seed 1
  done >"$runs/gostd-kjv-124m/sample.txt"
  tar czf "$out/results.tgz" -C "$runs" --exclude=checkpoints --exclude='*gpt2*/model.spinnet' --exclude='*124m/model.spinnet' .
  say end
}

case ${1:-} in
prepare) prepare "${2:?a folder}" "${3:-}" ;;
run) run "${2:?a folder}" ;;
*) sed -n '2,10p' "$0" >&2; exit 2 ;;
esac
