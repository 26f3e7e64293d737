// Package engine runs finished models: packed weights, sessions with a
// key-value cache, sampling, generation and scoring. It imports arch,
// algebra, kernel, spinfile and tokenizer, and neither fmt, os nor
// encoding/json: it is also compiled to WebAssembly.
//
// There are two arithmetics. Float is float32 throughout. Int8 is that of
// SPEC §7: the inputs of the linear layers, the head mixers and the output
// are int8, sums of products are exact integers, and what remains in float32
// has a fixed order, so that every machine computes the same bits.
package engine

import (
	"errors"
	"strconv"
	"sync"

	"spinnet/arch"
	"spinnet/kernel"
	"spinnet/spinfile"
)

// Numerics of an engine.
const (
	Float = "float" // float32
	Int8  = "int8"  // SPEC §7: the same bits on every machine
)

// Options of an engine; the zero value is the usual one.
type Options struct {
	Threads int    // less than one: one a CPU. Never changes the result
	Numeric string // Float, Int8, or "" for what the model was trained for: Int8 if its act_bits are 8

	// Int8Cache keeps keys and values in int8, in a quarter of the memory,
	// with some loss. It needs Int8 numerics.
	Int8Cache bool
}

// Engine is a model ready to run. Its sessions may be used from different
// goroutines; they take turns.
type Engine struct {
	config      arch.Config
	mu          sync.Mutex // held while a session computes: it guards the pool
	pool        *kernel.Pool
	frequencies []float64 // of rotation, [head_dim/2]
	int8Cache   bool

	numeric string
	newRun  func(s *Session) run // in that arithmetic
}

// MaxThreads bounds what a mistyped number of threads can start.
const MaxThreads = 1 << 12

// New packs a model's weights. The model must be valid; tensors that need no
// packing are shared, not copied.
func New(m *spinfile.Model, o Options) (*Engine, error) {
	o.Numeric = o.NumericOf(m)
	switch o.Numeric {
	case Int8:
		return NewInt8(m, o)
	case Float:
		if o.Int8Cache {
			return nil, errors.New("engine: an int8 cache needs int8 numerics, this is " + o.Numeric)
		}
		e, err := emptyEngine(m, o)
		if err != nil {
			return nil, err
		}
		f, err := newFloatModel(e.pool, m)
		if err != nil {
			e.Close()
			return nil, err
		}
		e.newRun = func(s *Session) run { return newFloatRun(s, f) }
		return e, nil
	}
	return nil, errors.New("engine: unknown numeric " + strconv.Quote(o.Numeric) + ", want float or int8")
}

// NewInt8 is New in Int8 arithmetic, whatever the options say. A program that
// uses it in place of New has no code for the other.
func NewInt8(m *spinfile.Model, o Options) (*Engine, error) {
	o.Numeric = Int8
	e, err := emptyEngine(m, o)
	if err != nil {
		return nil, err
	}
	q, err := newInt8Model(m, kernel.NativeLayout())
	if err != nil {
		e.Close()
		return nil, err
	}
	e.newRun = func(s *Session) run { return newInt8Run(s, q) }
	return e, nil
}

// emptyEngine checks a model and makes an engine of it that has no weights yet.
func emptyEngine(m *spinfile.Model, o Options) (*Engine, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if o.Threads > MaxThreads {
		return nil, errors.New("engine: " + itoa(o.Threads) + " threads, want at most " + itoa(MaxThreads))
	}
	return &Engine{config: m.Config, numeric: o.Numeric, int8Cache: o.Int8Cache, pool: kernel.NewPool(o.Threads),
		frequencies: kernel.RoPEFrequencies(m.Config.RopeTheta, m.Config.HeadDim())}, nil
}

// Config is the model's configuration.
func (e *Engine) Config() arch.Config { return e.config }

// Numeric is the arithmetic in use, Float or Int8.
func (e *Engine) Numeric() string { return e.numeric }

// Threads is the number of threads in use.
func (e *Engine) Threads() int { return e.pool.Threads() }

// Close ends the worker threads. No session may be used afterwards.
func (e *Engine) Close() { e.pool.Close() }

// checkIDs reports the first id outside the vocabulary.
func (e *Engine) checkIDs(ids []int32) error { return CheckIDs(ids, e.config.VocabSize) }

// CheckIDs reports the first id outside a vocabulary.
func CheckIDs(ids []int32, vocab int) error {
	for i, id := range ids {
		if id < 0 || int(id) >= vocab {
			return errors.New("engine: token id " + itoa(int(id)) + " at place " + itoa(i) + " is outside the vocabulary of " + itoa(vocab))
		}
	}
	return nil
}

func itoa(n int) string { return strconv.Itoa(n) }
