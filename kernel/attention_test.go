package kernel

import (
	"math"
	"testing"
)

var attentionCases = []AttentionShape{
	{Batch: 2, T: 1, Heads: 2, KVHeads: 1, HeadDim: 8},
	{Batch: 2, T: 7, Heads: 4, KVHeads: 2, HeadDim: 6, Dropout: 0.3, Seed: 5, Step: 7, Layer: 1},
	{Batch: 1, T: 33, Heads: 3, KVHeads: 3, HeadDim: 16},
	{Batch: 1, T: 64, Heads: 2, KVHeads: 2, HeadDim: 16, Dropout: 0.1, Seed: 1},
	{Batch: 2, T: 57, Heads: 4, KVHeads: 1, HeadDim: 86},
	{Batch: 1, T: 113, Heads: 2, KVHeads: 1, HeadDim: 64, Dropout: 0.5},
	{Batch: 1, T: 200, Heads: 1, KVHeads: 1, HeadDim: 128},
	{Batch: 3, T: 31, Heads: 1, KVHeads: 1, HeadDim: 2},
}

// attentionData are the operands of one attention.
type attentionData struct{ q, k, v, do, o, lse, dq, dk, dv []float32 }

func newAttentionData(s AttentionShape) *attentionData {
	nq, nk := s.Batch*s.T*s.Heads*s.HeadDim, s.Batch*s.T*s.KVHeads*s.HeadDim
	return &attentionData{randomFloats(nq, 1), randomFloats(nk, 2), randomFloats(nk, 3), randomFloats(nq, 4),
		randomFloats(nq, 5), make([]float32, s.Batch*s.Heads*s.T), randomFloats(nq, 6), randomFloats(nk, 7), randomFloats(nk, 8)}
}

func (d *attentionData) run(p *Pool, s AttentionShape) {
	AttentionForward(p, d.o, d.lse, d.q, d.k, d.v, s)
	AttentionBackward(p, d.dq, d.dk, d.dv, d.do, d.o, d.lse, d.q, d.k, d.v, s)
}

// runRef does the same by the definitions.
func (d *attentionData) runRef(s AttentionShape) {
	clear(d.dk)
	clear(d.dv)
	for b := range s.Batch {
		for h := range s.Heads {
			refAttentionForward(d.o, d.lse, d.q, d.k, d.v, &s, b, h)
			refAttentionBackward(d.dq, d.dk, d.dv, d.do, d.o, d.lse, d.q, d.k, d.v, &s, b, h)
		}
	}
}

func (d *attentionData) results() map[string][]float32 {
	return map[string][]float32{"o": d.o, "lse": d.lse, "dq": d.dq, "dk": d.dk, "dv": d.dv}
}

func TestAttention(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		p := testPool(t, 2)
		for _, s := range attentionCases {
			got, want := newAttentionData(s), newAttentionData(s)
			var checks []func()
			for _, x := range []*[]float32{&got.o, &got.lse, &got.dq, &got.dk, &got.dv} {
				inside, check := guarded(t, len(*x))
				*x = inside
				checks = append(checks, check)
			}
			got.run(p, s)
			want.runRef(s)
			for _, check := range checks {
				check()
			}
			w := want.results()
			for name, g := range got.results() {
				if s.T == 1 && (name == "dq" || name == "dk") {
					// A softmax of one is constant: what is left is rounding.
					if m := refMaxAbs(g); m > 3e-6 {
						t.Errorf("%+v: %s is up to %.2g, want 0", s, name, m)
					}
				} else if e := relL2(g, w[name]); e > 3e-6 {
					t.Errorf("%+v: %s has relative error %.2g", s, name, e)
				}
			}
		}
	})
}

func TestAttentionSameForAnyThreads(t *testing.T) { eachSet(t, attentionSameForAnyThreads) }

func attentionSameForAnyThreads(t *testing.T) {
	s := AttentionShape{Batch: 3, T: 70, Heads: 4, KVHeads: 2, HeadDim: 16, Dropout: 0.2, Seed: 9}
	want := newAttentionData(s)
	want.run(testPool(t, 1), s)
	for _, threads := range []int{2, 5} {
		got := newAttentionData(s)
		got.run(testPool(t, threads), s)
		for name, w := range want.results() {
			for i, v := range got.results()[name] {
				if math.Float32bits(v) != math.Float32bits(w[i]) {
					t.Fatalf("%s[%d] differs between 1 and %d threads", name, i, threads)
				}
			}
		}
	}
}

// An output must not depend on later positions. Within a tile of rows that
// holds for finite values only: they are multiplied by weights of 0.
func TestAttentionIsCausal(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		p := testPool(t, 1)
		const first = 20 // of the positions that differ
		s := AttentionShape{Batch: 1, T: 50, Heads: 1, KVHeads: 1, HeadDim: 16}
		a := newAttentionData(s)
		AttentionForward(p, a.o, a.lse, a.q, a.k, a.v, s)
		for _, c := range []struct {
			k, v float64
			same int // positions that may not change
		}{
			{1e6, -1e30, first},
			{math.NaN(), math.Inf(1), first / tiles().rows * tiles().rows},
		} {
			b := newAttentionData(s)
			for i := first * s.HeadDim; i < s.T*s.HeadDim; i++ {
				b.k[i], b.v[i] = float32(c.k), float32(c.v)
			}
			AttentionForward(p, b.o, b.lse, b.q, b.k, b.v, s)
			for i := range c.same * s.HeadDim {
				if a.o[i] != b.o[i] {
					t.Fatalf("keys %v, values %v: position %d depends on position %d or later", c.k, c.v, i/s.HeadDim, first)
				}
			}
		}
	})
}

func TestAttentionAllocatesNothing(t *testing.T) {
	p := testPool(t, 2)
	s := AttentionShape{Batch: 2, T: 40, Heads: 4, KVHeads: 2, HeadDim: 16, Dropout: 0.1}
	d := newAttentionData(s)
	d.run(p, s)
	if got := testing.AllocsPerRun(10, func() { d.run(p, s) }); got > 0 {
		t.Errorf("%v allocations a run, want 0", got)
	}
}

func BenchmarkAttention(b *testing.B) {
	for _, c := range []struct {
		name string
		s    AttentionShape
	}{
		{"d512", AttentionShape{Batch: 8, T: 256, Heads: 8, KVHeads: 8, HeadDim: 64}},
		{"d512/dropout", AttentionShape{Batch: 8, T: 256, Heads: 8, KVHeads: 8, HeadDim: 64, Dropout: 0.1}},
		{"d128", AttentionShape{Batch: 12, T: 64, Heads: 4, KVHeads: 4, HeadDim: 32}},
		{"d128/8", AttentionShape{Batch: 12, T: 64, Heads: 8, KVHeads: 8, HeadDim: 16}},
	} {
		d := newAttentionData(c.s)
		for _, threads := range []int{1, 2} {
			p := testPool(b, threads)
			name := c.name + "/" + string(rune('0'+threads))
			b.Run(name+"/forward", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					AttentionForward(p, d.o, d.lse, d.q, d.k, d.v, c.s)
				}
			})
			b.Run(name+"/backward", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					AttentionBackward(p, d.dq, d.dk, d.dv, d.do, d.o, d.lse, d.q, d.k, d.v, c.s)
				}
			})
		}
	}
}
