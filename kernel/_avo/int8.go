package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// matVecInt8 is y = W·x in int8, four rows at a time, then one.
//
// AVX-512 VNNI multiplies unsigned by signed bytes, so x+128 takes the place
// of x, and 128·Σw, from a second accumulator, is taken away: exact, since
// VPDPBUSD does not saturate. AVX2 widens to int16 for VPMADDWD.
func (s isa) matVecInt8() {
	TEXT("matVecInt8"+s.letter, NOSPLIT, "func(y []int32, w, x []int8)")
	Pragma("noescape")
	y := Load(Param("y").Base(), GP64())
	rows := Load(Param("y").Len(), GP64()).(GPVirtual)
	w := Load(Param("w").Base(), GP64()).(GPVirtual)
	x := Load(Param("x").Base(), GP64()).(GPVirtual)
	cols := Load(Param("x").Len(), GP64()).(GPVirtual)
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
		i := GP64()
		XORQ(i, i)
		if s.lanes == 16 {
			s.dotVNNI(group, at, x, cols, i, y.(GPVirtual))
		} else {
			s.dotWide(group, at, x, cols, i, y.(GPVirtual))
		}
		ADDQ(Imm(uint64(4*group)), y)
		LEAQ(Mem{Base: at[group-1], Index: cols, Scale: 1}, w)
		SUBQ(Imm(uint64(group)), rows)
		JMP(LabelRef(again))
		Label(out)
	}
	end()
}

func (s isa) dotVNNI(group int, at []GPVirtual, x, cols, i, y GPVirtual) {
	flip := ZMM()
	VPBROADCASTD(bits32(0x80808080).mem(), flip)
	acc, bias := s.accumulators(group), s.accumulators(group)
	again, tail, done := fmt.Sprint("step", group), fmt.Sprint("tail", group), fmt.Sprint("done", group)
	next := GP64()
	xv := ZMM()
	step := func(k Register) {
		load := func(base GPVirtual, v VecVirtual) {
			m := Mem{Base: base, Index: i, Scale: 1}
			if k != nil {
				VMOVDQU8_Z(m, k, v)
			} else {
				VMOVDQU8(m, v)
			}
		}
		load(x, xv)
		VPXORD(flip, xv, xv)
		for r, p := range at {
			wv := ZMM()
			load(p, wv)
			VPDPBUSD(wv, xv, acc[r])
			VPDPBUSD(wv, flip, bias[r])
		}
	}
	MOVQ(U32(64), next)
	CMPQ(next, cols)
	JGT(LabelRef(tail))
	Label(again)
	step(nil)
	MOVQ(next, i)
	ADDQ(Imm(64), next)
	CMPQ(next, cols)
	JLE(LabelRef(again))
	Label(tail)
	left := GP64()
	MOVQ(cols, left)
	SUBQ(i, left)
	JLE(LabelRef(done))
	m := GP64()
	MOVQ(I32(-1), m)
	BZHIQ(left, m, m)
	k := K()
	KMOVQ(m, k)
	step(k)
	Label(done)
	for r := range group {
		VPSUBD(bias[r], acc[r], acc[r])
		VMOVD(s.sumInt32(acc[r]), Mem{Base: y, Disp: 4 * r})
	}
}

func (s isa) dotWide(group int, at []GPVirtual, x, cols, i, y GPVirtual) {
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
