//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import "spinnet/tensor"

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
