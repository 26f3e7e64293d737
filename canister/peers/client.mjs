// Calls a SpinNet canister with @icp-sdk/core, which checks certificates and
// query signatures: node client.mjs URL ROOT_KEY CANISTER PROMPT TOKENS
// It writes what each of three kinds of callers got as one JSON object.
import { Actor, AnonymousIdentity, HttpAgent } from "@icp-sdk/core/agent";
import { Ed25519KeyIdentity } from "@icp-sdk/core/identity";
import { Secp256k1KeyIdentity } from "@icp-sdk/core/identity/secp256k1";

const [url, rootKey, canisterId, prompt, tokens] = process.argv.slice(2);
const service = ({ IDL }) => {
  const written = IDL.Record({ session: IDL.Nat64, text: IDL.Text, tokens: IDL.Nat32, finish_reason: IDL.Text, instructions: IDL.Nat64 });
  const request = IDL.Record({ prompt: IDL.Text, max_tokens: IDL.Opt(IDL.Nat32), temperature: IDL.Opt(IDL.Float64) });
  const outcome = IDL.Variant({ ok: written, err: IDL.Text });
  return IDL.Service({
    generate: IDL.Func([request], [outcome], []),
    resume: IDL.Func([IDL.Nat64], [outcome], []),
    health: IDL.Func([], [IDL.Record({ ready: IDL.Bool, status: IDL.Text })], ["query"]),
    pause_service: IDL.Func([], [], []),
    nothing: IDL.Func([], [], []),
  });
};

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
  const agent = await HttpAgent.create({ host: url, identity, rootKey: Uint8Array.from(Buffer.from(rootKey, "hex")), verifyQuerySignatures: true });
  const canister = Actor.createActor(service, { agent, canisterId });
  let text = "";
  let calls = 0;
  let answer = await canister.generate({ prompt, max_tokens: [Number(tokens)], temperature: [0] });
  for (;;) {
    calls++;
    if (answer.err !== undefined) throw new Error(answer.err);
    text += answer.ok.text;
    if (answer.ok.finish_reason !== "paused") break;
    answer = await canister.resume(answer.ok.session);
  }
  out[name] = {
    text,
    calls,
    health: (await canister.health()).status,
    nothing: await failure(() => canister.nothing()),
  };
}

// With another root key nothing may be believed.
const wrong = Buffer.from(rootKey, "hex");
wrong[wrong.length - 1] ^= 1;
out.wrongKey = await failure(async () => {
  const agent = await HttpAgent.create({ host: url, rootKey: Uint8Array.from(wrong), verifyQuerySignatures: true });
  await Actor.createActor(service, { agent, canisterId }).health();
});
console.log(JSON.stringify(out));
