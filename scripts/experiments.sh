#!/usr/bin/env bash
# The recorded experiments of docs/benchmarks.md: small models on Shakespeare
# by characters, several seeds an arm, as many runs at once as there are cores.
#
#   scripts/experiments.sh small [OUT]   recipes and algebras at 4 layers, d 128
#   scripts/experiments.sh large [OUT]   octonion and Walsh at 8 layers, d 512 (ten minutes on two cores)
#
# Prints one line a run: arm, seed, final losses. Needs bin/spinnet (or
# SPINNET=path) and datasets/tinyshakespeare.
set -euo pipefail
spinnet=${SPINNET:-bin/spinnet}
what=${1:-small}
out=${2:-runs/experiments}
cores=$(nproc)
mkdir -p "$out"

run() { # arm seed threads --key=value…
  local arm=$1 seed=$2 threads=$3
  shift 3
  local dir=$out/$arm-$seed
  "$spinnet" train demo --overwrite --out_dir="$dir" --seed="$seed" --threads="$threads" --sample_tokens=0 \
    --eval_interval=0 --checkpoint_interval=0 --keep_checkpoints=1 "$@" >"$dir.final" 2>"$dir.log" || true
  printf '%-24s seed %s  %s\n' "$arm" "$seed" "$(cat "$dir.final")"
}
export -f run
export spinnet out

small() {
  local common="--max_iters=1500 --n_head=8 --n_embd=128 --hidden_dim=384 --block_size=64 --batch_size=12"
  local arms=(
    "classic --quantizer=classic --init=classic --learning_rate=1e-2 --weight_decay=0 --algebra=octonion"
    "classic-3e-3 --quantizer=classic --init=classic --learning_rate=3e-3 --weight_decay=0 --algebra=octonion"
    "classic-mixer --quantizer=classic --init=classic --learning_rate=1e-2 --weight_decay=0 --algebra=octonion --octonion_attention"
    "absmean-octonion --algebra=octonion --learning_rate=6e-3"
    "absmean-octonion-mixer --algebra=octonion --learning_rate=6e-3 --octonion_attention"
    "absmean-walsh --algebra=walsh --learning_rate=6e-3"
    "absmean-walsh-1e-2 --algebra=walsh --learning_rate=1e-2"
    "absmean-walsh-3e-3 --algebra=walsh --learning_rate=3e-3"
    "absmean-walsh-mixer --algebra=walsh --learning_rate=6e-3 --octonion_attention --mixer_algebra=walsh"
    "absmean-walsh-int8 --algebra=walsh --learning_rate=6e-3 --act_bits=8"
    "absmean-random --algebra=random:1 --learning_rate=6e-3"
    "absmean-dense-d48 --algebra=real --n_embd=48 --hidden_dim=128 --learning_rate=6e-3"
    "float-octonion --quantizer=none --algebra=octonion --learning_rate=6e-3"
  )
  for seed in 1 2 3; do
    for arm in "${arms[@]}"; do
      set -- $arm
      echo "$1 $seed 1 $common ${*:2}"
    done
  done | xargs -P "$cores" -L 1 bash -c 'run "$@"' _
}

large() {
  local common="--n_layer=8 --n_head=8 --n_embd=512 --hidden_dim=1408 --block_size=256 --batch_size=8 --max_iters=800 --dropout=0.1 --learning_rate=3e-3 --warmup_iters=100"
  local threads=$((cores < 4 ? cores : cores / 2))
  printf '%s\n' \
    "d512-octonion 1 $threads $common --algebra=octonion" \
    "d512-walsh 1 $threads $common --algebra=walsh" |
    xargs -P "$((cores / threads))" -L 1 bash -c 'run "$@"' _
}

"$what"
