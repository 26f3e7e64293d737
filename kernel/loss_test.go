package kernel

import (
	"math"
	"testing"
)

// Several chunks of rows must give what one does.
func TestCrossEntropyChunks(t *testing.T) {
	p := testPool(t, 2)
	const m, vocab, d = 130, logitsMax/64 + 3, 2
	h, e := randomFloats(m*d, 1), randomFloats(vocab*d, 2)
	Scale(h, 0.3) // so that no few terms stand out of the long sums
	targets := make([]int32, m)
	for i := range targets {
		targets[i] = int32(i * 1009 % vocab)
	}
	losses, dh, de := make([]float32, m), make([]float32, m*d), make([]float32, vocab*d)
	CrossEntropyForwardBackward(p, losses, dh, de, h, e, targets, m, vocab, d, 1)
	for _, i := range []int{0, 55, 56, 63, 64, 129} {
		var sum float64
		logit := make([]float64, vocab)
		for j := range logit {
			logit[j] = weighted(h[i*d:i*d+d], e[j*d:j*d+d])
			sum += math.Exp(logit[j])
		}
		want := math.Log(sum) - logit[targets[i]]
		if math.Abs(float64(losses[i])-want) > 3e-6*(1+math.Abs(want)) {
			t.Errorf("loss %d: got %v, want %v", i, losses[i], want)
		}
		for c := range d {
			g := -float64(e[int(targets[i])*d+c])
			for j, l := range logit {
				g += math.Exp(l) / sum * float64(e[j*d+c])
			}
			if math.Abs(float64(dh[i*d+c])-g) > 6e-5 {
				t.Errorf("dh %d: got %v, want %v", i, dh[i*d+c], g)
			}
		}
	}
}

func TestCrossEntropyAllocatesNothing(t *testing.T) {
	p := testPool(t, 2)
	const m, vocab, d = 40, 65, 16
	h, e := randomFloats(m*d, 1), randomFloats(vocab*d, 2)
	targets, losses, dh, de := make([]int32, m), make([]float32, m), make([]float32, m*d), make([]float32, vocab*d)
	run := func() { CrossEntropyForwardBackward(p, losses, dh, de, h, e, targets, m, vocab, d, 1) }
	run()
	if got := testing.AllocsPerRun(10, run); got > 0 {
		t.Errorf("%v allocations a run, want 0", got)
	}
}

func BenchmarkCrossEntropy(b *testing.B) {
	const m, vocab, d = 512, 50304, 512
	h, e := randomFloats(m*d, 1), randomFloats(vocab*d, 2)
	Scale(e, 0.02)
	targets, losses, dh, de := make([]int32, m), make([]float32, m), make([]float32, m*d), make([]float32, vocab*d)
	p := testPool(b, 2)
	b.Run("forward", func(b *testing.B) {
		for b.Loop() {
			CrossEntropyForward(p, losses, h, e, targets, m, vocab, d)
		}
		b.ReportMetric(2*m*vocab*d*float64(b.N)/b.Elapsed().Seconds()/1e9, "gflops")
	})
	b.Run("backward", func(b *testing.B) {
		for b.Loop() {
			CrossEntropyForwardBackward(p, losses, dh, de, h, e, targets, m, vocab, d, 1)
		}
		b.ReportMetric(6*m*vocab*d*float64(b.N)/b.Elapsed().Seconds()/1e9, "gflops")
	})
}
