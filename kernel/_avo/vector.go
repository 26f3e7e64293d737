package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// konst is a float32 constant: its place in a table of 8 copies each, read
// whole by AVX2 and as a broadcast by AVX-512.
type konst int

var konsts []uint32

// f32 is a constant by value, bits32 by its bits.
func f32(v float64) konst { return bits32(math.Float32bits(float32(v))) }

func bits32(b uint32) konst {
	for i, have := range konsts {
		if have == b {
			return konst(i)
		}
	}
	konsts = append(konsts, b)
	return konst(len(konsts) - 1)
}

func (k konst) mem() Mem {
	return NewDataAddr(Symbol{Name: "vectorConst", Static: true}, int(k)*32)
}

// maskTable is 8 words of ones, then 8 of zeros: a mask of the first r lanes
// begins 8−r words in.
func maskTable() Mem { return NewDataAddr(Symbol{Name: "vectorMask", Static: true}, 0) }

func vectorData() {
	GLOBL("vectorConst", RODATA|NOPTR)
	for i, b := range konsts {
		for j := range 8 {
			DATA(i*32+j*4, U32(b))
		}
	}
	GLOBL("vectorMask", RODATA|NOPTR)
	for j := range 16 {
		m := uint32(0)
		if j < 8 {
			m = math.MaxUint32
		}
		DATA(j*4, U32(m))
	}
}

const (
	signBit  = 1 << 31
	absBits  = 1<<31 - 1
	cmpEQ    = U8(0x00)
	cmpNLT   = U8(0x15) // not less, or NaN
	cmpNGT   = U8(0x1a) // not greater, or NaN
	roundInt = U8(0)    // to nearest, halves to even
)

type opFunc = func(ops ...Op)

// bin is plain(y, x) into a new vector, with y a vector or a constant.
func (s isa) bin(plain, bcst opFunc, y any, x VecVirtual) VecVirtual {
	d := s.vec()
	s.into(plain, bcst, y, x, d)
	return d
}

func (s isa) into(plain, bcst opFunc, y any, x, d VecVirtual) {
	switch y := y.(type) {
	case konst:
		if s.lanes == 16 {
			bcst(y.mem(), x, d)
		} else {
			plain(y.mem(), x, d)
		}
	case VecVirtual:
		plain(y, x, d)
	case Mem:
		plain(y, x, d)
	default:
		panic("operand")
	}
}

func (s isa) add(x VecVirtual, y any) VecVirtual { return s.bin(VADDPS, VADDPS_BCST, y, x) }
func (s isa) sub(x VecVirtual, y any) VecVirtual { return s.bin(VSUBPS, VSUBPS_BCST, y, x) }
func (s isa) mul(x VecVirtual, y any) VecVirtual { return s.bin(VMULPS, VMULPS_BCST, y, x) }
func (s isa) div(x VecVirtual, y any) VecVirtual { return s.bin(VDIVPS, VDIVPS_BCST, y, x) }
func (s isa) and(x VecVirtual, y any) VecVirtual { return s.bin(VANDPS, VANDPS_BCST, y, x) }
func (s isa) xor(x VecVirtual, y any) VecVirtual { return s.bin(VXORPS, VXORPS_BCST, y, x) }

// min and max give x where it is NaN; y is a vector.
func (s isa) min(x, y VecVirtual) VecVirtual { return s.bin(VMINPS, VMINPS_BCST, x, y) }
func (s isa) max(x, y VecVirtual) VecVirtual { return s.bin(VMAXPS, VMAXPS_BCST, x, y) }

// fma is acc = x·y + acc, fnma acc = acc − x·y.
func (s isa) fma(acc, x VecVirtual, y any)  { s.into(VFMADD231PS, VFMADD231PS_BCST, y, x, acc) }
func (s isa) fnma(acc, x VecVirtual, y any) { s.into(VFNMADD231PS, VFNMADD231PS_BCST, y, x, acc) }

// horner is p = p·x + c.
func (s isa) horner(p, x VecVirtual, c any) { s.into(VFMADD213PS, VFMADD213PS_BCST, c, x, p) }

func (s isa) copy(x VecVirtual) VecVirtual {
	d := s.vec()
	VMOVAPS(x, d)
	return d
}

func (s isa) splat(k konst) VecVirtual {
	d := s.vec()
	VBROADCASTSS(k.mem(), d)
	return d
}

// scalar broadcasts a float32 parameter.
func (s isa) scalar(name string) VecVirtual {
	b, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	d := s.vec()
	VBROADCASTSS(b.Addr, d)
	return d
}

func (s isa) zeros() VecVirtual {
	d := s.vec()
	s.zero(d)
	return d
}

func (s isa) round(x VecVirtual) VecVirtual {
	d := s.vec()
	if s.lanes == 16 {
		VRNDSCALEPS(roundInt, x, d)
	} else {
		VROUNDPS(roundInt, x, d)
	}
	return d
}

// keep is x where the comparison c of x2 with y holds, and 0 elsewhere.
func (s isa) keep(x VecVirtual, c Op, x2 VecVirtual, y konst) VecVirtual {
	d := s.vec()
	if s.lanes == 16 {
		k := K()
		VCMPPS_BCST(c, y.mem(), x2, k)
		VMOVUPS_Z(x, k, d)
	} else {
		VCMPPS(c, y.mem(), x2, d)
		VANDPS(x, d, d)
	}
	return d
}

// span is one step of a loop: a whole vector of every slice, or what is left
// at the end.
type span struct {
	s    isa
	i    GPVirtual
	u    int // number within the unrolled group
	last bool
	k    Register   // mask of the last step, AVX-512
	y    VecVirtual // and AVX2
}

func (p span) at(base GPVirtual) Mem {
	return Mem{Base: base, Index: p.i, Scale: 4, Disp: p.u * p.s.bytes()}
}

// load reads a vector, 0 in absent lanes.
func (p span) load(base GPVirtual) VecVirtual { return p.loadAt(p.at(base)) }

func (p span) loadAt(at Mem) VecVirtual {
	d := p.s.vec()
	switch {
	case !p.last:
		VMOVUPS(at, d)
	case p.s.lanes == 16:
		VMOVUPS_Z(at, p.k, d)
	default:
		VMASKMOVPS(at, p.y, d)
	}
	return d
}

func (p span) store(v VecVirtual, base GPVirtual) {
	switch {
	case !p.last:
		VMOVUPS(v, p.at(base))
	case p.s.lanes == 16:
		VMOVUPS(v, p.k, p.at(base))
	default:
		VMASKMOVPS(v, p.y, p.at(base))
	}
}

// only zeroes the absent lanes of v.
func (p span) only(v VecVirtual) VecVirtual {
	if !p.last {
		return v
	}
	d := p.s.vec()
	if p.s.lanes == 16 {
		VMOVUPS_Z(v, p.k, d)
	} else {
		VANDPS(v, p.y, d)
	}
	return d
}

// or fills the absent lanes of v with those of w.
func (p span) or(v, w VecVirtual) VecVirtual {
	if !p.last {
		return v
	}
	d := p.s.vec()
	if p.s.lanes == 16 {
		VMOVAPS(w, d)
		VMOVAPS(v, p.k, d)
	} else {
		VBLENDVPS(p.y, v, w, d)
	}
	return d
}

var loops int

// setMask makes p the masked last step with left < lanes elements.
func (p *span) setMask(left GPVirtual) {
	p.last = true
	if p.s.lanes == 16 {
		m := GP32()
		MOVL(I32(-1), m)
		BZHIL(left.As32(), m, m)
		k := K()
		KMOVW(m, k)
		p.k = k
		return
	}
	t := GP64()
	LEAQ(maskTable(), t)
	NEGQ(left)
	p.y = p.s.vec()
	VMOVUPS(Mem{Base: t, Index: left, Scale: 4, Disp: 32}, p.y)
}

// loop steps through n elements, in groups of unroll vectors, then single
// vectors, then the rest.
func (s isa) loop(n GPVirtual, unroll int, step func(p span)) {
	loops++
	label := func(name string) string { return fmt.Sprintf("%s%d", name, loops) }
	i, next := GP64(), GP64()
	XORQ(i, i)
	groups := []int{unroll, 1}
	if unroll == 1 {
		groups = groups[:1]
	}
	for g, u := range groups {
		again, out := label(fmt.Sprint("again", g)), label(fmt.Sprint("out", g))
		LEAQ(Mem{Base: i, Disp: u * s.lanes}, next)
		CMPQ(next, n)
		JGT(LabelRef(out))
		Label(again)
		for j := range u {
			step(span{s: s, i: i, u: j})
		}
		MOVQ(next, i)
		ADDQ(Imm(uint64(u*s.lanes)), next)
		CMPQ(next, n)
		JLE(LabelRef(again))
		Label(out)
	}
	left := GP64()
	MOVQ(n, left)
	SUBQ(i, left)
	JLE(LabelRef(label("done")))
	p := span{s: s, i: i}
	p.setMask(left)
	step(p)
	Label(label("done"))
}

// fn begins a function over slices and returns their pointers, and the
// length of the first.
func (s isa) fn(name, signature string, slices ...string) ([]GPVirtual, GPVirtual) {
	loops = 0
	TEXT(name+s.letter, NOSPLIT, signature)
	Pragma("noescape")
	p := make([]GPVirtual, len(slices))
	for i, name := range slices {
		p[i] = GP64()
		Load(Param(name).Base(), p[i])
	}
	n := GP64()
	Load(Param(slices[0]).Len(), n)
	return p, n
}

func end() {
	VZEROUPPER()
	RET()
}

// accumulators are unroll zeroed vectors.
func (s isa) accumulators(unroll int) []VecVirtual {
	a := make([]VecVirtual, unroll)
	for i := range a {
		a[i] = s.zeros()
	}
	return a
}

// fold reduces a vector by f to its lowest 16 bytes.
func (s isa) fold(v VecVirtual, f opFunc) VecVirtual {
	if s.lanes == 16 {
		h := YMM()
		VEXTRACTF64X4(U8(1), v, h)
		f(h, v.AsY(), h)
		x := XMM()
		VEXTRACTF32X4(U8(1), h, x)
		f(x, h.AsX(), x)
		return x
	}
	x := XMM()
	VEXTRACTF128(U8(1), v, x)
	f(x, v.AsX(), x)
	return x
}

// reduce32 stores the reduction of float32 accumulators by f as the result.
func (s isa) reduce32(a []VecVirtual, f opFunc) {
	for i := 1; i < len(a); i++ {
		f(a[i], a[0], a[0])
	}
	VMOVSS(s.reduced(a[0], f), result())
	end()
}

// reduced is the vector of float32 reduced by f to one value, in every lane.
func (s isa) reduced(v VecVirtual, f opFunc) VecVirtual {
	x := s.fold(v, f)
	t := XMM()
	for _, swap := range []uint8{0x4e, 0xb1} {
		VPERMILPS(U8(swap), x, t)
		f(t, x, x)
	}
	return x
}

// reduce64 is reduce32 for sums in float64.
func (s isa) reduce64(a []VecVirtual) {
	for i := 1; i < len(a); i++ {
		VADDPD(a[i], a[0], a[0])
	}
	x := s.fold(a[0], VADDPD)
	t := XMM()
	VPERMILPD(U8(1), x, t)
	VADDPD(t, x, x)
	VMOVSD(x, result())
	end()
}

func result() Mem {
	b, err := ReturnIndex(0).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// exp is kernel.exp32, lane by lane; high is a splat of expHigh.
func (s isa) exp(x, high VecVirtual) VecVirtual {
	c := s.min(x, high)
	n := s.round(s.mul(c, f32(math.Log2E)))
	s.fnma(c, n, f32(0.693359375))
	s.fnma(c, n, f32(-2.12194440e-4))
	p := s.splat(f32(1.9875691500e-4))
	for _, k := range []float64{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		s.horner(p, c, f32(k))
	}
	q := s.mul(c, c)
	s.horner(p, q, c)
	return s.scaleExp(s.add(p, f32(1)), n, x)
}

// scaleExp is y·2ⁿ, 0 where x is below expLow. y is overwritten.
func (s isa) scaleExp(y, n, x VecVirtual) VecVirtual {
	low := f32(-87)
	if s.lanes == 16 {
		k := K()
		VCMPPS_BCST(cmpNLT, low.mem(), x, k)
		d := s.vec()
		VSCALEFPS_Z(n, y, k, d)
		return d
	}
	i, h := s.vec(), s.vec()
	VCVTPS2DQ(n, i)
	VPSRAD(U8(1), i, h)
	VPSUBD(h, i, i)
	for _, e := range []VecVirtual{h, i} {
		VPADDD(bits32(127).mem(), e, e)
		VPSLLD(U8(23), e, e)
		VMULPS(e, y, y)
	}
	return s.keep(y, cmpNLT, x, low)
}

func vector() {
	for _, s := range []isa{avx512, avx2} {
		s.elementwise()
		s.reductions()
		s.quantisers()
		s.activations()
		s.rowKernels()
		s.attention()
		s.matVecInt8()
		s.dropBlocks()
		s.optimizer()
	}
	vectorData()
	philoxData()
}

func (s isa) elementwise() {
	for _, f := range []struct {
		name string
		op   func(x VecVirtual, y any) VecVirtual
	}{{"add", s.add}, {"mul", s.mul}} {
		p, n := s.fn(f.name, "func(y, a, b []float32)", "y", "a", "b")
		s.loop(n, 4, func(l span) { l.store(f.op(l.load(p[1]), l.load(p[2])), p[0]) })
		end()
	}

	p, n := s.fn("axpy", "func(y []float32, alpha float32, x []float32)", "y", "x")
	alpha := s.scalar("alpha")
	s.loop(n, 4, func(l span) {
		y := l.load(p[0])
		s.fma(y, l.load(p[1]), alpha)
		l.store(y, p[0])
	})
	end()

	p, n = s.fn("scale", "func(y []float32, s float32)", "y")
	by := s.scalar("s")
	s.loop(n, 4, func(l span) { l.store(s.mul(l.load(p[0]), by), p[0]) })
	end()

	p, n = s.fn("scaleMul", "func(y, x, w []float32, s float32)", "y", "x", "w")
	by = s.scalar("s")
	s.loop(n, 4, func(l span) { l.store(s.mul(s.mul(l.load(p[1]), by), l.load(p[2])), p[0]) })
	end()
}

func (s isa) reductions() {
	const unroll = 4
	// Sums in float64: both halves of a vector are widened.
	for _, name := range []string{"sumSquares", "absSum"} {
		p, n := s.fn(name, "func(x []float32) float64", "x")
		acc := s.accumulators(unroll)
		s.loop(n, unroll/2, func(l span) {
			x := l.load(p[0])
			if name == "absSum" {
				x = s.and(x, bits32(absBits))
			}
			lo, hi := s.vec(), s.vec()
			if s.lanes == 16 {
				h := YMM()
				VEXTRACTF64X4(U8(1), x, h)
				VCVTPS2PD(x.AsY(), lo)
				VCVTPS2PD(h, hi)
			} else {
				h := XMM()
				VEXTRACTF128(U8(1), x, h)
				VCVTPS2PD(x.AsX(), lo)
				VCVTPS2PD(h, hi)
			}
			for i, v := range []VecVirtual{lo, hi} {
				a := acc[2*l.u+i]
				if name == "absSum" {
					VADDPD(v, a, a)
				} else {
					VFMADD231PD(v, v, a)
				}
			}
		})
		s.reduce64(acc)
	}

	p, n := s.fn("maxAbs", "func(x []float32) float32", "x")
	acc := s.accumulators(unroll)
	s.loop(n, unroll, func(l span) {
		VMAXPS(acc[l.u], s.and(l.load(p[0]), bits32(absBits)), acc[l.u])
	})
	s.reduce32(acc, VMAXPS)

	p, n = s.fn("maxOf", "func(x []float32) float32", "x")
	low := s.splat(bits32(math.Float32bits(float32(math.Inf(-1)))))
	for i := range acc {
		acc[i] = s.copy(low)
	}
	s.loop(n, unroll, func(l span) {
		VMAXPS(acc[l.u], l.or(l.load(p[0]), acc[l.u]), acc[l.u])
	})
	s.reduce32(acc, VMAXPS)

	p, n = s.fn("indexOf", "func(x []float32, v float32) int", "x")
	v, index, found := s.scalar("v"), GP64(), GP32()
	s.loop(n, 1, func(l span) {
		equal := s.vec()
		switch {
		case s.lanes == 8:
			VCMPPS(cmpEQ, l.load(p[0]), v, equal)
			VMOVMSKPS(l.only(equal), found)
		case l.last:
			k := K()
			VCMPPS(cmpEQ, l.load(p[0]), v, l.k, k)
			KMOVW(k, found)
		default:
			k := K()
			VCMPPS(cmpEQ, l.at(p[0]), v, k)
			KMOVW(k, found)
		}
		MOVQ(l.i, index)
		TESTL(found, found)
		JNZ(LabelRef("found"))
	})
	VZEROUPPER()
	MOVQ(I32(-1), index)
	Store(index, ReturnIndex(0))
	RET()
	Label("found")
	VZEROUPPER()
	BSFL(found, found)
	ADDQ(found.As64(), index)
	Store(index, ReturnIndex(0))
	RET()

	p, n = s.fn("sumSquares32", "func(x []float32) float32", "x")
	acc = s.accumulators(unroll)
	s.loop(n, unroll, func(l span) {
		x := l.load(p[0])
		s.fma(acc[l.u], x, x)
	})
	s.reduce32(acc, VADDPS)

	p, n = s.fn("dot", "func(a, b []float32) float32", "a", "b")
	acc = s.accumulators(unroll)
	s.loop(n, unroll, func(l span) { s.fma(acc[l.u], l.load(p[0]), l.load(p[1])) })
	s.reduce32(acc, VADDPS)

	p, n = s.fn("dot3", "func(a, b, c []float32) float32", "a", "b", "c")
	acc = s.accumulators(unroll)
	s.loop(n, unroll, func(l span) {
		s.fma(acc[l.u], s.mul(l.load(p[0]), l.load(p[1])), l.load(p[2]))
	})
	s.reduce32(acc, VADDPS)

	p, n = s.fn("countZeros", "func(q []float32) int", "q")
	count := GP64()
	XORQ(count, count)
	s.loop(n, 4, func(l span) {
		bits := GP32()
		if s.lanes == 16 {
			k := K()
			if l.last {
				VCMPPS_BCST(cmpEQ, f32(0).mem(), l.load(p[0]), l.k, k)
			} else {
				VCMPPS_BCST(cmpEQ, f32(0).mem(), l.load(p[0]), k)
			}
			KMOVW(k, bits)
		} else {
			m := s.vec()
			VCMPPS(cmpEQ, f32(0).mem(), l.load(p[0]), m)
			VMOVMSKPS(l.only(m), bits)
		}
		POPCNTL(bits, bits)
		ADDQ(bits.As64(), count)
	})
	VZEROUPPER()
	Store(count, ReturnIndex(0))
	RET()
}

func (s isa) quantisers() {
	for _, name := range []string{"quantizeClassic", "quantizeAbsMean"} {
		signature := "func(q, w []float32)"
		if name == "quantizeAbsMean" {
			signature = "func(q, w []float32, gamma float32)"
		}
		p, n := s.fn(name, signature, "q", "w")
		var gamma VecVirtual
		if name == "quantizeAbsMean" {
			gamma = s.scalar("gamma")
		}
		one, minus := s.splat(f32(1)), s.splat(f32(-1))
		s.loop(n, 4, func(l span) {
			w := l.load(p[1])
			if gamma != nil {
				w = s.div(w, gamma)
			}
			l.store(s.round(s.max(s.min(w, one), minus)), p[0])
		})
		end()
	}

	p, n := s.fn("classicMask", "func(dw, w []float32)", "dw", "w")
	s.loop(n, 4, func(l span) {
		w := s.and(l.load(p[1]), bits32(absBits))
		l.store(s.keep(l.load(p[0]), cmpNGT, w, f32(1.5)), p[0])
	})
	end()

	p, n = s.fn("roundScaled", "func(y, x []float32, inv, s float32)", "y", "x")
	inv, by := s.scalar("inv"), s.scalar("s")
	high, low := s.splat(f32(127)), s.splat(f32(-127))
	s.loop(n, 4, func(l span) {
		x := s.mul(l.load(p[1]), inv)
		l.store(s.mul(s.round(s.max(s.min(x, high), low)), by), p[0])
	})
	end()
}

func (s isa) activations() {
	p, n := s.fn("exp", "func(y, x []float32)", "y", "x")
	high := s.splat(f32(89))
	s.loop(n, 2, func(l span) { l.store(s.exp(l.load(p[1]), high), p[0]) })
	end()

	p, n = s.fn("expAffine", "func(y, x []float32, a, b float32) float32", "y", "x")
	a, b := s.scalar("a"), s.scalar("b")
	high = s.splat(f32(89))
	acc := s.accumulators(2)
	s.loop(n, 2, func(l span) {
		x := l.load(p[1])
		s.horner(x, a, b)
		e := s.exp(x, high)
		l.store(e, p[0])
		VADDPS(l.only(e), acc[l.u], acc[l.u])
	})
	s.reduce32(acc, VADDPS)

	p, n = s.fn("swiglu", "func(y, gate, up []float32)", "y", "gate", "up")
	high = s.splat(f32(89))
	s.loop(n, 2, func(l span) {
		g := l.load(p[1])
		e := s.exp(s.xor(g, bits32(signBit)), high)
		l.store(s.div(s.mul(g, l.load(p[2])), s.add(e, f32(1))), p[0])
	})
	end()

	p, n = s.fn("swigluBackward", "func(dgate, dup, dy, gate, up []float32)", "dgate", "dup", "dy", "gate", "up")
	high = s.splat(f32(89))
	s.loop(n, 2, func(l span) {
		g := l.load(p[3])
		e := s.exp(s.xor(g, bits32(signBit)), high)
		sigma := s.div(s.splat(f32(1)), s.add(e, f32(1)))
		ds := s.mul(l.load(p[2]), sigma)
		u := l.load(p[4])
		l.store(s.mul(ds, g), p[1])
		// ds·u·(1 + g·(1−σ))
		t := s.sub(s.splat(f32(1)), sigma)
		s.horner(t, g, f32(1))
		l.store(s.mul(s.mul(ds, u), t), p[0])
	})
	end()
}

func (s isa) rowKernels() {
	for _, name := range []string{"rmsNormRow", "rmsNormRowAcc"} {
		p, n := s.fn(name, "func(dx, dw, dy, x, w []float32, r, c float32)", "dx", "dw", "dy", "x", "w")
		r, c := s.scalar("r"), s.scalar("c")
		s.loop(n, 2, func(l span) {
			g, x := s.mul(l.load(p[2]), r), l.load(p[3])
			dw := l.load(p[1])
			s.fma(dw, g, x)
			l.store(dw, p[1])
			d := s.mul(g, l.load(p[4]))
			s.fnma(d, x, c)
			if name == "rmsNormRowAcc" {
				d = s.add(d, l.load(p[0]))
			}
			l.store(d, p[0])
		})
		end()
	}

	s.rotation("rotate", func(v, c, w VecVirtual) { VFMADDSUB213PS(w, c, v) })
	s.rotation("rotateBack", func(v, c, w VecVirtual) { VFMSUBADD213PS(w, c, v) })
}

// rotation is pairs of x with cos and sin of half their number, repeated for
// every head of the row. turn makes v, x, the result; c is cos, and w the
// pairs of x swapped, times sin.
func (s isa) rotation(name string, turn func(v, c, w VecVirtual)) {
	p, n := s.fn(name, "func(x, cos, sin []float32)", "x", "cos", "sin")
	x, width := p[0], GP64()
	Load(Param("cos").Len(), width)
	ADDQ(width, width)
	stop := GP64()
	LEAQ(Mem{Base: x, Index: n, Scale: 4}, stop)
	JMP(LabelRef("test"))
	Label("head")
	s.loop(width, 1, func(l span) {
		v := l.load(x)
		angle := func(base GPVirtual) VecVirtual {
			d := s.vec()
			at := Mem{Base: base, Index: l.i, Scale: 2}
			if !l.last {
				VPMOVZXDQ(at, d)
			} else if s.lanes == 16 {
				// The pairs' mask: every other bit of the floats' is as good
				// as the first half of it.
				k := K()
				PairMask(l.k, k)
				h := YMM()
				VMOVUPS_Z(at, k, h)
				VPMOVZXDQ(h, d)
			} else {
				m, h := XMM(), XMM()
				VPERMILPS(U8(0x08), l.y.AsX(), m) // words 0, 2 → 0, 1
				t := XMM()
				VEXTRACTF128(U8(1), l.y, t)
				VPERMILPS(U8(0x08), t, t)
				VMOVLHPS(t, m, m)
				VMASKMOVPS(at, m, h)
				VPMOVZXDQ(h, d)
			}
			VMOVSLDUP(d, d)
			return d
		}
		c, sn := angle(p[1]), angle(p[2])
		w := s.vec()
		VPERMILPS(U8(0xb1), v, w)
		w = s.mul(w, sn)
		turn(v, c, w)
		l.store(v, x)
	})
	LEAQ(Mem{Base: x, Index: width, Scale: 4}, x)
	Label("test")
	CMPQ(x, stop)
	JCS(LabelRef("head"))
	end()
}

// PairMask halves a mask of pairs of lanes: bit i of the result is bit 2i.
func PairMask(k Register, half Op) {
	a, b := GP32(), GP32()
	KMOVW(k, a)
	MOVL(U32(0x5555), b)
	PEXTL(b, a, a)
	KMOVW(a, half)
}

func (s isa) optimizer() {
	p, n := s.fn("adamW", "func(w, g, m, v []float32, gscale, beta1, beta1c, beta2, beta2c, rate, rsqrtC2, eps, keep float32)", "w", "g", "m", "v")
	var c [9]VecVirtual
	for i, name := range []string{"gscale", "beta1", "beta1c", "beta2", "beta2c", "rate", "rsqrtC2", "eps", "keep"} {
		c[i] = s.scalar(name)
	}
	s.loop(n, 1, func(l span) {
		g := s.mul(l.load(p[1]), c[0])
		m := s.mul(l.load(p[2]), c[1])
		s.fma(m, g, c[2])
		l.store(m, p[2])
		v := s.mul(l.load(p[3]), c[3])
		s.fma(v, s.mul(g, g), c[4])
		l.store(v, p[3])
		d := s.vec()
		VSQRTPS(v, d)
		s.horner(d, c[6], c[7])
		w := s.mul(l.load(p[0]), c[8])
		l.store(s.sub(w, s.div(s.mul(m, c[5]), d)), p[0])
	})
	end()
}
