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
