package kernel

import (
	"math/rand/v2"
	"testing"
)

func randomInt8(n int, r *rand.Rand) []int8 {
	x := make([]int8, n)
	for i := range x {
		x[i] = int8(r.IntN(256) - 128)
		if r.IntN(4) == 0 {
			x[i] = []int8{-128, 127}[r.IntN(2)]
		}
	}
	return x
}

func TestMatVecInt8(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	eachSet(t, func(t *testing.T) {
		for cols := range 140 {
			for _, rows := range []int{0, 1, 3, 4, 5, 9} {
				w, x := randomInt8(rows*cols+1, r)[1:], randomInt8(cols+3, r)[3:]
				want := make([]int32, rows)
				refMatVecInt8(want, w, x)
				got := make([]int32, rows+2)
				got[0], got[rows+1] = 77, 78
				MatVecInt8(got[1:rows+1], w, x, rows, cols)
				if got[0] != 77 || got[rows+1] != 78 {
					t.Fatalf("%d×%d: wrote outside of y", rows, cols)
				}
				for i, v := range want {
					if got[i+1] != v {
						t.Fatalf("%d×%d: y[%d] = %d, want %d", rows, cols, i, got[i+1], v)
					}
				}
			}
		}
		// The extremes do not saturate.
		const cols = 4096
		w, x := make([]int8, cols), make([]int8, cols)
		for i := range w {
			w[i], x[i] = -128, -128
		}
		y := make([]int32, 1)
		MatVecInt8(y, w, x, 1, cols)
		if y[0] != 128*128*cols {
			t.Errorf("extremes: got %d, want %d", y[0], 128*128*cols)
		}
	})
}

func BenchmarkMatVecInt8(b *testing.B) {
	const rows, cols = 50304, 512
	r := rand.New(rand.NewPCG(1, 2))
	w, x, y := randomInt8(rows*cols, r), randomInt8(cols, r), make([]int32, rows)
	b.SetBytes(rows * cols)
	for b.Loop() {
		MatVecInt8(y, w, x, rows, cols)
	}
}
