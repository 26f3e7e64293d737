package main

import (
	"strconv"
	"strings"
	"testing"

	"spinnet/canister/candid"
	"spinnet/canister/ic0"
	"spinnet/engine"
)

func itoa(n int) string { return strconv.Itoa(n) }

// upgrade is what the system does on an upgrade.
func upgrade(t testing.TB) {
	t.Helper()
	app.save()
	start()
}

// TestUpgrade: texts go on behind an upgrade, wherever it comes.
func TestUpgrade(t *testing.T) {
	m := testModel(t)
	for _, each := range []uint64{1e9, 3e9} {
		install(t, m)
		o := engine.GenerateOptions{MaxTokens: 40, Sample: engine.SampleOptions{Temperature: 1.5, Seed: 5, TopK: 50}, Stop: []string{"abc"}}
		limit(t, map[string]int{"caches": 3, "max_tokens": 50})
		slow(each)
		w := readWritten(t, call(t, "generate", ask(strings.Repeat("Once ", 10), o)))
		callText(t, "start_generation", candid.TextValue(""), nat32(9))
		callText(t, "start_forward")
		ic0.System.Caller = []byte("b")
		callText(t, "generate_full", candid.TextValue("and"), nat32(5))
		ic0.System.Caller = []byte{1, 2, 3}
		app.paused = true
		calls := app.stats.calls
		text := w.text
		for i := 0; w.reason == "paused"; i++ {
			upgrade(t)
			if i == 0 && (!app.paused || app.limits.Caches != 3 || app.limits.MaxTokens != 50 || app.stats.calls != calls || len(app.sessions.all) != 3) {
				t.Errorf("after the upgrade: paused %v, limits %+v, %d calls, %d sessions", app.paused, app.limits, app.stats.calls, len(app.sessions.all))
			}
			app.paused = false
			w = readWritten(t, call(t, "resume", candid.Nat64Value(w.session)))
			if text += w.text; w.err != "" {
				t.Fatal(w.err)
			}
			// Behind an upgrade the text is read again, which needs its time.
			slow(each / uint64(2+i))
		}
		if want := native(t, m, strings.Repeat("Once ", 10), o); text != want {
			t.Errorf("got %q, want %q", text, want)
		}
		if got := callText(t, "process_layers", nat32(100)); got != "Done" {
			t.Errorf("process_layers behind upgrades: %q", got)
		}
		got := callText(t, "finish_forward") + callText(t, "generate_n_tokens", nat32(20))
		if want := native(t, m, "", engine.GenerateOptions{MaxTokens: 9}); got != want {
			t.Errorf("the other text: got %q, want %q", got, want)
		}
		if got := callText(t, "get_result"); got != native(t, m, "", engine.GenerateOptions{MaxTokens: 9}) {
			t.Errorf("get_result: %q", got)
		}
		last := app.sessions.last
		upgrade(t)
		if w := readWritten(t, call(t, "generate", ask("x", engine.GenerateOptions{}))); w.session != last+1 {
			t.Errorf("session %d behind session %d", w.session, last)
		}
	}
}

// TestUpgradeDrops: what an upgrade drops, it counts or prints.
func TestUpgradeDrops(t *testing.T) {
	m := testModel(t)
	two := func() {
		install(t, m)
		begin(t, "a", false)
		begin(t, "b", true)
	}
	two()
	app.save()
	place(imageOf(t, otherModel(t))) // a module with another model
	start()
	if len(app.sessions.all) != 0 || app.stats.dropped != 2 || app.model == nil {
		t.Errorf("another model: %d sessions, %d dropped, model %v (%v)", len(app.sessions.all), app.stats.dropped, app.model, app.modelErr)
	}

	two()
	app.save()
	h := readHeader()
	ic0.System.Stable[h.stateAt+20]++
	start()
	if len(app.sessions.all) != 0 || !strings.Contains(strings.Join(ic0.System.Log, "\n"), "damaged") {
		t.Errorf("damaged: %d sessions, log %q", len(app.sessions.all), ic0.System.Log)
	}

	two()
	app.save()
	start()
	start() // without save: what was kept is used once
	if len(app.sessions.all) != 0 {
		t.Errorf("an upgrade that skips pre_upgrade: %d sessions", len(app.sessions.all))
	}

	for pages := 1; pages < 3; pages++ {
		two()
		ic0.System.MaxStable = pages - 1 // 0 means no limit
		if pages == 1 {
			ic0.System.MaxStable = -1
		}
		app.save()
		start()
		if app.model == nil {
			t.Errorf("%d pages: %v", pages, app.modelErr)
		}
		if len(app.sessions.all) == 0 && !strings.Contains(strings.Join(ic0.System.Log, "\n"), "stable memory") {
			t.Errorf("%d pages: no sessions and nothing in the log: %q", pages, ic0.System.Log)
		}
	}

	// Foreign stable memory is nobody's.
	install(t, m)
	ic0.System.Stable = make([]byte, 2*ic0.PageSize)
	copy(ic0.System.Stable, "something else")
	start()
	upgrade(t)
	if app.model == nil || len(ic0.System.Log) > 0 {
		t.Errorf("foreign stable memory: %v, log %q", app.modelErr, ic0.System.Log)
	}
}

// FuzzRestore: no bytes in stable memory make the start panic.
func FuzzRestore(f *testing.F) {
	m := testModel(f)
	install(f, m)
	begin(f, "a", false)
	app.save()
	saved := ic0.System.Stable
	f.Add(200, byte(7), true)
	f.Fuzz(func(t *testing.T, at int, v byte, sum bool) {
		ic0.System = ic0.Fake{Stable: append([]byte(nil), saved...)}
		if at %= len(saved); at < 0 {
			at = -at
		}
		ic0.System.Stable[at] = v
		if sum { // what is damaged behind the checksum
			h := readHeader()
			if h.stateAt+h.stateOf <= uint64(len(saved)) && h.stateAt <= uint64(len(saved)) {
				r := stableReader{at: h.stateAt, end: h.stateAt + h.stateOf}
				for r.at < r.end && !r.bad {
					r.add(r.block())
				}
				h.stateSum = r.sum
				h.write()
			}
		}
		start()
		for _, s := range app.sessions.all {
			ic0.System.Caller = []byte(s.owner)
			readWritten(t, call(t, "resume", candid.Nat64Value(s.id)))
		}
	})
}
