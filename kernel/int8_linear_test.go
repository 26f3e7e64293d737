package kernel

import (
	"math/rand/v2"
	"testing"

	"spinnet/algebra"
)

// TestInt8Linear compares the integer sums of every algebra with the sum
// over the dense signed matrix (SPEC §1), and the outputs with the formula.
func TestInt8Linear(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	eachSet(t, func(t *testing.T) {
		for _, name := range []string{"real", "complex", "quaternion", "octonion", "walsh", "sedenion"} {
			alg, err := algebra.ByName(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, ternary := range []bool{true, false} {
				for _, shape := range [][3]int{{1, 1, 1}, {3, 5, 2}, {8, 16, 1}, {17, 21, 5}, {33, 64, 3}, {64, 171, 2}} {
					n, in, tokens := alg.N, shape[1], shape[2]
					outs := []int{shape[0], shape[0]/2 + 1}
					var ws []Int8Weight
					for _, out := range outs {
						w := Int8Weight{make([]int8, n*out*in), make([]float32, out)}
						for i := range w.W {
							w.W[i] = int8(r.IntN(255) - 127)
							if r.IntN(8) == 0 {
								w.W[i] = []int8{-127, 127}[r.IntN(2)]
							}
							if ternary {
								w.W[i] = int8(r.IntN(3) - 1)
							}
						}
						for i := range w.Gain {
							w.Gain[i] = float32(r.NormFloat64())
						}
						ws = append(ws, w)
					}
					l := NewInt8Linear(alg, in, ternary, ws...)
					rows := l.Rows(tokens)
					a, start := make([]int8, rows*l.Stride()), make([]int32, rows)
					q := make([]int8, tokens*n*in)
					for i := range q {
						q[i] = int8(r.IntN(255) - 127)
						if r.IntN(4) == 0 {
							q[i] = 127
						}
					}
					for i := range a {
						a[i] = 99 // Expand writes all of it
					}
					neg := make([]int8, n*in)
					for tok := range tokens {
						l.Expand(a[l.Rows(tok)*l.Stride():l.Rows(tok+1)*l.Stride()], start[l.Rows(tok):], q[tok*n*in:(tok+1)*n*in], neg)
					}
					c := make([]int32, rows*l.CStride()+1)
					for i := range c {
						c[i] = 12345
					}
					mid := l.Panels() / 2
					l.Multiply(c, a, start, rows, 0, mid)
					l.Multiply(c, a, start, rows, mid, l.Panels())
					if c[len(c)-1] != 12345 {
						t.Fatal("wrote behind C")
					}
					for tok := range tokens {
						y := make([][]float32, len(outs))
						for o, out := range outs {
							y[o] = make([]float32, n*out)
						}
						s := float32(r.Float64())
						l.Scale(y, c[l.Rows(tok)*l.CStride():], s, 0, mid)
						l.Scale(y, c[l.Rows(tok)*l.CStride():], s, mid, l.Panels())
						for o, out := range outs {
							for i := range n {
								for row := range out {
									var sum int32
									for j := range n {
										for col := range in {
											sum += int32(alg.Sign[i][j]) * int32(ws[o].W[((i^j)*out+row)*in+col]) * int32(q[tok*n*in+j*in+col])
										}
									}
									want := float32(sum) * float32(s*ws[o].Gain[row])
									if got := y[o][i*out+row]; got != want {
										t.Fatalf("%s %v ternary %v, token %d output %d part %d row %d: %g, want %g", name, shape, ternary, tok, o, i, row, got, want)
									}
								}
							}
						}
					}
				}
			}
		}
	})
}
