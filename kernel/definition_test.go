package kernel

import (
	"math"
	"math/cmplx"
	"testing"
)

// The row kernels against their formulas in float64.

func TestRMSNorm(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		for _, d := range []int{1, 2, 7, 15, 16, 17, 33, 64, 128, 171, 512} {
			const rows = 3
			x, w := randomFloats(rows*d, 1), randomFloats(d, 2)
			clear(x[:d]) // a row of zeros stays one
			y, check := guarded(t, rows*d)
			RMSNorm(y, x, w, rows, d, 1e-6)
			check()
			want := make([]float32, rows*d)
			for r := range rows {
				row := x[r*d : r*d+d]
				s := 1 / math.Sqrt(weighted(row, row)/float64(d)+1e-6)
				for i, v := range row {
					want[r*d+i] = float32(float64(v) * s * float64(w[i]))
				}
			}
			if e := relL2(y, want); e > 3*eps32 {
				t.Errorf("width %d: relative error %.2g", d, e)
			}
		}
	})
}

func TestRoPE(t *testing.T) {
	const positions, rows, period, pos0 = 40, 12, 5, 30
	eachSet(t, func(t *testing.T) {
		for _, hd := range []int{2, 8, 16, 22, 64, 86, 128} {
			for _, heads := range []int{1, 3} {
				cos, sin := RoPETable(positions, hd)
				x := randomFloats(rows*heads*hd, 1)
				got, check := guarded(t, len(x))
				copy(got, x)
				RoPE(got, rows, heads, hd, pos0, period, cos, sin, false)
				check()
				want := make([]float32, len(x))
				for i := 0; i < len(x); i += 2 {
					p := float64(pos0 + i/(heads*hd)%period)
					angle := p * math.Pow(10000, -float64(i%hd)/float64(hd))
					z := complex(float64(x[i]), float64(x[i+1])) * cmplx.Rect(1, angle)
					want[i], want[i+1] = float32(real(z)), float32(imag(z))
				}
				if e := relL2(got, want); e > 2*eps32 {
					t.Errorf("head width %d: relative error %.2g", hd, e)
				}
				RoPE(got, rows, heads, hd, pos0, period, cos, sin, true)
				if e := relL2(got, x); e > 4*eps32 {
					t.Errorf("head width %d, there and back: relative error %.2g", hd, e)
				}
			}
		}
	})
}

func TestSwiGLU(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		gate := append(randomFloats(200, 1), 0, -20, -80, -100, -1000, 20, 80, 100, 1000)
		up := randomFloats(len(gate), 2)
		y := make([]float32, len(gate))
		SwiGLU(y, gate, up)
		for i, g := range gate {
			want := float64(g) / (1 + math.Exp(-float64(g))) * float64(up[i])
			if math.Abs(float64(y[i])-want) > 4*eps32*math.Abs(want)+1e-36 {
				t.Errorf("gate %v, up %v: got %v, want %v", g, up[i], y[i], want)
			}
		}
	})
}

func TestSoftmaxRow(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		for _, n := range []int{1, 2, 15, 16, 17, 100, 5000} {
			x := randomFloats(n, 1)
			Scale(x, 5)
			x[n/2] += 200 // no overflow
			want := make([]float32, n)
			var sum float64
			top := float64(refMaxOf(x))
			for _, v := range x {
				sum += math.Exp(float64(v) - top)
			}
			for i, v := range x {
				want[i] = float32(math.Exp(float64(v)-top) / sum)
			}
			m, lse := SoftmaxRow(x)
			if float64(m) != top || math.Abs(float64(lse)-top-math.Log(sum)) > 2e-5 {
				t.Errorf("%d: got max %v, logsumexp %v; want %v, %v", n, m, lse, top, top+math.Log(sum))
			}
			if e := relL2(x, want); e > 8*eps32 {
				t.Errorf("%d: relative error %.2g", n, e)
			}
		}
	})
}

// AdamW as torch.optim.AdamW does it, in float64, over several steps.
func TestAdamW(t *testing.T) {
	const n, lr, beta1, beta2, eps, wd, clip = 37, 1e-2, 0.9, 0.95, 1e-8, 0.1, 0.5
	eachSet(t, func(t *testing.T) {
		w, m, v := randomFloats(n, 1), make([]float32, n), make([]float32, n)
		var want, wm, wv [n]float64
		for i := range w {
			want[i] = float64(w[i])
		}
		for step := 1; step <= 5; step++ {
			g := randomFloats(n, uint64(10+step))
			c1, c2 := 1-math.Pow(beta1, float64(step)), 1-math.Pow(beta2, float64(step))
			AdamW(w, g, m, v, lr, beta1, beta2, eps, wd, float32(c1), float32(c2), clip)
			for i := range want {
				d := float64(g[i]) * clip
				wm[i] = beta1*wm[i] + (1-beta1)*d
				wv[i] = beta2*wv[i] + (1-beta2)*d*d
				want[i] *= 1 - lr*wd
				want[i] -= lr / c1 * wm[i] / (math.Sqrt(wv[i])/math.Sqrt(c2) + eps)
			}
		}
		for i := range w {
			if math.Abs(float64(w[i])-want[i]) > 2e-6 {
				t.Errorf("weight %d: got %v, want %v", i, w[i], want[i])
			}
		}
	})
}

func TestEmbedding(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		const d = 19
		table, ids := randomFloats(7*d, 1), []int32{3, 0, 6, 3, 3}
		y := make([]float32, len(ids)*d)
		EmbeddingGather(y, table, ids, d)
		dtable, check := guarded(t, 7*d)
		clear(dtable)
		EmbeddingScatterAdd(dtable, y, ids, d)
		check()
		for r, times := range []float32{1, 0, 0, 3, 0, 0, 1} {
			for c := range d {
				if got, want := dtable[r*d+c], times*table[r*d+c]; math.Abs(float64(got-want)) > 1e-6 {
					t.Errorf("row %d, column %d: got %v, want %v", r, c, got, want)
				}
			}
		}
		for i, id := range ids {
			if y[i*d+d-1] != table[int(id)*d+d-1] {
				t.Errorf("row %d is not row %d of the table", i, id)
			}
		}
	})
}

// Reductions add in float64: what float32 would lose counts.
func TestSumsKeepSmallTerms(t *testing.T) {
	x := make([]float32, 1<<16)
	for i := range x {
		x[i] = 1e-4
	}
	x[0] = 1e2
	eachSet(t, func(t *testing.T) {
		if got, want := SumSquares(x), 1e4+65535e-8; math.Abs(got-want) > 1e-6 {
			t.Errorf("SumSquares: got %v, want %v", got, want)
		}
		if got, want := AbsSum(x), 1e2+6.5535; math.Abs(got-want) > 1e-6 {
			t.Errorf("AbsSum: got %v, want %v", got, want)
		}
	})
}
