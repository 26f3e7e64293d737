package kernel

import (
	"fmt"
	"testing"
)

// BenchmarkLinear reports the passes of a layer; its GFLOPS count the
// products it really does.
func BenchmarkLinear(b *testing.B) {
	for _, s := range [][3]int{{64, 64, 4096}, {176, 64, 2048}, {64, 176, 2048}, {16, 16, 768}, {48, 16, 768}} {
		for _, alg := range []struct {
			name     string
			products int
		}{{"octonion", 30}, {"walsh", 8}, {"quaternion", 16}} {
			a := table(b, alg.name)
			n, k, m := s[0]*8/a.N, s[1]*8/a.N, s[2]
			p := testPool(b, 1)
			l := NewLinear(a, n, k, false)
			x, w, dy := randomFloats(m*a.N*k, 1), ternary(a.N*n*k, 2), randomFloats(m*a.N*n, 3)
			y, dx, g := make([]float32, m*a.N*n), make([]float32, m*a.N*k), make([]float32, a.N*n*k)
			l.Pack(p, w, nil)
			l.PackBackward(p, w, nil)
			for _, pass := range []struct {
				name string
				f    func()
			}{
				{"pack", func() { l.Pack(p, w, nil) }},
				{"forward", func() { l.Forward(p, y, x, m) }},
				{"input", func() { l.BackwardInput(p, dx, dy, m, false) }},
				{"weight", func() { l.BackwardWeight(p, g, dy, x, m, false) }},
			} {
				b.Run(fmt.Sprintf("%s/%d-%d/%d/%s", alg.name, a.N*k, a.N*n, m, pass.name), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						pass.f()
					}
					if pass.name != "pack" {
						reportPeak(b, 2*float64(m*alg.products)*float64(n*k), 1)
					}
				})
			}
		}
	}
}
