package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// attention is the softmax of a triangle's rows, of which each has one more
// element than the one before, and its backward. Rows have room for whole
// vectors; what is beyond their elements, up to width, is zeroed.
func (s isa) attention() {
	p, _ := s.fn("softmaxRows", "func(p []float32, ld, valid, width int, scale float32, top, sum []float32)", "p", "top", "sum")
	scale, high := s.scalar("scale"), s.splat(f32(89))
	low := s.splat(bits32(math.Float32bits(float32(math.Inf(-1)))))
	s.triangle(p[:1], p[1:], func(n GPVirtual, zero func(GPVirtual)) {
		top := []VecVirtual{s.copy(low), s.copy(low)}
		s.loop(n, 2, func(l span) {
			VMAXPS(top[l.u], l.or(l.load(p[0]), top[l.u]), top[l.u])
		})
		VMAXPS(top[0], top[1], top[0])
		b := s.vec()
		VBROADCASTSS(s.reduced(top[0], VMAXPS), b)
		b = s.mul(b, scale)
		VMOVSS(b.AsX(), Mem{Base: p[1]})
		b = s.xor(b, bits32(signBit))
		acc := s.accumulators(2)
		s.loop(n, 2, func(l span) {
			x := l.load(p[0])
			s.horner(x, scale, b)
			e := l.only(s.exp(x, high))
			VMOVUPS(e, l.at(p[0]))
			VADDPS(e, acc[l.u], acc[l.u])
		})
		VADDPS(acc[0], acc[1], acc[0])
		VMOVSS(s.reduced(acc[0], VADDPS), Mem{Base: p[2]})
		zero(p[0])
	})

	p, _ = s.fn("softmaxRowsBackward", "func(p, ds []float32, ld, valid, width int, scale float32, lse, delta []float32)", "p", "ds", "lse", "delta")
	scale, high = s.scalar("scale"), s.splat(f32(89))
	s.triangle(p[:2], p[2:], func(n GPVirtual, zero func(GPVirtual)) {
		b, delta := s.vec(), s.vec()
		VBROADCASTSS(Mem{Base: p[2]}, b)
		b = s.xor(b, bits32(signBit))
		VBROADCASTSS(Mem{Base: p[3]}, delta)
		s.loop(n, 2, func(l span) {
			x := l.load(p[0])
			s.horner(x, scale, b)
			e := l.only(s.exp(x, high))
			VMOVUPS(e, l.at(p[0]))
			d := s.sub(l.load(p[1]), delta)
			VMOVUPS(s.mul(s.mul(e, scale), d), l.at(p[1]))
		})
		zero(p[0])
		zero(p[1])
	})
}

// triangle runs body on every row: n is the row's number of elements; zero
// clears the vectors of a row beyond them. Rows of wide move on by ld, those
// of narrow by one element, of which there are as many as rows.
func (s isa) triangle(wide, narrow []GPVirtual, body func(n GPVirtual, zero func(GPVirtual))) {
	n, ld, width, stop := GP64(), GP64(), GP64(), GP64()
	Load(Param("valid"), n)
	Load(Param("ld"), ld)
	Load(Param("width"), width)
	SHLQ(U8(2), ld)
	// The first narrow slice's length counts the rows.
	name := map[int]string{1: "top", 2: "lse"}[len(wide)]
	Load(Param(name).Len(), stop)
	LEAQ(Mem{Base: narrow[0], Index: stop, Scale: 4}, stop)
	JMP(LabelRef("test"))
	Label("row")
	zeros := 0
	body(n, func(base GPVirtual) {
		zeros++
		again, out := fmt.Sprint("zero", zeros), fmt.Sprint("zeroed", zeros)
		i, z := GP64(), s.zeros()
		LEAQ(Mem{Base: n, Disp: s.lanes - 1}, i)
		ANDQ(I32(int32(-s.lanes)), i)
		Label(again)
		CMPQ(i, width)
		JGE(LabelRef(out))
		VMOVUPS(z, Mem{Base: base, Index: i, Scale: 4})
		ADDQ(Imm(uint64(s.lanes)), i)
		JMP(LabelRef(again))
		Label(out)
	})
	for _, p := range wide {
		ADDQ(ld, p)
	}
	for _, p := range narrow {
		ADDQ(Imm(4), p)
	}
	INCQ(n)
	Label("test")
	CMPQ(narrow[0], stop)
	JCS(LabelRef("row"))
	end()
}
