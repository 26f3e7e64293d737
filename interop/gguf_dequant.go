package interop

import (
	"encoding/binary"
	"io"
	"strings"

	"spinnet/spinfile"
)

// ggufBF16 is read and not written.
var ggufBF16 = ggufType{name: "bf16", id: ggmlBF16, values: 1, bytes: 2}

// ggufTypeByID finds an encoding that is read, or nil.
func ggufTypeByID(id uint32) *ggufType {
	for i := range ggufTypes {
		if ggufTypes[i].id == id {
			return &ggufTypes[i]
		}
	}
	if id == ggmlBF16 {
		return &ggufBF16
	}
	return nil
}

// read fills dst, whole blocks, with the values at offset.
func (t *ggufType) read(dst []float32, r io.ReaderAt, offset int64) error {
	if name := strings.ToUpper(t.name); dtypeWidth(name) > 0 {
		return readValues(dst, r, offset, name)
	}
	const blocks = 1024
	buf := make([]byte, min(blocks, len(dst)/t.values)*t.bytes)
	for len(dst) > 0 {
		n := min(len(dst)/t.values, blocks)
		b := buf[:n*t.bytes]
		if _, err := r.ReadAt(b, offset); err != nil {
			return err
		}
		for i := range n {
			t.decode(dst[i*t.values:(i+1)*t.values], b[i*t.bytes:(i+1)*t.bytes])
		}
		dst = dst[n*t.values:]
		offset += int64(len(b))
	}
	return nil
}

// zero reports whether an encoded row is all zeros; it overwrites row.
func (t *ggufType) zero(row []float32, b []byte) bool {
	for i := range len(row) / t.values {
		t.decode(row[i*t.values:(i+1)*t.values], b[i*t.bytes:(i+1)*t.bytes])
	}
	return maxAbs(row) == 0
}

// decode reads one block, as llama.cpp defines it.
func (t *ggufType) decode(dst []float32, b []byte) {
	half := func(at int) float32 { return spinfile.FromFloat16(binary.LittleEndian.Uint16(b[at:])) }
	switch t.id {
	case ggmlQ8_0:
		d := half(0)
		for i, q := range b[2:34] {
			dst[i] = d * float32(int8(q))
		}
	case ggmlQ4_0:
		d := half(0)
		for i, q := range b[2:18] {
			dst[i], dst[i+16] = d*float32(int(q&15)-8), d*float32(int(q>>4)-8)
		}
	case ggmlQ6_K:
		d := half(208)
		for i := range dst {
			h, part, l := i/128, i/32%4, i%32
			lo := b[64*h+32*(part%2)+l] >> (part / 2 * 4) & 15
			hi := b[128+32*h+l] >> (2 * part) & 3
			dst[i] = d * float32(int8(b[192+i/16])) * float32(int(lo|hi<<4)-32)
		}
	case ggmlTQ1_0:
		d, i := half(52), 0
		for _, part := range []struct{ from, to, digits int }{{0, 32, 5}, {32, 48, 5}, {48, 52, 4}} {
			pow := uint8(1)
			for range part.digits {
				for _, q := range b[part.from:part.to] {
					dst[i] = d * float32(int(uint16(q*pow)*3>>8)-1)
					i++
				}
				pow *= 3
			}
		}
	case ggmlTQ2_0:
		d := half(64)
		for i := range dst {
			dst[i] = d * float32(int(b[i/128*32+i%32]>>(i/32%4*2)&3)-1)
		}
	default: // one value a block
		decodeValues(dst, b, strings.ToUpper(t.name))
	}
}
