package kernel

import (
	"errors"
	"strconv"
	"unsafe"

	"spinnet/algebra"
)

// Layout says how packed int8 weights lie in memory.
type Layout uint8

const (
	// LayoutTiles is that of the tiles of the kernel set in use. It differs
	// from set to set and is never stored.
	LayoutTiles Layout = iota

	// LayoutSIMD128 is for vectors of 128 bits without a dot product of
	// bytes, those of WebAssembly. Its bytes are the same on every machine,
	// so one machine may write them for another; every machine computes with
	// them, those without assembly for it slowly.
	LayoutSIMD128
)

// NativeLayout is the layout of the kernel set in use.
func NativeLayout() Layout {
	if active == setSIMD128 {
		return LayoutSIMD128
	}
	return LayoutTiles
}

// A matrix of LayoutSIMD128 is stored in panels of 4·groups rows. Four rows
// are the lanes of a vector and are taken two columns at a time, which is what
// i32x4.dot_i16x8_s adds up, so a sum never has to be folded across lanes. A
// step is pairs such pairs of columns of all groups of a panel:
//
//	[panel][step][group][pair][row of the group][column of the pair]
//
// What a panel or a step has beyond the matrix is 0. More groups share one
// widened input, more pairs one accumulator.
type panelShape struct{ groups, pairs int }

var (
	linearPanels = panelShape{8, 8}   // of layers, whose parts are small
	tablePanels  = panelShape{16, 16} // of a vocabulary
)

func (s panelShape) rows() int { return 4 * s.groups }
func (s panelShape) cols() int { return 2 * s.pairs }

// width is the number of columns that n take in the panels.
func (s panelShape) width(n int) int { return (n + s.cols() - 1) / s.cols() * s.cols() }

// panels is the number of panels of a number of rows.
func (s panelShape) panels(rows int) int { return (rows + s.rows() - 1) / s.rows() }

// size is the length of rows × cols, in bytes.
func (s panelShape) size(rows, cols int) int { return s.panels(rows) * s.rows() * s.width(cols) }

// at is the place of an element of a matrix with so many columns.
func (s panelShape) at(row, col, cols int) int {
	group, step := row%s.rows()/4, col/s.cols()
	return row/s.rows()*s.rows()*s.width(cols) + step*s.rows()*s.cols() + (group*s.pairs+col%s.cols()/2)*8 + row%4*2 + col%2
}

// columns gives what each of the first n columns adds to the place of a row:
// at(row, col, cols) = at(row, 0, cols) + columns[col]. Dividing for every
// weight took longer than all else in loading a model.
func (s panelShape) columns(n, cols int) []int32 {
	offsets := make([]int32, n)
	for col := range offsets {
		offsets[col] = int32(s.at(0, col, cols))
	}
	return offsets
}

// refPanels is c = W·x for W in panels: c has whole panels of rows, x whole
// steps of columns.
func (s panelShape) refPanels(c []int32, w []uint8, x []int16) {
	for r := range c {
		c[r] = 0
		for k, v := range x {
			c[r] += int32(int8(w[s.at(r, k, len(x))])) * int32(v)
		}
	}
}

// simdKernels are the implementations for LayoutSIMD128; each has the
// signature and the meaning of its plain definition, ref….
type simdKernels struct {
	linear, table, keys func(c []int32, w []uint8, x []int16) // panelShape.refPanels
	hadamard            func(c []int32, ldc, cols int)
	terms               func(c []int32, ldc, groups int, index []uint8, tables []int8, chunks, skip int)
	transform           func(x []int16, q []int8, part, width, minus int)
	tables              func(tables, q []int8, part int)
	widen               func(x []int16, q []int8, minus int)
	setKey              func(keys, q []int8)
}

var refSIMD = &simdKernels{
	linear: linearPanels.refPanels, table: tablePanels.refPanels, keys: keyPanels.refPanels,
	hadamard: refHadamardInt32, terms: refOctonionTerms,
	transform: refTransformInt8, tables: refTermTables, widen: refWidenInt8, setKey: refSetKey,
}

// simd is the implementation of the active set.
func simd() *simdKernels { return simdSets[active] }

// simdForm is how a layer is multiplied.
type simdForm uint8

const (
	// simdRows: the input is expanded to n rows, as for tiles, of int16.
	simdRows simdForm = iota

	// simdWalsh: with x̂ = H·x and ŵ = H·W, whose elements fit into int16 and,
	// for ternary W, into −8 … 8, y = H·(x̂_k ŵ_kᵀ)/8, exactly.
	simdWalsh

	// simdOctonion: the same with signs, and 22 terms 2·x_j·W_kᵀ (algebra.Fast).
	simdOctonion
)

func simdFormOf(t *algebra.Table, ternary bool) simdForm {
	switch {
	case ternary && t.Name == "walsh":
		return simdWalsh
	case ternary && t.Name == "octonion":
		return simdOctonion
	}
	return simdRows
}

// simdLinear is the weights of an Int8Linear in LayoutSIMD128:
//
//	simdRows      one matrix [N, n·K] of linearPanels
//	simdWalsh     eight matrices ŵ_k [N, K]
//	simdOctonion  those, and the indices of the terms, [⌈N/8⌉ groups of rows]
//	              [⌈K/8⌉ chunks of columns][k][slot][16]
//
// A term is looked up, not multiplied: of a chunk of an input part, x and −x
// are the 16 entries of a table, and weights are indices into it (refTermIndex),
// two columns of eight rows a vector, so that one i8x16.swizzle does 16
// products, and one i16x8.extadd_pairwise_i8x16_s adds them up by rows.
type simdLinear struct {
	form simdForm
	n, K int
	N    int
	w    []uint8
}

// rows is N in whole panels.
func (l *simdLinear) rows() int { return linearPanels.panels(l.N) * linearPanels.rows() }

// cols is the length of a row of weights, in columns.
func (l *simdLinear) cols() int {
	if l.form == simdRows {
		return linearPanels.width(l.n * l.K)
	}
	return linearPanels.width(l.K)
}

// chunks is the number of chunks of columns of the terms.
func (l *simdLinear) chunks() int { return (l.K + 7) / 8 }

// blockSize is the length of one matrix.
func (l *simdLinear) blockSize() int { return l.rows() * l.cols() }

// termSize is what the terms of eight rows take, and how far apart those of
// chunks are.
const termSize = 8 * 4 * 16

// size is the length of w.
func (l *simdLinear) size() int {
	switch l.form {
	case simdRows:
		return l.blockSize()
	case simdWalsh:
		return 8 * l.blockSize()
	}
	return 8*l.blockSize() + l.rows()/8*l.chunks()*termSize
}

// stride is the length of each of the n rows of an expanded input, in bytes.
// The fast forms have their own things there: x̂ [8, cols] of int16, and behind
// it for the octonions the tables [chunks][8][16].
func (l *simdLinear) stride() int {
	if l.form == simdOctonion {
		return 2*l.cols() + 16*l.chunks()
	}
	return 2 * l.cols()
}

// pack fills w from weights [n, out, K] of which rows begin at row.
func (l *simdLinear) pack(weights []int8, out, row int, q []int8) {
	if l.form == simdRows {
		columns := linearPanels.columns(l.n*l.K, l.cols())
		for k := range l.n {
			for r := range out {
				to, columns := l.w[linearPanels.at(row+r, 0, l.cols()):], columns[k*l.K:][:l.K]
				for c, v := range weights[(k*out+r)*l.K:][:len(columns)] {
					to[columns[c]] = uint8(v)
				}
			}
		}
		return
	}
	columns, size := linearPanels.columns(l.K, l.cols()), l.blockSize()
	for r := range out {
		to := l.w[linearPanels.at(row+r, 0, l.cols()):]
		for c, at := range columns {
			var block [8]int8
			for k := range block {
				block[k] = weights[(k*out+r)*l.K+c]
			}
			if l.form == simdOctonion {
				for k, v := range block {
					l.w[8*size+termAt(row+r, c, k, l.chunks())] = refTermIndex(v, c)
				}
			}
			for k := range block {
				block[k] *= q[k]
			}
			for h := 1; h < 8; h *= 2 {
				for i := range block {
					if i&h == 0 {
						block[i], block[i+h] = block[i]+block[i+h], block[i]-block[i+h]
					}
				}
			}
			for k, v := range block {
				to[k*size+int(at)] = uint8(v)
			}
		}
	}
}

// termAt is the place of the index of W_k[r, c].
func termAt(r, c, k, chunks int) int {
	return (r/8*chunks+c/8)*termSize + k*64 + c%8/2*16 + r%8*2 + c%2
}

// refTermIndex is where the product of a ternary weight of column c is found
// in the table of its chunk; 0 is beyond it.
func refTermIndex(w int8, c int) uint8 {
	switch w {
	case 1:
		return uint8(c % 8)
	case -1:
		return uint8(8 + c%8)
	}
	return 255
}

// noTerms fills the indices with those of weights 0.
func (l *simdLinear) noTerms() {
	if l.form == simdOctonion {
		for i := 8 * l.blockSize(); i < len(l.w); i++ {
			l.w[i] = 255
		}
	}
}

// expand writes what stands for a token's input q [n·K].
func (l *simdLinear) expand(a, q, minus []int8) {
	s, cols := simd(), l.cols()
	if l.form == simdRows {
		x := int16s(a[:2*l.n*cols])
		for i := range l.n {
			row := x[i*cols : (i+1)*cols]
			for k := range l.n {
				s.widen(row[k*l.K:(k+1)*l.K], q[(i^k)*l.K:(i^k+1)*l.K], int(minus[i*l.n+k]))
			}
			clear(row[l.n*l.K:])
		}
		return
	}
	x := int16s(a[:2*8*cols])
	if l.form == simdWalsh {
		s.transform(x, q, l.K, cols, 0)
		return
	}
	s.transform(x, q, l.K, cols, -1)
	s.tables(a[2*8*cols:][:8*16*l.chunks()], q, l.K)
}

// multiply computes columns from … to−1, of whole panels, of the n rows of C,
// ldc apart, of one token.
func (l *simdLinear) multiply(c []int32, ldc int, a []int8, from, to int) {
	s, cols, size := simd(), l.cols(), l.blockSize()
	x, at := int16s(a), from*cols
	for k := range l.n {
		block := l.w
		if l.form != simdRows {
			block = l.w[k*size:]
		}
		s.linear(c[k*ldc+from:k*ldc+to], block[at:to*cols], x[k*cols:(k+1)*cols])
	}
	if l.form == simdRows {
		return
	}
	c = c[from : 7*ldc+to]
	groups := (min(to, l.N) - from + 7) / 8 // of rows that exist
	s.hadamard(c, ldc, 8*groups)
	if l.form == simdWalsh {
		return
	}
	all := l.chunks()
	tables, index := a[2*8*cols:], l.w[8*size+from/8*all*termSize:8*size+to/8*all*termSize]
	parts := (all + termChunks - 1) / termChunks
	for i := range parts {
		lo, hi := all*i/parts, all*(i+1)/parts
		s.terms(c, ldc, groups, index[lo*termSize:], tables[lo*8*16:hi*8*16], hi-lo, (all-(hi-lo))*termSize)
	}
}

// termChunks is how many chunks the terms of an output, at most three products
// of each column, may be added up over in int16.
const termChunks = 32767 / (3 * 8 * 127)

// octonionTerms lists, by output part, the input parts and the blocks of the
// terms; all are added (algebra.Fast).
var octonionTerms = [8][][2]int{
	{{0, 0}},
	{{2, 3}, {4, 5}, {7, 6}},
	{{3, 1}, {4, 6}, {5, 7}},
	{{1, 2}, {4, 7}, {6, 5}},
	{{5, 1}, {6, 2}, {7, 3}},
	{{1, 4}, {3, 6}, {7, 2}},
	{{1, 7}, {2, 4}, {5, 3}},
	{{2, 5}, {3, 4}, {6, 1}},
}

// refOctonionTerms adds the terms of so many groups of eight columns of C to
// its eight rows, over chunks of columns of the weights; skip is how many bytes
// of index lie between those of one group and the next.
func refOctonionTerms(c []int32, ldc, groups int, index []uint8, tables []int8, chunks, skip int) {
	for g := range groups {
		for i, terms := range octonionTerms {
			for r := range 8 {
				sum := int32(0)
				for _, t := range terms {
					for chunk := range chunks {
						for slot := range 8 { // column
							if at := index[g*skip+(g*chunks+chunk)*termSize+t[1]*64+slot/2*16+r*2+slot%2]; at < 16 {
								sum += int32(tables[(chunk*8+t[0])*16+int(at)])
							}
						}
					}
				}
				c[i*ldc+g*8+r] += 2 * sum
			}
		}
	}
}

// refTermTables writes, for each chunk of eight columns and each of the eight
// parts of q, its columns and their negatives.
func refTermTables(tables, q []int8, part int) {
	for j := range 8 {
		for c := range (part + 7) / 8 * 8 {
			v := int8(0)
			if c < part {
				v = q[j*part+c]
			}
			table := tables[(c/8*8+j)*16:]
			table[c%8], table[8+c%8] = v, -v
		}
	}
}

// refTransformInt8 is x = H·q by parts: q [8, part], x [8, width] with zeros
// at the end of its rows; minus is −1 to negate part 0 of q, or 0.
func refTransformInt8(x []int16, q []int8, part, width, minus int) {
	clear(x)
	for c := range part {
		var v [8]int16
		for j := range v {
			v[j] = int16(q[j*part+c])
		}
		v[0] = v[0] ^ int16(minus) - int16(minus)
		for h := 1; h < 8; h *= 2 {
			for i := range v {
				if i&h == 0 {
					v[i], v[i+h] = v[i]+v[i+h], v[i]-v[i+h]
				}
			}
		}
		for k := range v {
			x[k*width+c] = v[k]
		}
	}
}

// refHadamardInt32 replaces the first cols columns of eight rows of C by H·C/8,
// which has no remainder.
func refHadamardInt32(c []int32, ldc, cols int) {
	for at := range cols {
		var v [8]int32
		for k := range v {
			v[k] = c[k*ldc+at]
		}
		for h := 1; h < 8; h *= 2 {
			for i := range v {
				if i&h == 0 {
					v[i], v[i+h] = v[i]+v[i+h], v[i]-v[i+h]
				}
			}
		}
		for k := range v {
			c[k*ldc+at] = v[k] >> 3
		}
	}
}

// refWidenInt8 is x = q, or −q where minus is −1 and not 0.
func refWidenInt8(x []int16, q []int8, minus int) {
	for i, v := range q {
		x[i] = int16(v) ^ int16(minus) - int16(minus)
	}
}

// int16s is the same memory as int16 values.
func int16s(b []int8) []int16 {
	return unsafe.Slice((*int16)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/2)
}

// uint8s is the same memory as bytes.
func uint8s(b []int8) []uint8 {
	return unsafe.Slice((*uint8)(unsafe.Pointer(unsafe.SliceData(b))), len(b))
}

// Int8Table is a matrix of int8 rows in LayoutSIMD128.
type Int8Table struct {
	rows, cols int
	w          []uint8
}

// NewInt8Table packs w [rows, cols].
func NewInt8Table(w []int8, rows, cols int) *Int8Table {
	t := &Int8Table{rows, cols, make([]uint8, Int8TableSize(rows, cols))}
	columns := tablePanels.columns(cols, cols)
	for r := range rows {
		row := tablePanels.at(r, 0, cols)
		for c, v := range w[r*cols:][:len(columns)] {
			t.w[row+int(columns[c])] = uint8(v)
		}
	}
	return t
}

// Int8TableSize is the length of a packed table, in bytes.
func Int8TableSize(rows, cols int) int { return tablePanels.size(rows, cols) }

// Int8TableOf is a table of Packed bytes, which it goes on using.
func Int8TableOf(packed []byte, rows, cols int) (*Int8Table, error) {
	if want := Int8TableSize(rows, cols); len(packed) != want {
		return nil, errors.New("kernel: a packed table of " + strconv.Itoa(rows) + " × " + strconv.Itoa(cols) + " has " + strconv.Itoa(len(packed)) + " bytes, want " + strconv.Itoa(want))
	}
	return &Int8Table{rows, cols, packed}, nil
}

// Packed is the table's memory.
func (t *Int8Table) Packed() []byte { return t.w }

// InputLen is the length of an Input.
func (t *Int8Table) InputLen() int { return 2 * tablePanels.width(t.cols) }

// Input arranges x [cols] for MatVec.
func (t *Int8Table) Input(input, x []int8) {
	wide := int16s(input[:t.InputLen()])
	simd().widen(wide[:t.cols], x[:t.cols], 0)
	clear(wide[t.cols:])
}

// MatVec sets y to the products of rows from row on, which must be a multiple
// of 64, with an Input.
func (t *Int8Table) MatVec(y []int32, input []int8, row int) {
	n, x := tablePanels.rows(), int16s(input[:t.InputLen()])
	w := t.w[row*len(x):]
	whole := len(y) / n * n
	if whole > 0 {
		simd().table(y[:whole], w[:whole*len(x)], x)
	}
	if whole < len(y) {
		var last [64]int32
		simd().table(last[:n], w[whole*len(x):(whole+n)*len(x)], x)
		copy(y[whole:], last[:])
	}
}

// MatMul is MatVec for several x [tokens, cols]: y[t·ldy + r] is the product of
// row row+r with x[t].
func (t *Int8Table) MatMul(m *Int8Scratch, y []int32, ldy int, x []int8, row, rows, tokens int) {
	m.input = resized(m.input, t.InputLen())
	for i := range tokens {
		t.Input(m.input, x[i*t.cols:])
		t.MatVec(y[i*ldy:i*ldy+rows], m.input, row)
	}
}

// Expand writes rows from row on, as many as q holds.
func (t *Int8Table) Expand(q []int8, row int) {
	step := tablePanels.rows() * tablePanels.cols()
	for ; len(q) > 0; row++ {
		at := tablePanels.at(row, 0, t.cols)
		for c := 0; c < t.cols; c += tablePanels.cols() {
			pairs := t.w[at:][:8*tablePanels.pairs-6]
			for i := range q[:min(tablePanels.cols(), t.cols-c)] {
				q[i] = int8(pairs[i/2*8+i%2])
			}
			q = q[min(tablePanels.cols(), t.cols-c):]
			at += step
		}
	}
}
