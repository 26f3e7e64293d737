package kernel

import "math"

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
