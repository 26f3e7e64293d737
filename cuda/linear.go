//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"unsafe"

	"spinnet/tensor"
)

// kind says which operands of a product lie transposed (linear.cu).
type kind int

const (
	nt kind = iota // C[M,N] = A[M,K]·B[N,K]ᵀ
	nn             // C[M,N] = A[M,K]·B[K,N]
	tn             // C[M,N] = A[K,M]ᵀ·B[K,N]
)

// product is a call of the matrix product: A and B in bf16, C in bf16 or
// float32; strides in elements.
type product struct {
	kind                      kind
	float                     bool // C is float32
	a, b, c, scale            uintptr
	m, n, k                   int
	lda, ldb, ldc             int
	batch, splits             int // 0: 1
	strideA, strideB, strideC int
	add                       bool
}

// gemm launches a product.
func (d *Device) gemm(p product) {
	if p.m == 0 || p.n == 0 {
		return
	}
	p.batch, p.splits = max(1, p.batch), max(1, p.splits)
	if d.info.Major == 9 && (p.lda|p.ldb|p.strideA|p.strideB)%8 == 0 && (p.a|p.b)%16 == 0 {
		d.gemm90(p)
		return
	}
	k := [...][2]kernelID{nt: {gemmNTBF16, gemmNTF32}, nn: {gemmNNBF16, gemmNNF32}, tn: {-1, gemmTNF32}}[p.kind][flag(p.float)]
	d.launch(k, grid{x: per(p.m, 128) * per(p.n, 128), y: p.splits, z: p.batch, threads: 256, shared: 98304},
		uint64(p.a), uint64(p.b), uint64(p.c), uint64(p.scale), i32(p.m), i32(p.n), i32(p.k), i32(p.lda), i32(p.ldb), i32(p.ldc),
		i32(p.strideA), i32(p.strideB), i32(p.strideC), flag(p.add))
}

// gemm90 launches Hopper's product with the width of tile that takes fewer
// rounds of the multiprocessors, weighted by width.
func (d *Device) gemm90(p product) {
	blocks := func(width int) int { return per(p.m, 128) * per(p.n, width) * p.batch * p.splits }
	wide := per(blocks(256), d.multi)*256 <= per(blocks(128), d.multi)*128
	k := [...][2][2]kernelID{
		nt: {{gemm90NTBF16Narrow, gemm90NTBF16Wide}, {gemm90NTF32Narrow, gemm90NTF32Wide}},
		nn: {{gemm90NNBF16Narrow, gemm90NNBF16Wide}, {gemm90NNF32Narrow, gemm90NNF32Wide}},
		tn: {{-1, -1}, {gemm90TNF32Narrow, gemm90TNF32Wide}},
	}[p.kind][flag(p.float)][flag(wide)]
	width := 128
	if wide {
		width = 256
	}
	rowsA, colsA, rowsB, colsB := p.m, p.k, p.n, p.k // as they lie in memory
	if p.kind == tn {
		rowsA, colsA = p.k, p.m
	}
	if p.kind != nt {
		rowsB, colsB = p.k, p.n
	}
	a := d.mapOf(mapKey{p.a, rowsA, colsA, p.lda, p.batch, p.strideA})
	b := d.mapOf(mapKey{p.b, rowsB, colsB, p.ldb, p.batch, p.strideB})
	d.launchMaps(k, grid{x: min(d.multi, blocks(width)), threads: 384, shared: 197632}, a, b,
		uint64(p.c), uint64(p.scale), i32(p.m), i32(p.n), i32(p.k), i32(p.ldc), i32(p.batch), i32(p.splits), i32(p.strideC), flag(p.add))
}

// splits is into how many parts to cut a contraction over k, so that a result
// of m × n keeps all multiprocessors busy.
func (d *Device) splits(m, n, k int) int {
	tiles := per(m, 128) * per(n, 256)
	return max(1, min(d.multi/tiles, per(k, 512)))
}

// mapKey is what a tensor map says: a batch of bf16 matrices.
type mapKey struct {
	addr                          uintptr
	rows, cols, ld, batch, stride int
}

// tensorMap is a CUtensorMap with room to be at a multiple of 64.
type tensorMap [24]uint64

func (t *tensorMap) address() unsafe.Pointer {
	skip := -uintptr(unsafe.Pointer(t)) & 63
	return unsafe.Add(unsafe.Pointer(t), skip)
}

// mapArguments are the arrays that cuTensorMapEncodeTiled reads.
type mapArguments struct {
	dims, strides [3]uint64
	box, steps    [3]uint32
}

// mapOf makes a tensor map as gemm90.cuh wants it, once for each key.
func (d *Device) mapOf(k mapKey) *tensorMap {
	if t := d.maps[k]; t != nil || d.err != nil {
		return t
	}
	stride := k.stride
	if k.batch == 1 || stride == 0 {
		stride = k.ld // any will do
	}
	batch := k.batch
	if k.stride == 0 {
		batch = 1
	}
	t := new(tensorMap)
	a := &mapArguments{
		dims:    [3]uint64{uint64(k.cols), uint64(batch), uint64(k.rows)},
		strides: [3]uint64{uint64(2 * stride), uint64(2 * k.ld)},
		box:     [3]uint32{64, 1, 64},
		steps:   [3]uint32{1, 1, 1},
	}
	const bfloat16, swizzle128, promote256 = 9, 3, 3
	d.do(cuTensorMapEncodeTiled, uintptr(t.address()), bfloat16, 3, k.addr,
		uintptr(unsafe.Pointer(&a.dims)), uintptr(unsafe.Pointer(&a.strides)), uintptr(unsafe.Pointer(&a.box)), uintptr(unsafe.Pointer(&a.steps)),
		0, swizzle128, promote256, 0)
	d.maps[k] = t
	return t
}

// fold adds up the parts of P with their signs into the folded gradient.
func (d *Device) fold(g, p, signs uintptr, n, rows, cols, splits int, transposed bool) {
	vector := 1
	if cols%4 == 0 {
		vector = 4
	}
	d.launch(fold, grid{x: per(rows*cols, 32*vector), y: n, threads: 256}, uint64(g), uint64(p), uint64(signs),
		i32(n), i32(rows), i32(cols), i32(splits), flag(transposed))
}

// weight is what the device derives from a tensor.Weight.
type weight struct {
	n, out, in int
	walsh      bool    // by transforms and block products (walsh.cu), not dense
	signs      uintptr // [n] bits
	d, dg      uintptr // bf16: the product's matrix, and times the scale for the backward
	scale      uintptr // [n·out]
	gamma      uintptr
}

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

// walshFrom is the width from which transforms and block products beat the
// dense product.
const walshFrom = 2048

// weight gives a weight's state, made at first use.
func (d *Device) weight(w *tensor.Weight, backward bool) *weight {
	s, ok := w.State.(*weight)
	if !ok {
		n := w.Algebra.N
		s = &weight{n: n, out: w.Out, in: w.In}
		s.walsh = w.Algebra.Name == "walsh" && !w.Transposed && n*min(w.In, w.Out) >= walshFrom
		s.signs = d.signsOf(w)
		s.d = d.malloc(2 * s.matrix())
		s.scale, s.gamma = d.malloc(4*n*w.Out), d.malloc(4)
		if d.results.counts == nil {
			d.results.counts = map[*tensor.Scalar]bool{}
		}
		d.results.counts[w.Zeros] = true
		w.State = s
	}
	if backward && s.dg == 0 {
		s.dg = d.malloc(2 * s.matrix())
	}
	return s
}

// matrix is the number of elements of d.
func (s *weight) matrix() int {
	if s.walsh {
		return s.n * s.out * s.in
	}
	return s.n * s.out * s.n * s.in
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
	t := &layerTable{first: &ws[0], n: len(ws), backward: backward, partial: d.malloc(8 * 64 * len(ws))}
	all := make([]layer, len(ws))
	addr := func(x *tensor.Tensor) uint64 {
		if x == nil {
			return 0
		}
		return uint64(x.Addr)
	}
	for i, w := range ws {
		s := d.weight(w, backward)
		all[i] = layer{w: addr(w.W), beta: addr(w.Beta), dw: addr(w.DW), dbeta: addr(w.DBeta), d: uint64(s.d), dg: uint64(s.dg),
			scale: uint64(s.scale), gamma: uint64(s.gamma), zeros: uint64(w.Zeros.Addr), signs: uint64(s.signs),
			n: int32(s.n), walsh: int32(flag(s.walsh)), out: int32(w.Out), in: int32(w.In),
			quantizer: map[string]int32{"classic": 1, "absmean": 2}[w.Quantizer], transposed: int32(flag(w.Transposed))}
		t.pieces, t.rows = max(t.pieces, s.n*w.Out*per(w.In, 8)), max(t.rows, w.Out)
	}
	t.addr = d.constant(bytesOf(all))
	d.layers = t
	return t
}

// Refresh quantises and expands all weights in two launches, and copies the
// output embedding.
func (d *Device) Refresh(ws []*tensor.Weight, backward bool) {
	d.flush()
	if len(ws) > 0 {
		t := d.table(ws, backward)
		d.launch(refreshSums, grid{x: 64, y: t.n, threads: 256}, uint64(t.addr), uint64(t.partial))
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

// Linear is the forward of a hypercomplex layer: Y = (X·Dᵀ)∘scale, or between
// two Walsh transforms Y = (H (HX)·Ŵᵀ)∘scale.
func (d *Device) Linear(y, x *tensor.Tensor, w *tensor.Weight) {
	d.flush()
	s := d.weight(w, false)
	m := x.Len() / (s.n * s.in)
	wide, narrow := s.n*s.out, s.n*s.in
	if !s.walsh {
		d.gemm(product{kind: nt, a: x.Addr, b: s.d, c: y.Addr, scale: s.scale, m: m, n: wide, k: narrow, lda: narrow, ldb: narrow, ldc: wide})
		return
	}
	xt := d.transform(scratchWalshX, x.Addr, m, s.in)
	yt := d.need(scratchWalshY, 2*m*wide)
	d.gemm(product{kind: nt, a: xt, b: s.d, c: yt, m: m, n: s.out, k: s.in, lda: narrow, ldb: s.in, ldc: wide,
		batch: 8, strideA: s.in, strideB: s.out * s.in, strideC: s.out})
	d.walshTransform(y.Addr, yt, s.scale, m, s.out, false)
}

// LinearBackward gives dx and adds the folded outer products to w.DW.
func (d *Device) LinearBackward(dx *tensor.Tensor, acc bool, dy, x *tensor.Tensor, w *tensor.Weight) {
	d.flush()
	s := d.weight(w, true)
	m := x.Len() / (s.n * s.in)
	wide, narrow := s.n*s.out, s.n*s.in
	dyAddr := d.half(dy)
	if s.walsh {
		d.walshBackward(dx.Addr, acc, dyAddr, x.Addr, w, s, m)
		return
	}
	// The weight's gradient: P = dYᵀX, or XᵀdY for a head mixer.
	p := product{kind: tn, float: true, a: dyAddr, b: x.Addr, m: wide, n: narrow, k: m, lda: wide, ldb: narrow, ldc: narrow}
	rows, cols := s.out, s.in
	if w.Transposed {
		p.a, p.b, p.m, p.n, p.lda, p.ldb, p.ldc = x.Addr, dyAddr, narrow, wide, narrow, wide, wide
		rows, cols = s.in, s.out
	}
	p.splits = d.splits(p.m, p.n, m)
	p.strideC = p.m * p.n
	p.c = d.need(scratchParts, 4*p.splits*p.strideC)
	d.gemm(p)
	d.fold(w.DW.Addr, p.c, s.signs, s.n, rows, cols, p.splits, w.Transposed)
	d.gemm(product{kind: nn, a: dyAddr, b: s.dg, c: dx.Addr, m: m, n: narrow, k: wide, lda: wide, ldb: narrow, ldc: narrow, add: acc})
}

// transform is H x of rows of 8 parts into scratch memory.
func (d *Device) transform(slot int, x uintptr, rows, part int) uintptr {
	to := d.need(slot, 16*rows*part)
	d.walshTransform(to, x, 0, rows, part, false)
	return to
}

func (d *Device) walshTransform(y, x, scale uintptr, rows, part int, add bool) {
	d.launch(walshBF16, grid{x: min(per(rows*per(part, 8), 256), 16*d.multi), threads: 256}, uint64(y), uint64(x), uint64(scale),
		i32(rows), i32(part), flag(add))
}

// walshBackward is LinearBackward by transforms: Ĝ = H dY, dŴ_k = Ĝ_kᵀ X̂_k
// folded, dX = H (Ĝ_k Ŵg_k).
func (d *Device) walshBackward(dx uintptr, acc bool, dy, x uintptr, w *tensor.Weight, s *weight, m int) {
	wide, narrow := 8*s.out, 8*s.in
	g := d.transform(scratchWalshDY, dy, m, s.out)
	xt := d.transform(scratchWalshX, x, m, s.in)
	p := product{kind: tn, float: true, a: g, b: xt, m: s.out, n: s.in, k: m, lda: wide, ldb: narrow, ldc: s.in,
		batch: 8, strideA: s.out, strideB: s.in, strideC: s.out * s.in}
	tiles := 8 * per(s.out, 128) * per(s.in, 256)
	p.splits = max(1, min(d.multi/tiles, per(m, 512)))
	p.c = d.need(scratchParts, 32*p.splits*p.strideC)
	d.gemm(p)
	vector := 1
	if p.strideC%4 == 0 {
		vector = 4
	}
	d.launch(foldWalsh, grid{x: per(p.strideC, 32*vector), threads: 256}, uint64(w.DW.Addr), uint64(p.c), i32(p.strideC), i32(p.splits))
	xg := d.need(scratchWalshY, 2*m*narrow)
	d.gemm(product{kind: nn, a: g, b: s.dg, c: xg, m: m, n: s.in, k: s.out, lda: wide, ldb: s.in, ldc: narrow,
		batch: 8, strideA: s.out, strideB: s.out * s.in, strideC: s.in})
	d.walshTransform(dx, xg, 0, m, s.in, acc)
}
