// Uses the page as a reader would, in Chromium. What to expect comes as JSON on
// standard input from TestWebPage (cmd/spinnet/web_test.go), which also serves
// the page. It runs all tests, and ends with exit code 1 if one has failed.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { chromium } from 'playwright-core'

const want = JSON.parse(readFileSync(0, 'utf8'))
const browser = await chromium.launch({ executablePath: want.chromium, args: ['--no-sandbox'] })
const complaints = [] // of the browser: errors, refused requests

/** context opens a browser window of its own, with nothing stored. */
async function context(options = {}) {
  const c = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  c.setDefaultTimeout(30_000)
  c.on('request', (r) => {
    if (!r.url().startsWith(want.url)) complaints.push(`request to ${r.url()}`)
  })
  c.on('console', (m) => {
    if (m.type() === 'error') complaints.push(`console: ${m.text()}`)
  })
  c.on('weberror', (e) => complaints.push(`error: ${e.error()}`))
  return c
}

/** calm checks that the browser had nothing to complain about. */
function calm() {
  assert.deepEqual(complaints.splice(0), [])
}

/** arrive waits until the page is ready, or says why it is not. */
async function arrive(page) {
  await page.waitForSelector('body[data-state]')
  assert.equal(await page.getAttribute('body', 'data-state'), 'ready', await page.textContent('#alert'))
}

async function set(page, settings) {
  for (const [label, value] of Object.entries(settings ?? {})) await page.getByLabel(label, { exact: true }).fill(String(value))
}

/** write presses Write and gives the text when it is done. */
async function write(page) {
  await page.getByRole('button', { name: 'Write' }).click()
  await page.waitForSelector('body:not(.writing)')
  assert.equal(await page.isVisible('#alert'), false, await page.textContent('#alert'))
  return page.evaluate(() => document.getElementById('written').textContent)
}

/** drop lets a file fall on the page. */
async function drop(page, name, path) {
  const data = readFileSync(path).toString('base64')
  const dataTransfer = await page.evaluateHandle(([name, data]) => {
    const t = new DataTransfer()
    t.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name))
    return t
  }, [name, data])
  await page.dispatchEvent('body', 'dragover', { dataTransfer })
  assert.ok(await page.isVisible('#drop'), 'a dragged file shows where it may fall')
  await page.dispatchEvent('body', 'drop', { dataTransfer })
  assert.ok(!(await page.isVisible('#drop')), 'the sign goes when the file falls')
}

const status = (page, text) => page.waitForFunction((text) => document.getElementById('status').textContent.startsWith(text), text)

const tests = {
  async 'load, and write the native text'() {
    const c = await context()
    const page = await c.newPage()
    await page.goto(want.url)
    await arrive(page)
    assert.equal(await page.textContent('h1'), want.model.name)
    assert.equal(await page.title(), `${want.model.name} · SpinNet`)
    for (const [key, value] of Object.entries(want.model.facts)) {
      assert.equal(await page.textContent(`#facts dt:text-is("${key}") + dd`), value, key)
    }
    for (const t of want.texts) {
      await page.getByLabel('Begin with').fill(t.prompt)
      await set(page, t.settings)
      assert.equal(await write(page), t.text, `settings ${JSON.stringify(t.settings)}`)
    }
    assert.match(await page.textContent('#status'), /^\d+ tokens?\./)
    calm()
    await c.close()
  },

  async 'a text that goes on'() {
    const c = await context()
    const page = await c.newPage()
    await page.goto(want.url)
    await arrive(page)
    const t = want.texts.at(-1)
    await page.getByLabel('Begin with').fill(t.prompt)
    await set(page, { ...t.settings, Tokens: t.settings.Tokens / 2 })
    await write(page)
    await page.getByRole('button', { name: 'Go on' }).click()
    await page.waitForSelector('body:not(.writing)')
    assert.equal(await page.textContent('#written'), t.text)
    assert.match(await page.textContent('#command'), new RegExp(`--max-tokens ${t.settings.Tokens}$`))
    await set(page, { Tokens: 1_000_000 })
    await page.getByRole('button', { name: 'Go on' }).click()
    await page.waitForFunction((n) => document.getElementById('written').textContent.length > n, t.text.length)
    await page.keyboard.press('Escape')
    await page.waitForSelector('body:not(.writing)')
    assert.match(await page.textContent('#status'), /Stopped\.$/)
    calm()
    await c.close()
  },

  async 'mistakes of the reader'() {
    const c = await context()
    const page = await c.newPage()
    await page.goto(want.url)
    await arrive(page)
    await set(page, { Seed: '18446744073709551616' })
    await page.getByRole('button', { name: 'Write' }).click()
    assert.match(await page.textContent('#alert'), /seed must be below/)
    for (const seed of ['x', '', '-1']) {
      await set(page, { Seed: seed })
      await page.getByRole('button', { name: 'Write' }).click()
      assert.ok(await page.isHidden('#text'), `seed ${seed} writes`)
    }
    calm()
    await c.close()
  },

  async 'stop, by button and by key'() {
    const c = await context()
    const page = await c.newPage()
    await page.goto(want.url)
    await arrive(page)
    await set(page, { Tokens: 1_000_000 })
    for (const stop of [() => page.getByRole('button', { name: 'Stop' }).click(), () => page.keyboard.press('Escape')]) {
      await page.getByLabel('Begin with').focus()
      await page.keyboard.press('Control+Enter')
      await page.waitForFunction(() => document.getElementById('written').textContent.length > 50)
      await stop()
      await page.waitForSelector('body:not(.writing)')
      assert.match(await page.textContent('#status'), /Stopped\.$/)
    }
    calm()
    await c.close()
  },

  async 'a long prompt, stopped while it is read'() {
    const c = await context()
    const page = await c.newPage()
    await page.goto(want.url)
    await arrive(page)
    await page.getByLabel('Begin with').fill('Once upon a time there was a word. '.repeat(20_000))
    await page.getByRole('button', { name: 'Write' }).click()
    await status(page, 'Reading the prompt')
    await page.keyboard.press('Escape')
    await page.waitForSelector('body:not(.writing)')
    assert.match(await page.textContent('#status'), /^0 tokens\. Stopped\.$/)
    calm()
    await c.close()
  },

  async 'other models, dropped and chosen'() {
    const c = await context()
    const page = await c.newPage()
    await page.goto(want.url)
    await arrive(page)
    for (const bad of want.bad) {
      await drop(page, bad.name, bad.path)
      await page.waitForSelector('#alert:visible')
      const said = await page.textContent('#alert')
      assert.match(said, new RegExp(bad.message), bad.name)
      assert.match(said, new RegExp(`${want.model.name} is still here`), bad.name)
    }
    await page.getByLabel('Begin with').fill(want.texts[0].prompt)
    assert.equal(await write(page), want.texts[0].text, 'the first model still writes')
    await drop(page, `${want.second.name}.spinnet`, want.second.path)
    await page.waitForSelector(`h1:text-is("${want.second.name}")`)
    await page.getByLabel('Begin with').fill(want.second.prompt)
    assert.equal(await write(page), want.second.text)
    await page.getByLabel('Begin with').fill('\u{1f600}')
    await page.getByRole('button', { name: 'Write' }).click()
    await page.waitForSelector('#alert:visible')
    assert.match(await page.textContent('#alert'), /character '😀' is not in the vocabulary at byte 0/)
    await page.getByLabel('Choose a file…').setInputFiles(want.third.path)
    await page.waitForSelector(`h1:text-is("${want.third.name}")`)
    await page.getByLabel('Begin with').fill(want.third.prompt)
    assert.equal(await write(page), want.third.text, 'a model trained in float')
    assert.match(await page.textContent('#command'), /^spinnet generate 'the third'\\''s\.spinnet' .* --numeric int8$/)
    calm()
    await c.close()
  },

  async 'a link writes the text again'() {
    const c = await context({ permissions: ['clipboard-read', 'clipboard-write'] })
    const page = await c.newPage()
    await page.goto(want.url)
    await arrive(page)
    const t = want.texts.at(-1)
    await page.getByLabel('Begin with').fill(t.prompt)
    await set(page, t.settings)
    await write(page)
    await page.getByRole('button', { name: 'Copy text' }).click()
    await status(page, 'Text copied.')
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), t.prompt + t.text)
    await page.getByRole('button', { name: 'Copy link' }).click()
    await status(page, 'Link copied')
    const link = await page.evaluate(() => navigator.clipboard.readText())
    const other = await c.newPage()
    await other.goto(link)
    await other.waitForSelector('#after:visible')
    assert.equal(await other.textContent('#text'), t.prompt + t.text)
    await other.evaluate(() => {
      location.hash = new URLSearchParams({ prompt: 'a', seed: '7', tokens: '3', model: 'another' }).toString()
    })
    await status(other, '3 tokens.')
    assert.match(await other.textContent('#alert'), /another model/)
    calm()
    await c.close()
  },

  async 'offline, and then a newer version'() {
    const c = await context()
    const page = await c.newPage()
    await page.goto(want.url)
    await arrive(page)
    await page.waitForSelector('#where.kept')
    await page.evaluate(() => navigator.serviceWorker.ready)
    await fetch(want.down)
    try {
      await page.reload()
      await arrive(page)
      await page.getByLabel('Begin with').fill(want.texts[0].prompt)
      assert.equal(await write(page), want.texts[0].text, 'offline')
      complaints.length = 0 // the service worker has asked for a newer version in vain
    } finally {
      await fetch(want.renew)
    }
    await page.reload()
    await page.waitForSelector('#where:text("A newer version is here")')
    await page.reload()
    await arrive(page)
    assert.equal(await page.textContent('h1'), want.second.name)
    await page.waitForFunction(async () => {
      const models = []
      for (const name of await caches.keys()) for (const r of await (await caches.open(name)).keys()) if (r.url.endsWith('.spinnet')) models.push(r.url)
      return models.length === 1 // the old one is gone
    })
    calm()
    await c.close()
  },

  async 'a host that fails once'() {
    const c = await context()
    const page = await c.newPage()
    for (const [how, message] of [['spoiled', /checksum/], ['short', /only \d+ of \d+ bytes/], ['gone', /cannot be fetched: 404/]]) {
      await fetch(want.spoil + how)
      await page.goto(want.url)
      await page.waitForSelector('#alert:visible')
      assert.match(await page.textContent('#alert'), message)
    }
    complaints.length = 0 // the 404
    await fetch(want.spoil)
    await page.goto(want.url)
    await arrive(page)
    calm()
    await c.close()
  },

  async 'a browser without SIMD'() {
    const c = await context()
    const page = await c.newPage()
    await page.addInitScript(() => {
      WebAssembly.validate = () => false
    })
    await page.goto(want.url)
    await page.waitForSelector('#alert:visible')
    assert.match(await page.textContent('#alert'), /lacks WebAssembly SIMD/)
    calm()
    await c.close()
  },

  async 'a phone, and a keyboard'() {
    const c = await context({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true })
    const page = await c.newPage()
    await page.goto(want.url)
    await arrive(page)
    const text = await write(page)
    const { scroll, inner } = await page.evaluate(() => ({ scroll: document.documentElement.scrollWidth, inner: innerWidth }))
    assert.ok(scroll <= inner, `the page is ${scroll} wide on a screen of ${inner}`)
    const seen = []
    await page.evaluate(() => document.activeElement?.blur())
    for (let i = 0; i < 30; i++) {
      await page.keyboard.press('Tab')
      seen.push(await page.evaluate(() => document.activeElement.id || document.activeElement.tagName))
    }
    for (const id of ['prompt', 'write', 'more', 'again', 'temperature', 'top-p', 'top-k', 'max-tokens', 'seed', 'roll', 'file', 'SUMMARY']) {
      assert.ok(seen.includes(id), `Tab does not reach ${id}: ${seen}`)
    }
    await page.getByText('Skip to the prompt').press('Enter')
    assert.equal(await page.evaluate(() => document.activeElement.id), 'prompt', 'the first link leads to the prompt')
    const unnamed = await page.evaluate(() => [...document.querySelectorAll('input,textarea,button,select')]
      .filter((e) => !e.labels?.length && !e.textContent.trim() && !e.ariaLabel).map((e) => e.id))
    assert.equal(await page.textContent('#written'), text, 'and writes nothing')
    assert.deepEqual(unnamed, [], 'controls without a name')
    calm()
    await c.close()
  },
}

let failed = false
for (const [name, test] of Object.entries(tests)) {
  const start = Date.now()
  try {
    await test()
    console.log(`ok   ${name} (${Date.now() - start} ms)`)
  } catch (e) {
    failed = true
    console.log(`FAIL ${name}: ${e.message}`, complaints.splice(0))
  }
}
await browser.close()
process.exit(failed ? 1 : 0)
