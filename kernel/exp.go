package kernel

import "math"

// Constants of exp32. ln2Hi has few enough bits that n·ln2Hi is exact.
const (
	log2e   = 1.44269504088896341
	ln2Hi   = 0.693359375
	ln2Lo   = -2.12194440e-4
	expLow  = -87 // below: 0; above, no result is subnormal
	expHigh = 89  // above: +Inf
	expC2   = 5.0000001201e-1
	expC3   = 1.6666665459e-1
	expC4   = 4.1665795894e-2
	expC5   = 8.3334519073e-3
	expC6   = 1.3981999507e-3
	expC7   = 1.9875691500e-4
)

// exp32 is eˣ within 2 ulp, 0 below −87: x = n·ln 2 + r with |r| ≤ ln 2 / 2,
// eʳ by a polynomial (Cephes expf), scaled by 2ⁿ. Every product that is added
// to something is rounded first, so that all machines agree.
func exp32(x float32) float32 {
	if x < expLow {
		return 0
	}
	if x > expHigh {
		x = expHigh
	}
	if x != x {
		return x
	}
	n := roundEven(float32(x * log2e))
	r := x - float32(n*ln2Hi)
	r -= float32(n * ln2Lo)
	p := float32(expC7)
	p = float32(p*r) + expC6
	p = float32(p*r) + expC5
	p = float32(p*r) + expC4
	p = float32(p*r) + expC3
	p = float32(p*r) + expC2
	y := float32(float32(p*r)*r) + r + 1
	// 2ⁿ in two factors: n = 128 is out of range for one.
	i := int32(n)
	return y * pow2(i>>1) * pow2(i-i>>1)
}

// pow2 is 2ⁿ for normal results.
func pow2(n int32) float32 { return math.Float32frombits(uint32(n+127) << 23) }

// Exp is y = eˣ within 2 ulp; 0 below −87.
func Exp(y, x []float32) { vector().exp(y, x[:len(y)]) }

func refExp(y, x []float32) {
	for i := range y {
		y[i] = exp32(x[i])
	}
}
