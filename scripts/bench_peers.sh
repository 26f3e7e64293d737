#!/usr/bin/env bash
# spinnet beside llama.cpp on one machine, in turns: decoding at a context of
# 256 tokens, and prompts of 256 tokens. Prints a table with the ratio to
# llama.cpp's best quantisation.
#
#   scripts/bench_peers.sh [MODEL]
#
# MODEL is any model file with rows of a multiple of 256; without one, a
# random model of 8 layers, d 512, hidden width 1536 and GPT-2's vocabulary is
# made and compressed, with an embedding of 8 and of 4 bits. llama.cpp runs GGUF
# files exported from MODEL. Ratios are those of MODEL with a float cache;
# llama.cpp's cache is float16.
#
# Needs bin/spinnet (or SPINNET=path), node and npm. ROUNDS=3 sets how often
# each is measured; the median counts. TYPES="linear/embedding …" sets the
# quantisations. Let nothing else run: llama.cpp's threads wait for one another
# in loops, and one busy process beside two of them makes them ten times as
# slow. On a machine that is not idle, PREFIX="chrt -r 1" (as root) gives both
# programs real-time priority.
set -euo pipefail
cd "$(dirname "$0")/.."
spinnet=$(realpath "${SPINNET:-bin/spinnet}")
rounds=${ROUNDS:-3}
types=${TYPES:-tq2_0/q6_k tq2_0/q8_0 q4_0/q6_k q4_0/q8_0 q8_0/q8_0}
prefix=${PREFIX:-}
peer=interop/llamacpp
export UV_THREADPOOL_SIZE=1 # see run.mjs

[ -d $peer/node_modules/node-llama-cpp ] || npm --prefix $peer run --silent setup >&2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

model=${1:-}
if [ -z "$model" ]; then
  echo "making a random model" >&2
  "$spinnet" prepare text README.md docs/*.md --tokenizer gpt2 --out "$work/data" >&2
  "$spinnet" train tinystories --dataset="$work/data" --out_dir="$work/run" --algebra=octonion \
    --hidden_dim=1536 --block_size=512 --batch_size=1 --gradient_accumulation_steps=1 \
    --max_iters=1 --warmup_iters=0 --eval_iters=1 --sample_tokens=0 2>"$work/train.log" >&2 || { cat "$work/train.log" >&2; exit 1; }
  model=$work/model.spinnet
  "$spinnet" compress "$work/run" -o "$model" >&2
  "$spinnet" compress "$work/run" -o "$work/q4.spinnet" --embedding q4 >&2
fi
for t in $types; do
  "$spinnet" convert "$model" "$work/${t/\//+}.gguf" --linear "${t%/*}" --embedding "${t#*/}" >&2
done

threads="1 $(nproc)"
[ "$(nproc)" != 1 ] || threads=1
results=$work/results
for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  for n in $threads; do
    for bench in decode prefill; do
      $prefix "$spinnet" bench "$bench" --model "$model" --threads "$n" --json |
        sed "s/^/spinnet $n $bench /" >>"$results"
      [ ! -f "$work/q4.spinnet" ] || $prefix "$spinnet" bench "$bench" --model "$work/q4.spinnet" --threads "$n" --json |
        sed "s/^/spinnet-q4 $n $bench /" >>"$results"
    done
    for t in $types; do
      echo "{\"model\": \"$work/${t/\//+}.gguf\", \"threads\": $n, \"bench\": {\"context\": 256, \"decode\": 64, \"prefill\": 256, \"runs\": 5}}" |
        $prefix node $peer/run.mjs | sed "s,^,llama.cpp/$t $n all ," >>"$results"
    done
  done
done

uname -srm
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //' || true
node - "$results" "$model" "$work" <<'EOF'
const fs = require("node:fs"), [results, model, work] = process.argv.slice(2);
const values = {}; // values[threads][what][program]: tokens/s of each round
let system = "";
for (const line of fs.readFileSync(results, "utf8").trim().split("\n")) {
    const [, program, threads, bench, json] = /^(\S+) (\d+) (\S+) (.*)$/.exec(line);
    const r = JSON.parse(json);
    const name = program + (r.shape?.endsWith("cache int8") ? ", int8 cache" : "");
    const add = (what, x) => (((values[threads] ??= {})[what] ??= {})[name] ??= []).push(x);
    if (bench === "all") {
        add("decode", r.decode);
        add("prefill", r.prefill);
        system = `${r.library}: ${r.system}`;
    } else
        add(bench, r.tokens_per_s);
}
const median = (v) => v.sort((a, b) => a - b)[v.length >> 1];
const size = (name) => (fs.statSync(name).size / 1e6).toFixed(1);
const file = (p) => p.startsWith("spinnet-q4") ? `${work}/q4.spinnet` : p.startsWith("spinnet") ? model : `${work}/${p.slice("llama.cpp/".length).replace("/", "+")}.gguf`;
console.log(`llama.cpp: ${system}\n`);
console.log("| threads | program | file, MB | decode, tokens/s | spinnet × | prefill, tokens/s | spinnet × |");
console.log("|---|---|---|---|---|---|---|");
for (const threads in values) {
    const at = values[threads], ours = {};
    for (const what of ["decode", "prefill"])
        ours[what] = median(at[what].spinnet);
    const best = {};
    for (const program of Object.keys(at.decode)) {
        const cells = [threads, program, size(file(program))];
        for (const what of ["decode", "prefill"]) {
            const v = at[what][program], own = program.startsWith("spinnet");
            if (!v) { // one kind of cache is enough for prompts
                cells.push("", "");
                continue;
            }
            const m = median(v);
            cells.push(`${m.toFixed(0)} (${v[0].toFixed(0)}–${v.at(-1).toFixed(0)})`);
            cells.push(own ? "" : (ours[what] / m).toFixed(2));
            if (!own && !(best[what]?.rate > m))
                best[what] = {program, rate: m};
        }
        console.log(`| ${cells.join(" | ")} |`);
    }
    for (const what in best)
        console.error(`${threads} thread(s), ${what}: ${(ours[what] / best[what].rate).toFixed(2)} × the best of llama.cpp (${best[what].program})`);
}
EOF
