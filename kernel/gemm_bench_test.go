package kernel

import (
	"fmt"
	"testing"
	"time"
)

// peakGFLOPS is what the register-only loop reaches on one thread.
func peakGFLOPS() float64 {
	best := 0.0
	for range 5 {
		start := time.Now()
		f := peakFMA(500_000)
		best = max(best, float64(f)/float64(time.Since(start).Nanoseconds()))
	}
	return best
}

// reportPeak reports the share of the peak a benchmark reached, for flops an
// iteration.
func reportPeak(b *testing.B, flops float64, threads int) {
	g := flops * float64(b.N) / float64(b.Elapsed().Nanoseconds())
	b.ReportMetric(g, "GFLOPS")
	b.ReportMetric(100*g/peakGFLOPS()/float64(threads), "%peak")
}

func BenchmarkGemm(b *testing.B) {
	for _, s := range []struct {
		name    string
		f       func(p *Pool, c, a, b []float32, m, n, k int, acc bool)
		m, n, k int
	}{
		{"NT", GemmNT, 4096, 512, 512}, {"NN", GemmNN, 4096, 512, 512}, {"TN", GemmTN, 512, 512, 4096},
		{"NT", GemmNT, 4096, 1408, 512}, {"NN", GemmNN, 4096, 512, 1408}, {"TN", GemmTN, 1408, 512, 4096},
	} {
		for threads := 1; threads <= 2; threads++ {
			b.Run(fmt.Sprintf("%s/%dx%dx%d/%d", s.name, s.m, s.n, s.k, threads), func(b *testing.B) {
				p := testPool(b, threads)
				x, w, y := randomFloats(s.m*s.k, 1), randomFloats(s.n*s.k, 2), make([]float32, s.m*s.n)
				s.f(p, y, x, w, s.m, s.n, s.k, false)
				b.ReportAllocs()
				for b.Loop() {
					s.f(p, y, x, w, s.m, s.n, s.k, false)
				}
				reportPeak(b, 2*float64(s.m*s.n)*float64(s.k), threads)
			})
		}
	}
}
