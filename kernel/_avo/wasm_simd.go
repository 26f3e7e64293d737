package main

// Integer products in kernel.LayoutSIMD128.

func wasmSIMD(w *wasm) {
	w.panels("simdLinearPanels", 8, 8)
	w.panels("simdTablePanels", 16, 16)
	w.panels("simdKeyPanels", 4, 8)
	w.hadamard()
	w.terms()
	w.transform()
	w.termTables()
	w.widen()
	w.setKey()
}

// panels is kernel.panelShape.refPanels: c and x are whole panels and steps.
func (w *wasm) panels(name string, groups, pairs int) {
	w.fn(name, "(c []int32, w []uint8, x []int16)", 72)
	w.arg("c_base", 0, "R0")
	w.arg("w_base", 24, "R1")
	w.arg("c_len", 8, "R5")
	w.unless("R5", func() {
		w.loop("R5", 4*groups, func() {
			w.zero(0, groups)
			w.arg("x_base", 48, "R2")
			w.arg("x_len", 56, "R3")
			w.unless("R3", func() {
				w.loop("R3", 2*pairs, func() {
					for g := range groups {
						w.get(v(g))
						for p := range pairs {
							w.wide("R1", (g*pairs+p)*8)
							w.spread("R2", 4*p)
							w.ops("I32x4DotI16x8S", "I32x4Add")
						}
						w.set(v(g))
					}
					w.add("R1", 8*groups*pairs)
					w.add("R2", 4*pairs)
				})
			})
			for g := range groups {
				w.address("R0")
				w.get(v(g))
				w.store(16 * g)
			}
			w.add("R0", 16*groups)
		})
	})
	w.p("RET")
}

// rowPointers sets R8 … R15 to eight rows, from R0 on and R1 bytes apart.
func (w *wasm) rowPointers() {
	w.get("R0")
	for i := range 8 {
		if i > 0 {
			w.get(r(7+i), "R1")
			w.p("I64Add")
		}
		w.set(r(8 + i))
	}
}

// butterflies transforms V0 … V7.
func (w *wasm) butterflies(add, sub string) {
	for h := 1; h < 8; h *= 2 {
		for i := range 8 {
			if i&h != 0 {
				continue
			}
			w.get(v(i), v(i+h))
			w.p("%s", add)
			w.get(v(i), v(i+h))
			w.p("%s", sub)
			w.set(v(i + h))
			w.set(v(i))
		}
	}
}

// hadamard is kernel.refHadamardInt32, of a multiple of four columns.
func (w *wasm) hadamard() {
	w.fn("simdHadamard", "(c []int32, ldc, cols int)", 40)
	w.arg("c_base", 0, "R0")
	w.p("I64Load ldc+24(FP)")
	w.constant(2)
	w.p("I64Shl")
	w.set("R1")
	w.arg("cols", 32, "R2")
	w.rowPointers()
	w.unless("R2", func() {
		w.loop("R2", 4, func() {
			for i := range 8 {
				w.load(r(8+i), 0)
				w.set(v(i))
			}
			w.butterflies("I32x4Add", "I32x4Sub")
			for i := range 8 {
				w.address(r(8 + i))
				w.get(v(i))
				w.p("I32Const $3")
				w.p("I32x4ShrS")
				w.store(0)
				w.add(r(8+i), 16)
			}
		})
	})
	w.p("RET")
}

// octonionTerms is kernel.octonionTerms.
var octonionTerms = [8][][2]int{
	{{0, 0}},
	{{2, 3}, {4, 5}, {7, 6}},
	{{3, 1}, {4, 6}, {5, 7}},
	{{1, 2}, {4, 7}, {6, 5}},
	{{5, 1}, {6, 2}, {7, 3}},
	{{1, 4}, {3, 6}, {7, 2}},
	{{1, 7}, {2, 4}, {5, 3}},
	{{2, 5}, {3, 4}, {6, 1}},
}

// terms is kernel.refOctonionTerms. V0 … V7 are the sums of the outputs, of
// eight rows each.
func (w *wasm) terms() {
	w.fn("simdOctonionTerms", "(c []int32, ldc, groups int, index []uint8, tables []int8, chunks, skip int)", 104)
	w.arg("c_base", 0, "R0")
	w.p("I64Load ldc+24(FP)")
	w.constant(2)
	w.p("I64Shl")
	w.set("R1")
	w.arg("groups", 32, "R2")
	w.arg("index_base", 40, "R3")
	w.rowPointers()
	w.unless("R2", func() {
		w.loop("R2", 1, func() {
			w.zero(0, 8)
			w.arg("tables_base", 64, "R4")
			w.arg("chunks", 88, "R5")
			w.unless("R5", func() {
				w.loop("R5", 1, func() {
					for i, terms := range octonionTerms {
						w.get(v(i))
						for _, t := range terms {
							for slot := range 4 {
								w.load("R4", 16*t[0])
								w.load("R3", 64*t[1]+16*slot)
								w.ops("I8x16Swizzle", "I16x8ExtaddPairwiseI8x16S", "I16x8Add")
							}
						}
						w.set(v(i))
					}
					w.add("R3", 512)
					w.add("R4", 128)
				})
			})
			w.p("I64Load skip+96(FP)")
			w.get("R3")
			w.p("I64Add")
			w.set("R3")
			for i := range 8 {
				for half, name := range []string{"Low", "High"} {
					w.address(r(8 + i))
					w.load(r(8+i), 16*half)
					w.get(v(i))
					w.p("I32x4Extend%sI16x8S", name)
					w.p("I32Const $1")
					w.p("I32x4Shl")
					w.p("I32x4Add")
					w.store(16 * half)
				}
				w.add(r(8+i), 32)
			}
		})
	})
	w.p("RET")
}

// sign sets V8 to an argument, 0 or −1; signed negates the vector on the stack
// if it is −1.
func (w *wasm) sign(name string, at int) {
	w.p("I64Load %s+%d(FP)", name, at)
	w.ops("I32WrapI64", "I16x8Splat")
	w.set("V8")
}

func (w *wasm) signed() {
	w.get("V8")
	w.p("V128Xor")
	w.get("V8")
	w.p("I16x8Sub")
}

// transform is kernel.refTransformInt8 for parts of whole groups of eight
// columns, without the zeros behind them. R3 is how far the rows of x lie
// apart.
func (w *wasm) transform() {
	w.fn("simdTransform", "(x []int16, q []int8, part, width int, minus int)", 72)
	w.arg("q_base", 24, "R0")
	w.arg("part", 48, "R1")
	w.rowPointers()
	w.arg("x_base", 0, "R2")
	w.arg("width", 56, "R3")
	w.get("R3")
	w.constant(1)
	w.p("I64Shl")
	w.set("R3")
	w.sign("minus", 64)
	w.unless("R1", func() {
		w.loop("R1", 8, func() {
			for i := range 8 {
				w.wide8(r(8+i), 0)
				if i == 0 {
					w.signed()
				}
				w.set(v(i))
				w.add(r(8+i), 8)
			}
			w.butterflies("I16x8Add", "I16x8Sub")
			w.get("R2")
			w.set("R4")
			for i := range 8 {
				w.address("R4")
				w.get(v(i))
				w.store(0)
				if i < 7 {
					w.addReg("R4", "R3")
				}
			}
			w.add("R2", 16)
		})
	})
	w.p("RET")
}

// termTables is kernel.refTermTables for parts of whole groups of eight
// columns.
func (w *wasm) termTables() {
	w.fn("simdTermTables", "(tables, q []int8, part int)", 56)
	w.arg("q_base", 24, "R0")
	w.arg("part", 48, "R1")
	w.rowPointers()
	w.arg("tables_base", 0, "R2")
	w.unless("R1", func() {
		w.loop("R1", 8, func() {
			for i := range 8 {
				w.address("R2")
				w.address(r(8 + i))
				w.ops("I64Load $0", "I64x2Splat")
				w.p("V128Const $0, $-1") // negate the second half
				w.p("V128Xor")
				w.p("V128Const $0, $-1")
				w.p("I8x16Sub")
				w.store(16 * i)
				w.add(r(8+i), 8)
			}
			w.add("R2", 128)
		})
	})
	w.p("RET")
}

// widen is kernel.refWidenInt8 for a multiple of 16 values.
func (w *wasm) widen() {
	w.fn("simdWiden", "(x []int16, q []int8, minus int)", 56)
	w.pointers("x", 0, "q", 24)
	w.sign("minus", 48)
	w.unless("R0", func() {
		w.loop("R0", 16, func() {
			for i := range 2 {
				w.address("R1")
				w.wide("R2", 8*i)
				w.signed()
				w.store(16 * i)
			}
			w.add("R1", 32)
			w.add("R2", 16)
		})
	})
	w.p("RET")
}

// setKey spreads whole groups of 16 values of q, of which there are 8 pairs,
// over keyPanels.
func (w *wasm) setKey() {
	w.fn("simdSetKey", "(keys, q []int8)", 48)
	w.arg("keys_base", 0, "R1")
	w.arg("q_base", 24, "R2")
	w.arg("q_len", 32, "R0")
	w.unless("R0", func() {
		w.loop("R0", 16, func() {
			for p := range 8 {
				w.address("R1")
				w.address("R2")
				w.p("I32Load16U $%d", 2*p)
				w.p("I32Store16 $%d", 8*p)
			}
			w.add("R1", 256)
			w.add("R2", 16)
		})
	})
	w.p("RET")
}
