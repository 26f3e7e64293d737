package kernel

var vectorSets = [len(setNames)]vectorKernels{setRef: refVector, setSIMD128: simdVector()}

// simdVector is the plain Go but for what int8 inference needs; the assembly
// is written by _avo/wasm_exact.go.
func simdVector() vectorKernels {
	v := refVector
	v.add, v.mul = addWhole, mulWhole
	v.scale, v.scaleMul, v.maxAbs, v.maxOf, v.indexOf = scaleWhole, scaleMulWhole, maxAbsWhole, maxOfWhole, indexOfWhole
	v.sumSquares32 = sumSquares32Whole
	v.exp, v.swiglu = exactExpWhole, exactSwiGLUWhole
	v.matVecInt8 = matVecInt8Whole
	return v
}

// sumSquares32Whole may add in any order, so it gives whole vectors to the
// assembly whatever the length: a vocabulary has 50,257 tokens.
func sumSquares32Whole(x []float32) float32 {
	n := len(x) &^ 3
	return exactSumSquaresFold(x[:n]) + refSumSquares32(x[n:])
}

// matVecInt8Whole gives whole groups of 16 columns to the assembly, if these
// are all: rows lie one after another.
func matVecInt8Whole(y []int32, w, x []int8) {
	if len(x)%16 == 0 {
		matVecInt8V16(y, w, x)
	} else {
		refMatVecInt8(y, w, x)
	}
}
