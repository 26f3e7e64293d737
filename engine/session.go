package engine

import (
	"errors"
	"math"
	"strconv"

	"spinnet/arch"
	"spinnet/kernel"
)

// prefillChunk is how many tokens at most go through the layers together.
const prefillChunk = 128

// rowBlock is how many rows of a row-wise step are one item for the pool.
const rowBlock = 16

// minRing is how many positions a cache has room for at first.
const minRing = 256

// Session is one text in progress: its position and its key-value cache. A
// session serves one goroutine at a time.
//
// The cache grows with the text, doubling, until it is a ring: each token
// sees the last block_size tokens, itself included, with keys rotated at
// their absolute positions, so a text may go on past the context length and
// nothing is computed again (SPEC §3).
type Session struct {
	e     *Engine
	pos   int // tokens so far
	chunk int // largest number of rows
	ring  int // positions the cache has room for, at most block_size + chunk − 1

	// Per layer and key-value head: keys [head_dim, ring], transposed so that
	// one query's scores are sums of long rows, and values [ring, head_dim].
	keys, values [][]float32

	cos, sin                   []float32 // [chunk, head_dim/2], rotations of the rows
	h, z, q, k, v, o, mixed, t []float32 // rows of activations
	gate, up                   []float32
	logits                     []float32 // [vocab]
	scores                     [][]float32

	rows rowTask
	attn attentionTask
	head headTask
}

// NewSession starts an empty text.
func (e *Engine) NewSession() *Session {
	c := e.config
	s := &Session{e: e, chunk: min(prefillChunk, c.BlockSize)}
	s.keys = make([][]float32, c.NLayer)
	s.values = make([][]float32, c.NLayer)
	s.scores = make([][]float32, e.pool.Threads())
	half := c.HeadDim() / 2
	s.cos = make([]float32, s.chunk*half)
	s.sin = make([]float32, s.chunk*half)
	for _, b := range []struct {
		p     *[]float32
		width int
	}{
		{&s.h, c.NEmbd}, {&s.z, c.NEmbd}, {&s.q, c.NEmbd}, {&s.k, c.KVDim()}, {&s.v, c.KVDim()},
		{&s.o, c.NEmbd}, {&s.mixed, c.NEmbd}, {&s.t, c.NEmbd}, {&s.gate, c.HiddenDim}, {&s.up, c.HiddenDim},
	} {
		*b.p = make([]float32, s.chunk*b.width)
	}
	s.logits = make([]float32, c.VocabSize)
	s.reserve(min(minRing, c.BlockSize))
	s.rows.s, s.attn.s, s.head.s = s, s, s
	return s
}

// Pos is the number of tokens the session has read.
func (s *Session) Pos() int { return s.pos }

// Reset empties the session.
func (s *Session) Reset() { s.pos = 0 }

// Engine is the session's engine.
func (s *Session) Engine() *Engine { return s.e }

// Prefill reads ids and returns the logits [vocab] of the token after them,
// valid until the session's next call. No ids, or one outside the
// vocabulary, is an error, and then nothing is read.
func (s *Session) Prefill(ids []int32) ([]float32, error) {
	if len(ids) == 0 {
		return nil, errors.New("engine: nothing to read: no token ids")
	}
	if err := s.e.checkIDs(ids); err != nil {
		return nil, err
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	for len(ids) > 0 {
		n := min(len(ids), s.chunk)
		s.forward(ids[:n])
		if ids = ids[n:]; len(ids) == 0 {
			return s.lastLogits(n), nil
		}
	}
	return s.logits, nil
}

// Step reads one id, which must be in the vocabulary, and returns the logits
// [vocab] of the token after it, valid until the session's next call. It
// allocates nothing.
func (s *Session) Step(id int32) []float32 {
	if id < 0 || int(id) >= s.e.config.VocabSize {
		panic("engine: token id " + itoa(int(id)) + " is outside the vocabulary of " + itoa(s.e.config.VocabSize))
	}
	s.e.mu.Lock()
	one := [1]int32{id}
	s.forward(one[:])
	l := s.lastLogits(1)
	s.e.mu.Unlock()
	return l
}

// lastLogits computes norm(h)·Eᵀ of the last of n rows, whose norm forward
// has taken.
func (s *Session) lastLogits(n int) []float32 {
	d := s.e.config.NEmbd
	s.head.row = s.z[(n-1)*d : n*d]
	s.e.pool.Run((len(s.logits)+headBlock-1)/headBlock, &s.head)
	return s.logits
}

// headTask computes the logits of one row from the engine's head.
type headTask struct {
	s   *Session
	row []float32
}

// Do computes one block of logits.
func (t *headTask) Do(i, _ int) {
	lo, hi := i*headBlock, min(len(t.s.logits), (i+1)*headBlock)
	y := t.s.logits[lo:hi]
	clear(y)
	block := t.s.e.head[lo*len(t.row) : hi*len(t.row)]
	for c, x := range t.row {
		kernel.Axpy(y, x, block[c*len(y):(c+1)*len(y)])
	}
}

// forward takes n = len(ids) ≤ chunk tokens through the layers and leaves
// the final norm of each in s.z.
func (s *Session) forward(ids []int32) {
	e, c, n := s.e, &s.e.config, len(ids)
	d := c.NEmbd
	s.reserve(s.pos + n)
	kernel.EmbeddingGather(s.h[:n*d], e.embedding, ids, d)
	s.rotations(n)
	for i := range e.layers {
		l := &e.layers[i]
		s.rowwise(n, i, (*Session).beforeAttention)
		l.wq.Forward(e.pool, s.q, s.z, n)
		l.wk.Forward(e.pool, s.k, s.z, n)
		l.wv.Forward(e.pool, s.v, s.z, n)
		s.rowwise(n, i, (*Session).cache)
		s.attn.layer = i
		e.pool.Run(n*c.NKVHead, &s.attn)
		o := s.o
		if l.mixer != nil {
			groups := c.NHead / arch.AlgebraDim(c.MixerAlgebra)
			l.mixer.Forward(e.pool, s.mixed, s.o, n*groups)
			o = s.mixed
		}
		if c.ActBits == 8 {
			kernel.FakeQuant8(s.z, o, n, d)
			o = s.z
		}
		l.wo.Forward(e.pool, s.t, o, n)
		s.rowwise(n, i, (*Session).beforeFeedForward)
		l.gate.Forward(e.pool, s.gate, s.z, n)
		l.up.Forward(e.pool, s.up, s.z, n)
		s.rowwise(n, i, (*Session).activate)
		l.down.Forward(e.pool, s.t, s.gate, n)
		s.rowwise(n, i, (*Session).afterFeedForward)
	}
	kernel.RMSNorm(s.z[:n*d], s.h[:n*d], e.norm, n, d, float32(c.NormEps))
	s.pos += n
}

// rowTask does a row-wise step on blocks of rows.
type rowTask struct {
	s       *Session
	n, l    int
	current func(s *Session, layer, lo, hi int)
}

// Do runs the step on one block of rows.
func (t *rowTask) Do(i, _ int) {
	t.current(t.s, t.l, i*rowBlock, min(t.n, (i+1)*rowBlock))
}

// rowwise runs a step on rows 0 … n−1.
func (s *Session) rowwise(n, layer int, step func(s *Session, layer, lo, hi int)) {
	if n <= rowBlock {
		step(s, layer, 0, n)
		return
	}
	s.rows.n, s.rows.l, s.rows.current = n, layer, step
	s.e.pool.Run((n+rowBlock-1)/rowBlock, &s.rows)
}

// quantised rounds rows to int8 levels in place if the model asks for it.
func (s *Session) quantised(x []float32, rows, width int) {
	if s.e.config.ActBits == 8 {
		kernel.FakeQuant8(x, x, rows, width)
	}
}

// beforeAttention: z = norm(h).
func (s *Session) beforeAttention(layer, lo, hi int) {
	d := s.e.config.NEmbd
	z := s.z[lo*d : hi*d]
	kernel.RMSNorm(z, s.h[lo*d:hi*d], s.e.layers[layer].attentionNorm, hi-lo, d, float32(s.e.config.NormEps))
	s.quantised(z, hi-lo, d)
}

// beforeFeedForward: h += t, z = norm(h).
func (s *Session) beforeFeedForward(layer, lo, hi int) {
	d := s.e.config.NEmbd
	h, z := s.h[lo*d:hi*d], s.z[lo*d:hi*d]
	kernel.Add(h, h, s.t[lo*d:hi*d])
	kernel.RMSNorm(z, h, s.e.layers[layer].ffnNorm, hi-lo, d, float32(s.e.config.NormEps))
	s.quantised(z, hi-lo, d)
}

// activate: gate = silu(gate)∘up.
func (s *Session) activate(_, lo, hi int) {
	w := s.e.config.HiddenDim
	g := s.gate[lo*w : hi*w]
	kernel.SwiGLU(g, g, s.up[lo*w:hi*w])
	s.quantised(g, hi-lo, w)
}

// afterFeedForward: h += t.
func (s *Session) afterFeedForward(_, lo, hi int) {
	d := s.e.config.NEmbd
	h := s.h[lo*d : hi*d]
	kernel.Add(h, h, s.t[lo*d:hi*d])
}

// rotations fills s.cos and s.sin for the next n positions: the rows of
// kernel.RoPETable, which has an end.
func (s *Session) rotations(n int) {
	half := len(s.e.frequencies)
	for r := range n {
		p := float64(s.pos + r)
		for j, f := range s.e.frequencies {
			sin, cos := math.Sincos(p * f)
			s.cos[r*half+j], s.sin[r*half+j] = float32(cos), float32(sin)
		}
	}
}

// reserve makes room in the cache for the given number of positions, or for
// as many as the ring ever holds. Before that is reached nothing has wrapped
// around, and position p is in slot p.
func (s *Session) reserve(positions int) {
	c := &s.e.config
	if positions <= s.ring || s.ring == c.BlockSize+s.chunk-1 {
		return
	}
	ring := min(c.BlockSize+s.chunk-1, max(positions, 2*s.ring))
	hd, used := c.HeadDim(), min(s.pos, s.ring)
	for i := range s.keys {
		keys, values := make([]float32, c.KVDim()*ring), make([]float32, c.KVDim()*ring)
		for ch := range c.KVDim() {
			copy(keys[ch*ring:], s.keys[i][ch*s.ring:][:used])
		}
		for g := range c.NKVHead {
			copy(values[g*ring*hd:], s.values[i][g*s.ring*hd:][:used*hd])
		}
		s.keys[i], s.values[i] = keys, values
	}
	for i := range s.scores {
		s.scores[i] = make([]float32, min(ring, c.BlockSize))
	}
	s.ring = ring
}

// cache rotates queries and keys of rows lo … hi−1 and stores keys and
// values.
func (s *Session) cache(layer, lo, hi int) {
	c := &s.e.config
	hd, kv := c.HeadDim(), c.KVDim()
	half := hd / 2
	cos, sin := s.cos[lo*half:hi*half], s.sin[lo*half:hi*half]
	kernel.RoPE(s.q[lo*c.NEmbd:hi*c.NEmbd], hi-lo, c.NHead, hd, 0, hi-lo, cos, sin, false)
	kernel.RoPE(s.k[lo*kv:hi*kv], hi-lo, c.NKVHead, hd, 0, hi-lo, cos, sin, false)
	for r := lo; r < hi; r++ {
		slot := (s.pos + r) % s.ring
		for i, x := range s.k[r*kv : (r+1)*kv] {
			s.keys[layer][i*s.ring+slot] = x // head i/hd, channel i%hd
		}
		for g := range c.NKVHead {
			copy(s.values[layer][(g*s.ring+slot)*hd:][:hd], s.v[r*kv+g*hd:])
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
