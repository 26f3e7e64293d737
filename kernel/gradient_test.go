package kernel

import (
	"math"
	"testing"
)

// checkGradient compares the gradient got of loss() with respect to x with
// central differences.
func checkGradient(t *testing.T, name string, x, got []float32, loss func() float64) {
	t.Helper()
	const h = 1.0 / 128
	want := make([]float32, len(x))
	for i, v := range x {
		x[i] = v + h
		up := loss()
		x[i] = v - h
		down := loss()
		x[i] = v
		want[i] = float32((up - down) / (2 * h))
	}
	if e := relL2(got, want); e > 2e-3 {
		t.Errorf("%s: gradient differs from finite differences by %.2g", name, e)
	}
}

// weighted is Σ y·c in float64: a loss with gradient c.
func weighted(y, c []float32) float64 {
	var s float64
	for i, v := range y {
		s += float64(v) * float64(c[i])
	}
	return s
}

func TestRMSNormGradient(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		const rows, d = 3, 37
		x, w, dy := randomFloats(rows*d, 1), randomFloats(d, 2), randomFloats(rows*d, 3)
		y, dx, dw := make([]float32, rows*d), make([]float32, rows*d), make([]float32, d)
		RMSNormBackward(dx, dw, dy, x, w, rows, d, 1e-6, false)
		loss := func() float64 { RMSNorm(y, x, w, rows, d, 1e-6); return weighted(y, dy) }
		checkGradient(t, "x", x, dx, loss)
		checkGradient(t, "w", w, dw, loss)

		twice := append([]float32(nil), dx...)
		RMSNormBackward(twice, dw, dy, x, w, rows, d, 1e-6, true)
		refScale(dx, 2)
		if e := relL2(twice, dx); e > 1e-6 {
			t.Errorf("acc: relative error %.2g", e)
		}
	})
}

func TestSwiGLUGradient(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		const n = 101
		gate, up, dy := randomFloats(n, 1), randomFloats(n, 2), randomFloats(n, 3)
		y, dgate, dup := make([]float32, n), make([]float32, n), make([]float32, n)
		SwiGLUBackward(dgate, dup, dy, gate, up)
		loss := func() float64 { SwiGLU(y, gate, up); return weighted(y, dy) }
		checkGradient(t, "gate", gate, dgate, loss)
		checkGradient(t, "up", up, dup, loss)
	})
}

func TestRoPEGradient(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		const batch, T, heads, hd = 2, 5, 3, 22
		cos, sin := RoPETable(T+3, hd)
		x, dy := randomFloats(batch*T*heads*hd, 1), randomFloats(batch*T*heads*hd, 2)
		dx := append([]float32(nil), dy...)
		RoPE(dx, batch*T, heads, hd, 3, T, cos, sin, true)
		checkGradient(t, "x", x, dx, func() float64 {
			y := append([]float32(nil), x...)
			RoPE(y, batch*T, heads, hd, 3, T, cos, sin, false)
			return weighted(y, dy)
		})
	})
}

var attentionShapes = []AttentionShape{
	{Batch: 2, T: 7, Heads: 4, KVHeads: 2, HeadDim: 6, Dropout: 0.3, Seed: 5, Step: 7, Layer: 1},
	{Batch: 1, T: 19, Heads: 3, KVHeads: 3, HeadDim: 8},
	{Batch: 1, T: 9, Heads: 3, KVHeads: 1, HeadDim: 10},
}

func TestAttentionGradient(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		p := testPool(t, 2)
		for _, s := range attentionShapes {
			nq, nk := s.Batch*s.T*s.Heads*s.HeadDim, s.Batch*s.T*s.KVHeads*s.HeadDim
			q, k, v, do := randomFloats(nq, 1), randomFloats(nk, 2), randomFloats(nk, 3), randomFloats(nq, 4)
			o, lse := make([]float32, nq), make([]float32, s.Batch*s.Heads*s.T)
			dq, dk, dv := randomFloats(nq, 5), randomFloats(nk, 6), randomFloats(nk, 7)
			loss := func() float64 { AttentionForward(p, o, lse, q, k, v, s); return weighted(o, do) }
			loss()
			AttentionBackward(p, dq, dk, dv, do, o, lse, q, k, v, s)
			checkGradient(t, "q", q, dq, loss)
			checkGradient(t, "k", k, dk, loss)
			checkGradient(t, "v", v, dv, loss)
		}
	})
}

func TestCrossEntropyGradient(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		p := testPool(t, 2)
		const m, vocab, d, scale = 11, 13, 9, 0.25
		h, e := randomFloats(m*d, 1), randomFloats(vocab*d, 2)
		targets := make([]int32, m)
		for i := range targets {
			targets[i] = int32(i*5%vocab) - 1
		}
		targets[3] = -1
		losses, dh, de := make([]float32, m), randomFloats(m*d, 3), make([]float32, vocab*d)
		CrossEntropyForwardBackward(p, losses, dh, de, h, e, targets, m, vocab, d, scale)
		if losses[3] != 0 || losses[0] != 0 {
			t.Errorf("ignored targets have losses %v, %v", losses[0], losses[3])
		}
		again := make([]float32, m)
		loss := func() float64 {
			CrossEntropyForward(p, again, h, e, targets, m, vocab, d)
			var s float64
			for _, v := range again {
				s += float64(v)
			}
			return s * scale
		}
		loss()
		if e := relL2(again, losses); e != 0 {
			t.Errorf("losses differ by %.2g", e)
		}
		checkGradient(t, "h", h, dh, loss)
		checkGradient(t, "e", e, de, loss)

		// Against float64.
		for i, target := range targets {
			if target < 0 {
				continue
			}
			var sum, at float64
			for j := range vocab {
				l := weighted(h[i*d:i*d+d], e[j*d:j*d+d])
				sum += math.Exp(l)
				if j == int(target) {
					at = l
				}
			}
			if want := math.Log(sum) - at; math.Abs(float64(losses[i])-want) > 2e-6*(1+want) {
				t.Errorf("loss %d: got %v, want %v", i, losses[i], want)
			}
		}
	})
}
