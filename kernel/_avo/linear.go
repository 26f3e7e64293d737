package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets in kernel.whtArgs; TestWHTArgsLayout holds the Go side to them.
const (
	wSrc = 8 * iota
	wSrcPart
	wSrcRow
	wDst
	wDstPart
	wDstRow
	wRaw
	wRawPart
	wRawRow
	wRows
	wVecs
	wMask
	wMaskY
	wScale
	wRawScale = wScale + 32
	wIndex    = wRawScale + 8
)

// linear writes the 8-point Walsh–Hadamard transforms of the fast linear
// layers, and the transposing pack.
func linear() {
	for _, s := range []isa{avx512, avx2} {
		whtIn(s, "whtIn", false, false)
		whtIn(s, "whtInRaw", true, false)
		whtIn(s, "whtGatherRaw", true, true)
		whtIn(s, "whtGather", false, true)
		whtOut(s, "whtOut", false)
		whtOut(s, "whtOutAcc", true)
		gatherPack(s)
	}
}

// parts addresses 8 parts a stride apart from three pointers.
type parts struct {
	base   [3]GPVirtual
	stride GPVirtual
}

func loadParts(t Register, off int) parts {
	var p parts
	p.stride = GP64()
	MOVQ(Mem{Base: t, Disp: off + 8}, p.stride)
	for i := range p.base {
		p.base[i] = GP64()
		if i == 0 {
			MOVQ(Mem{Base: t, Disp: off}, p.base[0])
			continue
		}
		LEAQ(Mem{Base: p.base[i-1], Index: p.stride, Scale: 2}, p.base[i])
		ADDQ(p.stride, p.base[i])
	}
	return p
}

func (p parts) at(i int) Mem {
	m := Mem{Base: p.base[i/3]}
	if i%3 > 0 {
		m.Index, m.Scale = p.stride, uint8(i%3)
	}
	return m
}

func (p parts) add(by Op) {
	for _, b := range p.base {
		ADDQ(by, b)
	}
}

// tailMask sets the mask of the lanes that exist: all, but for the last
// vector of a row.
func tailMask(s isa, t, left Register, v VecVirtual) {
	m := GP64()
	last := Mem{Base: t, Disp: wMask}
	if s.lanes == 16 {
		MOVQ(I32(-1), m)
	} else {
		LEAQ(allLanes(), m)
		last.Disp = wMaskY
	}
	CMPQ(left, Imm(1))
	CMOVQEQ(last, m)
	if s.lanes == 16 {
		KMOVW(m.As32(), K1)
	} else {
		VMOVUPS(Mem{Base: m}, v)
	}
}

var ones = map[string]Mem{}

func allLanes() Mem {
	if m, ok := ones["y"]; ok {
		return m
	}
	m := GLOBL("allLanes", 8+16) // RODATA|NOPTR
	for i := range 8 {
		DATA(4*i, U32(0xffffffff))
	}
	ones["y"] = m
	return m
}

// butterfly is one level of the transform on pairs h apart.
func butterfly(a []VecVirtual, tmp VecVirtual, h int) {
	for i := range a {
		if i&h != 0 {
			continue
		}
		VSUBPS(a[i+h], a[i], tmp)
		VADDPS(a[i+h], a[i], a[i])
		a[i+h], tmp = tmp, a[i+h]
	}
}

func eight(s isa) []VecVirtual {
	a := make([]VecVirtual, 8)
	for i := range a {
		a[i] = s.vec()
	}
	return a
}

// whtIn transforms rows of 8 parts: dst_a = Σ_b H[a][b]·scale_b·src_b, and
// with raw also writes rawScale·src_b. Gathering reads lanes from rows of
// src instead (index), one k a row.
func whtIn(s isa, name string, raw, gather bool) {
	TEXT(name+s.letter, 4, "func(t *byte)")
	Pragma("noescape")
	t := Load(Param("t"), GP64())
	src, dst := loadParts(t, wSrc), loadParts(t, wDst)
	var rw parts
	if raw {
		rw = loadParts(t, wRaw)
	}
	var index VecVirtual
	if gather {
		index = s.vec()
		p := GP64()
		MOVQ(Mem{Base: t, Disp: wIndex}, p)
		VMOVUPS(Mem{Base: p}, index)
	}
	step := Imm(uint64(s.bytes()))
	left := GP64()
	Label("row")
	MOVQ(Mem{Base: t, Disp: wVecs}, left)
	Label("vec")
	mask := VecVirtual(nil)
	if s.lanes == 8 {
		mask = s.vec()
	}
	tailMask(s, t, left, mask)
	a := eight(s)
	tmp := s.vec()
	for i := range a {
		switch {
		case gather && s.lanes == 16:
			at := src.at(i)
			p := GP64()
			LEAQ(at, p)
			VPXORD(a[i], a[i], a[i])
			KMOVW(K1, K2)
			VGATHERDPS(Mem{Base: p, Index: index, Scale: 4}, K2, a[i])
		case gather:
			p := GP64()
			LEAQ(src.at(i), p)
			VXORPS(a[i], a[i], a[i])
			VMOVAPS(mask, tmp)
			VGATHERDPS(tmp, Mem{Base: p, Index: index, Scale: 4}, a[i])
		case s.lanes == 16:
			VMOVUPS_Z(src.at(i), K1, a[i])
		default:
			VMASKMOVPS(src.at(i), mask, a[i])
		}
	}
	if raw {
		f, o := s.vec(), s.vec()
		VBROADCASTSS(Mem{Base: t, Disp: wRawScale}, f)
		for i := range a {
			VMULPS(f, a[i], o)
			VMOVUPS(o, rw.at(i))
		}
		rw.add(step)
	}
	// The first level with the scales: t = a·s; a' = t + b·s', b' = t − b·s'.
	sc := s.vec()
	for i := 0; i < 8; i += 2 {
		VBROADCASTSS(Mem{Base: t, Disp: wScale + 4*i}, sc)
		VMULPS(sc, a[i], a[i])
		VBROADCASTSS(Mem{Base: t, Disp: wScale + 4*i + 4}, sc)
		VMOVAPS(a[i], tmp)
		VFMADD231PS(sc, a[i+1], a[i])
		VFNMADD231PS(sc, a[i+1], tmp)
		a[i+1], tmp = tmp, a[i+1]
	}
	butterfly(a, tmp, 2)
	tmp = s.vec()
	butterfly(a, tmp, 4)
	for i := range a {
		VMOVUPS(a[i], dst.at(i))
	}
	dst.add(step)
	if !gather {
		src.add(step)
	}
	DECQ(left)
	JNZ(LabelRef("vec"))
	src.add(Mem{Base: t, Disp: wSrcRow})
	dst.add(Mem{Base: t, Disp: wDstRow})
	if raw {
		rw.add(Mem{Base: t, Disp: wRawRow})
	}
	DECQ(Mem{Base: t, Disp: wRows})
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// whtOut transforms back: dst_a = scale_a·Σ_b H[a][b]·src_b, added to dst in
// the accumulating form. src is read and dst written by existing lanes only
// in the last vector of a row.
func whtOut(s isa, name string, acc bool) {
	TEXT(name+s.letter, 4, "func(t *byte)")
	Pragma("noescape")
	t := Load(Param("t"), GP64())
	src, dst := loadParts(t, wSrc), loadParts(t, wDst)
	step := Imm(uint64(s.bytes()))
	left := GP64()
	Label("row")
	MOVQ(Mem{Base: t, Disp: wVecs}, left)
	Label("vec")
	mask := VecVirtual(nil)
	if s.lanes == 8 {
		mask = s.vec()
	}
	tailMask(s, t, left, mask)
	a := eight(s)
	for i := range a {
		VMOVUPS(src.at(i), a[i])
	}
	for h := 1; h < 8; h *= 2 {
		butterfly(a, s.vec(), h)
	}
	sc, old := s.vec(), s.vec()
	for i := range a {
		VBROADCASTSS(Mem{Base: t, Disp: wScale + 4*i}, sc)
		if acc {
			if s.lanes == 16 {
				VMOVUPS_Z(dst.at(i), K1, old)
			} else {
				VMASKMOVPS(dst.at(i), mask, old)
			}
			VFMADD213PS(old, sc, a[i])
		} else {
			VMULPS(sc, a[i], a[i])
		}
		if s.lanes == 16 {
			VMOVUPS(a[i], K1, dst.at(i))
		} else {
			VMASKMOVPS(a[i], mask, dst.at(i))
		}
	}
	src.add(step)
	dst.add(step)
	DECQ(left)
	JNZ(LabelRef("vec"))
	src.add(Mem{Base: t, Disp: wSrcRow})
	dst.add(Mem{Base: t, Disp: wDstRow})
	DECQ(Mem{Base: t, Disp: wRows})
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// gatherPack writes k rows of one vector, dstRow bytes apart: lane j of row
// q is src[index[j] + q], 0 where the mask has no lane.
func gatherPack(s isa) {
	TEXT("gatherPack"+s.letter, 4, "func(dst, src, index *byte, dstRow, k int, mask uint64, maskY *byte)")
	Pragma("noescape")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	p := Load(Param("index"), GP64())
	row, k := Load(Param("dstRow"), GP64()), Load(Param("k"), GP64())
	index := s.vec()
	VMOVUPS(Mem{Base: p}, index)
	var mask VecVirtual
	if s.lanes == 16 {
		m := Load(Param("mask"), GP64())
		KMOVW(m.(GPVirtual).As32(), K1)
	} else {
		mask = s.vec()
		m := Load(Param("maskY"), GP64())
		VMOVUPS(Mem{Base: m}, mask)
	}
	Label("loop")
	v := s.vec()
	s.zero(v)
	if s.lanes == 16 {
		KMOVW(K1, K2)
		VGATHERDPS(Mem{Base: src, Index: index, Scale: 4}, K2, v)
	} else {
		m := s.vec()
		VMOVAPS(mask, m)
		VGATHERDPS(m, Mem{Base: src, Index: index, Scale: 4}, v)
	}
	VMOVUPS(v, Mem{Base: dst})
	ADDQ(row, dst)
	ADDQ(Imm(4), src)
	DECQ(k)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
