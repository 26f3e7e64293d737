package spinfile

import (
	"errors"
	"math/bits"
)

// Base-3: five trits a byte, the first the least significant digit, digit =
// trit + 1. The digits after the last trit are 0.

// tritsOf gives the five trits of a byte, one a byte from the lowest on; the
// highest byte is not 0 where there are none.
var tritsOf = func() (table [256]uint64) {
	for b := range table {
		rest := b
		for i := range 5 {
			table[b] |= uint64(uint8(rest%3-1)) << (8 * i)
			rest /= 3
		}
		if b >= 243 {
			table[b] = 1 << 56
		}
	}
	return table
}()

// base3Len is the length of n trits in base 3.
func base3Len(n int) int { return (n + 4) / 5 }

// appendBase3 appends q in base 3.
func appendBase3(dst []byte, q []int8) []byte {
	for ; len(q) >= 5; q = q[5:] {
		dst = append(dst, byte(q[0]+1+3*(q[1]+1)+9*(q[2]+1))+27*uint8(q[3]+1)+81*uint8(q[4]+1))
	}
	if len(q) > 0 {
		b, digit := 0, 1
		for _, v := range q {
			b += digit * int(v+1)
			digit *= 3
		}
		dst = append(dst, byte(b))
	}
	return dst
}

// readBase3 fills q from b, which has base3Len(len(q)) bytes. It reports the
// first byte that is no five trits or ends in digits other than 0, or −1.
func readBase3(q []int8, b []byte) int {
	var bad uint64
	whole := 0
	for ; len(q)-5*whole >= 8; whole++ { // eight trits are written, three of them again
		v := tritsOf[b[whole]]
		bad |= v
		o := (*[8]int8)(q[5*whole:])
		o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7] =
			int8(v), int8(v>>8), int8(v>>16), int8(v>>24), int8(v>>32), int8(v>>40), int8(v>>48), int8(v>>56)
	}
	if bad>>56 != 0 {
		for i, v := range b[:whole] {
			if v >= 243 {
				return i
			}
		}
	}
	for i := whole; i < len(b); i++ {
		rest := int(b[i])
		for j := 5 * i; j < min(len(q), 5*i+5); j++ {
			q[j] = int8(rest%3 - 1)
			rest /= 3
		}
		if b[i] >= 243 || 5*i+5 > len(q) && rest != 0 {
			return i
		}
	}
	return -1
}

// Bitmask: a bit for each trit, from the lowest bit of the first byte on, 1
// where it is not 0; then a bit for each of those, 1 where it is +1. The bits
// after the last of either are 0. Version 4 has the two parts apart.

// bitmaskLen is the length of the two parts of a bitmask.
func bitmaskLen(n, nonzeros int) (mask, signs int) { return (n + 7) / 8, (nonzeros + 7) / 8 }

// appendMask appends the first part.
func appendMask(dst []byte, q []int8) []byte {
	for len(q) > 0 {
		n := min(8, len(q))
		b := byte(0)
		for i, v := range q[:n] {
			b |= byte(v&1) << i
		}
		dst = append(dst, b)
		q = q[n:]
	}
	return dst
}

// appendSigns appends the second part.
func appendSigns(dst []byte, q []int8) []byte {
	b, n := byte(0), 0
	for _, v := range q {
		if v == 0 {
			continue
		}
		if v > 0 {
			b |= 1 << n
		}
		if n++; n == 8 {
			dst = append(dst, b)
			b, n = 0, 0
		}
	}
	if n > 0 {
		dst = append(dst, b)
	}
	return dst
}

// fourTrits gives the trits of four bits of a mask (the high half of the
// index) and the signs of those that are set (the low half).
var fourTrits = func() (table [256]uint32) {
	for i := range table {
		mask, signs := i>>4, i&15
		for j := range 4 {
			if mask>>j&1 != 0 {
				table[i] |= uint32(uint8(2*(signs&1)-1)&0xff) << (8 * j)
				signs >>= 1
			}
		}
	}
	return table
}()

// countMask counts the bits of a mask of n trits, or fails where bits after
// the last are set.
func countMask(mask []byte, n int) (nonzeros int, err error) {
	for _, b := range mask {
		nonzeros += bits.OnesCount8(b)
	}
	if n%8 != 0 && mask[len(mask)-1]>>(n%8) != 0 {
		return 0, errors.New("bits are set after the last of the mask")
	}
	return nonzeros, nil
}

// readBitmask fills q from a mask with countMask = nonzeros and its signs.
func readBitmask(q []int8, mask, signs []byte, nonzeros int) error {
	if nonzeros%8 != 0 && signs[len(signs)-1]>>(nonzeros%8) != 0 {
		return errors.New("bits are set after the last of the signs")
	}
	var ahead uint64 // signs not used yet
	have, at := 0, 0
	var spare [8]int8
	for i, m := range mask {
		if have < 8 {
			if len(signs)-at >= 4 {
				ahead |= uint64(le.Uint32(signs[at:])) << have
				at, have = at+4, have+32
			} else {
				for ; at < len(signs) && have <= 56; at++ {
					ahead |= uint64(signs[at]) << have
					have += 8
				}
				have = max(have, 8) // the end: as many as are needed are there
			}
		}
		lo := fourTrits[uint64(m&15)<<4|ahead&15]
		n := bits.OnesCount8(m & 15)
		hi := fourTrits[uint64(m>>4)<<4|ahead>>n&15]
		n = bits.OnesCount8(m)
		ahead >>= n
		have -= n
		o := &spare
		if len(q)-8*i >= 8 {
			o = (*[8]int8)(q[8*i:])
		}
		o[0], o[1], o[2], o[3] = int8(lo), int8(lo>>8), int8(lo>>16), int8(lo>>24)
		o[4], o[5], o[6], o[7] = int8(hi), int8(hi>>8), int8(hi>>16), int8(hi>>24)
	}
	if tail := len(q) % 8; tail > 0 {
		copy(q[len(q)-tail:], spare[:])
	}
	return nil
}
