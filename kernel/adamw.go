package kernel

import "math"

// adamScalars are the numbers of one AdamW step that all elements share.
type adamScalars struct {
	gscale                       float32 // factor of the gradient
	beta1, beta1c, beta2, beta2c float32 // decay rates and their complements
	rate                         float32 // lr/c1
	rsqrtC2                      float32 // 1/√c2
	eps                          float32
	keep                         float32 // 1 − lr·wd
}

// AdamW updates w once from the gradient g, with moments m and v (Loshchilov
// & Hutter 2019, decoupled decay):
//
//	g' = gscale·g;  m = β₁m + (1−β₁)g';  v = β₂v + (1−β₂)g'²
//	w = (1 − lr·wd)·w − lr·(m/c1) / (√(v/c2) + eps)
//
// with c1 = 1−β₁ᵗ and c2 = 1−β₂ᵗ at step t. g is not changed.
func AdamW(w, g, m, v []float32, lr, beta1, beta2, eps, wd, c1, c2, gscale float32) {
	n := len(w)
	vector().adamW(w, g[:n], m[:n], v[:n], adamScalars{
		gscale: gscale,
		beta1:  beta1, beta1c: float32(1 - float64(beta1)),
		beta2: beta2, beta2c: float32(1 - float64(beta2)),
		rate:    float32(float64(lr) / float64(c1)),
		rsqrtC2: float32(1 / math.Sqrt(float64(c2))),
		eps:     eps,
		keep:    float32(1 - float64(lr)*float64(wd)),
	})
}

func refAdamW(w, g, m, v []float32, s adamScalars) {
	for i := range w {
		d := g[i] * s.gscale
		mi := s.beta1*m[i] + s.beta1c*d
		vi := s.beta2*v[i] + s.beta2c*d*d
		m[i], v[i] = mi, vi
		root := float32(math.Sqrt(float64(vi)))
		w[i] = s.keep*w[i] - s.rate*mi/(root*s.rsqrtC2+s.eps)
	}
}
