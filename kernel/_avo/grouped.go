package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Tables whose values are integers of 4 or 6 bits with a factor a group of 32
// (kernel.Grouped). 16 bytes of memory, a lane of the vectors below, are the
// low bits of a group.

// groupedBlock is the length of the input of four groups: the first halves of
// the groups, their second halves, and what sums start from, 64 bytes each.
const groupedBlock = 3 * 64

func groupedKernels() {
	for _, s := range []isa{avx512, avx2} {
		for _, bits := range []int{4, 6} {
			s.groupedMatVec(bits)
			s.groupedExpand(bits)
		}
	}
	vectorData()
	table("factorDwords", func(lane, i int) int { return pick(i%4 == 0, lane, 0x80) })
	table("factorWords", func(lane, i int) int { return pick(i%2 == 0, lane, 0x80) })
	table("factorWordsHigh", func(lane, i int) int { return pick(i%2 == 0, lane+2, 0x80) })
	table("twice", func(lane, i int) int { return pick(i%8 == 0, lane, 0) }) // quadwords 0, 0, 1, 1, …
	table("left", func(_, i int) int { return pick(i%8 == 0, 4-i/8*2, 0) })  // quadwords 4, 2, …
	table("right", func(_, i int) int { return pick(i == 8, 2, 0) })         // quadwords 0, 2, …
	table("firstLanes", func(lane, i int) int { return pick(i%8 == 0, []int{0, 1, 8, 9, 2, 3, 10, 11}[2*lane+i/8], 0) })
	table("lastLanes", func(lane, i int) int { return pick(i%8 == 0, []int{4, 5, 12, 13, 6, 7, 14, 15}[2*lane+i/8], 0) })
}

func pick(first bool, a, b int) int {
	if first {
		return a
	}
	return b
}

// table is 64 bytes of constants: byte i of every lane.
func table(name string, value func(lane, i int) int) {
	GLOBL(name, RODATA|NOPTR)
	for i := 0; i < 64; i += 8 {
		v := uint64(0)
		for j := range 8 {
			v |= uint64(value(i/16, i%16+j)) << (8 * j)
		}
		DATA(i, U64(v))
	}
}

func tableMem(name string) Mem { return NewDataAddr(Symbol{Name: name, Static: true}, 0) }

// grouped unpacks groups: those of a row at low, high and factors.
type grouped struct {
	s                  isa
	bits               int
	low, high, factors GPVirtual
	nibble, top        VecVirtual // 0x0f and 0x30 in every byte
	twice, left, right VecVirtual
}

func (s isa) newGrouped(bits int) *grouped {
	g := &grouped{s: s, bits: bits, low: GP64(), factors: GP64(), nibble: s.vec()}
	Load(Param("low").Base(), g.low)
	Load(Param("factors").Base(), g.factors)
	VPBROADCASTD(bits32(0x0f0f0f0f).mem(), g.nibble)
	if bits == 4 {
		return g
	}
	g.high, g.top, g.left, g.right = GP64(), s.vec(), s.vec(), s.vec()
	Load(Param("high").Base(), g.high)
	VPBROADCASTD(bits32(0x30303030).mem(), g.top)
	s.moveInts(tableMem("left"), g.left)
	s.moveInts(tableMem("right"), g.right)
	if s.lanes == 16 {
		g.twice = s.vec()
		s.moveInts(tableMem("twice"), g.twice)
	}
	return g
}

func (s isa) moveInts(from, to Op) {
	if s.lanes == 16 {
		VMOVDQU32(from, to)
	} else {
		VMOVDQU(from, to)
	}
}

// halves splits the bytes of n, low bits of groups, into the values of the
// first half of each group and those of the second. With 6 bits, h has the 8
// bytes of high bits of each group twice.
func (g *grouped) halves(n, h, first, second VecVirtual) {
	and := func(x, y, d Op) {
		if g.s.lanes == 16 {
			VPANDD(x, y, d)
		} else {
			VPAND(x, y, d)
		}
	}
	and(g.nibble, n, first)
	VPSRLW(U8(4), n, second)
	and(g.nibble, second, second)
	if g.bits == 4 {
		return
	}
	t := g.s.vec()
	for _, part := range []struct {
		shift opFunc
		by, v VecVirtual
	}{{VPSLLVQ, g.left, first}, {VPSRLVQ, g.right, second}} {
		part.shift(part.by, h, t)
		if g.s.lanes == 16 {
			VPTERNLOGD(U8(0xf8), g.top, t, part.v) // v | t&top
		} else {
			VPAND(g.top, t, t)
			VPOR(t, part.v, part.v)
		}
	}
}

// groupedMatVec is y[r] = Σ over the groups of row r of f·Σ q·x, four rows at
// a time, then one. With u = q + half, a sum of u·x starts from −half·Σx.
//
// AVX-512: of four groups, four lanes of 32 bits each, VPDPBUSD adds up eight
// products a lane; they fit 16 bits, so VPDPWSSD multiplies by the factors and
// adds. AVX2 does the same with pairs of products in 16 bits.
func (s isa) groupedMatVec(bits int) {
	TEXT(fmt.Sprintf("groupedMatVec%d%s", bits, s.letter), NOSPLIT, "func(y []int32, low, high, factors []byte, input []int8, groups int)")
	Pragma("noescape")
	g := s.newGrouped(bits)
	y, rows, input, groups := GP64(), GP64(), GP64(), GP64()
	Load(Param("y").Base(), y)
	Load(Param("y").Len(), rows)
	Load(Param("input").Base(), input)
	Load(Param("groups"), groups)
	groups3, by8, by24 := GP64(), GP64(), GP64()
	LEAQ(Mem{Base: groups, Index: groups, Scale: 2}, groups3)
	MOVQ(groups, by8)
	SHLQ(U8(3), by8)
	LEAQ(Mem{Base: by8, Index: by8, Scale: 2}, by24)
	row := func(base, one, three GPVirtual, scale, r int) Mem {
		m := Mem{Base: base}
		switch r {
		case 1, 2:
			m.Index, m.Scale = one, uint8(r*scale)
		case 3:
			m.Index, m.Scale = three, uint8(scale)
		}
		return m
	}
	at := &groupedRows{g: g, n: s.vec(), h: s.vec(),
		low:     func(r int) Mem { return row(g.low, by8, by24, 2, r) },
		high:    func(r int) Mem { return row(g.high, by8, by24, 1, r) },
		factors: func(r int) Mem { return row(g.factors, groups, groups3, 1, r) },
	}
	if s.lanes == 16 {
		at.masks(groups)
	}
	for _, many := range []int{4, 1} {
		label := func(name string) string { return fmt.Sprint(name, many) }
		Label(label("rows"))
		CMPQ(rows, Imm(uint64(many)))
		JLT(LabelRef(label("out")))
		acc := s.accumulators(many)
		k := GP64()
		at.x = GP64()
		MOVQ(input, at.x)
		MOVQ(groups, k)
		SUBQ(Imm(4), k)
		JLT(LabelRef(label("last")))
		Label(label("block"))
		if s.lanes == 16 {
			at.block512(acc, false)
		} else {
			for half := range 2 {
				at.block256(acc, 32*half, false)
			}
		}
		ADDQ(U32(groupedBlock), at.x)
		ADDQ(Imm(64), g.low)
		if g.high != nil {
			ADDQ(Imm(32), g.high)
		}
		ADDQ(Imm(4), g.factors)
		SUBQ(Imm(4), k)
		JGE(LabelRef(label("block")))
		Label(label("last"))
		ADDQ(Imm(4), k)
		JZ(LabelRef(label("sum")))
		if s.lanes == 16 {
			at.block512(acc, true)
			ADDQ(k, g.factors)
			SHLQ(U8(3), k)
			if g.high != nil {
				ADDQ(k, g.high)
			}
			LEAQ(Mem{Base: g.low, Index: k, Scale: 2}, g.low)
		} else {
			Label(label("group"))
			at.block256(acc, 0, true)
			ADDQ(Imm(16), at.x)
			ADDQ(Imm(16), g.low)
			if g.high != nil {
				ADDQ(Imm(8), g.high)
			}
			INCQ(g.factors)
			DECQ(k)
			JNZ(LabelRef(label("group")))
		}
		Label(label("sum"))
		if many == 4 {
			VMOVDQU(s.sumRows(acc), Mem{Base: y})
			LEAQ(Mem{Base: g.low, Index: by24, Scale: 2}, g.low)
			if g.high != nil {
				ADDQ(by24, g.high)
			}
			ADDQ(groups3, g.factors)
		} else {
			VMOVD(s.sumInt32(acc[0]), Mem{Base: y})
		}
		ADDQ(Imm(uint64(4*many)), y)
		SUBQ(Imm(uint64(many)), rows)
		JMP(LabelRef(label("rows")))
		Label(label("out"))
	}
	end()
}

// sumRows adds up the lanes of four vectors.
func (s isa) sumRows(v []VecVirtual) VecVirtual {
	var t [4]VecVirtual
	for i := range 2 {
		t[2*i], t[2*i+1] = s.vec(), s.vec()
		VPUNPCKLDQ(v[2*i+1], v[2*i], t[2*i])
		VPUNPCKHDQ(v[2*i+1], v[2*i], t[2*i+1])
		VPADDD(t[2*i+1], t[2*i], t[2*i])
	}
	VPUNPCKLQDQ(t[2], t[0], t[1])
	VPUNPCKHQDQ(t[2], t[0], t[3])
	VPADDD(t[3], t[1], t[1])
	return s.fold(t[1], VPADDD)
}

// groupedRows are the groups at one place of several rows.
type groupedRows struct {
	g                  *grouped
	low, high, factors func(r int) Mem
	x                  GPVirtual
	n, h               VecVirtual // bits of some groups
	kLow, kHigh, kFact Register   // of the groups after the last four
}

// masks sets the masks for groups mod 4 groups.
func (b *groupedRows) masks(groups GPVirtual) {
	n, ones := GP64(), GP64()
	MOVQ(groups, n)
	ANDQ(Imm(3), n)
	MOVQ(I32(-1), ones)
	for i, k := range []*Register{&b.kFact, &b.kHigh, &b.kLow} {
		if *k = K(); i > 0 { // 1, 2 and 4 elements a group
			ADDQ(n, n)
		}
		m := GP64()
		BZHIQ(n, ones, m)
		KMOVW(m.As32(), *k)
	}
}

// block512 adds the products of four groups of every row, or of those of the
// masks.
func (b *groupedRows) block512(acc []VecVirtual, masked bool) {
	g := b.g
	x := [2]VecVirtual{ZMM(), ZMM()}
	start, pattern := ZMM(), ZMM()
	for i, v := range []VecVirtual{x[0], x[1], start} {
		VMOVDQU32(Mem{Base: b.x, Disp: 64 * i}, v)
	}
	VMOVDQU32(tableMem("factorDwords"), pattern)
	n, h, first, second, f, s := b.n, b.h, ZMM(), ZMM(), ZMM(), ZMM()
	for r := range acc {
		switch {
		case masked:
			VMOVDQU32_Z(b.low(r), b.kLow, n)
			VMOVDQU8_Z(b.factors(r), b.kFact, f.AsX())
			VPBROADCASTD(f.AsX(), f)
		default:
			VMOVDQU32(b.low(r), n)
			VPBROADCASTD(b.factors(r), f)
		}
		if g.bits == 6 {
			if masked {
				VMOVDQU32_Z(b.high(r), b.kHigh, h.AsY())
			} else {
				VMOVDQU32(b.high(r), h.AsY())
			}
			VPERMQ(h, g.twice, h)
		}
		VPSHUFB(pattern, f, f)
		g.halves(n, h, first, second)
		VMOVDQU32(start, s)
		VPDPBUSD(x[0], first, s)
		VPDPBUSD(x[1], second, s)
		VPDPWSSD(f, s, acc[r])
	}
}

// block256 adds the products of two groups of every row, off bytes ahead, or
// of one: its upper lane is then 0.
func (b *groupedRows) block256(acc []VecVirtual, off int, one bool) {
	g := b.g
	ahead := func(m Mem, by int) Mem {
		m.Disp += by
		return m
	}
	x := func(i int) Mem { return Mem{Base: b.x, Disp: 64*i + off} }
	n, h, first, second, f := b.n, b.h, YMM(), YMM(), YMM()
	for r := range acc {
		if one {
			VMOVDQU(b.low(r), n.AsX())
			VPBROADCASTB(b.factors(r), f)
			VPAND(bits32(0x00ff00ff).mem(), f, f)
		} else {
			VMOVDQU(ahead(b.low(r), off), n)
			VPBROADCASTD(b.factors(r), f)
			VPSHUFB(tableMem([]string{"factorWords", "factorWordsHigh"}[off/32]), f, f)
		}
		if g.bits == 6 {
			if one {
				VMOVQ(b.high(r), h.AsX())
			} else {
				VMOVDQU(ahead(b.high(r), off/2), h.AsX())
			}
			VPERMQ(U8(0x50), h, h) // quadwords 0, 0, 1, 1
		}
		g.halves(n, h, first, second)
		VPMADDUBSW(x(0), first, first)
		VPMADDUBSW(x(1), second, second)
		if one {
			VMOVDQU(x(2), n.AsX())
			VPADDW(n, first, first)
		} else {
			VPADDW(x(2), first, first)
		}
		VPADDW(second, first, first)
		VPMADDWD(f, first, first)
		VPADDD(first, acc[r], acc[r])
	}
}

// groupedExpand writes the values of groups, four at a time: q = u − half times
// f, modulo 256 for bytes 0, 2, … and for bytes 1, 3, … of words.
func (s isa) groupedExpand(bits int) {
	TEXT(fmt.Sprintf("groupedExpand%d%s", bits, s.letter), NOSPLIT, "func(q []int8, low, high, factors []byte, blocks int)")
	Pragma("noescape")
	g := s.newGrouped(bits)
	q, blocks := GP64(), GP64()
	Load(Param("q").Base(), q)
	Load(Param("blocks"), blocks)
	half, words := s.vec(), s.vec()
	VPBROADCASTD(bits32(map[int]uint32{4: 0x08080808, 6: 0x20202020}[bits]).mem(), half)
	VPBROADCASTD(bits32(0x00ff00ff).mem(), words)
	var lanes [2]VecVirtual
	if s.lanes == 16 {
		for i, name := range []string{"firstLanes", "lastLanes"} {
			lanes[i] = s.vec()
			VMOVDQU32(tableMem(name), lanes[i])
		}
	}
	n, h, f, even := s.vec(), s.vec(), s.vec(), s.vec()
	v := [2]VecVirtual{s.vec(), s.vec()}
	Label("block")
	for off := 0; off < 64; off += s.bytes() {
		s.moveInts(Mem{Base: g.low, Disp: off}, n)
		if bits == 6 {
			if s.lanes == 16 {
				VMOVDQU(Mem{Base: g.high}, h.AsY())
				VPERMQ(h, g.twice, h)
			} else {
				VMOVDQU(Mem{Base: g.high, Disp: off / 2}, h.AsX())
				VPERMQ(U8(0x50), h, h)
			}
		}
		VPBROADCASTD(Mem{Base: g.factors}, f)
		VPSHUFB(tableMem([]string{"factorWords", "factorWordsHigh"}[off/32]), f, f)
		g.halves(n, h, v[0], v[1])
		for _, u := range v {
			VPSUBB(half, u, u)
			if s.lanes == 16 {
				VPANDD(words, u, even)
				VPANDND(u, words, u)
			} else {
				VPAND(words, u, even)
				VPANDN(u, words, u)
			}
			VPMULLW(f, even, even)
			VPMULLW(f, u, u)
			if s.lanes == 16 {
				VPTERNLOGD(U8(0xf8), words, even, u) // u | even&words
			} else {
				VPAND(words, even, even)
				VPOR(even, u, u)
			}
		}
		for i := range v {
			switch {
			case s.lanes == 16:
				VMOVDQU32(v[0], even)
				VPERMT2Q(v[1], lanes[i], even)
			default:
				VPERM2I128(U8([]uint8{0x20, 0x31}[i]), v[1], v[0], even)
			}
			s.moveInts(even, Mem{Base: q, Disp: 2*off + i*s.bytes()})
		}
	}
	ADDQ(Imm(64), g.low)
	if bits == 6 {
		ADDQ(Imm(32), g.high)
	}
	ADDQ(Imm(4), g.factors)
	ADDQ(U32(128), q)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	end()
}
