package replica

import (
	"bytes"
	"context"
	"crypto/sha256"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"spinnet/arch"
	"spinnet/canister/agent"
	"spinnet/canister/link"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// The canister of this repository, end to end: the committed program with a
// small model of random weights.

func appModel(t testing.TB) *spinfile.Model {
	t.Helper()
	c := arch.Config{NLayer: 3, NHead: 2, NEmbd: 64, HiddenDim: 96, BlockSize: 256, VocabSize: 256, ActBits: 8, Quantizer: arch.AbsMean}
	rng := rand.New(rand.NewPCG(3, 4))
	m, err := spinfile.FromLatents(c, spinfile.TokenizerInfo{Kind: tokenizer.KindBytes}, func(name string) []float32 {
		for _, p := range arch.Params(c.WithDefaults()) {
			if p.Name != name {
				continue
			}
			w := make([]float32, p.Len())
			for i := range w {
				w[i] = float32(rng.NormFloat64())
				if p.Kind == arch.Norm || p.Kind == arch.Beta {
					w[i] = 1
				}
			}
			return w
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	data, _, err := spinfile.Encode(m.QuantizeEmbedding(8).Quantize())
	if err != nil {
		t.Fatal(err)
	}
	if m, err = spinfile.Decode(data); err != nil {
		t.Fatal(err)
	}
	return m
}

// appModule links the canister.
func appModule(t testing.TB, m *spinfile.Model) []byte {
	t.Helper()
	var image bytes.Buffer
	if err := engine.WriteImage(&image, m, engine.Options{}); err != nil {
		t.Fatal(err)
	}
	runtime, info, err := link.Runtime()
	if err != nil {
		t.Fatal(err)
	}
	wasm, err := link.Canister(runtime, info, image.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	packed, err := link.Gzip(wasm)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// native is what the command line writes.
func native(t testing.TB, m *spinfile.Model, prompt string, tokens int) string {
	t.Helper()
	e, err := engine.New(m, engine.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	tok, err := engine.NewTokenizer(m.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := tokenizer.Prompt(tok, prompt)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if _, err := engine.Generate(context.Background(), e.NewSession(), tok, ids, engine.GenerateOptions{MaxTokens: tokens}, func(text []byte) error {
		b.Write(text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// app is the canister of a running replica.
type app struct {
	*local
	id agent.Principal
}

func startApp(t *testing.T, o Options, wasm []byte) *app {
	t.Helper()
	a := &app{local: start(t, o)}
	a.id = a.create()
	if err := a.installChunked("install", wasm); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *app) installChunked(mode string, wasm []byte) error {
	a.Helper()
	var list agent.Vec
	for rest := wasm; len(rest) > 0; {
		n := min(maxChunk, len(rest))
		out, err := manage(a.local, a.client, a.id, "upload_chunk", agent.F("canister_id", a.id), agent.F("chunk", rest[:n]))
		if err != nil {
			a.Fatal(err)
		}
		list, rest = append(list, out[0]), rest[n:]
	}
	var how any
	if mode == "upgrade" {
		how = agent.None
	}
	sum := sha256.Sum256(wasm)
	_, err := manage(a.local, a.client, a.id, "install_chunked_code", agent.F("target_canister", a.id), agent.F("mode", agent.V(mode, how)),
		agent.F("chunk_hashes_list", list), agent.F("wasm_module_hash", sum[:]), agent.F("arg", []byte("DIDL\x00\x00")))
	return err
}

// ask calls a method of the typed interface: its ok or its err.
func (a *app) ask(c *agent.Client, method string, arg ...any) (agent.Record, string) {
	a.Helper()
	b, err := agent.EncodeArgs(arg...)
	if err != nil {
		a.Fatal(err)
	}
	reply, err := c.Call(a.context(), a.id, method, b)
	if err != nil {
		a.Fatalf("%s: %v", method, err)
	}
	values, err := agent.DecodeArgs(reply, nil)
	if err != nil {
		a.Fatal(err)
	}
	v, ok := values[0].(agent.Variant)
	if !ok {
		a.Fatalf("%s: %v", method, values)
	}
	if v.Is("err") {
		return nil, v.Value.(string)
	}
	r, _ := v.Value.(agent.Record)
	return r, ""
}

func textRequest(prompt string, tokens uint32) agent.Record {
	return agent.Record{agent.F("prompt", prompt), agent.F("max_tokens", agent.Some(tokens)), agent.F("temperature", agent.Some(0.0))}
}

// writing is a text that comes in several calls.
type writing struct {
	session uint64
	text    string
	reason  string
	calls   int
}

func (w *writing) add(r agent.Record) {
	w.session = r.Get("session").(uint64)
	w.text += r.Get("text").(string)
	w.reason = r.Get("finish_reason").(string)
	w.calls++
}

// begin starts a text, and resume goes on with it.
func (a *app) begin(c *agent.Client, prompt string, tokens uint32) *writing {
	a.Helper()
	r, failed := a.ask(c, "generate", textRequest(prompt, tokens))
	if failed != "" {
		a.Fatalf("generate: %s", failed)
	}
	w := &writing{}
	w.add(r)
	return w
}

func (a *app) resume(c *agent.Client, w *writing) {
	a.Helper()
	r, failed := a.ask(c, "resume", w.session)
	if failed != "" {
		a.Fatalf("resume: %s", failed)
	}
	w.add(r)
}

func (a *app) finish(c *agent.Client, w *writing, want string) {
	a.Helper()
	for w.reason == "paused" && w.calls < 500 {
		a.resume(c, w)
	}
	if w.text != want {
		a.Errorf("after %d calls (%s) the canister wrote\n%q, the command line\n%q", w.calls, w.reason, w.text, want)
	}
}

// pauses makes the canister stop after 50 M instructions: 5 % of what it
// then believes that messages may take.
func (a *app) pauses() {
	a.Helper()
	if _, failed := a.ask(a.client, "set_limits", agent.Record{agent.F("update_instructions", agent.Some(uint64(1_000_000_000))), agent.F("budget_percent", agent.Some(uint32(5)))}); failed != "" {
		a.Fatal(failed)
	}
}

const (
	prompt    = "Once upon a time there was a small canister that wrote"
	wantCalls = 4
)

func TestAppPausesAndUpgrades(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the whole program")
	}
	m := appModel(t)
	wasm := appModule(t, m)
	dir := t.TempDir()
	a := startApp(t, Options{State: dir}, wasm)
	want := native(t, m, prompt, 180)
	if w := a.begin(a.client, prompt, 180); w.text != want || w.calls != 1 {
		t.Errorf("in one call the canister wrote\n%q (%s), the command line\n%q", w.text, w.reason, want)
	}

	a.pauses()
	w := a.begin(a.client, prompt, 180)
	a.finish(a.client, w, want)
	if w.calls < wantCalls {
		t.Errorf("180 tokens took %d calls of 50 M instructions, want %d or more", w.calls, wantCalls)
	}

	// An upgrade in the middle: stopped, installed, started.
	w = a.begin(a.client, prompt, 180)
	if w.reason != "paused" {
		t.Fatalf("the first call ends with %q", w.reason)
	}
	for _, method := range []string{"stop_canister", "", "start_canister"} {
		if method == "" {
			if err := a.installChunked("upgrade", wasm); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, err := manage(a.local, a.client, a.id, method, agent.F("canister_id", a.id)); err != nil {
			t.Fatal(err)
		}
	}
	a.resume(a.client, w)

	// A restart of the replica in the middle.
	a.stop()
	a.local = start(t, Options{State: dir})
	a.finish(a.client, w, want)
}

func TestAppTrap(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the whole program")
	}
	m := appModel(t)
	a := startApp(t, Options{}, appModule(t, m))
	want := native(t, m, prompt, 180)
	a.pauses()
	w := a.begin(a.client, prompt, 180)
	// The replica allows less than the canister believes: it runs out in the
	// middle, and the session is where it was.
	a.replica.limits.Update = 10_000_000
	arg, err := agent.EncodeArgs(w.session)
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.client.Call(a.context(), a.id, "resume", arg)
	a.rejected(err, 5, "IC0522")
	a.replica.limits.Update = ICP.Update
	a.finish(a.client, w, want)
}

func TestAppTwoCallers(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the whole program")
	}
	m := appModel(t)
	a := startApp(t, Options{}, appModule(t, m))
	a.pauses()
	prompts := []string{prompt, "A second caller"}
	clients := []*agent.Client{a.as(), a.as()}
	var ws [2]*writing
	for i := range ws {
		ws[i] = a.begin(clients[i], prompts[i], 180)
	}
	for range 100 {
		for i, w := range ws {
			if w.reason == "paused" {
				a.resume(clients[i], w)
			}
		}
	}
	for i, w := range ws {
		a.finish(clients[i], w, native(t, m, prompts[i], 180))
	}
	if _, failed := a.ask(clients[1], "resume", ws[0].session); failed == "" {
		t.Error("a caller resumes another one's session")
	}

	// And at once.
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() { a.finish(c, a.begin(c, prompts[i], 30), native(t, m, prompts[i], 30)) })
	}
	wg.Wait()
}

// What an ill-meaning caller sends is answered, and leaves the canister well.
func TestAppHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the whole program")
	}
	m := appModel(t)
	a := startApp(t, Options{}, appModule(t, m))
	caller := a.as()
	many := make([]byte, 1<<20)
	for i := range many {
		many[i] = 'a' + byte(i%26)
	}
	args := func(values ...any) []byte {
		b, err := agent.EncodeArgs(values...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		method string
		arg    []byte
	}{
		"empty prompt":        {"generate", args(textRequest("", 3))},
		"a MB of prompt":      {"generate", args(textRequest(string(many), 3))},
		"no tokens":           {"generate", args(textRequest("a", 0))},
		"2³²−1 tokens":        {"generate", args(textRequest("a", 1<<32-1))},
		"NaN":                 {"generate", args(agent.Record{agent.F("prompt", "a"), agent.F("temperature", agent.Some(math.NaN()))})},
		"no argument":         {"generate", args()},
		"another type":        {"generate", args(uint8(1))},
		"not Candid":          {"generate", []byte("hello")},
		"nothing":             {"generate", nil},
		"invalid UTF-8":       {"start_generation", []byte("DIDL\x00\x02\x71\x79\x02\xff\xfe\x01\x00\x00\x00")},
		"truncated":           {"start_generation", []byte("DIDL\x00\x02\x71\x79\xff\xff\xff\xff\x0f")},
		"many types":          {"generate", []byte("DIDL\xff\xff\xff\xff\x0f")},
		"unknown session":     {"resume", args(uint64(999))},
		"end unknown session": {"end_session", args(uint64(999))},
		"out of order":        {"generate_next_token", args()},
		"a foreign upload":    {"set_limits", args(agent.Record{})},
		"pause by a stranger": {"pause_service", args()},
	} {
		reply, err := caller.Call(a.context(), a.id, c.method, c.arg)
		if err != nil && strings.Contains(err.Error(), "IC05") {
			t.Errorf("%s: %v: it trapped", name, err)
		}
		if err == nil {
			if _, err := agent.DecodeArgs(reply, nil); err != nil {
				t.Errorf("%s: the reply %q is no Candid: %v", name, reply, err)
			}
		}
	}
	a.finish(caller, a.begin(caller, prompt, 10), native(t, m, prompt, 10))
}
