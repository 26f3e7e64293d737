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

// refSoftmaxBackward turns logits s/a and gradients dp of the weights into
// the weights p = exp(a·s + b), in s, and the gradients of the logits,
// a·p∘(dp − delta), in dp.
func refSoftmaxBackward(s, dp []float32, a, b, delta float32) {
	for i, v := range s {
		p := exp32(float32(a*v) + b)
		s[i] = p
		dp[i] = p * a * (dp[i] - delta)
	}
}

func log32(x float32) float32 { return float32(math.Log(float64(x))) }
