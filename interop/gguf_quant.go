package interop

import (
	"encoding/binary"
	"fmt"
	"math"

	"spinnet/spinfile"
)

// Types that only the writer knows.
const (
	ggmlQ4_0 = 2
	ggmlQ6_K = 14
)

// ggufType is one encoding of a tensor's rows. Every row is cut into blocks
// of so many values, and each becomes so many bytes.
type ggufType struct {
	name         string
	id, fileType uint32 // of the tensor; of a file whose linear layers are of this type
	values       int
	bytes        int
	ternary      bool // a block holds multiples −1, 0, +1 of one factor, and nothing else

	// encode appends one block. scale is the factor of the row it belongs to,
	// for ternary types only.
	encode func(dst []byte, x []float32, scale float32) []byte
}

// ggufTypes are the encodings that WriteGGUF offers, by the names that
// llama.cpp gives them.
var ggufTypes = []ggufType{
	{"f32", ggmlF32, 0, 1, 4, false, encodeF32},
	{"f16", ggmlF16, 1, 1, 2, false, encodeF16},
	{"q8_0", ggmlQ8_0, 7, 32, 34, false, encodeQ8},
	{"q4_0", ggmlQ4_0, 2, 32, 18, false, encodeQ4},
	{"q6_k", ggmlQ6_K, 18, 256, 210, false, encodeQ6},
	{"tq1_0", ggmlTQ1_0, 36, 256, 54, true, encodeTQ1},
	{"tq2_0", ggmlTQ2_0, 37, 256, 66, true, encodeTQ2},
}

// ggufTypeByName finds an encoding; "" is f16.
func ggufTypeByName(name string) (*ggufType, error) {
	if name == "" {
		name = "f16"
	}
	names := ""
	for i := range ggufTypes {
		if ggufTypes[i].name == name {
			return &ggufTypes[i], nil
		}
		if i > 0 {
			names += ", "
		}
		names += ggufTypes[i].name
	}
	return nil, fmt.Errorf("interop: unknown GGUF type %q, want one of %s", name, names)
}

// rowBytes is the size of a row of width values, a multiple of t.values.
func (t *ggufType) rowBytes(width int) int { return width / t.values * t.bytes }

// appendRow encodes a row; scale is its factor where t is ternary.
func (t *ggufType) appendRow(dst []byte, row []float32, scale float32) []byte {
	for ; len(row) > 0; row = row[t.values:] {
		dst = t.encode(dst, row[:t.values], scale)
	}
	return dst
}

func encodeF32(dst []byte, x []float32, _ float32) []byte {
	return binary.LittleEndian.AppendUint32(dst, math.Float32bits(x[0]))
}

func encodeF16(dst []byte, x []float32, _ float32) []byte { return appendHalf(dst, x[0]) }

// encodeQ8: the factor d = max|x|/127, then q = roundeven(x/d).
func encodeQ8(dst []byte, x []float32, _ float32) []byte {
	d, inverse := factor(maxAbs(x), 127)
	dst = appendHalf(dst, d)
	for _, v := range x {
		dst = append(dst, byte(int8(rounded(v, inverse, 127))))
	}
	return dst
}

// encodeQ4: d = max|x|/7, then q+8 in four bits, those of the first sixteen
// values low and those of the others high. Ternary blocks come out as −7, 0
// and +7, so they lose nothing but the rounding of d.
func encodeQ4(dst []byte, x []float32, _ float32) []byte {
	d, inverse := factor(maxAbs(x), 7)
	dst = appendHalf(dst, d)
	for i := range 16 {
		lo, hi := rounded(x[i], inverse, 7)+8, rounded(x[i+16], inverse, 7)+8
		dst = append(dst, byte(lo|hi<<4))
	}
	return dst
}

// encodeQ6: every sixteen values have a factor d·s, s of eight bits, and
// q+32 of six: four low bits in ql, two high ones in qh.
func encodeQ6(dst []byte, x []float32, _ float32) []byte {
	var largest [16]float32
	for g := range largest {
		largest[g] = maxAbs(x[16*g : 16*g+16])
	}
	const steps = 127 * 31
	most := maxAbs(largest[:])
	d, inverse := factor(most, steps)
	if d*steps < most { // round up: s makes good for a d that is too large, not for one that is too small
		d = spinfile.FromFloat16(spinfile.ToFloat16(most/steps) + 1)
		inverse = 1 / d
	}
	var scales [16]byte
	var q [256]byte
	for g := range scales {
		s := rounded(largest[g]/31, inverse, 127)
		scales[g] = byte(s)
		groupInverse := float32(0)
		if s > 0 {
			groupInverse = inverse / float32(s)
		}
		for i := 16 * g; i < 16*g+16; i++ {
			q[i] = byte(rounded(x[i], groupInverse, 31) + 32)
		}
	}
	var ql [128]byte
	var qh [64]byte
	for half := range 2 {
		for i := range 32 {
			a, b, c, e := q[128*half+i], q[128*half+i+32], q[128*half+i+64], q[128*half+i+96]
			ql[64*half+i] = a&15 | c<<4
			ql[64*half+i+32] = b&15 | e<<4
			qh[32*half+i] = a>>4 | b>>4<<2 | c>>4<<4 | e>>4<<6
		}
	}
	dst = append(append(append(dst, ql[:]...), qh[:]...), scales[:]...)
	return appendHalf(dst, d)
}

// encodeTQ1: five trits a byte, first 32 bytes of trits 32 apart, then 16 of
// trits 16 apart, then 4 bytes of four; the factor comes last. A byte is the
// base-3 number as a fraction of 243, so that its digits come out by
// multiplying with 3.
func encodeTQ1(dst []byte, x []float32, scale float32) []byte {
	at := func(i int) int { return trit(x[i], scale) + 1 }
	pack := func(first, step, count int) {
		n := 0
		for k := range 5 {
			n *= 3
			if k < count {
				n += at(first + k*step)
			}
		}
		dst = append(dst, byte((n*256+242)/243))
	}
	for i := range 32 {
		pack(i, 32, 5)
	}
	for i := range 16 {
		pack(160+i, 16, 5)
	}
	for i := range 4 {
		pack(240+i, 4, 4)
	}
	return appendHalf(dst, scale)
}

// encodeTQ2: two bits a trit, four trits 32 apart to a byte; the factor comes
// last.
func encodeTQ2(dst []byte, x []float32, scale float32) []byte {
	for half := 0; half < 256; half += 128 {
		for i := half; i < half+32; i++ {
			b := 0
			for k := range 4 {
				b |= (trit(x[i+32*k], scale) + 1) << (2 * k)
			}
			dst = append(dst, byte(b))
		}
	}
	return appendHalf(dst, scale)
}

// trit gives q of v = q·scale. The factor keeps its sign, so q does too.
func trit(v, scale float32) int {
	switch {
	case v == 0:
		return 0
	case v == scale:
		return 1
	}
	return -1
}

func maxAbs(x []float32) float32 {
	var m float32
	for _, v := range x {
		m = max(m, float32(math.Abs(float64(v))))
	}
	return m
}

// factor gives d = largest/steps as it will be stored, in float16, and the
// reciprocal to divide by, 0 where d is.
func factor(largest, steps float32) (d, inverse float32) {
	d = spinfile.FromFloat16(spinfile.ToFloat16(largest / steps))
	if d == 0 {
		return 0, 0
	}
	return d, 1 / d
}

// rounded is roundeven(v·inverse) within ±most.
func rounded(v, inverse float32, most float64) int {
	return int(max(-most, min(most, math.RoundToEven(float64(v)*float64(inverse)))))
}

// maxHalf is the largest float16.
const maxHalf = 65504

func appendHalf(dst []byte, v float32) []byte {
	return binary.LittleEndian.AppendUint16(dst, spinfile.ToFloat16(v))
}
