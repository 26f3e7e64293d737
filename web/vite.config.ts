import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { defineConfig, type Plugin } from 'vite'

/** What dist is made from; repo_test.go has the same list. */
const sources = ['index.html', 'package-lock.json', 'package.json', ...readdirSync('src').map((name) => `src/${name}`), 'tsconfig.json', 'vite.config.ts']

/** Notes in sources.json what dist was made from, for the test that it is fresh. */
const note: Plugin = {
  name: 'note-sources',
  closeBundle() {
    const lines = sources.sort().map((name) => `${createHash('sha256').update(readFileSync(name)).digest('hex')}  ${name}\n`)
    writeFileSync('sources.json', JSON.stringify({ sources: createHash('sha256').update(lines.join('')).digest('hex') }) + '\n')
  },
}

// The page may live under any path, so every address in it is relative. The
// service worker keeps its name, because browsers know it by that; all other
// files are named by their content and may be cached for ever.
export default defineConfig({
  base: './',
  build: {
    target: 'es2022',
    modulePreload: false,
    assetsInlineLimit: 0, // the content security policy allows no data: addresses
    rolldownOptions: {
      input: { index: 'index.html', sw: 'src/sw.ts' },
      output: {
        entryFileNames: (chunk) => (chunk.name === 'sw' ? 'sw.js' : 'assets/[name]-[hash].js'),
      },
    },
  },
  worker: { format: 'es' },
  plugins: [note],
})
