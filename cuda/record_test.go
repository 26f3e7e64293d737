//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"slices"
	"testing"

	"spinnet/tensor"
)

// TestRecordedAfterWhatWaits: an operation that waits when a recorded function is
// called is done before, and is no part of its graph.
func TestRecordedAfterWhatWaits(t *testing.T) {
	f := new(fake)
	d := openFake(t, f)
	x, a, s := d.Alloc(64), d.Alloc(64), d.AllocScalar()
	b := d.Slice(d.Alloc(64), 0, tensor.BFloat16, 64)
	recorded := d.Record(func() { d.AddSum(s, x) })
	for call := range 4 {
		f.forget()
		d.Add(x, a, b)
		recorded()
		add := slices.Index(f.calls, cuLaunchKernelEx)
		if add < 0 || f.launch[0] != "add_f32_bf16" {
			t.Fatalf("call %d launched %v", call, f.launch)
		}
		for _, fn := range []function{cuStreamBeginCapture, cuGraphLaunch} {
			if i := slices.Index(f.calls, fn); i >= 0 && i < add {
				t.Errorf("call %d: %s comes before the sum", call, symbols[fn])
			}
		}
	}
}

// TestRecordedTurns: a recorded function takes the same scratch memory at every
// call, also when it leaves one copy of a gradient.
func TestRecordedTurns(t *testing.T) {
	d := openFake(t, new(fake))
	dx, x, w, dw := d.Alloc(4, 64), d.Alloc(4, 64), d.Alloc(64), d.Alloc(64)
	dy := d.Slice(d.Alloc(4, 64), 0, tensor.BFloat16, 4, 64)
	recorded := d.Record(func() { d.RMSNormBackward(dx, false, dw, dy, x, w) })
	for range 3 {
		recorded()
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
}
