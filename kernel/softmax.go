package kernel

import "math"

// SoftmaxRow replaces x by softmax(x) and returns its maximum and
// log Σ exp(x).
func SoftmaxRow(x []float32) (max, logSumExp float32) {
	v := vector()
	max = v.maxOf(x)
	s := v.expShift(x, max)
	v.scale(x, 1/s)
	return max, max + log32(s)
}

// refExpShift is x = exp(x − shift), and returns its sum.
func refExpShift(x []float32, shift float32) float32 {
	var s float32
	for i, v := range x {
		e := exp32(v - shift)
		x[i] = e
		s += e
	}
	return s
}

func log32(x float32) float32 { return float32(math.Log(float64(x))) }
