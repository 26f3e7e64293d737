package kernel

import (
	"fmt"
	"sort"
	"testing"
	"time"
)

func peakOnce() float64 {
	s := time.Now()
	f := peakFMA(300000)
	return float64(f) / float64(time.Since(s).Nanoseconds())
}

// shareOfPeak runs f in turns with the peak loop and returns the median
// share of the peak and its best, in percent.
func shareOfPeak(rounds int, flops float64, threads int, f func()) (median, best float64) {
	var r []float64
	for range rounds {
		pk := peakOnce()
		st := time.Now()
		f()
		d := float64(time.Since(st).Nanoseconds())
		pk = max(pk, peakOnce())
		r = append(r, 100*flops/d/pk/float64(threads))
	}
	sort.Float64s(r)
	return r[len(r)/2], r[len(r)-1]
}

func BenchmarkGemmPeak(b *testing.B) {
	for _, s := range []struct {
		name    string
		f       func(p *Pool, c, a, b []float32, m, n, k int, acc bool)
		m, n, k int
	}{
		{"NT", GemmNT, 4096, 512, 512}, {"NN", GemmNN, 4096, 512, 512}, {"TN", GemmTN, 512, 512, 4096},
		{"NT", GemmNT, 4096, 1408, 512}, {"NN", GemmNN, 4096, 512, 1408}, {"TN", GemmTN, 1408, 512, 4096},
	} {
		for threads := 1; threads <= 2; threads++ {
			p := testPool(b, threads)
			x, w, y := randomFloats(s.m*s.k, 1), randomFloats(s.n*s.k, 2), make([]float32, s.m*s.n)
			med, best := shareOfPeak(15, 2*float64(s.m*s.n)*float64(s.k), threads, func() { s.f(p, y, x, w, s.m, s.n, s.k, false) })
			fmt.Printf("%s %dx%dx%d %d threads: median %.1f best %.1f\n", s.name, s.m, s.n, s.k, threads, med, best)
		}
	}
}
