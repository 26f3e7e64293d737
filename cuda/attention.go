//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"slices"

	"spinnet/tensor"
)

// attentionWidths are the head widths that kernels are compiled for; a
// narrower head uses the least that holds it.
var attentionWidths = [...]attentionKernels{
	{32, attentionForward32, attentionDQ32, attentionDKV32, 128, 128, 128, 30720, 30720, 41984},
	{64, attentionForward64, attentionDQ64, attentionDKV64, 128, 128, 128, 55296, 55296, 74752},
	{96, attentionForward96, attentionDQ96, attentionDKV96, 128, 128, 64, 79872, 79872, 80896},
	{128, attentionForward128, attentionDQ128, attentionDKV128, 128, 64, 64, 69632, 69632, 70144},
}

type attentionKernels struct {
	width                                 int
	forward, dq, dkv                      kernelID
	rows, queries, keys                   int // a block of the forward, of dq, of dkv
	sharedForward, sharedQuery, sharedKey int
}

// hopperWidths are the widths of heads that attention90.cu is compiled for.
var hopperWidths = [...]attentionKernels{
	{32, attention90Forward32, attention90DQ32, attention90DKV32, 64, 64, 64, 41 << 10, 49 << 10, 51 << 10},
	{64, attention90Forward64, attention90DQ64, attention90DKV64, 64, 64, 64, 41 << 10, 49 << 10, 51 << 10},
	{96, attention90Forward96, attention90DQ96, attention90DKV96, 64, 64, 64, 81 << 10, 97 << 10, 67 << 10},
	{128, attention90Forward128, attention90DQ128, attention90DKV128, 64, 64, 64, 81 << 10, 97 << 10, 67 << 10},
}

// attentionOf gives the kernels for a head.
func (d *Device) attentionOf(headDim int) *attentionKernels {
	if d.info.Major == 9 {
		for i, w := range hopperWidths {
			if headDim == w.width {
				return &hopperWidths[i]
			}
		}
	}
	if err := Trains(headDim); err != nil {
		if d.err == nil {
			d.err = err
		}
		headDim = maxHeadDim
	}
	return &attentionWidths[slices.IndexFunc(attentionWidths[:], func(w attentionKernels) bool { return headDim <= w.width })]
}

// dropMask draws the bits of dropout anew, in the forward and in the backward
// alike; it gives NULL and 1 without dropout.
func (d *Device) dropMask(a tensor.Attention) (mask uintptr, keep float32) {
	if a.Dropout <= 0 {
		return 0, 1
	}
	words := per(a.T, 32)
	mask = d.need(scratchMask, 4*a.Batch*a.Heads*a.T*words)
	threshold := uint32(min(float64(a.Dropout)*(1<<32), 1<<32-1))
	d.launch(attentionMask, grid{x: per(words, 8), y: words, z: a.Batch * a.Heads, threads: 256}, uint64(mask), uint64(d.numbers+numberStep), a.Seed,
		i32(a.Layer), uint64(threshold), i32(a.T))
	return mask, 1 / (1 - a.Dropout)
}

// RotaryAttention rotates q and k, then attends. The products that make q and k
// rotate them if they can; else rope does k, the attention q.
func (d *Device) RotaryAttention(o, lse, q, k, v *tensor.Tensor, rot *tensor.Rotation, a tensor.Attention) {
	cos, sin := rot.Cos.Addr, rot.Sin.Addr
	if l := d.pending.linear; l != nil && l.ys[0] == q && l.ys[1] == k && d.rotates(*l, a.HeadDim) {
		d.join()
		d.pending = pending{}
		d.linear(*l, rotary{cos, sin, a.T, 2})
		cos, sin = 0, 0
	}
	d.flush()
	w := d.attentionOf(a.HeadDim)
	qRow, kRow := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	rows, piece := a.Batch*a.T, 2
	if a.HeadDim%8 == 0 {
		piece = 8
	}
	if cos != 0 {
		d.launch(rope, grid{x: per(rows*a.KVHeads*(a.HeadDim/piece), 256), threads: 256}, uint64(q.Addr), uint64(k.Addr),
			uint64(cos), uint64(sin), i32(rows), i32(a.T), 0, i32(a.KVHeads), i32(a.HeadDim),
			i32(qRow), i32(a.HeadDim), i32(kRow), i32(a.HeadDim))
	}
	mask, keep := d.dropMask(a)
	d.launch(w.forward, grid{x: per(a.T, w.rows), y: a.Heads, z: a.Batch, threads: 128, shared: w.sharedForward},
		uint64(o.Addr), uint64(lse.Addr), uint64(q.Addr), uint64(k.Addr), uint64(v.Addr), uint64(cos), uint64(sin),
		uint64(mask), f32(keep), i32(a.T), i32(a.Heads), i32(a.KVHeads), i32(a.HeadDim), i32(qRow), i32(a.HeadDim), i32(kRow), i32(a.HeadDim))
}

// RotaryAttentionBackward is its gradient.
func (d *Device) RotaryAttentionBackward(dq, dk, dv, do, o, lse, q, k, v *tensor.Tensor, rot *tensor.Rotation, a tensor.Attention) {
	d.proceed()
	w := d.attentionOf(a.HeadDim)
	qRow, kRow := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	delta := d.need(scratchDelta, 4*a.Batch*a.Heads*a.T)
	mask, keep := d.dropMask(a)
	d.launch(w.dq, grid{x: per(a.T, w.queries), y: a.Heads, z: a.Batch, threads: 128, shared: w.sharedQuery},
		uint64(dq.Addr), uint64(delta), uint64(do.Addr), uint64(o.Addr), uint64(lse.Addr), uint64(q.Addr), uint64(k.Addr), uint64(v.Addr),
		uint64(rot.Cos.Addr), uint64(rot.Sin.Addr), uint64(mask), f32(keep), i32(a.T), i32(a.Heads), i32(a.KVHeads), i32(a.HeadDim),
		i32(qRow), i32(a.HeadDim), i32(kRow), i32(a.HeadDim))
	d.launch(w.dkv, grid{x: per(a.T, w.keys), y: a.KVHeads, z: a.Batch, threads: 128, shared: w.sharedKey},
		uint64(dk.Addr), uint64(dv.Addr), uint64(do.Addr), uint64(delta), uint64(lse.Addr), uint64(q.Addr), uint64(k.Addr), uint64(v.Addr),
		uint64(rot.Cos.Addr), uint64(rot.Sin.Addr), uint64(mask), f32(keep), i32(a.T), i32(a.Heads), i32(a.KVHeads), i32(a.HeadDim),
		i32(qRow), i32(a.HeadDim), i32(kRow), i32(a.HeadDim))
}

// table is a bf16 copy of an output embedding, its rows filled up with zero
// rows to a multiple of 8.
type table struct {
	of         *tensor.Tensor
	copied     uintptr
	rows, cols int // rows of the copy
}

// tableOf gives the copy of an embedding, kept up to date from then on.
func (d *Device) tableOf(e *tensor.Tensor) *table {
	for _, t := range d.tables {
		if t.of.Addr == e.Addr {
			return t
		}
	}
	t := &table{of: e, rows: per(e.Shape[0], 8) * 8, cols: e.Shape[1]}
	t.copied = d.malloc(2 * t.rows * t.cols)
	d.tables = append(d.tables, t)
	d.copyTable(t)
	return t
}

func (d *Device) copyTable(t *table) {
	n := t.of.Len()
	d.launch(toBF16F32, grid{x: per(n, 1024), threads: 256}, uint64(t.copied), uint64(t.of.Addr), uint64(n))
}

// tableChanged copies an embedding anew if there is a copy of it.
func (d *Device) tableChanged(e *tensor.Tensor) {
	for _, t := range d.tables {
		if t.of.Addr == e.Addr {
			d.copyTable(t)
		}
	}
}

// logitsMost bounds a chunk's logits in bytes; narrow is the vocabulary up to
// which they are float32 and a warp does a row; lossShared is the shared memory for
// a row of others: what a block can have on 8.6 and 8.9 less what cross_entropy in
// loss.cu has besides, and half of Hopper's.
const (
	logitsMost = 512 << 20
	narrow     = 1024
	lossShared = 99<<10 - 256
)

// CrossEntropy writes the loss of each row.
func (d *Device) CrossEntropy(losses, h, e *tensor.Tensor, targets *tensor.Ints) {
	d.crossEntropy(losses, nil, nil, h, e, targets, 0)
}

// CrossEntropyBackward also gives the gradients.
func (d *Device) CrossEntropyBackward(losses, dh, de, h, e *tensor.Tensor, targets *tensor.Ints, scale float32) {
	d.crossEntropy(losses, dh, de, h, e, targets, scale)
}

// crossEntropy goes through the rows in chunks: the logits of all are never in
// memory at once.
func (d *Device) crossEntropy(losses, dh, de, h, e *tensor.Tensor, targets *tensor.Ints, scale float32) {
	d.flush()
	t := d.tableOf(e)
	vocab, width, ld := e.Shape[0], e.Shape[1], t.rows
	rows := losses.Len()
	size := 2
	if vocab <= narrow {
		size = 4
	}
	chunks := per(rows*ld*size, logitsMost)
	chunk := per(per(rows, chunks), 128) * 128
	logits := d.need(scratchLogits, chunk*ld*size)
	dlogits := logits
	switch {
	case dh == nil:
		dlogits = 0
	case size == 4:
		dlogits = d.need(scratchDLogits, chunk*ld*2)
	}
	for i := 0; i < rows; i += chunk {
		n := min(chunk, rows-i)
		x := h.Addr + uintptr(2*i*width)
		loss, target := uint64(losses.Addr)+uint64(4*i), uint64(targets.Addr)+uint64(4*i)
		d.gemm(product{kind: nt, float: size == 4, a: x, b: t.copied, c: logits, m: n, n: ld, k: width, lda: width, ldb: width, ldc: ld})
		if size == 4 {
			d.launch(crossEntropyNarrowF32, grid{x: per(n, 4), threads: 128}, loss, uint64(dlogits), uint64(logits), target,
				i32(n), i32(vocab), i32(ld), f32(scale))
		} else {
			cached := min(ld, lossShared/2/8*8)
			d.launch(crossEntropyBF16, grid{x: n, threads: 512, shared: 2 * cached}, loss, uint64(dlogits), uint64(logits), target,
				i32(vocab), i32(ld), f32(scale), i32(cached))
		}
		if dh == nil {
			continue
		}
		d.gemm(product{kind: nn, a: dlogits, b: t.copied, c: dh.Addr + uintptr(2*i*width), m: n, n: width, k: ld, lda: ld, ldb: width, ldc: width})
		p := product{kind: tn, float: true, a: dlogits, b: x, c: de.Addr, m: vocab, n: width, k: n, lda: ld, ldb: width, ldc: width, add: true}
		if d.split(&p); p.splits > 1 {
			p.c, p.add, p.strideC = d.need(scratchParts, 4*p.splits*vocab*width), false, vocab*width
			d.gemm(p)
			d.fold([foldedMost]uint64{uint64(de.Addr)}, 1, p.c, d.rank1, 1, vocab, width, p.splits, p.strideC, false)
		} else {
			d.gemm(p)
		}
	}
}
