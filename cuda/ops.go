//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"math"

	"spinnet/tensor"
)

// pending is what waits for the operation after it, which may go into one
// launch with it: a residual sum for a norm of it, a norm (with its sum) or a
// SwiGLU for the rounding of it to int8, layers of one input for the rotation of
// the first two results or the SwiGLU of both.
type pending struct {
	sum    sum
	norm   norm
	gated  gated
	linear *linear
}

type sum struct{ y, a, b *tensor.Tensor }
type norm struct {
	y, x, w *tensor.Tensor
	sum     sum // that x is, or none
}
type gated struct{ y, gate, up *tensor.Tensor }
type linear struct {
	ys []*tensor.Tensor
	x  *tensor.Tensor
	ws []*tensor.Weight
}

// flush does what waits, and waits for what went aside. All operations but
// those that may take the first, or run beside the second, begin with it.
func (d *Device) flush() {
	d.join()
	d.work()
}

// proceed is flush for operations that may run beside what the one before them
// sent aside.
func (d *Device) proceed() {
	d.follow()
	d.work()
}

// work does what waits.
func (d *Device) work() {
	p := d.pending
	if p == (pending{}) {
		return
	}
	d.pending = pending{}
	switch {
	case p.linear != nil && p.gated.y != nil:
		d.gatedLinear(*p.linear, p.gated.y)
	case p.linear != nil:
		d.linear(*p.linear, rotary{})
	case p.norm.y != nil:
		d.norm(p.norm, p.norm.y, false)
	case p.gated.y != nil:
		n := p.gated.y.Len()
		d.launch(swiGLU, grid{x: per(n, 1024), threads: 128}, uint64(p.gated.y.Addr), uint64(p.gated.gate.Addr), uint64(p.gated.up.Addr), uint64(n))
	default:
		d.add(p.sum.y, p.sum.a, p.sum.b)
	}
}

// shadow is the bf16 copy of a float32 gradient that RMSNormBackward left.
type shadow struct {
	of     uintptr
	n      int
	copied uintptr
	turn   int // of the two slots, the other one's copy may still be read
}

// half gives a tensor in bf16: itself or a copy.
func (d *Device) half(t *tensor.Tensor) uintptr {
	if t.Type == tensor.BFloat16 {
		return t.Addr
	}
	n := t.Len()
	if d.shadow.of != t.Addr || d.shadow.n != n {
		to := d.newShadow(t.Addr, n)
		d.launch(toBF16F32, grid{x: per(n, 1024), threads: 256}, uint64(to), uint64(t.Addr), uint64(n))
	}
	return d.shadow.copied
}

// forgetShadow drops a copy whose tensor changes.
func (d *Device) forgetShadow() { d.shadow.of, d.shadow.n = 0, 0 }

// newShadow gives room for a copy of n values.
func (d *Device) newShadow(of uintptr, n int) uintptr {
	turn := d.shadow.turn ^ 1
	d.shadow = shadow{of, n, d.need(scratchShadow+turn, 2*n), turn}
	return d.shadow.copied
}

// Embedding gathers rows of the table.
func (d *Device) Embedding(y, table *tensor.Tensor, ids *tensor.Ints) {
	d.flush()
	d.launch(embedding, grid{x: ids.N, threads: 128}, uint64(y.Addr), uint64(table.Addr), uint64(ids.Addr), i32(table.Shape[1]))
}

// EmbeddingBackward adds rows of dy to the rows of dtable that were read, in
// an order that the ids alone decide.
func (d *Device) EmbeddingBackward(dtable, dy *tensor.Tensor, ids *tensor.Ints) {
	d.flush()
	n, width := ids.N, dtable.Shape[1]
	o := d.orderOf(ids, dtable.Shape[0])
	sorted := o.addr + uintptr(4*n)
	segments := per(n, 32)
	part := d.need(scratchParts, 8*segments*width)
	d.launch(embeddingSegments, grid{x: segments, y: per(width, 512), threads: 128},
		uint64(dtable.Addr), uint64(part), uint64(dy.Addr), uint64(o.addr), uint64(sorted), i32(n), i32(width))
	d.launch(embeddingJoin, grid{x: segments, y: per(width, 512), threads: 512},
		uint64(dtable.Addr), uint64(part), uint64(sorted), i32(n), i32(width))
}

// RMSNorm normalises rows, after the residual sum that waits for it. It waits
// itself for the operation after it.
func (d *Device) RMSNorm(y, x, w *tensor.Tensor) {
	n := norm{y: y, x: x, w: w}
	if s := d.pending.sum; s.y == x && s.a.Type == tensor.Float32 && s.b.Type == tensor.BFloat16 {
		d.pending.sum, n.sum = sum{}, s
	}
	d.flush()
	d.pending.norm = n
}

// norm writes a norm, rounded to int8 levels if so said, to y.
func (d *Device) norm(n norm, y *tensor.Tensor, quantised bool) {
	width := n.w.Len()
	rows := n.x.Len() / width
	from, term, to := n.x, uint64(0), uint64(0)
	if n.sum.y != nil {
		from, term, to = n.sum.a, uint64(n.sum.b.Addr), uint64(n.x.Addr)
	}
	k := rmsNormAny
	switch {
	case width%4 != 0:
	case width <= 512:
		k = rmsNorm512
	case width <= 1024:
		k = rmsNorm1024
	case width <= 2048:
		k = rmsNorm2048
	}
	d.launch(k, grid{x: per(rows, 8), threads: 256}, uint64(y.Addr), to, uint64(from.Addr), term, uint64(n.w.Addr),
		i32(rows), i32(width), f32(tensor.NormEps), flag(quantised))
}

// RMSNormBackward gives dx, in bf16 as well, and adds to dw.
func (d *Device) RMSNormBackward(dx *tensor.Tensor, acc bool, dw, dy, x, w *tensor.Tensor) {
	d.proceed()
	width := w.Len()
	rows := x.Len() / width
	copied := d.newShadow(dx.Addr, rows*width)
	k, shared, threads, blocks := rmsNormBackwardAny, 0, 256, min(rows, 2*d.multi)
	switch {
	case width%4 != 0 || width > 4096:
	case width <= 512:
		k, shared, threads, blocks = rmsNormBackward512, 4*width, 192, min(per(rows, 6), 4*d.multi)
	case width <= 1024:
		k, blocks = rmsNormBackward1024, min(rows, 6*d.multi)
	case width <= 2048:
		k, blocks = rmsNormBackward2048, min(rows, 4*d.multi)
	default:
		k, blocks = rmsNormBackward4096, min(rows, 2*d.multi)
	}
	part := d.need(scratchNorm, 4*blocks*width)
	d.launch(k, grid{x: blocks, threads: threads, shared: shared}, uint64(dx.Addr), uint64(copied), uint64(part), uint64(dy.Addr), uint64(x.Addr), uint64(w.Addr),
		i32(rows), i32(width), f32(tensor.NormEps), flag(acc))
	d.launch(rmsNormDW, grid{x: per(width, 32), threads: 1024}, uint64(dw.Addr), uint64(part), i32(blocks), i32(width))
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// SwiGLU is silu(gate)∘up. It waits for the operation after it, with the layers of
// gate and up if one launch can do all.
func (d *Device) SwiGLU(y, gate, up *tensor.Tensor) {
	if l := d.pending.linear; l == nil || !d.gates(*l, y, gate, up) {
		d.flush()
	}
	d.pending.gated = gated{y, gate, up}
}

// SwiGLUBackward overwrites dgate and dup.
func (d *Device) SwiGLUBackward(dgate, dup, dy, gate, up *tensor.Tensor) {
	d.proceed()
	n := dy.Len()
	d.launch(swiGLUBackward, grid{x: per(n, 1024), threads: 128},
		uint64(dgate.Addr), uint64(dup.Addr), uint64(dy.Addr), uint64(gate.Addr), uint64(up.Addr), uint64(n))
}

// Add is y = a + b. It waits for the operation after it.
func (d *Device) Add(y, a, b *tensor.Tensor) {
	d.flush()
	if d.shadow.of == y.Addr {
		d.forgetShadow()
	}
	d.pending.sum = sum{y, a, b}
}

func (d *Device) add(y, a, b *tensor.Tensor) {
	k := addF32BF16
	switch {
	case y.Type == tensor.BFloat16:
		k = addBF16
	case b.Type == tensor.Float32:
		k = addF32
	}
	n := y.Len()
	d.launch(k, grid{x: per(n, 1024), threads: 256}, uint64(y.Addr), uint64(a.Addr), uint64(b.Addr), uint64(n))
}

// FakeQuant8 rounds rows to int8 levels. What x is the result of may be waiting:
// then x is not written, and its only reader must be this.
func (d *Device) FakeQuant8(y, x *tensor.Tensor) {
	width := x.Shape[len(x.Shape)-1]
	rows := x.Len() / width
	if l := d.pending.linear; l != nil {
		g := d.pending.gated
		d.pending.gated = gated{}
		d.work()
		d.pending.gated = g
	}
	switch p := d.pending; {
	case p.norm.y == x && p.norm.w.Len() == width:
		d.pending = pending{}
		d.norm(p.norm, y, true)
	case p.gated.y == x:
		d.pending = pending{}
		k := swiGLUQuantAny
		switch {
		case width%8 != 0:
		case width <= 2048:
			k = swiGLUQuant2048
		case width <= 4096:
			k = swiGLUQuant4096
		}
		d.launch(k, grid{x: rows, threads: 128}, uint64(y.Addr), uint64(p.gated.gate.Addr), uint64(p.gated.up.Addr), i32(width))
	default:
		d.flush()
		d.launch(fakeQuant8, grid{x: per(rows, 8), threads: 256}, uint64(y.Addr), uint64(x.Addr), i32(rows), i32(width))
	}
}

// AddSum adds the sum of x's elements.
func (d *Device) AddSum(s *tensor.Scalar, x *tensor.Tensor) {
	d.flush()
	d.launch(addSum, grid{x: 1, threads: 1024}, uint64(s.Addr), uint64(x.Addr), i32(x.Len()))
}

// SetUpdate brings the numbers of the next update to the device.
func (d *Device) SetUpdate(o *tensor.AdamW) {
	d.flush()
	c1 := 1 - math.Pow(float64(o.Beta1), float64(o.Step))
	c2 := 1 - math.Pow(float64(o.Beta2), float64(o.Step))
	numbers := [8]float32{1, o.Beta1, float32(1 - float64(o.Beta1)), o.Beta2, float32(1 - float64(o.Beta2)),
		float32(1 / c1), float32(1 / math.Sqrt(c2)), o.Eps}
	d.stage(d.numbers+numberAdamW, bytesOf(numbers[:]))
	d.stage(d.groups(o), bytesOf(o.Groups))
}

// groups is where the learning rates and decays of all parameters are.
func (d *Device) groups(o *tensor.AdamW) uintptr {
	return d.need(scratchGroups, 8*len(o.Groups))
}

// Update clips the gradients and updates every parameter once.
func (d *Device) Update(o *tensor.AdamW) {
	d.flush()
	w, g, m, v := d.list(o.W), d.list(o.G), d.list(o.M), d.list(o.V)
	sums := d.need(scratchSums, 8*g.chunks)
	clipped := d.numbers + numberClip
	d.launch(sumSquares, grid{x: g.chunks, threads: 256}, uint64(sums), uint64(g.addrs), uint64(g.sizes), uint64(g.chunk))
	d.launch(clipNorm, grid{x: 1, threads: 1024}, uint64(clipped), uint64(sums), i32(g.chunks), f32(float32(o.Clip)))
	d.launch(guard, grid{x: 1, threads: 1}, uint64(clipped), uint64(o.Squares.Addr), uint64(o.Loss.Addr))
	d.launch(adamW, grid{x: g.chunks, threads: 256}, uint64(w.addrs), uint64(g.addrs), uint64(m.addrs), uint64(v.addrs), uint64(g.sizes),
		uint64(d.groups(o)), uint64(g.chunk), uint64(d.numbers+numberAdamW), uint64(clipped))
}
