//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"testing"

	"spinnet/algebra"
	"spinnet/tensor"
)

// BenchmarkHeadMixer times the octonion head mixer on 32 texts of 512 tokens with
// 8 heads of 64, in microseconds: the forward with the expansion of its weight, and
// all of a training step's work but the optimiser's. Inputs and outputs go round
// three sets, which the L2 cache does not hold.
func BenchmarkHeadMixer(b *testing.B) {
	const rows, head = 32 * 512, 64
	d := needDevice(b)
	table, err := algebra.ByName("octonion")
	if err != nil {
		b.Fatal(err)
	}
	r := tensor.MakeRandom(tensor.Key{Seed: testSeed})
	random := func(t *tensor.Tensor) *tensor.Tensor {
		x := make([]float32, t.Len())
		for i := range x {
			x[i] = float32(r.Normal())
		}
		d.Write(t, x)
		return t
	}
	w := tensor.NewWeight(d, table, "none", head, head, true, true)
	random(w.W)
	random(w.Beta)
	ws := []*tensor.Weight{w}
	var x, y, dx, dy [3]*tensor.Tensor
	for i := range x {
		for _, t := range []**tensor.Tensor{&x[i], &y[i], &dx[i], &dy[i]} {
			*t = random(d.Slice(d.Alloc(rows*8*head/2), 0, tensor.BFloat16, rows, 8*head))
		}
	}
	n := 0
	forward := func() {
		n++
		d.Refresh(ws, true)
		d.Linear(y[n%3:n%3+1], x[n%3], ws)
	}
	for b.Loop() {
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(d.microseconds(b, forward), "refresh+forward")
	b.ReportMetric(d.microseconds(b, func() {
		forward()
		d.LinearBackward(dx[n%3], false, dy[n%3:n%3+1], x[n%3], ws)
		d.FinishGradients(ws)
	}), "all")
}
