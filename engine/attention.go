package engine

import (
	"math"

	"spinnet/arch"
	"spinnet/kernel"
)

// minRing is how many positions a cache has room for at first.
const minRing = 256

// cache holds the keys and values of one text. It grows with the text,
// doubling, until it is a ring of block_size + chunk − 1 positions or a few
// more: each token sees the last block_size tokens, itself included, with keys
// rotated at their absolute positions, so a text may go on past the context
// length and nothing is computed again (SPEC §3).
type cache struct {
	layers, heads, hd int
	block, most       int
	ring              int // positions there is room for, in whole blocks of kernel.ExactBlock

	// Float: per layer and key-value head, keys [ring/16, hd, 16] and values
	// [ring, hd].
	keys, values [][]float32

	// Int8, instead: per layer and key-value head, keys (kernel.SetInt8Key) and
	// values [ring, hd] with a scale for each position [ring].
	int8                 bool
	keys8, values8       [][]int8
	keyScale, valueScale [][]float32
}

func newCache(c *arch.Config, chunk int, rounded bool) cache {
	k := cache{layers: c.NLayer, heads: c.NKVHead, hd: c.HeadDim(), block: c.BlockSize, most: wholeBlocks(c.BlockSize + chunk - 1), int8: rounded}
	k.keys, k.values = make([][]float32, c.NLayer), make([][]float32, c.NLayer)
	k.keys8, k.values8 = make([][]int8, c.NLayer), make([][]int8, c.NLayer)
	k.keyScale, k.valueScale = make([][]float32, c.NLayer), make([][]float32, c.NLayer)
	k.reserve(min(minRing, c.BlockSize), 0)
	return k
}

// CacheBytes is how much memory a session's keys and values take at most after
// so many tokens, but for a little.
func (e *Engine) CacheBytes(tokens int) int {
	c := &e.config
	ring := min(wholeBlocks(c.BlockSize+min(prefillChunk, c.BlockSize)-1), 2*wholeBlocks(max(tokens, minRing)))
	each := 2 * 4 * c.KVDim()
	if e.int8Cache {
		each = 2 * (c.KVDim() + 4*c.NKVHead)
	}
	return c.NLayer * ring * each
}

// wholeBlocks rounds a number of positions up to whole blocks.
func wholeBlocks(n int) int {
	return (n + kernel.ExactBlock - 1) / kernel.ExactBlock * kernel.ExactBlock
}

// reserve makes room for the given number of positions, pos of which are in
// use, or for as many as the ring ever holds. Before that is reached nothing
// has wrapped around, and position p is in slot p.
func (k *cache) reserve(positions, pos int) {
	if positions <= k.ring || k.ring == k.most {
		return
	}
	ring := min(k.most, max(wholeBlocks(positions), 2*k.ring))
	used := min(pos, k.ring)
	for i := range k.layers {
		if k.int8 {
			k.keys8[i] = wider(k.keys8[i], k.heads, kernel.Int8KeysLen(k.ring, k.hd), kernel.Int8KeysLen(ring, k.hd), kernel.Int8KeysLen(wholeBlocks(used), k.hd))
			k.values8[i] = wider(k.values8[i], k.heads, k.ring*k.hd, ring*k.hd, used*k.hd)
			k.keyScale[i] = wider(k.keyScale[i], k.heads, k.ring, ring, used)
			k.valueScale[i] = wider(k.valueScale[i], k.heads, k.ring, ring, used)
			continue
		}
		k.keys[i] = wider(k.keys[i], k.heads, k.ring*k.hd, ring*k.hd, wholeBlocks(used)*k.hd)
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

// store puts a key and a value [hd] of position p and head g into a layer. An
// int8 cache rounds them, each with a scale; rounded [hd] is memory for that.
func (k *cache) store(rounded []int8, layer, p, g int, key, value []float32) {
	slot := p % k.ring
	row := g*k.ring + slot
	if k.int8 {
		size := kernel.Int8KeysLen(k.ring, k.hd)
		k.keyScale[layer][row] = kernel.ExactQuantize8(rounded, key)
		kernel.SetInt8Key(k.keys8[layer][g*size:(g+1)*size], slot, rounded)
		k.valueScale[layer][row] = kernel.ExactQuantize8(k.values8[layer][row*k.hd:(row+1)*k.hd], value)
		return
	}
	block := k.keys[layer][(row-slot%kernel.ExactBlock)*k.hd:][:kernel.ExactBlock*k.hd]
	for i, x := range key {
		block[i*kernel.ExactBlock+slot%kernel.ExactBlock] = x
	}
	copy(k.values[layer][row*k.hd:], value)
}

// attention is the memory that one worker needs for it.
type attention struct {
	scores []float32 // of one query
	q      []int8    // a rounded query or key
	query  []int8    // of kernel.Int8Scores
	dots   []int32
}

// fit makes room for the scores of a cache.
func (w *attention) fit(k *cache) {
	if n := min(k.ring, k.block) + 2*kernel.ExactBlock; len(w.scores) < n {
		w.scores = make([]float32, n)
		if k.int8 {
			w.q, w.query, w.dots = make([]int8, k.hd), make([]int8, kernel.Int8QueryLen(k.hd)), make([]int32, n)
		}
	}
}

// attend computes o = softmax(q·Kᵀ/√hd)·V for the query of position p and
// those heads that share key-value head g, over the last block_size positions
// in ascending order. q and o are [n_head, hd]. The ring is read in two
// pieces, up to its end and from its start.
func (k *cache) attend(w *attention, layer, p, g int, q, o []float32) {
	at, n1, n := k.span(p)
	scale := float32(1 / math.Sqrt(float64(k.hd)))
	share := len(q) / k.hd / k.heads
	for head := g * share; head < (g+1)*share; head++ {
		q, o := q[head*k.hd:(head+1)*k.hd], o[head*k.hd:(head+1)*k.hd]
		clear(o)
		if k.int8 {
			k.attend8(w, layer, g, at, n1, n, q, o, scale)
			continue
		}
		keys := k.keys[layer][g*k.ring*k.hd : (g+1)*k.ring*k.hd]
		values := k.values[layer][g*k.ring*k.hd : (g+1)*k.ring*k.hd]
		// Whole blocks; if there is a second piece, the first ends with one.
		skip := at % kernel.ExactBlock
		whole := wholeBlocks(skip + n1)
		kernel.ExactScores(w.scores[:whole], q, keys[(at-skip)*k.hd:], scale)
		if n1 < n {
			kernel.ExactScores(w.scores[whole:whole+wholeBlocks(n-n1)], q, keys, scale)
		}
		scores := w.scores[skip : skip+n]
		softmax(scores)
		kernel.ExactValues(o, scores[:n1], values[at*k.hd:])
		kernel.ExactValues(o, scores[n1:], values)
	}
}

// softmax is kernel.ExactSoftmax, with up to three −Inf behind the scores, for
// which there is room: they change nothing, and vectors are whole.
func softmax(scores []float32) {
	n := len(scores)
	scores = scores[:(n+3)&^3]
	for i := n; i < len(scores); i++ {
		scores[i] = float32(math.Inf(-1))
	}
	kernel.ExactSoftmax(scores)
}

// attend8 is attend's head over an int8 cache: the query is rounded too, its
// products with the keys are exact; the values' scales go into the weights.
func (k *cache) attend8(w *attention, layer, g, at, n1, n int, q, o []float32, scale float32) {
	from, to, size := g*k.ring, (g+1)*k.ring, kernel.Int8KeysLen(k.ring, k.hd)
	keys, values := k.keys8[layer][g*size:(g+1)*size], k.values8[layer][from*k.hd:to*k.hd]
	keyScale, valueScale := k.keyScale[layer][from:to], k.valueScale[layer][from:to]
	scores := w.scores[:n]
	qs := kernel.ExactQuantize8(w.q, q)
	kernel.Int8Query(w.query, w.q)
	for _, span := range [2][3]int{{0, n1, at}, {n1, n, 0}} {
		lo, hi, slot := span[0], span[1], span[2]
		if lo < hi {
			dots := kernel.Int8Scores(w.dots, keys, w.query, k.hd, slot, hi-lo)
			kernel.ExactScaleInt32(scores[lo:], 0, dots, 0, 1, qs*scale, keyScale[slot:slot+hi-lo])
		}
	}
	softmax(scores)
	kernel.Mul(scores[:n1], scores[:n1], valueScale[at:])
	kernel.Mul(scores[n1:], scores[n1:], valueScale)
	kernel.ExactValues8(o, scores[:n1], values[at*k.hd:])
	kernel.ExactValues8(o, scores[n1:], values)
}
