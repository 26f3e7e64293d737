package engine

import (
	"errors"
	"math"

	"spinnet/algebra"
	"spinnet/arch"
	"spinnet/kernel"
	"spinnet/spinfile"
)

// int8Model is a model packed for int8 arithmetic (SPEC §7).
type int8Model struct {
	embedding, output *int8Table // the same unless untied
	layers            []int8Layer
	norm              []float32 // [d]
}

// int8Table is an embedding [vocab, d].
type int8Table struct {
	vocab, d int
	scale    []float32
	int8     []int8      // one of these two
	packed   packedTable // in an order of its own
}

// packedTable is rows of int8 that are not one after another: a
// *kernel.Grouped, as the file has it, in half the memory or three quarters, or
// a *kernel.Int8Table, as WebAssembly wants it.
type packedTable interface {
	Expand(q []int8, row int)
	InputLen() int
	Input(input, x []int8)
	MatVec(y []int32, input []int8, row int)
	MatMul(m *kernel.Int8Scratch, y []int32, ldy int, x []int8, row, rows, tokens int)
}

// newInt8Table leaves packed what the kernels can use so.
func newInt8Table(layout kernel.Layout, t *spinfile.Tensor) *int8Table {
	table := &int8Table{vocab: t.Shape[0], d: t.Shape[1], scale: t.Scale}
	switch {
	case layout == kernel.LayoutSIMD128:
		table.packed = kernel.NewInt8Table(t.Expanded(), table.vocab, table.d)
	case t.Packed != nil && kernel.GroupedKernels():
		low, high := t.Planes()
		table.packed = &kernel.Grouped{Cols: table.d, Bits: t.Bits, Low: low, High: high, Factors: t.Groups}
	default:
		table.int8 = t.Expanded()
	}
	return table
}

// row gives the integers of a token, in q or in place.
func (t *int8Table) row(q []int8, id int) []int8 {
	if t.packed == nil {
		return t.int8[id*t.d : (id+1)*t.d]
	}
	t.packed.Expand(q[:t.d], id)
	return q[:t.d]
}

// int8Layer is one transformer block. Queries, keys and values are one product,
// of the same input.
type int8Layer struct {
	attentionNorm, ffnNorm []float32
	qkv                    *kernel.Int8Linear
	mixer                  *kernel.Int8Linear // nil without a head mixer
	wo, gate, up, down     *kernel.Int8Linear
}

// checkInt8 says why a model cannot be computed in int8.
func checkInt8(c *arch.Config) error {
	for _, w := range []struct {
		key   string
		width int
	}{{"n_embd", c.NEmbd}, {"hidden_dim", c.HiddenDim}} {
		if w.width > kernel.MaxInt8Columns {
			return errors.New("engine: " + w.key + " = " + itoa(w.width) + ": int8 numerics add up at most " + itoa(kernel.MaxInt8Columns) + " products; run the model in float")
		}
	}
	return nil
}

// newInt8Model packs the weights of a model in a layout, rounding to int8 what
// is float.
func newInt8Model(m *spinfile.Model, layout kernel.Layout) (*int8Model, error) {
	if err := checkInt8(&m.Config); err != nil {
		return nil, err
	}
	m = m.Quantize()
	q := &int8Model{embedding: newInt8Table(layout, m.Tensor("tok_embeddings.weight")), norm: m.Tensor("norm.weight").Data, layers: make([]int8Layer, m.Config.NLayer)}
	q.output = q.embedding
	if t := m.Tensor(arch.OutputName); t != nil {
		q.output = newInt8Table(layout, t)
	}
	for i := range q.layers {
		l := &q.layers[i]
		pre := "layers." + itoa(i) + "."
		l.attentionNorm, l.ffnNorm = m.Tensor(pre+"attention_norm.weight").Data, m.Tensor(pre+"ffn_norm.weight").Data
		for _, p := range []struct {
			place **kernel.Int8Linear
			names []string
		}{
			{&l.qkv, []string{"attention.wq", "attention.wk", "attention.wv"}},
			{&l.wo, []string{"attention.wo"}},
			{&l.gate, []string{"feed_forward.gate_proj"}},
			{&l.up, []string{"feed_forward.up_proj"}},
			{&l.down, []string{"feed_forward.down_proj"}},
		} {
			first := m.Tensor(pre + p.names[0] + ".weight")
			alg, err := algebra.ByName(first.Algebra)
			if err != nil {
				return nil, err
			}
			var ws []kernel.Int8Weight
			for _, name := range p.names {
				ws = append(ws, int8Weight(m.Tensor(pre+name+".weight")))
			}
			*p.place = kernel.PackInt8Linear(layout, alg, first.Shape[2], first.Trits != nil, ws...)
		}
		if m.Config.OctonionAttention {
			w := m.Tensor(pre + "attention.head_mixer.W")
			alg, err := algebra.ByName(w.Algebra)
			if err != nil {
				return nil, err
			}
			gain := make([]float32, len(w.Scale))
			for c, beta := range m.Tensor(pre + "attention.head_mixer.beta").Data {
				gain[c] = w.Scale[c] * beta
			}
			l.mixer = kernel.PackInt8Linear(layout, alg, w.Shape[1], false, kernel.Int8Weight{W: w.Int8, Gain: gain})
		}
	}
	return q, nil
}

// int8Weight gives a linear layer's weights as integers with a factor a row.
// Float weights are rounded, with one scale for a row of all blocks.
func int8Weight(t *spinfile.Tensor) kernel.Int8Weight {
	if t.Trits != nil {
		return kernel.Int8Weight{W: t.Trits, Gain: t.Scale}
	}
	n, rows, cols := t.Shape[0], t.Shape[1], t.Shape[2]
	w := kernel.Int8Weight{W: make([]int8, len(t.Data)), Gain: make([]float32, rows)}
	for r := range rows {
		a := float32(0)
		for k := range n {
			a = max(a, kernel.MaxAbs(t.Data[(k*rows+r)*cols:][:cols]))
		}
		s := a / 127
		if s == 0 {
			continue
		}
		w.Gain[r] = s
		for k := range n {
			for c, v := range t.Data[(k*rows+r)*cols:][:cols] {
				w.W[(k*rows+r)*cols+c] = int8(math.RoundToEven(float64(v / s)))
			}
		}
	}
	return w
}

// int8Block is how many tokens go through a layer's products together: as
// many as keep their rows in the caches.
const int8Block = 14

// int8Run is the int8 arithmetic of one session.
//
// Many tokens are divided among the workers in blocks, each of which goes
// through a whole layer on one worker; the blocks meet only where a layer's
// attention needs all keys. Few tokens are divided otherwise: see int8FewTask.
type int8Run struct {
	s *Session
	m *int8Model

	h, q, k, v, o, gate, up, t []float32     // rows of activations
	cos, sin                   []float32     // [chunk, head_dim/2]
	scratch                    []int8Scratch // of each worker
	hidden                     []int8        // rounded rows for the output's table
	hiddenScale                []float32
	many                       []float32 // logits of several rows

	blocks int8BlockTask
	few    int8FewTask
	table  int8TableTask
}

// int8Scratch is a worker's memory.
type int8Scratch struct {
	h     []float32 // the residual stream: worker 0 has all rows, the others a copy for few tokens
	mixed []float32 // rows behind the head mixer, for few tokens
	z     []float32 // one row
	q     []int8    // one row
	scale []float32 // of each token of a block
	a     []int8    // of Int8Linear: rows of a block
	start []int32
	c     []int32
	acc   []int32 // of logits
	tile  kernel.Int8Scratch
	attention
}

func newInt8Run(s *Session, m *int8Model) *int8Run {
	c := &s.e.config
	r := &int8Run{s: s, m: m, scratch: make([]int8Scratch, s.e.pool.Threads())}
	for _, b := range []struct {
		p     *[]float32
		width int
	}{
		{&r.cos, c.HeadDim() / 2}, {&r.sin, c.HeadDim() / 2},
		{&r.h, c.NEmbd}, {&r.q, c.NEmbd}, {&r.k, c.KVDim()}, {&r.v, c.KVDim()}, {&r.o, c.NEmbd}, {&r.t, c.NEmbd},
		{&r.gate, c.HiddenDim}, {&r.up, c.HiddenDim},
	} {
		*b.p = make([]float32, s.chunk*b.width)
	}
	// Room for the largest product of the largest block.
	few := min(s.chunk, r.fewTokens())
	tokens := max(min(s.chunk, int8Block), few)
	rowsA, sizeA, sizeC := 0, 0, 0
	for i := range m.layers {
		l := &m.layers[i]
		for _, p := range []*kernel.Int8Linear{l.qkv, l.wo, l.gate, l.up, l.down, l.mixer} {
			if p != nil {
				rows := p.Rows(tokens)
				if p == l.mixer {
					rows = tokens * c.NHead
				}
				rowsA, sizeA, sizeC = max(rowsA, rows), max(sizeA, rows*p.Stride()), max(sizeC, rows*p.CStride())
			}
		}
	}
	width := max(c.NEmbd, c.HiddenDim)
	for i := range r.scratch {
		r.scratch[i] = int8Scratch{
			z: make([]float32, c.NEmbd), q: make([]int8, width), scale: make([]float32, tokens),
			a: make([]int8, sizeA), start: make([]int32, rowsA), c: make([]int32, sizeC), acc: make([]int32, headBlock),
			h: make([]float32, few*c.NEmbd), mixed: make([]float32, few*c.NEmbd),
		}
	}
	r.scratch[0].h = r.h
	r.few.meet = kernel.NewBarrier(len(r.scratch))
	r.blocks.r, r.few.r, r.table.r = r, r, r
	if p := m.output.packed; p != nil {
		r.table.input = make([]int8, p.InputLen())
	}
	return r
}

// fewTokens is up to how many tokens are few.
func (r *int8Run) fewTokens() int {
	if threads := len(r.scratch); threads > 1 {
		return 2*threads - 1
	}
	return 0
}

// forward takes n = len(ids) ≤ chunk tokens through the layers and leaves
// the residual stream of each in r.h.
func (r *int8Run) forward(ids []int32) {
	if len(ids) <= r.fewTokens() {
		r.prepare(len(ids))
		r.few.ids = ids
		r.s.e.pool.Share(&r.few)
		return
	}
	r.begin(ids)
	for i := range r.m.layers {
		r.layer(i)
	}
}

// prepare makes room for the attention of n tokens and computes their
// rotations.
func (r *int8Run) prepare(n int) {
	for i := range r.scratch {
		r.scratch[i].attention.fit(&r.s.cache)
	}
	r.s.rotations(r.cos, r.sin, n)
}

// begin takes ids as far as the keys and values of the first layer.
func (r *int8Run) begin(ids []int32) {
	n, threads := len(ids), len(r.scratch)
	r.prepare(n)
	r.embed(&r.scratch[0], ids)
	rounds := (n + threads*int8Block - 1) / (threads * int8Block)
	r.blocks.n, r.blocks.blocks = n, min(n, threads*rounds)
	r.layer(-1)
}

// layer takes the tokens from the attention of layer i to the keys and values
// of the next.
func (r *int8Run) layer(i int) {
	r.blocks.layer = i + 1
	r.s.e.pool.Run(r.blocks.blocks, &r.blocks)
}

// embed sets the rows of w.h to the embeddings of ids.
func (r *int8Run) embed(w *int8Scratch, ids []int32) {
	d := len(w.z)
	for i, id := range ids {
		kernel.ExactEmbedding8(w.h[i*d:(i+1)*d], r.m.embedding.row(w.q, int(id)), r.m.embedding.scale[id])
	}
}

// int8BlockTask takes a block of tokens from the attention of one layer to
// the keys and values of the next.
type int8BlockTask struct {
	r                *int8Run
	layer, n, blocks int
}

// Do does block i: the second half of the layer before, and the first half of
// this one.
func (t *int8BlockTask) Do(i, worker int) {
	r, w := t.r, &t.r.scratch[worker]
	lo, hi := t.n*i/t.blocks, t.n*(i+1)/t.blocks
	if t.layer > 0 {
		l := &r.m.layers[t.layer-1]
		for row := lo; row < hi; row++ {
			for g := range r.s.e.config.NKVHead {
				r.attend(w, t.layer-1, row, g)
			}
		}
		r.mix(w, l, r.o, lo, hi)
		r.load(w, l.wo, r.o, lo, hi)
		r.product(w, l.wo, lo, hi, r.t)
		r.residual(r.h, lo, hi)
		r.loadNorm(w, l.gate, l.ffnNorm, r.h, lo, hi)
		r.product(w, l.gate, lo, hi, r.gate)
		r.product(w, l.up, lo, hi, r.up)
		r.activate(lo, hi)
		r.load(w, l.down, r.gate, lo, hi)
		r.product(w, l.down, lo, hi, r.t)
		r.residual(r.h, lo, hi)
	}
	if t.layer < len(r.m.layers) {
		l := &r.m.layers[t.layer]
		r.loadNorm(w, l.qkv, l.attentionNorm, r.h, lo, hi)
		r.product(w, l.qkv, lo, hi, r.q, r.k, r.v)
		for row := lo; row < hi; row++ {
			for g := range r.s.e.config.NKVHead {
				r.store(w, t.layer, row, g)
			}
		}
	}
}

// expand makes a rounded row token i of a block.
func (w *int8Scratch) expand(l *kernel.Int8Linear, i int, q []int8, scale float32) {
	w.scale[i] = scale
	rows := l.Rows(1)
	l.Expand(w.a[i*rows*l.Stride():(i+1)*rows*l.Stride()], w.start[i*rows:(i+1)*rows], q)
}

// load1 rounds x to int8 and makes it token i of a block.
func (w *int8Scratch) load1(l *kernel.Int8Linear, x []float32, i int) {
	q := w.q[:len(x)]
	w.expand(l, i, q, kernel.ExactQuantize8(q, x))
}

// load makes rows lo … hi−1 of x the input of l.
func (r *int8Run) load(w *int8Scratch, l *kernel.Int8Linear, x []float32, lo, hi int) {
	width := l.Input()
	for i := lo; i < hi; i++ {
		w.load1(l, x[i*width:(i+1)*width], i-lo)
	}
}

// loadNorm makes norm(h) of rows lo … hi−1 the input of l.
func (r *int8Run) loadNorm(w *int8Scratch, l *kernel.Int8Linear, weight, h []float32, lo, hi int) {
	d := len(w.z)
	for i := lo; i < hi; i++ {
		kernel.ExactRMSNorm(w.z, h[i*d:(i+1)*d], weight, float32(r.s.e.config.NormEps))
		w.load1(l, w.z, i-lo)
	}
}

// product computes rows lo … hi−1 of the outputs of l from its loaded input.
func (r *int8Run) product(w *int8Scratch, l *kernel.Int8Linear, lo, hi int, y ...[]float32) {
	l.Multiply(&w.tile, w.c, w.a, w.start, l.Rows(hi-lo), 0, l.Panels())
	var out [3][]float32
	copy(out[:], y)
	for i := lo; i < hi; i++ {
		r.scale(w, l, &out, i, i-lo, 0, l.Panels())
	}
}

// scale writes row i of the outputs y of l, token j of the block, columns of
// panels lo … hi−1.
func (r *int8Run) scale(w *int8Scratch, l *kernel.Int8Linear, y *[3][]float32, i, j, lo, hi int) {
	var row [3][]float32
	for o, all := range y {
		width := len(all) / r.s.chunk
		row[o] = all[i*width : (i+1)*width]
	}
	l.Scale(row[:], w.c[l.Rows(j)*l.CStride():], w.scale[j], lo, hi)
}

// store rotates the key of a row and head g, and the queries that share it, and
// puts key and value into the cache.
func (r *int8Run) store(w *int8Scratch, layer, row, g int) {
	c := &r.s.e.config
	hd := r.s.cache.hd
	half, share := hd/2, c.NHead/c.NKVHead
	cos, sin := r.cos[row*half:(row+1)*half], r.sin[row*half:(row+1)*half]
	at := row*c.KVDim() + g*hd
	k, v := r.k[at:at+hd], r.v[at:at+hd]
	kernel.ExactRotate(r.q[row*c.NEmbd+g*share*hd:][:share*hd], cos, sin)
	kernel.ExactRotate(k, cos, sin)
	r.s.cache.store(w.attention.q, layer, r.s.pos+row, g, k, v)
}

// attend is the attention of a row over a key-value head.
func (r *int8Run) attend(w *int8Scratch, layer, row, g int) {
	d := len(w.z)
	r.s.cache.attend(&w.attention, layer, r.s.pos+row, g, r.q[row*d:(row+1)*d], r.o[row*d:(row+1)*d])
}

// mix applies the head mixer to rows lo … hi−1 of r.o, in groups of as many
// heads as its algebra has dimensions, and writes them to o. The scale of the
// rounding is that of the whole row.
func (r *int8Run) mix(w *int8Scratch, layer *int8Layer, o []float32, lo, hi int) {
	l := layer.mixer
	if l == nil {
		return
	}
	d := len(w.z)
	rows := l.Rows(1)
	width := rows * r.s.cache.hd // of a group
	groups := d / width
	for i := lo; i < hi; i++ {
		w.scale[i-lo] = kernel.ExactQuantize8(w.q[:d], r.o[i*d:(i+1)*d])
		for g := range groups {
			at := ((i-lo)*groups + g) * rows
			l.Expand(w.a[at*l.Stride():(at+rows)*l.Stride()], w.start[at:at+rows], w.q[g*width:(g+1)*width])
		}
	}
	l.Multiply(&w.tile, w.c, w.a, w.start, (hi-lo)*groups*rows, 0, l.Panels())
	for i := lo; i < hi; i++ {
		for g := range groups {
			y := [1][]float32{o[i*d+g*width : i*d+(g+1)*width]}
			l.Scale(y[:], w.c[((i-lo)*groups+g)*rows*l.CStride():], w.scale[i-lo], 0, l.Panels())
		}
	}
}

// residual: h += t.
func (r *int8Run) residual(h []float32, lo, hi int) {
	d := r.s.e.config.NEmbd
	h = h[lo*d : hi*d]
	kernel.Add(h, h, r.t[lo*d:hi*d])
}

// activate: gate = silu(gate)∘up.
func (r *int8Run) activate(lo, hi int) {
	n := r.s.e.config.HiddenDim
	g := r.gate[lo*n : hi*n]
	kernel.ExactSwiGLU(g, g, r.up[lo*n:hi*n])
}

// int8Rows is how many rows' logits logProbs holds at a time.
const int8Rows = 64

// int8TableTask computes the logits of several rows, a block of the table an
// item: float32(acc)·(s·scale of the table's row). A second pass over the rows
// takes the log-probability of each one's target.
type int8TableTask struct {
	r       *int8Run
	q       []int8    // [rows, d], the rounded hidden state
	input   []int8    // of one row, for a packed table
	s       []float32 // [rows], its scale
	y       []float32 // [rows, vocab]
	targets []int32   // of the second pass
	probs   []float32
}

// Do computes one block.
func (t *int8TableTask) Do(i, worker int) {
	w, table := &t.r.scratch[worker], t.r.m.output
	d, vocab := table.d, table.vocab
	if t.targets != nil {
		t.probs[i] = kernel.ExactLogProb(t.y[i*vocab:(i+1)*vocab], int(t.targets[i]))
		return
	}
	lo, hi := i*headBlock, min(vocab, (i+1)*headBlock)
	n := hi - lo
	if len(w.acc) < len(t.s)*n {
		w.acc = make([]int32, len(t.s)*n)
	}
	switch {
	case table.packed == nil:
		kernel.MatMulInt8(&w.tile, w.acc, n, table.int8[lo*d:hi*d], t.q, n, d, len(t.s))
	case len(t.s) == 1:
		table.packed.MatVec(w.acc[:n], t.input, lo)
	default:
		table.packed.MatMul(&w.tile, w.acc, n, t.q, lo, n, len(t.s))
	}
	for j, s := range t.s {
		kernel.ExactScaleInt32(t.y[j*vocab+lo:], vocab, w.acc[j*n:], n, 1, s, table.scale[lo:hi])
	}
}

// logitRows sets y [hi−lo, vocab] to the logits after rows lo … hi−1 of the last
// forward.
func (r *int8Run) logitRows(y []float32, lo, hi int) {
	t, z := &r.table, r.scratch[0].z
	d := len(z)
	if len(r.hidden) < (hi-lo)*d {
		r.hidden, r.hiddenScale = make([]int8, (hi-lo)*d), make([]float32, hi-lo)
	}
	t.q, t.s, t.y, t.targets = r.hidden[:(hi-lo)*d], r.hiddenScale[:hi-lo], y, nil
	for i := lo; i < hi; i++ {
		kernel.ExactRMSNorm(z, r.h[i*d:(i+1)*d], r.m.norm, float32(r.s.e.config.NormEps))
		t.s[i-lo] = kernel.ExactQuantize8(t.q[(i-lo)*d:(i-lo+1)*d], z)
	}
	if p := r.m.output.packed; p != nil && hi-lo == 1 {
		p.Input(t.input, t.q)
	}
	r.s.e.pool.Run((r.s.e.config.VocabSize+headBlock-1)/headBlock, t)
}

// logits computes the logits after a row of the last forward.
func (r *int8Run) logits(y []float32, row int) { r.logitRows(y, row, row+1) }

// logProbs gives the log-probability of targets[i] after row i of the last
// forward.
func (r *int8Run) logProbs(y []float32, targets []int32) {
	vocab := r.s.e.config.VocabSize
	for lo := 0; lo < len(targets); lo += int8Rows {
		hi := min(len(targets), lo+int8Rows)
		if len(r.many) < (hi-lo)*vocab {
			r.many = make([]float32, (hi-lo)*vocab)
		}
		r.logitRows(r.many[:(hi-lo)*vocab], lo, hi)
		r.table.targets, r.table.probs = targets[lo:hi], y[lo:hi]
		r.s.e.pool.Run(hi-lo, &r.table)
	}
}
