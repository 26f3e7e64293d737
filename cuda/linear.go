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
