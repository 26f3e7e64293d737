package engine

import (
	"errors"

	"spinnet/kernel"
)

// prefillChunk is how many tokens at most go through the layers together.
const prefillChunk = 128

// Session is one text in progress: its position and its key-value cache. A
// session serves one goroutine at a time.
type Session struct {
	e     *Engine
	pos   int // tokens so far
	chunk int // largest number of rows
	cache cache
	run   run
	last  []float32 // [vocab], the logits given out
	one   [1]int32  // the id of a step

	rows, layer int // of a pass: its tokens, 0 without one, and how many layers they are through

	sample *sampleMemory // of its generations
}

// run is the arithmetic of a session: floatRun or int8Run.
type run interface {
	// forward takes up to chunk tokens from position pos on through the
	// layers. The cache has room for them.
	forward(ids []int32)
	// begin and layer, called for each layer in turn, are forward in pieces.
	begin(ids []int32)
	layer(i int)
	// logits computes [vocab] logits after a row of the last forward.
	logits(y []float32, row int)
	// logProbs gives the log-probability of targets[i] after row i.
	logProbs(y []float32, targets []int32)
}

// NewSession starts an empty text.
func (e *Engine) NewSession() *Session {
	c := &e.config
	s := &Session{e: e, chunk: min(prefillChunk, c.BlockSize), last: make([]float32, c.VocabSize)}
	s.cache = newCache(c, s.chunk, e.int8Cache)
	s.run = e.newRun(s)
	return s
}

// Pos is the number of tokens the session has read.
func (s *Session) Pos() int { return s.pos }

// Reset empties the session.
func (s *Session) Reset() { s.pos, s.rows = 0, 0 }

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
	for len(ids) > s.chunk {
		s.forward(ids[:s.chunk])
		ids = ids[s.chunk:]
	}
	s.forward(ids)
	s.run.logits(s.last, len(ids)-1)
	return s.last, nil
}

// Step reads one id, which must be in the vocabulary, and returns the logits
// [vocab] of the token after it, valid until the session's next call. It
// allocates nothing, but where the cache grows.
func (s *Session) Step(id int32) []float32 {
	if id < 0 || int(id) >= s.e.config.VocabSize {
		panic("engine: token id " + itoa(int(id)) + " is outside the vocabulary of " + itoa(s.e.config.VocabSize))
	}
	s.e.mu.Lock()
	s.one[0] = id
	s.forward(s.one[:])
	s.run.logits(s.last, 0)
	s.e.mu.Unlock()
	return s.last
}

// forward reads up to chunk tokens. A pass that was begun is forgotten.
func (s *Session) forward(ids []int32) {
	s.rows = 0
	s.cache.reserve(s.pos+len(ids), s.pos)
	s.run.forward(ids)
	s.pos += len(ids)
}

// Chunk is how many tokens a pass takes at most.
func (s *Session) Chunk() int { return s.chunk }

// Begin starts a pass: ids, at most Chunk of them, on their way through the
// layers. Advance leads them on, and after the last layer they are read. The
// logits are those of Prefill and Step, bit by bit, however a text is divided
// into passes. Anything else that reads forgets the pass.
func (s *Session) Begin(ids []int32) error {
	if len(ids) == 0 || len(ids) > s.chunk {
		return errors.New("engine: a pass of " + itoa(len(ids)) + " tokens, want 1 to " + itoa(s.chunk))
	}
	if err := s.e.checkIDs(ids); err != nil {
		return err
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.cache.reserve(s.pos+len(ids), s.pos)
	s.run.begin(ids)
	s.rows, s.layer = len(ids), 0
	return nil
}

// Advance takes the tokens of a pass through up to n layers and returns how
// many are left; 0 when the tokens are read, or without a pass.
func (s *Session) Advance(n int) (left int) {
	layers := s.e.config.NLayer
	if s.rows == 0 || s.layer == layers {
		return 0
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	for ; n > 0 && s.layer < layers; n-- {
		s.run.layer(s.layer)
		s.layer++
	}
	if s.layer == layers {
		s.pos += s.rows
	}
	return layers - s.layer
}

// Logits returns the logits [vocab] of the token after those of the last
// pass, which Advance has finished, valid until the session's next call.
func (s *Session) Logits() []float32 {
	if s.rows == 0 || s.layer < s.e.config.NLayer {
		panic("engine: logits without a finished pass")
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.run.logits(s.last, s.rows-1)
	return s.last
}

// score reads ids, writes the log-probabilities of targets, and leaves the
// logits of the last.
func (s *Session) score(logProbs []float32, ids, targets []int32) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.forward(ids)
	s.run.logProbs(logProbs, targets)
	s.run.logits(s.last, len(ids)-1)
}

// rotations fills rows of cos and sin for the next n positions.
func (s *Session) rotations(cos, sin []float32, n int) {
	half := len(s.e.frequencies)
	for r := range n {
		kernel.RoPEAngles(cos[r*half:(r+1)*half], sin[r*half:(r+1)*half], s.pos+r, s.e.frequencies)
	}
}
