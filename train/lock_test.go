//go:build unix

package train

import (
	"context"
	"strings"
	"testing"
)

// While a run trains, no other one gets its folder; after it, or its process,
// has ended, any does.
func TestOneRunAFolder(t *testing.T) {
	d := testData(t, 0)
	c := testConfig(t, "max_iters=6", "checkpoint_interval=2", "sample_tokens=0")
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "another process trains in "+c.OutDir) {
			t.Errorf("%s beside a run: got %v, want a refusal", what, err)
		}
	}
	first := newTrainer(t, c, d, 1)
	err := first.Run(context.Background(), Observer{Step: func(s StepInfo) {
		if s.Step != 3 {
			return
		}
		refused("overwriting", newTrainer(t, c, d, 1).Overwrite())
		refused("beginning", newTrainer(t, c, d, 1).Run(context.Background(), Observer{}))
		refused("resuming", newTrainer(t, c, d, 1).Resume())
	}})
	if err != nil {
		t.Fatal(err)
	}
	// Resume holds the folder before Run does; Close lets it go.
	second := newTrainer(t, c, d, 1)
	if err := second.Resume(); err != nil {
		t.Fatal(err)
	}
	refused("overwriting", newTrainer(t, c, d, 1).Overwrite())
	second.Close()
	third := newTrainer(t, c, d, 1)
	if err := third.Overwrite(); err != nil {
		t.Fatal(err)
	}
	if err := third.Run(context.Background(), Observer{}); err != nil {
		t.Fatal(err)
	}
}
