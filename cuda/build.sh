#!/usr/bin/env bash
# Compiles cuda/*.cu into cuda/kernels/*.fatbin with nvcc and writes
# kernels.json, which says by which compiler and from which sources. Each
# fatbin holds code for sm_80 (runs on 8.x), sm_90a (Hopper) and PTX of
# compute_80, which the driver translates for later GPUs.
#
# usage: cuda/build.sh [OUT]; a file that does not compile is named and fails
# the script at its end.
set -uo pipefail
export LC_ALL=C # the order of names
cd "$(dirname "$0")" || exit 1
out=${1:-kernels}
mkdir -p "$out"
flags="-O3 -std=c++17 -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_80,code=compute_80 --compress-mode=size"
failed=""
pids=()
for source in *.cu; do
  stem=${source%.cu}
  # shellcheck disable=SC2086 # flags are words
  nvcc -fatbin $flags -o "$out/$stem.fatbin" "$source" >"$out/$stem.log" 2>&1 &
  pids+=("$!:$stem")
done
for p in "${pids[@]}"; do
  if wait "${p%%:*}"; then
    rm -f "$out/${p##*:}.log"
  else
    failed="$failed ${p##*:}"
    echo "== ${p##*:}.cu does not compile:"
    head -40 "$out/${p##*:}.log"
  fi
done
version=$(nvcc --version | sed -n 's/.*release \([^,]*\), V\(.*\)/\2/p')
sources=$(sha256sum -- *.cu *.cuh | sha256sum | cut -d' ' -f1)
printf '{\n "compiler": "nvcc %s",\n "flags": "%s",\n "sources": "%s"\n}\n' "$version" "$flags" "$sources" >"$out/kernels.json"
find "$out" -name '*.fatbin' -size +4M | grep . && { echo "over 4 MB"; failed="$failed size"; }
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
