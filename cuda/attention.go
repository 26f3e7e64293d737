//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"slices"

	"spinnet/tensor"
)

// attentionWidths are the head widths that kernels are compiled for; a
// narrower head uses the least that holds it.
var attentionWidths = [...]attentionKernels{
	{32, attentionForward32, attentionDQ32, attentionDKV32, 128, 128, 128, 30720, 30720, 41984},
	{64, attentionForward64, attentionDQ64, attentionDKV64, 128, 128, 128, 55296, 55296, 74752},
	{96, attentionForward96, attentionDQ96, attentionDKV96, 128, 128, 64, 79872, 79872, 80896},
	{128, attentionForward128, attentionDQ128, attentionDKV128, 128, 64, 64, 69632, 69632, 70144},
}

type attentionKernels struct {
	width                                 int
	forward, dq, dkv                      kernelID
	rows, queries, keys                   int // a block of the forward, of dq, of dkv
	sharedForward, sharedQuery, sharedKey int
}

// hopperWidths are the widths of heads that attention90.cu is compiled for.
var hopperWidths = [...]attentionKernels{
	{32, attention90Forward32, attention90DQ32, attention90DKV32, 64, 64, 64, 41 << 10, 49 << 10, 51 << 10},
	{64, attention90Forward64, attention90DQ64, attention90DKV64, 64, 64, 64, 41 << 10, 49 << 10, 51 << 10},
	{96, attention90Forward96, attention90DQ96, attention90DKV96, 64, 64, 64, 81 << 10, 97 << 10, 67 << 10},
	{128, attention90Forward128, attention90DQ128, attention90DKV128, 64, 64, 64, 81 << 10, 97 << 10, 67 << 10},
}

// attentionOf gives the kernels for a head.
func (d *Device) attentionOf(headDim int) *attentionKernels {
	if d.info.Major == 9 {
		for i, w := range hopperWidths {
			if headDim == w.width {
				return &hopperWidths[i]
			}
		}
	}
	if err := Trains(headDim); err != nil {
		if d.err == nil {
			d.err = err
		}
		headDim = maxHeadDim
	}
	return &attentionWidths[slices.IndexFunc(attentionWidths[:], func(w attentionKernels) bool { return headDim <= w.width })]
}

// dropMask draws the bits of dropout anew, in the forward and in the backward
// alike; it gives NULL and 1 without dropout.
func (d *Device) dropMask(a tensor.Attention) (mask uintptr, keep float32) {
	if a.Dropout <= 0 {
		return 0, 1
	}
	words := per(a.T, 32)
	mask = d.need(scratchMask, 4*a.Batch*a.Heads*a.T*words)
	threshold := uint32(min(float64(a.Dropout)*(1<<32), 1<<32-1))
	d.launch(attentionMask, grid{x: per(words, 8), y: words, z: a.Batch * a.Heads, threads: 256}, uint64(mask), uint64(d.numbers+numberStep), a.Seed,
		i32(a.Layer), uint64(threshold), i32(a.T))
	return mask, 1 / (1 - a.Dropout)
}

// RotaryAttention rotates q and k, then attends. The products that make q and k
// rotate them if they can; else rope does k, the attention q.
func (d *Device) RotaryAttention(o, lse, q, k, v *tensor.Tensor, rot *tensor.Rotation, a tensor.Attention) {
	cos, sin := rot.Cos.Addr, rot.Sin.Addr
	if l := d.pending.linear; l != nil && l.ys[0] == q && l.ys[1] == k && d.rotates(*l, a.HeadDim) {
		d.join()
		d.pending = pending{}
		d.linear(*l, rotary{cos, sin, a.T, 2})
		cos, sin = 0, 0
	}
	d.flush()
	w := d.attentionOf(a.HeadDim)
	qRow, kRow := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	rows, piece := a.Batch*a.T, 2
	if a.HeadDim%8 == 0 {
		piece = 8
	}
	if cos != 0 {
		d.launch(rope, grid{x: per(rows*a.KVHeads*(a.HeadDim/piece), 256), threads: 256}, uint64(q.Addr), uint64(k.Addr),
			uint64(cos), uint64(sin), i32(rows), i32(a.T), 0, i32(a.KVHeads), i32(a.HeadDim),
			i32(qRow), i32(a.HeadDim), i32(kRow), i32(a.HeadDim))
	}
	mask, keep := d.dropMask(a)
	d.launch(w.forward, grid{x: per(a.T, w.rows), y: a.Heads, z: a.Batch, threads: 128, shared: w.sharedForward},
		uint64(o.Addr), uint64(lse.Addr), uint64(q.Addr), uint64(k.Addr), uint64(v.Addr), uint64(cos), uint64(sin),
		uint64(mask), f32(keep), i32(a.T), i32(a.Heads), i32(a.KVHeads), i32(a.HeadDim), i32(qRow), i32(a.HeadDim), i32(kRow), i32(a.HeadDim))
}

// RotaryAttentionBackward is its gradient.
func (d *Device) RotaryAttentionBackward(dq, dk, dv, do, o, lse, q, k, v *tensor.Tensor, rot *tensor.Rotation, a tensor.Attention) {
	d.proceed()
	w := d.attentionOf(a.HeadDim)
	qRow, kRow := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	delta := d.need(scratchDelta, 4*a.Batch*a.Heads*a.T)
	mask, keep := d.dropMask(a)
	d.launch(w.dq, grid{x: per(a.T, w.queries), y: a.Heads, z: a.Batch, threads: 128, shared: w.sharedQuery},
		uint64(dq.Addr), uint64(delta), uint64(do.Addr), uint64(o.Addr), uint64(lse.Addr), uint64(q.Addr), uint64(k.Addr), uint64(v.Addr),
		uint64(rot.Cos.Addr), uint64(rot.Sin.Addr), uint64(mask), f32(keep), i32(a.T), i32(a.Heads), i32(a.KVHeads), i32(a.HeadDim),
		i32(qRow), i32(a.HeadDim), i32(kRow), i32(a.HeadDim))
	d.launch(w.dkv, grid{x: per(a.T, w.keys), y: a.KVHeads, z: a.Batch, threads: 128, shared: w.sharedKey},
		uint64(dk.Addr), uint64(dv.Addr), uint64(do.Addr), uint64(delta), uint64(lse.Addr), uint64(q.Addr), uint64(k.Addr), uint64(v.Addr),
		uint64(rot.Cos.Addr), uint64(rot.Sin.Addr), uint64(mask), f32(keep), i32(a.T), i32(a.Heads), i32(a.KVHeads), i32(a.HeadDim),
		i32(qRow), i32(a.HeadDim), i32(kRow), i32(a.HeadDim))
}
