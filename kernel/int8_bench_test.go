package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"spinnet/algebra"
)

// fastest runs f as a benchmark and returns its shortest time in ns, which
// other work on the machine disturbs least.
func fastest(b *testing.B, f func()) float64 {
	best := time.Duration(1 << 62)
	for b.Loop() {
		start := time.Now()
		f()
		best = min(best, time.Since(start))
	}
	return float64(best.Nanoseconds())
}

var bestGMACS float64

// peakGMACS is what the register-only loop has reached so far on one thread.
func peakGMACS() float64 {
	for range 200 {
		start := time.Now()
		n := peakInt8(10_000)
		bestGMACS = max(bestGMACS, float64(n)/float64(time.Since(start).Nanoseconds()))
	}
	return bestGMACS
}

// benchmarkMACs reports the speed of f, and its share of the peak.
func benchmarkMACs(b *testing.B, macs int, f func()) {
	g := float64(macs) / fastest(b, f)
	b.ReportMetric(g, "GMAC/s")
	if p := peakGMACS(); p > 0 {
		b.ReportMetric(100*g/p, "%peak")
	}
}

func randomInt8Linear(tb testing.TB, in, out int, ternary bool, r *rand.Rand) *Int8Linear {
	alg, err := algebra.ByName("octonion")
	if err != nil {
		tb.Fatal(err)
	}
	w := Int8Weight{make([]int8, alg.N*in*out), make([]float32, out)}
	for i := range w.W {
		w.W[i] = int8(r.IntN(255) - 127)
		if ternary {
			w.W[i] = int8(r.IntN(3) - 1)
		}
	}
	for i := range w.Gain {
		w.Gain[i] = float32(r.NormFloat64())
	}
	return NewInt8Linear(alg, in, ternary, w)
}

// BenchmarkInt8Linear is a product with the weights in the cache (layers 1)
// and with those of a whole model read in turn, as decoding does.
func BenchmarkInt8Linear(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, ternary := range []bool{true, false} {
		for _, in := range []int{64, 192} {
			for _, s := range []struct{ rows, layers int }{{1, 1}, {1, 32}, {8, 1}, {8, 32}, {112, 1}, {112, 32}, {512, 1}} {
				const out = 192
				b.Run(fmt.Sprintf("ternary=%v/k%d/m%d/layers%d", ternary, 8*in, s.rows, s.layers), func(b *testing.B) {
					var layers []*Int8Linear
					for range s.layers {
						layers = append(layers, randomInt8Linear(b, in, out, ternary, r))
					}
					var w Int8Scratch
					l := layers[0]
					a, start, c := randomInt8(s.rows*l.Stride(), r), make([]int32, s.rows), make([]int32, s.rows*l.CStride())
					benchmarkMACs(b, len(layers)*s.rows*8*in*out, func() {
						for _, l := range layers {
							l.Multiply(&w, c, a, start, s.rows, 0, l.Panels())
						}
					})
				})
			}
		}
	}
}

// BenchmarkInt8Expand is the expansion of a token's input.
func BenchmarkInt8Expand(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, in := range []int{64, 192} {
		b.Run(fmt.Sprint("k", 8*in), func(b *testing.B) {
			l := randomInt8Linear(b, in, 64, true, r)
			a, start := make([]int8, 8*l.Stride()), make([]int32, 8)
			q := randomInt8(8*in, r)
			best := fastest(b, func() {
				for range 10 {
					l.Expand(a, start, q)
				}
			})
			b.ReportMetric(best/10, "ns/token")
		})
	}
}

type taskFunc func(i, worker int)

// Do calls f.
func (f taskFunc) Do(i, worker int) { f(i, worker) }

// BenchmarkInt8Head is the output layer of decoding, 25.8 MB of weights: how
// fast memory is read.
func BenchmarkInt8Head(b *testing.B) {
	const rows, cols = 50304, 512
	r := rand.New(rand.NewPCG(1, 2))
	w, x, y := randomInt8(rows*cols, r), randomInt8(cols, r), make([]int32, rows)
	for threads := 1; threads <= 2; threads++ {
		b.Run(fmt.Sprint(threads), func(b *testing.B) {
			p := testPool(b, threads)
			head := taskFunc(func(i, _ int) {
				lo, hi := rows*i/threads, rows*(i+1)/threads
				MatVecInt8(y[lo:], w[lo*cols:], x, hi-lo, cols)
			})
			best := fastest(b, func() { p.Run(threads, head) })
			b.ReportMetric(best/1e3, "µs/token")
			b.ReportMetric(rows*cols/best, "GB/s")
		})
	}
}

// BenchmarkInt8Logits is the output layer for several tokens at once.
func BenchmarkInt8Logits(b *testing.B) {
	const rows, cols = 6432, 512
	r := rand.New(rand.NewPCG(1, 2))
	for _, tokens := range []int{1, 4, 16, 32, 64, 256} {
		b.Run(fmt.Sprint(tokens), func(b *testing.B) {
			var m Int8Scratch
			w, x, y := randomInt8(rows*cols, r), randomInt8(tokens*cols, r), make([]int32, rows*tokens)
			benchmarkMACs(b, tokens*rows*cols, func() { MatMulInt8(&m, y, rows, w, x, rows, cols, tokens) })
		})
	}
}
