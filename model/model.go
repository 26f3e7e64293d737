// Package model is the differentiable transformer: its parameters on a
// device, their initialisation, and its forward pass written once over the
// operations of package tensor. It imports arch, algebra and tensor.
package model

import (
	"fmt"

	"spinnet/algebra"
	"spinnet/arch"
	"spinnet/tensor"
)

// Param is one learned tensor with its gradient of the same shape. Both are
// float32; Value holds the latents that are quantised for use.
type Param struct {
	arch.Param
	Value, Grad *tensor.Tensor
}

// Model is a transformer on one device (SPEC §2).
type Model struct {
	Config arch.Config
	Device tensor.Device
	Params []*Param // in the order of arch.Params

	embedding *Param
	layers    []layer
	norm      *Param
	rotation  *tensor.Rotation
	weights   []*tensor.Weight
	gradients []*tensor.Tensor
}

// layer is one block: attention, then a SwiGLU, each behind a norm.
type layer struct {
	attentionNorm, ffnNorm *Param
	wq, wk, wv, wo         *tensor.Weight
	mixer                  *tensor.Weight // nil without a head mixer
	gate, up, down         *tensor.Weight
}

// New allocates a model with all parameters zero. The configuration is checked
// after its defaults are filled: the error is an *arch.ConfigError, or says that
// training has one norm_eps, one rope_theta and a tied output only.
func New(dev tensor.Device, c arch.Config) (*Model, error) {
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.NormEps != tensor.NormEps || c.RopeTheta != arch.RopeTheta || c.UntiedOutput {
		return nil, fmt.Errorf("model: only models with norm_eps %g, rope_theta %g and a tied output can be trained", tensor.NormEps, arch.RopeTheta)
	}
	m := &Model{Config: c, Device: dev, layers: make([]layer, c.NLayer)}
	var last *tensor.Weight
	for _, p := range arch.Params(c) {
		q := &Param{Param: p}
		switch p.Kind {
		case arch.Ternary, arch.MixerWeight:
			w, err := newWeight(dev, c, p)
			if err != nil {
				return nil, err
			}
			m.weights = append(m.weights, w)
			q.Value, q.Grad, last = w.W, w.DW, w
		case arch.Beta, arch.MixerBeta:
			q.Value, q.Grad = last.Beta, last.DBeta
		default:
			q.Value, q.Grad = dev.Alloc(p.Shape...), dev.Alloc(p.Shape...)
		}
		m.Params = append(m.Params, q)
		m.gradients = append(m.gradients, q.Grad)
	}
	m.connect()
	m.rotation = tensor.NewRotation(dev, c.BlockSize, c.HeadDim())
	return m, nil
}

func newWeight(dev tensor.Device, c arch.Config, p arch.Param) (*tensor.Weight, error) {
	alg, err := algebra.ByName(p.Algebra)
	if err != nil {
		return nil, err
	}
	if p.Kind == arch.MixerWeight {
		return tensor.NewWeight(dev, alg, arch.None, p.Shape[2], p.Shape[1], true, true), nil
	}
	return tensor.NewWeight(dev, alg, c.Quantizer, p.Shape[1], p.Shape[2], false, c.HasBeta()), nil
}

// connect points the layers at their parameters.
func (m *Model) connect() {
	w := m.weights
	next := func() *tensor.Weight {
		first := w[0]
		w = w[1:]
		return first
	}
	for i := range m.layers {
		l := &m.layers[i]
		l.wq, l.wk, l.wv, l.wo = next(), next(), next(), next()
		if m.Config.OctonionAttention {
			l.mixer = next()
		}
		l.gate, l.up, l.down = next(), next(), next()
		l.attentionNorm = m.Param(fmt.Sprintf("layers.%d.attention_norm.weight", i))
		l.ffnNorm = m.Param(fmt.Sprintf("layers.%d.ffn_norm.weight", i))
	}
	m.embedding = m.Param("tok_embeddings.weight")
	m.norm = m.Param("norm.weight")
}

// Param finds a parameter by name; nil when there is none.
func (m *Model) Param(name string) *Param {
	for _, p := range m.Params {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Refresh quantises and packs the weights after they have changed; train
// prepares for the backward pass too.
func (m *Model) Refresh(train bool) {
	m.Device.Refresh(m.weights, train)
}

// ZeroGradients clears the gradients of all parameters, which passes add to.
func (m *Model) ZeroGradients() {
	m.Device.Zero(m.gradients...)
}

// FinishGradients completes the gradients of the latents and betas, once, after
// the last backward pass of a step (SPEC §1). Until then those of linear layers
// are outer products.
func (m *Model) FinishGradients() {
	m.Device.FinishGradients(m.weights)
}

// ZeroFraction is the share of zeros among the ternary weights as of the
// last Refresh and the device's last Sync, in 0..1.
func (m *Model) ZeroFraction() float64 {
	zeros, all := 0.0, 0
	for _, w := range m.weights {
		if w.Quantizer != arch.None {
			zeros += w.Zeros.Value
			all += w.W.Len()
		}
	}
	if all == 0 {
		return 0
	}
	return zeros / float64(all)
}

// Batch is the input of a recorded pass: ids and targets of rows × T tokens,
// and where the loss of each token goes.
type Batch struct {
	Rows, T int
	IDs     *tensor.Ints   // [Rows·T], sequence by sequence
	Targets *tensor.Ints   // [Rows·T], the ids that follow; −1: not counted
	Losses  *tensor.Tensor // [Rows·T] nats
}

// NewBatch allocates the input of a pass, rows sequences of t tokens, on the
// model's device. t is at most the model's block size.
func (m *Model) NewBatch(rows, t int) *Batch {
	return &Batch{Rows: rows, T: t, IDs: m.Device.AllocInts(rows * t), Targets: m.Device.AllocInts(rows * t), Losses: m.Device.Alloc(rows * t)}
}

// Options of a recorded pass.
type Options struct {
	Train     bool
	Recompute bool    // keep only the residual stream between layers
	Seed      uint64  // of dropout
	GradScale float32 // multiplies the summed losses: 1/tokens for their mean
}

// Record writes the forward pass on a new tape, planned and ready to replay:
//
//	h = E[ids]
//	h += wo(mix(attention(wq z, wk z, wv z))),  z = norm(h)   each layer
//	h += down(silu(gate z)∘up z),               z = norm(h)
//	losses = cross-entropy of norm(h)·Eᵀ
func (m *Model) Record(b *Batch, o Options) *tensor.Tape {
	c := m.Config
	t := tensor.NewTape(m.Device, o.Train, o.Recompute)
	h := t.Embedding("embedding", m.embedding.Value, m.embedding.Grad, b.IDs)
	for i := range m.layers {
		t.Segment()
		l := &m.layers[i]
		name := func(s string) string { return fmt.Sprintf("layers.%d.%s", i, s) }
		quantised := func(x *tensor.Var) *tensor.Var {
			if c.ActBits == 8 {
				return t.FakeQuant8(x.Name+" int8", x)
			}
			return x
		}

		z := quantised(t.RMSNorm(name("attention_norm"), h, l.attentionNorm.Value, l.attentionNorm.Grad))
		qkv := t.Linears([]string{name("attention.wq"), name("attention.wk"), name("attention.wv")}, z, []*tensor.Weight{l.wq, l.wk, l.wv}, c.NEmbd)
		att := tensor.Attention{Batch: b.Rows, T: b.T, Heads: c.NHead, KVHeads: c.NKVHead, HeadDim: c.HeadDim(), Seed: o.Seed, Layer: i}
		if o.Train {
			att.Dropout = float32(c.Dropout)
		}
		a := t.RotaryAttention(name("attention"), qkv[0], qkv[1], qkv[2], m.rotation, att)
		if l.mixer != nil {
			a = t.Linear(name("attention.head_mixer"), a, l.mixer, c.NEmbd)
		}
		a = t.Linear(name("attention.wo"), quantised(a), l.wo, c.NEmbd)
		h = t.Residual(name("attention residual"), h, a)

		z = quantised(t.RMSNorm(name("ffn_norm"), h, l.ffnNorm.Value, l.ffnNorm.Grad))
		gated := t.Linears([]string{name("feed_forward.gate_proj"), name("feed_forward.up_proj")}, z, []*tensor.Weight{l.gate, l.up}, c.HiddenDim)
		f := quantised(t.SwiGLU(name("feed_forward"), gated[0], gated[1]))
		f = t.Linear(name("feed_forward.down_proj"), f, l.down, c.NEmbd)
		h = t.Residual(name("feed_forward residual"), h, f)
	}
	t.Segment()
	h = t.RMSNorm("norm", h, m.norm.Value, m.norm.Grad)
	t.CrossEntropy(b.Losses, h, m.embedding.Value, m.embedding.Grad, b.Targets, o.GradScale)
	t.Plan()
	return t
}
