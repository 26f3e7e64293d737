//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"fmt"
	"unsafe"

	"spinnet/algebra"
	"spinnet/arch"
	"spinnet/engine"
	"spinnet/spinfile"
)

// The structs of decode_types.cuh, field by field. Addresses that begin as
// offsets into the session's weights are moved by packed.place.

type decodeLinear struct {
	w, gain uint64
	n, k    int32 // widths of a part: outputs and inputs
}

type decodeCache struct{ keys, values, keyScale, valueScale uint64 }

type decodeLayer struct {
	attentionNorm, ffnNorm            uint64
	q, k, v, o, gate, up, down, mixer decodeLinear
	cache                             decodeCache
	minus                             [16]uint32
}

type decodeTable struct {
	data, high, factor, scale uint64
	bits                      int64
}

type decodeHeads struct {
	heads, kvHeads, hd, ring, block int32
	scale                           float32
}

type decodeModel struct {
	layers, norm              uint64
	embedding                 decodeTable
	x, scale, state           uint64
	minus                     [16]uint32
	nLayer, d, hidden, mixerN int32
	heads                     decodeHeads
	eps                       float32
	fake8                     int32
	area                      [2]int32 // bytes of shared memory for keys and values
}

// How a linear layer's weights are stored (decode.cuh).
type weightForm int

const (
	formTernary weightForm = iota
	formBytes
	formFloats
)

// packed is a model's weights in the layout of the kernels, in one piece, with
// addresses as offsets from its start plus one, so that 0 is none.
type packed struct {
	bytes             []byte
	layers            []decodeLayer
	dims              []int // of each layer's algebra
	form              weightForm
	embedding, output decodeTable
	norm              uint64
	minus             [16]uint32 // of the mixer
}

// add appends memory and gives its address.
func (p *packed) add(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	for len(p.bytes)%256 != 0 {
		p.bytes = append(p.bytes, 0)
	}
	at := len(p.bytes)
	p.bytes = append(p.bytes, b...)
	return uint64(at) + 1
}

// pack arranges a model for a numeric.
func pack(m *spinfile.Model, numeric string) (*packed, error) {
	c := &m.Config
	p := &packed{layers: make([]decodeLayer, c.NLayer), dims: make([]int, c.NLayer)}
	if c.Quantizer == arch.None {
		if p.form = formFloats; numeric == engine.Int8 {
			p.form = formBytes
		}
	}
	if numeric == engine.Int8 {
		m = m.Quantize()
	}
	p.embedding = p.table(m.Tensor("tok_embeddings.weight"))
	p.output = p.embedding
	if t := m.Tensor(arch.OutputName); t != nil {
		p.output = p.table(t)
	}
	p.norm = p.add(bytesOf(m.Tensor("norm.weight").Data))
	for i := range p.layers {
		l, pre := &p.layers[i], fmt.Sprintf("layers.%d.", i)
		alg, err := algebra.ByName(c.LayerAlgebra(i))
		if err != nil {
			return nil, err
		}
		l.minus, p.dims[i] = minusBits(alg), alg.N
		l.attentionNorm, l.ffnNorm = p.add(bytesOf(m.Tensor(pre+"attention_norm.weight").Data)), p.add(bytesOf(m.Tensor(pre+"ffn_norm.weight").Data))
		for _, w := range []struct {
			to   *decodeLinear
			name string
		}{
			{&l.q, "attention.wq"}, {&l.k, "attention.wk"}, {&l.v, "attention.wv"}, {&l.o, "attention.wo"},
			{&l.gate, "feed_forward.gate_proj"}, {&l.up, "feed_forward.up_proj"}, {&l.down, "feed_forward.down_proj"},
		} {
			*w.to = p.linear(m.Tensor(pre + w.name + ".weight"))
		}
		if c.OctonionAttention {
			alg, err := algebra.ByName(c.MixerAlgebra)
			if err != nil {
				return nil, err
			}
			p.minus = minusBits(alg)
			l.mixer = p.mixer(m.Tensor(pre+"attention.head_mixer.W"), m.Tensor(pre+"attention.head_mixer.beta").Data, numeric)
		}
	}
	return p, nil
}

// place turns offsets into addresses of memory at base.
func (p *packed) place(base uintptr) {
	move := func(addrs ...*uint64) {
		for _, a := range addrs {
			if *a != 0 {
				*a += uint64(base) - 1
			}
		}
	}
	for i := range p.layers {
		l := &p.layers[i]
		move(&l.attentionNorm, &l.ffnNorm)
		for _, w := range []*decodeLinear{&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down, &l.mixer} {
			move(&w.w, &w.gain)
		}
	}
	for _, t := range []*decodeTable{&p.embedding, &p.output} {
		move(&t.data, &t.high, &t.factor, &t.scale)
	}
	move(&p.norm)
}

// minusBits are the signs of Layer.
func minusBits(t *algebra.Table) (bits [16]uint32) {
	for k := range t.N {
		for j := range t.N {
			if t.Sign[k^j][j] < 0 {
				bits[k] |= 1 << j
			}
		}
	}
	return bits
}

// table packs an embedding as it is.
func (p *packed) table(t *spinfile.Tensor) decodeTable {
	switch {
	case t.Packed != nil:
		low, high := t.Planes()
		return decodeTable{data: p.add(low), high: p.add(high), factor: p.add(t.Groups), scale: p.add(bytesOf(t.Scale)), bits: int64(t.Bits)}
	case t.Int8 != nil:
		return decodeTable{data: p.add(bytesOf(t.Int8)), scale: p.add(bytesOf(t.Scale)), bits: 8}
	}
	return decodeTable{data: p.add(bytesOf(t.Data)), bits: 32}
}

// words is the number of words of a row's block.
func words(cols int) int { return (cols + 15) / 16 }

// linear packs a linear layer's weights [n, N, K].
func (p *packed) linear(t *spinfile.Tensor) decodeLinear {
	n, rows, cols := t.Shape[0], t.Shape[1], t.Shape[2]
	l := decodeLinear{n: int32(rows), k: int32(cols)}
	switch p.form {
	case formTernary:
		w := make([]uint32, rows*n*words(cols))
		for i := range w {
			w[i] = 0x55555555 // zeros
		}
		inRows(n, rows, cols, func(from, to int) {
			for c, v := range t.Trits[from : from+cols] {
				w[to+c/16] += uint32(int32(v)) << (c%4*8 + c%16/4*2) // 1 is there already
			}
		})
		l.w, l.gain = p.add(bytesOf(w)), p.add(bytesOf(t.Scale))
	case formBytes:
		w, gain := engine.RoundWeight(t)
		l.w, l.gain = p.add(bytesOf(padRows(w, n, rows, cols))), p.add(bytesOf(gain))
	case formFloats:
		l.w = p.add(bytesOf(padRows(t.Data, n, rows, cols)))
	}
	return l
}

// mixer packs a head mixer: rows are outputs.
func (p *packed) mixer(t *spinfile.Tensor, beta []float32, numeric string) decodeLinear {
	n, in, out := t.Shape[0], t.Shape[1], t.Shape[2]
	l := decodeLinear{n: int32(out), k: int32(in)}
	if numeric == engine.Int8 {
		gain := make([]float32, out)
		for r := range gain {
			gain[r] = t.Scale[r] * beta[r]
		}
		l.w, l.gain = p.add(bytesOf(padRows(t.Int8, n, out, in))), p.add(bytesOf(gain))
		return l
	}
	w, turned := t.Floats(), make([]float32, n*in*out)
	for k := range n {
		for c := range in {
			for r := range out {
				turned[(k*out+r)*in+c] = w[(k*in+c)*out+r]
			}
		}
	}
	l.w, l.gain = p.add(bytesOf(padRows(turned, n, out, in))), p.add(bytesOf(beta))
	return l
}

// inRows calls f for every row of weights [n, rows, cols]: it begins at value
// from there, and at word to in the kernels' [rows][n][words].
func inRows(n, rows, cols int, f func(from, to int)) {
	for k := range n {
		for r := range rows {
			f((k*rows+r)*cols, (r*n+k)*words(cols))
		}
	}
}

// padRows is weights [n, rows, cols] as [rows][n][16·words].
func padRows[T any](w []T, n, rows, cols int) []T {
	to := make([]T, rows*n*words(cols)*16)
	inRows(n, rows, cols, func(from, at int) { copy(to[16*at:], w[from:from+cols]) })
	return to
}

// wordsOf is a struct of the kernels as parameter words.
func wordsOf[T any](s *T) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(s)), unsafe.Sizeof(*s)/8)
}
