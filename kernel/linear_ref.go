package kernel

import "spinnet/algebra"

// The definitions of the hypercomplex linear layer (SPEC §1), for tests and
// readers. Linear computes the same, fast.
//
// W is [n,N,K]; with transposed (the head mixer) it is [n,K,N] and each
// block is used without the transpose. scale [N] is the layer's γ·beta, nil
// for 1.

// RefDense writes the layer's equivalent dense matrix D [n·N, n·K]:
// D[i·N+r, j·K+c] = scale[r] · Sign[i][j] · W[i xor j][r][c].
func RefDense(t *algebra.Table, d, w, scale []float32, outPart, inPart int, transposed bool) {
	n, width := t.N, t.N*inPart
	for i := range n {
		for j := range n {
			block := w[(i^j)*outPart*inPart:]
			for r := range outPart {
				s := float32(t.Sign[i][j])
				if scale != nil {
					s *= scale[r]
				}
				row := d[(i*outPart+r)*width+j*inPart:]
				for c := range inPart {
					if transposed {
						row[c] = s * block[c*outPart+r]
					} else {
						row[c] = s * block[r*inPart+c]
					}
				}
			}
		}
	}
}

// RefLinear is the forward: y[m, n·N] with
// y_i = (Σ_j Sign[i][j] · x_j · W[i xor j]ᵀ) ∘ scale from x[m, n·K].
func RefLinear(t *algebra.Table, y, x, w, scale []float32, m, outPart, inPart int, transposed bool) {
	d := make([]float32, t.N*outPart*t.N*inPart)
	RefDense(t, d, w, scale, outPart, inPart, transposed)
	refGemmNT(y, x, d, m, t.N*outPart, t.N*inPart, false)
}

// RefLinearBackwardInput is dx_j = Σ_i Sign[i][j] (dy_i∘scale) W[i xor j],
// added to dx when acc.
func RefLinearBackwardInput(t *algebra.Table, dx, dy, w, scale []float32, m, outPart, inPart int, transposed, acc bool) {
	d := make([]float32, t.N*outPart*t.N*inPart)
	RefDense(t, d, w, scale, outPart, inPart, transposed)
	refGemmNN(dx, dy, d, m, t.N*inPart, t.N*outPart, acc)
}

// RefLinearBackwardWeight is G_k = Σ_i Sign[i][i xor k] dy_iᵀ x_{i xor k},
// in the shape of W and without the scale, added to g when acc.
func RefLinearBackwardWeight(t *algebra.Table, g, dy, x []float32, m, outPart, inPart int, transposed, acc bool) {
	n := t.N
	if !acc {
		clear(g[:n*outPart*inPart])
	}
	for k := range n {
		block := g[k*outPart*inPart:]
		for i := range n {
			j := i ^ k
			s := float32(t.Sign[i][j])
			for q := range m {
				for r := range outPart {
					for c := range inPart {
						v := s * dy[(q*n+i)*outPart+r] * x[(q*n+j)*inPart+c]
						if transposed {
							block[c*outPart+r] += v
						} else {
							block[r*inPart+c] += v
						}
					}
				}
			}
		}
	}
}
