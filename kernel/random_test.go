package kernel

import (
	"math"
	"testing"
)

// The vector of Random123's kat_vectors for philox4x32-10 with zero counter
// and key.
func TestPhiloxKnownAnswer(t *testing.T) {
	want := [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}
	if got := philox(Key{}, 0); got != want {
		t.Errorf("got %x, want %x", got, want)
	}
	if got := RandU32(Key{}, 2); got != want[2] {
		t.Errorf("number 2: got %x, want %x", got, want[2])
	}
}

func TestStreamsDiffer(t *testing.T) {
	seen := map[uint32]Key{}
	for _, k := range []Key{{}, {Seed: 1}, {Step: 1}, {Layer: 1}, {Site: 1}, {Seed: 1 << 32}, {Step: 1 << 32}} {
		u := RandU32(k, 0)
		if other, ok := seen[u]; ok {
			t.Errorf("%v and %v begin alike", k, other)
		}
		seen[u] = k
	}
}

func TestUniformAndNormal(t *testing.T) {
	const n = 100000
	k := Key{Seed: 42, Step: 3}
	var sum, square, usum float64
	for i := range uint64(n) {
		u, z := float64(Uniform(k, i)), float64(Normal(k, i))
		if u < 0 || u >= 1 || math.IsNaN(z) || math.IsInf(z, 0) {
			t.Fatalf("value %d: uniform %v, normal %v", i, u, z)
		}
		usum += u
		sum += z
		square += z * z
	}
	if m := usum / n; math.Abs(m-0.5) > 0.005 {
		t.Errorf("uniform mean %v", m)
	}
	if m, v := sum/n, square/n; math.Abs(m) > 0.015 || math.Abs(v-1) > 0.02 {
		t.Errorf("normal mean %v, variance %v", m, v)
	}
}

func TestDropFactors(t *testing.T) {
	k := Key{Seed: 0x123456789abcdef0, Step: 7<<32 | 99, Layer: 3, Site: SiteDropout}
	const drop, keep = 1 << 30, 1.25
	eachSet(t, func(t *testing.T) {
		for _, first := range []uint64{0, 1, 2, 3, 4, 1000003, 1<<34 - 8, 1<<34 + 5} {
			for _, n := range []int{0, 1, 2, 5, 31, 64, 65, 200, 257} {
				buf, check := guarded(t, roundUp(n+3, dropGroup))
				got := dropFactors(buf, k, first, n, drop, keep)
				check()
				for j, f := range got {
					want := float32(keep)
					if RandU32(k, first+uint64(j)) < drop {
						want = 0
					}
					if f != want {
						t.Fatalf("factor %d of %d from %d: got %v, want %v", j, n, first, f, want)
					}
				}
				if len(got) != n {
					t.Fatalf("got %d factors, want %d", len(got), n)
				}
			}
		}
	})
}
