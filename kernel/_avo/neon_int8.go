package main

import "fmt"

// Int8 products. SDOT, of ARMv8.2, multiplies four signed bytes of each lane
// with four of another register and adds the sum to the lane; older machines
// multiply to 16 bits and add up pairs. Both take B's bytes as signed.

// Fields of kernel.int8TileArgs.
const (
	i8A, i8LDA, i8K4, i8B, i8C, i8LDC, i8Start = 0, 8, 16, 24, 32, 40, 48
)

// Steps that a lane of 16 bits takes: products of ternary weights are within
// ±256.
const neonNarrowSteps = 127

func neonInt8(w *neon) {
	for mr := 1; mr <= 6; mr++ {
		w.int8TileDot(mr)
	}
	for mr := 1; mr <= 3; mr++ {
		w.int8TileNarrow(mr)
	}
	for mr := 1; mr <= 2; mr++ {
		w.int8TileWide(mr)
	}
	w.int8Pack()
	w.int8Expand()
	w.int8Sum()
	w.matVecInt8Dot()
}

// sdot is d += products of four bytes of n with word i of m.
func (w *neon) sdot(m, i, n, d int) {
	w.word(0x4f80e000|i&1<<21|i>>1<<11|m<<16|n<<5|d, "SDOT V%d.4S, V%d.16B, V%d.4B[%d]", d, n, m, i)
}

// sadalp adds pairs of 16 bits of n to d.
func (w *neon) sadalp(n, d int) {
	w.word(0x4e606800|n<<5|d, "SADALP V%d.4S, V%d.8H", d, n)
}

// saddlp adds pairs of 16 bits of n, or of bytes.
func (w *neon) saddlp(n, d int) {
	w.word(0x4e602800|n<<5|d, "SADDLP V%d.4S, V%d.8H", d, n)
}

func (w *neon) saddlpBytes(n, d int) {
	w.word(0x4e202800|n<<5|d, "SADDLP V%d.8H, V%d.16B", d, n)
}

func (w *neon) zero(first, n int) {
	for i := range n {
		w.p("VEOR V%d.B16, V%d.B16, V%d.B16", first+i, first+i, first+i)
	}
}

// int8Operands leaves the rows of A in R8…, k4 in R3, B in R4, C in R5, its
// stride in R6 and the start values in R7.
func (w *neon) int8Operands(mr int) {
	w.p("MOVD t+0(FP), R0")
	w.p("MOVD %d(R0), R8", i8A)
	w.p("MOVD %d(R0), R2", i8LDA)
	w.p("MOVD %d(R0), R3", i8K4)
	w.p("MOVD %d(R0), R4", i8B)
	w.p("MOVD %d(R0), R5", i8C)
	w.p("MOVD %d(R0), R6", i8LDC)
	w.p("MOVD %d(R0), R7", i8Start)
	for r := 1; r < mr; r++ {
		w.p("ADD R2, R%d, R%d", 7+r, 8+r)
	}
}

// int8TileDot is a tile of mr rows and 16 columns. V0… is C, behind it 16
// bytes of each row of A, and two or four registers in turn for B: each is
// loaded again right after its last use, so that machines which execute in
// order wait once in four steps only.
func (w *neon) int8TileDot(mr int) {
	w.fn(fmt.Sprintf("int8TileDotN%d", mr), "(t *byte)", "0-8")
	a, b := 4*mr, 5*mr
	nb := min(4, (32-b)/2*2)
	w.int8Operands(mr)
	for r := range mr {
		w.p("VLD1R.P 4(R7), [V%d.S4]", 4*r)
		for v := 1; v < 4; v++ {
			w.p("VMOV V%d.B16, V%d.B16", 4*r, 4*r+v)
		}
	}
	steps := func(n int) {
		for i := range nb {
			w.p("FMOVQ.P 16(R4), F%d", b+i)
		}
		for i := range 4 * n {
			for r := range mr {
				w.sdot(a+r, i/4, b+i%nb, 4*r+i%4)
			}
			if i+nb < 4*n {
				w.p("FMOVQ.P 16(R4), F%d", b+i%nb)
			}
		}
	}
	w.p("SUBS $4, R3")
	w.p("BLT rest")
	w.label("four")
	for r := range mr {
		w.p("FMOVQ.P 16(R%d), F%d", 8+r, a+r)
	}
	steps(4)
	w.p("SUBS $4, R3")
	w.p("BGE four")
	w.label("rest")
	w.p("ADDS $4, R3")
	w.p("BEQ store")
	w.label("one")
	for r := range mr {
		w.p("FMOVS.P 4(R%d), F%d", 8+r, a+r)
	}
	steps(1)
	w.p("SUBS $1, R3")
	w.p("BNE one")
	w.label("store")
	for r := range mr {
		w.p("VST1 %s, (R5)", list(4*r, 4, "S4"))
		w.p("ADD R6, R5")
	}
	w.p("RET")
}

// int8TileNarrow is one for B of at most 2: sums in 16 bits, a lane for each
// byte of the step, which are added to C every so often. V0… are eight
// registers a row, V24…V27 B, V28… A.
func (w *neon) int8TileNarrow(mr int) {
	w.fn(fmt.Sprintf("int8TileNarrowN%d", mr), "(t *byte)", "0-8")
	w.int8Operands(mr)
	w.p("MOVD R5, R15")
	for range mr {
		w.p("VLD1R.P 4(R7), [V0.S4]")
		for v := 1; v < 4; v++ {
			w.p("VMOV V0.B16, V%d.B16", v)
		}
		w.p("VST1 %s, (R15)", list(0, 4, "S4"))
		w.p("ADD R6, R15")
	}
	w.label("part")
	w.p("MOVD $%d, R14", neonNarrowSteps)
	w.p("CMP R14, R3")
	w.p("CSEL LT, R3, R14, R14")
	w.p("SUB R14, R3")
	w.zero(0, 8*mr)
	w.label("step")
	w.p("VLD1.P 64(R4), %s", list(24, 4, "B16"))
	for r := range mr {
		w.p("VLD1R.P 4(R%d), [V%d.S4]", 8+r, 28+r)
	}
	for r := range mr {
		for v := range 4 {
			w.p("VSMLAL V%d.B8, V%d.B8, V%d.H8", 28+r, 24+v, 8*r+2*v)
			w.p("VSMLAL2 V%d.B16, V%d.B16, V%d.H8", 28+r, 24+v, 8*r+2*v+1)
		}
	}
	w.p("SUBS $1, R14")
	w.p("BNE step")
	w.p("MOVD R5, R15")
	for r := range mr {
		w.p("VLD1 (R15), %s", list(24, 4, "S4"))
		for v := range 4 {
			low, high := 8*r+2*v, 8*r+2*v+1
			w.saddlp(low, low)
			w.saddlp(high, high)
			w.p("VADDP V%d.S4, V%d.S4, V%d.S4", high, low, low)
			w.p("VADD V%d.S4, V%d.S4, V%d.S4", low, 24+v, 24+v)
		}
		w.p("VST1 %s, (R15)", list(24, 4, "S4"))
		w.p("ADD R6, R15")
	}
	w.p("CBNZ R3, part")
	w.p("RET")
}

// int8TileWide is one for any bytes: products in 16 bits, pairs of which are
// added to sums in 32. V0… are eight registers a row, V16…V19 B, V20… A.
func (w *neon) int8TileWide(mr int) {
	w.fn(fmt.Sprintf("int8TileWideN%d", mr), "(t *byte)", "0-8")
	w.int8Operands(mr)
	w.zero(0, 8*mr)
	w.label("step")
	w.p("VLD1.P 64(R4), %s", list(16, 4, "B16"))
	for r := range mr {
		w.p("VLD1R.P 4(R%d), [V%d.S4]", 8+r, 20+r)
	}
	for r := range mr {
		for v := range 4 {
			w.p("VSMULL V%d.B8, V%d.B8, V%d.H8", 20+r, 16+v, 22+2*v)
			w.p("VSMULL2 V%d.B16, V%d.B16, V%d.H8", 20+r, 16+v, 23+2*v)
		}
		for i := range 8 {
			w.sadalp(22+i, 8*r+i)
		}
	}
	w.p("SUBS $1, R3")
	w.p("BNE step")
	for r := range mr {
		w.p("VLD1R.P 4(R7), [V20.S4]")
		for v := range 4 {
			w.p("VADDP V%d.S4, V%d.S4, V%d.S4", 8*r+2*v+1, 8*r+2*v, 16+v)
			w.p("VADD V20.S4, V%d.S4, V%d.S4", 16+v, 16+v)
		}
		w.p("VST1 %s, (R5)", list(16, 4, "S4"))
		w.p("ADD R6, R5")
	}
	w.p("RET")
}

// int8Pack transposes eight rows, 16 columns at a time, in words of four.
func (w *neon) int8Pack() {
	w.fn("int8PackN", "(dst []uint8, w []int8, ld, blocks int)", "0-64")
	w.p("MOVD dst_base+0(FP), R0")
	w.p("MOVD w_base+24(FP), R8")
	w.p("MOVD ld+48(FP), R1")
	w.p("MOVD blocks+56(FP), R2")
	w.p("CBZ R2, done")
	for r := 1; r < 8; r++ {
		w.p("ADD R1, R%d, R%d", 7+r, 8+r)
	}
	w.label("block")
	for r := range 8 {
		w.p("FMOVQ.P 16(R%d), F%d", 8+r, r)
	}
	for half := range 2 { // V16… and V20…: steps of four rows
		r, out := 4*half, 16+4*half
		for i, in := range [2][2]int{{r, r + 2}, {r + 1, r + 3}} {
			w.p("VZIP1 V%d.S4, V%d.S4, V%d.S4", in[1], in[0], 8+i)
			w.p("VZIP2 V%d.S4, V%d.S4, V%d.S4", in[1], in[0], 10+i)
		}
		for i, in := range [2]int{8, 10} {
			w.p("VZIP1 V%d.S4, V%d.S4, V%d.S4", in+1, in, out+2*i)
			w.p("VZIP2 V%d.S4, V%d.S4, V%d.S4", in+1, in, out+2*i+1)
		}
	}
	for k := range 4 {
		w.p("FSTPQ (F%d, F%d), %d(R0)", 16+k, 20+k, 64*k)
	}
	w.p("ADD $256, R0")
	w.p("SUBS $1, R2")
	w.p("BNE block")
	w.label("done")
	w.p("RET")
}

// int8Expand copies parts, negated where minus is −1. Their ends are the 16
// bytes that end there, or single bytes of parts that are shorter.
func (w *neon) int8Expand() {
	w.fn("int8ExpandN", "(a, q, minus []int8, n, width, stride int)", "0-96")
	w.p("MOVD a_base+0(FP), R0")
	w.p("MOVD q_base+24(FP), R1")
	w.p("MOVD minus_base+48(FP), R2")
	w.p("MOVD n+72(FP), R3")
	w.p("MOVD width+80(FP), R4")
	w.p("MOVD stride+88(FP), R5")
	w.p("CBZ R3, done")
	w.p("CBZ R4, done")
	w.p("MOVD ZR, R6")
	w.label("row")
	w.p("MOVD R0, R9") // where part k goes
	w.p("MOVD ZR, R7")
	w.label("part")
	w.p("MOVB.P 1(R2), R10")
	w.p("VDUP R10, V31.B16")
	w.p("EOR R6, R7, R11")
	w.p("MADD R4, R1, R11, R8")
	w.p("SUBS $16, R4, R11")
	w.p("BLT bytes")
	w.label("sixteen")
	w.p("FMOVQ.P 16(R8), F0")
	w.p("VEOR V31.B16, V0.B16, V0.B16")
	w.p("VSUB V31.B16, V0.B16, V0.B16")
	w.p("FMOVQ.P F0, 16(R9)")
	w.p("SUBS $16, R11")
	w.p("BGE sixteen")
	w.p("ADDS $16, R11")
	w.p("BEQ next")
	w.p("SUB $16, R11") // so many bytes on, and less than none, are 16 to the end
	w.p("ADD R11, R8")
	w.p("ADD R11, R9")
	w.p("FMOVQ (R8), F0")
	w.p("VEOR V31.B16, V0.B16, V0.B16")
	w.p("VSUB V31.B16, V0.B16, V0.B16")
	w.p("FMOVQ.P F0, 16(R9)")
	w.p("JMP next")
	w.label("bytes")
	w.p("MOVD R4, R11")
	w.label("byte")
	w.p("MOVB.P 1(R8), R12")
	w.p("EOR R10, R12")
	w.p("SUB R10, R12")
	w.p("MOVB.P R12, 1(R9)")
	w.p("SUBS $1, R11")
	w.p("BNE byte")
	w.label("next")
	w.p("ADD $1, R7")
	w.p("CMP R3, R7")
	w.p("BLT part")
	w.p("ADD R5, R0")
	w.p("ADD $1, R6")
	w.p("CMP R3, R6")
	w.p("BLT row")
	w.label("done")
	w.p("RET")
}

func (w *neon) int8Sum() {
	w.fn("int8SumN", "(x []int8) int32", "0-28")
	w.p("MOVD x_base+0(FP), R0")
	w.p("MOVD x_len+8(FP), R1")
	w.zero(0, 1)
	w.p("SUBS $16, R1")
	w.p("BLT fold")
	w.label("sixteen")
	w.p("FMOVQ.P 16(R0), F1")
	w.saddlpBytes(1, 1)
	w.sadalp(1, 0)
	w.p("SUBS $16, R1")
	w.p("BGE sixteen")
	w.label("fold")
	w.p("VADDV V0.S4, V0")
	w.p("VMOV V0.S[0], R2")
	w.p("ADDS $16, R1")
	w.p("BEQ done")
	w.label("byte")
	w.p("MOVB.P 1(R0), R3")
	w.p("ADDW R3, R2")
	w.p("SUBS $1, R1")
	w.p("BNE byte")
	w.label("done")
	w.p("MOVW R2, ret+24(FP)")
	w.p("RET")
}

// matVecInt8Dot does four rows at a time, and the last ones singly: 32
// columns, with two sums a row, then 16, then single ones.
func (w *neon) matVecInt8Dot() {
	w.fn("matVecInt8DotN", "(y []int32, w, x []int8)", "0-72")
	w.p("MOVD y_base+0(FP), R0")
	w.p("MOVD y_len+8(FP), R1")
	w.p("MOVD w_base+24(FP), R2")
	w.p("MOVD x_base+48(FP), R3")
	w.p("MOVD x_len+56(FP), R4")
	dot := func(m, n, d int) {
		w.word(0x4e809400|m<<16|n<<5|d, "SDOT V%d.4S, V%d.16B, V%d.16B", d, n, m)
	}
	for _, rows := range []int{4, 1} {
		name := func(s string) string { return fmt.Sprint(s, rows) }
		w.label(name("rows"))
		w.p("SUBS $%d, R1", rows)
		w.p("BLT %s", name("none"))
		row := []int{2, 5, 6, 7}[:rows]
		for r := 1; r < rows; r++ {
			w.p("ADD R4, R%d, R%d", row[r-1], row[r])
		}
		w.zero(16, 2*rows)
		w.p("MOVD R3, R9")
		w.p("SUBS $32, R4, R8")
		w.p("BLT %s", name("half"))
		w.label(name("step"))
		w.p("FLDPQ.P 32(R9), (F0, F1)")
		for r := range rows {
			w.p("FLDPQ.P 32(R%d), (F%d, F%d)", row[r], 2+2*r, 3+2*r)
		}
		for r := range rows {
			dot(0, 2+2*r, 16+2*r)
			dot(1, 3+2*r, 17+2*r)
		}
		w.p("SUBS $32, R8")
		w.p("BGE %s", name("step"))
		w.label(name("half"))
		w.p("ADDS $16, R8") // columns that are left, less 16
		w.p("BLT %s", name("fold"))
		w.p("FMOVQ.P 16(R9), F0")
		for r := range rows {
			w.p("FMOVQ.P 16(R%d), F%d", row[r], 2+r)
		}
		for r := range rows {
			dot(0, 2+r, 16+2*r)
		}
		w.p("SUB $16, R8")
		w.label(name("fold"))
		w.p("ADD $16, R8")
		for r := range rows {
			w.p("VADD V%d.S4, V%d.S4, V%d.S4", 17+2*r, 16+2*r, 16+2*r)
			w.p("VADDV V%d.S4, V%d", 16+2*r, 16+2*r)
			w.p("VMOV V%d.S[0], R%d", 16+2*r, 10+r)
		}
		w.p("CBZ R8, %s", name("store"))
		w.label(name("single"))
		w.p("MOVB.P 1(R9), R14")
		for r := range rows {
			w.p("MOVB.P 1(R%d), R15", row[r])
			w.p("MADDW R14, R%d, R15, R%d", 10+r, 10+r)
		}
		w.p("SUBS $1, R8")
		w.p("BNE %s", name("single"))
		w.label(name("store"))
		for r := range rows {
			w.p("MOVW.P R%d, 4(R0)", 10+r)
		}
		if last := row[rows-1]; last != 2 {
			w.p("MOVD R%d, R2", last)
		}
		w.p("JMP %s", name("rows"))
		w.label(name("none"))
		w.p("ADD $%d, R1", rows)
	}
	w.p("RET")
}
