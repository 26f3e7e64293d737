package main

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"spinnet/arch"
	"spinnet/canister/link"
	"spinnet/spinfile"
)

// webModule is the module that web build writes, with the few functions that
// the page gives it.
type webModule struct {
	t   *testing.T
	ctx context.Context
	api.Module
}

// newWebModules returns a function that starts modules.
func newWebModules(t *testing.T) func() *webModule {
	t.Helper()
	ctx := context.Background()
	wasm, _, err := link.Runtime()
	if err != nil {
		t.Fatal(err)
	}
	if wasm, err = link.Browser(wasm); err != nil {
		t.Fatal(err)
	}
	r := wazero.NewRuntime(ctx)
	t.Cleanup(func() { r.Close(ctx) })
	compiled, err := r.CompileModule(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	ic0 := r.NewHostModuleBuilder("ic0")
	for _, f := range compiled.ImportedFunctions() {
		_, name, _ := f.Import()
		ic0.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, stack []uint64) {
			switch name {
			case "time", "performance_counter", "debug_print":
				clear(stack[:1])
			default:
				panic(errors.New("ic0." + name))
			}
		}), f.ParamTypes(), f.ResultTypes()).Export(name)
	}
	if _, err := ic0.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	return func() *webModule {
		m, err := r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close(ctx) })
		return &webModule{t, ctx, m}
	}
}

// call calls an export that gives one int32.
func (m *webModule) call(name string, args ...uint64) int32 {
	m.t.Helper()
	got, err := m.ExportedFunction(name).Call(m.ctx, args...)
	if err != nil {
		m.t.Fatalf("%s: %v", name, err)
	}
	return int32(uint32(got[0]))
}

// text is what the last call left.
func (m *webModule) text() string {
	b, ok := m.Memory().Read(uint32(m.call("web_text_ptr")), uint32(m.call("web_text_len")))
	if !ok {
		m.t.Fatal("the text lies outside the memory")
	}
	return string(b)
}

// give writes an input.
func (m *webModule) give(b []byte) uint64 {
	m.t.Helper()
	if len(b) > 0 && !m.Memory().Write(uint32(m.call("web_alloc", uint64(len(b)))), b) {
		m.t.Fatal("the input lies outside the memory")
	}
	return uint64(len(b))
}

// failing checks that a call has failed and why.
func (m *webModule) failing(want string, got int32) {
	m.t.Helper()
	if text := m.text(); got >= 0 || !strings.Contains(text, want) {
		m.t.Errorf("got %d, %q; want an error with %q", got, text, want)
	}
}

// start begins a text of so many tokens.
func (m *webModule) start(prompt string, tokens int32, temperature float64) int32 {
	return m.call("web_start", m.give([]byte(prompt)), api.EncodeI32(tokens), math.Float64bits(temperature), 0, 0, 0, 1, 0)
}

// The module gives errors for everything that a page may do wrongly, and goes
// on.
func TestWebModuleBad(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the module")
	}
	file := filepath.Join(t.TempDir(), "model.spinnet")
	data := writeModel(t, file, arch.Config{NLayer: 1, NHead: 8, NEmbd: 64, HiddenDim: 64, BlockSize: 16, VocabSize: 4, Algebra: "walsh",
		Quantizer: arch.AbsMean, ActBits: 8}, spinfile.TokenizerInfo{Kind: "chars", Chars: "\nabc"})
	m := newWebModules(t)()
	m.failing("no model is loaded", m.call("web_info"))
	m.failing("no model is loaded", m.start("a", 1, 0))
	m.failing("no text is being written", m.call("web_step"))
	m.failing("no text is being written", m.call("web_more", 1))
	m.failing("no such input", m.call("web_load", 5))
	m.failing("no such input", m.call("web_load", api.EncodeI32(-5)))
	for _, n := range []int32{0, -1, math.MinInt32} {
		if at := m.call("web_alloc", api.EncodeI32(n)); at != 0 {
			t.Errorf("web_alloc(%d) = %d, want 0", n, at)
		}
	}
	m.failing("truncated", m.call("web_load", 0))
	m.failing("not a .spinnet file", m.call("web_load", m.give([]byte("\x7fELF of all things"))))
	m.failing("", m.call("web_load", m.give([]byte("SPNI"))))
	m.failing("", m.call("web_load", m.give(append([]byte("SPNI\x01\x00\x00\x00"), make([]byte, 100)...))))
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		bad := bytes.Clone(data)
		if r.IntN(2) == 0 {
			bad = bad[:r.IntN(len(bad))]
		} else {
			bad[r.IntN(len(bad))] ^= byte(1 + r.IntN(255))
		}
		m.failing("", m.call("web_load", m.give(bad)))
	}
	if m.call("web_load", m.give(data)) != 0 {
		t.Fatal(m.text())
	}
	m.failing("no text is being written", m.call("web_step"))
	m.failing("temperature", m.start("a", 1, -1))
	m.failing("temperature", m.start("a", 1, math.NaN()))
	m.failing("want 0 or more", m.start("a", -1, 0))
	m.failing("invalid UTF-8 at byte 1", m.start("a\xff", 1, 0))
	m.failing("no such input", m.call("web_start", 1<<20, 1, 0, 0, 0, 0, 1, 0))
	if m.start("", 0, 0) != 0 {
		t.Fatal(m.text())
	}
	if status := m.call("web_step"); status != 1 {
		t.Errorf("a text of no tokens: got status %d, want 1", status)
	}
	m.failing("want 0 or more", m.call("web_more", api.EncodeI32(-1)))
	if n := m.call("web_tokens"); n != 0 {
		t.Errorf("%d tokens drawn, want none", n)
	}
}

// The module's text is that of the command line, also after a text that was
// given up.
func TestWebModuleText(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the module")
	}
	file := filepath.Join(t.TempDir(), "model.spinnet")
	data := writeModel(t, file, arch.Config{NLayer: 2, NHead: 8, NEmbd: 64, HiddenDim: 64, BlockSize: 32, VocabSize: 256, Algebra: "octonion",
		Quantizer: arch.AbsMean, ActBits: 8, OctonionAttention: true}, spinfile.TokenizerInfo{Kind: "bytes"})
	m := newWebModules(t)()
	if m.call("web_load", m.give(data)) != 0 {
		t.Fatal(m.text())
	}
	for _, prompt := range []string{"a", strings.Repeat("a long prompt, ", 30), ""} {
		if m.start("another", 1000, 0.8) != 0 || m.call("web_step") != 0 {
			t.Fatal(m.text())
		}
		if m.start(prompt, 40, 0.8) != 0 {
			t.Fatal(m.text())
		}
		got, status := "", int32(0)
		for status == 0 {
			status = m.call("web_step")
			got += m.text()
			if status == 1 && m.call("web_tokens") == 40 {
				status = m.call("web_more", 24)
			}
		}
		if want := native(t, file, prompt, "-n", "64"); got != want || status != 1 {
			t.Errorf("prompt of %d bytes: got %q, status %d; want %q", len(prompt), got, status, want)
		}
	}
}
