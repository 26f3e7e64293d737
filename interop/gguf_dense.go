package interop

import (
	"spinnet/algebra"
	"spinnet/arch"
	"spinnet/spinfile"
)

// matrix is a weight as another program multiplies with it: rows of outputs,
// computed one at a time, because a hypercomplex weight written out is n
// times as large as it is in memory.
type matrix struct {
	rows, width int
	vector      bool // one row, and in the file without its dimension

	// row sets dst, of width values, to a row. Those of a ternary matrix are
	// −1, 0 and +1 times its scale.
	row   func(dst []float32, r int)
	scale func(r int) float32 // of a ternary matrix, else nil

	// int8s gives a row as integers times one factor. It is nil, and gives
	// nil, where the model does not have it so.
	int8s func(r int) ([]int8, float32)
}

// linearMatrix writes out a linear layer (SPEC §1): row i·N+r is
// D[(i·N+r), (j·K+c)] = s[i][j] · W[i xor j][r][c].
func linearMatrix(t *spinfile.Tensor) (*matrix, error) {
	table, err := algebra.ByName(t.Algebra)
	if err != nil {
		return nil, err
	}
	n, outs, ins := t.Shape[0], t.Shape[1], t.Shape[2]
	m := &matrix{rows: n * outs, width: n * ins}
	if t.Trits != nil {
		m.scale = func(r int) float32 { return t.Scale[r%outs] }
	}
	m.row = func(dst []float32, r int) {
		i, r := r/outs, r%outs
		for j := range n {
			s := float32(table.Sign[i][j])
			at := ((i^j)*outs + r) * ins
			y := dst[j*ins : (j+1)*ins]
			if t.Trits == nil {
				for c, w := range t.Data[at : at+ins] {
					y[c] = s * w
				}
				continue
			}
			s *= t.Scale[r]
			for c, q := range t.Trits[at : at+ins] {
				y[c] = s * float32(q)
			}
		}
	}
	return m, nil
}

// mixedMatrix gives wo·M, which is what the heads' outputs go through together:
// a mixer followed by the output projection. In a group of heads the mixer is
//
//	y_i[e] = beta[e] · Σ_j Σ_c s[i][j] · x_j[c] · W[i xor j][c][e]
//
// (SPEC §2), so column (j, c) of wo·M is
//
//	Σ_i Σ_e wo[(i, e)] · beta[e] · s[i][j] · W[i xor j][c][e].
//
// Sums are in float64; only the result is rounded.
func mixedMatrix(wo *matrix, mixer, beta *spinfile.Tensor) (*matrix, error) {
	table, err := algebra.ByName(mixer.Algebra)
	if err != nil {
		return nil, err
	}
	n, hd := mixer.Shape[0], mixer.Shape[1]
	w := mixer.Floats()
	columns := make([]float64, len(w)) // [n][e][c]: beta[e]·W[k][c][e], so that the inner loop runs along a row
	for k := range n {
		for c := range hd {
			for e := range hd {
				columns[(k*hd+e)*hd+c] = float64(beta.Data[e]) * float64(w[(k*hd+c)*hd+e])
			}
		}
	}
	in, sum := make([]float32, wo.width), make([]float64, wo.width)
	row := func(dst []float32, r int) {
		wo.row(in, r)
		clear(sum)
		for group := 0; group < wo.width; group += n * hd {
			for i := range n {
				for e := range hd {
					a := float64(in[group+i*hd+e])
					if a == 0 {
						continue
					}
					for j := range n {
						s := a * float64(table.Sign[i][j])
						x := columns[((i^j)*hd+e)*hd:][:hd]
						y := sum[group+j*hd:][:hd]
						for c, v := range x {
							y[c] += s * v
						}
					}
				}
			}
		}
		for c, v := range sum {
			dst[c] = float32(v)
		}
	}
	return &matrix{rows: wo.rows, width: wo.width, row: row}, nil
}

// tableMatrix gives an embedding or an output table, one row a token.
func tableMatrix(t *spinfile.Tensor) *matrix {
	rows, d := t.Shape[0], t.Shape[1]
	m := &matrix{rows: rows, width: d}
	ints := t.Expanded()
	if ints == nil {
		m.row = func(dst []float32, r int) { copy(dst, t.Data[r*d:]) }
		return m
	}
	m.int8s = func(r int) ([]int8, float32) { return ints[r*d : (r+1)*d], t.Scale[r] }
	m.row = func(dst []float32, r int) {
		q, scale := m.int8s(r)
		for c, v := range q {
			dst[c] = scale * float32(v)
		}
	}
	return m
}

// normMatrix gives a norm's weight as one row.
func normMatrix(t *spinfile.Tensor) *matrix {
	return &matrix{rows: 1, width: len(t.Data), vector: true, row: func(dst []float32, _ int) { copy(dst, t.Data) }}
}

// llamaNames are the names that llama.cpp gives the parameters of a layer.
var llamaNames = map[string]string{
	"attention_norm.weight":         "attn_norm.weight",
	"attention.wq.weight":           "attn_q.weight",
	"attention.wk.weight":           "attn_k.weight",
	"attention.wv.weight":           "attn_v.weight",
	"attention.wo.weight":           "attn_output.weight",
	"ffn_norm.weight":               "ffn_norm.weight",
	"feed_forward.gate_proj.weight": "ffn_gate.weight",
	"feed_forward.up_proj.weight":   "ffn_up.weight",
	"feed_forward.down_proj.weight": "ffn_down.weight",
	"tok_embeddings.weight":         "token_embd.weight",
	"norm.weight":                   "output_norm.weight",
	arch.OutputName:                 "output.weight",
}
