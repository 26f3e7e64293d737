package tensor

import (
	"math"

	"spinnet/kernel"
)

// Chunk sizes of the parallel loops. They are constants so that sums are
// added in the same order whatever the number of threads.
const (
	elementChunk = 1 << 14
	rowChunk     = 32
)

type cpuOp int

const (
	opAdd cpuOp = iota
	opSwiGLU
	opSwiGLUBackward
	opQuantizeClassic
	opQuantizeAbsMean
	opClassicMask
	opSumSquares
	opAdamW
	opGather
	opRMSNorm
	opRMSNormBackward
	opRoPE
	opFakeQuant8
)

// cpuTask is the arguments of one parallel loop. The device keeps a single
// one and fills it anew for each operation, so that none allocates.
type cpuTask struct {
	op      cpuOp
	y, z    []float32 // written
	a, b, c []float32 // read (AdamW also writes its moments b and c)
	ids     []int32
	sums    []float64
	total   int // elements or rows
	chunk   int
	width   int
	heads   int
	period  int
	alpha   float32
	acc     bool
	inverse bool
	group   AdamWGroup
	adam    *AdamW
}

// elementwise runs a task over the elements of its output y.
func (c *CPU) elementwise(t cpuTask) {
	t.total, t.chunk = len(t.y), elementChunk
	c.run(t)
}

// rows runs a task over rows of its width.
func (c *CPU) rows(t cpuTask, rows int) {
	t.total, t.chunk = rows, rowChunk
	c.run(t)
}

func (c *CPU) run(t cpuTask) {
	c.task = t
	c.pool.Run((t.total+t.chunk-1)/t.chunk, &c.task)
}

// Do runs chunk i.
func (t *cpuTask) Do(i, _ int) {
	lo := i * t.chunk
	hi := min(lo+t.chunk, t.total)
	w := t.width
	switch t.op {
	case opAdd:
		kernel.Add(t.y[lo:hi], t.a[lo:hi], t.b[lo:hi])
	case opSwiGLU:
		kernel.SwiGLU(t.y[lo:hi], t.a[lo:hi], t.b[lo:hi])
	case opSwiGLUBackward:
		kernel.SwiGLUBackward(t.y[lo:hi], t.z[lo:hi], t.a[lo:hi], t.b[lo:hi], t.c[lo:hi])
	case opQuantizeClassic:
		kernel.QuantizeClassic(t.y[lo:hi], t.a[lo:hi])
	case opQuantizeAbsMean:
		kernel.QuantizeAbsMean(t.y[lo:hi], t.a[lo:hi], t.alpha)
	case opClassicMask:
		kernel.ClassicMask(t.y[lo:hi], t.a[lo:hi])
	case opSumSquares:
		t.sums[i] = kernel.SumSquares(t.y[lo:hi])
	case opAdamW:
		s := t.adam
		c1 := 1 - math.Pow(float64(s.Beta1), float64(s.Step))
		c2 := 1 - math.Pow(float64(s.Beta2), float64(s.Step))
		kernel.AdamW(t.y[lo:hi], t.a[lo:hi], t.b[lo:hi], t.c[lo:hi], t.group.LR, s.Beta1, s.Beta2, s.Eps,
			t.group.WeightDecay, float32(c1), float32(c2), t.alpha)
	case opGather:
		kernel.EmbeddingGather(t.y[lo*w:hi*w], t.a, t.ids[lo:hi], w)
	case opRMSNorm:
		kernel.RMSNorm(t.y[lo*w:hi*w], t.a[lo*w:hi*w], t.b, hi-lo, w, NormEps)
	case opRMSNormBackward:
		kernel.RMSNormBackward(t.y[lo*w:hi*w], t.z[i*w:(i+1)*w], t.a[lo*w:hi*w], t.b[lo*w:hi*w], t.c, hi-lo, w, NormEps, t.acc)
	case opRoPE:
		kernel.RoPE(t.y[lo*w:hi*w], hi-lo, t.heads, w/t.heads, lo%t.period, t.period, t.a, t.b, t.inverse)
	case opFakeQuant8:
		kernel.FakeQuant8(t.y[lo*w:hi*w], t.a[lo*w:hi*w], hi-lo, w)
	}
}
