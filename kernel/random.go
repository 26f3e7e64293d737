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

// philox returns the four words of block i of a stream.
func philox(k Key, i uint64) [4]uint32 {
	c, k0, k1 := k.counter(i)
	return philox10(c, k0, k1)
}

// counter is the generator's counter and key for block i.
func (k Key) counter(i uint64) (c [4]uint32, k0, k1 uint32) {
	c = [4]uint32{uint32(i), uint32(i>>32) ^ uint32(k.Step>>32), uint32(k.Step), k.Layer<<16 ^ k.Site}
	return c, uint32(k.Seed), uint32(k.Seed >> 32)
}

// philox10 is Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers:
// as easy as 1, 2, 3").
func philox10(c [4]uint32, k0, k1 uint32) [4]uint32 {
	for range 10 {
		p0, p1 := uint64(c[0])*0xD2511F53, uint64(c[2])*0xCD9E8D57
		c = [4]uint32{uint32(p1>>32) ^ c[1] ^ k0, uint32(p1), uint32(p0>>32) ^ c[3] ^ k1, uint32(p0)}
		k0 += 0x9E3779B9
		k1 += 0xBB67AE85
	}
	return c
}

// dropGroup is the number of factors made at a time.
const dropGroup = 64

// dropFactors returns the dropout factors of the numbers first … first+n−1 of
// a stream: 0 where the number is below drop, else keep. buf has room for
// n + 3 values, rounded up to whole groups.
func dropFactors(buf []float32, key Key, first uint64, n int, drop uint32, keep float32) []float32 {
	lead := int(first % 4)
	total := roundUp(lead+n, dropGroup)
	c, k0, k1 := key.counter(first / 4)
	if uint64(c[0])+uint64(total/4) <= 1<<32 {
		vector().dropBlocks(buf[:total], c[0], c[1], c[2], c[3], k0, k1, drop, keep)
		return buf[lead : lead+n]
	}
	for j := range n {
		buf[lead+j] = keep
		if RandU32(key, first+uint64(j)) < drop {
			buf[lead+j] = 0
		}
	}
	return buf[lead : lead+n]
}

// refDropBlocks does the four factors of each block from counter
// {block, c1, c2, c3} on, which may not wrap; len(f) is in whole groups.
func refDropBlocks(f []float32, block, c1, c2, c3, k0, k1, drop uint32, keep float32) {
	for j := 0; j < len(f); j += 4 {
		for i, u := range philox10([4]uint32{block + uint32(j/4), c1, c2, c3}, k0, k1) {
			f[j+i] = keep
			if u < drop {
				f[j+i] = 0
			}
		}
	}
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
