package kernel

import "math"

// Element-wise kernels and reductions over flat slices. All slices of a call
// have the length of the first; outputs may be the same slice as an input,
// but not overlap one otherwise.

// vectorKernels is one set's implementations. Each has the signature and the
// meaning of its plain definition, ref….
type vectorKernels struct {
	add, mul                  func(y, a, b []float32)
	axpy                      func(y []float32, alpha float32, x []float32)
	scale                     func(y []float32, s float32)
	sumSquares, absSum        func(x []float32) float64
	maxAbs                    func(x []float32) float32
	exp                       func(y, x []float32)
	quantizeClassic           func(q, w []float32)
	quantizeAbsMean           func(q, w []float32, gamma float32)
	countZeros                func(q []float32) int
	classicMask               func(dw, w []float32)
	roundScaled               func(y, x []float32, inv, s float32)
	swiglu                    func(y, gate, up []float32)
	swigluBackward            func(dgate, dup, dy, gate, up []float32)
	sumSquares32              func(x []float32) float32
	dot                       func(a, b []float32) float32
	dot3                      func(a, b, c []float32) float32
	scaleMul                  func(y, x, w []float32, s float32)
	rmsNormRow, rmsNormRowAcc func(dx, dw, dy, x, w []float32, r, c float32)
	rotate, rotateBack        func(x, cos, sin []float32)
	maxOf                     func(x []float32) float32
	indexOf                   func(x []float32, v float32) int
	expAffine                 func(y, x []float32, a, b float32) float32
	softmaxRows               func(p []float32, ld, valid, width int, scale float32, top, sum []float32)
	softmaxRowsBackward       func(p, ds []float32, ld, valid, width int, scale float32, lse, delta []float32)
	matVecInt8                func(y []int32, w, x []int8)
	dropBlocks                func(f []float32, block, c1, c2, c3, k0, k1, drop uint32, keep float32)
	adamW                     func(w, g, m, v []float32, gscale, beta1, beta1c, beta2, beta2c, rate, rsqrtC2, eps, keep float32)
}

var refVector = vectorKernels{
	add: refAdd, mul: refMul, axpy: refAxpy, scale: refScale,
	sumSquares: refSumSquares, absSum: refAbsSum, maxAbs: refMaxAbs, exp: refExp,
	quantizeClassic: refQuantizeClassic, quantizeAbsMean: refQuantizeAbsMean,
	countZeros: refCountZeros, classicMask: refClassicMask, roundScaled: refRoundScaled,
	swiglu: refSwiGLU, swigluBackward: refSwiGLUBackward,
	sumSquares32: refSumSquares32, dot: refDot, dot3: refDot3, scaleMul: refScaleMul,
	rmsNormRow: refRMSNormRow, rmsNormRowAcc: refRMSNormRowAcc,
	rotate: refRotate, rotateBack: refRotateBack, maxOf: refMaxOf, indexOf: refIndexOf, expAffine: refExpAffine, softmaxRows: refSoftmaxRows, softmaxRowsBackward: refSoftmaxRowsBackward, adamW: refAdamW, dropBlocks: refDropBlocks, matVecInt8: refMatVecInt8,
}

// vector returns the implementations in use.
func vector() *vectorKernels { return &vectorSets[active] }

// Add is y = a + b.
func Add(y, a, b []float32) { vector().add(y, a[:len(y)], b[:len(y)]) }

func refAdd(y, a, b []float32) {
	for i := range y {
		y[i] = a[i] + b[i]
	}
}

// Mul is y = a ∘ b.
func Mul(y, a, b []float32) { vector().mul(y, a[:len(y)], b[:len(y)]) }

func refMul(y, a, b []float32) {
	for i := range y {
		y[i] = a[i] * b[i]
	}
}

// Axpy is y += alpha·x.
func Axpy(y []float32, alpha float32, x []float32) { vector().axpy(y, alpha, x[:len(y)]) }

func refAxpy(y []float32, alpha float32, x []float32) {
	for i := range y {
		y[i] += alpha * x[i]
	}
}

// Scale is y *= s.
func Scale(y []float32, s float32) { vector().scale(y, s) }

func refScale(y []float32, s float32) {
	for i := range y {
		y[i] *= s
	}
}

// SumSquares is Σ x², added up in float64.
func SumSquares(x []float32) float64 { return vector().sumSquares(x) }

func refSumSquares(x []float32) float64 {
	var s float64
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return s
}

// AbsSum is Σ |x|, added up in float64.
func AbsSum(x []float32) float64 { return vector().absSum(x) }

func refAbsSum(x []float32) float64 {
	var s float64
	for _, v := range x {
		s += math.Abs(float64(v))
	}
	return s
}

// MaxAbs is max |x|, 0 for no elements; NaN elements do not count.
func MaxAbs(x []float32) float32 { return vector().maxAbs(x) }

func refMaxAbs(x []float32) float32 {
	var m float32
	for _, v := range x {
		if v = abs32(v); v > m {
			m = v
		}
	}
	return m
}

// MaxOf is the largest value of x, −Inf for none; NaN elements do not count.
func MaxOf(x []float32) float32 { return vector().maxOf(x) }

// HasNaN reports whether an element is NaN.
func HasNaN(x []float32) bool {
	s := vector().sumSquares32(x) // may be infinite, but not NaN otherwise
	return s != s
}

func refMaxOf(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m {
			m = v
		}
	}
	return m
}

// ArgMax is the lowest index of the greatest of x; NaN elements do not count.
// It is 0 where there are no others.
func ArgMax(x []float32) int {
	v := vector()
	return max(0, v.indexOf(x, v.maxOf(x)))
}

// refIndexOf is the first i with x[i] = v, or −1.
func refIndexOf(x []float32, v float32) int {
	for i, e := range x {
		if e == v {
			return i
		}
	}
	return -1
}

func refSumSquares32(x []float32) float32 { return refDot(x, x) }

func refDot(a, b []float32) float32 {
	var s float32
	for i, v := range a {
		s += v * b[i]
	}
	return s
}

func refDot3(a, b, c []float32) float32 {
	var s float32
	for i, v := range a {
		s += v * b[i] * c[i]
	}
	return s
}

// refScaleMul is y = s·x ∘ w.
func refScaleMul(y, x, w []float32, s float32) {
	for i := range y {
		y[i] = x[i] * s * w[i]
	}
}

func abs32(v float32) float32 {
	return math.Float32frombits(math.Float32bits(v) &^ (1 << 31))
}

// roundEven rounds |x| < 2²² to the nearest integer, halves to even.
func roundEven(x float32) float32 {
	const magic = 1<<23 + 1<<22
	return (x + magic) - magic
}
