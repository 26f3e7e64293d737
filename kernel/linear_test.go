package kernel

import (
	"math"
	"testing"

	"spinnet/algebra"
)

func table(t testing.TB, name string) *algebra.Table {
	t.Helper()
	a, err := algebra.ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ternary returns n weights in −1, 0, 1.
func ternary(n int, seed uint64) []float32 {
	w := randomFloats(n, seed)
	for i, v := range w {
		w[i] = max(-1, min(1, float32(math.RoundToEven(float64(v)))))
	}
	return w
}

// linearCase is one layer with its data.
type linearCase struct {
	alg        string
	N, K, m    int
	transposed bool
	scaled     bool
}

var linearCases = []linearCase{
	{"octonion", 16, 16, 12, false, true},
	{"octonion", 43, 17, 5, false, true},
	{"octonion", 171, 64, 30, false, true},
	{"octonion", 64, 171, 29, false, false},
	{"octonion", 64, 64, 130, false, true},
	{"octonion", 48, 16, 1, false, true},
	{"octonion", 16, 16, 40, true, true},
	{"octonion", 7, 3, 3, true, false},
	{"walsh", 16, 48, 65, false, true},
	{"walsh", 43, 171, 14, false, true},
	{"walsh", 64, 64, 70, true, true},
	{"random:5", 33, 20, 21, false, true},
	{"quaternion", 24, 40, 17, false, true},
	{"complex", 31, 9, 13, false, true},
	{"real", 40, 65, 28, false, true},
	{"sedenion", 5, 12, 11, false, true},
}

func (c linearCase) data(t testing.TB) (a *algebra.Table, w, scale, x, dy []float32) {
	a = table(t, c.alg)
	w = ternary(a.N*c.N*c.K, 1)
	if c.scaled {
		scale = randomFloats(c.N, 2)
		scale[0] = 0 // allowed
	}
	return a, w, scale, randomFloats(c.m*a.N*c.K, 3), randomFloats(c.m*a.N*c.N, 4)
}

const linearTolerance = 2e-6 // SPEC §6, fast product against the definition

func TestLinear(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		p := testPool(t, 2)
		for _, c := range linearCases {
			a, w, scale, x, dy := c.data(t)
			l := NewLinear(a, c.N, c.K, c.transposed)
			l.Pack(p, w, scale)
			l.PackBackward(p, w, scale)

			got, check := guarded(t, c.m*a.N*c.N)
			want := make([]float32, len(got))
			l.Forward(p, got, x, c.m)
			RefLinear(a, want, x, w, scale, c.m, c.N, c.K, c.transposed)
			check()
			if e := relL2(got, want); e > linearTolerance {
				t.Errorf("%+v forward: relative error %.2g", c, e)
			}
			for _, acc := range []bool{false, true} {
				start := randomFloats(len(x), 5)
				got, check := guarded(t, len(x))
				copy(got, start)
				want := append([]float32(nil), start...)
				l.BackwardInput(p, got, dy, c.m, acc)
				RefLinearBackwardInput(a, want, dy, w, scale, c.m, c.N, c.K, c.transposed, acc)
				check()
				if e := relL2(got, want); e > linearTolerance {
					t.Errorf("%+v backward input acc=%v: relative error %.2g", c, acc, e)
				}

				start = randomFloats(len(w), 6)
				got, check = guarded(t, len(w))
				copy(got, start)
				want = append([]float32(nil), start...)
				l.BackwardWeight(p, got, dy, x, c.m, acc)
				RefLinearBackwardWeight(a, want, dy, x, c.m, c.N, c.K, c.transposed, acc)
				check()
				if e := relL2(got, want); e > linearTolerance {
					t.Errorf("%+v backward weight acc=%v: relative error %.2g", c, acc, e)
				}
			}
		}
	})
}
