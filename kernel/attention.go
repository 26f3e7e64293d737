package kernel

import "math"

// AttentionShape is one causal attention. KVHeads divides Heads; head h reads
// key and value head h/(Heads/KVHeads). Dropout drops weights with that
// probability, by the stream {Seed, Step, Layer, SiteDropout}.
type AttentionShape struct {
	Batch, T, Heads, KVHeads, HeadDim int
	Dropout                           float32
	Seed, Step                        uint64
	Layer                             int
}

func (s *AttentionShape) key() Key {
	return Key{Seed: s.Seed, Step: s.Step, Layer: uint32(s.Layer), Site: SiteDropout}
}

// dropThreshold is the number below which a 32-bit draw drops a weight.
func (s *AttentionShape) dropThreshold() uint32 {
	return uint32(min(max(float64(s.Dropout), 0)*(1<<32), 1<<32-1))
}

// refAttentionForward is the definition of AttentionForward for one head of
// one sequence.
func refAttentionForward(o, lse, q, k, v []float32, s *AttentionShape, b, h int) {
	hd, qw, kw := s.HeadDim, s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	qo, ko := b*s.T*qw+h*hd, b*s.T*kw+h/(s.Heads/s.KVHeads)*hd
	scale := float32(1 / math.Sqrt(float64(hd)))
	drop, keep := s.dropThreshold(), 1/(1-s.Dropout)
	w := make([]float32, s.T)
	for i := range s.T {
		for j := range i + 1 {
			w[j] = scale * refDot(q[qo+i*qw:qo+i*qw+hd], k[ko+j*kw:])
		}
		_, lse[(b*s.Heads+h)*s.T+i] = SoftmaxRow(w[:i+1])
		out := o[qo+i*qw : qo+i*qw+hd]
		clear(out)
		for j := range i + 1 {
			p := w[j]
			if drop > 0 {
				p *= keep
				if RandU32(s.key(), uint64(((b*s.Heads+h)*s.T+i)*s.T+j)) < drop {
					p = 0
				}
			}
			refAxpy(out, p, v[ko+j*kw:ko+j*kw+hd])
		}
	}
}

// refAttentionBackward is the definition of AttentionBackward for one head of
// one sequence; dk and dv are added to.
//
//	P = softmax, D its dropout factors, o = (P∘D)v
//	dv = (P∘D)ᵀdo;  dP = D∘(do·vᵀ);  dS = P∘(dP − Σ_j P dP);  Σ_j P dP = do·o
//	dq = scale·dS·k;  dk = scale·dSᵀ·q
func refAttentionBackward(dq, dk, dv, do, o, lse, q, k, v []float32, s *AttentionShape, b, h int) {
	hd, qw, kw := s.HeadDim, s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	qo, ko := b*s.T*qw+h*hd, b*s.T*kw+h/(s.Heads/s.KVHeads)*hd
	scale := float32(1 / math.Sqrt(float64(hd)))
	drop, keep := s.dropThreshold(), 1/(1-s.Dropout)
	for i := range s.T {
		qi, doi := q[qo+i*qw:qo+i*qw+hd], do[qo+i*qw:qo+i*qw+hd]
		dqi := dq[qo+i*qw : qo+i*qw+hd]
		clear(dqi)
		delta := refDot(doi, o[qo+i*qw:])
		for j := range i + 1 {
			kj, vj := k[ko+j*kw:ko+j*kw+hd], v[ko+j*kw:ko+j*kw+hd]
			p := exp32(scale*refDot(qi, kj) - lse[(b*s.Heads+h)*s.T+i])
			f := float32(1)
			if drop > 0 {
				f = keep
				if RandU32(s.key(), uint64(((b*s.Heads+h)*s.T+i)*s.T+j)) < drop {
					f = 0
				}
			}
			refAxpy(dv[ko+j*kw:ko+j*kw+hd], p*f, doi)
			ds := scale * p * (f*refDot(doi, vj) - delta)
			refAxpy(dqi, ds, kj)
			refAxpy(dk[ko+j*kw:ko+j*kw+hd], ds, qi)
		}
	}
}

// attentionTask is one attention in progress: an item is a sequence's key and
// value head with the heads that read it.
type attentionTask struct {
	dq, dk, dv, do, o, lse, q, k, v []float32
	s                               AttentionShape
	backward                        bool
	p                               *Pool
}

// AttentionForward is causal attention, o_i = Σ_{j≤i} softmax_j(q_i·k_j/√hd) v_j
// for q, o [B·T, Heads·hd] and k, v [B·T, KVHeads·hd]; lse [B, Heads, T]
// receives log Σ exp for the backward.
func AttentionForward(p *Pool, o, lse, q, k, v []float32, s AttentionShape) {
	p.attention = attentionTask{o: o, lse: lse, q: q, k: k, v: v, s: s, p: p}
	p.Run(s.Batch*s.KVHeads, &p.attention)
	p.attention = attentionTask{}
}

// AttentionBackward is the gradient of AttentionForward, from do and what the
// forward read and wrote; dq, dk and dv are overwritten.
func AttentionBackward(p *Pool, dq, dk, dv, do, o, lse, q, k, v []float32, s AttentionShape) {
	p.attention = attentionTask{dq: dq, dk: dk, dv: dv, do: do, o: o, lse: lse, q: q, k: k, v: v, s: s, backward: true, p: p}
	p.Run(s.Batch*s.KVHeads, &p.attention)
	p.attention = attentionTask{}
}

func (t *attentionTask) Do(i, worker int) {
	s := &t.s
	b, g := i/s.KVHeads, i%s.KVHeads
	group := s.Heads / s.KVHeads
	if t.backward {
		for r := range s.T {
			o := (b*s.T+r)*s.KVHeads*s.HeadDim + g*s.HeadDim
			clear(t.dk[o : o+s.HeadDim])
			clear(t.dv[o : o+s.HeadDim])
		}
	}
	for h := g * group; h < (g+1)*group; h++ {
		if t.backward {
			refAttentionBackward(t.dq, t.dk, t.dv, t.do, t.o, t.lse, t.q, t.k, t.v, s, b, h)
		} else {
			refAttentionForward(t.o, t.lse, t.q, t.k, t.v, s, b, h)
		}
	}
}
