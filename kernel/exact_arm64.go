package kernel

// exactSets are the implementations by set; the assembly is written by
// _avo/neon_exact.go.
var exactSets = [len(setNames)]exactKernels{
	setRef: refExact,
	setNEON: {
		sumSquares: exactSumSquaresWhole, quantize8: exactQuantize8Whole, scaleInt32: exactScaleInt32Whole,
		rotate: exactRotateWhole, scores: exactScoresN, values: exactValuesN, values8: exactValues8N,
		swiglu: exactSwiGLUWhole, exp: exactExpWhole, expScaled: exactExpScaledWhole, embedding8: exactEmbedding8Whole,
	},
}

func exactScaleInt32Whole(y []float32, ldy int, acc []int32, ldacc, rows int, s float32, g []float32) {
	n := whole(g)
	for r := range rows {
		row, sums := y[r*ldy:][:len(g)], acc[r*ldacc:][:len(g)]
		exactScaleInt32V4(row[:n], sums, g, s)
		if n < len(g) {
			refExactScaleInt32(row[n:], 0, sums[n:], 0, 1, s, g[n:])
		}
	}
}
