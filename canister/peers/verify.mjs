// Compares what a canister writes with what the command line wrote:
//   node verify.mjs URL ROOT_KEY CANISTER PROMPT TOKENS TEMPERATURE SEED FILE BUDGET
// FILE holds what "spinnet generate --json" wrote. Prints both side by side and what the
// canister's cost; fails when they differ. BUDGET is what part of a message's
// instructions the canister uses, in percent.
import { readFileSync } from "node:fs";
import { connect, write } from "./spinnet.mjs";

const [url, rootKey, id, prompt, tokens, temperature, seed, file, budget] = process.argv.slice(2);
const native = JSON.parse(readFileSync(file, "utf8")).text;
const canister = await connect(url, rootKey, id);
const got = await write(canister, prompt, Number(tokens), Number(temperature), seed);

// lines folds a text to lines of a width.
const width = 52;
const lines = (text) => text.split("\n").flatMap((l) => l.match(new RegExp(`.{1,${width}}`, "gu")) ?? [""]);
const [left, right] = [lines(native), lines(got.text)];
const row = (a, b) => console.log(`${a.padEnd(width)} | ${b}`);
console.log(`temperature ${temperature}, seed ${seed}`);
row("spinnet generate", "canister");
row("-".repeat(width), "-".repeat(width));
const height = 20;
const all = Math.max(left.length, right.length);
for (let i = 0; i < Math.min(all, height); i++) row(left[i] ?? "", right[i] ?? "");
if (all > height) row(`… ${all - height} more lines`, "…");

const each = Number(got.instructions) / (got.tokens + got.promptTokens);
const millions = (n) => (n / 1e6).toFixed(1) + " M";
console.log(`
${got.tokens} tokens after a prompt of ${got.promptTokens}, in ${got.calls.length} call(s) of ${got.calls.join(", ")} tokens
${(got.tokens / got.seconds).toFixed(1)} tokens/s on this replica, ${got.seconds.toFixed(2)} s in all
${millions(Number(got.instructions))} instructions: ${millions(each)} a token, read or written; at that, ${budget} % of the 40 B of a call hold ${Math.floor((budget / 100) * 40e9 / each)} tokens
`);
if (got.text !== native) {
  console.error("the texts differ");
  process.exit(1);
}
