#!/usr/bin/env bash
# Compiles the kernels and runs the tests and timings of package cuda on a
# machine with an NVIDIA GPU, nvcc and compute-sanitizer. Go is not needed
# there: build what it runs first, anywhere, with
#
#   scripts/gpu_test.sh prepare DIR    (test binaries, bin/spinnet, sources)
#
# and there, with DIR copied, run DIR/scripts/gpu_test.sh run [OUT] [what …]
# where what is any of: build test sanitize bench profile; default build test bench.
# OUT receives the compiled kernels and logs. A part that fails does not stop
# the others; the last lines say which passed. SANITIZE is how many seconds the
# sanitizers may take (530), PARTS which of them run.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

prepare() {
  local dir=$1
  mkdir -p "$dir/cuda/_test" "$dir/model/testdata" "$dir/scripts" "$dir/bin"
  export CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-go1.27.3}
  go test -c -ldflags "-s -w" -o "$dir/bin/cuda.test" ./cuda &&
    go build -trimpath -ldflags "-s -w" -o "$dir/bin/spinnet" ./cmd/spinnet &&
    cp -r model/testdata/seed_tiny "$dir/model/testdata/" &&
    cp -r cuda/*.cu cuda/*.cuh cuda/build.sh cuda/testdata "$dir/cuda/" &&
    cp cuda/_test/*_peer.py "$dir/cuda/_test/" &&
    cp scripts/gpu_test.sh scripts/gpu_peers.sh "$dir/scripts/"
}

results=""
note() { # name, exit status, start
  results="$results$(printf '%-28s %s (%ds)' "$1" "$([ "$2" = 0 ] && echo ok || echo FAILED)" $((SECONDS - $3)))"$'\n'
}

# What a sanitizer runs: a tool, and under racecheck, which takes long, a part of the tests.
declare -A parts=([memcheck]=. [racecheck]=. [racecheck-sessions]='^TestSession' [racecheck-recompute]='^TestRecompute'
  [racecheck-runs]='^Test(Training|Gradients|Evaluation|Run|OneCheckpoint)')
faults='Fault|OutOfMemory|TooLarge|TwoProcesses'

# sanitizer runs a part for at most SANITIZE seconds.
sanitizer() { # part
  local part=$1 skip=$faults
  [ "$part" != racecheck ] || skip="$faults|${parts[racecheck-sessions]}|${parts[racecheck-recompute]}|${parts[racecheck-runs]}"
  (
    cd cuda && SPINNET_CUDA_CUBLAS=0 timeout $((SANITIZE + 10)) compute-sanitizer --tool "${part%%-*}" --error-exitcode 9 --report-api-errors no ../bin/cuda.test \
      -test.short -test.v -test.timeout "${SANITIZE}s" -test.run "${parts[$part]}" -test.skip "$skip" >"$out/$part.log" 2>&1
    echo $? >"$out/$part.rc"
  )
}

# kernels: those that were compiled into OUT, if any were, not those of the program.
kernels() { # OUT
  [ ! -f "$1/kernels/kernels.json" ] || export SPINNET_CUDA_KERNELS=$1/kernels
}

run() {
  local out=${1:-out} start what part
  SANITIZE=${SANITIZE:-530} PARTS=${PARTS:-${!parts[*]}}
  for part in $PARTS; do
    [ -n "${parts[$part]:-}" ] || { echo "no part $part; there are: ${!parts[*]}" >&2; exit 2; }
  done
  case $out in -*) usage ;; esac
  shift
  out=$(realpath -m "$out")
  mkdir -p "$out/kernels"
  [ $# -gt 0 ] || set -- build test bench
  export SPINNET_REQUIRE_GPU=1
  kernels "$out"
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader
  for what in "$@"; do
    start=$SECONDS
    case $what in
    build)
      cuda/build.sh "$out/kernels" 2>&1 | tee "$out/build.log" | tail -60
      note build "${PIPESTATUS[0]}" "$start"
      kernels "$out"
      ;;
    test)
      (cd cuda && timeout 150 ../bin/cuda.test -test.v -test.timeout 140s >"$out/test.log" 2>&1)
      note test $? "$start"
      grep -E '^ *--- FAIL|^panic|^fatal|_test.go:[0-9]+: .*(want|got|error)|^FAIL|^ok|^PASS' "$out/test.log" | head -70
      ;;
    sanitize) # all tests at their short sizes, but those that provoke faults, with our own kernels alone; all at a time
      for part in $PARTS; do sanitizer "$part" & done
      wait
      for part in $PARTS; do
        note "$part" "$(cat "$out/$part.rc")" "$start"
        grep -E '^ *--- FAIL|^=========|^panic' "$out/$part.log" | grep -v COMPUTE-SANITIZER | tail -20
      done
      ;;
    profile)
      SPINNET_CUDA_PROFILE=1 timeout 120 bin/spinnet bench gpu/chars 2>&1 | tee "$out/profile.log" | head -60
      note profile "${PIPESTATUS[0]}" "$start"
      ;;
    bench)
      timeout 200 bin/spinnet bench gpu 2>&1 | tee "$out/bench.log"
      [ "${PIPESTATUS[0]}" = 0 ] && ! grep -q 'not measured' "$out/bench.log"
      note bench $? "$start"
      ;;
    esac
  done
  bin/spinnet version
  echo "== results"
  printf '%s' "$results"
  ! grep -q FAILED <<<"$results"
}

usage() { sed -n '2,11p' "$0" >&2; exit 2; }

case ${1:-} in
prepare)
  [ $# = 2 ] || usage
  prepare "$2"
  ;;
run) shift && run "$@" ;;
*) usage ;;
esac
