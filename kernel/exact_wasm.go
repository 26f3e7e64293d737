package kernel

// exactSets are the implementations by set; the assembly is written by
// _avo/wasm_exact.go.
var exactSets = [len(setNames)]exactKernels{
	setRef: refExact,
	setSIMD128: {
		sumSquares: exactSumSquaresWhole, quantize8: exactQuantize8Whole, scaleInt32: exactScaleInt32Whole,
		rotate: exactRotateWhole, scores: exactScoresV4, values: exactValuesWhole, values8: exactValues8Whole,
		swiglu: exactSwiGLUWhole, exp: exactExpWhole, expScaled: exactExpScaledWhole, embedding8: exactEmbedding8Whole,
	},
}

// exactValuesWhole gives whole groups of eight columns to the assembly.
func exactValuesWhole(o, w, values []float32) {
	n, width := len(o)&^7, len(o)
	exactValuesRows(o[:n], w, values, 4*width)
	if n == width {
		return
	}
	for p := range w {
		refExactValues(o[n:], w[p:p+1], values[p*width+n:])
	}
}

func exactValues8Whole(o, w []float32, values []int8) {
	n, width := len(o)&^7, len(o)
	exactValues8Rows(o[:n], w, values, width)
	if n == width {
		return
	}
	for p := range w {
		refExactValues8(o[n:], w[p:p+1], values[p*width+n:])
	}
}

func exactScaleInt32Whole(y []float32, ldy int, acc []int32, ldacc, rows int, s float32, g []float32) {
	n := whole(g)
	exactScaleInt32Rows(y, ldy, acc, ldacc, rows, s, g[:n])
	if n < len(g) && rows > 0 {
		refExactScaleInt32(y[n:], ldy, acc[n:], ldacc, rows, s, g[n:])
	}
}

// exactSumSquaresWhole and exactExpScaledWhole fold the sums of whole vectors
// of four. Zeros behind the others change no accumulator.
func exactSumSquaresWhole(x []float32) float32 {
	if len(x)%4 == 0 {
		return exactSumSquaresFold(x)
	}
	return refExactSumSquares(x)
}

func exactExpScaledWhole(y, x []float32, top, inv float32) float32 {
	if len(x)%4 == 0 {
		return exactExpScaledFold(y, x, top, inv)
	}
	return refExactExpScaled(y, x, top, inv)
}
