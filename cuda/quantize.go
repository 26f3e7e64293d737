//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import "spinnet/tensor"

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
