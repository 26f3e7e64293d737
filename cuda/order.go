//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"slices"

	"spinnet/tensor"
)

// order is what EmbeddingBackward reads beside the ids: the tokens by their
// ids, equal ids in the order of the tokens, and these ids. The host makes it
// when it writes the ids, mostly while the device is busy with what came before.
type order struct {
	ids    []int32 // as they were written last
	both   []int32 // tokens, then their ids
	starts []int32 // scratch: where each id begins
	addr   uintptr // of both on the device; 0 until it is asked for
}

// orderOf gives the order of ids below vocab, kept up to date from then on.
func (d *Device) orderOf(ids *tensor.Ints, vocab int) *order {
	o := d.orders[ids]
	if o == nil {
		o = &order{ids: make([]int32, ids.N)} // never written: zeros
		d.orders[ids] = o
	}
	if o.addr == 0 {
		o.starts = make([]int32, 0, vocab)
		if o.addr = d.malloc(8 * ids.N); d.err == nil {
			d.stageOrder(o)
		}
	}
	return o
}

// stageOrder sorts and copies.
func (d *Device) stageOrder(o *order) {
	if d.counting {
		return
	}
	o.sort()
	d.stage(o.addr, bytesOf(o.both))
}

// sort is a counting sort.
func (o *order) sort() {
	n := len(o.ids)
	o.both = slices.Grow(o.both[:0], 2*n)[:2*n]
	most := int32(0)
	for _, id := range o.ids {
		most = max(most, id)
	}
	o.starts = slices.Grow(o.starts[:0], int(most)+1)[:most+1]
	clear(o.starts)
	for _, id := range o.ids {
		o.starts[id]++
	}
	at := int32(0)
	for id, count := range o.starts {
		o.starts[id] = at
		at += count
	}
	tokens, ids := o.both[:n], o.both[n:]
	for token, id := range o.ids {
		to := o.starts[id]
		tokens[to], ids[to] = int32(token), id
		o.starts[id]++
	}
}
