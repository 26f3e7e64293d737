// Package tensor holds arrays on a device, the operations a transformer
// needs on them, and the tape that differentiates a sequence of operations.
// It imports algebra and kernel only.
package tensor

import (
	"fmt"

	"spinnet/algebra"
	"spinnet/kernel"
)

// Tensor is a row-major block of float32 values on one device.
type Tensor struct {
	Shape []int
	Data  []float32 // the values, for tensors of the CPU device
}

// Len is the number of elements.
func (t *Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Weight is one hypercomplex layer on a device: the latent matrix, its
// optional output scale, their gradients, and what the device derives from
// them (quantised and packed forms), brought up to date by Device.Refresh.
//
// With n the algebra's dimension, W is [n, N, K] for a linear layer and
// [n, K, N] for a head mixer, whose blocks are used without the transpose
// (SPEC §1, §2). Inputs have rows of n·K values, outputs of n·N.
type Weight struct {
	Algebra    *algebra.Table
	Quantizer  string // classic, absmean or none
	Transposed bool   // a head mixer
	Out, In    int    // N and K

	W, DW       *Tensor
	Beta, DBeta *Tensor // nil when the layer has no beta

	// Gamma is absmean's scale and Zeros the number of weights that are 0
	// after quantisation; both set by Refresh.
	Gamma float32
	Zeros int

	state any // the device's packed forms
}

// Rotation holds the cosines and sines of rotary position embedding, each
// [positions, headDim/2].
type Rotation struct {
	HeadDim  int
	Cos, Sin *Tensor
}

// NewRotation computes the tables for positions 0 to positions−1.
func NewRotation(dev Device, positions, headDim int) *Rotation {
	r := &Rotation{HeadDim: headDim, Cos: dev.Alloc(positions, headDim/2), Sin: dev.Alloc(positions, headDim/2)}
	cos, sin := kernel.RoPETable(positions, headDim)
	dev.Write(r.Cos, cos)
	dev.Write(r.Sin, sin)
	return r
}

// Attention fixes the shape and the randomness of one attention call. Rows
// are tokens of Batch sequences of T each.
type Attention struct {
	Batch, T, Heads, KVHeads, HeadDim int
	Dropout                           float32 // probability of dropping an attention weight; 0 in evaluation
	Seed                              uint64
	Layer                             int
}

// AdamWGroup is the hyperparameters of one parameter in an AdamW update.
type AdamWGroup struct {
	LR, WeightDecay float32
}

// AdamWStep is what all parameters of one update share.
type AdamWStep struct {
	Beta1, Beta2, Eps float32
	Step              int     // 1 for the first update, for the bias correction
	GradScale         float32 // multiplies every gradient (clipping)
}

// Device runs the operations. Backward operations take the gradient of the
// output first read only; acc says whether an input gradient is added to or
// overwritten. Parameter gradients are always added to. Results must be the
// same bits on every run with the same inputs.
type Device interface {
	Name() string
	// Alloc returns zeroed memory.
	Alloc(shape ...int) *Tensor
	// AllocInts returns space for n token ids.
	AllocInts(n int) *Ints
	Write(dst *Tensor, src []float32)
	Read(dst []float32, src *Tensor)
	WriteInts(dst *Ints, src []int32)
	Zero(t *Tensor)

	// Refresh quantises and packs a weight after it has changed; backward
	// says whether gradients with respect to inputs will be asked for.
	Refresh(w *Weight, backward bool)
	// FinishGradient turns the folded outer products that LinearBackward
	// gathered in DW into the gradient of the latent and of beta (SPEC §1).
	FinishGradient(w *Weight)

	Linear(y, x *Tensor, w *Weight)
	LinearBackward(dx *Tensor, acc bool, dy, x *Tensor, w *Weight)

	Embedding(y, table *Tensor, ids *Ints)
	EmbeddingBackward(dtable, dy *Tensor, ids *Ints)
	// RMSNorm has ε = NormEps.
	RMSNorm(y, x, w *Tensor)
	RMSNormBackward(dx *Tensor, acc bool, dw, dy, x, w *Tensor)
	// RotaryAttention rotates q and k in place, then attends; lse is
	// [Batch, Heads, T], kept for the backward, which gives the gradients
	// of the unrotated q and k.
	RotaryAttention(o, lse, q, k, v *Tensor, rot *Rotation, a Attention, step uint64)
	RotaryAttentionBackward(dq, dk, dv, do, o, lse, q, k, v *Tensor, rot *Rotation, a Attention, step uint64)
	SwiGLU(y, gate, up *Tensor)
	SwiGLUBackward(dgate, dup, dy, gate, up *Tensor)
	Add(y, a, b *Tensor)
	FakeQuant8(y, x *Tensor)
	// CrossEntropy writes the loss of every row in nats; targets of −1 are
	// ignored. With dh and dtable it also gives the gradients of
	// scale·Σ losses: dh overwritten, dtable added to.
	CrossEntropy(losses, h, table *Tensor, targets *Ints)
	CrossEntropyBackward(losses, dh, dtable, h, table *Tensor, targets *Ints, scale float32)

	SumSquares(ts []*Tensor) float64
	AdamW(w, g, m, v []*Tensor, groups []AdamWGroup, s AdamWStep)
}

// NormEps is the ε of RMSNorm.
const NormEps = 1e-6

// Ints is a block of token ids on a device.
type Ints struct {
	Data []int32
}

// mustMatch panics when a programmer gave tensors of different sizes.
func mustMatch(op string, a, b *Tensor) {
	if len(a.Data) != len(b.Data) {
		panic(fmt.Sprintf("tensor: %s of %v and %v", op, a.Shape, b.Shape))
	}
}
