package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// dropBlocks is Philox-4x32-10 on as many blocks at a time as there are
// lanes, and the comparison of its words.
func (s isa) dropBlocks() {
	p, n := s.fn("dropBlocks", "func(f []float32, block, c1, c2, c3, k0, k1, drop uint32, keep float32)", "f")
	word := func(name string) VecVirtual {
		b, err := Param(name).Resolve()
		if err != nil {
			panic(err)
		}
		d := s.vec()
		VBROADCASTSS(b.Addr, d)
		return d
	}
	first, drop := word("block"), word("drop")
	// Lane 4q+r computes block r·lanes/4 + q, so that unpacking the four words
	// leaves them in order.
	VPADDD(philoxLanes(s), first, first)
	var odd Register
	if s.lanes == 16 {
		m := GP32()
		MOVL(U32(0xaaaa), m)
		odd = K()
		KMOVW(m, odd)
	}
	blend := func(even, oddLanes, d VecVirtual) {
		if s.lanes == 16 {
			VPBLENDMD(oddLanes, even, odd, d)
		} else {
			VPBLENDD(U8(0xaa), oddLanes, even, d)
		}
	}
	xor := func(a, b, d VecVirtual) {
		if s.lanes == 16 {
			VPXORD(a, b, d)
		} else {
			VPXOR(a, b, d)
		}
	}
	stop := GP64()
	LEAQ(Mem{Base: p[0], Index: n, Scale: 4}, stop)
	JMP(LabelRef("test"))
	Label("group")
	c := [4]VecVirtual{s.copy(first), word("c1"), word("c2"), word("c3")}
	k := [2]VecVirtual{word("k0"), word("k1")}
	rounds := GP64()
	MOVQ(U32(10), rounds)
	Label("round")
	// high and low words of x·m
	product := func(x VecVirtual, m konst) (hi, lo VecVirtual) {
		e, o, mv := s.vec(), s.vec(), s.vec()
		VPBROADCASTD(m.mem(), mv)
		VMOVSHDUP(x, o)
		VPMULUDQ(mv, x, e)
		VPMULUDQ(mv, o, o)
		hi, lo = s.vec(), s.vec()
		VMOVSHDUP(e, hi)
		blend(hi, o, hi)
		VMOVSLDUP(o, lo)
		blend(e, lo, lo)
		return hi, lo
	}
	hi0, lo0 := product(c[0], bits32(0xD2511F53))
	hi1, lo1 := product(c[2], bits32(0xCD9E8D57))
	xor(hi1, c[1], c[0])
	xor(k[0], c[0], c[0])
	xor(hi0, c[3], c[2])
	xor(k[1], c[2], c[2])
	VMOVAPS(lo1, c[1])
	VMOVAPS(lo0, c[3])
	s.addConst(bits32(0x9E3779B9), k[0])
	s.addConst(bits32(0xBB67AE85), k[1])
	DECQ(rounds)
	JNZ(LabelRef("round"))
	s.addConst(bits32(uint32(s.lanes)), first)

	var t, u [4]VecVirtual
	for i := range t {
		t[i], u[i] = s.vec(), s.vec()
	}
	VUNPCKLPS(c[1], c[0], t[0])
	VUNPCKHPS(c[1], c[0], t[1])
	VUNPCKLPS(c[3], c[2], t[2])
	VUNPCKHPS(c[3], c[2], t[3])
	VUNPCKLPD(t[2], t[0], u[0])
	VUNPCKHPD(t[2], t[0], u[1])
	VUNPCKLPD(t[3], t[1], u[2])
	VUNPCKHPD(t[3], t[1], u[3])
	keep := s.scalar("keep")
	for i, v := range u {
		f := s.vec()
		if s.lanes == 16 {
			m := K()
			VPCMPUD(U8(5), drop, v, m) // not less
			VMOVUPS_Z(keep, m, f)
		} else {
			VPMAXUD(drop, v, f)
			VPCMPEQD(v, f, f)
			VANDPS(keep, f, f)
		}
		VMOVUPS(f, Mem{Base: p[0], Disp: i * s.bytes()})
	}
	ADDQ(U32(4*s.bytes()), p[0])
	Label("test")
	CMPQ(p[0], stop)
	JCS(LabelRef("group"))
	end()
}

func (s isa) addConst(k konst, v VecVirtual) {
	if s.lanes == 16 {
		VPADDD_BCST(k.mem(), v, v)
	} else {
		VPADDD(k.mem(), v, v)
	}
}

// philoxLanes holds the number of each lane's block.
func philoxLanes(s isa) Mem {
	return NewDataAddr(Symbol{Name: fmt.Sprintf("philoxLanes%d", s.lanes), Static: true}, 0)
}

func philoxData() {
	for _, s := range []isa{avx512, avx2} {
		GLOBL(fmt.Sprintf("philoxLanes%d", s.lanes), RODATA|NOPTR)
		for l := range s.lanes {
			DATA(4*l, U32(uint32(l%4*s.lanes/4+l/4)))
		}
	}
}
