package kernel

import "spinnet/algebra"

// Linear is one hypercomplex layer's weights in the layout its kernels read:
//
//	y_i = (Σ_j Sign[i][j] · x_j · W[i xor j]ᵀ) ∘ scale
//
// for parts x_j of width K and y_i of width N. Pack and PackBackward fill it
// from W; it keeps its memory between calls. See RefLinear for the
// definitions.
type Linear struct {
	t          *algebra.Table
	n          int // dimension of the algebra
	N, K       int // output and input width of a part
	transposed bool

	fast              *fastTerms // the fast product, or nil: expand to the dense matrix
	forward, backward panels
	scaled            []float32 // W∘scale
	sums              []float32 // of BackwardWeight

	dense, denseBack, denseGrad []float32
}

// NewLinear returns a layer over the algebra t from parts of inPart (K) to
// parts of outPart (N) features. W is [n,N,K]; with transposed it is [n,K,N]
// and its blocks are used without the transpose, as the head mixer does.
func NewLinear(t *algebra.Table, outPart, inPart int, transposed bool) *Linear {
	l := &Linear{t: t, n: t.N, N: outPart, K: inPart, transposed: transposed}
	if t.N == 8 {
		l.fast = newFastTerms(t)
	}
	return l
}

// Pack takes the weights for Forward. scale [N] multiplies the output
// columns of every part; nil means 1.
func (l *Linear) Pack(p *Pool, w, scale []float32) {
	if l.fast != nil {
		l.packPanels(p, &l.forward, l.scale(w, scale), l.K, l.N, !l.transposed)
		return
	}
	l.dense = grow(&l.dense, l.n*l.N*l.n*l.K)
	RefDense(l.t, l.dense, w, scale, l.N, l.K, l.transposed)
}

// PackBackward takes the weights for BackwardInput.
func (l *Linear) PackBackward(p *Pool, w, scale []float32) {
	if l.fast != nil {
		l.packPanels(p, &l.backward, l.scale(w, scale), l.N, l.K, l.transposed)
		return
	}
	l.denseBack = grow(&l.denseBack, l.n*l.N*l.n*l.K)
	RefDense(l.t, l.denseBack, w, scale, l.N, l.K, l.transposed)
}

// scale returns W∘scale.
func (l *Linear) scale(w, scale []float32) []float32 {
	if scale == nil {
		return w
	}
	out := grow(&l.scaled, 8*l.N*l.K)
	if l.transposed {
		for r := 0; r < len(out); r += l.N {
			Mul(out[r:r+l.N], w[r:r+l.N], scale)
		}
		return out
	}
	for r := range 8 * l.N {
		row, s := w[r*l.K:(r+1)*l.K], scale[r%l.N]
		for c, v := range row {
			out[r*l.K+c] = v * s
		}
	}
	return out
}

// Forward computes y[m, n·N] from x[m, n·K].
func (l *Linear) Forward(p *Pool, y, x []float32, m int) {
	if l.fast != nil {
		l.runFast(p, y, x, m, &l.forward, &l.fast.byOut, l.fast.p, eightOnes, false)
		return
	}
	GemmNT(p, y, x, l.dense, m, l.n*l.N, l.n*l.K, false)
}

// BackwardInput computes dx[m, n·K] from dy[m, n·N], added to dx when acc.
func (l *Linear) BackwardInput(p *Pool, dx, dy []float32, m int, acc bool) {
	if l.fast != nil {
		l.runFast(p, dx, dy, m, &l.backward, &l.fast.byIn, eightOnes, l.fast.p, acc)
		return
	}
	GemmNN(p, dx, dy, l.denseBack, m, l.n*l.K, l.n*l.N, acc)
}

// BackwardWeight computes G_k = Σ_i Sign[i][i xor k] dy_iᵀ x_{i xor k} over
// the m rows, in the shape of W, added to g when acc. The scale is not in
// it: dW = scale∘G and dscale_r = Σ_{k,c} G_k[r,c]·W_k[r,c] are the caller's.
func (l *Linear) BackwardWeight(p *Pool, g, dy, x []float32, m int, acc bool) {
	if l.fast != nil {
		l.runWeight(p, g, dy, x, m, acc)
		return
	}
	wide, high := l.n*l.K, l.n*l.N
	l.denseGrad = grow(&l.denseGrad, wide*high)
	GemmTN(p, l.denseGrad, dy, x, high, wide, m, false)
	if !acc {
		clear(g[:l.n*l.N*l.K])
	}
	l.foldGrad(g)
}

// foldGrad adds the dense matrix's gradient to the blocks of g.
func (l *Linear) foldGrad(g []float32) {
	for i := range l.n {
		for j := range l.n {
			s := float32(l.t.Sign[i][j])
			block := g[(i^j)*l.N*l.K:]
			for r := range l.N {
				row := l.denseGrad[(i*l.N+r)*l.n*l.K+j*l.K:]
				for c := range l.K {
					if l.transposed {
						block[c*l.N+r] += s * row[c]
					} else {
						block[r*l.K+c] += s * row[c]
					}
				}
			}
		}
	}
}
