package module

import "fmt"

// Op is an instruction: its opcode, or 0x100 + the second number after the
// prefix 0xfc, or 0x200 + the second number after 0xfd (SIMD). Ops are below
// 0x400.
type Op uint16

// Opcodes that something here treats apart.
const (
	opUnreachable        = 0x00
	opNop                = 0x01
	opBlock              = 0x02
	opLoop               = 0x03
	opIf                 = 0x04
	opElse               = 0x05
	opEnd                = 0x0b
	opBr                 = 0x0c
	opBrIf               = 0x0d
	opBrTable            = 0x0e
	opReturn             = 0x0f
	opCall               = 0x10
	opCallIndirect       = 0x11
	opReturnCall         = 0x12
	opReturnCallIndirect = 0x13
	opSelect             = 0x1b
	opSelectTyped        = 0x1c
	opGlobalGet          = 0x23
	opGlobalSet          = 0x24
	opTableGet           = 0x25
	opTableSet           = 0x26
	opMemorySize         = 0x3f
	opMemoryGrow         = 0x40
	opI32Const           = 0x41
	opI64Const           = 0x42
	opF32Const           = 0x43
	opF64Const           = 0x44
	opRefNull            = 0xd0
	opRefIsNull          = 0xd1
	opRefFunc            = 0xd2

	prefixMisc = 0xfc
	prefixSIMD = 0xfd

	misc         = 0x100
	opMemoryInit = misc + 8
	opDataDrop   = misc + 9
	opMemoryCopy = misc + 10
	opMemoryFill = misc + 11
	opTableInit  = misc + 12
	opElemDrop   = misc + 13
	opTableCopy  = misc + 14
	opTableGrow  = misc + 15
	opTableSize  = misc + 16
	opTableFill  = misc + 17

	simd        = 0x200
	simdRelaxed = simd + 0x100
	opCount     = 0x400
)

// instr is one instruction of a body: bytes [pos, end) of the code. index is
// the function of call, return_call and ref.func.
type instr struct {
	op       Op
	pos, end int
	index    uint32
}

func (in instr) refersToFunc() bool {
	return in.op == opCall || in.op == opReturnCall || in.op == opRefFunc
}

// next decodes the instruction at r's position.
func (r *reader) next() instr {
	in := instr{pos: r.p}
	op := r.byte()
	in.op = Op(op)
	switch {
	case op == opBlock || op == opLoop || op == opIf:
		r.leb(33)
	case op == opBr || op == opBrIf || op >= 0x20 && op <= 0x26:
		r.u32()
	case op == opBrTable:
		n := r.count()
		for ; n > 0 && r.err == nil; n-- {
			r.u32()
		}
		r.u32()
	case op == opCall || op == opReturnCall || op == opRefFunc:
		in.index = r.u32()
	case op == opCallIndirect || op == opReturnCallIndirect:
		r.u32()
		r.u32()
	case op == opSelectTyped:
		r.bytes(r.count())
	case op >= 0x28 && op <= 0x3e:
		r.memarg()
	case op == opMemorySize || op == opMemoryGrow:
		if r.byte() != 0 {
			r.fail("uses a second memory")
		}
	case op == opI32Const:
		r.leb(32)
	case op == opI64Const:
		r.leb(64)
	case op == opF32Const:
		r.bytes(4)
	case op == opF64Const:
		r.bytes(8)
	case op == opRefNull:
		r.leb(33)
	case op == prefixMisc:
		in.op = r.second(misc, 17)
		switch in.op {
		case opMemoryInit, opMemoryCopy, opTableInit, opTableCopy:
			r.u32()
			r.u32()
		case opDataDrop, opMemoryFill, opElemDrop, opTableGrow, opTableSize, opTableFill:
			r.u32()
		}
	case op == prefixSIMD:
		in.op = r.second(simd, 0x113)
		switch sub := in.op - simd; {
		case sub <= 11 || sub == 92 || sub == 93:
			r.memarg()
		case sub == 12 || sub == 13: // v128.const, i8x16.shuffle
			r.bytes(16)
		case sub >= 21 && sub <= 34:
			r.byte()
		case sub >= 84 && sub <= 91:
			r.memarg()
			r.byte()
		}
	case op == opUnreachable || op == opNop || op == opElse || op == opEnd || op == opReturn ||
		op == 0x1a || op == opSelect || op >= 0x45 && op <= 0xc4 || op == opRefIsNull:
	default:
		r.fail(fmt.Sprintf("unknown instruction 0x%02x", op))
	}
	in.end = r.p
	return in
}

// second reads the number after a prefix.
func (r *reader) second(base Op, last uint32) Op {
	n := r.u32()
	if n > last {
		r.fail(fmt.Sprintf("unknown instruction 0x%02x of group 0x%x", n, base))
		return base
	}
	return base + Op(n)
}

func (r *reader) memarg() {
	if align := r.u32(); align&0x40 != 0 {
		r.fail("uses a second memory")
	}
	r.leb(64)
}

// checkBody reports a body that does not decode, or whose blocks do not close
// at its end.
func checkBody(code []byte) error {
	r := reader{b: code}
	depth := 1
	for depth > 0 && r.err == nil {
		switch r.next().op {
		case opBlock, opLoop, opIf:
			depth++
		case opEnd:
			depth--
		}
	}
	if r.err == nil && r.p != len(code) {
		r.fail("has bytes after its end")
	}
	return r.err
}

// each calls f for each instruction of a body that Parse has checked.
func each(code []byte, f func(instr)) {
	r := reader{b: code}
	for r.p < len(code) && r.err == nil {
		f(r.next())
	}
}
