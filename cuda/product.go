//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"fmt"
	"math"
	"slices"
	"unsafe"
)

// kind says which operands of a product lie transposed (linear.cu).
type kind int

const (
	nt kind = iota // C[M,N] = A[M,K]·B[N,K]ᵀ
	nn             // C[M,N] = A[M,K]·B[K,N]
	tn             // C[M,N] = A[K,M]ᵀ·B[K,N]
)

// product is a call of the matrix product: A and B in bf16, C in bf16 or
// float32; strides in elements. A batch of products, each the sum of a chain,
// and the contraction cut into splits: see gemm.cuh.
type product struct {
	kind                               kind
	float                              bool // C is float32
	a, b, c, scale                     uintptr
	m, n, k                            int
	lda, ldb, ldc                      int
	batch, chain, splits               int // 0: 1
	strideA, strideB, strideC, strideS int // strideA or strideB 0: shared by all
	add                                bool
	rotary                             rotary // Hopper, nt, C in bf16
}

// rotary says how the first products of a batch are rotated by their rows'
// positions: Rotary of gemm90.cuh.
type rotary struct {
	cos, sin      uintptr
	period, count int
}

// gemm launches a product.
func (d *Device) gemm(p product) {
	if p.m == 0 || p.n == 0 {
		return
	}
	p.batch, p.chain, p.splits = max(1, p.batch), max(1, p.chain), max(1, p.splits)
	d.bound(p.m, p.n, p.k, p.lda, p.ldb, p.ldc, p.strideA, p.strideB, p.strideC, p.strideS)
	aligned := (p.lda|p.ldb|p.strideA|p.strideB)%8 == 0 && (p.a|p.b)%16 == 0
	switch {
	case aligned && d.info.Major == 9:
		d.gemm90(p)
		return
	case aligned && d.can(library, p):
		d.product(p)
		return
	}
	k := [...][2]kernelID{nt: {gemmNTBF16, gemmNTF32}, nn: {gemmNNBF16, gemmNNF32}, tn: {-1, gemmTNF32}}[p.kind][flag(p.float)]
	d.launch(k, grid{x: per(p.m, 128) * per(p.n, 128), y: p.splits, z: p.batch, threads: 256, shared: 98304},
		uint64(p.a), uint64(p.b), uint64(p.c), uint64(p.scale), i32(p.m), i32(p.n), i32(p.k), i32(p.lda), i32(p.ldb), i32(p.ldc),
		i32(p.strideA), i32(p.strideB), i32(p.strideC), i32(p.strideS), i32(p.chain), flag(p.add))
}

// bound refuses numbers that kernels, where they are 32 bits, cannot take.
func (d *Device) bound(numbers ...int) {
	if n := slices.Max(numbers); n > math.MaxInt32 && d.err == nil {
		d.err = fmt.Errorf("cuda: a matrix of %d values: the kernels take at most %d; lower batch_size, make the model narrower, or use device = cpu", n, math.MaxInt32)
	}
}

// variant is a way to compute a product on Hopper: the kernels gemm90_* of
// linear.cu, or cuBLASLt.
type variant int

const (
	together128 variant = iota // tiles of 128×128, a warpgroup takes 64 rows
	together192                // 128×192
	together256                // 128×256
	turns128                   // 128×128, the warpgroups in turns at tiles
	resident128                // the same with B kept in shared memory
	library                    // by cuBLASLt
	variants                   // how many there are
)

var variantNames = [variants]string{"128", "192", "256", "128p", "128r", "cublas"}

// width is that of a tile.
func (v variant) width() int {
	return [...]int{together128: 128, together192: 192, together256: 256, turns128: 128, resident128: 128}[v]
}

// can says whether a variant computes a product.
func (d *Device) can(v variant, p product) bool {
	switch v {
	case resident128:
		return p.kind != tn && p.splits == 1 && per(p.k, 64)*p.chain <= 8
	case library:
		return d.blas != nil && p.splits == 1 && p.chain == 1 && p.scale == 0 && p.rotary == (rotary{}) && d.plan(p) != nil
	}
	return true
}

// gemm90 launches Hopper's product.
func (d *Device) gemm90(p product) {
	v := d.forced
	if v == variants || !d.can(v, p) {
		v = d.variantOf(p)
	}
	if v == library {
		d.product(p)
		return
	}
	k := [...][2][variants]kernelID{
		nt: {{gemm90NTBF16128, gemm90NTBF16192, gemm90NTBF16256, gemm90NTBF16Turns, gemm90NTBF16Resident},
			{gemm90NTF32128, gemm90NTF32192, gemm90NTF32256, gemm90NTF32Turns, gemm90NTF32Resident}},
		nn: {{gemm90NNBF16128, gemm90NNBF16192, gemm90NNBF16256, gemm90NNBF16Turns, gemm90NNBF16Resident},
			{gemm90NNF32128, gemm90NNF32192, gemm90NNF32256, gemm90NNF32Turns, gemm90NNF32Resident}},
		tn: {{-1, -1, -1, -1, -1}, {gemm90TNF32128, gemm90TNF32192, gemm90TNF32256, gemm90TNF32Turns, -1}},
	}[p.kind][flag(p.float)][v]
	rowsA, colsA, rowsB, colsB := p.m, p.k, p.n, p.k // as they lie in memory
	if p.kind == tn {
		rowsA, colsA = p.k, p.m
	}
	if p.kind != nt {
		rowsB, colsB = p.k, p.n
	}
	many, sharing := p.batch*p.chain, 0
	manyA, manyB := many, many
	if p.strideA == 0 {
		manyA, sharing = 1, 1
	}
	if p.strideB == 0 {
		manyB, sharing = 1, sharing|2
	}
	a := d.mapOf(mapKey{p.a, rowsA, colsA, p.lda, manyA, p.strideA, 64})
	b := d.mapOf(mapKey{p.b, rowsB, colsB, p.ldb, manyB, p.strideB, 64})
	c, how := a, flag(p.add)
	if !p.float && !p.add && (p.ldc|p.strideC)%8 == 0 && p.c%16 == 0 {
		c, how = d.mapOf(mapKey{p.c, p.m, p.n, p.ldc, p.batch * p.splits, p.strideC, 16}), 2
	}
	rows, columns := per(p.m, 128), per(p.n, v.width())*p.batch
	blocks := rows * columns * p.splits
	switch v {
	case together256:
		blocks = min(d.multi, 2*blocks) // the last may be cut
	case resident128:
		blocks = columns * max(1, min(rows, d.multi/columns))
	default:
		blocks = min(d.multi, blocks)
	}
	d.launchMaps(k, grid{x: blocks, threads: 384, shared: 230400}, [4]*tensorMap{a, b, c},
		uint64(p.c), uint64(p.scale), i32(p.m), i32(p.n), i32(p.k), i32(p.ldc), i32(p.batch), i32(p.chain), i32(p.splits),
		i32(p.strideC), i32(p.strideS), i32(sharing), how,
		uint64(p.rotary.cos), uint64(p.rotary.sin), i32(p.rotary.period)|i32(p.rotary.count)<<32) // the words of the last parameter
}

// halfTile is the time that half a tile of 256 columns takes.
const halfTile = 0.6

// rounds is how many tiles, one after the other, the busiest multiprocessor
// does (gemm90_tiles says which are half as wide).
func (d *Device) rounds(p product, v variant) float64 {
	rows, columns := per(p.m, 128), per(p.n, v.width())
	if v == resident128 {
		columns *= p.batch
		return float64(per(rows, max(1, min(rows, d.multi/columns))) * per(columns, d.multi))
	}
	tiles := rows * columns * p.batch * p.splits
	all, rest := tiles/d.multi, tiles%d.multi
	switch {
	case v == together256 && p.n-256*(columns-1) <= 128:
		wide := per(tiles/columns*(columns-1), d.multi)
		return float64(wide) + halfTile*float64(per(tiles, d.multi)-wide)
	case v == together256 && rest > 0 && 2*rest <= d.multi:
		return float64(all) + halfTile
	}
	return float64(per(tiles, d.multi))
}

// costs is what a product takes, in microseconds: once, for a tile, for each of
// its steps of 64 along the contraction, and for a million values of a weight's
// gradient, which are written and folded. They fit the measurements of an H100
// in testdata/products_h100.txt within 20 %, and what they choose takes 1 %
// longer than the best choices would.
var costs = [...][library]struct{ once, tile, step, part float64 }{
	nt: {together128: {2.1, 0.8, 0.417, 0}, together192: {1.7, 1.4, 0.582, 0}, together256: {2.9, 1.8, 0.768, 0}, turns128: {2.3, 0.5, 0.408, 0}, resident128: {5.0, 1.1, 0.255, 0}},
	nn: {together128: {2.2, 1.4, 0.378, 0}, together192: {0.9, 2.3, 0.539, 0}, together256: {2.3, 2.9, 0.691, 0}, turns128: {3.6, 0.9, 0.369, 0}, resident128: {2.6, 1.3, 0.278, 0}},
	tn: {together128: {0.0, 1.0, 0.371, 3.57}, together192: {0.0, 1.3, 0.508, 3.64}, together256: {-2.4, 5.9, 0.628, 2.18}, turns128: {0.9, 1.2, 0.365, 3.35}},
}

// The library's: once, and operations a microsecond.
var libraryCosts = [...]struct{ once, rate float64 }{nt: {4.9, 6.7e8}, nn: {6.5, 7.1e8}, tn: {10.6, 6.8e8}}

// cost estimates the microseconds of a product, of a weight's gradient with the
// fold of its parts.
func (d *Device) cost(p product, v variant) float64 {
	if v == library {
		c := libraryCosts[p.kind]
		return c.once + 2*float64(p.m*p.n*p.batch)*float64(p.k)/c.rate
	}
	c := costs[p.kind][v]
	return c.once + d.rounds(p, v)*(c.tile+c.step*float64(per(per(p.k, 64)*p.chain, p.splits))) +
		c.part*1e-6*float64(p.splits*p.m*p.n*p.batch)
}

// variantOf is the quickest variant.
func (d *Device) variantOf(p product) variant {
	best, least := together128, math.Inf(1)
	for v := range variants {
		if d.can(v, p) && d.cost(p, v) < least {
			best, least = v, d.cost(p, v)
		}
	}
	return best
}

// split cuts the contraction of a product into as many parts as make it
// quickest.
func (d *Device) split(p *product) {
	p.batch, p.chain = max(1, p.batch), max(1, p.chain)
	best, least := 1, math.Inf(1)
	for p.splits = 1; p.splits <= min(32, per(p.k, 256)); p.splits++ {
		if t := d.cost(*p, d.variantOf(*p)); t < least {
			best, least = p.splits, t
		}
	}
	p.splits = best
}

// mapKey is what a tensor map says: a batch of bf16 matrices.
type mapKey struct {
	addr                          uintptr
	rows, cols, ld, batch, stride int
	height                        int // rows of a box: 64 of what is read, 16 of what is written
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
		box:     [3]uint32{64, 1, uint32(k.height)},
		steps:   [3]uint32{1, 1, 1},
	}
	d.hold = unsafe.Pointer(a)
	const bfloat16, swizzle128, promote256 = 9, 3, 3
	d.do(cuTensorMapEncodeTiled, uintptr(t.address()), bfloat16, 3, k.addr,
		uintptr(unsafe.Pointer(&a.dims)), uintptr(unsafe.Pointer(&a.strides)), uintptr(unsafe.Pointer(&a.box)), uintptr(unsafe.Pointer(&a.steps)),
		0, swizzle128, promote256, 0)
	d.maps[k] = t
	return t
}
