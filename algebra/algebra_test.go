package algebra

import (
	"math"
	"math/bits"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustByName(t testing.TB, name string) *Table {
	t.Helper()
	a, err := ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var all = []string{"real", "complex", "quaternion", "octonion", "sedenion", "walsh", "random", "random:7"}

// The published table of the octonion layer (SPEC §1), row by row.
const octonionSigns = `
+ - - - - - - -
+ + + - + - - +
+ - + + + + - -
+ + - + + - + -
+ - - - + + + +
+ + - + - + - +
+ + + - - + + -
+ - + + - - + +`

func TestOctonionTable(t *testing.T) {
	oct := mustByName(t, "octonion")
	for i, line := range strings.Split(strings.TrimSpace(octonionSigns), "\n") {
		for j, s := range strings.Fields(line) {
			want := int8(1)
			if s == "-" {
				want = -1
			}
			if got := oct.Sign[i][j]; got != want {
				t.Errorf("sign[%d][%d]: got %d, want %d", i, j, got, want)
			}
		}
	}
}

func TestSmallAlgebrasAreCorners(t *testing.T) {
	big := mustByName(t, "sedenion")
	for _, name := range []string{"real", "complex", "quaternion", "octonion"} {
		a := mustByName(t, name)
		for i, row := range a.Sign {
			for j := range row {
				if row[j] != big.Sign[i][j] {
					t.Errorf("%s sign[%d][%d] = %d, sedenion has %d", name, i, j, row[j], big.Sign[i][j])
				}
			}
		}
	}
}

func TestByNameErrors(t *testing.T) {
	for _, name := range []string{"", "octonian", "octonion:3", "random:", "random:x", "random:-1", "walsh:"} {
		if a, err := ByName(name); err == nil {
			t.Errorf("ByName(%q) = %s, want an error", name, a.Name)
		} else if !strings.HasPrefix(err.Error(), "algebra: ") {
			t.Errorf("ByName(%q): %v lacks the package prefix", name, err)
		}
	}
}

func TestRandomIsSeeded(t *testing.T) {
	a, b, c := mustByName(t, "random:3"), mustByName(t, "random:3"), mustByName(t, "random:4")
	same := func(a, b *Table) bool {
		for i := range a.Sign {
			for j := range a.Sign[i] {
				if a.Sign[i][j] != b.Sign[i][j] {
					return false
				}
			}
		}
		return true
	}
	if !same(a, b) {
		t.Error("the same seed gives different tables")
	}
	if same(a, c) {
		t.Error("different seeds give the same table")
	}
	if !same(mustByName(t, "random"), mustByName(t, "random:0")) {
		t.Error("random is not random:0")
	}
}

func vector(n int) *rapid.Generator[[]float64] {
	// Small integers keep every product exact.
	return rapid.Custom(func(t *rapid.T) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = float64(rapid.IntRange(-9, 9).Draw(t, "c"))
		}
		return v
	})
}

func norm2(v []float64) (s float64) {
	for _, x := range v {
		s += x * x
	}
	return s
}

func equal(a, b []float64) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestNormIsMultiplicative(t *testing.T) {
	for _, name := range []string{"real", "complex", "quaternion", "octonion"} {
		a := mustByName(t, name)
		rapid.Check(t, func(t *rapid.T) {
			x, w := vector(a.N).Draw(t, "x"), vector(a.N).Draw(t, "w")
			if got, want := norm2(a.Product(x, w)), norm2(x)*norm2(w); got != want {
				t.Fatalf("%s: |xw|² = %v, |x|²|w|² = %v", name, got, want)
			}
		})
	}
}

func TestSedenionsHaveZeroDivisors(t *testing.T) {
	a := mustByName(t, "sedenion")
	for i := 1; i < 16; i++ {
		for j := i + 1; j < 16; j++ {
			for k := 1; k < 16; k++ {
				for l := k + 1; l < 16; l++ {
					for _, s := range []float64{1, -1} {
						x, w := make([]float64, 16), make([]float64, 16)
						x[i], x[j], w[k], w[l] = 1, 1, 1, s
						if norm2(a.Product(x, w)) == 0 {
							return
						}
					}
				}
			}
		}
	}
	t.Error("no zero divisor (e_i+e_j)(e_k±e_l) found; the norm should not be multiplicative at n = 16")
}

func TestOctonionsAreAlternativeNotAssociative(t *testing.T) {
	a := mustByName(t, "octonion")
	rapid.Check(t, func(t *rapid.T) {
		x, y := vector(8).Draw(t, "x"), vector(8).Draw(t, "y")
		if !equal(a.Product(a.Product(x, x), y), a.Product(x, a.Product(x, y))) {
			t.Fatal("(xx)y ≠ x(xy)")
		}
		if !equal(a.Product(a.Product(y, x), x), a.Product(y, a.Product(x, x))) {
			t.Fatal("(yx)x ≠ y(xx)")
		}
	})
	e := func(i int) []float64 { v := make([]float64, 8); v[i] = 1; return v }
	if equal(a.Product(a.Product(e(1), e(2)), e(4)), a.Product(e(1), a.Product(e(2), e(4)))) {
		t.Error("e1, e2, e4 associate; octonions should not")
	}
}

func TestWalshIsCommutativeAndAssociative(t *testing.T) {
	a := mustByName(t, "walsh")
	rapid.Check(t, func(t *rapid.T) {
		x, y, z := vector(8).Draw(t, "x"), vector(8).Draw(t, "y"), vector(8).Draw(t, "z")
		if !equal(a.Product(x, y), a.Product(y, x)) {
			t.Fatal("xy ≠ yx")
		}
		if !equal(a.Product(a.Product(x, y), z), a.Product(x, a.Product(y, z))) {
			t.Fatal("(xy)z ≠ x(yz)")
		}
	})
}

// hadamard is the sign (−1)^popcount(a·b) of the Walsh–Hadamard matrix H, for
// which H·H = n·I.
func hadamard(a, b int) int {
	return 1 - 2*(bits.OnesCount(uint(a&b))&1)
}

func TestHadamardSquare(t *testing.T) {
	for a := range 8 {
		for b := range 8 {
			sum := 0
			for k := range 8 {
				sum += hadamard(a, k) * hadamard(k, b)
			}
			want := 0
			if a == b {
				want = 8
			}
			if sum != want {
				t.Errorf("(H·H)[%d][%d]: got %d, want %d", a, b, sum, want)
			}
		}
	}
}

func (f Fast) product(t *Table, x, w []float64) []float64 {
	n := t.N
	xh, wh, y := make([]float64, n), make([]float64, n), make([]float64, n)
	for a := range n {
		for b := range n {
			xh[a] += float64(hadamard(a, b)) * float64(f.P[b]) * x[b]
			wh[a] += float64(hadamard(a, b)) * float64(f.Q[b]) * w[b] / float64(n)
		}
	}
	for a := range n {
		for b := range n {
			y[a] += float64(hadamard(a, b)) * xh[b] * wh[b]
		}
	}
	for _, m := range f.Terms {
		y[m.I] += 2 * float64(t.Sign[m.I][m.J]) * x[m.J] * w[m.I^m.J]
	}
	return y
}

func TestFastProduct(t *testing.T) {
	for _, name := range all {
		a := mustByName(t, name)
		f := a.Fast()
		rapid.Check(t, func(t *rapid.T) {
			x, w := vector(a.N).Draw(t, "x"), vector(a.N).Draw(t, "w")
			got, want := f.product(a, x, w), a.Product(x, w)
			for i := range got {
				if math.Abs(got[i]-want[i]) > 1e-9 {
					t.Fatalf("%s: fast product differs at %d: got %v, want %v", name, i, got, want)
				}
			}
		})
	}
}

func TestFastOctonion(t *testing.T) {
	a := mustByName(t, "octonion")
	f := a.Fast()
	for j := range 8 {
		wantP, wantQ := int8(1), int8(-1)
		if j == 0 {
			wantP, wantQ = -1, 1
		}
		if f.P[j] != wantP || f.Q[j] != wantQ {
			t.Fatalf("P %v, Q %v; want P = (−1,1,…), Q = (1,−1,…)", f.P, f.Q)
		}
	}
	want := []Term{{0, 0}, {1, 2}, {1, 4}, {1, 7}, {2, 3}, {2, 4}, {2, 5}, {3, 1}, {3, 4}, {3, 6}, {4, 5}, {4, 6}, {4, 7},
		{5, 1}, {5, 3}, {5, 7}, {6, 1}, {6, 2}, {6, 5}, {7, 2}, {7, 3}, {7, 6}}
	if len(f.Terms) != 22 {
		t.Fatalf("%d terms, want 22: %v", len(f.Terms), f.Terms)
	}
	for k, m := range f.Terms {
		if m != want[k] {
			t.Errorf("term %d: got %v, want %v", k, m, want[k])
		}
		if a.Sign[m.I][m.J] != 1 {
			t.Errorf("term %v has sign −", m)
		}
	}
}

func TestFastCounts(t *testing.T) {
	for _, c := range []struct {
		name  string
		terms int
	}{{"real", 0}, {"complex", 1}, {"walsh", 0}, {"octonion", 22}} {
		if got := len(mustByName(t, c.name).Fast().Terms); got != c.terms {
			t.Errorf("%s: got %d terms, want %d", c.name, got, c.terms)
		}
	}
}
