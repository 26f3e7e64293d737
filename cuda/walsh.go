//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import "spinnet/tensor"

// walshLinear is the forward of layers of one shape that read x, whose results
// lie at equal distances, and says how many it did.
func (d *Device) walshLinear(to []uintptr, x uintptr, ws []*tensor.Weight, m int) int {
	s := state(ws[0])
	many := d.together(ws, func(s *weight) uintptr { return s.d })
	strideY, strideS := 0, 0
	if many > 1 {
		strideY, strideS = int(to[1]-to[0])/2, int(state(ws[1]).scale-s.scale)/4
	}
	d.launchWalsh90(walsh90NT, d.partsOf(x, m, s.in), d.mapOf(mapKey{s.d, s.out, s.in, s.in, 8 * many, s.out * s.in, 64}),
		to[0], s.scale, m, s.out, s.in, 0, many, 1, strideY, strideS, false)
	return many
}

// launchWalsh90 launches walsh90_nt or walsh90_nn.
func (d *Device) launchWalsh90(k kernelID, a, b *tensorMap, y, scale uintptr, m, n, contraction, rowsA, batch, chain, strideY, strideS int, add bool) {
	d.bound(n, contraction, m+(chain-1)*rowsA, strideY, strideS)
	rows, columns := per(m, 64), per(n, 64)*batch
	shares := max(1, min(columns, d.multi/rows))
	if contraction <= 64 && chain == 1 {
		columns = per(columns, per(columns, shares))
	}
	d.launchMaps(k, grid{x: min(d.multi, columns*rows), threads: 288, shared: 230400}, [4]*tensorMap{a, b}, uint64(y), uint64(scale), i32(m), i32(n), i32(contraction),
		i32(rowsA), i32(batch), i32(chain), i32(strideY), i32(strideS), i32(shares), flag(add))
}

// partsOf is the map of the 8 parts of rows.
func (d *Device) partsOf(x uintptr, rows, part int) *tensorMap {
	return d.mapOf(mapKey{x, rows, part, 8 * part, 8, part, 64})
}

// together is how many of the layers have their matrices one right after the
// other.
func (d *Device) together(ws []*tensor.Weight, matrix func(*weight) uintptr) int {
	s := state(ws[0])
	n := 1
	for n < len(ws) && matrix(state(ws[n]))-matrix(state(ws[n-1])) == uintptr(16*s.out*s.in) {
		n++
	}
	return n
}

// walshLinearBackward is the backward of such layers, whose dy lie at equal
// distances, and says how many it did. The gradients of narrow weights are
// quicker as dense products.
func (d *Device) walshLinearBackward(sum *walshSum, dx uintptr, acc bool, from []uintptr, x uintptr, ws []*tensor.Weight, m int) int {
	s := state(ws[0])
	many, rows := d.together(ws, func(s *weight) uintptr { return s.dg }), 0
	if many > 1 { // the dy of one layer after the other as rows of one matrix
		apart := int(from[1] - from[0])
		if rows = apart / (16 * s.out); apart%(16*s.out) != 0 {
			many = 1
		}
	}
	d.fork()
	d.launchWalsh90(walsh90NN, d.partsOf(from[0], m+(many-1)*rows, s.out), d.mapOf(mapKey{s.dg, s.out, s.in, s.in, 8 * many, s.out * s.in, 64}),
		dx, 0, m, s.in, s.out, rows, 1, many, 0, 0, acc)
	if 8*min(s.in, s.out) < walshFrom {
		dy, group := from[0], ws[:many]
		d.aside(func() { d.weightGradient(dy, 8*s.out*rows, x, group, m) })
		return many
	}
	for i, w := range ws[:many] {
		d.walshGradient(sum, from[i], x, w, m)
	}
	return many
}

// walshForward is the forward of a wide layer.
func (d *Device) walshForward(y, x uintptr, s *weight, m int) {
	wide, narrow := 8*s.out, 8*s.in
	yt := d.need(scratchWalshY, 2*m*wide)
	d.gemm(product{kind: nt, a: d.transform(scratchWalshX, x, m, s.in), b: s.d, c: yt, m: m, n: s.out, k: s.in, lda: narrow, ldb: s.in, ldc: wide,
		batch: 8, strideA: s.in, strideB: s.out * s.in, strideC: s.out})
	d.walshTransform(y, yt, s.scale, m, s.out, false)
}

// transform is H x of rows of 8 parts into scratch memory.
func (d *Device) transform(slot int, x uintptr, rows, part int) uintptr {
	to := d.need(slot, 16*rows*part)
	d.walshTransform(to, x, 0, rows, part, false)
	return to
}

// walshTransform is y = scale ∘ H x (+ y).
func (d *Device) walshTransform(y, x, scale uintptr, rows, part int, add bool) {
	d.launch(walshBF16, grid{x: min(per(rows*per(part, 8), 256), 16*d.multi), threads: 256}, uint64(y), uint64(x), uint64(scale),
		i32(rows), i32(part), flag(add))
}

// walshSum is what the backward of Walsh layers of one input gathers: the
// input's transform and the sum of dx's.
type walshSum struct {
	xt, dx uintptr
	in     int
}

// walshBackward is the backward of one layer by transforms: Ĝ = H dY,
// dŴ_k = Ĝ_kᵀ X̂_k folded, dX̂_k = Ĝ_k Ŵg_k.
func (d *Device) walshBackward(sum *walshSum, dy, x uintptr, w *tensor.Weight, m int) {
	s := state(w)
	g := d.walshGradient(sum, dy, x, w, m)
	first := sum.dx == 0
	if first {
		sum.in = s.in
		sum.dx = d.need(scratchWalshY, 16*m*s.in)
	}
	d.gemm(product{kind: nn, a: g, b: s.dg, c: sum.dx, m: m, n: s.in, k: s.out, lda: 8 * s.out, ldb: s.in, ldc: 8 * s.in,
		batch: 8, strideA: s.out, strideB: s.out * s.in, strideC: s.in, add: !first})
}

// walshGradient adds to the folded gradient and gives Ĝ.
func (d *Device) walshGradient(sum *walshSum, dy, x uintptr, w *tensor.Weight, m int) (g uintptr) {
	s := state(w)
	g = d.transform(scratchWalshDY, dy, m, s.out)
	if sum.xt == 0 {
		sum.xt = d.transform(scratchWalshX, x, m, s.in)
	}
	p := product{kind: tn, float: true, a: g, b: sum.xt, m: s.out, n: s.in, k: m, lda: 8 * s.out, ldb: 8 * s.in, ldc: s.in,
		batch: 8, strideA: s.out, strideB: s.in, strideC: s.out * s.in}
	d.split(&p)
	p.c = d.need(scratchParts, 32*p.splits*p.strideC)
	d.gemm(p)
	d.foldWalsh(w, p.c, p.splits)
	return g
}

// foldWalsh adds up the parts of P, 8 products each or 16 of octonions, into the
// folded gradient of a layer.
func (d *Device) foldWalsh(w *tensor.Weight, p uintptr, splits int) {
	s := state(w)
	size, products, octonion := s.out*s.in, 8, s.form == corrected
	if octonion {
		products = 16
	}
	d.bound(products * size)
	d.launch(foldWalsh, grid{x: per(size, 32*vector(size)), threads: 256}, uint64(w.DW.Addr), uint64(p),
		i32(size), i32(splits), i32(products*size), flag(octonion))
}
