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

func exactSumSquaresWhole(x []float32) float32 {
	var s [exactLanes]float32
	n := whole(x)
	exactSumSquaresV4(x[:n], &s)
	for i, v := range x[n:] {
		s[(n+i)%exactLanes] += float32(v * v)
	}
	return fold16(&s)
}

func exactExpScaledWhole(y, x []float32, top, inv float32) float32 {
	var s [exactLanes]float32
	n := whole(x)
	exactExpScaledV4(y[:n], x, top, inv, &s)
	for i, v := range x[n:] {
		e := exp32(float32((v - top) * inv))
		y[n+i] = e
		s[(n+i)%exactLanes] += e
	}
	return fold16(&s)
}
