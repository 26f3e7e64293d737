//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"slices"

	"spinnet/tensor"
)

// foldedMost is how many layers one launch of a fold does.
const foldedMost = 4

// gradients are the addresses of at most foldedMost layers' DW, as arguments.
func gradients(ws []*tensor.Weight) (g [foldedMost]uint64) {
	for i, w := range ws {
		g[i] = uint64(w.DW.Addr)
	}
	return g
}

// fold adds up the parts of P, stride apart, with their signs into the folded
// gradients of layers whose P follow each other.
func (d *Device) fold(g [foldedMost]uint64, layers int, p, signs uintptr, n, rows, cols, splits, stride int, transposed bool) {
	d.bound(stride)
	d.launch(fold, grid{x: per(rows*cols, 32*vector(cols)), y: n, z: layers, threads: 256}, g[0], g[1], g[2], g[3], uint64(p), uint64(signs),
		i32(n), i32(rows), i32(cols), i32(splits), i32(stride), flag(transposed))
}

// vector is how many values a thread of the folds takes.
func vector(n int) int {
	if n%4 == 0 {
		return 4
	}
	return 1
}

// weight is what the device derives from a tensor.Weight.
type weight struct {
	n, out, in int
	form       form
	signs      uintptr // [n] bits
	d, dg      uintptr // bf16: the product's matrix, and times the scale for the backward
	scale      uintptr // [n·out]
	gamma      uintptr
}

// sumChunks is chunks of quantize.cu.
const sumChunks = 128

// layer is struct Layer of quantize.cu.
type layer struct {
	w, beta, dw, dbeta, d, dg, scale, gamma, zeros, signs uint64
	n, walsh, out, in, quantizer, transposed              int32
	_                                                     [3]uint64
}

// layerTable is the table of all weights in device memory.
type layerTable struct {
	first    **tensor.Weight
	n        int
	backward bool
	addr     uintptr
	partial  uintptr
	pieces   int // of the largest weight
	rows     int // the largest N
}

// round is up to whole cache lines.
func round(bytes int) int { return per(bytes, 128) * 128 }

// derive makes the states of weights that have none. What several of the same
// shape have lies at equal distances, so that one launch can do them all.
func (d *Device) derive(ws []*tensor.Weight, backward bool) {
	var fresh, ungraded []*weight
	matrices, scales, graded := 0, 0, 0
	for _, w := range ws {
		s, ok := w.State.(*weight)
		if !ok {
			n := w.Algebra.N
			d.bound(n * w.Out * w.In)
			s = &weight{n: n, out: w.Out, in: w.In, signs: d.signsOf(w)}
			s.form = d.formOf(w)
			w.State = s
			fresh = append(fresh, s)
			matrices, scales = matrices+s.matrix(), scales+round(4*n*w.Out)
			if d.results.counts == nil {
				d.results.counts = map[*tensor.Scalar]bool{}
			}
			d.results.counts[w.Zeros] = true
		}
		if backward && s.dg == 0 {
			ungraded = append(ungraded, s)
			graded += s.matrix()
		}
	}
	if len(fresh) > 0 {
		matrix, scale, gamma := d.malloc(matrices), d.malloc(scales), d.malloc(4*len(fresh))
		for i, s := range fresh {
			s.d, s.scale, s.gamma = matrix, scale, gamma+uintptr(4*i)
			matrix, scale = matrix+uintptr(s.matrix()), scale+uintptr(round(4*s.n*s.out))
		}
	}
	if len(ungraded) > 0 {
		matrix := d.malloc(graded)
		for _, s := range ungraded {
			s.dg = matrix
			matrix += uintptr(s.matrix())
		}
	}
}

// signsOf puts an algebra's signs on the device: bit j of word i set where
// s[i][j] = −1.
func (d *Device) signsOf(w *tensor.Weight) uintptr {
	p, ok := d.signs[w.Algebra.Name]
	if !ok {
		bits := make([]uint16, w.Algebra.N)
		for i, row := range w.Algebra.Sign {
			for j, s := range row {
				if s < 0 {
					bits[i] |= 1 << j
				}
			}
		}
		p = d.constant(bytesOf(bits))
		d.signs[w.Algebra.Name] = p
	}
	return p
}

// table gives the table of weights, made anew when they are others.
func (d *Device) table(ws []*tensor.Weight, backward bool) *layerTable {
	if t := d.layers; t != nil && t.first == &ws[0] && t.n == len(ws) && (t.backward || !backward) {
		return t
	}
	d.derive(ws, backward)
	t := &layerTable{first: &ws[0], n: len(ws), backward: backward, partial: d.malloc(8 * sumChunks * len(ws))}
	all := make([]layer, len(ws))
	addr := func(x *tensor.Tensor) uint64 {
		if x == nil {
			return 0
		}
		return uint64(x.Addr)
	}
	for i, w := range ws {
		s := state(w)
		all[i] = layer{w: addr(w.W), beta: addr(w.Beta), dw: addr(w.DW), dbeta: addr(w.DBeta), d: uint64(s.d), dg: uint64(s.dg),
			scale: uint64(s.scale), gamma: uint64(s.gamma), zeros: uint64(w.Zeros.Addr), signs: uint64(s.signs),
			n: int32(s.n), walsh: s.form.kind(), out: int32(w.Out), in: int32(w.In),
			quantizer: map[string]int32{"classic": 1, "absmean": 2}[w.Quantizer], transposed: int32(flag(w.Transposed))}
		t.pieces, t.rows = max(t.pieces, s.n*w.Out*per(w.In, 8)), max(t.rows, w.Out)
	}
	t.addr = d.constant(bytesOf(all))
	d.layers = t
	return t
}

// state gives what Refresh derived.
func state(w *tensor.Weight) *weight {
	s, ok := w.State.(*weight)
	if !ok {
		panic("cuda: a weight is used before Refresh")
	}
	return s
}

// Refresh quantises and expands all weights in two launches, and copies the
// output embedding.
func (d *Device) Refresh(ws []*tensor.Weight, backward bool) {
	d.flush()
	if len(ws) > 0 {
		t := d.table(ws, backward)
		d.launch(refreshSums, grid{x: sumChunks, y: t.n, threads: 256}, uint64(t.addr), uint64(t.partial))
		d.launch(refresh, grid{x: per(t.pieces, 256), y: t.n, threads: 256}, uint64(t.addr), uint64(t.partial))
	}
	for _, t := range d.tables {
		d.copyTable(t)
	}
}

// FinishGradients turns the folded products into gradients.
func (d *Device) FinishGradients(ws []*tensor.Weight) {
	d.flush()
	if len(ws) > 0 {
		t := d.table(ws, true)
		d.launch(finishGradient, grid{x: t.rows, y: t.n, threads: 128}, uint64(t.addr))
	}
}

// alike is how many of the layers from the first on have its shape, with
// outputs, matrices and scales each at one distance: they go in one launch.
func alike(ys []uintptr, ws []*tensor.Weight) int {
	s := state(ws[0])
	n := 1
	for ; n < len(ws); n++ {
		o, p := state(ws[n]), state(ws[n-1])
		if o.n != s.n || o.out != s.out || o.in != s.in || o.form != s.form || ws[n].Transposed != ws[0].Transposed {
			break
		}
		q := state(ws[1])
		if ys[n]-ys[n-1] != ys[1]-ys[0] || o.d-p.d != q.d-s.d || o.dg-p.dg != q.dg-s.dg || o.scale-p.scale != q.scale-s.scale {
			break
		}
	}
	if n > 1 && (ys[1] <= ys[0] || state(ws[1]).d <= s.d) {
		return 1
	}
	return min(n, foldedMost)
}

// addresses collects those of tensors, as bf16.
func (d *Device) addresses(ts []*tensor.Tensor) []uintptr {
	d.addrs = d.addrs[:0]
	for _, t := range ts {
		d.addrs = append(d.addrs, d.half(t))
	}
	return d.addrs
}

// Linear is the forward of hypercomplex layers. Those of one input wait for the
// operation after them.
func (d *Device) Linear(ys []*tensor.Tensor, x *tensor.Tensor, ws []*tensor.Weight) {
	d.flush()
	l := linear{ys, x, ws}
	if len(ys) > 1 {
		d.pending.linear = &l
		return
	}
	d.linear(l, rotary{})
}

// rotates says whether the products of layers can rotate results with heads of
// that width.
func (d *Device) rotates(l linear, headDim int) bool {
	return d.info.Major == 9 && headDim == 64 && l.x.Addr%16 == 0 && !slices.ContainsFunc(l.ws, func(w *tensor.Weight) bool {
		s := state(w)
		return s.form != dense || s.n*s.in%8 != 0
	})
}

// gates says whether one launch can do two layers and the SwiGLU y of their results.
func (d *Device) gates(l linear, y, gate, up *tensor.Tensor) bool {
	s := state(l.ws[0])
	return d.info.Major == 9 && len(l.ys) == 2 && l.ys[0] == gate && l.ys[1] == up && s.form == dense &&
		(s.n*s.in|s.n*s.out)%8 == 0 && (l.x.Addr|y.Addr|gate.Addr|up.Addr)%16 == 0 && alike(d.addresses(l.ys), l.ws) == 2
}

// gatedLinear does them.
func (d *Device) gatedLinear(l linear, y *tensor.Tensor) {
	s, t, to := state(l.ws[0]), state(l.ws[1]), d.addresses(l.ys)
	m, n, k := l.x.Len()/(s.n*s.in), s.n*s.out, s.n*s.in
	maps := [4]*tensorMap{
		d.mapOf(mapKey{l.x.Addr, m, k, k, 1, 0, 64}), d.mapOf(mapKey{s.d, n, k, k, 2, int(t.d-s.d) / 2, 64}),
		d.mapOf(mapKey{to[0], m, n, n, 2, int(to[1]-to[0]) / 2, 16}), d.mapOf(mapKey{y.Addr, m, n, n, 1, 0, 16}),
	}
	d.launchMaps(gemm90Gated, grid{x: min(d.multi, 2*per(m, 128)*per(n, 128)), threads: 384, shared: 230400}, maps,
		uint64(s.scale), i32(m), i32(n), i32(k), i32(int(t.scale-s.scale)/4))
}

// linear does layers: Y = (X·Dᵀ)∘scale, or by transforms (form.go); the
// results that r counts are rotated.
func (d *Device) linear(l linear, r rotary) {
	ys, x, ws := l.ys, l.x, l.ws
	to := d.addresses(ys)
	for len(ws) > 0 {
		s, many := state(ws[0]), alike(to, ws)
		m, wide, narrow := x.Len()/(s.n*s.in), s.n*s.out, s.n*s.in
		switch s.form {
		case inOne:
			many = d.walshLinear(to[:many], x.Addr, ws[:many], m)
		case transformed:
			many = 1
			d.walshForward(to[0], x.Addr, s, m)
		case corrected:
			many = 1
			d.octonionForward(to[0], x.Addr, s, m)
		default:
			p := product{kind: nt, a: x.Addr, b: s.d, c: to[0], scale: s.scale, m: m, n: wide, k: narrow, lda: narrow, ldb: narrow, ldc: wide, batch: many, rotary: r}
			if many > 1 {
				q := state(ws[1])
				p.strideB, p.strideC, p.strideS = int(q.d-s.d)/2, int(to[1]-to[0])/2, int(q.scale-s.scale)/4
			}
			d.gemm(p)
		}
		r.count = max(0, r.count-many)
		to, ws = to[many:], ws[many:]
	}
}

// LinearBackward gives the sum of the layers' dx and adds the folded outer
// products to each DW.
func (d *Device) LinearBackward(dx *tensor.Tensor, acc bool, dys []*tensor.Tensor, x *tensor.Tensor, ws []*tensor.Weight) {
	d.proceed()
	if len(dys) > 1 && slices.ContainsFunc(dys, func(t *tensor.Tensor) bool { return t.Type == tensor.Float32 }) {
		for i := range dys { // there is room for one copy in bf16
			d.LinearBackward(dx, acc || i > 0, dys[i:i+1], x, ws[i:i+1])
		}
		return
	}
	from := d.addresses(dys)
	var walsh walshSum
	for len(ws) > 0 {
		s, many := state(ws[0]), alike(from, ws)
		m, wide, narrow := x.Len()/(s.n*s.in), s.n*s.out, s.n*s.in
		switch s.form {
		case inOne:
			many = d.walshLinearBackward(&walsh, dx.Addr, acc, from[:many], x.Addr, ws[:many], m)
			acc = true
		case transformed:
			many = 1
			d.walshBackward(&walsh, from[0], x.Addr, ws[0], m)
		case corrected:
			many = 1
			d.octonionBackward(dx.Addr, acc, from[0], x.Addr, ws[0], m)
			acc = true
		default:
			apart := 0
			if many > 1 {
				apart = int(from[1]-from[0]) / 2
			}
			d.fork()
			p := product{kind: nn, a: from[0], b: s.dg, c: dx.Addr, m: m, n: narrow, k: wide, lda: wide, ldb: narrow, ldc: narrow, add: acc, chain: many}
			if many > 1 {
				p.strideA, p.strideB = apart, int(state(ws[1]).dg-s.dg)/2
			}
			d.gemm(p)
			dy, group := from[0], ws[:many]
			d.aside(func() { d.weightGradient(dy, apart, x.Addr, group, m) })
			acc = true
		}
		from, ws = from[many:], ws[many:]
	}
	if walsh.dx != 0 {
		d.walshTransform(dx.Addr, walsh.dx, 0, x.Len()/(8*walsh.in), walsh.in, acc)
	}
}

// weightGradient adds to the DW of layers that go together, whose dy are apart
// elements from each other: P = dYᵀX, or XᵀdY for a head mixer, folded.
func (d *Device) weightGradient(dy uintptr, apart int, x uintptr, ws []*tensor.Weight, m int) {
	s := state(ws[0])
	wide, narrow := s.n*s.out, s.n*s.in
	p := product{kind: tn, float: true, a: dy, b: x, m: wide, n: narrow, k: m, lda: wide, ldb: narrow, ldc: narrow, batch: len(ws), strideA: apart}
	rows, cols := s.out, s.in
	if ws[0].Transposed {
		p.a, p.b, p.m, p.n, p.lda, p.ldb, p.ldc, p.strideA, p.strideB = x, dy, narrow, wide, narrow, wide, wide, 0, apart
		rows, cols = s.in, s.out
	}
	p.strideC = p.m * p.n
	d.split(&p)
	p.c = d.need(scratchGradient, 4*p.splits*p.batch*p.strideC)
	d.gemm(p)
	d.fold(gradients(ws), len(ws), p.c, s.signs, s.n, rows, cols, p.splits, p.batch*p.strideC, ws[0].Transposed)
}
