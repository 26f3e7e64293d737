package kernel

import (
	"math"
	"testing"
	"unsafe"

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
	{"octonion", 20, 128, 17, false, true}, // rows of a whole page
	{"octonion", 128, 12, 15, false, true},
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

func TestLinearSameForAnyThreads(t *testing.T) { eachSet(t, linearSameForAnyThreads) }

func linearSameForAnyThreads(t *testing.T) {
	one, two, five := testPool(t, 1), testPool(t, 2), testPool(t, 5)
	for _, c := range linearCases {
		if c.m > 30 {
			c.m = 600 // several ranges of rows in the weights' gradient
		}
		a, w, scale, x, dy := c.data(t)
		run := func(p *Pool) [3][]float32 {
			l := NewLinear(a, c.N, c.K, c.transposed)
			y, dx, g := make([]float32, len(dy)), make([]float32, len(x)), make([]float32, len(w))
			l.Pack(p, w, scale)
			l.PackBackward(p, w, scale)
			l.Forward(p, y, x, c.m)
			l.BackwardInput(p, dx, dy, c.m, false)
			l.BackwardWeight(p, g, dy, x, c.m, false)
			return [3][]float32{y, dx, g}
		}
		want := run(one)
		for _, p := range []*Pool{two, five} {
			got := run(p)
			for part, name := range []string{"forward", "backward input", "backward weight"} {
				for i := range got[part] {
					if math.Float32bits(got[part][i]) != math.Float32bits(want[part][i]) {
						t.Fatalf("%+v %s: element %d differs between 1 and %d threads", c, name, i, p.Threads())
					}
				}
			}
		}
	}
}

// Rows must not depend on how many are computed with them, or a prefill
// would differ from the same tokens one by one.
func TestLinearRowsAreIndependent(t *testing.T) { eachSet(t, linearRowsAreIndependent) }

func linearRowsAreIndependent(t *testing.T) {
	p := testPool(t, 2)
	for _, c := range linearCases {
		c.m = 30
		a, w, scale, x, _ := c.data(t)
		l := NewLinear(a, c.N, c.K, c.transposed)
		l.Pack(p, w, scale)
		want := make([]float32, c.m*a.N*c.N)
		l.Forward(p, want, x, c.m)
		for m := 1; m <= 30; m++ {
			got := make([]float32, m*a.N*c.N)
			l.Forward(p, got, x, m)
			for i := range got {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
					t.Fatalf("%+v: element %d differs between %d and %d rows", c, i, m, c.m)
				}
			}
		}
	}
}

func TestLinearAllocatesNothing(t *testing.T) {
	p := testPool(t, 2)
	for _, alg := range []string{"octonion", "walsh", "random", "quaternion", "real"} {
		c := linearCase{alg, 24, 20, 300, false, true}
		a, w, scale, x, dy := c.data(t)
		l := NewLinear(a, c.N, c.K, false)
		y, dx, g := make([]float32, len(dy)), make([]float32, len(x)), make([]float32, len(w))
		step := func() {
			l.Pack(p, w, scale)
			l.PackBackward(p, w, scale)
			l.Forward(p, y, x, c.m)
			l.BackwardInput(p, dx, dy, c.m, true)
			l.BackwardWeight(p, g, dy, x, c.m, true)
		}
		step()
		step()
		if got := testing.AllocsPerRun(20, step); got > 0 {
			t.Errorf("%s: %v allocations a step, want 0", alg, got)
		}
	}
}

func TestLinearWithoutRows(t *testing.T) {
	p := testPool(t, 2)
	for _, alg := range []string{"octonion", "quaternion"} {
		c := linearCase{alg, 5, 6, 0, false, false}
		a, w, _, _, _ := c.data(t)
		l := NewLinear(a, c.N, c.K, false)
		l.Pack(p, w, nil)
		l.PackBackward(p, w, nil)
		l.Forward(p, nil, nil, 0)
		l.BackwardInput(p, nil, nil, 0, false)
		g := randomFloats(len(w), 1)
		l.BackwardWeight(p, g, nil, nil, 0, false)
		for i, v := range g {
			if v != 0 {
				t.Fatalf("%s: gradient of no rows: element %d is %v", alg, i, v)
			}
		}
	}
}

func TestLinearBeforePackPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewLinear(table(t, "walsh"), 4, 4, false).Forward(testPool(t, 1), make([]float32, 32), make([]float32, 32), 1)
}

// The assembly reads whtArgs by fixed offsets (_avo/linear.go).
func TestWHTArgsLayout(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("layout is for 64 bits")
	}
	var a whtArgs
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"dst", unsafe.Offsetof(a.dst), 24}, {"raw", unsafe.Offsetof(a.raw), 48}, {"rows", unsafe.Offsetof(a.rows), 72},
		{"vecs", unsafe.Offsetof(a.vecs), 80}, {"mask", unsafe.Offsetof(a.mask), 88}, {"maskY", unsafe.Offsetof(a.maskY), 96},
		{"scale", unsafe.Offsetof(a.scale), 104}, {"rawScale", unsafe.Offsetof(a.rawScale), 136}, {"index", unsafe.Offsetof(a.index), 144},
	} {
		if c.got != c.want {
			t.Errorf("%s at %d, the assembly expects %d", c.name, c.got, c.want)
		}
	}
}
