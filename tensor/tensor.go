// Package tensor holds arrays on a device, the operations a transformer
// needs on them, and the tape that differentiates a sequence of operations.
// It imports algebra and kernel only.
package tensor

import (
	"fmt"

	"spinnet/algebra"
	"spinnet/kernel"
)

// Type is the type of a tensor's elements.
type Type uint8

// The element types.
const (
	Float32 Type = iota
	BFloat16
)

// Size is the bytes of one element.
func (t Type) Size() int {
	if t == BFloat16 {
		return 2
	}
	return 4
}

// Role says what a variable of a tape is for. The device chooses the type of
// its elements by it (Device.TypeOf).
type Role uint8

// The roles.
const (
	Activation Role = iota // what one operation hands to the next
	Stream                 // the residual stream, a sum over all layers, and its gradient
	Statistic              // one number a row, such as a log of a sum
)

// Tensor is a row-major block of values on one device.
type Tensor struct {
	Shape []int
	Type  Type
	Data  []float32 // the values, for tensors of the CPU device
	Addr  uintptr   // where they are, for those of other devices
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

	// Zeros is the number of weights that are 0 after quantisation, set by
	// Refresh.
	Zeros *Scalar

	State any // the device's own: what it derives from W
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

// AdamWGroup is the hyperparameters of one parameter in an AdamW update: its
// learning rate, and the decay that is multiplied by it.
type AdamWGroup struct {
	LR, WeightDecay float32
}

// AdamW is an optimizer: the parameters with their gradients and moments,
// and the numbers of the next update (Loshchilov & Hutter 2019: decoupled
// weight decay).
type AdamW struct {
	W, G, M, V        []*Tensor    // values, gradients, first and second moments: one of each a parameter
	Groups            []AdamWGroup // one a parameter
	Beta1, Beta2, Eps float32
	Step              int     // 1 for the first update, for the bias correction
	Clip              float64 // the largest norm of all gradients; 0: no limit

	Loss    *Scalar // read: there is no update unless it is finite
	Squares *Scalar // written: the sum of squares of all gradients
}

// Device runs the operations. Backward operations take the gradient of the
// output first read only; acc says whether an input gradient is added to or
// overwritten. Parameter gradients are always added to. Results must be the
// same bits on every run with the same inputs.
//
// A device may work behind the host: operations and Zero, WriteInts, SetStep
// and SetUpdate take effect in the order of the calls, Read and Sync wait.
// What fails on the way is remembered, makes all that follows do nothing, and
// is the error of the next Sync.
type Device interface {
	// Name is for people: "cpu …" or the GPU's.
	Name() string
	// Close ends the device's threads and gives back its memory.
	Close()

	// Alloc returns zeroed memory for float32 values.
	Alloc(shape ...int) *Tensor
	// AllocInts returns space for n token ids.
	AllocInts(n int) *Ints
	// AllocScalar returns a number that operations write, 0 at first.
	AllocScalar() *Scalar
	// TypeOf is the element type of a tape's variables of a role.
	TypeOf(r Role) Type
	// Slice is the part of a block of memory that begins offset bytes in, as a
	// tensor of a type and a shape. It shares the block's memory.
	Slice(block *Tensor, offset int, t Type, shape ...int) *Tensor

	// Write and WriteInts copy all values of dst from the host, Read all of src to
	// it; the lengths are equal. Zero and ZeroScalar clear.
	Write(dst *Tensor, src []float32)
	Read(dst []float32, src *Tensor)
	WriteInts(dst *Ints, src []int32)
	Zero(ts ...*Tensor)
	ZeroScalar(s *Scalar)

	// Sync waits for all that was asked for and brings the values of scalars
	// to the host.
	Sync() error
	// Record returns a function that does what f does, which must be the
	// same operations on the same memory at every call. A device may take
	// note of them and replay.
	Record(f func()) func()

	// SetStep sets the training step that keys the randomness of dropout.
	SetStep(step uint64)

	// Refresh quantises and packs weights after they have changed; backward
	// says whether gradients with respect to inputs will be asked for.
	Refresh(ws []*Weight, backward bool)
	// FinishGradients turns the folded outer products that LinearBackward
	// gathered in DW into the gradients of the latents and of beta (SPEC §1).
	FinishGradients(ws []*Weight)

	// Linear applies layers to one input: it reads x as rows of n·K values and
	// writes ys[i] as rows of n·N, a row for each token (head mixers: for each
	// group of a token's heads). LinearBackward gives the sum of their gradients
	// in dx, of x's shape, and adds the folded outer products of dys and x to
	// each DW. A device may do them at once where the tensors of outputs lie in
	// memory at equal distances, as a tape's do.
	Linear(ys []*Tensor, x *Tensor, ws []*Weight)
	LinearBackward(dx *Tensor, acc bool, dys []*Tensor, x *Tensor, ws []*Weight)

	// Late tells whether LinearBackward may still read dys and x while the
	// operation of the next backward runs, and an operation of a forward what it
	// reads while the two after it run; a tape then keeps them so long.
	Late() bool

	// Embedding copies the rows ids of table [vocab, d] to y [m, d];
	// EmbeddingBackward adds the rows of dy to those of dtable.
	Embedding(y, table *Tensor, ids *Ints)
	EmbeddingBackward(dtable, dy *Tensor, ids *Ints)
	// RMSNorm is y = x·rsqrt(mean(x²)+NormEps)·w for the rows of x and y [m, d],
	// with w [d].
	RMSNorm(y, x, w *Tensor)
	RMSNormBackward(dx *Tensor, acc bool, dw, dy, x, w *Tensor)
	// RotaryAttention rotates q and k in place, then attends causally: o and q
	// are [Batch·T, Heads·HeadDim], k and v [Batch·T, KVHeads·HeadDim]. lse
	// [Batch, Heads, T], the logarithms of the softmax's sums, is kept for the
	// backward, which gives the gradients of the unrotated q and k.
	RotaryAttention(o, lse, q, k, v *Tensor, rot *Rotation, a Attention)
	RotaryAttentionBackward(dq, dk, dv, do, o, lse, q, k, v *Tensor, rot *Rotation, a Attention)
	// SwiGLU is y = silu(gate)∘up, all [m, hidden]. Its backward overwrites dgate
	// and dup.
	SwiGLU(y, gate, up *Tensor)
	SwiGLUBackward(dgate, dup, dy, gate, up *Tensor)
	// Add is y = a + b, of one shape.
	Add(y, a, b *Tensor)
	// FakeQuant8 rounds each row of x [m, d] to int8 levels (SPEC §7).
	FakeQuant8(y, x *Tensor)
	// CrossEntropy writes to losses [m], in nats, the loss of each row of
	// h [m, d] with the logits h·tableᵀ, table [vocab, d]; a target of −1 has the
	// loss 0. CrossEntropyBackward also gives the gradients of scale·Σ losses: dh
	// overwritten, dtable added to.
	CrossEntropy(losses, h, table *Tensor, targets *Ints)
	CrossEntropyBackward(losses, dh, dtable, h, table *Tensor, targets *Ints, scale float32)

	// AddSum adds Σ x to s.
	AddSum(s *Scalar, x *Tensor)
	// SetUpdate takes over the numbers of o for the next Update.
	SetUpdate(o *AdamW)
	// Update scales the gradients down to the norm o.Clip and makes one
	// step of AdamW. When the loss or the norm is not finite it changes no
	// parameter.
	Update(o *AdamW)
}

// NormEps is the ε of RMSNorm.
const NormEps = 1e-6

// Ints is a block of N token ids on a device.
type Ints struct {
	N    int
	Data []int32 // for the CPU device
	Addr uintptr // for other devices
}

// Scalar is one number on a device that operations write, so that the host
// need not wait for each.
type Scalar struct {
	Value float64 // as of the device's last Sync
	Addr  uintptr // for devices other than the CPU
}

// mustMatch panics when a programmer gave tensors of different sizes.
func mustMatch(op string, a, b *Tensor) {
	if len(a.Data) != len(b.Data) {
		panic(fmt.Sprintf("tensor: %s of %v and %v", op, a.Shape, b.Shape))
	}
}
