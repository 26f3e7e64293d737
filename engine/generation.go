package engine

import (
	"errors"

	"spinnet/tokenizer"
)

// Generation is a text being continued, which can stop after any piece of work
// and go on later: in the same session, in another one, or, by its state, in
// another process. The text is that of Generate, whatever the stops.
type Generation struct {
	s       *Session // nil when detached
	tok     tokenizer.Tokenizer
	o       GenerateOptions
	sampler *Sampler
	ids     []int32 // the prompt, then the drawn tokens
	prompt  int     // how many of ids are the prompt
	read    int     // how many of ids the session has read
	out     stream
	reason  string // "" until it is done
}

// NewGeneration prepares to continue a prompt in a session, from where it is.
// Nothing is read yet.
func NewGeneration(s *Session, tok tokenizer.Tokenizer, prompt []int32, o GenerateOptions) (*Generation, error) {
	g, err := newGeneration(s.e.config.VocabSize, tok, prompt, o)
	if err != nil {
		return nil, err
	}
	g.s, g.sampler.sampleMemory = s, s.memory(tok.VocabSize())
	return g, nil
}

// newGeneration is NewGeneration for a model's vocabulary, without a session.
func newGeneration(vocab int, tok tokenizer.Tokenizer, prompt []int32, o GenerateOptions) (*Generation, error) {
	if tok.VocabSize() > vocab {
		return nil, errors.New("engine: the tokenizer has " + itoa(tok.VocabSize()) + " tokens, the model " + itoa(vocab))
	}
	g, err := detachedGeneration(tok, prompt, o)
	if err != nil {
		return nil, err
	}
	return g, CheckIDs(prompt, vocab)
}

// detachedGeneration checks what does not depend on the model.
func detachedGeneration(tok tokenizer.Tokenizer, ids []int32, o GenerateOptions) (*Generation, error) {
	for _, stop := range o.Stop {
		if stop == "" {
			return nil, errors.New("engine: a stop string is empty")
		}
	}
	if err := o.Sample.Validate(); err != nil {
		return nil, err
	}
	if tok.VocabSize() < 1 {
		return nil, errors.New("engine: no tokens to draw from")
	}
	if len(ids) == 0 {
		return nil, errors.New("engine: nothing to read: no token ids")
	}
	g := &Generation{tok: tok, o: o, sampler: bareSampler(o.Sample), ids: append([]int32(nil), ids...), prompt: len(ids), out: stream{stop: o.Stop}}
	for _, id := range ids {
		g.sampler.Accept(id)
	}
	return g, nil
}

// Piece is a piece of work of a generation.
type Piece uint8

// Pieces, in the order in which they come up for each token.
const (
	Done  Piece = iota // nothing is left to do
	Begin              // taking up the tokens that come next
	Layer              // one layer for these tokens
	Draw               // the logits, and the choice of the next token
)

// Next is the piece that comes next, with the number of tokens it is about:
// those that are left to read for Begin, of which one piece may take fewer.
func (g *Generation) Next() (p Piece, tokens int) {
	switch {
	case g.reason != "":
		return Done, 0
	case g.s.rows > 0 && g.s.layer < g.s.e.config.NLayer:
		return Layer, g.s.rows
	case g.read < len(g.ids):
		return Begin, len(g.ids) - g.read
	}
	return Draw, 1
}

// Do does the next piece and gives the text that it brings to emit, as
// Generate does. Begin takes at most so many tokens, at least one and no more
// than the session's Chunk.
func (g *Generation) Do(most int, emit func(text []byte) error) error {
	switch p, n := g.Next(); p {
	case Begin:
		n = min(n, max(1, most), g.s.chunk)
		return g.s.Begin(g.ids[g.read : g.read+n])
	case Layer:
		if g.s.Advance(1) == 0 {
			g.hasRead(n)
		}
	case Draw:
		return g.take(g.sampler.Next(g.s.Logits()), emit)
	}
	return nil
}

// hasRead notes that the session has read n more ids.
func (g *Generation) hasRead(n int) {
	if g.read += n; g.read == len(g.ids) && g.Tokens() == g.o.MaxTokens {
		g.reason = ReasonLength // nothing was asked for
	}
}

// take takes up the token that was drawn.
func (g *Generation) take(id int32, emit func(text []byte) error) error {
	last := g.ids[len(g.ids)-1]
	g.ids = append(g.ids, id)
	g.sampler.Accept(id)
	end, hasEnd := tokenizer.End(g.tok)
	if hasEnd && id == end || id == tokenizer.LlamaBOS && g.tok.Kind() == tokenizer.KindLlama { // llama2.c ends at the next text's beginning
		g.reason = ReasonStop
		_, err := g.out.flush(true, emit)
		return err
	}
	var err error
	if g.out.held, err = tokenizer.AppendAfter(g.tok, g.out.held, last, id); err != nil {
		return err
	}
	stopped, err := g.out.flush(false, emit)
	switch {
	case err != nil:
		return err
	case stopped:
		g.reason = ReasonStop
	case g.Tokens() == g.o.MaxTokens: // nobody asks for the logits after the last
		g.reason = ReasonLength
		_, err = g.out.flush(true, emit)
	}
	return err
}

// Tokens is the number of tokens drawn so far.
func (g *Generation) Tokens() int { return len(g.ids) - g.prompt }

// IDs are the ids of the prompt, PromptTokens of them, and those drawn.
func (g *Generation) IDs() []int32 { return g.ids }

// PromptTokens is the number of ids of the prompt.
func (g *Generation) PromptTokens() int { return g.prompt }

// Unread is how many ids the session has yet to read.
func (g *Generation) Unread() int { return len(g.ids) - g.read }

// Reason says why the generation has ended, ReasonLength or ReasonStop; "" as
// long as it goes on.
func (g *Generation) Reason() string { return g.reason }

// Options are those of the generation.
func (g *Generation) Options() GenerateOptions { return g.o }

// Detach gives the session up for others. Attach brings another.
func (g *Generation) Detach() {
	g.s, g.sampler.sampleMemory, g.read = nil, nil, 0
}

// Attach lets a detached generation that began with an empty session go on in
// another session, which is emptied and reads the whole text again.
func (g *Generation) Attach(s *Session) error {
	if err := s.e.checkIDs(g.ids); err != nil {
		return err
	}
	if n := g.tok.VocabSize(); n > s.e.config.VocabSize {
		return errors.New("engine: the tokenizer has " + itoa(n) + " tokens, the model " + itoa(s.e.config.VocabSize))
	}
	s.Reset()
	g.s, g.sampler.sampleMemory, g.read = s, s.memory(g.tok.VocabSize()), 0
	return nil
}

// memory is the session's memory for choices from vocab tokens.
func (s *Session) memory(vocab int) *sampleMemory {
	if s.sample == nil || len(s.sample.logits) != vocab {
		s.sample = newSampleMemory(vocab)
	}
	return s.sample
}

// Layer is how many layers the tokens that are on their way have passed.
func (g *Generation) Layer() int {
	if g.s == nil || g.s.rows == 0 {
		return 0
	}
	return g.s.layer
}
