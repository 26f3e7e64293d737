package main

import (
	"slices"
	"strings"
	"testing"

	"spinnet/arch"
	"spinnet/canister/candid"
	"spinnet/canister/ic0"
	"spinnet/engine"
)

// TestBadRequests: wrong values are told by err, wrong types by a rejection,
// and a good request is served behind them.
func TestBadRequests(t *testing.T) {
	m := testModel(t)
	install(t, m)
	prompt := candid.Field{Name: "prompt", Value: candid.TextValue("Once")}
	with := func(name string, v candid.Value) candid.Value {
		return candid.RecordValue(prompt, candid.Field{Name: "seed", Value: candid.Nat64Value(1)}, candid.Field{Name: name, Value: v})
	}
	var stops []candid.Value
	for range maxStops + 1 {
		stops = append(stops, candid.TextValue("x"))
	}
	for _, c := range []struct {
		name string
		arg  candid.Value
		want string
	}{
		{"2 MB", candid.RecordValue(candid.Field{Name: "prompt", Value: candid.TextValue(strings.Repeat("x", 2_000_000))}), "a prompt of 2000000 bytes, want at most 65536"},
		{"many tokens", candid.RecordValue(candid.Field{Name: "prompt", Value: candid.TextValue(strings.Repeat("x", 20_000))}), "a prompt of 20000 tokens, want at most 16384"},
		{"max_tokens", with("max_tokens", nat32(1<<32-1)), "max_tokens is 4294967295, want at most 16384"},
		{"temperature", with("temperature", candid.Float64Value(-1)), "temperature must be"},
		{"top_p", with("top_p", candid.Float64Value(1.5)), "top-p must be"},
		{"min_p", with("min_p", candid.Float64Value(-0.5)), "min-p must be"},
		{"repetition_penalty", with("repetition_penalty", candid.Float64Value(-2)), "repetition penalty"},
		{"empty stop", with("stop", candid.VecValue(candid.TextValue(""))), "a stop string is empty"},
		{"long stop", with("stop", candid.VecValue(candid.TextValue(strings.Repeat("x", 257)))), "a stop text of 257 bytes, want at most 256"},
	} {
		if w := readWritten(t, call(t, "generate", c.arg)); !strings.Contains(w.err, c.want) {
			t.Errorf("%s: got %+v, want %q", c.name, w, c.want)
		}
	}
	for _, c := range []struct {
		name, method string
		arg          []byte
		want         string
	}{
		{"no prompt", "generate", candid.Encode(candid.RecordValue()), "no field prompt"},
		{"a prompt of another type", "generate", candid.Encode(candid.RecordValue(candid.Field{Name: "prompt", Value: nat32(1)})), "want text"},
		{"a text for a record", "generate", candid.Encode(candid.TextValue("Once")), "want record"},
		{"no argument", "generate", candid.Encode(), "want record"},
		{"many stops", "generate", candid.Encode(with("stop", candid.VecValue(stops...))), "17 texts, want at most 16"},
		{"empty message", "generate_full", nil, "DIDL"},
		{"garbage", "generate_full", []byte("generate, please"), "DIDL"},
		{"one argument of two", "generate_full", candid.Encode(candid.TextValue("x")), "want nat32"},
		{"text that is not UTF-8", "generate_full", append(candid.Encode(candid.TextValue("xxx"), nat32(1))[:8], "\x03x\xffx\x01\x00\x00\x00"...), "not valid UTF-8"},
		{"a nat for a nat32", "generate_n_tokens", candid.Encode(candid.NatValue(3)), "want nat32"},
		{"a text for a nat64", "resume", candid.Encode(candid.TextValue("3")), "want nat64"},
		{"more bytes", "get_result", append(candid.Encode(), 1), "bytes too many"},
	} {
		if reply, rejected := send(t, c.method, c.arg); !strings.Contains(rejected, c.want) {
			t.Errorf("%s: reply %q, rejected %q, want %q", c.name, reply, rejected, c.want)
		}
	}
	if len(app.sessions.all) != 0 {
		t.Errorf("%d sessions", len(app.sessions.all))
	}
	o := engine.GenerateOptions{MaxTokens: 20}
	if w := readWritten(t, call(t, "generate", ask("Once", o))); w.text != native(t, m, "Once", o) {
		t.Errorf("behind all that: %+v", w)
	}
}

// TestLongContext: a model whose context does not fit into memory writes short
// texts only.
func TestLongContext(t *testing.T) {
	install(t, modelOf(t, arch.Config{NLayer: 12, NHead: 2, NEmbd: 64, HiddenDim: 8, BlockSize: 1 << 22, VocabSize: 256, ActBits: 8, Quantizer: arch.AbsMean}))
	limit(t, map[string]int{"prompt_tokens": 1 << 20, "prompt_bytes": 1 << 20})
	o := engine.GenerateOptions{MaxTokens: 20}
	want := "take 1172 MiB, and there are 1024: ask for fewer tokens"
	if w := readWritten(t, call(t, "generate", ask(strings.Repeat("x", 100_000), o))); !strings.Contains(w.err, want) {
		t.Errorf("got %+v, want %q", w, want)
	}
	if w := readWritten(t, call(t, "generate", ask("Once", o))); w.tokens != 20 {
		t.Errorf("a short text: %+v", w)
	}
	if n := app.model.caches(app.limits); n != 1 {
		t.Errorf("%d caches, want 1", n)
	}
}

// TestNoModel: without a model, or with one that cannot be used, everything
// says so.
func TestNoModel(t *testing.T) {
	install(t, nil)
	broken := func() {
		install(t, nil)
		place([]byte("SPIN but then something else"))
		start()
	}
	for want, prepare := range map[string]func(){"holds no model": func() { install(t, nil) }, "spinfile": broken} {
		prepare()
		for name, args := range map[string][]candid.Value{
			"generate_full": {candid.TextValue("x"), nat32(1)}, "start_generation": {candid.TextValue("x"), nat32(1)}, "start_forward": nil,
			"generate_quick": {candid.TextValue("x")}, "generate_n_tokens": {nat32(1)}, "generate_next_token": nil,
		} {
			if got := callText(t, name, args...); !strings.HasPrefix(got, "Error: ") || !strings.Contains(got, want) {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		if w := readWritten(t, call(t, "generate", ask("x", engine.GenerateOptions{}))); !strings.Contains(w.err, want) {
			t.Errorf("generate: %+v", w)
		}
		if reply, _ := send(t, "health", candid.Encode()); !strings.Contains(string(reply), want) {
			t.Errorf("health: %q", reply)
		}
		upgrade(t)
	}
}

func TestSetLimits(t *testing.T) {
	install(t, testModel(t))
	controller()
	before := app.limits
	for _, c := range []struct {
		name string
		v    candid.Value
		want string
	}{
		{"budget_percent", nat32(99), "budget_percent is 99, want 5 to 98"},
		{"budget_percent", nat32(0), "want 5 to 98"},
		{"sessions", nat32(0), "want 1 to 10000"},
		{"update_instructions", candid.Nat64Value(1), "want 1000000000 to"},
		{"prompt_bytes", nat32(1 << 30), "want 1 to"},
	} {
		r := candid.RecordValue(candid.Field{Name: "max_tokens", Value: nat32(7)}, candid.Field{Name: c.name, Value: candid.OptValue(c.v)})
		if got := variant(t, "set_limits", r); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if app.limits != before {
		t.Errorf("a refused change leaves %+v", app.limits)
	}
	// Each limit can be set, and get_limits tells it.
	for i, n := range before.numbers() {
		v := candid.Nat64Value(n.least + 1)
		if n.narrow != nil {
			v = nat32(int(n.least + 1))
		}
		if got := variant(t, "set_limits", candid.RecordValue(candid.Field{Name: n.name, Value: candid.OptValue(v)})); got != "" {
			t.Errorf("%s: %s", n.name, got)
		}
		if now := app.limits.numbers()[i].get(); now != n.least+1 {
			t.Errorf("%s is %d, want %d", n.name, now, n.least+1)
		}
	}
	got, want := 0, len(before.numbers())
	if err := call(t, "get_limits").Record(func(uint32, candid.Arg) (bool, error) { got++; return false, nil }); err != nil || got != want {
		t.Errorf("get_limits: %d fields, want %d (%v)", got, want, err)
	}
}

func TestPause(t *testing.T) {
	install(t, testModel(t))
	controller()
	w := begin(t, string(ic0.System.Caller), false)
	call(t, "pause_service")
	if again := readWritten(t, call(t, "resume", candid.Nat64Value(w.session))); again.err != "spinnet: the service is paused by its controllers" {
		t.Errorf("resume: %+v", again)
	}
	if got := callText(t, "generate_full", candid.TextValue("x"), nat32(1)); got != "Error: spinnet: the service is paused by its controllers" {
		t.Errorf("generate_full: %q", got)
	}
	call(t, "resume_service")
	if again := readWritten(t, call(t, "resume", candid.Nat64Value(w.session))); again.err != "" || again.reason != engine.ReasonLength {
		t.Errorf("resume: %+v", again)
	}
}

// FuzzMethods: no argument makes a method panic or leave the message without
// an answer.
func FuzzMethods(f *testing.F) {
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range methods {
			if !yield(name) {
				return
			}
		}
	})
	for i := range names {
		for _, arg := range [][]byte{candid.Encode(), candid.Encode(candid.TextValue("Once"), nat32(3)), candid.Encode(nat32(3)), candid.Encode(candid.Nat64Value(1)),
			candid.Encode(ask("Once", engine.GenerateOptions{MaxTokens: 3, Stop: []string{"a"}, Sample: engine.SampleOptions{TopK: 3, TopP: 0.5}})),
			candid.Encode(candid.RecordValue(candid.Field{Name: "size", Value: candid.Nat64Value(100)}, candid.Field{Name: "sha256", Value: candid.BlobValue(make([]byte, 32))})),
			candid.Encode(candid.RecordValue(candid.Field{Name: "offset", Value: candid.Nat64Value(0)}, candid.Field{Name: "data", Value: candid.BlobValue(make([]byte, 100))})),
			candid.Encode(candid.RecordValue(candid.Field{Name: "caches", Value: candid.OptValue(nat32(2))}))} {
			f.Add(i, arg)
		}
	}
	install(f, testModel(f))
	limit(f, map[string]int{"max_tokens": 20, "prompt_tokens": 100})
	controller()
	ic0.System.MaxStable = 64
	f.Fuzz(func(t *testing.T, i int, arg []byte) {
		if i %= len(names); i < 0 {
			i = -i
		}
		ic0.System.Calls, ic0.System.Log = nil, nil
		ic0.System.Time += 1e9
		reply, rejected := send(t, names[i], arg)
		for i := range ic0.System.Calls { // generate without a seed
			ic0.System.Calls[i].Answer(nil, &ic0.RejectError{Code: 1})
			reply = ic0.System.Replies[0]
		}
		if (reply == nil) == (rejected == "") {
			t.Errorf("%s: reply %q, rejected %q", names[i], reply, rejected)
		}
	})
}
