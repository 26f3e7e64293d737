package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"spinnet/train"
)

// What comes after the last step, its evaluation and sample, is shown above
// the bar too.
func TestProgressShowsTheEnd(t *testing.T) {
	var out bytes.Buffer
	p := &progress{w: &out, width: 120}
	p.showBar(20, 0)
	o := p.observer()
	for step := 1; step <= 20; step++ {
		o.Step(train.StepInfo{Step: step, MaxSteps: 20, Tokens: 8, TokensPerSecond: 100})
	}
	time.Sleep(500 * time.Millisecond) // an evaluation takes longer than the bar's refresh
	o.Eval(train.EvalInfo{Step: 20, Train: 1.25, Val: 1.5})
	o.Sample(20, "To be")
	p.close()
	for _, want := range []string{"20/20", "evaluation at step 20: train 1.2500  val 1.5000", "sample at step 20:\n  To be\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in %q", want, &out)
		}
	}
}
