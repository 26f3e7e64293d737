// A SpinNet canister for @icp-sdk/core, which checks certificates and query
// signatures.
import { Actor, HttpAgent } from "@icp-sdk/core/agent";

// Only what is used here; spinnet.did has the whole.
const service = ({ IDL }) => {
  const written = IDL.Record({ session: IDL.Nat64, text: IDL.Text, tokens: IDL.Nat32, prompt_tokens: IDL.Nat32, finish_reason: IDL.Text, instructions: IDL.Nat64 });
  const request = IDL.Record({ prompt: IDL.Text, max_tokens: IDL.Opt(IDL.Nat32), temperature: IDL.Opt(IDL.Float64), seed: IDL.Opt(IDL.Nat64) });
  const outcome = IDL.Variant({ ok: written, err: IDL.Text });
  return IDL.Service({
    generate: IDL.Func([request], [outcome], []),
    resume: IDL.Func([IDL.Nat64], [outcome], []),
    end_session: IDL.Func([IDL.Nat64], [IDL.Variant({ ok: IDL.Null, err: IDL.Text })], []),
    health: IDL.Func([], [IDL.Record({ ready: IDL.Bool, status: IDL.Text })], ["query"]),
    nothing: IDL.Func([], [], []),
  });
};

// connect gives the canister; rootKey is hexadecimal.
export async function connect(host, rootKey, canisterId, identity) {
  const agent = await HttpAgent.create({ host, identity, rootKey: Uint8Array.from(Buffer.from(rootKey, "hex")), verifyQuerySignatures: true });
  return Actor.createActor(service, { agent, canisterId });
}

// write generates a text, in as many calls as it takes.
export async function write(canister, prompt, tokens, temperature, seed) {
  const out = { text: "", tokens: 0, calls: [], instructions: 0n, seconds: 0 };
  const start = performance.now();
  let answer = await canister.generate({ prompt, max_tokens: [tokens], temperature: [temperature], seed: [BigInt(seed)] });
  for (;;) {
    if (answer.err !== undefined) throw new Error(answer.err);
    out.calls.push(answer.ok.tokens);
    out.text += answer.ok.text;
    out.tokens += answer.ok.tokens;
    out.instructions += answer.ok.instructions;
    out.promptTokens = answer.ok.prompt_tokens;
    if (answer.ok.finish_reason !== "paused") break;
    answer = await canister.resume(answer.ok.session);
  }
  out.seconds = (performance.now() - start) / 1000;
  await canister.end_session(answer.ok.session);
  return out;
}
