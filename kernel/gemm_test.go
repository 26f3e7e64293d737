package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// randomFloats returns n normal values from a fixed seed.
func randomFloats(n int, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// relL2 is |got − want| / |want|.
func relL2(got, want []float32) float64 {
	var d, s float64
	for i := range want {
		e := float64(got[i]) - float64(want[i])
		d += e * e
		s += float64(want[i]) * float64(want[i])
	}
	if d != d {
		return math.Inf(1)
	}
	return math.Sqrt(d / max(s, 1e-30))
}

// guarded returns n floats inside a larger slice of guards, and a check that
// the guards are untouched.
func guarded(t testing.TB, n int) (inside []float32, check func()) {
	const pad, guard = 64, float32(-12345.5)
	b := make([]float32, n+2*pad)
	for i := range b {
		b[i] = guard
	}
	return b[pad : pad+n : pad+n], func() {
		t.Helper()
		for i, v := range b {
			if (i < pad || i >= pad+n) && v != guard {
				t.Fatalf("wrote outside of %d floats, at %d", n, i-pad)
			}
		}
	}
}

// eachSet runs a test on every kernel set of this machine.
func eachSet(t *testing.T, f func(t *testing.T)) {
	old := active
	defer func() { active = old }()
	for _, s := range machineSets() {
		active = s
		t.Run(setNames[s], f)
	}
}

func testPool(t testing.TB, threads int) *Pool {
	p := NewPool(threads)
	t.Cleanup(p.Close)
	return p
}

var gemmShapes = [][3]int{{1, 1, 1}, {1, 7, 3}, {2, 3, 4}, {5, 16, 16}, {13, 32, 31}, {14, 33, 64}, {15, 31, 65}, {29, 48, 1}, {43, 171, 17}, {64, 64, 64}, {65, 130, 100}, {100, 15, 530}, {200, 40, 1100}, {3, gemmN + 70, 20}}

func TestGemm(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		p := testPool(t, 2)
		for _, s := range gemmShapes {
			m, n, k := s[0], s[1], s[2]
			a, b := randomFloats(m*k, 1), randomFloats(n*k, 2)
			start := randomFloats(m*n, 3)
			for _, acc := range []bool{false, true} {
				for _, kind := range []struct {
					name  string
					fast  func(p *Pool, c, a, b []float32, m, n, k int, acc bool)
					plain func(c, a, b []float32, m, n, k int, acc bool)
				}{{"NT", GemmNT, refGemmNT}, {"NN", GemmNN, refGemmNN}, {"TN", GemmTN, refGemmTN}} {
					got, check := guarded(t, m*n)
					want := append([]float32(nil), start...)
					copy(got, start)
					kind.fast(p, got, a, b, m, n, k, acc)
					kind.plain(want, a, b, m, n, k, acc)
					check()
					if e := relL2(got, want); e > 1e-6 {
						t.Errorf("%s %v acc=%v: relative error %.2g", kind.name, s, acc, e)
					}
				}
			}
		}
	})
}

func TestGemmSameForAnyThreads(t *testing.T) { eachSet(t, gemmSameForAnyThreads) }

func gemmSameForAnyThreads(t *testing.T) {
	one, two, five := testPool(t, 1), testPool(t, 2), testPool(t, 5)
	for _, s := range gemmShapes {
		m, n, k := s[0], s[1], s[2]
		a, b := randomFloats(m*k, 1), randomFloats(n*k, 2)
		for _, f := range []func(p *Pool, c, a, b []float32, m, n, k int, acc bool){GemmNT, GemmNN, GemmTN} {
			want := make([]float32, m*n)
			f(one, want, a, b, m, n, k, false)
			for _, p := range []*Pool{two, five} {
				got := make([]float32, m*n)
				f(p, got, a, b, m, n, k, false)
				for i := range got {
					if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
						t.Fatalf("%v: element %d differs between 1 and %d threads", s, i, p.Threads())
					}
				}
			}
		}
	}
}

func TestGemmAllocatesNothing(t *testing.T) {
	p := testPool(t, 2)
	m, n, k := 100, 70, 50
	a, b, c := randomFloats(m*k, 1), randomFloats(n*k, 2), make([]float32, m*n)
	run := func() {
		GemmNT(p, c, a, b, m, n, k, false)
		GemmNN(p, c, a, b, m, n, k, true)
		GemmTN(p, c, a, b, m, n, k, false)
	}
	run()
	if got := testing.AllocsPerRun(20, run); got > 0 {
		t.Errorf("%v allocations a run, want 0", got)
	}
}
