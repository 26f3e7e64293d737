#!/usr/bin/env bash
# Times package cuda beside PyTorch on one machine in one run, and prints the
# ratios: matrix products beside cuBLAS, layers beside nn.Linear, training steps
# beside a dense transformer of the same shape. It needs an NVIDIA GPU and a
# python3 with PyTorch, and a folder that "scripts/gpu_test.sh prepare DIR" made:
#
#   DIR/scripts/gpu_peers.sh [OUT] [products layers train …]
#
# Kernels are those of the binaries, or of the folder SPINNET_CUDA_KERNELS.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
usage() { sed -n '2,9p' "$0" >&2; exit 2; }
case ${1:-} in -*) usage ;; esac
out=$(realpath -m "${1:-out}")
shift
[ $# -gt 0 ] || set -- products layers train
for what in "$@"; do
  case $what in
  products | layers | train) ;;
  *) usage ;;
  esac
done
for file in bin/cuda.test bin/spinnet; do
  [ -x $file ] || { echo "no $file in $PWD: make the folder with scripts/gpu_test.sh prepare DIR" >&2; exit 2; }
done
mkdir -p "$out"
go_bench() { timeout 100 bin/cuda.test -test.run '^$' -test.bench "$1" -test.benchtime 1x; }

nvidia-smi --query-gpu=name,driver_version,clocks.sm --format=csv,noheader
python3 -c 'import torch; print("PyTorch", torch.__version__)'
date -u +%F
for what in "$@"; do
  case $what in
  products)
    go_bench Products >"$out/products.txt" 2>"$out/products.err" || tail -5 "$out/products.err"
    timeout 100 python3 cuda/_test/products_peer.py cuda/testdata/products.txt >"$out/products_peer.txt" 2>&1
    # ours has "value variant/splits" pairs, the peer "cuBLAS name us us rate TFLOP/s"
    awk '
      FNR == NR { if ($1 == "cuBLAS") peer[$2] = $3; next }
      /^BenchmarkProducts\// {
        split($1, part, "BenchmarkProducts/"); name = part[2]; sub(/-[0-9]+$/, "", name)
        best = ""; chosen = ""
        for (i = 3; i < NF; i += 2) {
          if ($(i + 1) ~ /^chosen/) { chosen = $(i + 1); took = $i; sub(/^chosen-/, "", chosen) }
          else if ($(i + 1) ~ /^[0-9]/ && $i > 0 && (best == "" || $i < least)) { best = $(i + 1); least = $i }
        }
        printf "%-18s chosen %-7s %8.1f us   best %-7s %8.1f us   cuBLAS %8s us   cuBLAS / chosen %.2f\n",
          name, chosen, took, best, least, peer[name], peer[name] / took
      }' "$out/products_peer.txt" "$out/products.txt"
    grep nn.Linear "$out/products_peer.txt"
    ;;
  layers)
    go_bench 'Layers|HeadMixer' 2>"$out/layers.err" | tee "$out/layers.txt" | sed -n 's,^Benchmark\(Layers/\)*,,p'
    ;;
  train)
    timeout 200 python3 cuda/_test/model_peer.py >"$out/train_peer.txt" 2>"$out/train_peer.err" || tail -5 "$out/train_peer.err"
    for bench in chars 50k 124m; do timeout 60 bin/spinnet bench gpu/$bench --json; done >"$out/train.jsonl"
    cat "$out/train_peer.txt"
    awk '
      FNR == NR { if ($1 == "PyTorch") peer[$2] = $3; next }
      match($0, /"ms":[0-9.]+/) {
        ms = substr($0, RSTART + 5, RLENGTH - 5); split($0, q, "\""); shape = $0; sub(/.*"shape":"/, "", shape); sub(/".*/, "", shape)
        name = ""; for (p in peer) if (index($0, "\"" p "\"")) name = p
        printf "%-10s %-28s %8.2f ms   PyTorch %8s ms   PyTorch / ours %.2f\n", name, shape, ms, peer[name], name == "" ? 0 : peer[name] / ms
      }' "$out/train_peer.txt" "$out/train.jsonl"
    ;;
  esac
done
