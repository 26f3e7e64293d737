//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"math"

	"spinnet/tensor"
)

// form is how a layer is computed.
type form int

const (
	dense       form = iota // as the product with the signed matrix: any algebra
	inOne                   // Walsh, Hopper: transforms and products in one launch (walsh90_* of walsh.cu)
	transformed             // Walsh: launches for transforms and for 8 block products
	corrected               // octonions, Hopper, forward alone: so with 30 block products
)

// From which width on, or up to which width of a part, a form is quickest, as
// measured on an H100 (docs/benchmarks.md).
const (
	walshFrom    = 2048
	octonionFrom = 4096
	fusedMost    = 448
)

// formOf chooses.
func (d *Device) formOf(w *tensor.Weight) form {
	hopper := d.info.Major == 9 && (w.In|w.Out)%8 == 0
	width := 8 * min(w.In, w.Out)
	switch {
	case w.Transposed:
	case w.Algebra.Name == "walsh" && hopper && max(w.In, w.Out) <= d.fusedMost:
		return inOne
	case w.Algebra.Name == "walsh" && width >= walshFrom:
		return transformed
	case w.Algebra.Name == "octonion" && hopper && width >= d.octonionFrom:
		return corrected
	}
	return dense
}

// walshLinear is the forward of layers of one shape that read x, whose results
// lie at equal distances, and says how many it did.
func (d *Device) walshLinear(to []uintptr, x uintptr, ws []*tensor.Weight, m int) int {
	s := state(ws[0])
	many := d.together(ws, func(s *weight) uintptr { return s.d })
	strideY, strideS := 0, 0
	if many > 1 {
		strideY, strideS = int(to[1]-to[0])/2, int(state(ws[1]).scale-s.scale)/4
	}
	d.launchWalsh90(walsh90NT, d.partsOf(x, m, s.in, 64), d.mapOf(mapKey{s.d, s.out, s.in, s.in, 8 * many, s.out * s.in, 64}),
		to[0], s.scale, m, s.out, s.in, 0, many, 1, strideY, strideS, false)
	return many
}

// launchWalsh90 launches walsh90_nt or walsh90_nn.
func (d *Device) launchWalsh90(k kernelID, a, b *tensorMap, y, scale uintptr, m, n, contraction, rowsA, batch, chain, strideY, strideS int, add bool) {
	rows, columns := per(m, 64), per(n, 64)*batch
	shares := max(1, min(columns, d.multi/rows))
	if contraction <= 64 && chain == 1 {
		columns = per(columns, per(columns, shares))
	}
	d.launchMaps(k, grid{x: min(d.multi, columns*rows), threads: 288, shared: 230400}, a, b, uint64(y), uint64(scale), i32(m), i32(n), i32(contraction),
		i32(rowsA), i32(batch), i32(chain), i32(strideY), i32(strideS), i32(shares), flag(add))
}

// partsOf is the map of the 8 parts of rows.
func (d *Device) partsOf(x uintptr, rows, part, box int) *tensorMap {
	return d.mapOf(mapKey{x, rows, part, 8 * part, 8, part, box})
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
// distances: dx, and the folded gradients. It says how many it did.
func (d *Device) walshLinearBackward(dx uintptr, acc bool, from []uintptr, x uintptr, ws []*tensor.Weight, m int) int {
	s := state(ws[0])
	many, rows := d.together(ws, func(s *weight) uintptr { return s.dg }), 0
	if many > 1 { // the dy of one layer after the other as rows of one matrix
		apart := int(from[1] - from[0])
		if rows = apart / (16 * s.out); apart%(16*s.out) != 0 || m%32 != 0 {
			many = 1
		}
	}
	d.launchWalsh90(walsh90NN, d.partsOf(from[0], m+(many-1)*rows, s.out, 64), d.mapOf(mapKey{s.dg, s.out, s.in, s.in, 8 * many, s.out * s.in, 64}),
		dx, 0, m, s.in, s.out, rows, 1, many, 0, 0, acc)
	d.walshWeightGradient(from[0], rows, x, ws[:many], m)
	return many
}

// walshWeightGradient adds the folded gradients of layers whose dy lie rows rows
// below each other.
func (d *Device) walshWeightGradient(dy uintptr, rows int, x uintptr, ws []*tensor.Weight, m int) {
	s, many := state(ws[0]), len(ws)
	size, tiles := s.out*s.in, per(s.out, 64)*per(s.in, 64)*many
	splits := d.splitWalsh(tiles, m, 32*size*many)
	parts := d.need(scratchParts, 32*splits*many*size)
	d.launchMaps(walsh90TN, grid{x: min(d.multi, tiles*splits), threads: 288, shared: 197632},
		d.partsOf(dy, m+(many-1)*rows, s.out, 32), d.partsOf(x, m, s.in, 32), uint64(parts), i32(m), i32(s.out), i32(s.in), i32(rows), i32(many), i32(splits))
	d.foldWalsh(ws, parts, splits)
}

// splitWalsh is in how many parts the rows of a gradient go: a step of 32 rows
// takes a multiprocessor a time that its copies decide, parts are written and
// read again.
func (d *Device) splitWalsh(tiles, m, bytes int) int {
	const step, bandwidth = 1.6, 4e6 // microseconds, bytes a microsecond
	best, least := 1, math.Inf(1)
	steps := per(m, 32)
	for splits := 1; splits <= min(d.multi, steps); splits++ {
		t := float64(per(tiles*splits, d.multi)*per(steps, splits))*step + float64(2*splits*bytes)/bandwidth
		if t < least {
			best, least = splits, t
		}
	}
	return best
}

// foldWalsh adds the parts of layers' gradients in the transforms' domain to
// the gradients.
func (d *Device) foldWalsh(ws []*tensor.Weight, parts uintptr, splits int) {
	s, g := state(ws[0]), gradients(ws)
	size, v := s.out*s.in, 1
	if size%4 == 0 && size*len(ws) >= 128*d.multi { // else more blocks are worth more
		v = 4
	}
	d.launch(foldWalsh, grid{x: per(size, 32*v), z: len(ws), threads: 256}, g[0], g[1], g[2], g[3], uint64(parts),
		i32(size), i32(splits), i32(8*size*len(ws)), i32(v))
}

// wideForward is the forward of a layer by transforms.
func (d *Device) wideForward(y, x uintptr, s *weight, m int) {
	wide, narrow := 8*s.out, 8*s.in
	octonion := s.form == corrected
	p := product{kind: nt, a: d.need(scratchWalshX, 2*m*narrow), b: s.d, c: d.need(scratchWalshY, 2*m*wide),
		m: m, n: s.out, k: s.in, lda: narrow, ldb: s.in, ldc: wide, batch: 8, strideA: s.in, strideB: s.out * s.in, strideC: s.out}
	d.walshTransform(p.a, x, 0, m, s.in, false, octonion)
	d.gemm(p)
	d.walshTransform(y, p.c, s.scale, m, s.out, false, false)
	if octonion {
		p.a, p.b, p.c, p.scale = x, s.d+uintptr(16*s.out*s.in), y, s.scale
		d.octonionCorrections(p)
	}
}

// octonionCorrections adds the 22 products of parts of x with weights that the
// transforms leave out; p is the batch of 8 for the first of each.
func (d *Device) octonionCorrections(p product) {
	a := d.mapOf(mapKey{p.a, p.m, p.k, p.lda, 8, p.strideA, 64})
	b := d.mapOf(mapKey{p.b, p.n, p.k, p.ldb, 8, p.strideB, 64})
	d.launchMaps(gemm90Octonion, grid{x: min(d.multi, per(p.m, 128)*per(p.n, 256)*8), threads: 288, shared: 205824}, a, b,
		uint64(p.c), uint64(p.scale), i32(p.m), i32(p.n), i32(p.k), i32(p.ldc), 8, 3, 1, i32(p.strideC), 0, 0, 1)
}

// transform is H x of rows of 8 parts into scratch memory.
func (d *Device) transform(slot int, x uintptr, rows, part int) uintptr {
	to := d.need(slot, 16*rows*part)
	d.walshTransform(to, x, 0, rows, part, false, false)
	return to
}

// walshTransform is y = scale ∘ H x (+ y), for octonions with the first part of
// x negated.
func (d *Device) walshTransform(y, x, scale uintptr, rows, part int, add, flip bool) {
	d.launch(walshBF16, grid{x: min(per(rows*per(part, 8), 256), 16*d.multi), threads: 256}, uint64(y), uint64(x), uint64(scale),
		i32(rows), i32(part), flag(add), flag(flip))
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
	wide, narrow := 8*s.out, 8*s.in
	g := d.transform(scratchWalshDY, dy, m, s.out)
	first := sum.dx == 0
	if first {
		sum.in = s.in
		sum.xt = d.transform(scratchWalshX, x, m, s.in)
		sum.dx = d.need(scratchWalshY, 2*m*narrow)
	}
	p := product{kind: tn, float: true, a: g, b: sum.xt, m: s.out, n: s.in, k: m, lda: wide, ldb: narrow, ldc: s.in,
		batch: 8, strideA: s.out, strideB: s.in, strideC: s.out * s.in}
	d.split(&p)
	p.c = d.need(scratchParts, 32*p.splits*p.strideC)
	d.gemm(p)
	d.foldWalsh([]*tensor.Weight{w}, p.c, p.splits)
	d.gemm(product{kind: nn, a: g, b: s.dg, c: sum.dx, m: m, n: s.in, k: s.out, lda: wide, ldb: s.in, ldc: narrow,
		batch: 8, strideA: s.out, strideB: s.out * s.in, strideC: s.in, add: !first})
}
