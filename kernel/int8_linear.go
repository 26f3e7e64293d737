package kernel

import (
	"errors"
	"strconv"
	"unsafe"

	"spinnet/algebra"
)

// Int8Linear is the weights of hypercomplex layers that read the same input,
// for int8 activations (SPEC §7). With q [n·K] the rounded input of a token
// and s its scale, part i of the output is
//
//	y_i[r] = float32(Σ_k Σ_c sign[i][i xor k] · q_(i xor k)[c] · W_k[r][c]) · (s·g[r])
//
// with an exact integer sum. Only the n unique blocks W_k are stored: the
// input is what is expanded. Row i of a token's expansion is its parts in the
// order of k, with their signs, so that a layer is one matrix product
//
//	C [tokens·n, N] = A [tokens·n, n·K] · [W_0 … W_(n−1)]ᵀ
//
// whatever the algebra, and a row of C is a part of the output.
type Int8Linear struct {
	n      int // dimension of the algebra
	K      int // input width of a part
	N      int // output widths of a part, of all layers together
	outs   []int
	gain   []float32 // [N]: g
	minus  []int8    // [n, n]: −1 where the part at place k of row i is negated
	bias   int32     // added to the weights: 1 to ternary ones, or that of the set
	k4     int       // steps of four columns
	width  int       // columns of a panel
	two    bool      // weights in two bits
	panels []uint8   // [⌈N/width⌉][k4][width][4], or in two bits [⌈N/width⌉][k4/4][width][4]

	simd *simdLinear // the weights in LayoutSIMD128, in place of panels
}

// twoRows is up to how many rows weights in two bits are taken apart for every
// tile; for more it is done once.
const twoRows = 24

// Int8Weight is one layer's weights.
type Int8Weight struct {
	W    []int8    // [n, N, K]
	Gain []float32 // [N]
}

// MaxInt8Columns bounds the columns of an int8 product: no sum of that many
// 255·127 leaves int32.
const MaxInt8Columns = 1 << 16

// NewInt8Linear packs layers over t that share an input of parts of width
// inPart, in the layout of the kernel set in use. ternary promises weights of
// −1, 0 and +1, which have a faster kernel; others are −127 … 127.
func NewInt8Linear(t *algebra.Table, inPart int, ternary bool, ws ...Int8Weight) *Int8Linear {
	return PackInt8Linear(NativeLayout(), t, inPart, ternary, ws...)
}

// PackInt8Linear is NewInt8Linear in a layout.
func PackInt8Linear(layout Layout, t *algebra.Table, inPart int, ternary bool, ws ...Int8Weight) *Int8Linear {
	var outs []int
	var gain []float32
	for _, w := range ws {
		if want := t.N * inPart * len(w.Gain); len(w.W) != want {
			panic("kernel: " + strconv.Itoa(len(w.W)) + " weights, want " + strconv.Itoa(want))
		}
		outs = append(outs, len(w.Gain))
		gain = append(gain, w.Gain...)
	}
	l := newInt8Linear(t, inPart, outs, gain)
	if layout == LayoutSIMD128 {
		l.packSIMD(t, ternary, ws)
	} else {
		l.packTiles(ternary, ws)
	}
	return l
}

// newInt8Linear is all but the weights.
func newInt8Linear(t *algebra.Table, inPart int, outs []int, gain []float32) *Int8Linear {
	l := &Int8Linear{n: t.N, K: inPart, outs: outs, gain: gain}
	if cols := l.n * inPart; cols > MaxInt8Columns {
		panic("kernel: an int8 product over " + strconv.Itoa(cols) + " columns may overflow")
	}
	for _, out := range outs {
		l.N += out
	}
	for i := range l.n {
		for k := range l.n {
			l.minus = append(l.minus, min(0, t.Sign[i][i^k]))
		}
	}
	return l
}

// packTiles packs the weights for the tiles of the set in use.
func (l *Int8Linear) packTiles(ternary bool, ws []Int8Weight) {
	l.bias = int8Tiles().bias
	if ternary {
		l.bias = 1
	}
	inPart, cols := l.K, l.n*l.K
	l.k4 = (cols + 3) / 4
	l.width = 2 * int8Tiles().lanes
	if l.two = ternary && int8Tiles().unpack != nil; l.two {
		l.k4 = (l.k4 + 3) / 4 * 4
	}
	l.panels = make([]uint8, (l.N+l.width-1)/l.width*l.panelSize())
	column := 0
	for _, w := range ws {
		for r := range w.Gain {
			at := column/l.width*l.panelSize() + column%l.width*4
			for k := range l.n {
				for c, v := range w.W[(k*len(w.Gain)+r)*inPart:][:inPart] {
					x, u := k*inPart+c, uint8(int32(v)+l.bias)
					if l.two { // of four steps in turn
						l.panels[at+x/16*4*l.width+x%4] |= u << (x / 4 % 4 * 2)
					} else {
						l.panels[at+x/4*4*l.width+x%4] = u
					}
				}
			}
			column++
		}
	}
}

// packSIMD packs the weights in LayoutSIMD128.
func (l *Int8Linear) packSIMD(t *algebra.Table, ternary bool, ws []Int8Weight) {
	l.useSIMD(t, ternary)
	l.simd.w = make([]uint8, l.simd.size())
	l.simd.noTerms()
	var q []int8
	if l.simd.form != simdRows {
		q = t.Fast().Q
	}
	row := 0
	for _, w := range ws {
		l.simd.pack(w.W, len(w.Gain), row, q)
		row += len(w.Gain)
	}
}

func (l *Int8Linear) useSIMD(t *algebra.Table, ternary bool) {
	l.width = linearPanels.rows()
	l.simd = &simdLinear{form: simdFormOf(t, ternary), n: l.n, K: l.K, N: l.N}
}

// Int8LinearSize is the length of Packed of layers with outputs of widths outs
// a part.
func Int8LinearSize(t *algebra.Table, inPart int, ternary bool, outs []int) int {
	l := newInt8Linear(t, inPart, outs, nil)
	l.useSIMD(t, ternary)
	return l.simd.size()
}

// Int8LinearOf makes layers from what Packed and Gain gave of others of the
// same shape, and goes on using both.
func Int8LinearOf(packed []byte, t *algebra.Table, inPart int, ternary bool, outs []int, gain []float32) (*Int8Linear, error) {
	l := newInt8Linear(t, inPart, outs, gain)
	l.useSIMD(t, ternary)
	if l.simd.size() != len(packed) || len(gain) != l.N {
		return nil, errors.New("kernel: packed layers of " + strconv.Itoa(l.N) + " rows have " + strconv.Itoa(len(packed)) + " bytes and " + strconv.Itoa(len(gain)) + " factors, want " + strconv.Itoa(l.simd.size()) + " bytes")
	}
	l.simd.w = packed
	return l, nil
}

// Packed is the memory of weights in LayoutSIMD128; nil for others.
func (l *Int8Linear) Packed() []byte {
	if l.simd == nil {
		return nil
	}
	return l.simd.w
}

// Gain is the factor of each row, of all layers one after another.
func (l *Int8Linear) Gain() []float32 { return l.gain }

func (l *Int8Linear) panelSize() int {
	if l.two {
		return l.k4 * l.width
	}
	return l.k4 * l.width * 4
}

// Panels is the number of column panels, the unit in which Multiply divides.
func (l *Int8Linear) Panels() int { return (l.N + l.width - 1) / l.width }

// Input is the width of an input, n·K.
func (l *Int8Linear) Input() int { return l.n * l.K }

// Columns is the range of columns of panels lo … hi−1.
func (l *Int8Linear) Columns(lo, hi int) (from, to int) {
	return min(lo*l.width, l.N), min(hi*l.width, l.N)
}

// Rows is the number of rows of A for a number of tokens.
func (l *Int8Linear) Rows(tokens int) int { return tokens * l.n }

// Stride is the length of a row of A, in bytes.
func (l *Int8Linear) Stride() int {
	if l.simd != nil {
		return l.simd.stride()
	}
	return 4 * l.k4
}

// CStride is the length of a row of C.
func (l *Int8Linear) CStride() int { return l.Panels() * l.width }

// Expand writes the rows of A [n, Stride] of one token, and what its rows of
// C start from, [n]: −bias·Σ of the row. (In LayoutSIMD128 both are what
// Multiply makes of them.)
func (l *Int8Linear) Expand(a []int8, start []int32, q []int8) {
	n, width, stride := l.n, l.K, l.Stride()
	s := int8Tiles()
	a, q, start = a[:n*stride], q[:n*width], start[:n]
	if l.simd != nil {
		l.simd.expand(a, q, l.minus)
		return
	}
	s.expand(a, q, l.minus, n, width, stride)
	var sums [16]int32
	for j := range n {
		sums[j] = s.sum(q[j*width : (j+1)*width])
	}
	for i := range start {
		clear(a[i*stride+n*width : (i+1)*stride])
		total := int32(0)
		for k, m := range l.minus[i*n : (i+1)*n] {
			total += sums[i^k] ^ int32(m) - int32(m)
		}
		start[i] = -l.bias * total
	}
}

// Int8Scratch is memory that Multiply, MatMulInt8 and Grouped need of each
// worker.
type Int8Scratch struct {
	tile        int8TileArgs
	panel       []uint8
	padded      []int8
	rows, input []int8 // of Grouped
	start, edge []int32
}

// Multiply computes the panels lo … hi−1 of C [rows, CStride] from rows of A
// and their starts.
func (l *Int8Linear) Multiply(w *Int8Scratch, c []int32, a []int8, start []int32, rows, lo, hi int) {
	if rows == 0 || l.K == 0 || lo >= hi {
		return
	}
	if l.simd != nil {
		ldc, size := l.CStride(), l.n*l.Stride()
		for i := range rows / l.n {
			l.simd.multiply(c[i*l.n*ldc:(i+1)*l.n*ldc], ldc, a[i*size:(i+1)*size], lo*l.width, hi*l.width)
		}
		return
	}
	s := int8Tiles()
	_, _, _ = a[:rows*l.Stride()], start[:rows], c[:rows*l.CStride()] // no reads: other workers write to c
	run := s.wide
	if l.bias == 1 {
		run = s.narrow
	}
	t := &w.tile
	*t = int8TileArgs{lda: l.Stride(), k4: l.k4, ldc: 4 * l.CStride()}
	for p := lo; p < hi; p++ {
		panel := l.panels[p*l.panelSize() : (p+1)*l.panelSize()]
		t.b = unsafe.Pointer(&panel[0])
		t.a, t.start, t.c = unsafe.Pointer(&a[0]), unsafe.Pointer(&start[0]), unsafe.Pointer(&c[p*l.width])
		next := uintptr(t.b) + uintptr(l.panelSize())
		switch {
		case !l.two:
			t.do(run, rows, next, 64*l.k4)
		case s.two != nil && rows <= twoRows:
			t.do(s.two, rows, next, 32*l.k4)
		default:
			w.panel = resized(w.panel, 4*len(panel))
			s.unpack(w.panel, panel)
			t.b = unsafe.Pointer(&w.panel[0])
			t.do(run, rows, next, 0)
		}
	}
}

// Scale writes the outputs of one token from its n rows of C: y[o] [n·N_o] is
// the output of layer o, of which the columns of panels lo … hi−1 are filled.
func (l *Int8Linear) Scale(y [][]float32, c []int32, s float32, lo, hi int) {
	first, last := lo*l.width, min(hi*l.width, l.N)
	at := 0
	for o, out := range l.outs {
		from, to := max(first, at), min(last, at+out)
		if from < to {
			ExactScaleInt32(y[o][from-at:], out, c[from:], l.CStride(), l.n, s, l.gain[from:to])
		}
		at += out
	}
}

// int8TileArgs are the operands of one tile:
//
//	C[mr, two vectors] = start[mr] + Σ_k A[mr, k]·B[k, two vectors]
//
// over 4·k4 columns, A in −127 … 127 and B unsigned bytes, or signed ones for
// sets without a bias.
type int8TileArgs struct {
	a     unsafe.Pointer // int8, rows lda bytes apart
	lda   int
	k4    int            // at least 1
	b     unsafe.Pointer // bytes [k4][2·lanes][4]
	c     unsafe.Pointer // int32, rows ldc bytes apart
	ldc   int
	start unsafe.Pointer // int32
	next  uintptr        // memory that is wanted soon, 64 bytes a step, or 32 of B in two bits
}

// do runs tiles of even height over rows of A. At next, which need not exist, is
// what will be read after B, of which each of two tiles asks for so many bytes.
func (t *int8TileArgs) do(run []func(*byte), rows int, next uintptr, ask int) {
	highest := len(run) - 1
	tiles, done := (rows+highest-1)/highest, 0
	for i := range tiles {
		t.next = uintptr(t.b) // nothing new
		if i < 2 && ask > 0 {
			t.next = next + uintptr(i*ask)
		}
		height := rows*(i+1)/tiles - done
		run[height]((*byte)(unsafe.Pointer(t)))
		if done += height; done < rows { // else they would point behind their memory
			t.a, t.start, t.c = unsafe.Add(t.a, height*t.lda), unsafe.Add(t.start, 4*height), unsafe.Add(t.c, height*t.ldc)
		}
	}
}

// int8TileSet is one implementation of the tiles, by mr.
type int8TileSet struct {
	lanes        int                                         // int32 values of a vector
	bias         int32                                       // added to weights of wide: 128, or 0 where B is signed
	narrow, wide []func(t *byte)                             // narrow: B is at most 2
	two          []func(t *byte)                             // B is in two bits, k4 a multiple of 4; nil: unpack it
	pack         func(dst []uint8, w []int8, ld, blocks int) // nil: MatMulInt8 does without
	unpack       func(dst, src []uint8)                      // B from two bits; nil: there is none such
	expand       func(a, q, minus []int8, n, width, stride int)
	sum          func(x []int8) int32
}

// int8Tiles is the implementation of the active set.
func int8Tiles() *int8TileSet { return int8TileSets[active] }

// refInt8Tiles is the definition.
var refInt8Tiles = &int8TileSet{lanes: refLanes, bias: 128,
	narrow: []func(*byte){nil, refInt8Tile(1), refInt8Tile(2), refInt8Tile(3), refInt8Tile(4)},
	wide:   []func(*byte){nil, refInt8Tile(1), refInt8Tile(2), refInt8Tile(3), refInt8Tile(4)},
	expand: refInt8Expand, sum: refInt8Sum,
}

func refInt8Tile(mr int) func(*byte) {
	return func(p *byte) {
		t := (*int8TileArgs)(unsafe.Pointer(p))
		b := unsafe.Slice((*uint8)(t.b), t.k4*2*refLanes*4)
		for r := range mr {
			a := unsafe.Slice((*int8)(unsafe.Add(t.a, r*t.lda)), 4*t.k4)
			c := unsafe.Slice((*int32)(unsafe.Add(t.c, r*t.ldc)), 2*refLanes)
			start := *(*int32)(unsafe.Add(t.start, 4*r))
			for j := range c {
				c[j] = start
			}
			for k := 0; k < len(a); k += 4 {
				a0, a1, a2, a3 := int32(a[k]), int32(a[k+1]), int32(a[k+2]), int32(a[k+3])
				w := b[k*2*refLanes:][:2*refLanes*4]
				for j := range c {
					v := w[4*j : 4*j+4]
					c[j] += a0*int32(v[0]) + a1*int32(v[1]) + a2*int32(v[2]) + a3*int32(v[3])
				}
			}
		}
	}
}

// refInt8Expand copies the parts of q to their places in each row of a,
// negated where minus is −1.
func refInt8Expand(a, q, minus []int8, n, width, stride int) {
	for i := range n {
		for k := range n {
			m, part := minus[i*n+k], a[i*stride+k*width:][:width]
			for c, v := range q[(i^k)*width:][:width] {
				part[c] = v ^ m - m
			}
		}
	}
}

// refInt8Sum adds up x.
func refInt8Sum(x []int8) int32 {
	var s int32
	for _, v := range x {
		s += int32(v)
	}
	return s
}
