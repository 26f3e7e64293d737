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

func TestMatMulInt8(t *testing.T) {
	var m Int8Scratch
	r := rand.New(rand.NewPCG(1, 2))
	eachSet(t, func(t *testing.T) {
		for _, cols := range []int{0, 1, 15, 16, 17, 31, 32, 47, 64, 130, 512} {
			for _, rows := range []int{0, 1, 15, 16, 17, 31, 32, 33, 64, 97} {
				for _, tokens := range []int{0, 1, 2, 5, 14, 15, 31} {
					ldy := rows + 3
					w, x := randomInt8(rows*cols+1, r)[1:], randomInt8(tokens*cols+3, r)[3:]
					got := make([]int32, tokens*ldy)
					for i := range got {
						got[i] = 77
					}
					MatMulInt8(&m, got[:max(0, len(got)-3)], ldy, w, x, rows, cols, tokens)
					want := make([]int32, rows)
					for i := range tokens {
						refMatVecInt8(want, w, x[i*cols:(i+1)*cols])
						for j, v := range got[i*ldy : (i+1)*ldy] {
							if j < rows && v != want[j] || j >= rows && v != 77 {
								t.Fatalf("%d×%d, token %d of %d: y[%d] = %d, want %d", rows, cols, i, tokens, j, v, append(want, 77, 77, 77)[j])
							}
						}
					}
				}
			}
		}
	})
}

func TestMatMulInt8AllocatesNothing(t *testing.T) {
	const rows, cols, tokens = 70, 34, 5
	r := rand.New(rand.NewPCG(1, 2))
	w, x, y := randomInt8(rows*cols, r), randomInt8(tokens*cols, r), make([]int32, tokens*rows)
	eachSet(t, func(t *testing.T) {
		var m Int8Scratch
		if n := testing.AllocsPerRun(10, func() { MatMulInt8(&m, y, rows, w, x, rows, cols, tokens) }); n > 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
