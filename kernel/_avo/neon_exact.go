package main

import (
	"fmt"
	"math"
)

// The exact float steps, and the vector kernels of the same mode: no fused
// multiply–add, and four registers for the sixteen accumulators of a sum.
// Slices are whole vectors of four here, unless a function says otherwise;
// exact_arm64.go does the rest.
func neonExact(w *neon) {
	w.exactElementwise()
	w.exactSums()
	w.exactInt8()
	w.exactRotate()
	w.exactScores()
	w.exactValues("exactValuesN", "(o, w, values []float32)", 4)
	w.exactValues("exactValues8N", "(o, w []float32, values []int8)", 1)
	w.exactMax("maxAbsV4", 0, true)
	w.exactMax("maxOfV4", math.Inf(-1), false)
	w.exactIndex()
}

// fmulElement is d = n times lane i of m.
func (w *neon) fmulElement(m, i, n, d int) {
	w.word(0x4f809000|i&1<<21|i>>1<<11|m<<16|n<<5|d, "FMUL V%d.4S, V%d.4S, V%d.S[%d]", d, n, m, i)
}

// fcvtns rounds to integers, halves to even.
func (w *neon) fcvtns(n, d int) {
	w.word(0x4e21a800|n<<5|d, "FCVTNS V%d.4S, V%d.4S", d, n)
}

// op3 is an instruction on vectors of floats or words, op2 one of two operands.
func (w *neon) op3(op string, m, n, d int) { w.p("%s V%d.S4, V%d.S4, V%d.S4", op, m, n, d) }
func (w *neon) op2(op string, n, d int)    { w.p("%s V%d.S4, V%d.S4", op, n, d) }

// splat fills a register with a constant.
func (w *neon) splat(v float64, d int) {
	w.p("MOVD $%#x, R20", math.Float32bits(float32(v)))
	w.p("VDUP R20, V%d.S4", d)
}

// argument fills a register with a float of the arguments.
func (w *neon) argument(name string, d int) {
	w.p("FMOVS %s(FP), F%d", name, d)
	w.p("VDUP V%d.S[0], V%d.S4", d, d)
}

// pointers loads the bases of slices into R0… and the first's length into R10.
func (w *neon) pointers(names ...string) {
	for i, name := range names {
		w.p("MOVD %s_base+%d(FP), R%d", name, 24*i, i)
	}
	w.p("MOVD %s_len+8(FP), R10", names[0])
}

// load and store move count registers from first on, and the pointer on.
func (w *neon) load(r, first, count int) {
	w.p("VLD1.P %d(R%d), %s", 16*count, r, list(first, count, "S4"))
}

func (w *neon) store(r, first, count int) {
	w.p("VST1.P %s, %d(R%d)", list(first, count, "S4"), 16*count, r)
}

// vectors steps through R10 elements, four vectors at a time and then one.
func (w *neon) vectors(step func(count int)) {
	four, rest, one, done := w.unique("four"), w.unique("rest"), w.unique("one"), w.unique("done")
	w.p("SUBS $16, R10")
	w.p("BLT %s", rest)
	w.label(four)
	step(4)
	w.p("SUBS $16, R10")
	w.p("BGE %s", four)
	w.label(rest)
	w.p("ADDS $16, R10")
	w.p("BEQ %s", done)
	w.label(one)
	step(1)
	w.p("SUBS $4, R10")
	w.p("BNE %s", one)
	w.label(done)
}

// sums does the same for four accumulators from V28 on, of which a vector has
// the one of its place, and stores them where R9 points.
func (w *neon) sums(step func(count, acc int)) {
	four, rest, done := w.unique("four"), w.unique("rest"), w.unique("done")
	w.zero(28, 4)
	w.p("SUBS $16, R10")
	w.p("BLT %s", rest)
	w.label(four)
	step(4, 28)
	w.p("SUBS $16, R10")
	w.p("BGE %s", four)
	w.label(rest)
	w.p("ADDS $16, R10")
	for j := range 3 {
		w.p("BEQ %s", done)
		step(1, 28+j)
		w.p("SUBS $4, R10")
	}
	w.label(done)
	w.p("VST1 %s, (R9)", list(28, 4, "S4"))
	w.p("RET")
}

// Registers of exactExp: V0… are where the result is 0, V4… the argument, V8…
// and V12… what comes in between and the result, and the constants:
const (
	expFactors = 16 // log2e, ln2Hi, ln2Lo and C7 as lanes
	expC6      = 20 // and those to C2 behind it
	expOne     = 25
	expLow     = 26
	expHigh    = 27
)

func (w *neon) expConstants() {
	for i, v := range []float64{math.Log2E, 0.693359375, -2.12194440e-4, 1.9875691500e-4} {
		w.p("MOVD $%#x, R20", math.Float32bits(float32(v)))
		w.p("VMOV R20, V%d.S[%d]", expFactors, i)
	}
	for i, v := range []float64{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1, -87, 89} {
		w.splat(v, expC6+i)
	}
}

// exactExp is kernel.exp32 of V4…, in V12…, with temporary registers. The first
// of the two powers of two is added to the exponent of a number around 1.
func (w *neon) exactExp(count int, temp [4]int) {
	each := func(f func(u int)) {
		for u := range count {
			f(u)
		}
	}
	each(func(u int) { w.op3("VFCMGT", 4+u, expLow, u) })
	each(func(u int) { w.op3("VFMIN", expHigh, 4+u, 4+u) })
	each(func(u int) { w.fmulElement(expFactors, 0, 4+u, 8+u) })
	each(func(u int) { w.fcvtns(8+u, 8+u) })
	each(func(u int) { w.op2("VSCVTF", 8+u, 12+u) })
	if temp[0] != temp[1] {
		each(func(u int) { w.fmulElement(expFactors, 1, 12+u, temp[u]) })
		each(func(u int) { w.op3("VFSUB", temp[u], 4+u, 4+u) })
	} else {
		each(func(u int) {
			w.fmulElement(expFactors, 1, 12+u, temp[u])
			w.op3("VFSUB", temp[u], 4+u, 4+u)
		})
	}
	each(func(u int) { w.fmulElement(expFactors, 2, 12+u, 12+u) })
	each(func(u int) { w.op3("VFSUB", 12+u, 4+u, 4+u) })
	each(func(u int) { w.fmulElement(expFactors, 3, 4+u, 12+u) })
	for c := range 5 {
		each(func(u int) { w.op3("VFADD", expC6+c, 12+u, 12+u) })
		each(func(u int) { w.op3("VFMUL", 4+u, 12+u, 12+u) })
	}
	each(func(u int) { w.op3("VFMUL", 4+u, 12+u, 12+u) })
	each(func(u int) { w.op3("VFADD", 4+u, 12+u, 12+u) })
	each(func(u int) { w.op3("VFADD", expOne, 12+u, 12+u) })
	each(func(u int) { w.p("VSSHR $1, V%d.S4, V%d.S4", 8+u, 4+u) })
	each(func(u int) { w.op3("VSUB", 4+u, 8+u, 8+u) })
	each(func(u int) { w.p("VSHL $23, V%d.S4, V%d.S4", 4+u, 4+u) })
	each(func(u int) { w.p("VSHL $23, V%d.S4, V%d.S4", 8+u, 8+u) })
	each(func(u int) { w.op3("VADD", 4+u, 12+u, 12+u) })
	each(func(u int) { w.op3("VADD", expOne, 8+u, 8+u) })
	each(func(u int) { w.op3("VFMUL", 8+u, 12+u, 12+u) })
	each(func(u int) { w.p("VBIC V%d.B16, V%d.B16, V%d.B16", u, 12+u, 12+u) })
}

func (w *neon) exactElementwise() {
	each := func(count int, f func(u int)) {
		for u := range count {
			f(u)
		}
	}
	temp := [4]int{28, 29, 30, 31}
	w.fn("exactExpV4", "(y, x []float32)", "0-48")
	w.pointers("y", "x")
	w.expConstants()
	w.vectors(func(count int) {
		w.load(1, 4, count)
		w.exactExp(count, temp)
		w.store(0, 12, count)
	})
	w.p("RET")

	w.fn("exactSwiGLUV4", "(y, gate, up []float32)", "0-72")
	w.pointers("y", "gate", "up")
	w.expConstants()
	w.vectors(func(count int) {
		w.p("VLD1 (R1), %s", list(4, count, "S4"))
		each(count, func(u int) { w.op2("VFNEG", 4+u, 4+u) })
		w.exactExp(count, temp)
		w.load(1, 4, count)
		w.load(2, 8, count)
		each(count, func(u int) { w.op3("VFADD", expOne, 12+u, 12+u) })
		each(count, func(u int) { w.op3("VFDIV", 12+u, 4+u, 4+u) })
		each(count, func(u int) { w.op3("VFMUL", 8+u, 4+u, 4+u) })
		w.store(0, 4, count)
	})
	w.p("RET")

	w.fn("exactScaleInt32V4", "(y []float32, acc []int32, g []float32, s float32)", "0-76")
	w.pointers("y", "acc", "g")
	w.argument("s+72", 16)
	w.vectors(func(count int) {
		w.load(1, 0, count)
		w.load(2, 4, count)
		each(count, func(u int) { w.op2("VSCVTF", u, u) })
		each(count, func(u int) { w.op3("VFMUL", 16, 4+u, 4+u) })
		each(count, func(u int) { w.op3("VFMUL", 4+u, u, u) })
		w.store(0, 0, count)
	})
	w.p("RET")

	for _, f := range [][2]string{{"addV4", "VFADD"}, {"mulV4", "VFMUL"}} {
		w.fn(f[0], "(y, a, b []float32)", "0-72")
		w.pointers("y", "a", "b")
		w.vectors(func(count int) {
			w.load(1, 0, count)
			w.load(2, 4, count)
			each(count, func(u int) { w.op3(f[1], 4+u, u, u) })
			w.store(0, 0, count)
		})
		w.p("RET")
	}

	w.fn("scaleV4", "(y []float32, s float32)", "0-28")
	w.pointers("y")
	w.argument("s+24", 16)
	w.p("MOVD R0, R1")
	w.vectors(func(count int) {
		w.load(1, 0, count)
		each(count, func(u int) { w.op3("VFMUL", 16, u, u) })
		w.store(0, 0, count)
	})
	w.p("RET")

	w.fn("scaleMulV4", "(y, x, w []float32, s float32)", "0-76")
	w.pointers("y", "x", "w")
	w.argument("s+72", 16)
	w.vectors(func(count int) {
		w.load(1, 0, count)
		w.load(2, 4, count)
		each(count, func(u int) { w.op3("VFMUL", 16, u, u) })
		each(count, func(u int) { w.op3("VFMUL", 4+u, u, u) })
		w.store(0, 0, count)
	})
	w.p("RET")
}

func (w *neon) exactSums() {
	w.fn("exactSumSquaresV4", "(x []float32, sums *[16]float32)", "0-32")
	w.pointers("x")
	w.p("MOVD sums+24(FP), R9")
	w.sums(func(count, acc int) {
		w.load(0, 0, count)
		for u := range count {
			w.op3("VFMUL", u, u, u)
		}
		for u := range count {
			w.op3("VFADD", u, acc+u, acc+u)
		}
	})

	w.fn("exactExpScaledV4", "(y, x []float32, top, inv float32, sums *[16]float32)", "0-64")
	w.pointers("y", "x")
	w.argument("top+48", 17)
	w.argument("inv+52", 18)
	w.p("MOVD sums+56(FP), R9")
	w.expConstants()
	w.sums(func(count, acc int) {
		w.load(1, 4, count)
		for u := range count {
			w.op3("VFSUB", 17, 4+u, 4+u)
		}
		for u := range count {
			w.op3("VFMUL", 18, 4+u, 4+u)
		}
		w.exactExp(count, [4]int{19, 19, 19, 19})
		w.store(0, 12, count)
		for u := range count {
			w.op3("VFADD", 12+u, acc+u, acc+u)
		}
	})
}

// widen turns the bytes of register n into floats in d…, or the first four in d.
func (w *neon) widen(n, d, count int) {
	if count == 1 {
		w.p("VSXTL V%d.B8, V%d.H8", n, n)
		w.p("VSXTL V%d.H4, V%d.S4", n, d)
		w.op2("VSCVTF", d, d)
		return
	}
	w.p("VSXTL V%d.B8, V%d.H8", n, d)
	w.p("VSXTL2 V%d.B16, V%d.H8", n, d+2)
	for _, i := range []int{d, d + 2} {
		w.p("VSXTL2 V%d.H8, V%d.S4", i, i+1)
		w.p("VSXTL V%d.H4, V%d.S4", i, i)
	}
	for i := range 4 {
		w.op2("VSCVTF", d+i, d+i)
	}
}

// loadBytes loads 4·count bytes, and moves the pointer on.
func (w *neon) loadBytes(r, d, count int) {
	if count == 1 {
		w.p("FMOVS.P 4(R%d), F%d", r, d)
	} else {
		w.p("FMOVQ.P 16(R%d), F%d", r, d)
	}
}

// exactInt8 is the rounding to bytes, and an embedding's row of bytes.
func (w *neon) exactInt8() {
	w.fn("exactQuantize8V4", "(q []int8, x []float32, inv float32)", "0-52")
	w.pointers("q", "x")
	w.argument("inv+48", 16)
	w.splat(127, 17)
	w.splat(-127, 18)
	w.vectors(func(count int) {
		w.load(1, 0, count)
		for u := range count {
			w.op3("VFMUL", 16, u, u)
		}
		for u := range count {
			w.op3("VFMIN", 17, u, u)
		}
		for u := range count {
			w.op3("VFMAX", 18, u, u)
		}
		for u := range count {
			w.fcvtns(u, u)
		}
		if count == 1 {
			w.p("VUZP1 V0.H8, V0.H8, V0.H8")
			w.p("VUZP1 V0.B16, V0.B16, V0.B16")
			w.p("FMOVS.P F0, 4(R0)")
			return
		}
		w.p("VUZP1 V1.H8, V0.H8, V0.H8")
		w.p("VUZP1 V3.H8, V2.H8, V2.H8")
		w.p("VUZP1 V2.B16, V0.B16, V0.B16")
		w.p("FMOVQ.P F0, 16(R0)")
	})
	w.p("RET")

	w.fn("exactEmbedding8V4", "(y []float32, q []int8, s float32)", "0-52")
	w.pointers("y", "q")
	w.argument("s+48", 16)
	w.vectors(func(count int) {
		w.loadBytes(1, 4, count)
		w.widen(4, 0, count)
		for u := range count {
			w.op3("VFMUL", 16, u, u)
		}
		w.store(0, 0, count)
	})
	w.p("RET")
}

// exactRotate does one head: real parts in V0…, imaginary ones in V1….
func (w *neon) exactRotate() {
	w.fn("exactRotateV4", "(cos, sin, x []float32)", "0-72")
	w.pointers("cos", "sin", "x")
	w.p("CBZ R10, done")
	w.label("again")
	w.p("VLD2 (R2), [V0.S4, V1.S4]")
	w.load(0, 2, 1)
	w.load(1, 3, 1)
	w.op3("VFMUL", 2, 0, 4)
	w.op3("VFMUL", 3, 1, 5)
	w.op3("VFMUL", 2, 1, 6)
	w.op3("VFMUL", 3, 0, 7)
	w.op3("VFSUB", 5, 4, 0)
	w.op3("VFADD", 7, 6, 1)
	w.p("VST2.P [V0.S4, V1.S4], 32(R2)")
	w.p("SUBS $4, R10")
	w.p("BNE again")
	w.label("done")
	w.p("RET")
}

// exactScores has four positions of a block in a register, one register for
// each of the sixteen accumulators, and goes over the block four times. q may
// be of any length.
func (w *neon) exactScores() {
	w.fn("exactScoresN", "(scores, q, keys []float32, scale float32)", "0-76")
	w.pointers("scores", "q", "keys")
	w.p("MOVD q_len+32(FP), R3")
	w.argument("scale+72", 31)
	w.p("CBZ R10, done")
	w.label("block")
	w.p("MOVD $4, R9")
	w.label("positions")
	w.zero(0, 16)
	w.p("MOVD R1, R4")
	w.p("MOVD R2, R5")
	w.p("SUBS $16, R3, R6")
	w.p("BLT rest")
	w.label("sixteen")
	w.load(4, 16, 4)
	for _, half := range []int{0, 8} {
		for j := range 8 {
			w.p("FMOVQ %d(R5), F%d", 64*(half+j), 20+j)
		}
		for j := range 8 {
			w.fmulElement(16+(half+j)/4, j%4, 20+j, 20+j)
		}
		for j := range 8 {
			w.op3("VFADD", 20+j, half+j, half+j)
		}
	}
	w.p("ADD $1024, R5")
	w.p("SUBS $16, R6")
	w.p("BGE sixteen")
	w.label("rest")
	w.p("ADDS $16, R6")
	for j := range 15 {
		w.p("BEQ fold")
		w.p("VLD1R.P 4(R4), [V16.S4]")
		w.p("FMOVQ.P 64(R5), F20")
		w.op3("VFMUL", 16, 20, 20)
		w.op3("VFADD", 20, j, j)
		w.p("SUBS $1, R6")
	}
	w.label("fold")
	for half := 8; half > 0; half /= 2 {
		for j := range half {
			w.op3("VFADD", j+half, j, j)
		}
	}
	w.op3("VFMUL", 31, 0, 0)
	w.p("FMOVQ.P F0, 16(R0)")
	w.p("ADD $16, R2")
	w.p("SUBS $1, R9")
	w.p("BNE positions")
	w.p("SUB $64, R2")
	w.p("ADD R3<<6, R2")
	w.p("SUBS $16, R10")
	w.p("BNE block")
	w.label("done")
	w.p("RET")
}

// exactValues keeps up to 16 vectors of o, of any length, in V0… while the
// rows of values go by; the last columns singly.
func (w *neon) exactValues(name, signature string, size int) {
	w.fn(name, signature, "0-72")
	w.pointers("o", "w", "values")
	w.p("MOVD w_len+32(FP), R3")
	w.p("CBZ R3, done")
	w.p("MOVD R10, R5") // bytes of a row
	if size == 4 {
		w.p("LSL $2, R10, R5")
	}
	for _, count := range []int{16, 8, 4, 1, 0} {
		again, out, row := fmt.Sprint("columns", count), fmt.Sprint("less", count), fmt.Sprint("row", count)
		columns := max(1, 4*count)
		w.label(again)
		w.p("SUBS $%d, R10", columns)
		w.p("BLT %s", out)
		w.p("MOVD R1, R6")
		w.p("MOVD R2, R7")
		w.p("MOVD R3, R8")
		group := min(4, count)
		if count == 0 {
			w.p("FMOVS (R0), F0")
		}
		for v := 0; v < count; v += group {
			if v == 0 {
				w.p("MOVD R0, R9")
			}
			w.load(9, v, group)
		}
		w.label(row)
		w.p("VLD1R.P 4(R6), [V24.S4]")
		w.p("MOVD R7, R9")
		w.p("ADD R5, R7")
		at := func(from int) { // vectors in V16… times the weight, to those from on
			n := min(8, count)
			for v := range n {
				w.op3("VFMUL", 24, 16+v, 16+v)
			}
			for v := range n {
				w.op3("VFADD", 16+v, from+v, from+v)
			}
		}
		switch {
		case count == 0 && size == 4:
			w.p("FMOVS (R9), F16")
			w.p("FMULS F24, F16, F16")
			w.p("FADDS F16, F0, F0")
		case count == 0:
			w.p("MOVB (R9), R11")
			w.p("SCVTFWS R11, F16")
			w.p("FMULS F24, F16, F16")
			w.p("FADDS F16, F0, F0")
		default:
			for from := 0; from < count; from += 8 {
				for v := 0; v < min(8, count); v += group {
					if size == 4 {
						w.load(9, 16+v, group)
					} else {
						w.loadBytes(9, 25+v/4, group)
						w.widen(25+v/4, 16+v, group)
					}
				}
				at(from)
			}
		}
		w.p("SUBS $1, R8")
		w.p("BNE %s", row)
		for v := 0; v < count; v += group {
			w.store(0, v, group)
		}
		if count == 0 {
			w.p("FMOVS.P F0, 4(R0)")
		}
		w.p("ADD $%d, R2", size*columns)
		w.p("JMP %s", again)
		w.label(out)
		w.p("ADD $%d, R10", columns)
	}
	w.label("done")
	w.p("RET")
}

// exactMax is the greatest of x, or of its absolute values, and of a start.
func (w *neon) exactMax(name string, start float64, abs bool) {
	w.fn(name, "(x []float32) float32", "0-28")
	w.pointers("x")
	for i := range 4 {
		w.splat(start, 4+i)
	}
	w.vectors(func(count int) {
		w.load(0, 0, count)
		for u := range count {
			if abs {
				w.op2("VFABS", u, u)
			}
			w.op3("VFMAXNM", u, 4+u, 4+u)
		}
	})
	w.op3("VFMAXNM", 5, 4, 4)
	w.op3("VFMAXNM", 7, 6, 6)
	w.op3("VFMAXNM", 6, 4, 4)
	w.p("VFMAXNMV V4.S4, V4")
	w.p("FMOVS F4, ret+24(FP)")
	w.p("RET")
}

// exactIndex is where the first 16 of x begin that have a v, or x's length,
// which is a multiple of 16.
func (w *neon) exactIndex() {
	w.fn("indexOfV4", "(x []float32, v float32) int", "0-40")
	w.pointers("x")
	w.argument("v+24", 16)
	w.p("MOVD ZR, R2")
	w.label("again")
	w.p("CMP R10, R2")
	w.p("BGE done")
	w.load(0, 0, 4)
	for u := range 4 {
		w.op3("VFCMEQ", 16, u, u)
	}
	w.p("VORR V1.B16, V0.B16, V0.B16")
	w.p("VORR V3.B16, V2.B16, V2.B16")
	w.p("VORR V2.B16, V0.B16, V0.B16")
	w.p("VUMAXV V0.B16, V0")
	w.p("VMOV V0.B[0], R3")
	w.p("CBNZ R3, done")
	w.p("ADD $16, R2")
	w.p("JMP again")
	w.label("done")
	w.p("MOVD R2, ret+32(FP)")
	w.p("RET")
}
