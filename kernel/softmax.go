package kernel

import "math"

// SoftmaxRow replaces x by softmax(x) and returns its maximum and
// log Σ exp(x).
func SoftmaxRow(x []float32) (max, logSumExp float32) {
	v := vector()
	max = v.maxOf(x)
	s := v.expAffine(x, x, 1, -max)
	v.scale(x, 1/s)
	return max, max + log32(s)
}

// refExpAffine is y = exp(a·x + b), and returns its sum.
func refExpAffine(y, x []float32, a, b float32) float32 {
	var s float64
	for i, v := range x {
		e := exp32(float32(a*v) + b)
		y[i] = e
		s += float64(e)
	}
	return float32(s)
}

// refSoftmaxRows turns the rows of a triangle, ld apart, the first of valid
// logits and each of one more than the row before, into exp(scale·x − top)
// with top = scale·max, and zeroes the rest of width. There are len(top)
// rows; sum receives their sums.
func refSoftmaxRows(p []float32, ld, valid, width int, scale float32, top, sum []float32) {
	for r := range top {
		row := p[r*ld:][:valid+r]
		top[r] = scale * refMaxOf(row)
		sum[r] = refExpAffine(row, row, scale, -top[r])
		clearTail(p[r*ld:], valid+r, width)
	}
}

// refSoftmaxRowsBackward turns such rows of logits p and of the gradients ds
// of the weights into the weights exp(scale·p − lse), in p, and the gradients
// of the logits, scale·weight∘(ds − delta), in ds.
func refSoftmaxRowsBackward(p, ds []float32, ld, valid, width int, scale float32, lse, delta []float32) {
	for r := range lse {
		row, grad := p[r*ld:][:valid+r], ds[r*ld:][:valid+r]
		for i, v := range row {
			e := exp32(float32(scale*v) - lse[r])
			row[i] = e
			grad[i] = e * scale * (grad[i] - delta[r])
		}
		clearTail(p[r*ld:], valid+r, width)
		clearTail(ds[r*ld:], valid+r, width)
	}
}

func clearTail(row []float32, from, to int) {
	if from < to {
		clear(row[from:to])
	}
}

// log32 is the natural logarithm of a positive, normal x within 2 ulp (Cephes
// logf): x = 2ᵏ·(1+f) with √½ ≤ 1+f < √2.
func log32(x float32) float32 {
	b := math.Float32bits(x)
	if b < 1<<23 || b >= 0x7f800000 {
		return float32(math.Log(float64(x)))
	}
	k := int32(b>>23) - 126
	m := math.Float32frombits(b&(1<<23-1) | 126<<23) // in [½, 1)
	if m < math.Sqrt2/2 {
		k--
		m += m
	}
	f := m - 1
	z := float32(f * f)
	p := float32(7.0376836292e-2)
	for _, c := range [...]float32{-1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1} {
		p = float32(p*f) + c
	}
	y := float32(float32(p*f) * z)
	n := float32(k)
	y += float32(n * ln2Lo)
	y -= float32(0.5 * z)
	return f + y + float32(n*ln2Hi)
}
