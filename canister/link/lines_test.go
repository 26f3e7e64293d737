package link

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"spinnet/canister/module"
)

func TestTableEnd(t *testing.T) {
	tests := []struct {
		b    string
		at   uint32
		want uint32
		ok   bool
	}{
		{"\x02\x05\x00", 0, 3, true},                 // one value
		{"\x00\x05\x02\x81\x01\x00rest", 0, 6, true}, // a first difference of 0; two bytes
		{"xx\x02\x05\x00", 2, 5, true},
		{"\x02\x05", 0, 0, false},
		{"\x02", 0, 0, false},
		{"", 7, 0, false},
	}
	for _, tt := range tests {
		if got, ok := tableEnd([]byte(tt.b), tt.at); got != tt.want || ok != tt.ok {
			t.Errorf("%q from %d: got %d, %v, want %d, %v", tt.b, tt.at, got, ok, tt.want, tt.ok)
		}
	}
}

// What is no table of functions is refused.
func TestDropLinesRefuses(t *testing.T) {
	if err := dropLines(&module.Module{Data: []module.Data{module.NewData(0, []byte("no table"))}}); err == nil {
		t.Error("data without a table gave no error")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		b := make([]byte, rng.IntN(300))
		for i := range b {
			b[i] = byte(rng.Uint32() & rng.Uint32() & rng.Uint32())
		}
		if len(b) > 72 {
			for _, field := range []int{8, 56, 64} { // the number of functions and two offsets
				binary.LittleEndian.PutUint64(b[field:], rng.Uint64N(uint64(len(b))))
			}
		}
		dropLinesOf(b)
	}
}
