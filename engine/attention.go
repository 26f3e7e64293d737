package engine

import (
	"math"

	"spinnet/kernel"
)

// attentionTask is causal attention of a chunk's rows over the cache: item i
// is row i / NKVHead and key-value head i mod NKVHead, with the query heads
// that share it.
type attentionTask struct {
	s     *Session
	layer int
}

// Do computes o = softmax(q·Kᵀ/√head_dim)·V for one row and key-value head
// over the last block_size positions, in ascending order: the ring is read
// in two pieces, up to its end and from its start.
func (t *attentionTask) Do(item, worker int) {
	s := t.s
	c := &s.e.config
	row, g := item/c.NKVHead, item%c.NKVHead
	hd := c.HeadDim()
	p := s.pos + row
	first := max(0, p-c.BlockSize+1)
	n := p - first + 1
	at := first % s.ring
	n1 := min(n, s.ring-at) // positions before the ring's end
	keys := s.keys[t.layer][g*hd*s.ring : (g+1)*hd*s.ring]
	values := s.values[t.layer][g*hd*s.ring : (g+1)*hd*s.ring]
	scores := s.scores[worker][:n]
	scale := float32(1 / math.Sqrt(float64(hd)))
	share := c.NHead / c.NKVHead
	for head := g * share; head < (g+1)*share; head++ {
		q := s.q[row*c.NEmbd+head*hd:][:hd]
		o := s.o[row*c.NEmbd+head*hd:][:hd]
		clear(scores)
		for ch, x := range q {
			k := keys[ch*s.ring : (ch+1)*s.ring]
			kernel.Axpy(scores[:n1], x*scale, k[at:at+n1])
			if n1 < n {
				kernel.Axpy(scores[n1:], x*scale, k[:n-n1])
			}
		}
		kernel.SoftmaxRow(scores)
		clear(o)
		for j, w := range scores {
			slot := at + j
			if slot >= s.ring {
				slot -= s.ring
			}
			kernel.Axpy(o, w, values[slot*hd:][:hd])
		}
	}
}
