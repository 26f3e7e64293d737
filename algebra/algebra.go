// Package algebra holds the multiplication tables of the hypercomplex
// layers and their fast products: integers only, no arithmetic on data.
//
// Every algebra here is graded by Z2^k: basis element j times basis element
// k is ± basis element j xor k. An algebra is therefore its dimension n and
// an n×n table of signs. It imports nothing of ours.
package algebra

import (
	"errors"
	"strconv"
	"strings"
)

// Table is one algebra of dimension N, a power of two. The product of x and
// w is y_i = Σ_j Sign[i][j] · x_j · w_{i xor j} (row i: output part, column
// j: input part).
type Table struct {
	Name string
	N    int
	Sign [][]int8
}

// Names lists what ByName knows, for messages and completion.
var Names = []string{"real", "complex", "quaternion", "octonion", "sedenion", "walsh", "random", "random:SEED"}

// ByName returns an algebra by its name: real, complex, quaternion, octonion
// or sedenion (Cayley–Dickson, n = 1 … 16), walsh (the group algebra of Z2³:
// every sign +, n = 8), random (n = 8, fixed but arbitrary signs; the control
// of experiments) or random:SEED with a decimal seed.
func ByName(name string) (*Table, error) {
	switch base, arg, hasArg := strings.Cut(name, ":"); {
	case base == "random":
		seed := uint64(0)
		if hasArg {
			var err error
			if seed, err = strconv.ParseUint(arg, 10, 64); err != nil {
				return nil, errors.New("algebra: " + strconv.Quote(name) + ": the seed is not a number; write for example random:7")
			}
		}
		return random(name, seed), nil
	case hasArg: // only random takes an argument
	case base == "walsh":
		return walsh(), nil
	case base == "real":
		return cayleyDickson(base, 1), nil
	case base == "complex":
		return cayleyDickson(base, 2), nil
	case base == "quaternion":
		return cayleyDickson(base, 4), nil
	case base == "octonion":
		return cayleyDickson(base, 8), nil
	case base == "sedenion":
		return cayleyDickson(base, 16), nil
	}
	return nil, errors.New("algebra: unknown algebra " + strconv.Quote(name) + "; known are " + strings.Join(Names, ", "))
}

func newTable(name string, n int) *Table {
	t := &Table{Name: name, N: n, Sign: make([][]int8, n)}
	for i := range t.Sign {
		t.Sign[i] = make([]int8, n)
	}
	return t
}

// cayleyDickson builds the table of x·w from the doubling
// (a, b)(c, d) = (ac − d*b, da + bc*).
func cayleyDickson(name string, n int) *Table {
	t := newTable(name, n)
	for j := range n {
		for k := range n {
			t.Sign[j^k][j] = basisSign(j, k, n)
		}
	}
	return t
}

// basisSign is the s in e_j · e_k = s · e_{j xor k} at dimension n.
func basisSign(j, k, n int) int8 {
	if n == 1 {
		return 1
	}
	h := n / 2
	jl, kl := j&(h-1), k&(h-1)
	conj := func(i int) int8 { // e_i* = conj(i)·e_i
		if i == 0 {
			return 1
		}
		return -1
	}
	switch {
	case j < h && k < h: // a c
		return basisSign(jl, kl, h)
	case j >= h && k >= h: // −d* b
		return -conj(kl) * basisSign(kl, jl, h)
	case j < h: // d a
		return basisSign(kl, jl, h)
	default: // b c*
		return conj(kl) * basisSign(jl, kl, h)
	}
}

func walsh() *Table {
	t := newTable("walsh", 8)
	for _, row := range t.Sign {
		for j := range row {
			row[j] = 1
		}
	}
	return t
}

// random draws every sign from splitmix64(seed), so that a name means the
// same table on every machine.
func random(name string, seed uint64) *Table {
	t := newTable(name, 8)
	for _, row := range t.Sign {
		for j := range row {
			seed += 0x9E3779B97F4A7C15
			z := seed
			z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
			z = (z ^ z>>27) * 0x94D049BB133111EB
			row[j] = 1 - 2*int8((z^z>>31)&1)
		}
	}
	return t
}

// Product returns x·w for vectors of N components: the definition.
func (t *Table) Product(x, w []float64) []float64 {
	y := make([]float64, t.N)
	for i := range y {
		for j := range x {
			y[i] += float64(t.Sign[i][j]) * x[j] * w[i^j]
		}
	}
	return y
}
