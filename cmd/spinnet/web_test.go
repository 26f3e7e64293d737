package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"spinnet/arch"
	"spinnet/spinfile"
)

// needChromium gives the path of Chromium. Without it, node or playwright-core
// the test is skipped, or fails if SPINNET_REQUIRE has "peers".
func needChromium(t testing.TB) string {
	t.Helper()
	missing := ""
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		missing = "chromium is not installed"
	} else if _, err := exec.LookPath("node"); err != nil {
		missing = "node is not installed"
	} else if _, err := os.Stat("../../web/node_modules/playwright-core"); err != nil {
		missing = "playwright-core is not installed; run: npm --prefix web ci"
	}
	switch {
	case missing == "":
		return chromium
	case strings.Contains(os.Getenv("SPINNET_REQUIRE"), "peers"):
		t.Fatal(missing)
	default:
		t.Skip(missing)
	}
	return ""
}

// A build that broke off, for want of room say, can be done again in its
// folder.
func TestWebBuildAgain(t *testing.T) {
	dir := t.TempDir()
	obstacle := filepath.Join(dir, "index.html")
	if err := os.Mkdir(obstacle, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"index.html": nil, "site.json": []byte("{}"), "assets/a.js": nil}
	if err := writeSite(dir, files, nil); err == nil {
		t.Fatal("index.html was a folder")
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	old, err := oldSite(dir)
	if err != nil || old == nil {
		t.Fatalf("the folder of a build that broke off: got %v, %v", old, err)
	}
	if err := writeSite(dir, files, old); err != nil {
		t.Fatal(err)
	}
}

// writeModel writes a random model with int8 activations as a .spinnet file.
func writeModel(t testing.TB, path string, c arch.Config, tok spinfile.TokenizerInfo) []byte {
	t.Helper()
	m, err := randomModel(c.WithDefaults(), tok)
	if err != nil {
		t.Fatal(err)
	}
	data, _, err := spinfile.Encode(m.QuantizeEmbedding(8).Quantize())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return data
}

// webText is a text that the page must write: that of spinnet generate.
type webText struct {
	Prompt   string         `json:"prompt"`
	Settings map[string]any `json:"settings"` // by their labels on the page
	Text     string         `json:"text"`
}

// native writes a text with the command line.
func native(t *testing.T, model, prompt string, flags ...string) string {
	t.Helper()
	out, log, err := spinnetCmd(t, "", append([]string{"generate", model, "--json", "--prompt", prompt}, flags...)...)
	if err != nil {
		t.Fatalf("generate: %v\n%s", err, log)
	}
	var g generated
	if err := json.Unmarshal([]byte(out), &g); err != nil {
		t.Fatal(err)
	}
	return g.Text
}

// TestWebPage uses the page in Chromium as a reader would: web/test/page.mjs.
func TestWebPage(t *testing.T) {
	chromium := needChromium(t)
	if testing.Short() {
		t.Skip("a browser takes seconds")
	}
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	first, second, third, site := file("first.spinnet"), file("second.spinnet"), file("the third's.spinnet"), file("site")
	shape := arch.Config{NLayer: 2, NHead: 8, NEmbd: 64, HiddenDim: 176, BlockSize: 64, VocabSize: 50304,
		Algebra: "octonion", Quantizer: arch.AbsMean, ActBits: 8, OctonionAttention: true}
	whole := writeModel(t, first, shape, spinfile.TokenizerInfo{Kind: "gpt2"}) // whose random tokens are seldom whole characters
	shape.Algebra, shape.VocabSize = "walsh", 7
	writeModel(t, second, shape, spinfile.TokenizerInfo{Kind: "chars", Chars: "\n abcé…"})
	shape.Algebra, shape.VocabSize, shape.ActBits = "quaternion", 256, 0 // trained in float
	writeModel(t, third, shape, spinfile.TokenizerInfo{Kind: "bytes"})
	type bad struct {
		Name    string `json:"name"`
		Path    string `json:"path"`
		Message string `json:"message"` // a regular expression
	}
	bads := []bad{{"foreign.spinnet", "", "not a .spinnet file: it begins with .+GGUF"}, {"cut.spinnet", "", "cut: .*(truncated|ends)"},
		{"flipped.spinnet", "", "flipped: .*checksum"}, {"empty.spinnet", "", "the file is empty"}}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for i, data := range [][]byte{[]byte("GGUF\x03\x00\x00\x00 and more"), whole[:len(whole)/2], flipped, nil} {
		bads[i].Path = file(bads[i].Name)
		if err := os.WriteFile(bads[i].Path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := func(model, name string) {
		if _, log, err := spinnetCmd(t, "", "web", "build", model, "-o", site, "--name", name); err != nil {
			t.Fatalf("web build: %v\n%s", err, log)
		}
	}
	build(first, "first")

	var down atomic.Bool
	var spoil atomic.Value // how the model is sent wrongly, "" if it is not
	spoil.Store("")
	mux := http.NewServeMux()
	files := http.StripPrefix("/any/path/", http.FileServer(http.Dir(site)))
	mux.HandleFunc("/any/path/", func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		how := spoil.Load()
		if how == "" || !strings.HasSuffix(r.URL.Path, ".spinnet") {
			files.ServeHTTP(w, r)
			return
		}
		data, err := os.ReadFile(filepath.Join(site, filepath.Base(r.URL.Path)))
		if err != nil {
			t.Error(err)
		}
		switch how {
		case "gone":
			http.NotFound(w, r)
			return
		case "short":
			data = data[:len(data)/2]
		case "spoiled":
			data[len(data)/2] ^= 1
		}
		w.Write(data)
	})
	mux.HandleFunc("/spoil/{how...}", func(_ http.ResponseWriter, r *http.Request) { spoil.Store(r.PathValue("how")) })
	mux.HandleFunc("/down", func(http.ResponseWriter, *http.Request) { down.Store(true) })
	mux.HandleFunc("/renew", func(http.ResponseWriter, *http.Request) {
		build(second, "second")
		down.Store(false)
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	const seed = 1<<63 + 5
	settings := func(temperature, topP float64, topK int, seed uint64, tokens int) map[string]any {
		return map[string]any{"Temperature": temperature, "Top-p": topP, "Top-k, 0 for all": topK, "Seed": strconv.FormatUint(seed, 10), "Tokens": tokens}
	}
	texts := []webText{
		{"", nil, native(t, first, "")},
		{"Once upon a time, naïve 😀", settings(0.8, 1, 0, 1, 200), native(t, first, "Once upon a time, naïve 😀")},
		{"greedy", settings(0, 1, 0, 1, 300), native(t, first, "greedy", "-t", "0", "-n", "300")},
		{"many settings", settings(1.25, 0.9, 40, seed, 100), native(t, first, "many settings", "-t", "1.25", "--top-p", "0.9", "--top-k", "40", "--seed", strconv.FormatUint(seed, 10), "-n", "100")},
	}
	want := map[string]any{
		"chromium": chromium, "url": server.URL + "/any/path/", "down": server.URL + "/down", "renew": server.URL + "/renew", "spoil": server.URL + "/spoil/",
		"model": map[string]any{"name": "first", "facts": map[string]string{"Layers": "2 × 64", "Feed-forward": "176", "Heads": "8", "Context": "64 tokens",
			"Vocabulary": "50,257 GPT-2 tokens", "Embedding": "8 bits", "Activations": "8 bits"}},
		"texts": texts, "bad": bads,
		"second": map[string]string{"name": "second", "path": second, "prompt": "bé", "text": native(t, second, "bé")},
		"third":  map[string]string{"name": "the third's", "path": third, "prompt": "é 😀", "text": native(t, third, "é 😀", "--numeric", "int8")},
	}
	in, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "../../web/test/page.mjs")
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// BenchmarkWebPage measures the page in headless Chromium, one thread, with
// models of 8 layers of width 512 and GPT-2's vocabulary:
//
//	go test ./cmd/spinnet -run '^$' -bench WebPage
func BenchmarkWebPage(b *testing.B) {
	chromium := needChromium(b)
	for _, algebra := range []string{"octonion", "walsh"} {
		b.Run(algebra, func(b *testing.B) {
			dir := b.TempDir()
			model, site := filepath.Join(dir, "model.spinnet"), filepath.Join(dir, "site")
			writeModel(b, model, arch.Config{NLayer: 8, NHead: 8, NEmbd: 512, HiddenDim: 1408, BlockSize: 1024, VocabSize: 50304,
				Algebra: algebra, Quantizer: arch.AbsMean, ActBits: 8}, spinfile.TokenizerInfo{Kind: "gpt2"})
			if _, log, err := spinnetCmd(b, "", "web", "build", model, "-o", site); err != nil {
				b.Fatalf("web build: %v\n%s", err, log)
			}
			server := httptest.NewServer(http.FileServer(http.Dir(site)))
			defer server.Close()
			in, err := json.Marshal(map[string]any{"chromium": chromium, "url": server.URL + "/", "tokens": 256})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				cmd := exec.Command("node", "../../web/test/speed.mjs")
				cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
				out, err := cmd.Output()
				if err != nil {
					b.Fatal(err)
				}
				var r struct{ First, Again, Speed, Best float64 }
				if err := json.Unmarshal(out, &r); err != nil {
					b.Fatalf("%v in %q", err, out)
				}
				b.ReportMetric(r.First, "ms-first-visit")
				b.ReportMetric(r.Again, "ms-again")
				b.ReportMetric(r.Speed, "tok/s")
				b.ReportMetric(r.Best, "best-tok/s")
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}
