package kernel

// exactSets are the implementations by set; the assembly, which takes whole
// vectors, is written by _avo/neon_exact.go.
var exactSets = [len(setNames)]exactKernels{
	setRef: refExact,
	setNEON: {
		sumSquares: exactSumSquaresNEON, quantize8: exactQuantize8NEON, scaleInt32: exactScaleInt32NEON,
		rotate: exactRotateNEON, scores: exactScoresN, values: exactValuesN, values8: exactValues8N,
		swiglu: exactSwiGLUNEON, exp: exactExpNEON, expScaled: exactExpScaledNEON, embedding8: exactEmbedding8NEON,
	},
}

// whole is the number of elements of x in vectors of four.
func whole[T any](x []T) int { return len(x) &^ 3 }

func exactSumSquaresNEON(x []float32) float32 {
	var s [exactLanes]float32
	n := whole(x)
	exactSumSquaresN(x[:n], &s)
	for i, v := range x[n:] {
		s[(n+i)%exactLanes] += float32(v * v)
	}
	return fold16(&s)
}

func exactQuantize8NEON(q []int8, x []float32, inv float32) {
	n := whole(x)
	exactQuantize8N(q[:n], x, inv)
	refExactQuantize8(q[n:], x[n:], inv)
}

func exactScaleInt32NEON(y []float32, ldy int, acc []int32, ldacc, rows int, s float32, g []float32) {
	n := whole(g)
	for r := range rows {
		row, sums := y[r*ldy:][:len(g)], acc[r*ldacc:][:len(g)]
		exactScaleInt32N(row[:n], sums, g, s)
		if n < len(g) {
			refExactScaleInt32(row[n:], 0, sums[n:], 0, 1, s, g[n:])
		}
	}
}

func exactRotateNEON(x, cos, sin []float32) {
	n := whole(cos)
	for ; len(x) > 0; x = x[2*len(cos):] {
		exactRotateN(cos[:n], sin, x)
		refExactRotate(x[2*n:2*len(cos)], cos[n:], sin[n:])
	}
}

func exactSwiGLUNEON(y, gate, up []float32) {
	n := whole(y)
	exactSwiGLUN(y[:n], gate, up)
	refSwiGLU(y[n:], gate[n:], up[n:])
}

func exactExpNEON(y, x []float32) {
	n := whole(y)
	exactExpN(y[:n], x)
	refExp(y[n:], x[n:])
}

func exactExpScaledNEON(y, x []float32, top, inv float32) float32 {
	var s [exactLanes]float32
	n := whole(x)
	exactExpScaledN(y[:n], x, top, inv, &s)
	for i, v := range x[n:] {
		e := exp32(float32((v - top) * inv))
		y[n+i] = e
		s[(n+i)%exactLanes] += e
	}
	return fold16(&s)
}

func exactEmbedding8NEON(y []float32, q []int8, s float32) {
	n := whole(q)
	exactEmbedding8N(y[:n], q, s)
	refExactEmbedding8(y[n:], q[n:], s)
}
