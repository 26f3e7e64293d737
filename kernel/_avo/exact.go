package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// exact writes the float steps whose bits are the same on every machine: no
// fused multiply–add, and sums over sixteen lanes, one vector of AVX-512 and
// two of AVX2.
func exact() {
	for _, s := range []isa{avx512, avx2} {
		s.exactElementwise()
		s.exactSums()
		s.exactQuantize8()
		s.exactEmbedding8()
		s.rotation("exactRotate", func(v, c, w VecVirtual) {
			VMULPS(c, v, v)
			if s.lanes == 8 {
				VADDSUBPS(w, v, v)
				return
			}
			even, bits := K(), GP32()
			MOVL(U32(0x5555), bits)
			KMOVW(bits, even)
			d := s.add(v, w)
			VSUBPS(w, v, even, d)
			VMOVAPS(d, v)
		})
		s.exactScores()
		s.exactValues("exactValues", "func(o, w, values []float32)", 4)
		s.exactValues("exactValues8", "func(o, w []float32, values []int8)", 1)
	}
	vectorData()
}

// exactExp is kernel.exp32, lane by lane; high is a splat of expHigh.
func (s isa) exactExp(x, high VecVirtual) VecVirtual {
	r := s.min(x, high)
	n := s.round(s.mul(r, f32(math.Log2E)))
	r = s.sub(r, s.mul(n, f32(0.693359375)))
	r = s.sub(r, s.mul(n, f32(-2.12194440e-4)))
	p := s.splat(f32(1.9875691500e-4))
	for _, c := range []float64{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		p = s.add(s.mul(p, r), f32(c))
	}
	p = s.add(s.add(s.mul(s.mul(p, r), r), r), f32(1))
	return s.scaleExp(p, n, x)
}

// exactElementwise is what needs no sum.
func (s isa) exactElementwise() {
	p, n := s.fn("exactExp", "func(y, x []float32)", "y", "x")
	high := s.splat(f32(89))
	s.loop(n, 2, func(l span) { l.store(s.exactExp(l.load(p[1]), high), p[0]) })
	end()

	p, n = s.fn("exactSwiGLU", "func(y, gate, up []float32)", "y", "gate", "up")
	high = s.splat(f32(89))
	s.loop(n, 2, func(l span) {
		g := l.load(p[1])
		e := s.exactExp(s.xor(g, bits32(signBit)), high)
		l.store(s.mul(s.div(g, s.add(e, f32(1))), l.load(p[2])), p[0])
	})
	end()

	p, n = s.fn("exactScaleInt32", "func(y []float32, ldy int, acc []int32, ldacc, rows int, s float32, g []float32)", "g", "y", "acc")
	by := s.scalar("s")
	rows, ldy, ldacc := GP64(), GP64(), GP64()
	Load(Param("rows"), rows)
	Load(Param("ldy"), ldy)
	Load(Param("ldacc"), ldacc)
	SHLQ(U8(2), ldy)
	SHLQ(U8(2), ldacc)
	Label("row")
	DECQ(rows)
	JLT(LabelRef("enough"))
	s.loop(n, 4, func(l span) {
		a := l.load(p[2])
		VCVTDQ2PS(a, a)
		l.store(s.mul(a, s.mul(l.load(p[0]), by)), p[1])
	})
	ADDQ(ldy, p[1])
	ADDQ(ldacc, p[2])
	JMP(LabelRef("row"))
	Label("enough")
	end()
}

// loop16 steps through n elements sixteen at a time: step gets one span, or
// for AVX2 the two that make it up.
func (s isa) loop16(n GPVirtual, step func(part []span)) {
	loops++
	label := func(name string) string { return fmt.Sprintf("%s%d", name, loops) }
	again, out, done := label("again"), label("out"), label("done")
	i, left := GP64(), GP64()
	XORQ(i, i)
	MOVQ(n, left)
	part := make([]span, 16/s.lanes)
	for h := range part {
		part[h] = span{s: s, i: i, u: h}
	}
	SUBQ(Imm(16), left)
	JLT(LabelRef(out))
	Label(again)
	step(part)
	ADDQ(Imm(16), i)
	SUBQ(Imm(16), left)
	JGE(LabelRef(again))
	Label(out)
	ADDQ(Imm(16), left)
	JZ(LabelRef(done))
	if s.lanes == 16 {
		part[0].setMask(left)
	} else {
		// The first has min(left, 8) elements, the other what remains.
		first, bound := GP64(), GP64()
		MOVQ(U32(8), bound)
		MOVQ(left, first)
		CMPQ(first, bound)
		CMOVQGT(bound, first)
		SUBQ(first, left)
		part[0].setMask(first)
		part[1].setMask(left)
	}
	step(part)
	Label(done)
}

// sum16 stores the sum of sixteen accumulators as the result.
func (s isa) sum16(acc []VecVirtual) {
	if len(acc) == 2 {
		VADDPS(acc[1], acc[0], acc[0])
	}
	s.reduce32(acc[:1], VADDPS)
}

func (s isa) exactSums() {
	p, n := s.fn("exactSumSquares", "func(x []float32) float32", "x")
	acc := s.accumulators(16 / s.lanes)
	s.loop16(n, func(part []span) {
		for h, l := range part {
			x := l.load(p[0])
			VADDPS(s.mul(x, x), acc[h], acc[h])
		}
	})
	s.sum16(acc)

	p, n = s.fn("exactExpScaled", "func(y, x []float32, top, inv float32) float32", "y", "x")
	top, inv, high := s.scalar("top"), s.scalar("inv"), s.splat(f32(89))
	acc = s.accumulators(16 / s.lanes)
	s.loop16(n, func(part []span) {
		for h, l := range part {
			e := s.exactExp(s.mul(s.sub(l.load(p[1]), top), inv), high)
			l.store(e, p[0])
			VADDPS(l.only(e), acc[h], acc[h])
		}
	})
	s.sum16(acc)
}

func (s isa) exactQuantize8() {
	p, n := s.fn("exactQuantize8", "func(q []int8, x []float32, inv float32)", "q", "x")
	inv, high, low := s.scalar("inv"), s.splat(f32(127)), s.splat(f32(-127))
	s.loop16(n, func(part []span) {
		q := make([]VecVirtual, len(part))
		for h, l := range part {
			q[h] = s.max(s.min(s.mul(l.load(p[1]), inv), high), low)
			VCVTPS2DQ(q[h], q[h]) // rounds halves to even
		}
		l := part[0]
		at := Mem{Base: p[0], Index: l.i, Scale: 1}
		switch {
		case s.lanes == 16 && l.last:
			VPMOVDB(q[0], l.k, at)
		case s.lanes == 16:
			VPMOVDB(q[0], at)
		default:
			VPACKSSDW(q[1], q[0], q[0])
			VPERMQ(U8(0xd8), q[0], q[0])
			x := XMM()
			VEXTRACTI128(U8(1), q[0], x)
			VPACKSSWB(x, q[0].AsX(), x)
			if !l.last {
				VMOVDQU(x, at)
				return
			}
			left := GP64()
			MOVQ(n, left)
			SUBQ(l.i, left)
			LEAQ(at, p[0])
			storeBytes(x, p[0], left)
		}
	})
	end()
}

// storeBytes stores the first left < 16 bytes of x at p.
func storeBytes(x VecVirtual, p, left GPVirtual) {
	for _, size := range []uint64{8, 4, 2, 1} {
		skip := fmt.Sprint("without", size)
		TESTQ(U32(size), left)
		JZ(LabelRef(skip))
		at := Mem{Base: p}
		switch size {
		case 8:
			VMOVQ(x, at)
		case 4:
			VMOVD(x, at)
		case 2:
			VPEXTRW(U8(0), x, at)
		case 1:
			VPEXTRB(U8(0), x, at)
		}
		VPSRLDQ(U8(size), x, x)
		ADDQ(Imm(size), p)
		Label(skip)
	}
}

func (s isa) exactEmbedding8() {
	p, n := s.fn("exactEmbedding8", "func(y []float32, q []int8, s float32)", "y", "q")
	by := s.scalar("s")
	s.loop(n, 4, func(l span) {
		at := Mem{Base: p[1], Index: l.i, Scale: 1, Disp: l.u * s.lanes}
		v := s.vec()
		switch {
		case !l.last:
			VPMOVSXBD(at, v)
		case s.lanes == 16:
			VPMOVSXBD_Z(at, l.k, v)
		default:
			Label("single")
			b, x := GP32(), XMM()
			MOVBLSX(at, b)
			VXORPS(x, x, x)
			VCVTSI2SSL(b, x, x)
			VMULSS(by.AsX(), x, x)
			VMOVSS(x, Mem{Base: p[0], Index: l.i, Scale: 4})
			INCQ(l.i)
			CMPQ(l.i, n)
			JLT(LabelRef("single"))
			return
		}
		VCVTDQ2PS(v, v)
		l.store(s.mul(v, by), p[0])
	})
	end()
}

// exactScores has a vector of positions for each of the sixteen accumulators
// of a sum. AVX2 has registers for half of them: first the even, then the odd
// ones, which the order of the additions keeps apart until the last.
func (s isa) exactScores() {
	p, n := s.fn("exactScores", "func(scores, q, keys []float32, scale float32)", "scores", "q", "keys")
	scale := s.scalar("scale")
	width := GP64()
	Load(Param("q").Len(), width)
	passes := 16 / s.lanes
	const line = 64 // bytes from one element of a block's keys to the next
	parts := 0
	s.loop(n, 1, func(l span) {
		parts++
		var total VecVirtual
		for pass := range passes {
			label := func(name string) string { return fmt.Sprintf("%s%dx%d", name, parts, pass) }
			acc := s.accumulators(s.lanes)
			q, key, left := GP64(), GP64(), GP64()
			MOVQ(p[1], q)
			// Block i/16 is 16·width values on, position i%16 within it.
			MOVQ(l.i, key)
			ANDQ(I8(-16), key)
			IMULQ(width, key)
			LEAQ(Mem{Base: p[2], Index: key, Scale: 4}, key)
			if s.lanes < 16 {
				within := GP64()
				MOVQ(l.i, within)
				ANDQ(Imm(15), within)
				LEAQ(Mem{Base: key, Index: within, Scale: 4, Disp: pass * line}, key)
			}
			step := func(j int) {
				x := l.loadAt(Mem{Base: key})
				ADDQ(Imm(uint64(passes*line)), key)
				at := Mem{Base: q, Disp: 4 * (passes*j + pass)}
				if s.lanes == 16 {
					VMULPS_BCST(at, x, x)
				} else {
					b := s.vec()
					VBROADCASTSS(at, b)
					VMULPS(b, x, x)
				}
				VADDPS(x, acc[j], acc[j])
			}
			MOVQ(width, left)
			SUBQ(Imm(16), left)
			JLT(LabelRef(label("rest")))
			Label(label("sixteen"))
			for j := range acc {
				step(j)
			}
			ADDQ(Imm(64), q)
			SUBQ(Imm(16), left)
			JGE(LabelRef(label("sixteen")))
			Label(label("rest"))
			ADDQ(Imm(16), left)
			for j := range len(acc) {
				CMPQ(left, Imm(uint64(passes*j+pass)))
				JLE(LabelRef(label("fold")))
				step(j)
			}
			Label(label("fold"))
			for w := len(acc) / 2; w > 0; w /= 2 {
				for j := range w {
					VADDPS(acc[j+w], acc[j], acc[j])
				}
			}
			if pass == 0 {
				total = acc[0]
			} else {
				VADDPS(acc[0], total, total)
			}
		}
		l.store(s.mul(total, scale), p[0])
	})
	end()
}

// exactValues keeps up to eight vectors of o in registers while the rows of
// values, of float32 or int8, go by.
func (s isa) exactValues(name, signature string, size int) {
	p, n := s.fn(name, signature, "o", "w", "values")
	o, w, values := p[0], p[1], p[2]
	rows := GP64()
	Load(Param("w").Len(), rows)
	TESTQ(rows, rows)
	JZ(LabelRef("done"))
	row := n // bytes of a row
	if size == 4 {
		row = GP64()
		MOVQ(n, row)
		SHLQ(U8(2), row)
	}
	left := GP64()
	MOVQ(n, left)
	// columns does the next count vectors of every row.
	columns := func(count int, l span) {
		label := fmt.Sprint("row", count)
		if l.last {
			label += "last"
		}
		acc := make([]VecVirtual, count)
		for v := range acc {
			l.u = v
			acc[v] = l.load(o)
		}
		at, weight, k := GP64(), GP64(), GP64()
		MOVQ(values, at)
		MOVQ(w, weight)
		MOVQ(rows, k)
		Label(label)
		a := s.vec()
		VBROADCASTSS(Mem{Base: weight}, a)
		for v := range acc {
			m := Mem{Base: at, Disp: v * s.lanes * size}
			x := s.vec()
			switch {
			case size == 1 && l.last:
				VPMOVSXBD_Z(m, l.k, x)
			case size == 1:
				VPMOVSXBD(m, x)
			case l.last:
				x = l.loadAt(m)
			}
			if size == 1 {
				VCVTDQ2PS(x, x)
			}
			if size == 1 || l.last {
				VMULPS(a, x, x)
			} else {
				VMULPS(m, a, x)
			}
			VADDPS(x, acc[v], acc[v])
		}
		ADDQ(row, at)
		ADDQ(Imm(4), weight)
		DECQ(k)
		JNZ(LabelRef(label))
		for v := range acc {
			l.u = v
			l.store(acc[v], o)
		}
	}
	zero := GP64() // the index of spans
	XORQ(zero, zero)
	for _, count := range []int{8, 4, 2, 1} {
		again, out := fmt.Sprint("columns", count), fmt.Sprint("less", count)
		Label(again)
		CMPQ(left, Imm(uint64(count*s.lanes)))
		JLT(LabelRef(out))
		columns(count, span{s: s, i: zero})
		ADDQ(I32(int32(count*s.bytes())), o)
		ADDQ(I32(int32(count*s.lanes*size)), values)
		SUBQ(I32(int32(count*s.lanes)), left)
		JMP(LabelRef(again))
		Label(out)
	}
	if size == 4 || s.lanes == 16 { // else whole vectors are the caller's duty
		TESTQ(left, left)
		JZ(LabelRef("done"))
		l := span{s: s, i: zero}
		l.setMask(left)
		columns(1, l)
	}
	Label("done")
	end()
}
