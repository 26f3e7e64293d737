// Calls a canister as three kinds of callers and writes what each got as one
// JSON object: node client.mjs URL ROOT_KEY CANISTER PROMPT TOKENS
import { AnonymousIdentity } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { Secp256k1KeyIdentity } from "@icp-sdk/core/identity/secp256k1";
import { connect, write } from "./spinnet.mjs";

const [url, rootKey, id, prompt, tokens] = process.argv.slice(2);

const failure = async (call) => {
  try {
    await call();
  } catch (e) {
    return String(e.message ?? e);
  }
  return "";
};

const out = {};
const identities = { anonymous: new AnonymousIdentity(), ed25519: Ed25519KeyIdentity.generate(), secp256k1: Secp256k1KeyIdentity.generate() };
for (const [name, identity] of Object.entries(identities)) {
  const canister = await connect(url, rootKey, id, identity);
  out[name] = {
    text: (await write(canister, prompt, Number(tokens), 0, 1)).text,
    health: (await canister.health()).status,
    nothing: await failure(() => canister.nothing()),
  };
}

// With another root key nothing may be believed.
const last = rootKey.at(-1) === "0" ? "1" : "0";
out.wrongKey = await failure(async () => (await connect(url, rootKey.slice(0, -1) + last, id)).health());
console.log(JSON.stringify(out));
