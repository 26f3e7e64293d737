package model

import (
	"testing"

	"spinnet/tensor"
)

// TestFill: shares of a stream give what the stream gives in order.
func TestFill(t *testing.T) {
	key := tensor.Key{Seed: 3, Site: tensor.SiteInit, Layer: 5}
	x := make([]float32, 200_001)
	fill(x, key, func(r *tensor.Random) float64 { return 2 * r.Normal() })
	r := tensor.MakeRandom(key)
	for i, got := range x {
		if want := float32(2 * r.Normal()); got != want {
			t.Fatalf("value %d: got %v, want %v", i, got, want)
		}
	}
}
