#include "textflag.h"

// The assembler lacks the names of these three.
// SMULL Vd.8H, Vn.8B, Vm.8B; SMULL2 the same of the upper halves.
#define SMULL(m, n, d) WORD $(0x0e20c000 | m<<16 | n<<5 | d)
#define SMULL2(m, n, d) WORD $(0x4e20c000 | m<<16 | n<<5 | d)
// SADALP Vd.4S, Vn.8H adds pairs.
#define SADALP(n, d) WORD $(0x4e606800 | n<<5 | d)

// One row's 16 products with x in V0, added to accumulators a and a+1.
#define STEP(row, a, b) \
	VLD1.P 16(row), [V1.B16] \
	SMULL(0, 1, 2)           \
	SMULL2(0, 1, 3)          \
	SADALP(2, a)             \
	SADALP(3, b)

// The rest of a row by single bytes: R10 of them, added to R11.
#define REST(row, again, out) \
	MOVD R9, R13      \
	MOVD R10, R14     \
	CBZ  R14, out     \
again: \
	MOVB.P 1(row), R15 \
	MOVB.P 1(R13), R16 \
	MADDW R15, R11, R16, R11 \
	SUBS $1, R14 \
	BNE again \
out: \
	MOVW.P R11, 4(R0)

// func matVecInt8NEON(y []int32, w, x []int8)
TEXT ·matVecInt8NEON(SB), NOSPLIT, $0-72
	MOVD y_base+0(FP), R0
	MOVD y_len+8(FP), R1
	MOVD w_base+24(FP), R2
	MOVD x_base+48(FP), R3
	MOVD x_len+56(FP), R4
	AND  $15, R4, R10 // left over
	LSR  $4, R4, R12  // whole steps

four:
	CMP  $4, R1
	BLT  one
	ADD  R4, R2, R5
	ADD  R4, R5, R6
	ADD  R4, R6, R7
	VEOR V16.B16, V16.B16, V16.B16
	VEOR V17.B16, V17.B16, V17.B16
	VEOR V18.B16, V18.B16, V18.B16
	VEOR V19.B16, V19.B16, V19.B16
	VEOR V20.B16, V20.B16, V20.B16
	VEOR V21.B16, V21.B16, V21.B16
	VEOR V22.B16, V22.B16, V22.B16
	VEOR V23.B16, V23.B16, V23.B16
	MOVD R3, R9
	MOVD R12, R8
	CBZ  R8, sum4

step4:
	VLD1.P 16(R9), [V0.B16]
	STEP(R2, 16, 17)
	STEP(R5, 18, 19)
	STEP(R6, 20, 21)
	STEP(R7, 22, 23)
	SUBS $1, R8
	BNE  step4

sum4:
	VADD  V17.S4, V16.S4, V16.S4
	VADD  V19.S4, V18.S4, V18.S4
	VADD  V21.S4, V20.S4, V20.S4
	VADD  V23.S4, V22.S4, V22.S4
	VADDV V16.S4, V16
	VADDV V18.S4, V18
	VADDV V20.S4, V20
	VADDV V22.S4, V22
	VMOV  V16.S[0], R11
	REST(R2, restA, doneA)
	VMOV  V18.S[0], R11
	REST(R5, restB, doneB)
	VMOV  V20.S[0], R11
	REST(R6, restC, doneC)
	VMOV  V22.S[0], R11
	REST(R7, restD, doneD)
	MOVD  R7, R2
	SUB   $4, R1
	JMP   four

one:
	CBZ  R1, end
	VEOR V16.B16, V16.B16, V16.B16
	VEOR V17.B16, V17.B16, V17.B16
	MOVD R3, R9
	MOVD R12, R8
	CBZ  R8, sum1

step1:
	VLD1.P 16(R9), [V0.B16]
	STEP(R2, 16, 17)
	SUBS $1, R8
	BNE  step1

sum1:
	VADD  V17.S4, V16.S4, V16.S4
	VADDV V16.S4, V16
	VMOV  V16.S[0], R11
	REST(R2, restE, doneE)
	SUB   $1, R1
	JMP   one

end:
	RET
