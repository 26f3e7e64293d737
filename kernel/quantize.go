package kernel

// The ternary quantisers of SPEC §1 and the int8 rounding of SPEC §7. Halves
// round to even.

// QuantizeClassic is q = clamp(round(w), −1, 1).
func QuantizeClassic(q, w []float32) { vector().quantizeClassic(q, w[:len(q)]) }

func refQuantizeClassic(q, w []float32) {
	for i, v := range w {
		q[i] = roundEven(max(-1, min(1, v)))
	}
}

// QuantizeAbsMean is q = clamp(round(w/gamma), −1, 1); the caller takes
// gamma = max(mean|w|, 1e-8) over the whole tensor.
func QuantizeAbsMean(q, w []float32, gamma float32) {
	vector().quantizeAbsMean(q, w[:len(q)], gamma)
}

func refQuantizeAbsMean(q, w []float32, gamma float32) {
	for i, v := range w {
		q[i] = roundEven(max(-1, min(1, v/gamma)))
	}
}

// CountZeros counts the zeros of q.
func CountZeros(q []float32) int { return vector().countZeros(q) }

func refCountZeros(q []float32) int {
	n := 0
	for _, v := range q {
		if v == 0 {
			n++
		}
	}
	return n
}

// ClassicMask zeroes dw where |w| > 1.5: the classic quantiser's gradient
// passes straight through elsewhere.
func ClassicMask(dw, w []float32) { vector().classicMask(dw, w[:len(dw)]) }

func refClassicMask(dw, w []float32) {
	for i, v := range w {
		if abs32(v) > 1.5 {
			dw[i] = 0
		}
	}
}

// FakeQuant8 rounds each row of d values to int8 levels: a = max|x|,
// s = a/127, y = s·clamp(roundeven(x·(127/a)), ±127); y = 0 for a = 0.
func FakeQuant8(y, x []float32, rows, d int) {
	v := vector()
	for i := range rows {
		xi, yi := x[i*d:i*d+d], y[i*d:i*d+d]
		a := v.maxAbs(xi)
		if a < smallest8 {
			clear(yi)
			continue
		}
		v.roundScaled(yi, xi, 127/a, a/127)
	}
}

// smallest8 is about the least a for which 127/a is finite.
const smallest8 = 4e-37

// refRoundScaled is y = s·clamp(roundeven(x·inv), ±127).
func refRoundScaled(y, x []float32, inv, s float32) {
	for i, v := range x {
		y[i] = s * roundEven(max(-127, min(127, v*inv)))
	}
}
