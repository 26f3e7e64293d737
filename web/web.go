// Package web is the page that runs a model in a browser tab, without a
// server: TypeScript in src, built by Vite into dist (make web), which is
// embedded so that building spinnet needs no Node. It imports nothing of ours.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"html"
	"io/fs"
	"slices"
	"strings"
)

//go:embed all:dist
var dist embed.FS

// Model is what a site is of.
type Model struct {
	Name   string // shown as the title
	Prompt string // that the page begins with
	Data   []byte // of a .spinnet file
}

// Blob is where a file is that is named after its content, so that no cache
// gives an old one for a new one.
type Blob struct {
	File  string `json:"file"`
	Bytes int    `json:"bytes"`
}

// Index is site.json: what the page must know of the files beside it
// (src/protocol.ts).
type Index struct {
	Version string   `json:"version"` // of spinnet
	Files   []string `json:"files"`   // of the page, apart from index.html, sw.js and this one
	Runtime Blob     `json:"runtime"` // the WebAssembly module
	Model   struct {
		Blob
		Name   string `json:"name"`
		Prompt string `json:"prompt"`
	} `json:"model"`
}

// Site gives all files of a site, by slash-separated name: the page, the
// WebAssembly module that runs the model, the model, and site.json. version is
// that of spinnet. The files hold no absolute addresses: a site works under any
// path.
func Site(version string, runtime []byte, m Model) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(dist, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := dist.ReadFile(name)
		files[strings.TrimPrefix(name, "dist/")] = b
		return err
	})
	if err != nil {
		return nil, err
	}
	// What shows the page elsewhere, such as a search engine, does not run it.
	for _, at := range []string{`<title>`, `og:title" content="`, `<h1 id="name">`} {
		files["index.html"] = bytes.Replace(files["index.html"], []byte(at+"SpinNet"), []byte(at+html.EscapeString(m.Name)), 1)
	}
	site := Index{Version: version}
	for name := range files {
		if name != "index.html" && name != "sw.js" {
			site.Files = append(site.Files, name)
		}
	}
	slices.Sort(site.Files)
	add := func(stem, ext string, data []byte) Blob {
		sum := sha256.Sum256(data)
		name := stem + "-" + hex.EncodeToString(sum[:6]) + ext
		files[name] = data
		return Blob{name, len(data)}
	}
	site.Runtime = add("spinnet", ".wasm", runtime)
	site.Model.Blob, site.Model.Name, site.Model.Prompt = add("model", ".spinnet", m.Data), m.Name, m.Prompt
	files["site.json"], err = json.MarshalIndent(site, "", "  ")
	return files, err
}
