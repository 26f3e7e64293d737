package kernel

import (
	"fmt"
	"sort"
	"testing"
	"time"
)

// layerBench is one linear layer as a training step meets it.
type layerBench struct {
	fwd, dx, dw, pack, packBack func()
}

func denseBench(b testing.TB, p *Pool, n, k, m int) layerBench {
	x, w, dy := randomFloats(m*8*k, 1), randomFloats(64*n*k, 2), randomFloats(m*8*n, 3)
	y, dx, g := make([]float32, m*8*n), make([]float32, m*8*k), make([]float32, 64*n*k)
	return layerBench{
		fwd: func() { GemmNT(p, y, x, w, m, 8*n, 8*k, false) },
		dx:  func() { GemmNN(p, dx, dy, w, m, 8*k, 8*n, false) },
		dw:  func() { GemmTN(p, g, dy, x, 8*n, 8*k, m, false) },
	}
}

func fastBench(b testing.TB, p *Pool, alg string, n, k, m int) layerBench {
	x, w, dy := randomFloats(m*8*k, 1), randomFloats(8*n*k, 2), randomFloats(m*8*n, 3)
	y, dx, g := make([]float32, m*8*n), make([]float32, m*8*k), make([]float32, 8*n*k)
	q, scale := make([]float32, len(w)), make([]float32, n)
	l := NewLinear(table(b, alg), n, k, false)
	pack := func() {
		gamma := float32(AbsSum(w) / float64(len(w)))
		QuantizeAbsMean(q, w, gamma)
		for i := range scale {
			scale[i] = gamma
		}
		l.Pack(p, q, scale)
	}
	back := func() { l.PackBackward(p, q, scale) }
	return layerBench{
		fwd:  func() { pack(); l.Forward(p, y, x, m) },
		dx:   func() { back(); l.BackwardInput(p, dx, dy, m, false) },
		dw:   func() { l.BackwardWeight(p, g, dy, x, m, false) },
		pack: pack, packBack: back,
	}
}

// BenchmarkLayers measures the layers in turns, so that all see the same
// machine, and reports medians in µs.
func BenchmarkLayers(b *testing.B) {
	for _, s := range [][3]int{{64, 64, 4096}, {176, 64, 4096}, {64, 176, 4096}, {16, 16, 768}, {48, 16, 768}} {
		n, k, m := s[0], s[1], s[2]
		for threads := 1; threads <= 2; threads++ {
			b.Run(fmt.Sprintf("%d->%d/%d/%d", 8*k, 8*n, m, threads), func(b *testing.B) {
				p := testPool(b, threads)
				arms := []layerBench{denseBench(b, p, n, k, m), fastBench(b, p, "octonion", n, k, m), fastBench(b, p, "walsh", n, k, m)}
				times := make([][3][]float64, 3)
				for range 15 {
					for i, a := range arms {
						for j, f := range []func(){a.fwd, a.dx, a.dw} {
							start := time.Now()
							f()
							times[i][j] = append(times[i][j], float64(time.Since(start).Nanoseconds())/1e3)
						}
					}
				}
				var med [3][3]float64
				for i := range times {
					for j, t := range times[i] {
						sort.Float64s(t)
						med[i][j] = t[len(t)/2]
					}
				}
				for i, name := range []string{"dense", "oct", "walsh"} {
					var pk float64
					if i > 0 {
						start := time.Now()
						for range 10 {
							arms[i].pack()
						}
						pk = float64(time.Since(start).Nanoseconds()) / 1e4
					}
					fmt.Printf("%-5s fwd %6.0f (%.2f) dx %6.0f (%.2f) dw %6.0f (%.2f) f+b %.2f  pack %.0f\n", name, med[i][0], med[0][0]/med[i][0], med[i][1], med[0][1]/med[i][1],
						med[i][2], med[0][2]/med[i][2], (med[0][0]+med[0][1]+med[0][2])/(med[i][0]+med[i][1]+med[i][2]), pk)
				}
			})
		}
	}
}
