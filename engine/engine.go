// Package engine runs finished models: packed weights, sessions with a
// key-value cache, sampling, generation and scoring. It imports arch,
// algebra, kernel, spinfile and tokenizer, and neither fmt, os nor
// encoding/json: it is also compiled to WebAssembly.
//
// The arithmetic is float32. A model trained with int8 activations
// (act_bits = 8) has the inputs of its linear layers rounded to the same
// levels as in training.
package engine

import (
	"errors"
	"math"
	"strings"
	"sync"

	"spinnet/algebra"
	"spinnet/arch"
	"spinnet/kernel"
	"spinnet/spinfile"
)

// Engine is a model ready to run. Its sessions may be used from different
// goroutines; they take turns.
type Engine struct {
	config arch.Config
	mu     sync.Mutex // held while a session computes: it guards the pool
	pool   *kernel.Pool

	embedding []float32 // [vocab, d]
	output    []float32 // [vocab, d], the same unless untied
	head      []float32 // output as newHead arranges it
	layers    []layer
	norm      []float32 // [d]

	frequencies []float64 // of rotation, [head_dim/2]
}

// layer is one transformer block (SPEC §2).
type layer struct {
	attentionNorm, ffnNorm []float32
	wq, wk, wv, wo         *kernel.Linear
	mixer                  *kernel.Linear // nil without a head mixer
	gate, up, down         *kernel.Linear
}

// maxThreads bounds what a mistyped number of threads can start.
const maxThreads = 1 << 12 // as for the key threads of a recipe

// New packs a model's weights for the given number of threads; less than one
// means one per CPU. The model must be valid; its embedding and norms are
// shared, not copied.
func New(m *spinfile.Model, threads int) (*Engine, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if threads > maxThreads {
		return nil, errors.New("engine: " + itoa(threads) + " threads, want at most " + itoa(maxThreads))
	}
	c := m.Config
	e := &Engine{config: c, pool: kernel.NewPool(threads), layers: make([]layer, c.NLayer)}
	for j := 0; j < c.HeadDim(); j += 2 {
		e.frequencies = append(e.frequencies, math.Pow(c.RopeTheta, -float64(j)/float64(c.HeadDim())))
	}
	if err := e.pack(m); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// pack gives every tensor its place, in the layout of the kernels.
func (e *Engine) pack(m *spinfile.Model) error {
	var wide []float32 // trits of one tensor as floats
	var mixer *spinfile.Tensor
	for i := range m.Tensors {
		t := &m.Tensors[i]
		switch t.Kind {
		case arch.Embedding:
			w := t.Floats()
			if t.Name != arch.OutputName {
				e.embedding = w
			}
			e.output = w
			e.head = newHead(w, e.config.NEmbd) // the output's own table, where there is one, comes last
		case arch.Norm:
			*e.normOf(t) = t.Data
		case arch.MixerWeight:
			mixer = t
		case arch.MixerBeta: // comes right after its weight
			alg, err := algebra.ByName(mixer.Algebra)
			if err != nil {
				return err
			}
			k := kernel.NewLinear(alg, mixer.Shape[2], mixer.Shape[1], true)
			k.Pack(e.pool, mixer.Floats(), t.Data)
			e.layers[t.Layer].mixer = k
		case arch.Ternary:
			alg, err := algebra.ByName(t.Algebra)
			if err != nil {
				return err
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
			k.Pack(e.pool, w, t.Scale)
			*e.linearOf(t) = k
		}
	}
	return nil
}

// headBlock is how many logits are one item for the pool.
const headBlock = 1024

// newHead copies the embedding [vocab, d] in blocks of headBlock rows, each
// transposed: the logits of one token are then sums of long rows that lie one
// after another.
func newHead(embedding []float32, d int) []float32 {
	head := make([]float32, 0, len(embedding))
	for len(embedding) > 0 {
		n := min(len(embedding), headBlock*d)
		for c := range d {
			for i := c; i < n; i += d {
				head = append(head, embedding[i])
			}
		}
		embedding = embedding[n:]
	}
	return head
}

// normOf gives the place of a norm's weight.
func (e *Engine) normOf(t *spinfile.Tensor) *[]float32 {
	if t.Layer < 0 {
		return &e.norm
	}
	l := &e.layers[t.Layer]
	if strings.HasSuffix(t.Name, ".attention_norm.weight") {
		return &l.attentionNorm
	}
	return &l.ffnNorm
}

// linearOf gives the place of a linear layer.
func (e *Engine) linearOf(t *spinfile.Tensor) **kernel.Linear {
	l := &e.layers[t.Layer]
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

// Config is the model's configuration.
func (e *Engine) Config() arch.Config { return e.config }

// Threads is the number of threads in use.
func (e *Engine) Threads() int { return e.pool.Threads() }

// Close ends the worker threads. No session may be used afterwards.
func (e *Engine) Close() { e.pool.Close() }

// checkIDs reports the first id outside the vocabulary.
func (e *Engine) checkIDs(ids []int32) error {
	for i, id := range ids {
		if id < 0 || int(id) >= e.config.VocabSize {
			return errors.New("engine: token id " + itoa(int(id)) + " at place " + itoa(i) + " is outside the vocabulary of " + itoa(e.config.VocabSize))
		}
	}
	return nil
}
