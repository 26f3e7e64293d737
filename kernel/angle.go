package kernel

import "math"

// Float64 functions for the rotation tables, in plain Go with every product
// rounded before it is added to something. Those of package math are assembly
// on some machines and may differ in the last bit; these do not, so the tables
// are the same everywhere (SPEC §7).

// π/2 in three parts. The first two have 33 bits, so that their products
// with a number of quarter turns below 2²⁰ are exact (fdlibm's e_rem_pio2).
const (
	halfPi1 = 1.57079632673412561417e+00
	halfPi2 = 6.07710050630396597660e-11
	halfPi3 = 2.02226624879595063154e-21
)

// sinTerms and cosTerms are the quotients 1/(k(k−1)) of the coefficients of
// two successive terms of the series of sine and cosine, the highest first.
var (
	sinTerms = [8]float64{1. / (17 * 16), 1. / (15 * 14), 1. / (13 * 12), 1. / (11 * 10), 1. / (9 * 8), 1. / (7 * 6), 1. / (5 * 4), 1. / (3 * 2)}
	cosTerms = [9]float64{1. / (18 * 17), 1. / (16 * 15), 1. / (14 * 13), 1. / (12 * 11), 1. / (10 * 9), 1. / (8 * 7), 1. / (6 * 5), 1. / (4 * 3), 1. / (2 * 1)}
)

// sincos64 is sin x and cos x for 0 ≤ x < 2³⁰: within 1e-15 below a million,
// and slowly less beyond.
func sincos64(x float64) (sin, cos float64) {
	n := math.Floor(float64(x*(2/math.Pi)) + 0.5)
	r := x - float64(n*halfPi1)
	r -= float64(n * halfPi2)
	r -= float64(n * halfPi3)
	z := float64(r * r)
	// Taylor series on |r| ≤ π/4; the first term left out is below 2⁻⁵⁶.
	s, c := 0.0, 0.0
	for _, t := range &sinTerms {
		s = float64((1 - s) * float64(z*t))
	}
	s = float64(r * (1 - s))
	for _, t := range &cosTerms {
		c = float64((1 - c) * float64(z*t))
	}
	c = 1 - c
	switch int64(n) & 3 {
	case 0:
		return s, c
	case 1:
		return c, -s
	case 2:
		return -s, -c
	}
	return -c, s
}

// log64 is the natural logarithm of x ≥ 1: x = 2ᵏ·m with √½ ≤ m < √2, and
// ln m = 2·artanh f with f = (m−1)/(m+1).
func log64(x float64) float64 {
	m, k := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m, k = 2*m, k-1
	}
	f := (m - 1) / (m + 1)
	z := float64(f * f)
	p := 0.0
	for i := 23; i >= 1; i -= 2 {
		p = float64(p*z) + 1/float64(i)
	}
	return float64(float64(k)*math.Ln2) + float64(2*f*p)
}

// exp64 is eˣ for −700 < x ≤ 0: x = n·ln 2 + r, eʳ by its Taylor series.
func exp64(x float64) float64 {
	n := math.Floor(float64(x*math.Log2E) + 0.5)
	const hi, lo = 6.93147180369123816490e-01, 1.90821492927058770002e-10 // ln 2 (fdlibm)
	r := x - float64(n*hi)
	r -= float64(n * lo)
	p := 1.0
	for k := 14; k >= 1; k-- {
		p = 1 + float64(r*p)/float64(k)
	}
	return math.Ldexp(p, int(n))
}

// RoPEFrequencies returns the angles of one step, theta^(−2m/headDim) for
// m = 0 … headDim/2−1.
func RoPEFrequencies(theta float64, headDim int) []float64 {
	f := make([]float64, headDim/2)
	l := log64(theta)
	for m := range f {
		f[m] = exp64(-float64(l*float64(2*m)) / float64(headDim))
	}
	return f
}

// RoPEAngles fills a row of a rotation table: cos and sin of pos·f.
func RoPEAngles(cos, sin []float32, pos int, frequencies []float64) {
	for m, f := range frequencies {
		s, c := sincos64(float64(float64(pos) * f))
		cos[m], sin[m] = float32(c), float32(s)
	}
}
