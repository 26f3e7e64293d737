/// <reference lib="webworker" />
// The service worker: once visited, the page starts from the browser's cache,
// at once and offline. A newer version of the site is fetched beside it, whole,
// and takes its place at the next visit.

import type { Site } from './protocol'

declare const self: ServiceWorkerGlobalScope

const scope = self.registration.scope
const cacheName = `spinnet ${scope}` // caches belong to an origin, which may have several such pages
const siteURL = new URL('site.json', scope).href

self.addEventListener('install', (event) => {
  event.waitUntil(update(false).then(() => self.skipWaiting()))
})

self.addEventListener('activate', (event) => {
  event.waitUntil(self.clients.claim())
})

// The page asks for a newer version when it has no use for the network itself.
self.addEventListener('message', (event) => {
  const tell = (newer: boolean) => newer && event.source?.postMessage('newer')
  event.waitUntil(update(true).then(tell, () => {})) // offline
})

self.addEventListener('fetch', (event) => {
  const { request } = event
  if (request.method !== 'GET' || !request.url.startsWith(scope)) return
  event.respondWith(answer(request.mode === 'navigate' ? scope : request.url, request))
})

async function answer(url: string, request: Request): Promise<Response> {
  const cache = await caches.open(cacheName)
  return (await cache.match(url)) ?? fetch(request)
}

/**
 * update fetches the site if it is another than the one in the cache, all its files and then its page, and says whether
 * it was. The old files stay for the page that is open; the next update removes them. withModel is false the first
 * time, when the page itself fetches the model.
 */
async function update(withModel: boolean): Promise<boolean> {
  const cache = await caches.open(cacheName)
  const fresh = await fetch(siteURL, { cache: 'no-cache' })
  if (!fresh.ok) throw new Error(`site.json: ${fresh.status}`)
  const text = await fresh.clone().text()
  const site = JSON.parse(text) as Site
  const at = (file: string) => new URL(file, scope).href
  const old = await cache.match(siteURL)
  if (old && (await old.text()) === text) {
    const current = new Set(['', 'site.json', ...site.files, site.runtime.file, site.model?.file ?? ''].map(at))
    for (const { url } of await cache.keys()) if (!current.has(url)) await cache.delete(url)
    return false
  }
  await cache.addAll(site.files.map(at))
  for (const blob of [site.runtime, withModel ? site.model : undefined]) { // named by their content
    if (blob && !(await cache.match(at(blob.file)))) await cache.add(at(blob.file))
  }
  const page = await fetch(scope, { cache: 'no-cache' })
  if (!page.ok) throw new Error(`the page: ${page.status}`)
  await cache.put(scope, page)
  await cache.put(siteURL, fresh)
  return old !== undefined
}
