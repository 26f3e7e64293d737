package spinfile

import (
	"math"

	"spinnet/arch"
)

// rows is the number of a tensor's scales: tokens of an embedding, outputs of
// a mixer, outputs of a block of a linear layer.
func (t *Tensor) rows() int {
	switch t.Kind {
	case arch.MixerWeight:
		return t.Shape[2]
	case arch.Ternary:
		return t.Shape[1]
	}
	return t.Shape[0]
}

// Floats returns the tensor's values in the layout of Shape: Data itself, or
// a new slice of what Trits, Int8 or Packed stand for.
func (t *Tensor) Floats() []float32 {
	switch {
	case t.Trits != nil:
		w := make([]float32, len(t.Trits))
		rows, cols := t.Shape[1], t.Shape[2]
		for i, q := range t.Trits {
			w[i] = t.Scale[i/cols%rows] * float32(q)
		}
		return w
	case t.Int8 != nil && t.Kind == arch.MixerWeight:
		w := make([]float32, len(t.Int8))
		in, out := t.Shape[1], t.Shape[2]
		for i, q := range t.Int8 {
			block, r, c := i/(in*out), i/in%out, i%in
			w[(block*in+c)*out+r] = t.Scale[r] * float32(q)
		}
		return w
	case t.Int8 != nil || t.Packed != nil:
		w := make([]float32, t.Len())
		d := t.Shape[1]
		for i, q := range t.Expanded() {
			w[i] = t.Scale[i/d] * float32(q)
		}
		return w
	}
	return t.Data
}

// Quantize returns a model whose embeddings and head mixers are Int8, as int8
// numerics and the .spinnet file have them (SPEC §7), sharing all else with
// m. Tensors that are Int8 or Packed already stay as they are.
func (m *Model) Quantize() *Model {
	q := *m
	q.Tensors = append([]Tensor(nil), m.Tensors...)
	for i := range q.Tensors {
		t := &q.Tensors[i]
		if t.Data == nil || t.Kind != arch.Embedding && t.Kind != arch.MixerWeight {
			continue
		}
		if t.Kind == arch.Embedding {
			t.quantize8()
		} else {
			t.quantizeMixer()
		}
	}
	return &q
}

// quantize8 makes an embedding Int8, a scale a row.
func (t *Tensor) quantize8() {
	w, d := t.Floats(), t.Shape[1]
	t.Data, t.Packed, t.Bits, t.Groups = nil, nil, 0, nil
	t.Int8, t.Scale = make([]int8, len(w)), make([]float32, t.Shape[0])
	for r := range t.Scale {
		t.Scale[r] = scale8(w[r*d : (r+1)*d])
		round8(t.Int8[r*d:(r+1)*d], w[r*d:(r+1)*d], t.Scale[r])
	}
}

// quantizeMixer makes a mixer Int8, a scale an output.
func (t *Tensor) quantizeMixer() {
	w, n, in, rows := t.Data, t.Shape[0], t.Shape[1], t.Shape[2]
	t.Data, t.Int8, t.Scale = nil, make([]int8, len(w)), make([]float32, rows)
	column := make([]float32, n*in)
	for r := range rows { // an output, over all blocks
		for j := range column {
			column[j] = w[j*rows+r]
		}
		t.Scale[r] = scale8(column)
		for k := range n {
			round8(t.Int8[(k*rows+r)*in:][:in], column[k*in:(k+1)*in], t.Scale[r])
		}
	}
}

// scale8 is max|w|/127, or 1 when all are 0.
func scale8(w []float32) float32 {
	var a float32
	for _, v := range w {
		a = max(a, float32(math.Abs(float64(v))))
	}
	if a/127 == 0 {
		return 1
	}
	return a / 127
}

// round8 sets q = clamp(roundeven(w/scale), ±127).
func round8(q []int8, w []float32, scale float32) {
	for i, v := range w {
		q[i] = int8(max(-127, min(127, math.RoundToEven(float64(v/scale)))))
	}
}
