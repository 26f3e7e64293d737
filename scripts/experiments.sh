#!/usr/bin/env bash
# The recorded experiments of docs/experiments.md: small models on Shakespeare
# by characters, several seeds an arm, as many runs at once as there are cores.
#
#   scripts/experiments.sh small [OUT]   recipes and algebras at 4 layers, d 128
#   scripts/experiments.sh large [OUT]   octonion and Walsh at 8 layers, d 512 (ten minutes on two cores)
#   scripts/experiments.sh devices [OUT] float32 on the CPU against bf16 on a GPU, curve against curve (DEVICES=cuda: the CPU ran before)
#
# Prints one line a run: arm, seed, final losses. Needs bin/spinnet (or
# SPINNET=path) and datasets/tinyshakespeare.
set -euo pipefail
spinnet=${SPINNET:-bin/spinnet}
what=${1:-small}
out=${2:-runs/experiments}
case $what/$# in
small/[012] | large/[12] | devices/[12]) ;;
*) sed -n '2,12p' "$0" >&2; exit 2 ;;
esac
[ -x "$(command -v "$spinnet")" ] || { echo "$0: no $spinnet: run make build" >&2; exit 1; }
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

devices() {
  local common="--max_iters=${STEPS:-1000} --n_head=8 --n_embd=128 --hidden_dim=384 --block_size=64 --batch_size=12 --learning_rate=6e-3 --dropout=0.1"
  local arms=("octonion --algebra=octonion --octonion_attention --act_bits=0" "walsh-int8 --algebra=walsh --act_bits=8")
  local seed arm a
  for device in ${DEVICES:-cpu cuda}; do
    for seed in 1 2 3; do
      for arm in "${arms[@]}"; do
        set -- $arm
        echo "$device-$1 $seed 2 $common --device=$device ${*:2}"
      done
    done
  done | xargs -P "$((cores / 2 > 0 ? cores / 2 : 1))" -L 1 bash -c 'run "$@"' _
  # How far apart the smoothed losses are, on average and at most over the
  # second half, and what the validation ends at. Between seeds: the same
  # distances between runs of the CPU alone.
  printf '\n%-12s %-26s %10s %10s %10s %10s\n' arm pair mean largest "val, first" second
  for arm in "${arms[@]}"; do
    a=${arm%% *}
    for seed in 1 2 3; do compare "$a" "cpu-$a-$seed" "cuda-$a-$seed"; done
    for seed in 1 2; do compare "$a" "cpu-$a-$seed" "cpu-$a-3"; done
  done
}

# compare ARM RUN RUN
compare() {
  awk -v arm="$1" -v pair="$2 $3" '
    function field(name,  a) { return match($0, "\"" name "\":[-0-9.e+]+") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) + 0 : "" }
    { step = field("step"); smooth = field("smooth"); v = field("val_loss") }
    FNR == NR { first[step] = smooth; if (v != "") val1 = v; last = step; next }
    { if (v != "") val2 = v
      if (step > last / 2) { d = smooth - first[step]; if (d < 0) d = -d; sum += d; n++; if (d > most) most = d } }
    END { gsub(arm "-", "", pair); printf "%-12s %-26s %10.4f %10.4f %10.4f %10.4f\n", arm, pair, sum / n, most, val1, val2 }
  ' "$out/$2/metrics.jsonl" "$out/$3/metrics.jsonl"
}

"$what"
