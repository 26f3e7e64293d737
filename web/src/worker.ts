// The worker: loads the module and a model, and writes texts with it, so that
// the page stays free to answer.

import type { Counts, FromWorker, ToWorker } from './protocol'
import { Runtime, type Step } from './runtime'

const say = (message: FromWorker) => postMessage(message)

let runtime: Runtime | undefined
let stopped = false

addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
  switch (data.kind) {
    case 'load':
      load(data).catch((e) => say({ kind: 'failed', message: reason(e) }))
      break
    case 'write':
      void write((r) => r.start(data.prompt, data.sampling))
      break
    case 'more':
      void write((r) => r.more(data.tokens))
      break
    case 'stop':
      stopped = true
  }
})

async function load({ runtime: url, cache: name, model }: ToWorker & { kind: 'load' }): Promise<void> {
  // Caches exist in secure contexts only; without them all is fetched anew.
  const cache = 'caches' in globalThis ? await caches.open(name) : undefined
  const opening = compile(url).then((module) => new Runtime(module))
  opening.catch(() => {}) // until it is awaited
  const source: Source = model instanceof File ? { body: model.stream(), bytes: model.size } : await fetched(model, cache)
  if (source.bytes >= 2 ** 31) throw new Error(`the file has ${(source.bytes / 2 ** 30).toFixed(1)} GiB, and a page can take 2`)
  try {
    const r = await opening
    await fill(r.input(source.bytes), source)
    const start = performance.now()
    const info = r.load(source.bytes)
    const ms = performance.now() - start
    runtime = r
    say({ kind: 'ready', info, kept: (await source.kept) ?? false, ms })
  } catch (e) {
    // What a host has sent wrongly once must not stay.
    if (!(model instanceof File)) await source.kept?.then(() => Promise.all([cache?.delete(url), cache?.delete(model.url)]))
    throw e
  }
}

/** A model's file on its way. */
interface Source {
  body: ReadableStream<Uint8Array>
  bytes: number
  kept?: Promise<boolean> // for offline use
}

/** fill reads all of a source into memory of the module. */
async function fill(into: Uint8Array, { body, bytes }: Source): Promise<void> {
  let done = 0
  for (const reader = body.getReader(); ; ) {
    const { done: end, value } = await reader.read()
    if (end) break
    if (done + value.length > bytes) throw new Error(`more than the ${bytes} bytes announced have arrived`)
    into.set(value, done)
    done += value.length
    say({ kind: 'progress', done, total: bytes })
  }
  if (done < bytes) throw new Error(`only ${done} of ${bytes} bytes have arrived`)
}

/** compile compiles the module, while it arrives where the server names its type. */
async function compile(url: string): Promise<WebAssembly.Module> {
  const response = await fetch(url)
  if (!response.ok) throw new Error(`the program cannot be fetched: ${response.status} ${response.statusText}`)
  return response.headers.get('content-type') === 'application/wasm'
    ? WebAssembly.compileStreaming(response)
    : WebAssembly.compile(await response.arrayBuffer())
}

/** fetched gives a model from the cache, or from the network and then puts it into the cache. */
async function fetched({ url, bytes }: { url: string; bytes: number }, cache: Cache | undefined): Promise<Source> {
  const have = await cache?.match(url)
  if (have?.body) return { body: have.body, bytes, kept: Promise.resolve(true) }
  let response: Response
  try {
    response = await fetch(url)
  } catch {
    throw new Error('the model cannot be fetched: is this device online?')
  }
  if (!response.ok || !response.body) throw new Error(`the model cannot be fetched: ${response.status} ${response.statusText}`)
  // Without room for it the page works, but not offline.
  const kept = cache?.put(url, response.clone()).then(() => true, () => false)
  return { body: response.body, bytes, kept }
}

/** A turn of the event loop, in which a message to stop arrives; timers would wait for milliseconds. */
const channel = new MessageChannel()
const turn = () => new Promise<void>((resolve) => {
  channel.port1.onmessage = () => resolve()
  channel.port2.postMessage(null)
})

/** Milliseconds of writing between two turns: a frame. */
const frame = 14

/** write begins a text, or goes on with it, and says what comes until it ends or is stopped. */
async function write(begin: (r: Runtime) => void): Promise<void> {
  stopped = false
  const r = runtime
  let counts: Counts = { tokens: 0, promptTokens: 0, unread: 0 }
  let speed = 0
  const ended = (reason: (FromWorker & { kind: 'end' })['reason'], message = '') => say({ kind: 'end', reason, message, speed, ...counts })
  try {
    if (!r) throw new Error('no model is loaded')
    begin(r)
    let first: { tokens: number; at: number } | undefined // since when tokens are drawn: the first comes out of the prompt
    for (;;) {
      const until = performance.now() + frame
      let text = ''
      let end: Step['end'] = ''
      do {
        const step = r.step()
        text += step.text
        end = step.end
        if (!first && r.counts().tokens > 0) first = { tokens: r.counts().tokens, at: performance.now() }
      } while (end === '' && performance.now() < until)
      counts = r.counts()
      if (first && counts.tokens > first.tokens) speed = ((counts.tokens - first.tokens) / (performance.now() - first.at)) * 1000
      say({ kind: 'text', text, speed, ...counts })
      if (end !== '') return ended(end)
      await turn()
      if (stopped) return ended('stopped')
    }
  } catch (e) {
    ended('failed', reason(e))
  }
}

/** reason is an error's message, for a reader. */
function reason(e: unknown): string {
  const message = e instanceof Error ? e.message : String(e)
  if (/out of memory|memory access out of bounds|Out of bounds|allocation failed/i.test(message)) return 'the model does not fit into the memory that the browser gives a page'
  return message.replace(/^(web|spinfile|tokenizer|engine): /, '')
}
