package kernel

import "golang.org/x/sys/cpu"

var vectorSets = [len(setNames)]vectorKernels{setRef: refVector, setNEON: neonVector()}

// neonVector is the plain Go but for what int8 inference needs; the assembly
// is in int8_arm64.s, or written by _avo/neon_exact.go and _avo/neon_int8.go.
func neonVector() vectorKernels {
	v := refVector
	v.add, v.mul = addNEON, mulNEON
	v.scale, v.scaleMul, v.maxAbs, v.maxOf, v.indexOf = scaleNEON, scaleMulNEON, maxAbsNEON, maxOfNEON, indexOfNEON
	v.exp, v.swiglu = exactExpNEON, exactSwiGLUNEON
	v.matVecInt8 = matVecInt8NEON
	if cpu.ARM64.HasASIMDDP {
		v.matVecInt8 = matVecInt8DotN
	}
	return v
}

//go:noescape
func matVecInt8NEON(y []int32, w, x []int8)

func addNEON(y, a, b []float32) {
	n := whole(y)
	addN(y[:n], a, b)
	refAdd(y[n:], a[n:], b[n:])
}

func mulNEON(y, a, b []float32) {
	n := whole(y)
	mulN(y[:n], a, b)
	refMul(y[n:], a[n:], b[n:])
}

func scaleNEON(y []float32, s float32) {
	n := whole(y)
	scaleN(y[:n], s)
	refScale(y[n:], s)
}

func scaleMulNEON(y, x, w []float32, s float32) {
	n := whole(y)
	scaleMulN(y[:n], x, w, s)
	refScaleMul(y[n:], x[n:], w[n:], s)
}

func maxAbsNEON(x []float32) float32 {
	n := whole(x)
	return max(maxAbsN(x[:n]), refMaxAbs(x[n:]))
}

func maxOfNEON(x []float32) float32 {
	n := whole(x)
	return max(maxOfN(x[:n]), refMaxOf(x[n:]))
}

func indexOfNEON(x []float32, v float32) int {
	from := indexOfN(x[:len(x)&^15], v)
	if i := refIndexOf(x[from:], v); i >= 0 {
		return from + i
	}
	return -1
}
