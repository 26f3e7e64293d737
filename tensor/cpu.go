package tensor

import (
	"fmt"
	"math"

	"spinnet/algebra"
	"spinnet/kernel"
)

// CPU is the Device of the host: package kernel's loops, spread over a pool
// of worker threads in chunks whose bounds do not depend on how many there
// are.
type CPU struct {
	pool    *kernel.Pool
	task    cpuTask
	partial []float32 // per-chunk partial results of reductions
	sums    []float64
	step    uint64 // of SetStep
}

// NewCPU returns a device that computes on the given number of threads, from 1
// on. Close ends them.
func NewCPU(threads int) *CPU { return &CPU{pool: kernel.NewPool(threads)} }

// Close ends the worker threads.
func (c *CPU) Close() { c.pool.Close() }

// Name is "cpu", the kernel set and the number of threads.
func (c *CPU) Name() string {
	return fmt.Sprintf("cpu (%s, %d threads)", kernel.Set(), c.pool.Threads())
}

// Alloc returns a zeroed tensor.
func (c *CPU) Alloc(shape ...int) *Tensor {
	t := &Tensor{Shape: shape}
	t.Data = kernel.AlignedFloats(t.Len())
	return t
}

// AllocInts returns space for n token ids.
func (c *CPU) AllocInts(n int) *Ints { return &Ints{N: n, Data: make([]int32, n)} }

// AllocScalar returns a zero.
func (c *CPU) AllocScalar() *Scalar { return new(Scalar) }

// TypeOf is float32 for everything.
func (c *CPU) TypeOf(Role) Type { return Float32 }

// Slice is a part of a block.
func (c *CPU) Slice(block *Tensor, offset int, _ Type, shape ...int) *Tensor {
	t := &Tensor{Shape: shape}
	begin := offset / 4
	end := begin + t.Len()
	t.Data = block.Data[begin:end:end]
	return t
}

// Write copies values to the device.
func (c *CPU) Write(dst *Tensor, src []float32) { copy(dst.Data, src) }

// Read copies values from the device.
func (c *CPU) Read(dst []float32, src *Tensor) { copy(dst, src.Data) }

// WriteInts copies token ids to the device.
func (c *CPU) WriteInts(dst *Ints, src []int32) { copy(dst.Data, src) }

// Zero clears tensors.
func (c *CPU) Zero(ts ...*Tensor) {
	for _, t := range ts {
		clear(t.Data)
	}
}

// ZeroScalar sets a scalar to 0.
func (c *CPU) ZeroScalar(s *Scalar) { s.Value = 0 }

// Sync has nothing to wait for.
func (c *CPU) Sync() error { return nil }

// Late is false: operations end before they return.
func (c *CPU) Late() bool { return false }

// Record returns f.
func (c *CPU) Record(f func()) func() { return f }

// SetStep sets the step of dropout.
func (c *CPU) SetStep(step uint64) { c.step = step }

// cpuWeight is the CPU's derived forms of a Weight.
type cpuWeight struct {
	layer *kernel.Linear
	quant []float32 // −1, 0, +1 (the latent itself when not quantised)
	scale []float32 // [N] γ·beta
	gamma float32
	dbeta []float32 // scratch
}

// NewWeight makes a weight of algebra alg with N = out and K = in values a
// part; beta says whether it has a learned output scale.
func NewWeight(dev Device, alg *algebra.Table, quantizer string, out, in int, transposed, beta bool) *Weight {
	w := &Weight{Algebra: alg, Quantizer: quantizer, Transposed: transposed, Out: out, In: in}
	shape := []int{alg.N, out, in}
	if transposed {
		shape = []int{alg.N, in, out}
	}
	w.Zeros = dev.AllocScalar()
	w.W, w.DW = dev.Alloc(shape...), dev.Alloc(shape...)
	if beta {
		w.Beta, w.DBeta = dev.Alloc(out), dev.Alloc(out)
	}
	return w
}

func (c *CPU) weight(w *Weight) *cpuWeight { return w.State.(*cpuWeight) }

// Refresh quantises and packs weights.
func (c *CPU) Refresh(ws []*Weight, backward bool) {
	for _, w := range ws {
		c.refresh(w, backward)
	}
}

func (c *CPU) refresh(w *Weight, backward bool) {
	s, ok := w.State.(*cpuWeight)
	if !ok {
		s = &cpuWeight{layer: kernel.NewLinear(w.Algebra, w.Out, w.In, w.Transposed), scale: make([]float32, w.Out)}
		s.quant = w.W.Data
		if w.Quantizer != "none" {
			s.quant = kernel.AlignedFloats(len(w.W.Data))
		}
		w.State = s
	}
	gamma := float32(1)
	w.Zeros.Value = 0
	switch w.Quantizer {
	case "classic":
		c.elementwise(cpuTask{op: opQuantizeClassic, y: s.quant, a: w.W.Data})
		w.Zeros.Value = float64(kernel.CountZeros(s.quant))
	case "absmean":
		gamma = max(float32(kernel.AbsSum(w.W.Data)/float64(len(w.W.Data))), 1e-8)
		c.elementwise(cpuTask{op: opQuantizeAbsMean, y: s.quant, a: w.W.Data, alpha: gamma})
		w.Zeros.Value = float64(kernel.CountZeros(s.quant))
	}
	s.gamma = gamma
	scale := s.scale
	for i := range scale {
		scale[i] = gamma
		if w.Beta != nil {
			scale[i] *= w.Beta.Data[i]
		}
	}
	if gamma == 1 && w.Beta == nil {
		scale = nil
	}
	s.layer.Pack(c.pool, s.quant, scale)
	if backward {
		s.layer.PackBackward(c.pool, s.quant, scale)
	}
}

// FinishGradients: dbeta_r = γ·Σ_{k,c} G_k[r,c]·Wq_k[r,c], dW_k = diag(beta)·G_k,
// and zero where the classic quantiser clamps. absmean's gradient is that of
// γWq, which is G itself.
func (c *CPU) FinishGradients(ws []*Weight) {
	for _, w := range ws {
		c.finishGradient(w)
	}
}

func (c *CPU) finishGradient(w *Weight) {
	if w.Beta != nil {
		s := c.weight(w)
		s.dbeta = grow(s.dbeta, w.Out)
		clear(s.dbeta)
		kernel.FoldBeta(w.DW.Data, s.dbeta, s.quant, w.Beta.Data, w.Out, w.In, w.Transposed)
		for i, g := range s.dbeta {
			w.DBeta.Data[i] += s.gamma * g
		}
	}
	if w.Quantizer == "classic" {
		c.elementwise(cpuTask{op: opClassicMask, y: w.DW.Data, a: w.W.Data})
	}
}

// Linear is the forward of hypercomplex layers.
func (c *CPU) Linear(ys []*Tensor, x *Tensor, ws []*Weight) {
	for i, w := range ws {
		c.weight(w).layer.Forward(c.pool, ys[i].Data, x.Data, len(x.Data)/(w.Algebra.N*w.In))
	}
}

// LinearBackward gives dx and adds the folded outer products to each DW, last
// layer first.
func (c *CPU) LinearBackward(dx *Tensor, acc bool, dys []*Tensor, x *Tensor, ws []*Weight) {
	for i := len(ws) - 1; i >= 0; i-- {
		m := len(x.Data) / (ws[i].Algebra.N * ws[i].In)
		l := c.weight(ws[i]).layer
		l.BackwardWeight(c.pool, ws[i].DW.Data, dys[i].Data, x.Data, m, true)
		l.BackwardInput(c.pool, dx.Data, dys[i].Data, m, acc || i < len(ws)-1)
	}
}

// Embedding gathers rows of the table.
func (c *CPU) Embedding(y, table *Tensor, ids *Ints) {
	c.rows(cpuTask{op: opGather, y: y.Data, a: table.Data, ids: ids.Data, width: table.Shape[1]}, len(ids.Data))
}

// EmbeddingBackward adds rows of dy to the rows of dtable that were read.
func (c *CPU) EmbeddingBackward(dtable, dy *Tensor, ids *Ints) {
	kernel.EmbeddingScatterAdd(dtable.Data, dy.Data, ids.Data, dtable.Shape[1])
}

// RMSNorm normalises rows.
func (c *CPU) RMSNorm(y, x, w *Tensor) {
	d := len(w.Data)
	c.rows(cpuTask{op: opRMSNorm, y: y.Data, a: x.Data, b: w.Data, width: d}, len(x.Data)/d)
}

// RMSNormBackward gives dx and adds to dw, the latter by one partial sum a
// chunk of rows, added up in order.
func (c *CPU) RMSNormBackward(dx *Tensor, acc bool, dw, dy, x, w *Tensor) {
	d := len(w.Data)
	rows := len(x.Data) / d
	chunks := (rows + rowChunk - 1) / rowChunk
	c.partial = grow(c.partial, chunks*d)
	clear(c.partial[:chunks*d])
	c.rows(cpuTask{op: opRMSNormBackward, y: dx.Data, z: c.partial, a: dy.Data, b: x.Data, c: w.Data, width: d, acc: acc}, rows)
	for i := range chunks {
		kernel.Add(dw.Data, dw.Data, c.partial[i*d:(i+1)*d])
	}
}

// RotaryAttention rotates q and k, then attends.
func (c *CPU) RotaryAttention(o, lse, q, k, v *Tensor, rot *Rotation, a Attention) {
	c.rotate(q, k, rot, a, false)
	kernel.AttentionForward(c.pool, o.Data, lse.Data, q.Data, k.Data, v.Data, a.kernelShape(c.step))
}

// RotaryAttentionBackward is its gradient.
func (c *CPU) RotaryAttentionBackward(dq, dk, dv, do, o, lse, q, k, v *Tensor, rot *Rotation, a Attention) {
	kernel.AttentionBackward(c.pool, dq.Data, dk.Data, dv.Data, do.Data, o.Data, lse.Data, q.Data, k.Data, v.Data, a.kernelShape(c.step))
	c.rotate(dq, dk, rot, a, true)
}

func (a Attention) kernelShape(step uint64) kernel.AttentionShape {
	return kernel.AttentionShape{Batch: a.Batch, T: a.T, Heads: a.Heads, KVHeads: a.KVHeads, HeadDim: a.HeadDim,
		Dropout: a.Dropout, Seed: a.Seed, Step: step, Layer: a.Layer}
}

func (c *CPU) rotate(q, k *Tensor, rot *Rotation, a Attention, inverse bool) {
	for _, x := range [...]struct {
		t     *Tensor
		heads int
	}{{q, a.Heads}, {k, a.KVHeads}} {
		t := cpuTask{op: opRoPE, y: x.t.Data, a: rot.Cos.Data, b: rot.Sin.Data,
			width: x.heads * a.HeadDim, heads: x.heads, period: a.T, inverse: inverse, total: a.Batch * a.T, chunk: rowChunk}
		if a.T%rowChunk != 0 {
			t.chunk = a.T // a chunk lies in one sequence
		}
		c.run(t)
	}
}

// SwiGLU is silu(gate)∘up.
func (c *CPU) SwiGLU(y, gate, up *Tensor) {
	mustMatch("SwiGLU", gate, up)
	c.elementwise(cpuTask{op: opSwiGLU, y: y.Data, a: gate.Data, b: up.Data})
}

// SwiGLUBackward overwrites dgate and dup.
func (c *CPU) SwiGLUBackward(dgate, dup, dy, gate, up *Tensor) {
	c.elementwise(cpuTask{op: opSwiGLUBackward, y: dgate.Data, z: dup.Data, a: dy.Data, b: gate.Data, c: up.Data})
}

// Add is y = a + b.
func (c *CPU) Add(y, a, b *Tensor) {
	mustMatch("sum", a, b)
	c.elementwise(cpuTask{op: opAdd, y: y.Data, a: a.Data, b: b.Data})
}

// FakeQuant8 rounds rows to int8 levels.
func (c *CPU) FakeQuant8(y, x *Tensor) {
	d := x.Shape[len(x.Shape)-1]
	c.rows(cpuTask{op: opFakeQuant8, y: y.Data, a: x.Data, width: d}, len(x.Data)/d)
}

// CrossEntropy writes the loss of each row.
func (c *CPU) CrossEntropy(losses, h, table *Tensor, targets *Ints) {
	kernel.CrossEntropyForward(c.pool, losses.Data, h.Data, table.Data, targets.Data, len(losses.Data), table.Shape[0], table.Shape[1])
}

// CrossEntropyBackward also gives the gradients.
func (c *CPU) CrossEntropyBackward(losses, dh, dtable, h, table *Tensor, targets *Ints, scale float32) {
	kernel.CrossEntropyForwardBackward(c.pool, losses.Data, dh.Data, dtable.Data, h.Data, table.Data, targets.Data,
		len(losses.Data), table.Shape[0], table.Shape[1], scale)
}

// AddSum adds the sum of x's elements.
func (c *CPU) AddSum(s *Scalar, x *Tensor) {
	var sum float64
	for _, v := range x.Data {
		sum += float64(v)
	}
	s.Value += sum
}

// sumSquares adds up the squares of all elements, in a fixed order.
func (c *CPU) sumSquares(ts []*Tensor) float64 {
	var sum float64
	for _, t := range ts {
		chunks := (len(t.Data) + elementChunk - 1) / elementChunk
		c.sums = grow(c.sums, chunks)
		c.elementwise(cpuTask{op: opSumSquares, y: t.Data, sums: c.sums})
		for _, s := range c.sums[:chunks] {
			sum += s
		}
	}
	return sum
}

// SetUpdate has nothing to do: Update reads the numbers where they are.
func (c *CPU) SetUpdate(*AdamW) {}

// Update clips the gradients and updates every parameter once.
func (c *CPU) Update(o *AdamW) {
	o.Squares.Value = c.sumSquares(o.G)
	norm := math.Sqrt(o.Squares.Value)
	if x := o.Loss.Value + norm; math.IsNaN(x) || math.IsInf(x, 0) {
		return
	}
	scale := float32(1)
	if o.Clip > 0 && norm > o.Clip {
		scale = float32(o.Clip / norm)
	}
	for i, w := range o.W {
		c.elementwise(cpuTask{op: opAdamW, y: w.Data, a: o.G[i].Data, b: o.M[i].Data, c: o.V[i].Data, group: o.Groups[i], adam: o, alpha: scale})
	}
}

// grow returns s with room for n elements.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
