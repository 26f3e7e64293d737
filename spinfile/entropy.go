package spinfile

import (
	"errors"
	"math"
)

// Entropy: the base-3 bytes of a tensor by rANS, with the frequencies that
// they would have if trits were independent. So a model of two bytes is
// enough: the share of zeros, and that of +1 among the rest, in 256ths.
//
// The state x is in [2¹⁶, 2³²). A byte s with frequency f and the sum c of the
// frequencies of smaller bytes is taken off by
//
//	x = f·⌊x / 2¹⁴⌋ + (x mod 2¹⁴) − c, where c ≤ x mod 2¹⁴ < c + f;
//	if x < 2¹⁶: x = 2¹⁶·x + next 16 bits.
//
// Stored are the two bytes of the model, x at the start (four bytes) and the
// 16-bit words; after the last byte x is 2¹⁶.

const (
	entropyBits  = 14 // frequencies add up to 1<<entropyBits
	entropyStart = 1 << 16
	entropyHead  = 6 // bytes before the words

	// entropyMost bounds the trits that a byte can stand for, and so the memory
	// that a file can ask for. Tensors with more zeros are stored as bitmasks.
	entropyMost = 64
)

// frequencies gives those of the 243 bytes, at least 1 each. All arithmetic is
// in integers.
func frequencies(zeros, plus uint8) (freq [243]uint32) {
	w := [3]uint64{ // of the digits 0, 1, 2, in 65536ths
		(256 - uint64(zeros)) * (256 - uint64(plus)),
		256 * uint64(zeros),
		(256 - uint64(zeros)) * uint64(plus),
	}
	sum, top := uint32(0), 0
	for s := range freq {
		p, rest := uint64(1)<<32, s
		for range 5 {
			p = p * w[rest%3] >> 16
			rest /= 3
		}
		freq[s] = max(1, uint32(p>>(32-entropyBits)))
		sum += freq[s]
		if freq[s] > freq[top] {
			top = s
		}
	}
	// The most frequent byte takes what rounding left over. That it stays
	// positive for every model is tested.
	freq[top] += 1<<entropyBits - sum
	return freq
}

// entropyModel is the model of a tensor.
func entropyModel(q []int8) (zeros, plus uint8) {
	var count [3]int
	for _, v := range q {
		count[v+1]++
	}
	share := func(n, of int) uint8 {
		if of == 0 {
			return 128
		}
		return uint8(max(1, min(255, (512*n+of)/(2*of)))) // 256·n/of, rounded
	}
	return share(count[1], len(q)), share(count[2], count[0]+count[2])
}

// appendEntropy appends q, or returns nil where that would be shorter than a
// file may have it.
func appendEntropy(dst []byte, q []int8) []byte {
	zeros, plus := entropyModel(q)
	freq := frequencies(zeros, plus)
	var start [243]uint32
	for s := 1; s < len(start); s++ {
		start[s] = start[s-1] + freq[s-1]
	}
	bytes := appendBase3(nil, q)
	words := make([]uint16, 0, len(bytes)/2)
	x := uint32(entropyStart)
	for i := len(bytes) - 1; i >= 0; i-- {
		s := bytes[i]
		f := freq[s]
		if uint64(x) >= uint64(f)<<(32-entropyBits) {
			words = append(words, uint16(x))
			x >>= 16
		}
		x = x/f<<entropyBits + x%f + start[s]
	}
	if (entropyHead+2*len(words))*entropyMost < len(q) {
		return nil
	}
	dst = append(dst, zeros, plus)
	dst = le.AppendUint32(dst, x)
	for i := len(words) - 1; i >= 0; i-- {
		dst = le.AppendUint16(dst, words[i])
	}
	return dst
}

// readEntropy fills q and gives the number of bytes used of b, which holds no
// more than that and up to three bytes of padding.
func readEntropy(q []int8, b []byte) (int, error) {
	freq := frequencies(b[0], b[1])
	if b[0] == 0 || b[1] == 0 {
		return 0, errors.New("a share of 0 in the model")
	}
	var start [243]uint32
	var symbol [1 << entropyBits]uint8
	at := uint32(0)
	for s, f := range freq {
		start[s] = at
		for range f {
			symbol[at] = uint8(s)
			at++
		}
	}
	x, used := le.Uint32(b[2:]), entropyHead
	if x < entropyStart {
		return 0, errors.New("a state that is too small")
	}
	for i := 0; i < len(q); i += 5 {
		s := symbol[x%(1<<entropyBits)]
		v := tritsOf[s]
		if len(q)-i >= 8 {
			le.PutUint64(asBytes(q[i:i+8]), v)
		} else {
			for j := i; j < min(len(q), i+5); j++ {
				q[j] = int8(v)
				v >>= 8
			}
			for j := len(q); j < i+5; j++ { // digits after the last trit are 0
				if int8(v) != -1 {
					return 0, errors.New("trits after the last one")
				}
				v >>= 8
			}
		}
		x = freq[s]*(x>>entropyBits) + x%(1<<entropyBits) - start[s]
		if x < entropyStart {
			if len(b)-used < 2 {
				return 0, errors.New("truncated: the words end before the trits")
			}
			x = x<<16 | uint32(le.Uint16(b[used:]))
			used += 2
		}
	}
	if x != entropyStart {
		return 0, errors.New("the state at the end is not the one at the start")
	}
	return used, nil
}

// worthEntropy reports whether n bytes save enough over the best other
// encoding: 5 %.
func worthEntropy(n, best int) bool { return n <= best-int(math.Ceil(float64(best)/20)) }
