package main

import (
	"encoding/json"
	"testing"
	"time"

	"spinnet/kernel"
)

// What a script reads is in every line, also where it does not apply.
func TestBenchJSON(t *testing.T) {
	text, err := json.Marshal(benchResult{Bench: "x"})
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bench", "shape", "threads", "ms", "gflops", "tokens_per_s", "peak_gflops"} {
		if _, ok := fields[name]; !ok {
			t.Errorf("%s is missing in %s", name, text)
		}
	}
}

var sink []byte

// Allocations are counted by call, and a fraction stays one.
func TestBenchAllocations(t *testing.T) {
	p := kernel.NewPool(1)
	defer p.Close()
	_, allocs, _ := inTurns(p, 3, []func(){func() {}, func() { sink = make([]byte, 100); sink = make([]byte, 100) }})
	if !(allocs[0] < 1 && allocs[1] >= 2 && allocs[1] < 3) { // the runtime may allocate, too
		t.Errorf("got %v allocations a call, want 0 and 2", allocs)
	}
	n := 0
	_, mean := (&benchContext{}).Measure(func() {
		time.Sleep(time.Millisecond)
		if n++; n%2 == 0 {
			sink = make([]byte, 100)
		}
	})
	if !(mean > 0.4 && mean < 0.7) {
		t.Errorf("got %v allocations a call, want a half", mean)
	}
}
