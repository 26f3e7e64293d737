// Measures the page in headless Chromium for BenchmarkWebPage
// (cmd/spinnet/web_test.go), which gives its address as JSON on standard input:
// milliseconds until it can write, at the first visit and with all files on the
// device, and tokens per second, of as many tokens as the page writes greedily.

import { readFileSync } from 'node:fs'
import { chromium } from 'playwright-core'

const want = JSON.parse(readFileSync(0, 'utf8'))
const browser = await chromium.launch({ executablePath: want.chromium, args: ['--no-sandbox'] })
const context = await browser.newContext()
const page = await context.newPage()
page.setDefaultTimeout(120_000)

/** ready waits for the page, and gives the milliseconds from the start of the visit. */
async function ready() {
  await page.waitForSelector('body[data-state]')
  return page.evaluate(() => performance.getEntriesByName('ready')[0].startTime)
}

await page.goto(want.url)
const first = await ready()
await page.waitForSelector('#where.kept')
await page.evaluate(() => navigator.serviceWorker.ready)
const visits = []
for (let i = 0; i < 5; i++) {
  await page.reload()
  visits.push(await ready())
}
await page.getByLabel('Temperature').fill('0')
await page.getByLabel('Tokens').fill(String(want.tokens))
const speeds = []
for (let i = 0; i < 5; i++) {
  await page.getByRole('button', { name: 'Write' }).click()
  await page.waitForSelector('body:not(.writing)')
  speeds.push(Number((await page.textContent('#speed')).replace(',', '')))
}
await browser.close()
const median = (v) => v.toSorted((a, b) => a - b)[v.length >> 1]
console.log(JSON.stringify({ first, again: median(visits), speed: median(speeds), best: Math.max(...speeds) }))
