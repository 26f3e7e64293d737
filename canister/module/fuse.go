package module

import "math"

// fusion is a load and what is done with it, which together are one
// instruction, of an address so many bytes higher.
type fusion struct {
	first, second, fused Op
	behind               uint32
}

const (
	opI32Load     = 0x28
	opI64Load     = 0x29
	opF32Load     = 0x2a
	opV128Load    = simd + 0
	opLoad8x8S    = simd + 1
	opLoad16x4S   = simd + 3
	opLoad32Splat = simd + 9
	opLoad64Splat = simd + 10
	opI32x4Splat  = simd + 17
	opI64x2Splat  = simd + 18
	opF32x4Splat  = simd + 19
	opLow8S       = simd + 135 // i16x8.extend_low_i8x16_s
	opHigh8S      = simd + 136
	opLow16S      = simd + 167 // i32x4.extend_low_i16x8_s
	opHigh16S     = simd + 168
)

var fusions = []fusion{
	{opV128Load, opLow8S, opLoad8x8S, 0},
	{opV128Load, opHigh8S, opLoad8x8S, 8},
	{opV128Load, opLow16S, opLoad16x4S, 0},
	{opV128Load, opHigh16S, opLoad16x4S, 8},
	{opI32Load, opI32x4Splat, opLoad32Splat, 0},
	{opF32Load, opF32x4Splat, opLoad32Splat, 0},
	{opI64Load, opI64x2Splat, opLoad64Splat, 0},
	{opLoad64Splat, opLow8S, opLoad8x8S, 0},
}

// FuseLoads makes one instruction of each load that is widened or spread at
// once, and gives their number. The assembler of Go 1.27.3 has names for those
// instructions, but does not write their addresses. A fused load may read fewer
// bytes.
func (m *Module) FuseLoads() int {
	fused := 0
	for i := range m.Funcs {
		code, before := m.Funcs[i].Code, fused
		var out []byte
		last, at := Op(opEnd), 0 // the last instruction of out, and where it begins
		each(code, func(in instr) {
			for _, f := range fusions {
				if f.first != last || f.second != in.op {
					continue
				}
				if offset, ok := loadOffset(out[at:]); ok && offset <= math.MaxUint32-f.behind {
					out = appendU32(append(out[:at], prefixSIMD, byte(f.fused-simd), 0), offset+f.behind)
					last = f.fused
					fused++
					return
				}
			}
			last, at = in.op, len(out)
			out = append(out, code[in.pos:in.end]...)
		})
		if fused > before {
			m.Funcs[i].Code = out
		}
	}
	return fused
}

// loadOffset reads the offset of a load.
func loadOffset(code []byte) (uint32, bool) {
	r := reader{b: code}
	if r.byte() == prefixSIMD {
		r.u32()
	}
	r.u32() // alignment
	offset := r.u32()
	return offset, r.err == nil
}
