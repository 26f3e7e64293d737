package kernel

import "golang.org/x/sys/cpu"

var vectorSets = [len(setNames)]vectorKernels{setRef: refVector, setNEON: neonVector()}

// neonVector is the plain Go but for what int8 inference needs; the assembly
// is in int8_arm64.s, or written by _avo/neon_exact.go and _avo/neon_int8.go.
func neonVector() vectorKernels {
	v := refVector
	v.add, v.mul = addWhole, mulWhole
	v.scale, v.scaleMul, v.maxAbs, v.maxOf, v.indexOf = scaleWhole, scaleMulWhole, maxAbsWhole, maxOfWhole, indexOfWhole
	v.exp, v.swiglu = exactExpWhole, exactSwiGLUWhole
	v.matVecInt8 = matVecInt8NEON
	if cpu.ARM64.HasASIMDDP {
		v.matVecInt8 = matVecInt8DotN
	}
	return v
}

//go:noescape
func matVecInt8NEON(y []int32, w, x []int8)
