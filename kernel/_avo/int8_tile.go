package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets in kernel.int8TileArgs; TestInt8TileArgsLayout holds the Go side to
// them.
const (
	iA = 8 * iota
	iLDA
	iK4
	iB
	iC
	iLDC
	iStart
	iNext
)

// int8Tiles writes the tiles of the int8 products,
//
//	C[mr, two vectors] = start[mr] + Σ A[mr, k4]·B[k4, two vectors],
//
// where an element is four bytes, A's signed and B's unsigned.
func int8Tiles() {
	for mr := 1; mr <= avx512.rows; mr++ {
		int8TileVNNI(mr, false)
	}
	for mr := 1; mr <= twoRows; mr++ {
		int8TileVNNI(mr, true)
	}
	for mr := 1; mr <= 6; mr++ {
		int8TileNarrow(mr)
	}
	for mr := 1; mr <= 4; mr++ {
		int8TileWide(mr)
	}
	for _, s := range []isa{avx512, avx2} {
		s.int8Pack()
		s.int8Unpack()
		s.int8Expand()
		s.int8Sum()
	}
	peakInt8()
	vectorData()
}

// int8Pack writes a vector's rows of w, ld bytes apart and blocks of 16 bytes
// long, as B of a tile, plus 128: dst begins with the first vector or the
// second. Lane group j of the vectors below has rows 4j to 4j+3, so that four
// by four elements are transposed in each.
func (s isa) int8Pack() {
	TEXT("int8Pack"+s.letter, NOSPLIT, "func(dst []uint8, w []int8, ld, blocks int)")
	Pragma("noescape")
	dst, ld, ld3, blocks := GP64(), GP64(), GP64(), GP64()
	rows := make([]GPVirtual, s.lanes/4) // row 4j
	rows[0] = GP64()
	Load(Param("dst").Base(), dst)
	Load(Param("w").Base(), rows[0])
	Load(Param("ld"), ld)
	Load(Param("blocks"), blocks)
	for j := 1; j < len(rows); j++ {
		rows[j] = GP64()
		LEAQ(Mem{Base: rows[j-1], Index: ld, Scale: 4}, rows[j])
	}
	LEAQ(Mem{Base: ld, Index: ld, Scale: 2}, ld3)
	flip := s.vec()
	VPBROADCASTD(bits32(0x80808080).mem(), flip)
	TESTQ(blocks, blocks)
	JZ(LabelRef("done"))
	Label("block")
	v := make([]VecVirtual, 4)
	for r := range v {
		v[r] = s.vec()
		for j, p := range rows {
			at := Mem{Base: p}
			switch r {
			case 1, 2:
				at.Index, at.Scale = ld, uint8(r)
			case 3:
				at.Index, at.Scale = ld3, 1
			}
			switch {
			case j == 0:
				VMOVDQU(at, v[r].AsX())
			case s.lanes == 16:
				VINSERTI32X4(U8(j), at, v[r], v[r])
			default:
				VINSERTI128(U8(j), at, v[r], v[r])
			}
		}
		if s.lanes == 16 {
			VPXORD(flip, v[r], v[r])
		} else {
			VPXOR(flip, v[r], v[r])
		}
	}
	var t [4]VecVirtual
	for i := range 2 {
		t[2*i], t[2*i+1] = s.vec(), s.vec()
		VPUNPCKLDQ(v[2*i+1], v[2*i], t[2*i])
		VPUNPCKHDQ(v[2*i+1], v[2*i], t[2*i+1])
	}
	for i := range 2 {
		VPUNPCKLQDQ(t[2+i], t[i], v[2*i])
		VPUNPCKHQDQ(t[2+i], t[i], v[2*i+1])
	}
	for i, x := range v {
		VMOVUPS(x, Mem{Base: dst, Disp: 2 * i * s.bytes()})
	}
	ADDQ(U32(8*s.bytes()), dst)
	for _, p := range rows {
		ADDQ(Imm(16), p)
	}
	DECQ(blocks)
	JNZ(LabelRef("block"))
	Label("done")
	end()
}

// int8Unpack makes B of a tile of B in two bits: byte 4·step + j of the one is
// bits 2·step, 2·step + 1 of byte j of the other, for four steps.
func (s isa) int8Unpack() {
	TEXT("int8Unpack"+s.letter, NOSPLIT, "func(dst, src []uint8)")
	Pragma("noescape")
	dst, src, n := GP64(), GP64(), GP64()
	Load(Param("dst").Base(), dst)
	Load(Param("src").Base(), src)
	Load(Param("src").Len(), n)
	u := s.newTwoBits()
	Label("steps")
	for v := range 2 {
		u.load(Mem{Base: src, Disp: v * s.bytes()}, v)
	}
	for step := range 4 {
		for v := range 2 {
			x := s.vec()
			u.step(v, step, x)
			s.moveInts(x, Mem{Base: dst, Disp: (2*step + v) * s.bytes()})
		}
	}
	ADDQ(U32(2*s.bytes()), src)
	ADDQ(U32(8*s.bytes()), dst)
	SUBQ(U32(2*s.bytes()), n)
	JNZ(LabelRef("steps"))
	end()
}

// twoBits takes weights of two bits apart.
type twoBits struct {
	s    isa
	mask VecVirtual
	p    [2]VecVirtual // four steps of a vector
}

func (s isa) newTwoBits() *twoBits {
	u := &twoBits{s, s.vec(), [2]VecVirtual{s.vec(), s.vec()}}
	VPBROADCASTD(bits32(0x03030303).mem(), u.mask)
	return u
}

func (u *twoBits) load(m Mem, v int) { u.s.moveInts(m, u.p[v]) }

// step sets x to one step of vector v.
func (u *twoBits) step(v, step int, x VecVirtual) {
	from := u.p[v]
	if step > 0 {
		VPSRLW(U8(2*step), from, x)
		from = x
	}
	if u.s.lanes == 16 {
		VPANDD(u.mask, from, x)
	} else {
		VPAND(u.mask, from, x)
	}
}

// bytesLoop steps through n bytes at base+i in whole vectors, and then the
// rest: under a mask with AVX-512, else byte by byte.
func (s isa) bytesLoop(i, n GPVirtual, whole func(), masked func(k Register), single func()) {
	loops++
	label := func(name string) string { return fmt.Sprintf("%s%d", name, loops) }
	next, left := GP64(), GP64()
	XORQ(i, i)
	MOVQ(U32(s.bytes()), next)
	CMPQ(next, n)
	JGT(LabelRef(label("rest")))
	Label(label("whole"))
	whole()
	MOVQ(next, i)
	ADDQ(Imm(uint64(s.bytes())), next)
	CMPQ(next, n)
	JLE(LabelRef(label("whole")))
	Label(label("rest"))
	MOVQ(n, left)
	SUBQ(i, left)
	JZ(LabelRef(label("end")))
	if s.lanes == 16 {
		m, k := GP64(), K()
		MOVQ(I32(-1), m)
		BZHIQ(left, m, m)
		KMOVQ(m, k)
		masked(k)
	} else {
		Label(label("single"))
		single()
		INCQ(i)
		CMPQ(i, n)
		JLT(LabelRef(label("single")))
	}
	Label(label("end"))
}

// int8Expand copies the n parts of q into each of n rows, part i xor k to
// place k of row i, negated where minus is −1 and not 0: (v xor m) − m.
func (s isa) int8Expand() {
	TEXT("int8Expand"+s.letter, NOSPLIT, "func(a, q, minus []int8, n, width, stride int)")
	Pragma("noescape")
	loops = 0
	var p [6]GPVirtual
	for i, name := range []string{"a", "q", "minus", "n", "width", "stride"} {
		p[i] = GP64()
		if i < 3 {
			Load(Param(name).Base(), p[i])
		} else {
			Load(Param(name), p[i])
		}
	}
	a, q, minus, n, width, stride := p[0], p[1], p[2], p[3], p[4], p[5]
	row, k := GP64(), GP64()
	XORQ(row, row)
	Label("row")
	to := GP64()
	MOVQ(a, to)
	XORQ(k, k)
	Label("part")
	from, i := GP64(), GP64()
	MOVQ(row, from)
	XORQ(k, from)
	IMULQ(width, from)
	ADDQ(q, from)
	m, v := s.vec(), s.vec()
	VPBROADCASTB(Mem{Base: minus}, m)
	at := func(base GPVirtual) Mem { return Mem{Base: base, Index: i, Scale: 1} }
	s.bytesLoop(i, width, func() {
		if s.lanes == 16 {
			VPXORD(at(from), m, v)
			VPSUBB(m, v, v)
			VMOVDQU32(v, at(to))
			return
		}
		VPXOR(at(from), m, v)
		VPSUBB(m, v, v)
		VMOVDQU(v, at(to))
	}, func(mask Register) {
		VMOVDQU8_Z(at(from), mask, v)
		VPXORD(v, m, v)
		VPSUBB(m, v, v)
		VMOVDQU8(v, mask, at(to))
	}, func() {
		b, c := GP32(), GP32()
		MOVBLSX(at(from), b)
		MOVBLSX(Mem{Base: minus}, c)
		XORL(c, b)
		SUBL(c, b)
		MOVB(b.As8(), at(to))
	})
	ADDQ(width, to)
	INCQ(minus)
	INCQ(k)
	CMPQ(k, n)
	JLT(LabelRef("part"))
	ADDQ(stride, a)
	INCQ(row)
	CMPQ(row, n)
	JLT(LabelRef("row"))
	end()
}

// int8Sum adds up bytes: VPSADBW adds eight unsigned ones, x+128.
func (s isa) int8Sum() {
	TEXT("int8Sum"+s.letter, NOSPLIT, "func(x []int8) int32")
	Pragma("noescape")
	loops = 0
	x, n, i, sum := GP64(), GP64(), GP64(), GP64()
	Load(Param("x").Base(), x)
	Load(Param("x").Len(), n)
	acc, zero, v := s.zeros(), s.zeros(), s.vec()
	flip := s.vec()
	VPBROADCASTD(bits32(0x80808080).mem(), flip)
	rest := GP64()
	XORQ(rest, rest)
	at := Mem{Base: x, Index: i, Scale: 1}
	add := func() {
		VPSADBW(zero, v, v)
		VPADDQ(v, acc, acc)
	}
	s.bytesLoop(i, n, func() {
		if s.lanes == 16 {
			VPXORD(at, flip, v)
		} else {
			VPXOR(at, flip, v)
		}
		add()
	}, func(mask Register) {
		VMOVDQU8_Z(at, mask, v)
		masked := s.vec()
		VMOVDQU8_Z(flip, mask, masked)
		VPXORD(masked, v, v)
		add()
	}, func() {
		b := GP64()
		MOVBQSX(at, b)
		LEAQ(Mem{Base: rest, Index: b, Scale: 1, Disp: 128}, rest)
	})
	f := s.fold(acc, VPADDQ)
	t := XMM()
	VPSHUFD(U8(0x4e), f, t)
	VPADDQ(t, f, f)
	VMOVQ(f, sum)
	ADDQ(rest, sum)
	SHLQ(U8(7), n)
	SUBQ(n, sum)
	Store(sum.As32(), ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// int8Tile is what the tiles have in common.
type int8Tile struct {
	s       isa
	mr      int
	t, b, k GPVirtual
	bases   []GPVirtual // of every third row of A
	lda     GPVirtual
}

func newInt8Tile(s isa, name string, mr int) *int8Tile {
	TEXT(fmt.Sprint(name, mr), NOSPLIT, "func(t *byte)")
	Pragma("noescape")
	t := &int8Tile{s: s, mr: mr, t: GP64(), b: GP64(), k: GP64()}
	Load(Param("t"), t.t)
	if mr > 1 {
		t.lda = t.arg(iLDA)
	}
	for i := range (mr + 2) / 3 {
		p := GP64()
		if i == 0 {
			MOVQ(Mem{Base: t.t, Disp: iA}, p)
		} else {
			LEAQ(Mem{Base: t.bases[i-1], Index: t.lda, Scale: 2}, p)
			ADDQ(t.lda, p)
		}
		t.bases = append(t.bases, p)
	}
	MOVQ(Mem{Base: t.t, Disp: iB}, t.b)
	MOVQ(Mem{Base: t.t, Disp: iK4}, t.k)
	return t
}

// arg loads an argument.
func (t *int8Tile) arg(off int) GPVirtual {
	p := GP64()
	MOVQ(Mem{Base: t.t, Disp: off}, p)
	return p
}

// at is the four bytes of row r, u steps ahead.
func (t *int8Tile) at(r, u int) Mem {
	m := Mem{Base: t.bases[r/3], Disp: 4 * u}
	if r%3 > 0 {
		m.Index, m.Scale = t.lda, uint8(r%3)
	}
	return m
}

// weights is vector v of B, u steps ahead.
func (t *int8Tile) weights(v, u int) Mem {
	return Mem{Base: t.b, Disp: (2*u + v) * t.s.bytes()}
}

func (t *int8Tile) advance(steps int) {
	for _, p := range t.bases {
		ADDQ(Imm(uint64(4*steps)), p)
	}
	ADDQ(U32(2*steps*t.s.bytes()), t.b)
}

// loop does k steps, four at a time and then one; k counts below 0.
func (t *int8Tile) loop(k GPVirtual, step func(u int)) {
	SUBQ(Imm(4), k)
	JLT(LabelRef("rest"))
	Label("loop")
	for u := range 4 {
		step(u)
	}
	t.advance(4)
	SUBQ(Imm(4), k)
	JGE(LabelRef("loop"))
	Label("rest")
	ADDQ(Imm(4), k)
	JZ(LabelRef("done"))
	Label("single")
	step(0)
	t.advance(1)
	DECQ(k)
	JNZ(LabelRef("single"))
	Label("done")
}

// vectors is a vector for every row and half.
func (t *int8Tile) vectors() [][2]VecVirtual {
	c := make([][2]VecVirtual, t.mr)
	for r := range c {
		c[r] = [2]VecVirtual{t.s.vec(), t.s.vec()}
	}
	return c
}

// begin loads the start values of every row into c.
func (t *int8Tile) begin(c [][2]VecVirtual) {
	start := t.arg(iStart)
	for r := range c {
		VPBROADCASTD(Mem{Base: start, Disp: 4 * r}, c[r][0])
		t.s.moveInts(c[r][0], c[r][1])
	}
}

// rows calls f with every row's place in C.
func (t *int8Tile) rows(f func(r int, at [2]Mem)) {
	c, ldc := t.arg(iC), t.arg(iLDC)
	for r := range t.mr {
		f(r, [2]Mem{{Base: c}, {Base: c, Disp: t.s.bytes()}})
		if r < t.mr-1 {
			ADDQ(ldc, c)
		}
	}
}

// twoRows is the height of the largest tile for weights of two bits.
const twoRows = 12

// int8TileVNNI is one instruction a row and vector. It takes five cycles, two
// may begin in one: with less than ten sums, steps take turns at several. Each
// step asks for a line of the memory that is wanted next.
//
// Weights of two bits come four steps in a byte, and so do lines to ask for.
func int8TileVNNI(mr int, two bool) {
	name := "int8TileZ"
	if two {
		name = "int8TileTwoZ"
	}
	t := newInt8Tile(avx512, name, mr)
	turns := 1
	switch {
	case mr <= 2:
		turns = 4
	case mr <= 4:
		turns = 2
	}
	c := make([][][2]VecVirtual, turns)
	for i := range c {
		c[i] = t.vectors()
		if i == 0 {
			t.begin(c[0])
			continue
		}
		for _, row := range c[i] {
			t.s.zero(row[0])
			t.s.zero(row[1])
		}
	}
	a, b := t.s.vec(), [2]VecVirtual{t.s.vec(), t.s.vec()}
	next := t.arg(iNext)
	fetch := func() {
		PREFETCHT0(Mem{Base: next})
		ADDQ(Imm(64), next)
	}
	multiply := func(u int) {
		for r, row := range c[u%turns] {
			VPBROADCASTD(t.at(r, u), a)
			for v := range b {
				VPDPBUSD(a, b[v], row[v])
			}
		}
	}
	if two {
		w := t.s.newTwoBits()
		Label("loop")
		for v := range b {
			fetch()
			w.load(t.weights(v, 0), v)
		}
		for u := range 4 {
			for v := range b {
				w.step(v, u, b[v])
			}
			multiply(u)
		}
		for _, p := range t.bases {
			ADDQ(Imm(16), p)
		}
		ADDQ(U32(2*t.s.bytes()), t.b)
		SUBQ(Imm(4), t.k)
		JNZ(LabelRef("loop"))
	} else {
		t.loop(t.k, func(u int) {
			fetch()
			for v := range b {
				t.s.moveInts(t.weights(v, u), b[v])
			}
			multiply(u)
		})
	}
	for n := turns / 2; n > 0; n /= 2 {
		for i := range n {
			for r := range mr {
				for v := range b {
					VPADDD(c[i+n][r][v], c[i][r][v], c[i][r][v])
				}
			}
		}
	}
	t.rows(func(r int, at [2]Mem) {
		t.s.moveInts(c[0][r][0], at[0])
		t.s.moveInts(c[0][r][1], at[1])
	})
	end()
}

// narrowSteps is how many steps of weights of at most 2 may be added up in 16
// bits: 64·2·2·127 < 2¹⁵.
const narrowSteps = 64

// int8TileNarrow is for weights of at most 2: pairs of products are added up
// in 16 bits and from time to time added to C, in memory.
func int8TileNarrow(mr int) {
	t := newInt8Tile(avx2, "int8TileNarrowY", mr)
	{
		start, v := t.arg(iStart), YMM()
		t.rows(func(r int, at [2]Mem) {
			VPBROADCASTD(Mem{Base: start, Disp: 4 * r}, v)
			t.s.moveInts(v, at[0])
			t.s.moveInts(v, at[1])
		})
	}
	c := t.vectors()
	steps, most := GP64(), GP64()
	Label("part")
	MOVQ(U32(narrowSteps), most)
	MOVQ(t.k, steps)
	CMPQ(steps, most)
	CMOVQGT(most, steps)
	SUBQ(steps, t.k)
	for r := range c {
		t.s.zero(c[r][0])
		t.s.zero(c[r][1])
	}
	b, x := [2]VecVirtual{YMM(), YMM()}, [2]VecVirtual{YMM(), YMM()}
	t.loop(steps, func(u int) {
		for v := range b {
			t.s.moveInts(t.weights(v, u), b[v])
		}
		for r := range c {
			VPBROADCASTD(t.at(r, u), x[1])
			VPMADDUBSW(x[1], b[0], x[0])
			VPMADDUBSW(x[1], b[1], x[1])
			for v := range x {
				VPADDW(x[v], c[r][v], c[r][v])
			}
		}
	})
	t.rows(func(r int, at [2]Mem) {
		for v := range at {
			VPMADDWD(bits32(0x00010001).mem(), c[r][v], c[r][v])
			VPADDD(at[v], c[r][v], c[r][v])
			t.s.moveInts(c[r][v], at[v])
		}
	})
	TESTQ(t.k, t.k)
	JNZ(LabelRef("part"))
	end()
}

// int8TileWide is for all weights: bytes 0 and 2, and 1 and 3, of A and B are
// widened to 16 bits, whose products do not saturate.
func int8TileWide(mr int) {
	t := newInt8Tile(avx2, "int8TileWideY", mr)
	c := t.vectors()
	t.begin(c)
	even, odd := [2]VecVirtual{YMM(), YMM()}, [2]VecVirtual{YMM(), YMM()}
	ae, ao, x := YMM(), YMM(), YMM()
	t.loop(t.k, func(u int) {
		for v := range even {
			t.s.moveInts(t.weights(v, u), even[v])
			VPSRLW(U8(8), even[v], odd[v])
			VPAND(bits32(0x00ff00ff).mem(), even[v], even[v])
		}
		for r := range c {
			VPBROADCASTD(t.at(r, u), ao)
			VPSLLW(U8(8), ao, ae)
			VPSRAW(U8(8), ae, ae)
			VPSRAW(U8(8), ao, ao)
			for v := range even {
				VPMADDWD(ae, even[v], x)
				VPADDD(x, c[r][v], c[r][v])
				VPMADDWD(ao, odd[v], x)
				VPADDD(x, c[r][v], c[r][v])
			}
		}
	})
	t.rows(func(r int, at [2]Mem) {
		t.s.moveInts(c[r][0], at[0])
		t.s.moveInts(c[r][1], at[1])
	})
	end()
}

// peakInt8 is n rounds of the tiles' instructions on registers alone, 12
// independent ones a round: what the tiles are held against.
func peakInt8() {
	for _, s := range []isa{avx512, avx2} {
		TEXT("peakInt8"+s.letter, NOSPLIT, "func(n int)")
		n := Load(Param("n"), GP64())
		acc := s.accumulators(12)
		a, b := s.zeros(), s.zeros()
		Label("loop")
		for i := range acc {
			if s.lanes == 16 {
				VPDPBUSD(a, b, acc[i])
			} else {
				x := s.vec()
				VPMADDUBSW(a, b, x)
				VPADDW(x, acc[i], acc[i])
			}
		}
		DECQ(n)
		JNZ(LabelRef("loop"))
		end()
	}
}
