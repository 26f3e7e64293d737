package tensor

import "spinnet/kernel"

// Key names one stream of random numbers: what is drawn depends on the key
// and the index in the stream alone, on every device.
type Key = kernel.Key

// Sites that draw random numbers, so that no two share a stream. Dropout's is
// package kernel's own.
const (
	SiteInit  uint32 = 0x100 + iota // initial weights
	SiteBatch                       // training batches
	SiteEval                        // batches for estimating the training loss
)

// Random reads one stream in order.
type Random struct {
	key  Key
	next uint64
}

// MakeRandom starts at the beginning of a stream.
func MakeRandom(k Key) Random { return Random{key: k} }

// Skip leaves out the next n numbers.
func (r *Random) Skip(n uint64) { r.next += n }

// Uniform is the stream's next uniform number in [0, 1).
func (r *Random) Uniform() float64 {
	r.next++
	return float64(kernel.Uniform(r.key, r.next-1))
}

// Normal is the stream's next standard normal number.
func (r *Random) Normal() float64 {
	r.next++
	return float64(kernel.Normal(r.key, r.next-1))
}

// Below is uniform in 0..n−1, for n up to 2⁶³.
func (r *Random) Below(n int64) int64 {
	hi := uint64(kernel.RandU32(r.key, r.next))
	lo := uint64(kernel.RandU32(r.key, r.next+1))
	r.next += 2
	return int64((hi<<32 | lo) % uint64(n))
}
