package spinfile

import (
	"math"

	"spinnet/arch"
)

// ropeTable is freqs_cis as the original computes it, in float32:
// [2·block_size, head_dim/2] pairs of cosine and sine.
func ropeTable(c arch.Config) []float32 {
	hd := c.HeadDim()
	w := make([]float32, 0, 2*c.BlockSize*hd)
	freq := make([]float32, hd/2)
	for m := range freq {
		exponent := float32(2*m) / float32(hd)
		freq[m] = 1 / float32(math.Pow(arch.RopeTheta, float64(exponent)))
	}
	for t := range 2 * c.BlockSize {
		for _, f := range freq {
			sin, cos := sincos(float32(t) * f)
			w = append(w, cos, sin)
		}
	}
	return w
}

// sincos is sine and cosine of 0 ≤ y < 2²⁴ as glibc's sinf and cosf give them
// (sysdeps/ieee754/flt-32/s_sincosf.h), which is what wrote the original's
// files: within 0.56 of the last bit, so not always the nearest float32.
func sincos(y float32) (sin, cos float32) {
	// π/2 in two parts.
	const high, low = 0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54
	n := math.RoundToEven(float64(y) * (2 / math.Pi))
	x := math.FMA(-n, low, math.FMA(-n, high, float64(y)))

	x2 := float64(x * x)
	x3, x4 := float64(x*x2), float64(x2*x2)
	s1 := 0x1.1107605230bc4p-7 + float64(x2*-0x1.994eb3774cf24p-13)
	s := x + float64(x3*-0x1.555545995a603p-3) + float64(float64(x3*x2)*s1)
	c1 := 1 + float64(x2*-0x1.ffffffd0c621cp-2)
	c2 := -0x1.6c087e89a359dp-10 + float64(x2*0x1.99343027bf8c3p-16)
	c := c1 + float64(x4*0x1.55553e1068f19p-5) + float64(float64(x4*x2)*c2)

	switch int(n) & 3 {
	case 1:
		s, c = c, -s
	case 2:
		s, c = -s, -c
	case 3:
		s, c = -c, s
	}
	return float32(s), float32(c)
}
