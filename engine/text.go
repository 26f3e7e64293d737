package engine

import (
	"spinnet/arch"
	"spinnet/kernel"
	"spinnet/spinfile"
)

// Text is one text in progress on some device: Session on the CPU, or a GPU's
// session of package cuda. It serves one goroutine at a time.
type Text interface {
	Config() arch.Config
	// Pos is the number of tokens read.
	Pos() int
	// Reset empties the text.
	Reset()
	// Prefill reads ids and returns the logits [vocab] of the token after them,
	// valid until the next call. No ids, or one outside the vocabulary, is an
	// error, and then nothing is read; so is a failure of the device.
	Prefill(ids []int32) (logits []float32, err error)
	// Draw draws the next token from the logits that the last call has given.
	Draw(from *Sampler) int32
	// Score reads ids, writes the log-probability of targets[i] after ids[i] to
	// logProbs[i], and returns the logits after the last.
	Score(logProbs []float32, ids, targets []int32) (logits []float32, err error)
}

// Config is the model's configuration.
func (s *Session) Config() arch.Config { return s.e.config }

// Draw draws the next token from the logits that the last call has given.
func (s *Session) Draw(from *Sampler) int32 { return from.Next(s.last) }

// Score is Prefill with the log-probabilities of targets.
func (s *Session) Score(logProbs []float32, ids, targets []int32) ([]float32, error) {
	for _, list := range [][]int32{ids, targets} {
		if err := s.e.checkIDs(list); err != nil {
			return nil, err
		}
	}
	for len(ids) > 0 {
		n := min(len(ids), s.chunk)
		s.score(logProbs[:n], ids[:n], targets[:n])
		logProbs, ids, targets = logProbs[n:], ids[n:], targets[n:]
	}
	return s.last, nil
}

// What sessions on other devices need to compute the same.

// NumericOf is the arithmetic that a model runs in.
func (o Options) NumericOf(m *spinfile.Model) string {
	switch {
	case o.Numeric != "":
		return o.Numeric
	case m.Config.ActBits == 8:
		return Int8
	}
	return Float
}

// Rotations gives the rotary angles of a model's positions.
type Rotations struct{ frequencies []float64 }

// NewRotations prepares the angles.
func NewRotations(c arch.Config) Rotations {
	return Rotations{kernel.RoPEFrequencies(c.RopeTheta, c.HeadDim())}
}

// At sets cos and sin [head_dim/2] to those of a position.
func (r Rotations) At(cos, sin []float32, pos int) {
	kernel.RoPEAngles(cos, sin, pos, r.frequencies)
}

// RoundWeight gives a linear layer's weights for int8 numerics: −127 … 127 in
// the layout of the tensor, with a factor a row.
func RoundWeight(t *spinfile.Tensor) (w []int8, gain []float32) {
	r := int8Weight(t)
	return r.W, r.Gain
}

// LogProb is the logarithm of the probability of token id: SPEC §7's softmax.
func LogProb(logits []float32, id int32) float32 { return kernel.ExactLogProb(logits, int(id)) }
