#!/usr/bin/env bash
# A canister writes what the command line writes, checked from end to end.
#
#   scripts/verify_canister.sh [PROMPT [TOKENS [MODEL]]]
#
# Builds spinnet, makes a canister of MODEL, starts a local replica, deploys
# with the icp command line, calls it with @icp-sdk/core, and prints the text
# of "spinnet generate" beside the canister's for the same seed, greedy and
# drawn, with tokens/s, instructions per token and tokens per call. It fails
# when the texts differ.
#
# Without MODEL, a small one is trained first, for about a minute. MODEL "bench" is
# one of random weights in the shape of docs/canister.md's figures: 8 layers, d
# 512, hidden width 1408, GPT-2's vocabulary, 1024 positions; ALGEBRA=walsh makes
# it of another algebra, KV=int8 keeps its keys and values in int8.
#
# Needs Go, node and npm; icp and @icp-sdk/core come from npm. SPINNET=path uses
# a program that is built, SEED=1 sets the seed, BUDGET=98 how much of a message's
# instructions, in percent, the canister uses (60).
set -euo pipefail
prompt=${1:-Once upon a time}
tokens=${2:-50}
model=${3:-}
# Paths are the caller's.
if [ -e "$model" ]; then model=$(realpath "$model"); fi
if [ -n "${SPINNET:-}" ]; then SPINNET=$(realpath "$SPINNET"); fi
cd "$(dirname "$0")/.."
seed=${SEED:-1}
kv=${KV:-float}
peers=canister/peers
icp=$PWD/$peers/node_modules/@icp-sdk/icp-cli-linux-x64/bin/icp
export GOTOOLCHAIN=${GOTOOLCHAIN:-go1.27.3} DO_NOT_TRACK=1

work=$(mktemp -d)
replica=
finish() {
  if [ -n "$replica" ]; then kill "$replica" 2>/dev/null && wait "$replica" || true; fi
  rm -rf "$work"
}
trap finish EXIT
step() { printf '== %s\n' "$*" >&2; }

# Run with its own home, icp neither asks nor changes anything of the user's.
icp() { (cd "$work/build" && HOME="$work" XDG_DATA_HOME="$work/data" XDG_CONFIG_HOME="$work/config" "$icp" "$@"); }

if [ ! -x "$icp" ] || [ ! -d $peers/node_modules/@icp-sdk/core ]; then
  step "npm: icp and @icp-sdk/core"
  npm --prefix $peers run --silent setup >&2
  chmod +x "$icp"
fi
spinnet=${SPINNET:-}
if [ -z "$spinnet" ]; then
  step "go build"
  spinnet=$work/spinnet
  CGO_ENABLED=0 go build -trimpath -o "$spinnet" ./cmd/spinnet
fi
if [ -z "$model" ]; then
  step "training a small model"
  "$spinnet" prepare tinyshakespeare --out "$work/data" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
  "$spinnet" train demo --dataset="$work/data" --out_dir="$work/run" --max_iters=150 --warmup_iters=10 \
    --eval_interval=150 --checkpoint_interval=150 --sample_tokens=0 >"$work/log" 2>&1 || { tail "$work/log" >&2; exit 1; }
  model=$work/run
fi
if [ "$model" = bench ]; then
  step "making a model of random weights"
  { "$spinnet" prepare text README.md docs/*.md --tokenizer gpt2 --out "$work/data" &&
    "$spinnet" train tinystories --dataset="$work/data" --out_dir="$work/run" --algebra="${ALGEBRA:-octonion}" --act_bits=8 \
      --n_layer=8 --n_embd=512 --hidden_dim=1408 --block_size=1024 --batch_size=1 --gradient_accumulation_steps=1 \
      --max_iters=1 --warmup_iters=0 --eval_iters=1 --sample_tokens=0; } >"$work/log" 2>&1 || { tail "$work/log" >&2; exit 1; }
  model=$work/run
fi
case $model in
*.spinnet) ;;
*)
  "$spinnet" compress "$model" -o "$work/model.spinnet" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
  model=$work/model.spinnet
  ;;
esac

step "spinnet canister build"
"$spinnet" canister build "$model" --kv-cache "$kv" -o "$work/build" >&2

step "spinnet canister local"
"$spinnet" canister local --port 0 --json >"$work/local.json" 2>"$work/replica.log" &
replica=$!
for _ in $(seq 100); do
  [ -s "$work/local.json" ] && break
  sleep 0.1
done
url=$(node -p 'JSON.parse(require("fs").readFileSync(process.argv[1])).url' "$work/local.json")
key=$(node -p 'JSON.parse(require("fs").readFileSync(process.argv[1])).root_key' "$work/local.json")
sed -i.bak "s#url: http://127.0.0.1:[0-9]*#url: $url#" "$work/build/icp.yaml"

step "icp deploy"
icp deploy --yes >"$work/log" 2>&1 || { cat "$work/log" "$work/replica.log" >&2; exit 1; }
id=$(icp canister status spinnet 2>/dev/null | sed -n 's/^Canister Id: //p')
icp canister call --query spinnet health '()' 2>/dev/null | tr -d '\n' >&2
echo >&2
if [ -n "${BUDGET:-}" ]; then
  icp canister call spinnet set_limits "(record { budget_percent = opt $BUDGET; max_tokens = opt $tokens })" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
fi
grep -E 'canister_init|compiled' "$work/replica.log" | sed 's/.*msg=//' >&2 || true

failed=0
for temperature in 0 0.8; do
  "$spinnet" generate "$model" --json --numeric int8 --kv-cache "$kv" --prompt "$prompt" --max-tokens "$tokens" --temperature $temperature --seed "$seed" >"$work/native.json"
  node $peers/verify.mjs "$url" "$key" "$id" "$prompt" "$tokens" $temperature "$seed" "$work/native.json" "${BUDGET:-60}" || failed=1
done
if [ $failed = 0 ]; then
  echo "the canister and the command line wrote the same texts"
else
  echo "the canister and the command line wrote different texts" >&2
  tail -5 "$work/replica.log" >&2
fi
exit $failed
