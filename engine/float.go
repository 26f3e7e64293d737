package engine

import (
	"strings"

	"spinnet/algebra"
	"spinnet/arch"
	"spinnet/kernel"
	"spinnet/spinfile"
)

// floatModel is a model packed for float32 arithmetic.
type floatModel struct {
	embedding []float32 // [vocab, d]
	output    []float32 // [vocab, d], the same unless untied
	head      []float32 // output as newHead arranges it
	layers    []floatLayer
	norm      []float32 // [d]
}

// floatLayer is one transformer block (SPEC §2).
type floatLayer struct {
	attentionNorm, ffnNorm []float32
	wq, wk, wv, wo         *kernel.Linear
	mixer                  *kernel.Linear // nil without a head mixer
	gate, up, down         *kernel.Linear
}

// newFloatModel gives every tensor its place, in the layout of the kernels.
func newFloatModel(pool *kernel.Pool, m *spinfile.Model) (*floatModel, error) {
	f := &floatModel{layers: make([]floatLayer, m.Config.NLayer)}
	var wide []float32 // trits of one tensor as floats
	var mixer *spinfile.Tensor
	for i := range m.Tensors {
		t := &m.Tensors[i]
		switch t.Kind {
		case arch.Embedding:
			w := t.Floats()
			if t.Name != arch.OutputName {
				f.embedding = w
			}
			f.output = w // the output's own table, where there is one, comes last
		case arch.Norm:
			*f.normOf(t) = t.Data
		case arch.MixerWeight:
			mixer = t
		case arch.MixerBeta: // comes right after its weight
			alg, err := algebra.ByName(mixer.Algebra)
			if err != nil {
				return nil, err
			}
			k := kernel.NewLinear(alg, mixer.Shape[2], mixer.Shape[1], true)
			k.Pack(pool, mixer.Floats(), t.Data)
			f.layers[t.Layer].mixer = k
		case arch.Ternary:
			alg, err := algebra.ByName(t.Algebra)
			if err != nil {
				return nil, err
			}
			w := t.Data
			if t.Trits != nil {
				wide = wide[:0]
				for _, q := range t.Trits {
					wide = append(wide, float32(q))
				}
				w = wide
			}
			k := kernel.NewLinear(alg, t.Shape[1], t.Shape[2], false)
			k.Pack(pool, w, t.Scale)
			*f.linearOf(t) = k
		}
	}
	f.head = newHead(f.output, m.Config.NEmbd)
	return f, nil
}

// headBlock is how many logits are one item for the pool.
const headBlock = 1024

// newHead copies a table [vocab, d] in blocks of headBlock rows, each
// transposed: the logits of one token are then sums of long rows that lie one
// after another.
func newHead(table []float32, d int) []float32 {
	head := make([]float32, 0, len(table))
	for len(table) > 0 {
		n := min(len(table), headBlock*d)
		for c := range d {
			for i := c; i < n; i += d {
				head = append(head, table[i])
			}
		}
		table = table[n:]
	}
	return head
}

// normOf gives the place of a norm's weight.
func (f *floatModel) normOf(t *spinfile.Tensor) *[]float32 {
	if t.Layer < 0 {
		return &f.norm
	}
	l := &f.layers[t.Layer]
	if strings.HasSuffix(t.Name, ".attention_norm.weight") {
		return &l.attentionNorm
	}
	return &l.ffnNorm
}

// linearOf gives the place of a linear layer.
func (f *floatModel) linearOf(t *spinfile.Tensor) **kernel.Linear {
	l := &f.layers[t.Layer]
	for _, p := range []struct {
		suffix string
		place  **kernel.Linear
	}{
		{".wq.weight", &l.wq}, {".wk.weight", &l.wk}, {".wv.weight", &l.wv}, {".wo.weight", &l.wo},
		{".gate_proj.weight", &l.gate}, {".up_proj.weight", &l.up}, {".down_proj.weight", &l.down},
	} {
		if strings.HasSuffix(t.Name, p.suffix) {
			return p.place
		}
	}
	panic("engine: no layer for tensor " + t.Name) // Validate has checked the names
}

// rowBlock is how many rows of a row-wise step are one item for the pool.
const rowBlock = 16

// floatRun is the float32 arithmetic of one session.
type floatRun struct {
	s *Session
	m *floatModel
	n int // tokens of a forward

	cos, sin                   []float32 // [chunk, head_dim/2], rotations of the rows
	h, z, q, k, v, o, mixed, t []float32 // rows of activations
	gate, up                   []float32
	workers                    []attention

	rows rowTask
	attn attentionTask
	head headTask
}

func newFloatRun(s *Session, m *floatModel) *floatRun {
	c := &s.e.config
	r := &floatRun{s: s, m: m, workers: make([]attention, s.e.pool.Threads())}
	for _, b := range []struct {
		p     *[]float32
		width int
	}{
		{&r.cos, c.HeadDim() / 2}, {&r.sin, c.HeadDim() / 2},
		{&r.h, c.NEmbd}, {&r.z, c.NEmbd}, {&r.q, c.NEmbd}, {&r.k, c.KVDim()}, {&r.v, c.KVDim()},
		{&r.o, c.NEmbd}, {&r.mixed, c.NEmbd}, {&r.t, c.NEmbd}, {&r.gate, c.HiddenDim}, {&r.up, c.HiddenDim},
	} {
		*b.p = make([]float32, s.chunk*b.width)
	}
	r.rows.r, r.attn.r, r.head.r = r, r, r
	return r
}

// forward takes n = len(ids) ≤ chunk tokens through the layers and leaves
// the final norm of each in r.z.
func (r *floatRun) forward(ids []int32) {
	r.begin(ids)
	for i := range r.m.layers {
		r.layer(i)
	}
}

// begin sets r.h to the embeddings of ids.
func (r *floatRun) begin(ids []int32) {
	n, d := len(ids), r.s.e.config.NEmbd
	for i := range r.workers {
		r.workers[i].fit(&r.s.cache)
	}
	r.n = n
	kernel.EmbeddingGather(r.h[:n*d], r.m.embedding, ids, d)
	r.s.rotations(r.cos, r.sin, n)
}

// layer takes the tokens through layer i and, after the last, the final norm.
func (r *floatRun) layer(i int) {
	e, c, n, d := r.s.e, &r.s.e.config, r.n, r.s.e.config.NEmbd
	l := &r.m.layers[i]
	r.rowwise(n, i, (*floatRun).beforeAttention)
	l.wq.Forward(e.pool, r.q, r.z, n)
	l.wk.Forward(e.pool, r.k, r.z, n)
	l.wv.Forward(e.pool, r.v, r.z, n)
	r.rowwise(n, i, (*floatRun).store)
	r.attn.layer = i
	e.pool.Run(n*c.NKVHead, &r.attn)
	o := r.o
	if l.mixer != nil {
		groups := c.NHead / arch.AlgebraDim(c.MixerAlgebra)
		l.mixer.Forward(e.pool, r.mixed, r.o, n*groups)
		o = r.mixed
	}
	if c.ActBits == 8 {
		kernel.FakeQuant8(r.z, o, n, d)
		o = r.z
	}
	l.wo.Forward(e.pool, r.t, o, n)
	r.rowwise(n, i, (*floatRun).beforeFeedForward)
	l.gate.Forward(e.pool, r.gate, r.z, n)
	l.up.Forward(e.pool, r.up, r.z, n)
	r.rowwise(n, i, (*floatRun).activate)
	l.down.Forward(e.pool, r.t, r.gate, n)
	r.rowwise(n, i, (*floatRun).afterFeedForward)
	if i == len(r.m.layers)-1 {
		kernel.RMSNorm(r.z[:n*d], r.h[:n*d], r.m.norm, n, d, float32(c.NormEps))
	}
}

// logits computes norm(h)·Eᵀ of a row of the last forward.
func (r *floatRun) logits(y []float32, row int) {
	d := r.s.e.config.NEmbd
	r.head.row, r.head.y = r.z[row*d:(row+1)*d], y
	r.s.e.pool.Run((len(y)+headBlock-1)/headBlock, &r.head)
}

// logProbs gives the log-probability of targets[i] after row i of the last
// forward.
func (r *floatRun) logProbs(y []float32, targets []int32) {
	c := &r.s.e.config
	kernel.CrossEntropyForward(r.s.e.pool, y, r.z, r.m.output, targets, len(targets), c.VocabSize, c.NEmbd)
	for i, v := range y {
		y[i] = -v
	}
}

// headTask computes the logits of one row from the model's head.
type headTask struct {
	r      *floatRun
	row, y []float32
}

// Do computes one block of logits.
func (t *headTask) Do(i, _ int) {
	lo, hi := i*headBlock, min(len(t.y), (i+1)*headBlock)
	y := t.y[lo:hi]
	clear(y)
	block := t.r.m.head[lo*len(t.row) : hi*len(t.row)]
	for c, x := range t.row {
		kernel.Axpy(y, x, block[c*len(y):(c+1)*len(y)])
	}
}

// rowTask does a row-wise step on blocks of rows.
type rowTask struct {
	r       *floatRun
	n, l    int
	current func(r *floatRun, layer, lo, hi int)
}

// Do runs the step on one block of rows.
func (t *rowTask) Do(i, _ int) {
	t.current(t.r, t.l, i*rowBlock, min(t.n, (i+1)*rowBlock))
}

// rowwise runs a step on rows 0 … n−1.
func (r *floatRun) rowwise(n, layer int, step func(r *floatRun, layer, lo, hi int)) {
	if n <= rowBlock {
		step(r, layer, 0, n)
		return
	}
	r.rows.n, r.rows.l, r.rows.current = n, layer, step
	r.s.e.pool.Run((n+rowBlock-1)/rowBlock, &r.rows)
}

// normed sets z to norm(h) of rows lo … hi−1, the input of linear layers.
func (r *floatRun) normed(weight []float32, lo, hi int) {
	c := &r.s.e.config
	d := c.NEmbd
	z := r.z[lo*d : hi*d]
	kernel.RMSNorm(z, r.h[lo*d:hi*d], weight, hi-lo, d, float32(c.NormEps))
	r.quantised(z, hi-lo, d)
}

// quantised rounds rows to int8 levels in place if the model asks for it.
func (r *floatRun) quantised(x []float32, rows, width int) {
	if r.s.e.config.ActBits == 8 {
		kernel.FakeQuant8(x, x, rows, width)
	}
}

// beforeAttention: z = norm(h).
func (r *floatRun) beforeAttention(layer, lo, hi int) {
	r.normed(r.m.layers[layer].attentionNorm, lo, hi)
}

// beforeFeedForward: h += t, z = norm(h).
func (r *floatRun) beforeFeedForward(layer, lo, hi int) {
	r.afterFeedForward(layer, lo, hi)
	r.normed(r.m.layers[layer].ffnNorm, lo, hi)
}

// activate: gate = silu(gate)∘up.
func (r *floatRun) activate(_, lo, hi int) {
	w := r.s.e.config.HiddenDim
	g := r.gate[lo*w : hi*w]
	kernel.SwiGLU(g, g, r.up[lo*w:hi*w])
	r.quantised(g, hi-lo, w)
}

// afterFeedForward: h += t.
func (r *floatRun) afterFeedForward(_, lo, hi int) {
	d := r.s.e.config.NEmbd
	h := r.h[lo*d : hi*d]
	kernel.Add(h, h, r.t[lo*d:hi*d])
}

// store rotates queries and keys of rows lo … hi−1 and puts keys and values
// into the cache.
func (r *floatRun) store(layer, lo, hi int) {
	c := &r.s.e.config
	hd, kv := c.HeadDim(), c.KVDim()
	half := hd / 2
	cos, sin := r.cos[lo*half:hi*half], r.sin[lo*half:hi*half]
	kernel.RoPE(r.q[lo*c.NEmbd:hi*c.NEmbd], hi-lo, c.NHead, hd, 0, hi-lo, cos, sin, false)
	kernel.RoPE(r.k[lo*kv:hi*kv], hi-lo, c.NKVHead, hd, 0, hi-lo, cos, sin, false)
	for i := lo; i < hi; i++ {
		for g := range c.NKVHead {
			at := i*kv + g*hd
			r.s.cache.store(nil, layer, r.s.pos+i, g, r.k[at:at+hd], r.v[at:at+hd])
		}
	}
}

// attentionTask is the attention of a chunk's rows: item i is row i / NKVHead
// and key-value head i mod NKVHead.
type attentionTask struct {
	r     *floatRun
	layer int
}

// Do does one row and key-value head.
func (t *attentionTask) Do(item, worker int) {
	r, c := t.r, &t.r.s.e.config
	row, g, d := item/c.NKVHead, item%c.NKVHead, c.NEmbd
	r.s.cache.attend(&r.workers[worker], t.layer, r.s.pos+row, g, r.q[row*d:(row+1)*d], r.o[row*d:(row+1)*d])
}
