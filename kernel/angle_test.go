package kernel

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"testing"
)

func TestAngleFunctions(t *testing.T) {
	for _, x := range []float64{0, 1e-9, 0.1, math.Pi / 4, 0.7853981633974484, 1, math.Pi / 2, 3, 3.2, 100, 511.5, 4096, 99999.5, 1 << 20} {
		s, c := sincos64(x)
		ws, wc := math.Sincos(x)
		if math.Abs(s-ws) > 4e-16+1e-16*math.Abs(x)/1e5 || math.Abs(c-wc) > 4e-16+1e-16*math.Abs(x)/1e5 {
			t.Errorf("sincos(%g) = %g, %g, want %g, %g", x, s, c, ws, wc)
		}
	}
	for i := range 10_000 {
		x := float64(i) * 1.7
		s, c := sincos64(x)
		ws, wc := math.Sincos(x)
		if math.Abs(s-ws) > 5e-16 || math.Abs(c-wc) > 5e-16 {
			t.Fatalf("sincos(%g) = %g, %g, want %g, %g", x, s, c, ws, wc)
		}
	}
	for _, theta := range []float64{1, 1.5, 2, 10000, 500000, 1e6, 1e12} {
		if got, want := log64(theta), math.Log(theta); math.Abs(got-want) > 4e-16*math.Abs(want) {
			t.Errorf("log(%g) = %v, want %v", theta, got, want)
		}
		for _, hd := range []int{2, 8, 32, 64, 128} {
			for m, f := range RoPEFrequencies(theta, hd) {
				if want := math.Pow(theta, -2*float64(m)/float64(hd)); math.Abs(f-want) > 1e-14*want {
					t.Errorf("theta %g, head width %d: frequency %d is %v, want %v", theta, hd, m, f, want)
				}
			}
		}
	}
}

// TestRoPETableBits: the table has the same bits on every machine.
func TestRoPETableBits(t *testing.T) {
	cos, sin := RoPETable(2048, 64)
	h := fnv.New64a()
	for _, v := range append(cos, sin...) {
		if err := binary.Write(h, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := h.Sum64(), uint64(0x5a85d056b2d32116); got != want {
		t.Errorf("hash of the rotation table is %#x, want %#x", got, want)
	}
}

func BenchmarkRoPEAngles(b *testing.B) {
	f := RoPEFrequencies(10000, 64)
	cos, sin := make([]float32, 32), make([]float32, 32)
	for b.Loop() {
		RoPEAngles(cos, sin, 300, f)
	}
}
