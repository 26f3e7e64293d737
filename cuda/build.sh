#!/usr/bin/env bash
# Compiles cuda/*.cu into cuda/kernels/*.fatbin with nvcc and writes
# kernels.json, which says by which compiler and flags, from which sources, and
# which files they gave. Each fatbin holds code for sm_80 (runs on 8.x), sm_90a
# (Hopper) and PTX of compute_80, which the driver translates for later GPUs.
#
# usage: cuda/build.sh [OUT]; a source that does not compile is named, and then
# OUT stays as it was.
set -uo pipefail
export LC_ALL=C # the order of names
out=$(realpath -m "${1:-$(dirname "$0")/kernels}")
cd "$(dirname "$0")" || exit 1
command -v nvcc >/dev/null || { echo "cuda/build.sh: no nvcc in PATH; the kernels stay as they are" >&2; exit 1; }
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
flags="-O3 -std=c++17 -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_80,code=compute_80 --compress-mode=size"
failed=""
pids=()
for source in *.cu; do
  stem=${source%.cu}
  # shellcheck disable=SC2086 # flags are words
  nvcc -fatbin $flags -o "$made/$stem.fatbin" "$source" >"$made/$stem.log" 2>&1 &
  pids+=("$!:$stem")
done
for p in "${pids[@]}"; do
  if ! wait "${p%%:*}"; then
    failed="$failed ${p##*:}"
    echo "== ${p##*:}.cu does not compile:"
    head -40 "$made/${p##*:}.log"
  fi
done
find "$made" -name '*.fatbin' -size +4M -printf '%f\n' | grep . && { echo "over 4 MiB"; failed="$failed size"; }
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
version=$(nvcc --version | sed -n 's/.*release \([^,]*\), V\(.*\)/\2/p')
sources=$(sha256sum -- *.cu *.cuh | sha256sum | cut -d' ' -f1)
kernels=$(cd "$made" && sha256sum -- *.fatbin | sha256sum | cut -d' ' -f1)
printf '{\n "compiler": "nvcc %s",\n "flags": "%s",\n "sources": "%s",\n "kernels": "%s"\n}\n' "$version" "$flags" "$sources" "$kernels" >"$made/kernels.json"
mkdir -p "$out"
rm -f "$out"/*.fatbin # of sources that are no more
cp "$made"/*.fatbin "$made/kernels.json" "$out/"
