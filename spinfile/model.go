// Package spinfile holds a finished model in memory: ternary weights as
// trits with their scales, everything else as float32. Checkpoints become
// such models through FromLatents; package interop reads them from files and
// package engine runs them. It imports package arch only, and neither fmt,
// os nor encoding/json: it is also compiled to WebAssembly.
package spinfile

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"spinnet/arch"
)

// TokenizerInfo says how text becomes token ids.
type TokenizerInfo struct {
	Kind   string    `json:"kind"`             // "chars", "bytes", "gpt2", "llama"; "" when unknown
	Chars  string    `json:"chars,omitempty"`  // "chars": the sorted distinct characters, id = place
	Keep   []int32   `json:"keep,omitempty"`   // "gpt2" with a trimmed vocabulary: the GPT-2 id of each id, ascending; nil for all
	Pieces []string  `json:"pieces,omitempty"` // "llama": the text of each id
	Scores []float32 `json:"scores,omitempty"` // "llama": how early pieces merge, the highest first
}

// Equal reports whether two tokenizers are the same.
func (t TokenizerInfo) Equal(o TokenizerInfo) bool {
	return t.Kind == o.Kind && t.Chars == o.Chars && slices.Equal(t.Keep, o.Keep) &&
		slices.Equal(t.Pieces, o.Pieces) && slices.Equal(t.Scores, o.Scores)
}

// Tensor is one parameter of a finished model, in one of four forms:
//
//   - Data: float32 values;
//   - Trits with Scale: a Ternary parameter of a model with a quantizer;
//   - Int8 with Scale: an Embedding or MixerWeight as Quantize or a file
//     gives it, value = Scale[row]·Int8. Rows of an embedding are its tokens.
//     Rows of a mixer are its outputs: each of its blocks is kept transposed,
//     W[k][in][out] = Scale[out]·Int8[k][out][in], one scale for all blocks;
//   - Packed with Bits, Groups and Scale: an Embedding in 4 or 6 bits as
//     QuantizeEmbedding or a file gives it, which stays packed in memory.
//     Every run of GroupSize values of a row is a factor 1 … 255 times
//     integers of Bits bits, and these products are what Int8 would be.
type Tensor struct {
	arch.Param
	Data  []float32 // Param.Len() values, row-major
	Trits []int8    // Param.Len() values of −1, 0, +1, row-major [n, N, K]
	Int8  []int8    // Param.Len() values of −127 … 127, in rows as above
	Scale []float32 // of Trits [N]: γ·beta, the factor of each output row of every block; of Int8 and Packed: one a row

	Packed []byte  // the integers as a file has them (docs/format.md)
	Bits   int     // of Packed: 4 or 6
	Groups []uint8 // of Packed: the factors [vocab, ⌈d/GroupSize⌉]
}

// GroupSize is the number of values of an embedding's row that share a factor
// where they are packed.
const GroupSize = 32

// Zeros counts the zero weights among the trits.
func (t *Tensor) Zeros() int {
	n := 0
	for _, q := range t.Trits {
		if q == 0 {
			n++
		}
	}
	return n
}

// Model is a finished model. Tensors are in the order of arch.Params without
// the Beta parameters, which are folded into Scale.
type Model struct {
	Config    arch.Config
	Tokenizer TokenizerInfo
	Tensors   []Tensor
	Meta      map[string]string // provenance: free text, never needed to run
}

// Tensor returns the tensor of that name, or nil.
func (m *Model) Tensor(name string) *Tensor {
	for i := range m.Tensors {
		if m.Tensors[i].Name == name {
			return &m.Tensors[i]
		}
	}
	return nil
}

// Counts sums the model's weights: trits, zeros among them, float values.
func (m *Model) Counts() (trits, zeros, floats int) {
	for i := range m.Tensors {
		t := &m.Tensors[i]
		trits += len(t.Trits)
		zeros += t.Zeros()
		floats += len(t.Data) + len(t.Int8) + len(t.Scale)
		if t.Packed != nil {
			floats += t.Len()
		}
	}
	return trits, zeros, floats
}

// FromLatents makes a model of trained parameters: get returns the values of
// the parameter of that name (as in arch.Params), or nil. Ternary latents are
// quantised by c.Quantizer (SPEC §1); with quantizer none they stay as they
// are. Values that are kept are shared with the caller, not copied. A missing
// parameter, a wrong length, and a value that is not finite are errors that
// name the parameter.
func FromLatents(c arch.Config, tok TokenizerInfo, get func(name string) []float32) (*Model, error) {
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &Model{Config: c, Tokenizer: tok, Meta: map[string]string{}}
	fetch := func(p arch.Param) ([]float32, error) {
		w := get(p.Name)
		if w == nil {
			return nil, errors.New("spinfile: parameter " + p.Name + " is missing")
		}
		if len(w) != p.Len() {
			return nil, errors.New("spinfile: parameter " + p.Name + " has " + strconv.Itoa(len(w)) +
				" values, want " + strconv.Itoa(p.Len()) + " = " + shapeString(p.Shape))
		}
		return w, finite(p.Name, w)
	}
	for _, p := range arch.Params(c) {
		w, err := fetch(p)
		if err != nil {
			return nil, err
		}
		t := Tensor{Param: p, Data: w}
		switch {
		case p.Kind == arch.Beta:
			// Its layer's weight comes just before it.
			copy(m.Tensors[len(m.Tensors)-1].Scale, w)
			continue
		case p.Kind == arch.Ternary && c.Quantizer != arch.None:
			t.Data = nil
			t.Trits = make([]int8, len(w))
			t.Scale = make([]float32, p.Shape[1])
			gamma := float32(1)
			if c.Quantizer == arch.AbsMean {
				gamma = Gamma(w)
				QuantizeAbsMean(t.Trits, w, gamma)
			} else {
				QuantizeClassic(t.Trits, w)
			}
			for i := range t.Scale {
				t.Scale[i] = gamma
			}
		}
		m.Tensors = append(m.Tensors, t)
	}
	return m, m.Validate()
}

// Validate checks that a model is complete: a valid configuration, exactly
// the tensors that it asks for in their order, lengths that fit the shapes,
// trits of −1, 0 and +1 only, finite values, and a tokenizer that fits the
// vocabulary.
func (m *Model) Validate() error {
	if err := m.Config.Validate(); err != nil {
		return err
	}
	i := 0
	for _, p := range arch.Params(m.Config) {
		if p.Kind == arch.Beta {
			continue
		}
		if i == len(m.Tensors) {
			return errors.New("spinfile: tensor " + p.Name + " is missing")
		}
		t := &m.Tensors[i]
		i++
		if t.Name != p.Name {
			return errors.New("spinfile: tensor " + strconv.Itoa(i-1) + " is " + strconv.Quote(t.Name) + ", want " + p.Name)
		}
		if err := t.check(p, m.Config.Quantizer); err != nil {
			return err
		}
	}
	if i != len(m.Tensors) {
		return errors.New("spinfile: tensor " + strconv.Quote(m.Tensors[i].Name) + " does not belong to the model")
	}
	return m.Tokenizer.check(m.Config.VocabSize)
}

// check compares a tokenizer with the size of a model's vocabulary.
func (t *TokenizerInfo) check(vocab int) error {
	switch t.Kind {
	case "":
	case "bytes":
		return checkSize(byteVocab, vocab)
	case "gpt2":
		return t.checkKeep(vocab)
	case "llama":
		if n := len(t.Pieces); n < leastPieces || n > vocab || n != len(t.Scores) {
			return errors.New("spinfile: the tokenizer has " + strconv.Itoa(n) + " pieces and " + strconv.Itoa(len(t.Scores)) + " scores, the model a vocabulary of " + strconv.Itoa(vocab) + "; want " + strconv.Itoa(leastPieces) + " pieces or more")
		}
		return finite("tokenizer.scores", t.Scores)
	case "chars":
		if !utf8.ValidString(t.Chars) {
			return errors.New("spinfile: the character vocabulary is not valid UTF-8")
		}
		if t.Chars == "" {
			return errors.New("spinfile: the character vocabulary is empty")
		}
		last := rune(-1)
		for i, r := range t.Chars {
			if r <= last {
				return errors.New("spinfile: the character vocabulary is not sorted and distinct at byte " + strconv.Itoa(i))
			}
			last = r
		}
		if n := utf8.RuneCountInString(t.Chars); n > vocab {
			return errors.New("spinfile: the tokenizer has " + strconv.Itoa(n) + " characters, the model a vocabulary of " + strconv.Itoa(vocab))
		}
	default:
		return errors.New("spinfile: unknown tokenizer " + strconv.QuoteToASCII(t.Kind[:min(len(t.Kind), 40)]) + ", want chars, bytes, gpt2 or llama")
	}
	return nil
}

// Sizes of vocabularies.
const (
	gpt2Vocab   = 50257 // GPT-2's
	byteVocab   = 256   // bytes, which are also GPT-2's first ids
	leastPieces = 3     // of llama: unknown, begin and end
)

// checkSize compares the number of a tokenizer's ids with a model's vocabulary.
func checkSize(n, vocab int) error {
	if n > vocab {
		return errors.New("spinfile: the tokenizer has " + strconv.Itoa(n) + " tokens, the model a vocabulary of " + strconv.Itoa(vocab))
	}
	return nil
}

// checkKeep checks a trimmed GPT-2 vocabulary.
func (t *TokenizerInfo) checkKeep(vocab int) error {
	keep := t.Keep
	if len(keep) == 0 {
		return checkSize(gpt2Vocab, vocab)
	}
	if len(keep) > vocab {
		return errors.New("spinfile: the tokenizer keeps " + strconv.Itoa(len(keep)) + " ids, the model has a vocabulary of " + strconv.Itoa(vocab))
	}
	last := int32(-1)
	for i, id := range keep {
		if id <= last || id >= gpt2Vocab {
			return errors.New("spinfile: the tokenizer keeps the id " + strconv.Itoa(int(id)) + " at " + strconv.Itoa(i) + "; want ascending ids below " + strconv.Itoa(gpt2Vocab))
		}
		last = id
	}
	if len(keep) < byteVocab || keep[byteVocab-1] != byteVocab-1 {
		return errors.New("spinfile: the tokenizer does not keep the " + strconv.Itoa(byteVocab) + " single bytes")
	}
	return nil
}

// check compares one tensor with the parameter that it should be.
func (t *Tensor) check(p arch.Param, quantizer string) error {
	if len(t.Shape) != len(p.Shape) {
		return errors.New("spinfile: tensor " + p.Name + " has shape " + shapeString(t.Shape) + ", want " + shapeString(p.Shape))
	}
	for i := range p.Shape {
		if t.Shape[i] != p.Shape[i] {
			return errors.New("spinfile: tensor " + p.Name + " has shape " + shapeString(t.Shape) + ", want " + shapeString(p.Shape))
		}
	}
	if t.Kind != p.Kind || t.Algebra != p.Algebra || t.Layer != p.Layer {
		return errors.New("spinfile: tensor " + p.Name + " is a " + t.Kind.String() + " of " + strconv.Quote(t.Algebra) + ", want a " + p.Kind.String() + " of " + strconv.Quote(p.Algebra))
	}
	data, trits, int8s, scale := p.Len(), 0, 0, 0
	switch {
	case p.Kind == arch.Ternary && quantizer != arch.None:
		data, trits, scale = 0, p.Len(), p.Shape[1]
	case t.Packed != nil:
		if err := t.checkPacked(); err != nil {
			return err
		}
		data, scale = 0, t.rows()
	case t.Int8 != nil && (p.Kind == arch.Embedding || p.Kind == arch.MixerWeight):
		data, int8s, scale = 0, p.Len(), t.rows()
	}
	if len(t.Data) != data || len(t.Trits) != trits || len(t.Int8) != int8s || len(t.Scale) != scale {
		return errors.New("spinfile: tensor " + p.Name + " has " + strconv.Itoa(len(t.Data)) + " floats, " + strconv.Itoa(len(t.Trits)) + " trits, " + strconv.Itoa(len(t.Int8)) + " int8 and " + strconv.Itoa(len(t.Scale)) +
			" scales, want " + strconv.Itoa(data) + ", " + strconv.Itoa(trits) + ", " + strconv.Itoa(int8s) + " and " + strconv.Itoa(scale))
	}
	for i, q := range t.Trits {
		if q < -1 || q > 1 {
			return errors.New("spinfile: tensor " + p.Name + " has the trit " + strconv.Itoa(int(q)) + " at " + strconv.Itoa(i))
		}
	}
	if err := finite(p.Name, t.Scale); err != nil {
		return err
	}
	return finite(p.Name, t.Data)
}

// finite reports the first NaN or infinity of w.
func finite(name string, w []float32) error {
	for i, v := range w {
		if v-v != 0 { // NaN for NaN and ±Inf
			return errors.New("spinfile: tensor " + name + " has the value " + strconv.FormatFloat(float64(v), 'g', -1, 32) + " at " + strconv.Itoa(i))
		}
	}
	return nil
}

func shapeString(shape []int) string {
	s := "["
	for i, d := range shape {
		if i > 0 {
			s += ", "
		}
		s += strconv.Itoa(d)
	}
	return s + "]"
}

// QuantizeClassic sets q = clamp(roundeven(w), −1, 1) (SPEC §1).
func QuantizeClassic(q []int8, w []float32) {
	for i, v := range w {
		q[i] = trit(v)
	}
}

// QuantizeAbsMean sets q = clamp(roundeven(w/gamma), −1, 1) (BitNet b1.58,
// SPEC §1); the layer computes with gamma·q.
func QuantizeAbsMean(q []int8, w []float32, gamma float32) {
	for i, v := range w {
		q[i] = trit(v / gamma)
	}
}

// trit rounds half to even and clamps. A half is the only tie inside the
// clamp, and it goes to 0.
func trit(v float32) int8 {
	return int8(max(-1, min(1, math.RoundToEven(float64(v)))))
}

// minGamma keeps the scale of an all-zero tensor away from zero (SPEC §1).
const minGamma = 1e-8

// Gamma is absmean's scale: the mean of |w| over the whole tensor, summed in
// float64 in order, rounded to float32, at least 1e-8.
func Gamma(w []float32) float32 {
	s := 0.0
	for _, v := range w {
		s += math.Abs(float64(v))
	}
	return max(minGamma, float32(s/float64(max(1, len(w)))))
}
