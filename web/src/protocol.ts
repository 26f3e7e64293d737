// What the page and its worker say to each other.

/** Site is site.json, which `spinnet web build` writes beside the page. */
export interface Site {
  version: string // of spinnet
  files: string[] // of the page, this one apart
  runtime: Blob_ // the WebAssembly module
  model?: Blob_ & { name: string; prompt: string }
}

/** Blob_ is a file named by its content. */
export interface Blob_ {
  file: string
  bytes: number
}

/** ModelInfo describes a loaded model. */
export interface ModelInfo {
  bytes: number // of its file
  layers: number
  width: number
  hidden: number
  heads: number
  context: number
  vocabulary: number
  weights: number
  macs: number // multiply–accumulates a token, as dense matrices
  activationBits: number // that it was trained with, 0: float
  embeddingBits: number // 0: unknown, as the next three
  ternary: number // weights of −1, 0, +1
  zeros: number // among them
  trits: string // the first of them, as -, 0 and +
  tokenizer: string
  quantizer: string
  algebra: string
  signs: string[] // of the algebra's multiplication table, a row a string of + and -
}

/** Sampling says how tokens are drawn, as the flags of `spinnet generate` do. */
export interface Sampling {
  temperature: number
  topK: number
  topP: number
  seed: bigint
  maxTokens: number
}

/** Counts are the tokens of a text: drawn, of the prompt, and of these not read yet. */
export interface Counts {
  tokens: number
  promptTokens: number
  unread: number
}

/** ToWorker are the messages of the page. */
export type ToWorker =
  | { kind: 'load'; runtime: string; cache: string; model: { url: string; bytes: number } | File }
  | { kind: 'write'; prompt: string; sampling: Sampling }
  | { kind: 'more'; tokens: number } // of the text that is written or was stopped
  | { kind: 'stop' }

/** FromWorker are the messages of the worker. */
export type FromWorker =
  | { kind: 'progress'; done: number; total: number } // bytes
  | { kind: 'ready'; info: ModelInfo; kept: boolean; ms: number } // kept: for offline use; ms: without the network
  | { kind: 'failed'; message: string } // loading has
  | ({ kind: 'text'; text: string; speed: number } & Counts) // speed: tokens a second, 0 if not known yet
  | ({ kind: 'end'; reason: 'length' | 'stop' | 'stopped' | 'failed'; message: string; speed: number } & Counts)
