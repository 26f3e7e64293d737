package kernel

// SwiGLU is y = silu(gate) ∘ up, silu(g) = g·σ(g), σ(g) = 1/(1+e⁻ᵍ).
func SwiGLU(y, gate, up []float32) { vector().swiglu(y, gate[:len(y)], up[:len(y)]) }

func refSwiGLU(y, gate, up []float32) {
	for i, g := range gate {
		y[i] = g / (1 + exp32(-g)) * up[i]
	}
}

// SwiGLUBackward is the gradient of SwiGLU: dup = dy∘silu(gate) and
// dgate = dy∘up∘σ(1 + g(1−σ)). dgate and dup are overwritten.
func SwiGLUBackward(dgate, dup, dy, gate, up []float32) {
	n := len(dgate)
	vector().swigluBackward(dgate, dup[:n], dy[:n], gate[:n], up[:n])
}

func refSwiGLUBackward(dgate, dup, dy, gate, up []float32) {
	for i, g := range gate {
		s := 1 / (1 + exp32(-g))
		d, u := dy[i], up[i]
		dup[i] = d * g * s
		dgate[i] = d * u * s * (1 + g*(1-s))
	}
}
