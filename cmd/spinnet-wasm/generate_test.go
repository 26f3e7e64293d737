package main

import (
	"strings"
	"testing"

	"spinnet/canister/candid"
	"spinnet/canister/ic0"
	"spinnet/engine"
)

// TestGenerate: the text of the command line with the same options, in one
// message and with pauses after every few pieces.
func TestGenerate(t *testing.T) {
	m := testModel(t)
	install(t, m)
	long := strings.Repeat("Once upon a time, ", 40)
	for _, c := range []struct {
		prompt string
		o      engine.GenerateOptions
	}{
		{"Once", engine.GenerateOptions{MaxTokens: 60}},
		{"", engine.GenerateOptions{MaxTokens: 20}},
		{"héllo", engine.GenerateOptions{MaxTokens: 0}},
		{"Once", engine.GenerateOptions{MaxTokens: 60, Sample: engine.SampleOptions{Temperature: 0.9, Seed: 7}}},
		{"Once", engine.GenerateOptions{MaxTokens: 60, Sample: engine.SampleOptions{Temperature: 2, Seed: 8, TopK: 30, TopP: 0.9}}},
		{"Once", engine.GenerateOptions{MaxTokens: 200, Sample: engine.SampleOptions{Temperature: 3, Seed: 9}, Stop: []string{"e", "??"}}},
		{long, engine.GenerateOptions{MaxTokens: 30}},
	} {
		want := native(t, m, c.prompt, c.o)
		for _, each := range []uint64{1000, 2e9, 11e9} {
			slow(each)
			w := readWritten(t, call(t, "generate", ask(c.prompt, c.o)))
			if w.err != "" {
				t.Fatal(w.err)
			}
			got, calls := rest(t, w)
			if got != want {
				t.Errorf("%.10q, %+v, %d instructions a look, %d calls: got %q, want %q", c.prompt, c.o, each, calls, got, want)
			}
			if each == 2e9 && c.o.MaxTokens > 20 && calls < 5 && len(c.o.Stop) == 0 {
				t.Errorf("%.10q, %+v: %d calls, want more", c.prompt, c.o, calls)
			}
			if w.instructions == 0 || w.instructions > 40e9 || w.seed != c.o.Sample.Seed || w.promptTokens != max(1, len(c.prompt)) {
				t.Errorf("got %+v", w)
			}
			call(t, "end_session", candid.Nat64Value(w.session))
		}
	}
	slow(1000)
	if s := sessionsOf(t); s != 0 {
		t.Errorf("%d sessions are left", s)
	}
}

// sessionsOf counts the caller's sessions.
func sessionsOf(t testing.TB) int {
	t.Helper()
	n := app.sessions.owned(string(ic0.System.Caller))
	reply, _ := send(t, "sessions", candid.Encode())
	if got := strings.Count(string(reply), "paused") + strings.Count(string(reply), "length") + strings.Count(string(reply), "stop"); got != n {
		t.Errorf("sessions() tells of %d sessions, there are %d", got, n)
	}
	return n
}

// TestBudget: no message starts what it cannot end.
func TestBudget(t *testing.T) {
	m := testModel(t)
	for _, percent := range []int{5, 60, 98} {
		install(t, m)
		ic0.System.Controllers = [][]byte{ic0.System.Caller}
		call(t, "set_limits", candid.RecordValue(candid.Field{Name: "budget_percent", Value: candid.OptValue(nat32(percent))}))
		worst := uint64(0)
		ic0.System.Counter = func(looks uint64) uint64 { // pieces of 0.3 and 0.6 · 10⁹
			n := looks*3e8 + looks/2*3e8
			worst = max(worst, n)
			return n
		}
		w := readWritten(t, call(t, "generate", ask("Once", engine.GenerateOptions{MaxTokens: 60})))
		if _, calls := rest(t, w); calls < 3 {
			t.Errorf("budget of %d %%: %d calls", percent, calls)
		}
		if most := uint64(percent) * 4e8; worst > most+2e9 || worst < most/2 {
			t.Errorf("budget of %d %%: %d instructions in a message", percent, worst)
		}
	}
	// A layer that takes more than any message has.
	install(t, m)
	slow(50e9)
	call(t, "generate", ask("Once", engine.GenerateOptions{MaxTokens: 60})) // which learns that
	before := sessionsOf(t)
	if w := readWritten(t, call(t, "generate", ask("Once", engine.GenerateOptions{MaxTokens: 60}))); !strings.Contains(w.err, "one layer takes about") {
		t.Errorf("got %+v", w)
	}
	if n := sessionsOf(t); n != before {
		t.Errorf("%d sessions after an error, %d before it", n, before)
	}
}

// TestFullReply: a text that no reply holds comes in parts.
func TestFullReply(t *testing.T) {
	defer func(most int) { maxPart = most }(maxPart)
	maxPart = 20
	m := testModel(t)
	install(t, m)
	want := native(t, m, "Once", engine.GenerateOptions{MaxTokens: 90})
	w := readWritten(t, call(t, "generate", ask("Once", engine.GenerateOptions{MaxTokens: 90})))
	if len(w.text) < 10 || len(w.text) > 60 || w.reason != "paused" {
		t.Errorf("got %+v", w)
	}
	if got, calls := rest(t, w); got != want || calls < 3 {
		t.Errorf("got %q in %d calls, want %q", got, calls, want)
	}
}

// TestCosts: what the pieces take is learned from those before.
func TestCosts(t *testing.T) {
	type piece struct {
		p    engine.Piece
		rows int
		took uint64
	}
	for _, c := range []struct {
		name string
		seen []piece
		p    engine.Piece
		rows int
		want uint64
	}{
		{"nothing", nil, engine.Layer, 1, 0},
		{"one token", []piece{{engine.Layer, 1, 500}}, engine.Layer, 1, 500},
		{"several tokens, before any were seen", []piece{{engine.Layer, 1, 500}}, engine.Layer, 10, 5000},
		{"several tokens", []piece{{engine.Layer, 1, 500}, {engine.Layer, 10, 1000}}, engine.Layer, 20, 2000},
		{"more at once", []piece{{engine.Draw, 1, 500}, {engine.Draw, 1, 800}}, engine.Draw, 1, 800},
		{"less slowly", []piece{{engine.Draw, 1, 800}, {engine.Draw, 1, 0}}, engine.Draw, 1, 700},
		// A cache that grew while one token was taken up is not paid for by each of the next.
		{"a cache that grew", []piece{{engine.Layer, 1, 500}, {engine.Begin, 1, 100_500}}, engine.Begin, 100, 150_000},
	} {
		var k costs
		for _, s := range c.seen {
			k.learn(s.p, s.rows, s.took)
		}
		if got := k.expect(c.p, c.rows); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestQuick: a query stops within the budget of queries, and leaves nothing.
func TestQuick(t *testing.T) {
	m := testModel(t)
	install(t, m)
	want := native(t, m, "Once", engine.GenerateOptions{MaxTokens: quickTokens})
	if got := callText(t, "generate_quick", candid.TextValue("Once")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	slow(5e7)
	got := callText(t, "generate_quick", candid.TextValue("Once"))
	if got == "" || len(got) >= len(want) || !strings.HasPrefix(want, got) {
		t.Errorf("with a small budget: got %q, want a beginning of %q", got, want)
	}
	if got := callText(t, "generate_quick", candid.TextValue(strings.Repeat("Once ", 1000))); !strings.HasPrefix(got, "Error: ") {
		t.Errorf("a long prompt: got %q", got)
	}
	if n := len(app.sessions.all); n != 0 || len(app.sessions.free) != app.sessions.made {
		t.Errorf("%d sessions, %d caches of %d are free", n, len(app.sessions.free), app.sessions.made)
	}
}

// TestRandomSeed: without a seed the management canister's random bytes give
// one, and the reply says which.
func TestRandomSeed(t *testing.T) {
	m := testModel(t)
	random := make([]byte, 32)
	for i := range random {
		random[i] = byte(i)
	}
	o := engine.GenerateOptions{MaxTokens: 30, Sample: engine.SampleOptions{Temperature: 1}}
	unseeded := candid.RecordValue(candid.Field{Name: "prompt", Value: candid.TextValue("Once")},
		candid.Field{Name: "max_tokens", Value: nat32(30)}, candid.Field{Name: "temperature", Value: candid.Float64Value(1)})
	check := func(w written) {
		t.Helper()
		o.Sample.Seed = w.seed
		if want := native(t, m, "Once", o); w.err != "" || w.text != want {
			t.Errorf("got %+v, want %q", w, want)
		}
	}
	start := func() {
		t.Helper()
		if reply, rejected := send(t, "generate", candid.Encode(unseeded)); reply != nil || rejected != "" {
			t.Fatalf("answered at once: %q, %q", reply, rejected)
		}
	}
	answered := func() written {
		t.Helper()
		if len(ic0.System.Replies) != 1 {
			t.Fatalf("%d replies, rejections %q", len(ic0.System.Replies), ic0.System.Rejections)
		}
		return readWritten(t, result(t, ic0.System.Replies[0]))
	}

	t.Run("answered", func(t *testing.T) {
		install(t, m)
		start()
		c := ic0.System.Calls[0]
		if len(c.Callee) != 0 || c.Method != "raw_rand" || string(c.Arg) != "DIDL\x00\x00" {
			t.Errorf("called %+v", c)
		}
		c.Answer(candid.Encode(candid.BlobValue(random)), nil)
		first := answered()
		check(first)
		second := readWritten(t, call(t, "generate", unseeded)) // needs no call
		check(second)
		if first.seed == second.seed || app.stats.guessable != 0 {
			t.Errorf("seeds %d and %d, %d guessable", first.seed, second.seed, app.stats.guessable)
		}
	})
	for name, answer := range map[string]func(*ic0.FakeCall){
		"rejected":       func(c *ic0.FakeCall) { c.Answer(nil, &ic0.RejectError{Code: 2, Message: "no"}) },
		"too few bytes":  func(c *ic0.FakeCall) { c.Answer(candid.Encode(candid.BlobValue(random[:31])), nil) },
		"something else": func(c *ic0.FakeCall) { c.Answer([]byte("hello"), nil) },
		"another type":   func(c *ic0.FakeCall) { c.Answer(candid.Encode(candid.TextValue("hello")), nil) },
		"nothing at all": func(c *ic0.FakeCall) { c.Answer(nil, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			install(t, m)
			start()
			answer(&ic0.System.Calls[0])
			check(answered())
			if app.stats.guessable != 1 {
				t.Errorf("%d guessable seeds, want 1", app.stats.guessable)
			}
		})
	}
	t.Run("no call", func(t *testing.T) {
		install(t, m)
		ic0.System.RefuseCalls = true
		check(readWritten(t, call(t, "generate", unseeded)))
	})
	t.Run("two callers at once", func(t *testing.T) {
		install(t, m)
		start()
		ic0.System.Caller = []byte{9}
		start()
		calls := ic0.System.Calls
		calls[1].Answer(candid.Encode(candid.BlobValue(random)), nil)
		second := answered()
		check(second)
		ic0.System.Replies = nil
		calls[0].Answer(candid.Encode(candid.BlobValue(random)), nil)
		first := answered()
		check(first)
		if first.seed == second.seed {
			t.Error("two callers have the same seed")
		}
		if s, err := app.sessions.find("\x01\x02\x03", first.session); err != nil || s.owner != "\x01\x02\x03" {
			t.Errorf("the first caller's session: %v", err)
		}
	})
	t.Run("paused meanwhile", func(t *testing.T) {
		install(t, m)
		start()
		app.paused = true
		ic0.System.Calls[0].Answer(candid.Encode(candid.BlobValue(random)), nil)
		if w := answered(); !strings.Contains(w.err, "paused") {
			t.Errorf("got %+v", w)
		}
	})
	t.Run("another model meanwhile", func(t *testing.T) {
		install(t, m)
		start()
		other, err := openModule()
		if err != nil {
			t.Fatal(err)
		}
		app.use(other)
		ic0.System.Calls[0].Answer(candid.Encode(candid.BlobValue(random)), nil)
		if w := answered(); !strings.Contains(w.err, "replaced") {
			t.Errorf("got %+v", w)
		}
	})
}
