package spinfile

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestFrequencies(t *testing.T) {
	for zeros := range 256 {
		for plus := range 256 {
			sum := uint32(0)
			for s, f := range frequencies(uint8(zeros), uint8(plus)) {
				if f < 1 || f >= 1<<entropyBits {
					t.Fatalf("model %d, %d: byte %d has frequency %d", zeros, plus, s, f)
				}
				sum += f
			}
			if sum != 1<<entropyBits {
				t.Fatalf("model %d, %d: frequencies add up to %d", zeros, plus, sum)
			}
		}
	}
}

func TestEntropy(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, n := range []int{1, 2, 4, 5, 6, 7, 8, 9, 10, 13, 100, 1003, 50000} {
		for _, zeros := range []float64{0, 0.1, 0.33, 0.88, 0.97} {
			q := randomTrits(n, zeros, r)
			b := appendEntropy(nil, q)
			if b == nil {
				t.Fatalf("%d trits, %.2f zeros: not encoded", n, zeros)
			}
			got := make([]int8, n+8)
			got[n] = 99
			used, err := readEntropy(got[:n], append(slices.Clone(b), 0, 0))
			if err != nil || used != len(b) || !slices.Equal(got[:n], q) || got[n] != 99 {
				t.Fatalf("%d trits, %.2f zeros: %v, %d of %d bytes", n, zeros, err, used, len(b))
			}
			if n == 50000 {
				h := -(1 - zeros) * math.Log2((1-zeros)/2)
				if zeros > 0 {
					h -= zeros * math.Log2(zeros)
				}
				bits := 8 * float64(len(b)) / float64(n)
				if bits > 1.02*h+0.01 {
					t.Errorf("%.2f zeros: %.4f bits a trit, the entropy is %.4f", zeros, bits, h)
				}
				for range 300 { // what is damaged is refused or gives trits
					d := slices.Clone(b)
					d[r.IntN(len(d))] ^= 1 << r.IntN(8)
					if _, err := readEntropy(got[:n], d); err == nil {
						for _, v := range got[:n] {
							if v < -1 || v > 1 {
								t.Fatalf("the trit %d", v)
							}
						}
					}
				}
			}
			for k := entropyHead; k < len(b); k += max(1, len(b)/50) {
				if _, err := readEntropy(got[:n], b[:k]); err == nil {
					t.Fatalf("%d trits: %d of %d bytes were enough", n, k, len(b))
				}
			}
		}
	}
	if appendEntropy(nil, make([]int8, 10000)) != nil {
		t.Error("10000 zeros were encoded in less than a file may hold")
	}
}
