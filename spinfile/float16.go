package spinfile

import (
	"encoding/binary"
	"math"
)

var le = binary.LittleEndian

// overflow16 is where values begin to round to an infinity: half way from the
// largest float16, 65504, to 65536.
const overflow16 = 65520

// ToFloat16 rounds a finite value or an infinity to float16, half to even.
func ToFloat16(v float32) uint16 {
	b := math.Float32bits(v)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b >= 0x47800000: // 65536, infinity or NaN
		if b > 0x7f800000 {
			return sign | 0x7e00
		}
		return sign | 0x7c00
	case b < 0x38800000: // 2⁻¹⁴: a multiple of 2⁻²⁴
		// The sum's last bit is worth 2⁻²⁴, so the addition rounds.
		sum := math.Float32frombits(b) + 0.5
		return sign | uint16(math.Float32bits(sum)-math.Float32bits(0.5))
	}
	b += 0xfff + b>>13&1 // half of the last bit kept, a little less where that is even
	return sign | uint16((b-0x38000000)>>13)
}

// FromFloat16 is the value of a float16.
func FromFloat16(h uint16) float32 {
	sign, b := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	switch {
	case b >= 0x7c00:
		return math.Float32frombits(sign | 0x7f800000 | b<<13)
	case b < 0x0400: // zero or subnormal: b·2⁻²⁴
		return math.Float32frombits(sign | math.Float32bits(float32(b)*0x1p-24))
	}
	return math.Float32frombits(sign | b<<13 + 0x38000000)
}

// fitsFloat16 reports whether no value of w rounds to an infinity.
func fitsFloat16(w []float32) bool {
	for _, v := range w {
		if !(v > -overflow16 && v < overflow16) {
			return false
		}
	}
	return true
}

// appendFloat16 appends the values of w, rounded.
func appendFloat16(dst []byte, w []float32) []byte {
	for _, v := range w {
		dst = le.AppendUint16(dst, ToFloat16(v))
	}
	return dst
}

// readFloat16 fills w from b and reports the first value that is not finite,
// or −1.
func readFloat16(w []float32, b []byte) int {
	bad := -1
	for i := range w {
		h := le.Uint16(b[2*i:])
		if h&0x7c00 == 0x7c00 && bad < 0 {
			bad = i
		}
		w[i] = FromFloat16(h)
	}
	return bad
}

// appendFloat32 appends the values of w.
func appendFloat32(dst []byte, w []float32) []byte {
	for _, v := range w {
		dst = le.AppendUint32(dst, math.Float32bits(v))
	}
	return dst
}

// readFloat32 fills w from b and reports the first value that is not finite,
// or −1.
func readFloat32(w []float32, b []byte) int {
	bad := -1
	for i := range w {
		u := le.Uint32(b[4*i:])
		if u&0x7f800000 == 0x7f800000 && bad < 0 {
			bad = i
		}
		w[i] = math.Float32frombits(u)
	}
	return bad
}
