package spinfile

import (
	"errors"
	"math"
	"strconv"

	"spinnet/arch"
)

// Groups: an embedding in 6 or 4 bits. Every run of GroupSize values of a row
// has a factor f, and its values are f·q with q of that many bits, stored as
// u = q + half. The low four bits of all groups come first, 16 bytes a group,
// one for values j (its low half) and j + 16; with 6 bits, then the high two
// bits of all groups, 8 bytes a group, one for values j, j + 8, j + 16 and
// j + 24, from the lowest on. The values after a row's last are q = 0.

const (
	lowLen  = GroupSize / 2 // bytes of a group's low bits
	highLen = GroupSize / 4 // bytes of a group's high bits
)

// groupLen is the stored length of a group.
func groupLen(bits int) int { return GroupSize * bits / 8 }

// groupsOf is the number of groups of a row of d values.
func groupsOf(d int) int { return (d + GroupSize - 1) / GroupSize }

// Planes gives the two parts of Packed: the low four bits of all values, and
// the high two, nil with 4 bits.
func (t *Tensor) Planes() (low, high []byte) {
	low = t.Packed[:len(t.Groups)*lowLen]
	if t.Bits == 6 {
		high = t.Packed[len(low):]
	}
	return low, high
}

// packRow stores a row of multiples of their factors.
func packRow(low, high []byte, values []int8, factors []uint8, bits int) {
	half := 1 << (bits - 1)
	for g, f := range factors {
		var u [GroupSize]byte
		for j := range u {
			u[j] = byte(half)
			if at := g*GroupSize + j; at < len(values) {
				u[j] = byte(half + int(values[at])/int(f))
			}
		}
		for j := range lowLen {
			low[g*lowLen+j] = u[j]&15 | u[j+16]<<4
		}
		if bits == 6 {
			for j := range highLen {
				high[g*highLen+j] = u[j]>>4 | u[j+8]>>4<<2 | u[j+16]>>4<<4 | u[j+24]>>4<<6
			}
		}
	}
}

const (
	nibbles = 0x0f0f0f0f0f0f0f0f
	pairs   = 0x0303030303030303
	evens   = 0x00ff00ff00ff00ff
	lanes   = 0x0001000100010001
)

// readGroups fills rows of d values, if values is not nil. It reports the
// first group with a factor of 0, a product beyond ±127 or values after the
// row's end, or −1.
func readGroups(values []int8, low, high []byte, factors []uint8, d, bits int) int {
	half := uint64(1) << (bits - 1)
	var spare [GroupSize]int8
	at := 0 // in the row
	for g, factor := range factors {
		f := uint64(factor)
		if values == nil && d-at >= GroupSize && f-1 < 127/half { // whatever the values, they fit
			if at += GroupSize; at == d {
				at = 0
			}
			continue
		}
		// Eight values at a time, in two words of four lanes of 16 bits:
		// f·u + 128 − f·half is 1 … 255 where f·q is in ±127; 0x4000 keeps it
		// from going below 0.
		shift := (0x4000 + 128 - f*half) * lanes
		bad := (f - 1) >> 63 << 8 // f = 0
		rest := d - at
		o := &spare
		if values != nil && rest >= GroupSize {
			o = (*[GroupSize]int8)(values)
		}
		p := low[g*lowLen : (g+1)*lowLen]
		a, b := le.Uint64(p), le.Uint64(p[8:])
		u := [4]uint64{a & nibbles, b & nibbles, a >> 4 & nibbles, b >> 4 & nibbles}
		if bits == 6 {
			h := le.Uint64(high[g*highLen:])
			u[0] |= h & pairs << 4
			u[1] |= h >> 2 & pairs << 4
			u[2] |= h >> 4 & pairs << 4
			u[3] |= h >> 6 & pairs << 4
		}
		for j, v := range u {
			even := (v&evens)*f + shift
			odd := (v>>8&evens)*f + shift
			bad |= (even ^ 0x4000*lanes) | (odd ^ 0x4000*lanes) | ((even - lanes) ^ 0x4000*lanes) | ((odd - lanes) ^ 0x4000*lanes)
			le.PutUint64(asBytes(o[8*j:8*j+8]), (even&evens|odd&evens<<8)^0x8080808080808080)
		}
		if bad&0xff00ff00ff00ff00 != 0 {
			return g
		}
		if rest < GroupSize {
			for _, v := range spare[rest:] {
				if v != 0 {
					return g
				}
			}
		}
		n := min(rest, GroupSize)
		if at += n; at == d {
			at = 0
		}
		if values != nil {
			if n < GroupSize {
				copy(values, spare[:n])
			}
			values = values[n:]
		}
	}
	return -1
}

// checkPacked checks the parts of an embedding in groups.
func (t *Tensor) checkPacked() error {
	groups := t.Shape[0] * groupsOf(t.Shape[1])
	if t.Kind != arch.Embedding || t.Bits != 6 && t.Bits != 4 || len(t.Groups) != groups || len(t.Packed) != groups*groupLen(t.Bits) {
		return errors.New("spinfile: tensor " + t.Name + ", a packed " + t.Kind.String() + ", has " + strconv.Itoa(t.Bits) + " bits, " + strconv.Itoa(len(t.Packed)) + " bytes and " + strconv.Itoa(len(t.Groups)) +
			" groups, want an embedding of 4 or 6 bits and " + strconv.Itoa(groups) + " groups")
	}
	low, high := t.Planes()
	if g := readGroups(nil, low, high, t.Groups, t.Shape[1], t.Bits); g >= 0 {
		return errors.New("spinfile: tensor " + t.Name + " has values beyond ±127 or after the row's end in group " + strconv.Itoa(g))
	}
	return nil
}

// Expanded gives the values of an Int8 or Packed tensor as int8: Int8 itself,
// or a new slice of what Packed stands for.
func (t *Tensor) Expanded() []int8 {
	if t.Packed == nil {
		return t.Int8
	}
	q := make([]int8, t.Len())
	low, high := t.Planes()
	readGroups(q, low, high, t.Groups, t.Shape[1], t.Bits)
	return q
}

// QuantizeEmbedding returns a model whose embeddings are Int8, or Packed in 6
// or 4 bits a value, sharing all else with m. Embeddings that have as many
// bits already stay as they are. Other numbers of bits are a mistake of the
// caller.
//
// With 8 bits the largest value of a row is 127, as in Quantize. With fewer,
// factors are those of least squared error, and so is then a row's scale.
func (m *Model) QuantizeEmbedding(bits int) *Model {
	if bits != 8 && bits != 6 && bits != 4 {
		panic("spinfile: QuantizeEmbedding takes 8, 6 or 4 bits")
	}
	q := *m
	q.Tensors = append([]Tensor(nil), m.Tensors...)
	for i := range q.Tensors {
		t := &q.Tensors[i]
		switch {
		case t.Kind != arch.Embedding || t.Int8 != nil && bits == 8 || t.Packed != nil && bits == t.Bits:
		case bits == 8:
			t.quantize8()
		default:
			t.quantizeGroups(bits)
		}
	}
	return &q
}

// quantizeGroups packs an embedding.
func (t *Tensor) quantizeGroups(bits int) {
	w, rows, d := t.Floats(), t.Shape[0], t.Shape[1]
	groups := groupsOf(d)
	t.Data, t.Int8, t.Bits = nil, nil, bits
	t.Scale, t.Groups, t.Packed = make([]float32, rows), make([]uint8, rows*groups), make([]byte, rows*groups*groupLen(bits))
	low, high := t.Planes()
	q := make([]int8, d)
	for r := range rows {
		factors := t.Groups[r*groups : (r+1)*groups]
		t.Scale[r] = fitRow(q, factors, w[r*d:(r+1)*d], bits)
		packRow(low[r*groups*lowLen:], high[min(len(high), r*groups*highLen):], q, factors, bits)
	}
}

// fitRow quantises a row in groups and returns its scale. Products are
// rounded before they are added, so that every machine gives the same.
func fitRow(q []int8, factors []uint8, w []float32, bits int) float32 {
	scale := scale8(w)
	var x [GroupSize]float32
	for range 2 { // once more with the scale that fits
		var dot, norm float64
		for g := range factors {
			from, to := g*GroupSize, min(len(w), (g+1)*GroupSize)
			group := x[:to-from]
			for j, v := range w[from:to] {
				group[j] = v / scale
			}
			factors[g] = fitFactor(group, bits)
			roundGroup(q[from:to], group, factors[g], bits)
			for j, v := range q[from:to] {
				dot += float64(float64(w[from+j]) * float64(v))
				norm += float64(float64(v) * float64(v))
			}
		}
		if s := float32(dot / norm); norm > 0 && s > 0 && s <= math.MaxFloat32 {
			scale = s
		}
	}
	return scale
}

// limits are the least and the greatest q of a group with factor f.
func limits(f uint8, bits int) (lo, hi float32) {
	half, most := float32(int(1)<<(bits-1)), float32(127/int(f))
	return -min(half, most), min(half-1, most)
}

// magicRound added and taken away again rounds a small float32 to an integer,
// half to even.
const magicRound = 3 << 22

// fitFactor is the factor with the least squared error of the group x.
func fitFactor(x []float32, bits int) uint8 {
	var top float32
	for _, v := range x {
		top = max(top, v, -v)
	}
	_, hi := limits(1, bits)
	most := int(math.Ceil(float64(top / hi)))
	best, least := uint8(1), float32(math.Inf(1))
	for f := max(1, most*6/10); f <= min(127, max(1, most)); f++ {
		lo, hi := limits(uint8(f), bits)
		step, inverse := float32(f), 1/float32(f)
		var sum float32
		for _, v := range x {
			k := min(hi, max(lo, float32(float32(v*inverse)+magicRound)-magicRound))
			e := v - float32(step*k)
			sum += float32(e * e)
		}
		if sum < least {
			best, least = uint8(f), sum
		}
	}
	return best
}

// roundGroup sets q to the multiples of f that are nearest to x.
func roundGroup(q []int8, x []float32, f uint8, bits int) {
	lo, hi := limits(f, bits)
	inverse := 1 / float32(f)
	for j, v := range x {
		q[j] = int8(f) * int8(min(hi, max(lo, float32(float32(v*inverse)+magicRound)-magicRound)))
	}
}
