package kernel

// GroupSize is the number of values of a row that share a factor.
const GroupSize = 32

// Grouped is a table of int8 rows, kept in 4 or 6 bits a value as a .spinnet
// file has it (docs/format.md): every run of GroupSize values of a row is a
// factor times integers q of so many bits. With u = q + half, byte j of the 16
// of a group in Low has the low four bits of u[j] and u[j+16]; with 6 bits,
// byte j of 8 in High has the high two bits of u[j], u[j+8], u[j+16] and
// u[j+24]. Values after the end of a row are q = 0. Products are in ±127.
type Grouped struct {
	Cols, Bits         int
	Low, High, Factors []byte
}

// groups is the number of groups of a row.
func (g *Grouped) groups() int { return (g.Cols + GroupSize - 1) / GroupSize }

// rows gives the memory of n rows from row on.
func (g *Grouped) rows(row, n int) (low, high, factors []byte) {
	lo, hi := row*g.groups(), (row+n)*g.groups()
	if g.Bits == 6 {
		high = g.High[8*lo : 8*hi]
	}
	return g.Low[16*lo : 16*hi], high, g.Factors[lo:hi]
}

// groupedKernels is one implementation. Functions come for 4 bits and for 6.
type groupedKernels struct {
	input  func(input, x []int8, half int)                                         // x for matVec
	matVec [2]func(y []int32, low, high, factors []byte, input []int8, groups int) // of len(y) rows
	expand [2]func(q []int8, low, high, factors []byte, blocks int)                // of four groups each
}

// grouped is the implementation of the active set.
func grouped() *groupedKernels { return groupedSets[active] }

// refGrouped is the definition.
var refGrouped = &groupedKernels{
	input: func(input, x []int8, _ int) { clear(input[copy(input, x):]) },
	matVec: [2]func([]int32, []byte, []byte, []byte, []int8, int){
		func(y []int32, low, high, factors []byte, input []int8, groups int) {
			refGroupedMatVec(y, low, high, factors, input, groups, 4)
		},
		func(y []int32, low, high, factors []byte, input []int8, groups int) {
			refGroupedMatVec(y, low, high, factors, input, groups, 6)
		},
	},
	expand: [2]func([]int8, []byte, []byte, []byte, int){
		func(q []int8, low, high, factors []byte, blocks int) {
			refGroupedExpand(q, low, high, factors, 4*blocks, 4)
		},
		func(q []int8, low, high, factors []byte, blocks int) {
			refGroupedExpand(q, low, high, factors, 4*blocks, 6)
		},
	},
}

// refGroupedExpand writes the values of a number of groups.
func refGroupedExpand(q []int8, low, high, factors []byte, groups, bits int) {
	for i := range groups {
		f, values := int8(factors[i]), q[GroupSize*i:][:GroupSize]
		for j := range values {
			u := int8(low[16*i+j%16] >> (j / 16 * 4) & 15)
			if bits == 6 {
				u |= int8(high[8*i+j%8] >> (j / 8 * 2) & 3 << 4)
			}
			values[j] = f * (u - 1<<(bits-1))
		}
	}
}

// refGroupedMatVec is y[r] = Σ over the groups of f·Σ q·x.
func refGroupedMatVec(y []int32, low, high, factors []byte, input []int8, groups, bits int) {
	var q [GroupSize]int8
	for r := range y {
		y[r] = 0
		for i := range groups {
			at := r*groups + i
			h := high
			if bits == 6 {
				h = high[8*at:]
			}
			refGroupedExpand(q[:], low[16*at:], h, factors[at:], 1, bits)
			for j, x := range input[GroupSize*i:][:GroupSize] {
				y[r] += int32(q[j]) * int32(x)
			}
		}
	}
}

// groupedBlock is the length of the arranged input of four groups.
const groupedBlock = 3 * 64

// GroupedKernels reports whether the set in use has kernels for Grouped; they
// are slow otherwise, and Int8 products of expanded rows faster.
func GroupedKernels() bool { return grouped() != refGrouped }

// kind is the index of the functions for g's bits.
func (g *Grouped) kind() int { return (g.Bits - 4) / 2 }

// InputLen is the length of an Input.
func (g *Grouped) InputLen() int { return (g.groups() + 3) / 4 * groupedBlock }

// Input arranges x [Cols], in −127 … 127, for MatVec.
func (g *Grouped) Input(input, x []int8) {
	grouped().input(input[:g.InputLen()], x[:g.Cols], 1<<(g.Bits-1))
}

// MatVec sets y to the products of rows from row on with an Input, exactly as
// MatVecInt8 of the expanded rows.
func (g *Grouped) MatVec(y []int32, input []int8, row int) {
	low, high, factors := g.rows(row, len(y))
	grouped().matVec[g.kind()](y, low, high, factors, input[:g.InputLen()], g.groups())
}

// Expand writes the values of rows from row on, as many as q holds.
func (g *Grouped) Expand(q []int8, row int) {
	for step := g.Cols; len(q) > 0; q = q[step:] {
		whole := g.Cols / GroupSize
		if g.Cols%GroupSize == 0 { // rows are one after another
			step = len(q)
			whole = step / GroupSize
		}
		low, high, factors := g.rows(row, (step+g.Cols-1)/g.Cols)
		blocks := whole / 4
		if blocks > 0 {
			grouped().expand[g.kind()](q, low, high, factors, blocks)
		}
		var rest [4 * GroupSize]int8
		done := 4 * blocks
		if done < len(factors) {
			refGroupedExpand(rest[:], low[16*done:], high[min(len(high), 8*done):], factors[done:], len(factors)-done, g.Bits)
			copy(q[GroupSize*done:step], rest[:])
		}
		row++
	}
}

// MatMul is MatMulInt8 of rows from row on.
func (g *Grouped) MatMul(m *Int8Scratch, y []int32, ldy int, x []int8, row, rows, tokens int) {
	if s := int8Tiles(); s.pack != nil && g.Cols >= 16 && tokens > 1 {
		matMulInt8(m, y, ldy, nil, g, row, x, rows, g.Cols, tokens)
		return
	}
	m.input = resized(m.input, g.InputLen())
	for i := range tokens {
		g.Input(m.input, x[i*g.Cols:])
		g.MatVec(y[i*ldy:i*ldy+rows], m.input, row)
	}
}
