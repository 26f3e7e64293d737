#!/usr/bin/env bash
# The runs of docs/results: trains them on a GPU and keeps what is worth keeping.
#
#   scripts/results.sh data TEXTS        prepare the datasets; TEXTS holds tinystories_train.txt,
#                                        tinystories_val.txt and kjv.txt (docs/results/README.md)
#   scripts/results.sh run OUT ARM …     train arms; OUT/ARM gets recipe, metrics, samples and the
#                                        compressed model
#   scripts/results.sh arms              list the arms
#   scripts/results.sh keys ARM          print the recipe of one
#
# Needs bin/spinnet (or SPINNET=path). To all arms apply RESULTS_DEVICE (cuda),
# RESULTS_SEED (1337), RESULTS_KEYS (more keys, which win) and RESULTS_PROMPT (of the samples).
set -euo pipefail
spinnet=${SPINNET:-bin/spinnet}

data() {
  local texts=$1 goroot files
  "$spinnet" prepare tinyshakespeare --force
  for tokenizer in bytes gpt2; do
    "$spinnet" prepare text "$texts/tinystories_train.txt" --val-file "$texts/tinystories_val.txt" \
      --tokenizer $tokenizer --out datasets/tinystories-$tokenizer --force
  done
  # Go's standard library with its tests, a file a document, and the Bible, 300 verses a document.
  goroot=$(go env GOROOT)
  awk 'NR % 300 == 0 { print "<|endoftext|>" } { print }' "$texts/kjv.txt" >datasets/kjv.txt
  mapfile -t files < <(find "$goroot/src" -name '*.go' -not -path '*/testdata/*' -not -path '*/vendor/*' -not -path '*/src/cmd/*' | LC_ALL=C sort)
  "$spinnet" prepare text datasets/kjv.txt "${files[@]}" --tokenizer gpt2 --out datasets/gostd-kjv --force # one call: each makes the dataset anew
}

# arm name: its recipe's keys.
declare -A arms
# TinyShakespeare, models of at most 1.5 MB. Steps, dropout and decay were tried on the
# validation split (docs/results/README.md).
s="--dataset=datasets/tinyshakespeare --n_layer=8 --n_head=8 --n_embd=512 --block_size=512 --batch_size=32 --act_bits=8 --warmup_iters=100 --learning_rate=3e-3 --weight_decay=0.1 --eval_interval=100"
arms[shakespeare-octonion]="$s --min_lr=1e-5 --algebra=octonion --octonion_attention --dropout=0.2 --max_iters=1400"
arms[shakespeare-octonion-4]="$s --n_layer=4 --min_lr=1e-4 --algebra=octonion --octonion_attention --dropout=0.3 --max_iters=1800"
arms[shakespeare-walsh-4]="$s --n_layer=4 --min_lr=1e-4 --algebra=walsh --dropout=0.3 --max_iters=1800"
arms[shakespeare-quaternion-4]="$s --n_layer=4 --min_lr=1e-4 --algebra=quaternion --dropout=0.4 --weight_decay=0.5 --max_iters=1100"
# TinyStories by bytes, 16.4 million tokens, and by GPT-2 tokens, 9.8 million.
classic="--quantizer=classic --init=classic --act_bits=0 --hidden_dim=1408 --weight_decay=0 --min_lr=1e-5"
ours="--quantizer=absmean --act_bits=8 --weight_decay=0.1 --min_lr=6e-5"
b="--dataset=datasets/tinystories-bytes --n_layer=8 --n_embd=512 --n_head=8 --block_size=512 --batch_size=32 --max_iters=1000 --warmup_iters=100"
arms[stories-bytes-classic]="$b $classic --algebra=octonion --octonion_attention --learning_rate=1e-2"
arms[stories-bytes-octonion]="$b $ours --algebra=octonion --octonion_attention --learning_rate=6e-3"
arms[stories-bytes-walsh]="$b $ours --algebra=walsh --learning_rate=6e-3"
g="--dataset=datasets/tinystories-gpt2 --vocab_size=50304 --n_layer=8 --n_embd=512 --n_head=8 --block_size=256 --batch_size=32 --gradient_accumulation_steps=4 --max_iters=300 --warmup_iters=30 --eval_interval=50"
arms[stories-gpt2-classic]="$g $classic --algebra=octonion --octonion_attention --learning_rate=6e-3"
arms[stories-gpt2-octonion]="$g $ours --algebra=octonion --octonion_attention --learning_rate=6e-3"
arms[stories-gpt2-walsh]="$g $ours --algebra=walsh --learning_rate=6e-3"
# The 124M shape on code and the Bible.
arms[gostd-kjv-124m]="--dataset=datasets/gostd-kjv --vocab_size=50304 --n_layer=24 --n_embd=1280 --n_head=20 --block_size=1024 --batch_size=10 --gradient_accumulation_steps=2 --act_bits=8 --algebra=walsh --learning_rate=3e-3 --min_lr=1e-5 --warmup_iters=200 --weight_decay=0.1 --eval_interval=250 --eval_iters=20 --checkpoint_interval=500"

run() { # OUT ARM…
  local out=$1 arm dir failed=0
  shift
  mkdir -p "$out"
  for arm in "$@"; do
    dir=$out/$arm
    # shellcheck disable=SC2086 # the recipe is a list of flags
    : >"$out/defaults.toml" # the program's own
    "$spinnet" train "$out/defaults.toml" --overwrite --out_dir="$dir" --device="${RESULTS_DEVICE:-cuda}" --seed="${RESULTS_SEED:-1337}" \
      --keep_checkpoints=1 --sample_tokens=0 ${arms[$arm]} ${RESULTS_KEYS:-} >"$dir.final" 2>"$dir.log" || { tail -3 "$dir.log"; failed=1; continue; }
    "$spinnet" compress "$dir/checkpoints/best" -o "$dir/model.spinnet" >>"$dir.log" 2>&1
    "$spinnet" generate "$dir/model.spinnet" --prompt "${RESULTS_PROMPT:-$'\n'}" --max-tokens 400 --temperature 0.8 --seed 1 >"$dir/sample.txt" 2>>"$dir.log"
    mv "$dir.final" "$dir.log" "$dir/"
    printf '%-28s %9d bytes  %s\n' "$arm" "$(stat -c %s "$dir/model.spinnet")" "$(tr '\n' ' ' <"$dir/$arm.final")"
  done
  return $failed
}

usage() { sed -n '2,12p' "$0" >&2; exit 2; }
known() { [ -n "${arms[$1]:-}" ] || { echo "no arm $1; see: $0 arms" >&2; exit 2; }; }

case ${1:-}/$# in
data/2) data "$2" ;;
run/[012]) usage ;;
run/*)
  for arm in "${@:3}"; do known "$arm"; done
  run "${@:2}"
  ;;
keys/2) known "$2" && echo "${arms[$2]}" ;;
arms/1) printf '%s\n' "${!arms[@]}" | sort ;;
*) usage ;;
esac
