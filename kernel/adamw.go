package kernel

import "math"

// AdamW updates w once from the gradient g, with moments m and v (Loshchilov
// & Hutter 2019, decoupled decay):
//
//	g' = gscale·g;  m = β₁m + (1−β₁)g';  v = β₂v + (1−β₂)g'²
//	w = (1 − lr·wd)·w − lr·(m/c1) / (√(v/c2) + eps)
//
// with c1 = 1−β₁ᵗ and c2 = 1−β₂ᵗ at step t. g is not changed.
func AdamW(w, g, m, v []float32, lr, beta1, beta2, eps, wd, c1, c2, gscale float32) {
	n := len(w)
	vector().adamW(w, g[:n], m[:n], v[:n], gscale,
		beta1, float32(1-float64(beta1)), beta2, float32(1-float64(beta2)),
		float32(float64(lr)/float64(c1)), float32(1/math.Sqrt(float64(c2))), eps,
		float32(1-float64(lr)*float64(wd)))
}

// refAdamW takes the numbers that all elements share: beta1c = 1−β₁,
// beta2c = 1−β₂, rate = lr/c1, rsqrtC2 = 1/√c2 and keep = 1 − lr·wd.
func refAdamW(w, g, m, v []float32, gscale, beta1, beta1c, beta2, beta2c, rate, rsqrtC2, eps, keep float32) {
	for i := range w {
		d := g[i] * gscale
		mi := beta1*m[i] + beta1c*d
		vi := beta2*v[i] + beta2c*d*d
		m[i], v[i] = mi, vi
		root := float32(math.Sqrt(float64(vi)))
		w[i] = keep*w[i] - rate*mi/(root*rsqrtC2+eps)
	}
}
