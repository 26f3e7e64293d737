package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"spinnet/canister/candid"
	"spinnet/canister/host"
	"spinnet/canister/link"
	"spinnet/canister/module"
	"spinnet/engine"
)

// compiled is the committed module with testModel, in a host that counts
// instructions.
type compiled struct {
	*host.Canister
	t    *testing.T
	wasm []byte
}

func newCompiled(t *testing.T) *compiled {
	t.Helper()
	if testing.Short() {
		t.Skip("runs a WebAssembly module")
	}
	runtime, info, err := link.Runtime()
	if err != nil {
		t.Fatal(err)
	}
	c := &compiled{t: t}
	t.Cleanup(func() { c.Close(context.Background()) })
	if c.wasm, err = link.Canister(runtime, info, imageOf(t, testModel(t))); err != nil {
		t.Fatal(err)
	}
	c.load()
	c.message("canister_init", nil)
	return c
}

// load instantiates the module anew.
func (c *compiled) load() {
	c.t.Helper()
	var err error
	if c.Canister, err = host.Load(c.t.Context(), c.wasm, module.ICP); err != nil {
		c.t.Fatal(err)
	}
	c.Controller = func([]byte) bool { return true }
	c.Print = func(text []byte) { c.t.Logf("printed %q", text) }
}

// message runs an export that must not trap.
func (c *compiled) message(export string, arg []byte) host.Reply {
	c.t.Helper()
	r, err := c.Call(c.t.Context(), host.Message{Export: export, Arg: arg, Caller: []byte{1}})
	if err != nil {
		c.t.Fatalf("%s: %v", export, err)
	}
	return r
}

// written is the result of generate or resume.
func (c *compiled) written(method string, arg candid.Value) written {
	c.t.Helper()
	r := c.message("canister_update "+method, candid.Encode(arg))
	if r.Rejected {
		c.t.Fatalf("%s: rejected: %s", method, r.Data)
	}
	w := readWritten(c.t, result(c.t, r.Data))
	if w.err != "" {
		c.t.Fatalf("%s: %s", method, w.err)
	}
	return w
}

// upgrade is an upgrade to the same module.
func (c *compiled) upgrade() {
	c.t.Helper()
	c.message("canister_pre_upgrade", nil)
	stable := c.Stable()
	c.Close(context.Background())
	c.load()
	c.SetStable(stable)
	c.message("canister_post_upgrade", nil)
}

// TestModule: the compiled canister pauses within its budget, goes on behind
// upgrades, and loses nothing to a trap. The text is the command line's.
func TestModule(t *testing.T) {
	c := newCompiled(t)
	const budget = 50_000_000 // the smallest, 5 % of 10⁹
	c.message("canister_update set_limits", candid.Encode(candid.RecordValue(
		candid.Field{Name: "budget_percent", Value: nat32(5)}, candid.Field{Name: "update_instructions", Value: candid.Nat64Value(1e9)})))
	o := engine.GenerateOptions{MaxTokens: 100, Sample: engine.SampleOptions{Temperature: 1, Seed: 3, TopK: 40}}
	prompt := strings.Repeat("Once upon a time, ", 10)
	w := c.written("generate", ask(prompt, o))
	text, worst, calls := w.text, w.instructions, 1
	for ; w.reason == "paused"; calls++ {
		switch calls {
		case 2, 4:
			c.upgrade()
		case 3: // a subnet that gives a message less than it says
			_, err := c.Call(t.Context(), host.Message{Export: "canister_update resume", Arg: candid.Encode(candid.Nat64Value(w.session)), Caller: []byte{1}, Limit: budget / 3})
			if trap := (&host.TrapError{}); !errors.As(err, &trap) || !trap.OutOfLimit {
				t.Fatalf("within a third of the budget: %v", err)
			}
		}
		w = c.written("resume", candid.Nat64Value(w.session))
		text += w.text
		worst = max(worst, w.instructions)
	}
	if want := native(t, testModel(t), prompt, o); text != want {
		t.Errorf("got %q, want %q", text, want)
	}
	t.Logf("%d calls, at most %d instructions in one", calls, worst)
	if calls < 6 || worst > budget*3/2 {
		t.Errorf("%d calls with at most %d instructions, want more calls with at most about %d", calls, worst, budget)
	}
}

// TestModuleRandom: raw_rand is called, and its answer comes back.
func TestModuleRandom(t *testing.T) {
	c := newCompiled(t)
	var called []string
	c.Other = func(callee []byte, method string, arg []byte) ([]byte, error) {
		called = append(called, method)
		return host.Management(callee, method, arg)
	}
	arg := candid.RecordValue(candid.Field{Name: "prompt", Value: candid.TextValue("Once")}, candid.Field{Name: "max_tokens", Value: nat32(30)})
	first, second := c.written("generate", arg), c.written("generate", arg)
	if first.seed == second.seed || len(called) != 1 || called[0] != "raw_rand" {
		t.Errorf("seeds %d and %d, calls %q", first.seed, second.seed, called)
	}
	for _, w := range []written{first, second} {
		o := engine.GenerateOptions{MaxTokens: 30, Sample: engine.SampleOptions{Temperature: engine.DefaultTemperature, Seed: w.seed}}
		if want := native(t, testModel(t), "Once", o); w.text != want {
			t.Errorf("got %q, want %q", w.text, want)
		}
	}
}

// TestModuleHostile: no argument makes a method of the compiled canister trap.
func TestModuleHostile(t *testing.T) {
	c := newCompiled(t)
	args := [][]byte{nil, {0}, []byte("DIDL"), []byte("DIDL\x00\x01\x71\xff\xff\xff\xff\x0f"), []byte("DIDL\x01\x6d\x7f\x01\x00\xff\xff\xff\xff\x0f"), candid.Encode(),
		candid.Encode(candid.TextValue(strings.Repeat("x", 2_000_000)), nat32(1<<32-1)), candid.Encode(nat32(1<<32 - 1)), candid.Encode(candid.Nat64Value(1<<64 - 1)),
		candid.Encode(candid.RecordValue(candid.Field{Name: "prompt", Value: candid.TextValue("")}, candid.Field{Name: "max_tokens", Value: nat32(0)})),
		candid.Encode(candid.RecordValue(candid.Field{Name: "size", Value: candid.Nat64Value(1 << 63)}, candid.Field{Name: "sha256", Value: candid.BlobValue(make([]byte, 32))})),
		candid.Encode(candid.RecordValue(candid.Field{Name: "offset", Value: candid.Nat64Value(1<<64 - 1)}, candid.Field{Name: "data", Value: candid.BlobValue(make([]byte, 32))}))}
	for name, m := range methods {
		kind := "canister_update "
		if m.query {
			kind = "canister_query "
		}
		for _, arg := range args {
			if _, err := c.Call(t.Context(), host.Message{Export: kind + name, Arg: arg, Caller: []byte(anonymous)}); err != nil {
				t.Errorf("%s of %.30q: %v", name, arg, err)
			}
		}
	}
	c.message("canister_update resume_service", candid.Encode()) // the last of pause_service and it may have been the former
	o := engine.GenerateOptions{MaxTokens: 30}
	if w := c.written("generate", ask("Once", o)); w.text != native(t, testModel(t), "Once", o) {
		t.Errorf("behind all that: %+v", w)
	}
}
