package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// randomGrouped is a table and what its rows are.
func randomGrouped(rows, cols, bits int, r *rand.Rand) (*Grouped, []int8) {
	g := &Grouped{Cols: cols, Bits: bits}
	n, half := rows*g.groups(), 1<<(bits-1)
	g.Low, g.Factors = make([]byte, 16*n), make([]byte, n)
	if bits == 6 {
		g.High = make([]byte, 8*n)
	}
	w := make([]int8, rows*cols)
	extreme := r.IntN(4) == 0
	for i := range g.Factors {
		f := 1 + r.IntN(127)
		g.Factors[i] = byte(f)
		for j := range GroupSize {
			most := min(half, 127/f)
			q := r.IntN(2*most+1) - most
			if extreme {
				q = -most
			}
			q = min(q, half-1)
			c := i%g.groups()*GroupSize + j
			if c >= cols {
				q = 0
			} else {
				w[i/g.groups()*cols+c] = int8(f * q)
			}
			u := q + half
			g.Low[16*i+j%16] |= byte(u & 15 << (j / 16 * 4))
			if bits == 6 {
				g.High[8*i+j%8] |= byte(u >> 4 << (j / 8 * 2))
			}
		}
	}
	return g, w
}

// level8 is random values in ±127, in every eighth case the greatest.
func level8(n int, r *rand.Rand) []int8 {
	x := make([]int8, n)
	extreme := r.IntN(8) == 0
	for i := range x {
		if x[i] = int8(r.IntN(255) - 127); extreme {
			x[i] = 127
		}
	}
	return x
}

// Products with a packed table are those with its rows, at every width.
func TestGrouped(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	eachSet(t, func(t *testing.T) {
		for cols := 1; cols < 600; cols++ {
			if cols > 300 && cols%31 > 1 {
				continue
			}
			for _, bits := range []int{4, 6} {
				rows := 1 + r.IntN(11)
				g, w := randomGrouped(rows, cols, bits, r)
				x := level8(cols, r)
				from := r.IntN(rows)
				want, got := make([]int32, rows), make([]int32, rows+2)
				refMatVecInt8(want, w, x)
				got[0], got[rows-from+1] = 77, 78
				input := make([]int8, g.InputLen())
				for i := range input {
					input[i] = 99 // Input writes all of it
				}
				g.Input(input, x)
				g.MatVec(got[1:rows-from+1], input, from)
				if got[0] != 77 || got[rows-from+1] != 78 {
					t.Fatalf("%d bits, %d×%d: wrote outside of y", bits, rows, cols)
				}
				for i, v := range want[from:] {
					if got[i+1] != v {
						t.Fatalf("%d bits, %d×%d: y[%d] = %d, want %d", bits, rows, cols, from+i, got[i+1], v)
					}
				}
				q := make([]int8, (rows-from)*cols+1)
				q[len(q)-1] = 55
				g.Expand(q[:len(q)-1], from)
				for i, v := range append(w[from*cols:], 55) {
					if q[i] != v {
						t.Fatalf("%d bits, %d×%d: value %d of the rows from %d is %d, want %d", bits, rows, cols, i, from, q[i], v)
					}
				}
			}
		}
	})
}

func TestGroupedMatMul(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	eachSet(t, func(t *testing.T) {
		var m Int8Scratch
		for _, cols := range []int{1, 16, 31, 32, 48, 130, 512} {
			for _, rows := range []int{1, 15, 32, 33, 97} {
				for _, tokens := range []int{1, 2, 5, 14, 15, 31} {
					bits := 4 + 2*r.IntN(2)
					g, w := randomGrouped(rows+3, cols, bits, r)
					ldy, x := rows+3, level8(tokens*cols, r)
					got, want := make([]int32, tokens*ldy), make([]int32, tokens*ldy)
					MatMulInt8(&m, want, ldy, w[3*cols:], x, rows, cols, tokens)
					g.MatMul(&m, got, ldy, x, 3, rows, tokens)
					for i, v := range want {
						if got[i] != v {
							t.Fatalf("%d bits, %d×%d, %d tokens: y[%d] = %d, want %d", bits, rows, cols, tokens, i, got[i], v)
						}
					}
				}
			}
		}
	})
}

// BenchmarkGroupedHead is BenchmarkInt8Head with a packed table.
func BenchmarkGroupedHead(b *testing.B) {
	const rows, cols = 50304, 512
	r := rand.New(rand.NewPCG(1, 2))
	for _, bits := range []int{4, 6} {
		g, _ := randomGrouped(rows, cols, bits, r)
		y, input := make([]int32, rows), make([]int8, g.InputLen())
		bytes := float64(len(g.Low) + len(g.High) + len(g.Factors))
		for threads := 1; threads <= 2; threads++ {
			b.Run(fmt.Sprintf("%d/%d", bits, threads), func(b *testing.B) {
				p := testPool(b, threads)
				x := level8(cols, r)
				head := taskFunc(func(i, _ int) {
					lo, hi := rows*i/threads, rows*(i+1)/threads
					g.MatVec(y[lo:hi], input, lo)
				})
				best := fastest(b, func() {
					g.Input(input, x)
					p.Run(threads, head)
				})
				b.ReportMetric(best/1e3, "µs/token")
				b.ReportMetric(bytes/best, "GB/s")
			})
		}
		b.Run(fmt.Sprintf("%d/cached", bits), func(b *testing.B) {
			best := fastest(b, func() {
				for range 10 {
					g.MatVec(y[:1024], input, 0)
				}
			})
			b.ReportMetric(best/10/1024, "ns/row")
		})
		b.Run(fmt.Sprintf("%d/expand", bits), func(b *testing.B) {
			q := make([]int8, 32*cols)
			best := fastest(b, func() { g.Expand(q, 32) })
			b.ReportMetric(best/32, "ns/row")
		})
	}
}
