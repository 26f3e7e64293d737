package main

import (
	"strconv"
	"strings"
	"testing"

	"spinnet/canister/candid"
	"spinnet/canister/ic0"
	"spinnet/engine"
)

// limit sets limits as a controller.
func limit(t testing.TB, values map[string]int) {
	t.Helper()
	caller := ic0.System.Caller
	ic0.System.Caller, ic0.System.Controllers = []byte("boss"), [][]byte{[]byte("boss")}
	var fields []candid.Field
	for name, v := range values {
		fields = append(fields, candid.Field{Name: name, Value: candid.OptValue(nat32(v))})
	}
	if tag, a, err := call(t, "set_limits", candid.RecordValue(fields...)).Variant(); err != nil || tag != candid.Hash("ok") {
		why, _ := a.Text()
		t.Fatalf("set_limits: %v %s", err, why)
	}
	ic0.System.Caller = caller
}

// begin starts a text as a caller, and pauses at once if asked to.
func begin(t testing.TB, caller string, finished bool) written {
	t.Helper()
	ic0.System.Caller = []byte(caller)
	n := 0
	if !finished {
		slow(30e9)
		n = 10
	}
	w := readWritten(t, call(t, "generate", ask("Once", engine.GenerateOptions{MaxTokens: n})))
	slow(1000)
	app.costs = costs{} // forget how slow it was
	return w
}

// TestPerCaller: a caller at the limit loses a finished session, or is told.
func TestPerCaller(t *testing.T) {
	install(t, testModel(t))
	limit(t, map[string]int{"sessions_per_caller": 3, "anonymous_sessions": 2})
	a := begin(t, "a", false)
	done := begin(t, "a", true)
	begin(t, "a", false)
	if w := begin(t, "a", false); w.err != "" {
		t.Errorf("the finished session makes no room: %s", w.err)
	}
	if w := readWritten(t, call(t, "resume", candid.Nat64Value(done.session))); !strings.Contains(w.err, "no session") {
		t.Errorf("the finished session is still there: %+v", w)
	}
	if w := begin(t, "a", false); w.err != "spinnet: you have 3 unfinished sessions, which is the limit: resume or end one" {
		t.Errorf("got %+v", w)
	}
	if got := callText(t, "start_generation", candid.TextValue("x"), nat32(3)); got != "Error: spinnet: you have 3 unfinished sessions, which is the limit: resume or end one" {
		t.Errorf("start_generation: %q", got)
	}
	if w := begin(t, "b", false); w.err != "" {
		t.Errorf("another caller: %+v", w)
	}
	// Sessions belong to their callers.
	for _, name := range []string{"resume", "session", "end_session"} {
		reply, _ := send(t, name, candid.Encode(candid.Nat64Value(a.session)))
		if !strings.Contains(string(reply), "you have no session "+strconv.Itoa(int(a.session))) {
			t.Errorf("%s of another caller's session: %q", name, reply)
		}
	}
	begin(t, anonymous, false)
	begin(t, anonymous, false)
	if w := begin(t, anonymous, false); !strings.Contains(w.err, "2 unfinished sessions") {
		t.Errorf("anonymous: %+v", w)
	}
	limit(t, map[string]int{"anonymous_sessions": 0})
	if w := begin(t, anonymous, false); !strings.Contains(w.err, "anonymous callers are not served") {
		t.Errorf("anonymous: %+v", w)
	}
}

// TestFairEviction: when there are too many sessions, who has most loses one.
func TestFairEviction(t *testing.T) {
	install(t, testModel(t))
	limit(t, map[string]int{"sessions": 5, "sessions_per_caller": 5})
	old := begin(t, "small", false)
	var greedy []written
	for range 4 {
		greedy = append(greedy, begin(t, "greedy", false))
	}
	ic0.System.Caller = []byte("greedy")
	readWritten(t, call(t, "resume", candid.Nat64Value(greedy[0].session))) // the oldest becomes the newest, and is done
	if w := begin(t, "new", false); w.err != "" {
		t.Fatal(w.err)
	}
	there := func(owner string, w written) bool {
		_, err := app.sessions.find(owner, w.session)
		return err == nil
	}
	if !there("small", old) || there("greedy", greedy[0]) || !there("greedy", greedy[1]) {
		t.Error("want the finished session of who has most to go first")
	}
	begin(t, "new", false)
	if !there("small", old) || there("greedy", greedy[1]) || !there("greedy", greedy[2]) {
		t.Error("want the longest unused session of who has most to go next")
	}
	// Who asks for more than others have loses their own.
	begin(t, "new", false)
	begin(t, "new", false)
	if !there("small", old) || app.sessions.owned("greedy") != 2 && app.sessions.owned("new") > 2 {
		t.Errorf("small %d, greedy %d, new %d sessions", app.sessions.owned("small"), app.sessions.owned("greedy"), app.sessions.owned("new"))
	}
	if n := len(app.sessions.all); n != 5 {
		t.Errorf("%d sessions", n)
	}
}

func TestExpiry(t *testing.T) {
	install(t, testModel(t))
	limit(t, map[string]int{"idle_seconds": 100})
	a := begin(t, "a", false)
	ic0.System.Time += 60e9
	b := begin(t, "a", false)
	ic0.System.Time += 60e9
	if w := readWritten(t, call(t, "resume", candid.Nat64Value(a.session))); !strings.Contains(w.err, "expired") {
		t.Errorf("after 120 s: %+v", w)
	}
	if w := readWritten(t, call(t, "resume", candid.Nat64Value(b.session))); w.err != "" {
		t.Errorf("after 60 s: %+v", w)
	}
	if app.stats.expired != 1 {
		t.Errorf("%d expired", app.stats.expired)
	}
}

// TestFewCaches: texts that take turns in one cache are those that have one
// each.
func TestFewCaches(t *testing.T) {
	m := testModel(t)
	install(t, m)
	limit(t, map[string]int{"caches": 1})
	o := engine.GenerateOptions{MaxTokens: 15, Sample: engine.SampleOptions{Temperature: 1}}
	slow(2e9)
	var all []written
	var texts []string
	for i := range 3 {
		o.Sample.Seed = uint64(i)
		w := readWritten(t, call(t, "generate", ask("Once", o)))
		all, texts = append(all, w), append(texts, w.text)
	}
	slow(5e8)
	for range 50 {
		for i := range all {
			if all[i].reason == "paused" {
				all[i] = readWritten(t, call(t, "resume", candid.Nat64Value(all[i].session)))
				texts[i] += all[i].text
			}
		}
	}
	for i := range all {
		o.Sample.Seed = uint64(i)
		if want := native(t, m, "Once", o); texts[i] != want || all[i].reason != engine.ReasonLength {
			t.Errorf("text %d: got %q, %s, want %q", i, texts[i], all[i].reason, want)
		}
	}
	if app.stats.detached < 3 || app.sessions.made != 1 {
		t.Errorf("%d caches lost, %d made", app.stats.detached, app.sessions.made)
	}
}

// TestResumeDone: a finished session stays readable.
func TestResumeDone(t *testing.T) {
	m := testModel(t)
	install(t, m)
	o := engine.GenerateOptions{MaxTokens: 9}
	w := readWritten(t, call(t, "generate", ask("Once", o)))
	again := readWritten(t, call(t, "resume", candid.Nat64Value(w.session)))
	if again.err != "" || again.text != "" || again.tokens != 0 || again.totalTokens != 9 || again.reason != engine.ReasonLength || again.unread != 0 {
		t.Errorf("got %+v", again)
	}
	reply, _ := send(t, "session", candid.Encode(candid.Nat64Value(w.session)))
	if !strings.Contains(string(reply), native(t, m, "Once", o)) {
		t.Errorf("session: %q", reply)
	}
	for _, id := range []uint64{0, w.session + 1, 1<<64 - 1} {
		if w := readWritten(t, call(t, "resume", candid.Nat64Value(id))); !strings.Contains(w.err, "you have no session") {
			t.Errorf("session %d: %+v", id, w)
		}
	}
}
