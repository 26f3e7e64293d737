package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// matVecInt8 is y = W·x in int8, four rows at a time, then one.
//
// AVX-512 VNNI multiplies unsigned by signed bytes, so w+128 takes the place
// of w, and 128·Σx, the same for all rows, is taken away: exact, since VPDPBUSD
// does not saturate. AVX2 widens to int16 for VPMADDWD.
//
// One core reads the rows as fast as a loop that does nothing else: prefetching
// (0.5 to 16 KB ahead), several distant rows at once, and pages of 2 MB gain
// 1 to 3 %.
func (s isa) matVecInt8() {
	TEXT("matVecInt8"+s.letter, NOSPLIT, "func(y []int32, w, x []int8)")
	Pragma("noescape")
	y := Load(Param("y").Base(), GP64())
	rows := Load(Param("y").Len(), GP64()).(GPVirtual)
	w := Load(Param("w").Base(), GP64()).(GPVirtual)
	x := Load(Param("x").Base(), GP64()).(GPVirtual)
	cols := Load(Param("x").Len(), GP64()).(GPVirtual)
	var vnni *dotVNNI
	if s.lanes == 16 {
		vnni = newDotVNNI(x, cols)
	}
	for _, group := range []int{4, 1} {
		again, out := fmt.Sprint("rows", group), fmt.Sprint("out", group)
		Label(again)
		CMPQ(rows, Imm(uint64(group)))
		JLT(LabelRef(out))
		at := []GPVirtual{w}
		for len(at) < group {
			p := GP64()
			LEAQ(Mem{Base: at[len(at)-1], Index: cols, Scale: 1}, p)
			at = append(at, p)
		}
		if s.lanes == 16 {
			vnni.rows(at, y.(GPVirtual))
		} else {
			s.dotWide(at, x, cols, y.(GPVirtual))
		}
		ADDQ(Imm(uint64(4*group)), y)
		LEAQ(Mem{Base: at[group-1], Index: cols, Scale: 1}, w)
		SUBQ(Imm(uint64(group)), rows)
		JMP(LabelRef(again))
		Label(out)
	}
	end()
}

// dotVNNI is the dot products of rows with x.
type dotVNNI struct {
	x, cols GPVirtual
	flip    VecVirtual // 128 in every byte
	bias    VecVirtual // 128·Σx
}

func newDotVNNI(x, cols GPVirtual) *dotVNNI {
	d := &dotVNNI{x: x, cols: cols, flip: ZMM()}
	VPBROADCASTD(bits32(0x80808080).mem(), d.flip)
	acc, i, v := ZMM(), GP64(), ZMM()
	avx512.zero(acc)
	d.loop("x", i, func(k Register) {
		d.load(x, i, k, v)
		VPDPBUSD(v, d.flip, acc)
	})
	d.bias = avx512.sumInt32(acc)
	return d
}

// load reads bytes, with a mask or without.
func (d *dotVNNI) load(base, i GPVirtual, k Register, v VecVirtual) {
	m := Mem{Base: base, Index: i, Scale: 1}
	if k != nil {
		VMOVDQU8_Z(m, k, v)
	} else {
		VMOVDQU8(m, v)
	}
}

// loop steps through the columns 64 at a time, the last under a mask.
func (d *dotVNNI) loop(name string, i GPVirtual, step func(k Register)) {
	again, tail, done := "step"+name, "tail"+name, "done"+name
	next, left, m := GP64(), GP64(), GP64()
	XORQ(i, i)
	MOVQ(U32(64), next)
	CMPQ(next, d.cols)
	JGT(LabelRef(tail))
	Label(again)
	step(nil)
	MOVQ(next, i)
	ADDQ(Imm(64), next)
	CMPQ(next, d.cols)
	JLE(LabelRef(again))
	Label(tail)
	MOVQ(d.cols, left)
	SUBQ(i, left)
	JLE(LabelRef(done))
	MOVQ(I32(-1), m)
	BZHIQ(left, m, m)
	k := K()
	KMOVQ(m, k)
	step(k)
	Label(done)
}

func (d *dotVNNI) rows(at []GPVirtual, y GPVirtual) {
	acc := avx512.accumulators(len(at))
	i, xv, wv := GP64(), ZMM(), ZMM()
	d.loop(fmt.Sprint(len(at)), i, func(k Register) {
		d.load(d.x, i, k, xv)
		for r, p := range at {
			d.load(p, i, k, wv)
			VPXORD(d.flip, wv, wv)
			VPDPBUSD(xv, wv, acc[r])
		}
	})
	for r, v := range acc {
		sum := avx512.sumInt32(v)
		VPSUBD(d.bias, sum, sum)
		VMOVD(sum, Mem{Base: y, Disp: 4 * r})
	}
}

func (s isa) dotWide(at []GPVirtual, x, cols, y GPVirtual) {
	group, i := len(at), GP64()
	XORQ(i, i)
	acc := s.accumulators(group)
	again, done := fmt.Sprint("step", group), fmt.Sprint("done", group)
	next := GP64()
	MOVQ(U32(16), next)
	CMPQ(next, cols)
	JGT(LabelRef(done))
	xv, wv := YMM(), YMM()
	Label(again)
	VPMOVSXBW(Mem{Base: x, Index: i, Scale: 1}, xv)
	for r, p := range at {
		VPMOVSXBW(Mem{Base: p, Index: i, Scale: 1}, wv)
		VPMADDWD(wv, xv, wv)
		VPADDD(wv, acc[r], acc[r])
	}
	MOVQ(next, i)
	ADDQ(Imm(16), next)
	CMPQ(next, cols)
	JLE(LabelRef(again))
	Label(done)
	for r, p := range at {
		sum, j := GP32(), GP64()
		VMOVD(s.sumInt32(acc[r]), sum)
		MOVQ(i, j)
		single, end := fmt.Sprint("single", group, "x", r), fmt.Sprint("end", group, "x", r)
		Label(single)
		CMPQ(j, cols)
		JGE(LabelRef(end))
		a, b := GP32(), GP32()
		MOVBLSX(Mem{Base: p, Index: j, Scale: 1}, a)
		MOVBLSX(Mem{Base: x, Index: j, Scale: 1}, b)
		IMULL(b, a)
		ADDL(a, sum)
		INCQ(j)
		JMP(LabelRef(single))
		Label(end)
		MOVL(sum, Mem{Base: y, Disp: 4 * r})
	}
}

// sumInt32 adds up the lanes; the sum is in every lane.
func (s isa) sumInt32(v VecVirtual) VecVirtual {
	x := s.fold(v, VPADDD)
	t := XMM()
	for _, swap := range []uint8{0x4e, 0xb1} {
		VPSHUFD(U8(swap), x, t)
		VPADDD(t, x, x)
	}
	return x
}
