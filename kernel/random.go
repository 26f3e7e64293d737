package kernel

import "math"

// Key names one stream of random numbers. The numbers depend on the key and
// on the index in the stream alone, so any thread and any device can draw any
// of them. Streams are distinct for steps below 2³², and for layers and sites
// below 2¹⁶.
type Key struct {
	Seed, Step  uint64
	Layer, Site uint32
}

// SiteDropout is the site of the dropout of attention weights; index
// ((b·heads + h)·T + i)·T + j draws for the weight of position j in row i.
const SiteDropout uint32 = 1

// philox returns the four words of block i of a stream: Philox-4x32-10
// (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
func philox(k Key, i uint64) [4]uint32 {
	k0, k1 := uint32(k.Seed), uint32(k.Seed>>32)
	c0, c1 := uint32(i), uint32(i>>32)^uint32(k.Step>>32)
	c2, c3 := uint32(k.Step), k.Layer<<16^k.Site
	for range 10 {
		p0, p1 := uint64(c0)*0xD2511F53, uint64(c2)*0xCD9E8D57
		c0, c1, c2, c3 = uint32(p1>>32)^c1^k0, uint32(p1), uint32(p0>>32)^c3^k1, uint32(p0)
		k0 += 0x9E3779B9
		k1 += 0xBB67AE85
	}
	return [4]uint32{c0, c1, c2, c3}
}

// RandU32 is number i of a stream: 32 uniform random bits.
func RandU32(k Key, i uint64) uint32 { return philox(k, i/4)[i%4] }

// Uniform is number i of a stream as a multiple of 2⁻²⁴ in [0, 1).
func Uniform(k Key, i uint64) float32 { return float32(RandU32(k, i)>>8) * (1.0 / (1 << 24)) }

// Normal is value i of a stream of standard normal values (Box–Muller on the
// numbers 2i and 2i+1).
func Normal(k Key, i uint64) float32 {
	b := philox(k, i/2)
	u := (float64(b[i%2*2]) + 1) / (1 << 32) // in (0, 1]
	v := float64(b[i%2*2+1]) / (1 << 32)
	return float32(math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v))
}
