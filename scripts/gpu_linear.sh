#!/bin/bash
# Compiles, tests and times cuda/linear.cu, walsh.cu and quantize.cu on a
# machine with a Hopper GPU and nvcc. scripts/gpu_peers.sh compares with cuBLAS.
# Usage: scripts/gpu_linear.sh [OUT]; logs and the program go to OUT.
# QUICK=1 leaves out the sanitizer. Exit status 0 when neither tests nor sanitizer failed.
case ${1:-}/$# in
/0 | [!-]*/1) ;;
*) sed -n '2,5p' "$0" >&2; exit 2 ;;
esac
for tool in nvcc nvidia-smi; do
    command -v $tool >/dev/null || { echo "$0: no $tool: it needs an NVIDIA GPU and its compiler" >&2; exit 1; }
done
out=$(realpath -m "${1:-${OUT:-out}}")
mkdir -p "$out"
cd "$(dirname "$0")/.." || exit 1
build() {
    nvcc -O3 -std=c++17 -t 4 -Xptxas -v -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a \
        -o "$out/linear_test" cuda/_test/linear_test.cu -lcuda 2>"$out/ptxas.log"
}
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
nvcc --version | tail -1
build || { grep -vE "ptxas info|^ |bytes stack" "$out/ptxas.log" | head -60; exit 1; }
grep -E "warning|error" "$out/ptxas.log" | sort | uniq -c | head -10
echo "kernels that spill or use a stack:"
grep -B1 -E "[1-9][0-9]* bytes (stack|spill)" "$out/ptxas.log" | grep -vE "^--|, 0 bytes spill loads" | head -20
echo "registers (sm_80 then sm_90a):"
awk '/Compiling entry/ {n = $6 " " $8} /Used/ {print n, $5}' "$out/ptxas.log" | tr -d "'" | sort | awk '{printf "%s:%s=%s  ", $1, $2, $3} END {print ""}'
echo "== tests"
failed=0
timeout 150 "$out/linear_test" || failed=1
echo "== ours"
timeout 150 "$out/linear_test" bench | tee "$out/bench.txt"
if [ -z "${QUICK:-}" ]; then
    for tool in memcheck racecheck; do
        echo "== $tool"
        timeout 100 compute-sanitizer --error-exitcode 9 --tool $tool "$out/linear_test" quick 2>&1 | tail -4
        [ "${PIPESTATUS[0]}" = 0 ] || failed=1
    done
fi
exit $failed
