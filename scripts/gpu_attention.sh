#!/usr/bin/env bash
# Builds, tests and times the attention, loss, norm, SwiGLU, embedding, optimizer
# and decoding kernels on an NVIDIA GPU, beside PyTorch where it is installed.
#
#   scripts/gpu_attention.sh [OUT]
#
# Needs nvcc. OUT (default: a new folder) receives logs and cubins. Says at the
# end what failed; exit status 0 when nothing did. SKIP may name ptx (sm_80 code)
# and peer (PyTorch); SANITIZE may name memcheck and racecheck.
set -u
case ${1:-}/$# in
/0 | [!-]*/1) ;;
*) sed -n '2,9p' "$0" >&2; exit 2 ;;
esac
for tool in nvcc nvidia-smi; do
  command -v $tool >/dev/null || { echo "$0: no $tool: it needs an NVIDIA GPU and its compiler" >&2; exit 1; }
done
out=$(realpath -m "${1:-$(mktemp -d)}")
cd "$(dirname "$0")/../cuda" || exit 1
mkdir -p "$out"
stems="attention attention90 loss norm swiglu embedding elementwise step decode prefill"
failed=""
skip() { [[ ${SKIP:-} == *$1* ]]; }
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
nvcc --version | tail -2 | head -1

for arch in 80 90a; do
  for stem in $stems; do
    [ $stem$arch = attention9080 ] || nvcc -std=c++17 -O3 -gencode "arch=compute_$arch,code=sm_$arch" -cubin -Xptxas -v -o "$out/$stem.$arch.cubin" "$stem.cu" >"$out/$stem.$arch.log" 2>&1 &
  done
done
for t in attention step decode; do
  nvcc -std=c++17 -O2 -o "$out/${t}_test" "_test/${t}_test.cu" -lcuda >"$out/${t}_test.log" 2>&1 &
done
wait
grep -h -B3 -E 'error|[1-9][0-9]* bytes spill stores' "$out"/*.log
grep -h -E 'Compiling entry|Used' "$out"/attention*.90a.log | sed 's/ptxas info *: //' | paste - - | cut -c1-110
grep -h -i serializ "$out"/*.log

# sm_80 code does not run on other chips: 9.0 tests the 90a cubins, and the
# sm_80 ones through compute_80 PTX.
for stem in $stems; do
  [ $stem = attention90 ] || skip ptx || nvcc -std=c++17 -O3 -ptx -gencode arch=compute_80,code=compute_80 -o "$out/$stem.ptx" "$stem.cu" >>"$out/ptx.log" 2>&1 &
done
wait
files() { # of a test, of a kind
  for stem in $stems; do
    case $1-$stem-$2 in
    *-attention90-ptx) ;;
    attention-attention* | decode-decode* | decode-prefill* | step-[!adp]*) echo "$out/$stem.$2" ;;
    esac
  done
}
for t in attention step decode; do
  for kind in 90a.cubin ptx; do
    skip $kind && continue
    echo "== $t test, $kind"
    timeout 100 "$out/${t}_test" test $(files $t $kind) | tail -15
    [ "${PIPESTATUS[0]}" = 0 ] || failed="$failed $t-$kind"
  done
done
for t in attention step decode; do
  echo "== $t bench, L2 flushed"
  timeout 100 "$out/${t}_test" bench $(files $t 90a.cubin) | tee "$out/${t}_bench.txt"
done
skip peer || { python3 -c 'import torch' 2>/dev/null && timeout 100 python3 _test/attention_peer.py 2>&1 | tee "$out/peer.txt"; }
for tool in ${SANITIZE:-}; do
  for t in attention step decode; do
    echo "== compute-sanitizer $tool, $t"
    SMALL=1 timeout 100 compute-sanitizer --error-exitcode 9 --report-api-errors no --tool $tool "$out/${t}_test" test $(files $t 90a.cubin) 2>&1 | tail -2
    [ "${PIPESTATUS[0]}" = 0 ] || failed="$failed $t-$tool"
  done
done
echo "failed:${failed:- nothing}"
[ -z "$failed" ]
