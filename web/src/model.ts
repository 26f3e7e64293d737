// The card that says which model this is.

import type { ModelInfo } from './protocol'

const ns = 'http://www.w3.org/2000/svg'
const count = (n: number) => n.toLocaleString('en')
/** short gives 1.78 M for 1,781,952. */
const short = (n: number) => (n < 1e4 ? count(n) : n < 1e6 ? `${(n / 1e3).toPrecision(3)} K` : n < 1e9 ? `${(n / 1e6).toPrecision(3)} M` : `${(n / 1e9).toPrecision(3)} G`)
const size = (n: number) => (n < 1e6 ? `${(n / 1e3).toPrecision(3)} kB` : `${(n / 1e6).toPrecision(3)} MB`)

const tokens: Record<string, string> = { chars: 'characters', bytes: 'bytes', gpt2: 'GPT-2 tokens', llama: 'Llama tokens' }

/** What an algebra is called, and what it does. */
const algebras: Record<string, [string, string]> = {
  real: ['real numbers', 'Real numbers: ordinary layers.'],
  complex: ['complex numbers', 'Complex numbers: two parts that share their weights, half as many.'],
  quaternion: ['quaternions', 'Quaternions: four parts that share their weights, a quarter as many.'],
  octonion: ['octonions', 'Octonions: eight parts that share their weights, an eighth as many.'],
  sedenion: ['sedenions', 'Sedenions: sixteen parts that share their weights, a sixteenth as many.'],
  walsh: ['Walsh algebra', 'The Walsh algebra: eight parts that share their weights, an eighth as many. Every sign is plus.'],
  random: ['random signs', 'Random signs: eight parts that share their weights, an eighth as many.'],
}

const algebra = (name: string) => algebras[name.split(':')[0]!] ?? [name, name]

/** showModel fills the card. */
export function showModel(m: ModelInfo): void {
  const ternary = m.ternary > 0
  const facts: [string, string][] = [
    ['File', size(m.bytes)],
    ['Weights', short(m.weights)],
    ['Stand for', `${short(m.macs)} dense`],
    ['Layers', `${m.layers} × ${m.width}`],
    ['Feed-forward', count(m.hidden)],
    ['Heads', count(m.heads)],
    ['Context', `${count(m.context)} tokens`],
    ['Vocabulary', `${count(m.vocabulary)} ${tokens[m.tokenizer] ?? m.tokenizer}`],
    ['Layers’ weights', ternary ? `1.6 bits, ${((100 * m.zeros) / m.ternary).toFixed(0)} % zeros` : ''],
    ['Embedding', m.embeddingBits ? `${m.embeddingBits} bits` : ''],
    ['Activations', m.activationBits ? `${m.activationBits} bits` : '8 bits, trained in float'],
  ]
  const names = m.algebra.split(',').map((name) => name.trim())
  const brief = document.getElementById('brief')!
  brief.replaceChildren(...[size(m.bytes), `${m.layers} layers`, names.map((name) => algebra(name)[0]).join(', '), ternary ? '1.6 bits a weight' : '', `${count(m.vocabulary)} ${tokens[m.tokenizer] ?? m.tokenizer}`]
    .filter(Boolean).map((text) => element('span', text)))
  brief.hidden = false
  const list = document.getElementById('facts')!
  list.replaceChildren(...facts.filter(([, value]) => value).flatMap(([key, value]) => {
    return [element('dt', key), element('dd', value)]
  }))
  const about = algebra(names[0]!)[1] + (names.length > 1 ? ` Layers take turns: ${names.join(', ')}.` : '')
  document.getElementById('algebra')!.replaceChildren(table(m.signs), element('p', about))
  drawWeights(m.trits)
  document.getElementById('model')!.hidden = false
}

/** table draws a multiplication table: a cell's colour is its sign, its strength the part that the product falls on. */
function table(signs: string[]): SVGElement {
  const n = signs.length
  const svg = document.createElementNS(ns, 'svg')
  svg.setAttribute('viewBox', `0 0 ${n} ${n}`)
  svg.setAttribute('role', 'img')
  svg.setAttribute('aria-label', `Multiplication table of ${n} by ${n} signs`)
  svg.append(...signs.flatMap((row, i) => [...row].map((sign, j) => cell(j, i, sign === '-' ? 'minus' : 'plus', 0.28 + (0.72 * (i ^ j)) / Math.max(1, n - 1)))))
  return svg
}

/** drawWeights shows the first weights of the model, a square each: no two models look alike. */
function drawWeights(trits: string): void {
  const width = 40
  const height = 6
  const svg = document.getElementById('weights')!
  svg.toggleAttribute('hidden', trits.length < width * height)
  svg.setAttribute('aria-label', `The first ${width * height} weights, coloured by whether they are −1, 0 or +1`)
  svg.replaceChildren(...[...trits.slice(0, width * height)].map((trit, i) => cell(i % width, Math.floor(i / width), { '-': 'minus', '0': 'zero', '+': 'plus' }[trit]!)))
}

/** cell is a square of a drawing. */
function cell(x: number, y: number, kind: string, opacity = 1): SVGElement {
  const rect = document.createElementNS(ns, 'rect')
  const gap = 0.07
  for (const [key, value] of Object.entries({ x: x + gap, y: y + gap, width: 1 - 2 * gap, height: 1 - 2 * gap, rx: 0.18, 'fill-opacity': opacity, class: kind })) {
    rect.setAttribute(key, String(value))
  }
  return rect
}

function element(kind: string, text: string): HTMLElement {
  const e = document.createElement(kind)
  e.textContent = text
  return e
}
