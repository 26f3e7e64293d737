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

	dense []float32 // the expanded matrix, or its gradient
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
		l.packPanels(p, &l.forward, w, scale, l.K, l.N, !l.transposed)
		return
	}
	l.expand(p, w, scale)
	p.packB(&l.forward.hat, gemmNT, l.dense, l.n*l.N, l.n*l.K)
}

// PackBackward takes the weights for BackwardInput.
func (l *Linear) PackBackward(p *Pool, w, scale []float32) {
	if l.fast != nil {
		l.packPanels(p, &l.backward, w, scale, l.N, l.K, l.transposed)
		return
	}
	l.expand(p, w, scale)
	p.packB(&l.backward.hat, gemmNN, l.dense, l.n*l.K, l.n*l.N)
}

// scaleBlock writes one weight block times the scale of its output: rows of
// w [N,K], columns when transposed.
func scaleBlock(to, w, scale []float32, outPart, inPart int, transposed bool) {
	if transposed {
		for r := 0; r < len(to); r += outPart {
			Mul(to[r:r+outPart], w[r:r+outPart], scale)
		}
		return
	}
	copy(to, w)
	for r := range outPart {
		Scale(to[r*inPart:(r+1)*inPart], scale[r])
	}
}

// Forward computes y[m, n·N] from x[m, n·K].
func (l *Linear) Forward(p *Pool, y, x []float32, m int) {
	if l.fast != nil {
		l.runFast(p, y, x, m, &l.forward, &l.fast.byOut, l.fast.p, eightOnes, false)
		return
	}
	p.runPacked(gemmNT, y, x, l.forward.hat, m, l.n*l.N, l.n*l.K, false)
}

// BackwardInput computes dx[m, n·K] from dy[m, n·N], added to dx when acc.
func (l *Linear) BackwardInput(p *Pool, dx, dy []float32, m int, acc bool) {
	if l.fast != nil {
		l.runFast(p, dx, dy, m, &l.backward, &l.fast.byIn, eightOnes, l.fast.p, acc)
		return
	}
	p.runPacked(gemmNN, dx, dy, l.backward.hat, m, l.n*l.K, l.n*l.N, acc)
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
	grow(&l.dense, wide*high)
	GemmTN(p, l.dense, dy, x, high, wide, m, false)
	p.tasks().expand = expandTask{l: l, w: g, fold: true, acc: acc}
	p.Run(l.n, &p.tasks().expand)
	p.tasks().expand = expandTask{}
}

// expand makes l.dense from the weights.
func (l *Linear) expand(p *Pool, w, scale []float32) {
	grow(&l.dense, l.n*l.N*l.n*l.K)
	p.tasks().expand = expandTask{l: l, w: w, scale: scale}
	p.Run(l.n, &p.tasks().expand)
	p.tasks().expand = expandTask{}
}

// expandTask writes the dense matrix of a layer (RefDense), a block of rows
// an item, or folds its gradient, a weight block an item.
type expandTask struct {
	l         *Linear
	w, scale  []float32
	fold, acc bool
}

// Do does row block i or weight block i.
func (e *expandTask) Do(i, _ int) {
	l := e.l
	size, width := l.N*l.K, l.n*l.K
	if e.fold {
		g := e.w[i*size : (i+1)*size]
		if !e.acc {
			clear(g)
		}
		for part := range l.n {
			s := float32(l.t.Sign[part][part^i])
			for r := range l.N {
				row := l.dense[(part*l.N+r)*width+(part^i)*l.K:][:l.K]
				if !l.transposed {
					Axpy(g[r*l.K:(r+1)*l.K], s, row)
					continue
				}
				for c, v := range row {
					g[c*l.N+r] += s * v
				}
			}
		}
		return
	}
	for j := range l.n {
		w := e.w[(i^j)*size : (i^j+1)*size]
		for r := range l.N {
			s := float32(l.t.Sign[i][j])
			if e.scale != nil {
				s *= e.scale[r]
			}
			row := l.dense[(i*l.N+r)*width+j*l.K:][:l.K]
			if l.transposed {
				for c := range row {
					row[c] = s * w[c*l.N+r]
				}
				continue
			}
			copy(row, w[r*l.K:])
			if s != 1 {
				Scale(row, s)
			}
		}
	}
}
