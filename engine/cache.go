package engine

import (
	"spinnet/arch"
	"spinnet/kernel"
)

// minRing is how many positions a cache has room for at first.
const minRing = 256

// cache holds the keys and values of one text. It grows with the text,
// doubling, until it is a ring of block_size + chunk − 1 positions: each token
// sees the last block_size tokens, itself included, with keys rotated at
// their absolute positions, so a text may go on past the context length and
// nothing is computed again (SPEC §3).
type cache struct {
	layers, heads, hd int
	block, most       int
	ring              int // positions there is room for

	// Float: per layer and key-value head, keys [hd, ring], transposed so that
	// one query's scores are sums of long rows, and values [ring, hd].
	keys, values [][]float32

	// Int8, instead: per layer and key-value head, keys and values [ring, hd]
	// with a scale for each position [ring].
	int8                 bool
	keys8, values8       [][]int8
	keyScale, valueScale [][]float32
}

func newCache(c *arch.Config, chunk int, rounded bool) cache {
	k := cache{layers: c.NLayer, heads: c.NKVHead, hd: c.HeadDim(), block: c.BlockSize, most: c.BlockSize + chunk - 1, int8: rounded}
	k.keys, k.values = make([][]float32, c.NLayer), make([][]float32, c.NLayer)
	k.keys8, k.values8 = make([][]int8, c.NLayer), make([][]int8, c.NLayer)
	k.keyScale, k.valueScale = make([][]float32, c.NLayer), make([][]float32, c.NLayer)
	k.reserve(min(minRing, c.BlockSize), 0)
	return k
}

// reserve makes room for the given number of positions, pos of which are in
// use, or for as many as the ring ever holds. Before that is reached nothing
// has wrapped around, and position p is in slot p.
func (k *cache) reserve(positions, pos int) {
	if positions <= k.ring || k.ring == k.most {
		return
	}
	ring := min(k.most, max(positions, 2*k.ring))
	used := min(pos, k.ring)
	for i := range k.layers {
		if k.int8 {
			k.keys8[i] = wider(k.keys8[i], k.heads, k.ring*k.hd, ring*k.hd, used*k.hd)
			k.values8[i] = wider(k.values8[i], k.heads, k.ring*k.hd, ring*k.hd, used*k.hd)
			k.keyScale[i] = wider(k.keyScale[i], k.heads, k.ring, ring, used)
			k.valueScale[i] = wider(k.valueScale[i], k.heads, k.ring, ring, used)
			continue
		}
		k.keys[i] = wider(k.keys[i], k.heads*k.hd, k.ring, ring, used)
		k.values[i] = wider(k.values[i], k.heads, k.ring*k.hd, ring*k.hd, used*k.hd)
	}
	k.ring = ring
}

// wider copies rows of a width into rows of another, the first used values
// of each.
func wider[T any](from []T, rows, was, width, used int) []T {
	to := make([]T, rows*width)
	for r := range rows {
		copy(to[r*width:], from[r*was:][:used])
	}
	return to
}

// span locates what the token at position p sees: n positions, the first n1
// of them from slot at on, the rest from slot 0 on.
func (k *cache) span(p int) (at, n1, n int) {
	first := max(0, p-k.block+1)
	n = p - first + 1
	at = first % k.ring
	return at, min(n, k.ring-at), n
}

// store puts the keys and values [heads·hd] of position p into layer i.
func (k *cache) store(i, p int, keys, values []float32) {
	slot := p % k.ring
	for ch, x := range keys {
		k.keys[i][ch*k.ring+slot] = x // head ch/hd, channel ch%hd
	}
	for g := range k.heads {
		copy(k.values[i][(g*k.ring+slot)*k.hd:][:k.hd], values[g*k.hd:])
	}
}

// store8 is store for an int8 cache: keys and values are rounded, with a scale
// for each head.
func (k *cache) store8(i, p int, keys, values []float32) {
	slot := p % k.ring
	for g := range k.heads {
		row := g*k.ring + slot
		k.keyScale[i][row] = kernel.ExactQuantize8(k.keys8[i][row*k.hd:][:k.hd], keys[g*k.hd:])
		k.valueScale[i][row] = kernel.ExactQuantize8(k.values8[i][row*k.hd:][:k.hd], values[g*k.hd:])
	}
}
