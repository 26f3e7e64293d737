package main

import (
	"fmt"
	"math"
)

// The float32 steps of int8 inference, for whole vectors of four: what
// exact.go defines, bit by bit. Sums have four accumulators of four lanes.

func wasmExact(w *wasm) {
	w.exactExp()
	w.exactSwiGLU()
	w.exactScaleInt32()
	for _, f := range [][2]string{{"addV4", "F32x4Add"}, {"mulV4", "F32x4Mul"}} {
		w.fn(f[0], "(y, a, b []float32)", 72)
		w.pointers("y", 0, "a", 24, "b", 48)
		w.vectors(4, func(at int) {
			w.address("R1")
			w.load("R2", at)
			w.load("R3", at)
			w.p("%s", f[1])
			w.store(at)
		}, 16, 16, 16)
		w.p("RET")
	}
	w.scale()
	w.scaleMul()
	w.exactSumSquares()
	w.exactExpScaled()
	w.exactQuantize8()
	w.exactEmbedding8()
	w.exactRotate()
	w.exactScores()
	w.greatest("maxAbsV4", 0, true)
	w.greatest("maxOfV4", float32(math.Inf(-1)), false)
	w.indexOf()
	w.exactValues("exactValuesRows", false)
	w.exactValues("exactValues8Rows", true)
	w.matVecInt8()
}

// pointers sets R1 … to the beginnings of slices, and R0 to the length of the
// first.
func (w *wasm) pointers(slices ...any) {
	for i := 0; i < len(slices); i += 2 {
		name, at := slices[i].(string), slices[i+1].(int)
		w.arg(name+"_base", at, r(1+i/2))
		if i == 0 {
			w.arg(name+"_len", at+8, "R0")
		}
	}
}

// vectors runs body for R0 elements, a multiple of four: unroll vectors at a
// time, of which body is told the offset for elements of 4 bytes, and the rest
// one by one. steps are by how many bytes a vector moves R1 ….
func (w *wasm) vectors(unroll int, body func(at int), steps ...int) {
	next := func(n int) {
		for i, s := range steps {
			if s > 0 {
				w.add(r(1+i), n*s)
			}
		}
	}
	if unroll > 1 {
		w.whileAtLeast("R0", 4*unroll, func() {
			for i := range unroll {
				body(16 * i)
			}
			next(unroll)
		})
	}
	w.unless("R0", func() {
		w.loop("R0", 4, func() {
			body(0)
			next(1)
		})
	})
}

// whileAtLeast runs body as long as the register holds n or more, and takes n
// from it each time.
func (w *wasm) whileAtLeast(reg string, n int, body func()) {
	w.p("Block")
	w.get(reg)
	w.constant(n)
	w.p("I64LtU")
	w.p("BrIf $0")
	w.p("Loop")
	body()
	w.get(reg)
	w.constant(-n)
	w.p("I64Add")
	w.tee(reg)
	w.constant(n)
	w.p("I64GeU")
	w.p("BrIf $0")
	w.p("End")
	w.p("End")
}

// ints pushes four times an integer of 32 bits.
func (w *wasm) ints(x uint32) {
	w.p("V128Const $%d, $%d", int64(uint64(x)<<32|uint64(x)), int64(uint64(x)<<32|uint64(x)))
}

// floats pushes four times a float.
func (w *wasm) floats(x float32) { w.ints(math.Float32bits(x)) }

// bytes pushes 16 bytes.
func (w *wasm) bytes(b ...int) {
	var x [2]uint64
	for i, v := range b {
		x[i/8] |= uint64(uint8(v)) << (i % 8 * 8)
	}
	w.p("V128Const $%d, $%d", int64(x[0]), int64(x[1]))
}

// lanes pushes a swizzle's indices that take whole lanes of four bytes.
func (w *wasm) lanes(l ...int) {
	var b []int
	for _, i := range l {
		b = append(b, 4*i, 4*i+1, 4*i+2, 4*i+3)
	}
	w.bytes(b...)
}

// spreadArg sets a vector to an argument of four bytes.
func (w *wasm) spreadArg(name string, at int, reg string) {
	w.p("F32Load %s+%d(FP)", name, at)
	w.p("F32x4Splat")
	w.set(reg)
}

// spreadFloat pushes four times a float of memory.
func (w *wasm) spreadFloat(reg string, offset int) {
	w.address(reg)
	w.p("F32Load $%d", offset)
	w.p("F32x4Splat")
}

// wide8 pushes 8 bytes of memory as int16, and reads no more.
func (w *wasm) wide8(reg string, offset int) {
	w.address(reg)
	w.p("I64Load $%d", offset)
	w.ops("I64x2Splat", "I16x8ExtendLowI8x16S")
}

// exp replaces the vector on the stack by kernel.exp32 of it. V8 … V11 are
// lost. 2ⁿ is added to the exponent, which is exact where the result is
// finite; one of 2¹²⁸ or more has the bits of +Inf or above.
func (w *wasm) exp() {
	const x, n, e, y = "V8", "V9", "V10", "V11"
	const log2e, ln2Hi, ln2Lo, low, high = 1.44269504088896341, 0.693359375, -2.12194440e-4, -87, 89
	terms := []float32{1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1}
	w.tee(x)
	w.floats(high)
	w.p("F32x4Pmin")
	w.tee(e) // clamped
	w.floats(log2e)
	w.ops("F32x4Mul", "F32x4Nearest")
	w.set(n)
	w.get(e, n)
	w.floats(ln2Hi)
	w.ops("F32x4Mul", "F32x4Sub")
	w.get(n)
	w.floats(ln2Lo)
	w.ops("F32x4Mul", "F32x4Sub")
	w.set(e) // the rest of the exponent
	w.floats(terms[0])
	for _, c := range terms[1:] {
		w.get(e)
		w.p("F32x4Mul")
		w.floats(c)
		w.p("F32x4Add")
	}
	w.get(e)
	w.p("F32x4Mul")
	w.get(e)
	w.p("F32x4Mul")
	w.get(e)
	w.p("F32x4Add")
	w.floats(1)
	w.p("F32x4Add")
	w.get(n)
	w.p("I32x4TruncSatF32x4S")
	w.p("I32Const $23")
	w.ops("I32x4Shl", "I32x4Add")
	w.floats(float32(math.Inf(1)))
	w.p("I32x4MinS")
	w.get(x)
	w.floats(low)
	w.ops("F32x4Lt", "V128Andnot")
	w.set(y)
	w.get(y, x, x, x)
	w.ops("F32x4Eq", "V128Bitselect") // NaN is itself
}

func (w *wasm) exactExp() {
	w.fn("exactExpV4", "(y, x []float32)", 48)
	w.pointers("y", 0, "x", 24)
	w.vectors(1, func(at int) {
		w.address("R1")
		w.load("R2", at)
		w.exp()
		w.store(at)
	}, 16, 16)
	w.p("RET")
}

// exactSwiGLU is gate/(1 + exp(−gate))·up.
func (w *wasm) exactSwiGLU() {
	w.fn("exactSwiGLUV4", "(y, gate, up []float32)", 72)
	w.pointers("y", 0, "gate", 24, "up", 48)
	w.vectors(1, func(at int) {
		w.address("R1")
		w.load("R2", at)
		w.tee("V0")
		w.floats(1)
		w.get("V0")
		w.p("F32x4Neg")
		w.exp()
		w.ops("F32x4Add", "F32x4Div")
		w.load("R3", at)
		w.p("F32x4Mul")
		w.store(at)
	}, 16, 16, 16)
	w.p("RET")
}

// exactScaleInt32 is of rows: R4 of them are left, R5 and R6 go from the end of
// one to the next, R7 is the number of elements.
func (w *wasm) exactScaleInt32() {
	w.fn("exactScaleInt32Rows", "(y []float32, ldy int, acc []int32, ldacc, rows int, s float32, g []float32)", 104)
	w.arg("y_base", 0, "R1")
	w.arg("acc_base", 32, "R2")
	w.arg("rows", 64, "R4")
	w.arg("g_len", 88, "R7")
	for _, f := range [][2]string{{"R5", "ldy+24"}, {"R6", "ldacc+56"}} {
		w.p("I64Load %s(FP)", f[1])
		w.get("R7")
		w.p("I64Sub")
		w.constant(2)
		w.p("I64Shl")
		w.set(f[0])
	}
	w.spreadArg("s", 72, "V0")
	w.unless("R4", func() {
		w.loop("R4", 1, func() {
			w.arg("g_base", 80, "R3")
			w.get("R7")
			w.set("R0")
			w.vectors(8, func(at int) {
				w.address("R1")
				w.load("R2", at)
				w.p("F32x4ConvertI32x4S")
				w.load("R3", at)
				w.get("V0")
				w.ops("F32x4Mul", "F32x4Mul")
				w.store(at)
			}, 16, 16, 16)
			w.addReg("R1", "R5")
			w.addReg("R2", "R6")
		})
	})
	w.p("RET")
}

func (w *wasm) scale() {
	w.fn("scaleV4", "(y []float32, s float32)", 28)
	w.pointers("y", 0)
	w.spreadArg("s", 24, "V0")
	w.vectors(4, func(at int) {
		w.address("R1")
		w.load("R1", at)
		w.get("V0")
		w.p("F32x4Mul")
		w.store(at)
	}, 16)
	w.p("RET")
}

func (w *wasm) scaleMul() {
	w.fn("scaleMulV4", "(y, x, w []float32, s float32)", 76)
	w.pointers("y", 0, "x", 24, "w", 48)
	w.spreadArg("s", 72, "V0")
	w.vectors(4, func(at int) {
		w.address("R1")
		w.load("R2", at)
		w.get("V0")
		w.p("F32x4Mul")
		w.load("R3", at)
		w.p("F32x4Mul")
		w.store(at)
	}, 16, 16, 16)
	w.p("RET")
}

// sums returns what body, of a vector, pushes to be added: 16 accumulators in
// V0 … V3, folded by halves. ret is where the result goes. A vector moves R1 …
// by steps.
func (w *wasm) sums(ret int, body func(at int), steps ...int) {
	next := func(n int) {
		for i, s := range steps {
			w.add(r(1+i), n*s)
		}
	}
	each := func(i, at int) {
		body(at)
		w.get(v(i))
		w.p("F32x4Add")
		w.set(v(i))
	}
	w.zero(0, 4)
	w.whileAtLeast("R0", 16, func() {
		for i := range 4 {
			each(i, 16*i)
		}
		next(4)
	})
	w.p("Block")
	for i := range 3 {
		w.get("R0")
		w.constant(4 * i)
		w.ops("I64LeU", "BrIf $0")
		each(i, 16*i)
	}
	w.p("End")
	w.get("V0", "V2")
	w.p("F32x4Add")
	w.get("V1", "V3")
	w.ops("F32x4Add", "F32x4Add")
	w.set("V0")
	w.get("SP", "V0", "V0")
	for _, turn := range [][]int{{2, 3, 2, 3}, {1, 1, 1, 1}} {
		w.lanes(turn...)
		w.ops("I8x16Swizzle", "F32x4Add")
		w.tee("V0")
		w.get("V0")
	}
	w.p("Drop")
	w.p("F32x4ExtractLane $0, $0")
	w.p("F32Store ret+%d(FP)", ret)
	w.p("RET")
}

func (w *wasm) exactSumSquares() {
	w.fn("exactSumSquaresFold", "(x []float32) float32", 28)
	w.pointers("x", 0)
	w.sums(24, func(at int) {
		w.load("R1", at)
		w.tee("V4")
		w.get("V4")
		w.p("F32x4Mul")
	}, 16)
}

// exactExpScaled is exp((x−top)·inv).
func (w *wasm) exactExpScaled() {
	w.fn("exactExpScaledFold", "(y, x []float32, top, inv float32) float32", 60)
	w.pointers("y", 0, "x", 24)
	w.spreadArg("top", 48, "V4")
	w.spreadArg("inv", 52, "V5")
	w.sums(56, func(at int) {
		w.load("R2", at)
		w.get("V4")
		w.p("F32x4Sub")
		w.get("V5")
		w.p("F32x4Mul")
		w.exp()
		w.set("V6")
		w.address("R1")
		w.get("V6")
		w.store(at)
		w.get("V6")
	}, 16, 16)
}

// exactQuantize8 rounds 16 elements at a time, the last ones four. The
// conversions saturate, so only −128 must be kept out.
func (w *wasm) exactQuantize8() {
	w.fn("exactQuantize8V4", "(q []int8, x []float32, inv float32)", 52)
	w.pointers("q", 0, "x", 24)
	w.spreadArg("inv", 48, "V0")
	round := func(at int) {
		w.load("R2", at)
		w.get("V0")
		w.ops("F32x4Mul", "F32x4Nearest", "I32x4TruncSatF32x4S")
	}
	w.whileAtLeast("R0", 16, func() {
		w.address("R1")
		round(0)
		round(16)
		w.p("I16x8NarrowI32x4S")
		round(32)
		round(48)
		w.ops("I16x8NarrowI32x4S", "I8x16NarrowI16x8S")
		w.ints(0x81818181) // −127
		w.p("I8x16MaxS")
		w.store(0)
		w.add("R1", 16)
		w.add("R2", 64)
	})
	w.unless("R0", func() {
		w.loop("R0", 4, func() {
			w.address("R1")
			round(0)
			w.tee("V1")
			w.get("V1")
			w.p("I16x8NarrowI32x4S")
			w.tee("V1")
			w.get("V1")
			w.p("I8x16NarrowI16x8S")
			w.ints(0x81818181)
			w.p("I8x16MaxS")
			w.p("I32x4ExtractLane $0, $0")
			w.p("I32Store $0")
			w.add("R1", 4)
			w.add("R2", 16)
		})
	})
	w.p("RET")
}

func (w *wasm) exactEmbedding8() {
	w.fn("exactEmbedding8V4", "(y []float32, q []int8, s float32)", 52)
	w.pointers("y", 0, "q", 24)
	w.spreadArg("s", 48, "V0")
	w.vectors(1, func(int) {
		w.address("R1")
		w.address("R2")
		w.ops("I32Load $0", "I32x4Splat", "I16x8ExtendLowI8x16S", "I32x4ExtendLowI16x8S", "F32x4ConvertI32x4S")
		w.get("V0")
		w.p("F32x4Mul")
		w.store(0)
	}, 16, 4)
	w.p("RET")
}

// exactRotate turns the pairs of one head: x·cos + (x with its pairs
// swapped)·(−sin, sin).
func (w *wasm) exactRotate() {
	w.fn("exactRotateV4", "(cos, sin, x []float32)", 72)
	w.pointers("cos", 0, "sin", 24, "x", 48)
	w.vectors(1, func(int) {
		w.load("R1", 0)
		w.set("V0")
		w.load("R2", 0)
		w.set("V1")
		for half := range 2 {
			a, b := 2*half, 2*half+1
			w.address("R3")
			w.load("R3", 16*half)
			w.tee("V2")
			w.get("V0")
			w.lanes(a, a, b, b)
			w.ops("I8x16Swizzle", "F32x4Mul")
			w.get("V2")
			w.lanes(1, 0, 3, 2)
			w.p("I8x16Swizzle")
			w.get("V1")
			w.lanes(a, a, b, b)
			w.p("I8x16Swizzle")
			w.p("V128Const $%d, $%d", 1<<31, 1<<31)
			w.ops("V128Xor", "F32x4Mul", "F32x4Add")
			w.store(16 * half)
		}
	}, 16, 16, 32)
	w.p("RET")
}

// exactScores is of four positions at a time: kernel.ExactScores with 16
// accumulators, V0 … V15, for each. R4 is the query, R5 how much of it is left.
func (w *wasm) exactScores() {
	w.fn("exactScoresV4", "(scores, q, keys []float32, scale float32)", 76)
	w.arg("scores_base", 0, "R1")
	w.arg("scores_len", 8, "R0")
	w.arg("keys_base", 48, "R2")
	w.unless("R0", func() {
		w.loop("R0", 16, func() {
			w.constant(4)
			w.set("R6")
			w.loop("R6", 1, func() { // a quarter of the block
				w.zero(0, 16)
				w.get("R2")
				w.set("R3")
				w.arg("q_base", 24, "R4")
				w.arg("q_len", 32, "R5")
				step := func(i, at int) {
					w.get(v(i))
					w.spreadFloat("R4", 4*at)
					w.load("R3", 64*at)
					w.ops("F32x4Mul", "F32x4Add")
					w.set(v(i))
				}
				w.whileAtLeast("R5", 16, func() {
					for i := range 16 {
						step(i, i)
					}
					w.add("R4", 64)
					w.add("R3", 1024)
				})
				w.p("Block")
				for i := range 15 {
					w.get("R5")
					w.constant(i)
					w.ops("I64LeU", "BrIf $0")
					step(i, i)
				}
				w.p("End")
				for h := 8; h > 0; h /= 2 {
					for i := range h {
						w.get(v(i), v(i+h))
						w.p("F32x4Add")
						w.set(v(i))
					}
				}
				w.address("R1")
				w.get("V0")
				w.p("F32Load scale+72(FP)")
				w.ops("F32x4Splat", "F32x4Mul")
				w.store(0)
				w.add("R1", 16)
				w.add("R2", 16)
			})
			// On to the next block, of q_len·64 bytes, from 64 into this one.
			w.p("I64Load q_len+32(FP)")
			w.constant(6)
			w.p("I64Shl")
			w.get("R2")
			w.p("I64Add")
			w.constant(-64)
			w.p("I64Add")
			w.set("R2")
		})
	})
	w.p("RET")
}

// greatest is the maximum of the elements or of their absolute values; NaN is
// not less than anything.
func (w *wasm) greatest(name string, from float32, abs bool) {
	w.fn(name, "(x []float32) float32", 28)
	w.pointers("x", 0)
	for i := range 4 {
		w.floats(from)
		w.set(v(i))
	}
	w.vectors(8, func(at int) {
		acc := v(at / 16 % 4)
		w.get(acc)
		w.load("R1", at)
		if abs {
			w.ints(1<<31 - 1)
			w.p("V128And")
		}
		w.p("F32x4Pmax")
		w.set(acc)
	}, 16)
	w.get("V0", "V1")
	w.p("F32x4Pmax")
	w.get("V2", "V3")
	w.ops("F32x4Pmax", "F32x4Pmax")
	for _, turn := range [][]int{{2, 3, 0, 1}, {1, 0, 3, 2}} {
		w.tee("V0")
		w.get("V0")
		w.lanes(turn...)
		w.ops("I8x16Swizzle", "F32x4Pmax")
	}
	w.set("V0")
	w.get("SP", "V0")
	w.p("F32x4ExtractLane $0, $0")
	w.p("F32Store ret+24(FP)")
	w.p("RET")
}

// indexOf gives the beginning of the first 16 elements that v is among, or the
// end of x.
func (w *wasm) indexOf() {
	w.fn("indexOfV4", "(x []float32, v float32) int", 40)
	w.pointers("x", 0)
	w.spreadArg("v", 24, "V0")
	w.unless("R0", func() {
		w.loop("R0", 16, func() {
			for i := range 4 {
				w.load("R1", 16*i)
				w.get("V0")
				w.p("F32x4Eq")
				if i > 0 {
					w.p("V128Or")
				}
			}
			w.ops("V128AnyTrue", "BrIf $1")
			w.add("R1", 64)
		})
	})
	w.get("SP", "R1")
	w.p("I64Load x_base+0(FP)")
	w.p("I64Sub")
	w.constant(2)
	w.p("I64ShrU")
	w.p("I64Store ret+32(FP)")
	w.p("RET")
}

// valueRows is how many positions exactValues takes together.
const valueRows = 8

// exactValues adds rows of weighted values, ld bytes apart, to 8·n columns of
// o, in order: eight rows at a time, then one by one. R1 is o, R2 the weights,
// R3 the values, R4 … R6 the same within the rows at hand, whose weights are in
// V0 ….
func (w *wasm) exactValues(name string, int8 bool) {
	element, size := "float32", 4
	if int8 {
		element, size = "int8", 1
	}
	w.fn(name, fmt.Sprintf("(o, w []float32, values []%s, ld int)", element), 80)
	w.arg("o_base", 0, "R1")
	w.arg("w_base", 24, "R2")
	w.arg("w_len", 32, "R0")
	w.arg("values_base", 48, "R3")
	w.arg("ld", 72, "R4")
	// rows adds n rows; columns are taken 64 at a time, then eight.
	rows := func(n int) {
		for p := range n {
			w.spreadFloat("R2", 4*p)
			w.set(v(p))
		}
		block := func(columns int) {
			for at := 0; at < columns; at += 8 {
				for half := range 2 {
					w.load("R5", 4*at+16*half)
					for p := range n {
						row := "R6"
						if p > 0 {
							row = r(8 + p)
						}
						if int8 {
							w.wide8(row, at)
							w.p("I32x4Extend%sI16x8S", []string{"Low", "High"}[half])
							w.p("F32x4ConvertI32x4S")
						} else {
							w.load(row, 4*at+16*half)
						}
						w.get(v(p))
						w.ops("F32x4Mul", "F32x4Add")
					}
					w.set(v(8 + half))
				}
				for half := range 2 { // both only now: what is stored must be loaded again
					w.address("R5")
					w.get(v(8 + half))
					w.store(4*at + 16*half)
				}
			}
			w.add("R5", 4*columns)
			w.add("R6", size*columns)
			for p := 1; p < n; p++ {
				w.add(r(8+p), size*columns)
			}
		}
		w.get("R1")
		w.set("R5")
		w.get("R3")
		w.tee("R6")
		for p := 1; p < n; p++ {
			w.get("R4")
			w.p("I64Add")
			w.tee(r(8 + p))
		}
		w.get("R4")
		w.p("I64Add")
		w.set("R3") // the next rows
		w.arg("o_len", 8, "R7")
		w.whileAtLeast("R7", 64, func() { block(64) })
		w.unless("R7", func() { w.loop("R7", 8, func() { block(8) }) })
		w.add("R2", 4*n)
	}
	w.whileAtLeast("R0", valueRows, func() { rows(valueRows) })
	w.unless("R0", func() { w.loop("R0", 1, func() { rows(1) }) })
	w.p("RET")
}

// matVecInt8 is kernel.refMatVecInt8 for a multiple of 16 columns, four rows at
// a time and the rest one by one. 64 columns of x are kept.
func (w *wasm) matVecInt8() {
	w.fn("matVecInt8V16", "(y []int32, w, x []int8)", 72)
	w.arg("y_base", 0, "R1")
	w.arg("y_len", 8, "R0")
	w.arg("w_base", 24, "R2")
	w.arg("x_len", 56, "R8")
	rows := func(n int) {
		w.zero(0, n)
		w.arg("x_base", 48, "R3")
		w.get("R8")
		w.set("R4")
		w.get("R2")
		for p := range n {
			w.tee(r(10 + p))
			w.get("R8")
			w.p("I64Add")
		}
		w.set("R2")
		block := func(columns int) {
			for p := range n {
				w.get(v(p))
				for at := 0; at < columns; at += 8 {
					w.wide(r(10+p), at)
					w.wide("R3", at)
					w.ops("I32x4DotI16x8S", "I32x4Add")
				}
				w.set(v(p))
				w.add(r(10+p), columns)
			}
			w.add("R3", columns)
		}
		w.whileAtLeast("R4", 64, func() { block(64) })
		w.unless("R4", func() { w.loop("R4", 16, func() { block(16) }) })
		for p := range n {
			w.address("R1")
			for l := range 4 {
				w.get(v(p))
				w.p("I32x4ExtractLane $0, $%d", l)
				if l > 0 {
					w.p("I32Add")
				}
			}
			w.p("I32Store $%d", 4*p)
		}
		w.add("R1", 4*n)
	}
	w.whileAtLeast("R0", 4, func() { rows(4) })
	w.unless("R0", func() { w.loop("R0", 1, func() { rows(1) }) })
	w.p("RET")
}
