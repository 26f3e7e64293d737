package kernel

import (
	"testing"
)

// BenchmarkExact times the float steps at the sizes of a layer of width 512
// with heads of 64 and 256 positions.
func BenchmarkExact(b *testing.B) {
	x, w, y := randomFloats(1536, 1), randomFloats(1536, 2), make([]float32, 1536)
	q, acc := make([]int8, 1536), make([]int32, 1536)
	logits, probabilities := randomFloats(50304, 5), make([]float32, 50304)
	keys, weights, values8 := randomFloats(64*272, 3), make([]float32, 256), int8sOf(64*256, 4)
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"norm/512", func() { ExactRMSNorm(y[:512], x[:512], w[:512], 1e-6) }},
		{"quantize8/512", func() { ExactQuantize8(q[:512], x[:512]) }},
		{"quantize8/1536", func() { ExactQuantize8(q, x) }},
		{"scaleInt32/512", func() { ExactScaleInt32(y, 64, acc, 64, 8, 0.1, w[:64]) }},
		{"embedding8/512", func() { ExactEmbedding8(y[:512], q[:512], 0.1) }},
		{"rotate/512", func() { ExactRotate(y[:512], w[:32], w[32:64]) }},
		{"scores/64x256", func() { ExactScores(y[:256], x[:64], keys, 0.125) }},
		{"softmax/256", func() { copy(weights, x[:256]); ExactSoftmax(weights) }},
		{"values/64x256", func() { ExactValues(y[:64], w[:256], keys[:64*256]) }},
		{"values8/64x256", func() { ExactValues8(y[:64], w[:256], values8) }},
		{"swiglu/1536", func() { ExactSwiGLU(y, x, w) }},
		{"exp/1536", func() { ExactExp(y, x) }},
		{"expScaled/50304", func() { ExactExpScaled(probabilities, logits, 4, 1.25) }},
		{"argmax/50304", func() { ArgMax(logits) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			best := fastest(b, func() {
				for range 10 {
					c.run()
				}
			})
			b.ReportMetric(best/10, "ns/step")
		})
	}
}
