// Runs a GGUF file in llama.cpp, for interop/llamacpp_test.go and
// scripts/bench_peers.sh. A job comes as JSON on standard input, the result
// goes as JSON to standard output. Install with: npm run setup
//
//   {"model": FILE, "texts": [STRING…], "prompt": [ID…], "greedy": N}
//     tokens     the ids of each text, decoded the text of those ids
//     greedy     N ids after the prompt, the most likely each time
//     logits     of all tokens after the prompt, float32 in base64
//     last       the same after the prompt and the N ids but the last
//   {"model": FILE, "bench": {"context": 256, "decode": 64, "prefill": 256, "runs": 5}, "threads": N}
//     decode     tokens/s of steps one by one, around a context of so many
//     prefill    tokens/s of so many tokens at once, logits of the last
//
// With two threads or more set UV_THREADPOOL_SIZE=1: otherwise each step may
// start on another of libuv's threads, away from its data.
import path from "node:path";
import {getLlama} from "node-llama-cpp";

const input = [];
for await (const chunk of process.stdin)
    input.push(chunk);
const job = JSON.parse(Buffer.concat(input).toString());
const threads = job.threads ?? 1;
const llama = await getLlama({
    gpu: false, build: "never", maxThreads: threads, logLevel: "error",
    logger: (level, message) => process.stderr.write(message.trimEnd() + "\n")
});
const model = await llama.loadModel({modelPath: path.resolve(job.model)});
const vocab = model.fileInfo.metadata.tokenizer.ggml.tokens.length;
const size = job.contextSize ?? model.trainContextSize;
const context = await model.createContext({contextSize: size, batchSize: size, threads});
const ctx = context._ctx; // below the public interface, which samples and shifts on its own
ctx.setThreads(threads);
const sampler = new llama._bindings.AddonSampler(model._model);
sampler.applyConfig({temperature: 0});

let pos = 0;
async function read(ids) { // gives the place of the last one's logits
    ctx.initBatch(ids.length);
    const at = ctx.addToBatch(0, pos, Uint32Array.from(ids), Uint32Array.of(ids.length - 1));
    await ctx.decodeBatch();
    pos += ids.length;
    return at[0];
}
function clear() {
    ctx.disposeSequence(0);
    pos = 0;
}
async function logits(at) {
    const [, , , pairs] = await ctx.sampleToken(at, sampler, false, false, true, false);
    const all = new Float32Array(vocab).fill(NaN);
    for (let i = 0; i < pairs.length; i += 2)
        all[pairs[i]] = pairs[i + 1];
    return Buffer.from(all.buffer).toString("base64");
}

const result = {
    system: llama.systemInfo,
    library: process.report.getReport().sharedObjects.map((p) => path.basename(p)).find((p) => p.startsWith("libggml-cpu"))
};
if (job.texts) {
    result.tokens = job.texts.map((text) => [...model._model.tokenize(text, false)]);
    result.decoded = result.tokens.map((ids) => model._model.detokenize(Uint32Array.from(ids), false));
}
if (job.prompt) {
    let at = await read(job.prompt);
    result.logits = await logits(at);
    result.greedy = [];
    for (let i = 0; i < job.greedy; i++) {
        if (i > 0)
            at = await read(result.greedy.slice(-1));
        result.greedy.push(await ctx.sampleToken(at, sampler));
    }
    if (job.greedy > 0)
        result.last = await logits(at);
}
if (job.bench) {
    const {context: length, decode, prefill, runs} = job.bench;
    const ids = (n) => Array.from({length: n}, (_, i) => (i * 7919 + 31) % Math.min(vocab, 50000));
    const start = Math.max(1, length - decode / 2);
    const now = () => Number(process.hrtime.bigint()) / 1e9;
    const rates = {decode: [], prefill: []};
    for (let run = 0; run <= runs; run++) { // the first is not counted
        clear();
        await read(ids(start));
        let t = now();
        for (const id of ids(decode))
            await read([id]);
        if (run > 0)
            rates.decode.push(decode / (now() - t));
        clear();
        t = now();
        await read(ids(prefill));
        if (run > 0)
            rates.prefill.push(prefill / (now() - t));
    }
    for (const [name, values] of Object.entries(rates)) {
        values.sort((a, b) => a - b);
        result[name] = values[values.length >> 1];
        result[name + "_range"] = [values[0], values.at(-1)];
    }
}
process.stdout.write(JSON.stringify(result) + "\n", () => process.exit(0)); // without waiting for the library's threads
