// Links that write a text again: prompt and settings, in the part of the
// address that is not sent to the server.

import type { Sampling } from './protocol'

/** Settings are all that a text depends on beside the model. */
export type Settings = Sampling & { prompt: string }

/** linkTo gives the address that writes the text again. */
export function linkTo(base: string, s: Settings, model: string): string {
  const q = new URLSearchParams({ prompt: s.prompt, temperature: String(s.temperature), seed: String(s.seed), tokens: String(s.maxTokens) })
  if (s.topK) q.set('top-k', String(s.topK))
  if (s.topP) q.set('top-p', String(s.topP))
  if (model) q.set('model', model)
  return `${base}#${q}`
}

/** readLink reads the fragment of such an address, undefined if it is none. Nonsense in it is left out. */
export function readLink(hash: string): (Partial<Settings> & { model?: string }) | undefined {
  if (!hash.startsWith('#prompt=')) return undefined
  const q = new URLSearchParams(hash.slice(1))
  const number = (key: string, most: number) => {
    const v = q.get(key)
    return v !== null && /^[0-9.]+$/.test(v) && Number(v) <= most ? Number(v) : undefined
  }
  const seed = q.get('seed') ?? ''
  return {
    prompt: q.get('prompt')!, temperature: number('temperature', 2), topK: number('top-k', 1e6), topP: number('top-p', 1), maxTokens: number('tokens', 1e6),
    seed: /^[0-9]{1,20}$/.test(seed) ? BigInt(seed) : undefined, model: q.get('model') ?? undefined,
  }
}

/** fillControls sets the controls of the page to what a link says. */
export function fillControls(s: Partial<Settings>): void {
  const set = (id: string, value: unknown) => {
    const input = document.getElementById(id) as HTMLInputElement
    if (value !== undefined) input.value = String(value)
    input.dispatchEvent(new Event('input', { bubbles: true }))
  }
  set('prompt', s.prompt)
  set('temperature', s.temperature)
  set('top-k', s.topK)
  set('top-p', s.topP || undefined)
  set('seed', s.seed)
  set('max-tokens', s.maxTokens)
}
