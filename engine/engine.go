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

	float *floatModel // one of these two
	int8  *int8Model
}

// MaxThreads bounds what a mistyped number of threads can start.
const MaxThreads = 1 << 12

// New packs a model's weights. The model must be valid; tensors that need no
// packing are shared, not copied.
func New(m *spinfile.Model, o Options) (*Engine, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if o.Threads > MaxThreads {
		return nil, errors.New("engine: " + itoa(o.Threads) + " threads, want at most " + itoa(MaxThreads))
	}
	numeric := o.Numeric
	if numeric == "" {
		if numeric = Float; m.Config.ActBits == 8 {
			numeric = Int8
		}
	}
	if o.Int8Cache && numeric != Int8 {
		return nil, errors.New("engine: an int8 cache needs int8 numerics, this is " + numeric)
	}
	e := &Engine{config: m.Config, int8Cache: o.Int8Cache, pool: kernel.NewPool(o.Threads),
		frequencies: kernel.RoPEFrequencies(m.Config.RopeTheta, m.Config.HeadDim())}
	var err error
	switch numeric {
	case Float:
		e.float, err = newFloatModel(e.pool, m)
	case Int8:
		e.int8, err = newInt8Model(m, kernel.NativeLayout())
	default:
		err = errors.New("engine: unknown numeric " + strconv.Quote(numeric) + ", want float or int8")
	}
	if err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// Config is the model's configuration.
func (e *Engine) Config() arch.Config { return e.config }

// Numeric is the arithmetic in use, Float or Int8.
func (e *Engine) Numeric() string {
	if e.int8 != nil {
		return Int8
	}
	return Float
}

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

func itoa(n int) string { return strconv.Itoa(n) }
