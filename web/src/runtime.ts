import type { Counts, ModelInfo, Sampling } from './protocol'

// Calls the WebAssembly module (cmd/spinnet-wasm/web.go describes its exports).

interface Exports {
  memory: WebAssembly.Memory
  _initialize(): void
  web_alloc(n: number): number
  web_load(n: number): number
  web_info(): number
  web_start(n: number, maxTokens: number, temperature: number, topK: number, topP: number, minP: number, seedLow: number, seedHigh: number): number
  web_more(n: number): number
  web_step(): number
  web_tokens(): number
  web_prompt_tokens(): number
  web_unread(): number
  web_text_ptr(): number
  web_text_len(): number
}

/** Step is what came of a step; text is "" while the prompt is read, end is "" while there may be more. */
export interface Step {
  text: string
  end: '' | 'length' | 'stop'
}

export class Runtime {
  readonly #exports: Exports
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })

  /** The module is the canister's too, so it asks for the functions of an ICP system. */
  constructor(module: WebAssembly.Module) {
    let said = ''
    const text = (at: number, n: number) => this.#decoder.decode(new Uint8Array(this.#exports.memory.buffer, at >>> 0, n))
    const here: Record<string, (...args: number[]) => unknown> = {
      time: () => BigInt(Date.now()) * 1_000_000n,
      performance_counter: () => 0n,
      debug_print: (at, n) => {
        said += text(at!, n!)
      },
      trap: (at, n) => {
        throw new Error(said.trim() || text(at!, n!) || 'the program ended')
      },
    }
    const imports: Record<string, Record<string, (...args: number[]) => unknown>> = {}
    for (const { module: from, name } of WebAssembly.Module.imports(module)) {
      imports[from] ??= {}
      imports[from][name] = (from === 'ic0' && here[name]) || (() => {
        throw new Error(`${from}.${name} is for canisters`)
      })
    }
    this.#exports = new WebAssembly.Instance(module, imports).exports as unknown as Exports
    this.#exports._initialize()
  }

  /** input gives n bytes of the module to write into before the next call. */
  input(n: number): Uint8Array {
    const at = n > 0 && n < 2 ** 31 ? this.#exports.web_alloc(n) >>> 0 : 0
    if (at === 0) throw new Error(n > 0 ? `a file of ${n} bytes is too large for this page` : 'the file is empty')
    return new Uint8Array(this.#exports.memory.buffer, at, n)
  }

  /** load makes the first n bytes of the input the model that writes. */
  load(n: number): ModelInfo {
    this.#check(this.#exports.web_load(n))
    this.#check(this.#exports.web_info())
    const values = new Map<string, string>()
    const signs: string[] = []
    for (const line of this.#text().split('\n')) {
      const [key = '', value = ''] = line.split('\t')
      if (key === 'signs') signs.push(value)
      else values.set(key, value)
    }
    const number = (key: string) => Number(values.get(key) ?? 0)
    const string = (key: string) => values.get(key) ?? ''
    return {
      bytes: n, signs,
      layers: number('layers'), width: number('width'), hidden: number('hidden'), heads: number('heads'), context: number('context'),
      vocabulary: number('vocabulary'), weights: number('weights'), ternary: number('ternary'), zeros: number('zeros'), macs: number('macs'),
      activationBits: number('activation_bits'), embeddingBits: number('embedding_bits'),
      tokenizer: string('tokenizer'), quantizer: string('quantizer'), algebra: string('algebra'), trits: string('trits'),
    }
  }

  /** start makes ready to continue a prompt. */
  start(prompt: string, s: Sampling): void {
    const bytes = new TextEncoder().encode(prompt)
    if (bytes.length > 0) this.input(bytes.length).set(bytes)
    this.#check(this.#exports.web_start(bytes.length, s.maxTokens, s.temperature, s.topK, s.topP, 0, Number(s.seed & 0xffffffffn) | 0, Number(s.seed >> 32n) | 0))
  }

  /** more lets the text go on for n tokens. */
  more(n: number): void {
    this.#check(this.#exports.web_more(n))
  }

  /** step draws the next token, or reads some of the prompt. */
  step(): Step {
    const status = this.#exports.web_step()
    this.#check(status)
    return { text: this.#text(), end: status === 0 ? '' : status === 1 ? 'length' : 'stop' }
  }

  /** counts gives how many tokens are drawn, how many the prompt has, and how many of it are unread. */
  counts(): Counts {
    return { tokens: this.#exports.web_tokens(), promptTokens: this.#exports.web_prompt_tokens(), unread: this.#exports.web_unread() }
  }

  #check(status: number): void {
    if (status < 0) throw new Error(this.#text())
  }

  #text(): string {
    const e = this.#exports
    return this.#decoder.decode(new Uint8Array(e.memory.buffer, e.web_text_ptr() >>> 0, e.web_text_len()))
  }
}
