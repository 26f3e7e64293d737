// The page: what is shown, and what the reader does. The model runs in worker.ts.

import { fillControls, linkTo, readLink, type Settings } from './link'
import { showModel } from './model'
import type { FromWorker, ModelInfo, Site, ToWorker } from './protocol'

const get = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T

const alertBox = get('alert')
const form = get<HTMLFormElement>('form')
const prompt = get<HTMLTextAreaElement>('prompt')
const writeButton = get<HTMLButtonElement>('write')
const stopButton = get<HTMLButtonElement>('stop')
const status = get('status')
const text = get('text')
const written = get('written')
const controls = get<HTMLFieldSetElement>('controls')

/** The base of the site, and the name of its cache, which is that of sw.ts. */
const base = new URL('./', location.href).href.replace(/[?#].*$/, '')
const cacheName = `spinnet ${base}`

/** A model that is loaded, and the worker that has it. */
interface Loaded {
  worker: Worker
  name: string
  id: string // of links; "" for files of the reader
  info: ModelInfo
}

let site: Site
let loaded: Loaded | undefined
let loading: Worker | undefined // with a model that is to take its place
let writing = false
let last: Settings | undefined // of the text shown
let drawn = 0 // its tokens

// ---------------------------------------------------------------- loading

async function begin(): Promise<void> {
  document.body.classList.add('running')
  if (!simd()) {
    failLoading('This browser lacks WebAssembly SIMD, which the model needs. Chrome and Edge have it from version 91, Firefox from 89, Safari from 16.4.')
    return
  }
  try {
    const response = await fetch('site.json')
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`)
    site = (await response.json()) as Site
  } catch (e) {
    failLoading(`The page is not whole: site.json cannot be read (${message(e)}). It is made by spinnet web build.`)
    return
  }
  get('version').textContent = `SpinNet ${site.version}`
  if (site.model) open(site.model.name, { url: new URL(site.model.file, base).href, bytes: site.model.bytes }, site.model.file)
  else showNothing()
}

/** simd tries a module of one function that makes a vector. */
function simd(): boolean {
  return typeof WebAssembly === 'object' &&
    WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]))
}

/** open loads a model into a worker of its own, which takes the place of the last one if all is well. */
function open(name: string, model: { url: string; bytes: number } | File, id: string): void {
  clearAlert()
  loading?.terminate()
  const worker = loading = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' })
  const fromReader = model instanceof File
  get('loading').hidden = false
  progress(0, fromReader ? model.size : model.bytes, fromReader)
  const failed = (why: string) => {
    worker.terminate()
    loading = undefined
    if (loaded) {
      get('loading').hidden = true
      showAlert(`${name}: ${why}. ${loaded.name} is still here.`)
    } else failLoading(`${name}: ${why}`)
  }
  worker.onerror = (e) => failed(e.message || 'the worker of this page cannot be started')
  worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
    switch (data.kind) {
      case 'progress':
        progress(data.done, data.total, fromReader)
        break
      case 'failed':
        failed(data.message)
        break
      case 'ready':
        loaded?.worker.terminate()
        loading = undefined
        loaded = { worker, name, id, info: data.info }
        worker.onmessage = ({ data }: MessageEvent<FromWorker>) => hear(data)
        worker.onerror = (e) => ended({ kind: 'end', reason: 'failed', message: e.message, speed: 0, tokens: 0, promptTokens: 0, unread: 0 })
        ready(data.kept)
    }
  }
  send(worker, { kind: 'load', runtime: new URL(site.runtime.file, base).href, cache: cacheName, model })
}

function send(worker: Worker, m: ToWorker): void {
  worker.postMessage(m)
}

function progress(done: number, total: number, fromReader: boolean): void {
  const bar = get<HTMLProgressElement>('progress')
  const all = done === total && total > 0
  if (all) bar.removeAttribute('value')
  else bar.value = total > 0 ? done / total : 0
  get('loading-text').textContent = all ? 'Unpacking the model…'
    : `${fromReader ? 'Reading' : 'Fetching'} the model: ${megabytes(done)} of ${megabytes(total)} MB`
}

function ready(kept: boolean): void {
  const { name, info, id } = loaded!
  get('loading').hidden = true
  form.hidden = false
  get('name').textContent = name
  document.title = `${name} · SpinNet`
  showModel(info)
  setWriting(false)
  forget()
  status.textContent = 'Ready.'
  const where = get('where')
  where.classList.toggle('kept', kept)
  where.textContent = kept ? 'On this device, works offline' : 'Runs in this tab'
  performance.mark('ready')
  document.body.dataset.state = 'ready'
  if (id === '') return
  keepSite().catch(() => {}) // insecure contexts and private windows go without
  if (!followLink() && prompt.value === '') prompt.value = site.model?.prompt ?? ''
}

/** followLink writes the text that the address asks for, if it does. */
function followLink(): boolean {
  const link = readLink(location.hash)
  if (!link || !loaded || writing) return false
  fillControls(link)
  write()
  if (link.model && link.model !== loaded.id) showAlert('The link was made with another model, so the text is another.')
  return true
}

window.addEventListener('hashchange', followLink)

/** keepSite makes the page work offline, and looks for a newer version, once what the reader waits for is done. */
async function keepSite(): Promise<void> {
  if (!('serviceWorker' in navigator)) return
  navigator.serviceWorker.onmessage = () => {
    get('where').textContent = 'A newer version is here: reload'
  }
  const registration = await navigator.serviceWorker.register('sw.js')
  registration.active?.postMessage('update') // there is none at the first visit
}

function failLoading(why: string): void {
  get('loading').hidden = true
  showAlert(why)
  document.body.dataset.state = 'failed'
}

function showNothing(): void {
  get('loading').hidden = true
  status.textContent = 'Drop a .spinnet file on this page, or choose one, to begin.'
  document.body.dataset.state = 'empty'
}

// ---------------------------------------------------------------- writing

form.addEventListener('submit', (e) => {
  e.preventDefault()
  write()
})

function write(): void {
  if (!loaded || writing) return
  const settings = readSettings()
  if (!settings) return
  get('given').textContent = settings.prompt
  written.textContent = ''
  text.hidden = false
  get('speed').textContent = '–'
  follow({ kind: 'write', prompt: settings.prompt, sampling: settings }, settings)
}

/** more goes on with the text, for as many tokens again. */
function more(): void {
  const settings = readSettings()
  if (!last || !settings) return
  follow({ kind: 'more', tokens: settings.maxTokens }, { ...last, maxTokens: drawn + settings.maxTokens })
}

/** follow lets the worker write, and notes how the whole text could be written again. */
function follow(order: ToWorker, settings: Settings): void {
  clearAlert()
  last = settings
  get('after').hidden = true
  status.textContent = 'Writing…'
  setWriting(true)
  get('command').textContent = command(loaded!, settings)
  send(loaded!.worker, order)
}

/** hear takes what the worker says while it writes. */
function hear(m: FromWorker): void {
  if (m.kind === 'text') {
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 80
    written.append(m.text)
    showSpeed(m.speed)
    if (m.tokens === 0) status.textContent = `Reading the prompt: ${m.promptTokens - m.unread} of ${m.promptTokens} tokens…`
    if (atEnd) scrollTo({ top: document.documentElement.scrollHeight })
  } else if (m.kind === 'end') ended(m)
}

function ended(m: FromWorker & { kind: 'end' }): void {
  setWriting(false)
  written.normalize()
  drawn = m.tokens
  if (m.reason === 'failed') {
    status.textContent = ''
    showAlert(m.message)
    if (m.tokens === 0) forget()
    return
  }
  const how = { length: '', stop: ' The model ended the text.', stopped: ' Stopped.' }[m.reason]
  showSpeed(m.speed)
  status.textContent = `${count(m.tokens)} ${m.tokens === 1 ? 'token' : 'tokens'}.${how}`
  get('after').hidden = false
  get('more').hidden = m.reason === 'stop'
}

function showSpeed(tokensPerSecond: number): void {
  if (tokensPerSecond > 0) get('speed').textContent = count(Math.round(tokensPerSecond))
}

function setWriting(on: boolean): void {
  writing = on
  writeButton.disabled = on
  stopButton.disabled = !on
  controls.disabled = on
  document.body.classList.toggle('writing', on)
  text.setAttribute('aria-busy', String(on))
}

/** forget removes the text shown, which another model did not write. */
function forget(): void {
  text.hidden = true
  get('after').hidden = true
  written.textContent = ''
  get('given').textContent = ''
  get('speed').textContent = '–'
}

function stop(): void {
  if (loaded && writing) send(loaded.worker, { kind: 'stop' })
}

stopButton.addEventListener('click', stop)
if (/Mac|iP/.test(navigator.platform)) document.querySelector('#keys kbd')!.textContent = '⌘'
window.addEventListener('keydown', (e) => {
  if (e.key === 'Escape' && writing) stop()
  else if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) {
    e.preventDefault()
    form.requestSubmit()
  }
})

// --------------------------------------------------------------- controls

/** readSettings gives what the controls say, or undefined when one of them is wrong and says so itself. */
function readSettings(): Settings | undefined {
  for (const input of controls.querySelectorAll('input')) if (!input.reportValidity()) return undefined
  const value = (id: string) => get<HTMLInputElement>(id).value
  const seed = BigInt(value('seed'))
  if (seed >= 2n ** 64n) {
    showAlert('The seed must be below 18446744073709551616.')
    return undefined
  }
  const topP = Number(value('top-p'))
  return {
    prompt: prompt.value, seed, temperature: Number(value('temperature')), topK: Number(value('top-k')), topP: topP === 1 ? 0 : topP,
    maxTokens: Number(value('max-tokens')),
  }
}

function showRanges(): void {
  for (const [id, off] of [['temperature', 0], ['top-p', 1]] as const) {
    const input = get<HTMLInputElement>(id)
    const value = Number(input.value)
    const shown = value !== off ? value.toFixed(2) : id === 'temperature' ? '0: always the likeliest' : 'off'
    get(`${id}-is`).textContent = shown
    input.setAttribute('aria-valuetext', shown)
  }
}

controls.addEventListener('input', showRanges)
const roll = () => {
  get<HTMLInputElement>('seed').value = String(crypto.getRandomValues(new Uint32Array(1))[0])
}
get('roll').addEventListener('click', roll)
get('again').addEventListener('click', () => {
  roll()
  write()
})
get('more').addEventListener('click', more)
get('copy').addEventListener('click', () => copy(text.textContent!, 'Text copied.'))
get('link').addEventListener('click', () => {
  if (last && loaded) copy(linkTo(base, last, loaded.id), 'Link copied. It writes this text again, on any device.')
})

async function copy(what: string, done: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(what)
    status.textContent = done
  } catch {
    status.textContent = 'The browser does not let this page copy.'
  }
}

/** command is how the native program writes the same. */
function command({ name, info }: Loaded, s: Settings): string {
  const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`
  const file = `${name}.spinnet`
  const flags = [`--temperature ${s.temperature}`, s.topK ? `--top-k ${s.topK}` : '', s.topP ? `--top-p ${s.topP}` : '', `--seed ${s.seed}`, `--max-tokens ${s.maxTokens}`, info.activationBits ? '' : '--numeric int8']
  return `spinnet generate ${/^[\w.][\w.-]*$/.test(file) ? file : quoted(file)} --prompt ${quoted(s.prompt)} ${flags.filter(Boolean).join(' ')}`
}

// ------------------------------------------------------- the reader's files

const drop = get('drop')
const hasFiles = (e: DragEvent) => e.dataTransfer?.types.includes('Files') ?? false
window.addEventListener('dragover', (e) => {
  if (!hasFiles(e)) return
  e.preventDefault()
  drop.hidden = false
})
window.addEventListener('dragleave', (e) => {
  if (e.relatedTarget === null) drop.hidden = true
})
window.addEventListener('drop', (e) => {
  drop.hidden = true
  if (!hasFiles(e)) return
  e.preventDefault()
  openFile(e.dataTransfer?.files[0])
})
get<HTMLInputElement>('file').addEventListener('change', (e) => {
  const input = e.target as HTMLInputElement
  openFile(input.files?.[0])
  input.value = '' // so that the same file can be chosen again
})

function openFile(file: File | undefined): void {
  if (!file || !site) return
  stop()
  open(file.name.replace(/\.spinnet$/, ''), file, '')
}

// ----------------------------------------------------------------- messages

function showAlert(what: string): void {
  alertBox.textContent = what
  alertBox.hidden = false
}
function clearAlert(): void {
  alertBox.hidden = true
}
const message = (e: unknown) => (e instanceof Error ? e.message : String(e))
const count = (n: number) => n.toLocaleString('en')
const megabytes = (n: number) => (n / 1e6).toFixed(n < 1e6 ? 2 : 1)

showRanges()
void begin()
