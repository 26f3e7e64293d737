package engine

import (
	"bytes"
	"context"
	"time"
	"unicode/utf8"

	"spinnet/tokenizer"
)

// GenerateOptions say how a text is continued.
type GenerateOptions struct {
	Sample    SampleOptions
	MaxTokens int      // at most; 0 means none
	Stop      []string // the text ends before the first of these, which is not given out
}

// Reasons why a generation ended.
const (
	ReasonLength = "length" // MaxTokens reached
	ReasonStop   = "stop"   // a stop string, or a token that ends a text
)

// Result describes a finished generation.
type Result struct {
	PromptTokens, Tokens int // read, and drawn
	Reason               string
	Prefill, Decode      time.Duration // for the prompt up to the first logits, and for the rest
}

// Generate reads a prompt and continues it, giving the text to emit as it
// comes: whole UTF-8 characters only (bytes that cannot be part of one come
// out as U+FFFD; an unfinished character at the very end is dropped), and
// nothing that may still turn out to be a stop string. It goes on from where s
// is; Reset it first for a new text. tok's ids must be those of
// the model; ids from tok.VocabSize() on are never drawn. An error of emit or
// of ctx ends the generation and is returned with the result so far.
func Generate(ctx context.Context, s Text, tok tokenizer.Tokenizer, prompt []int32, o GenerateOptions, emit func(text []byte) error) (r Result, err error) {
	g, err := newGeneration(s.Config().VocabSize, tok, prompt, o)
	if err != nil {
		return r, err
	}
	g.sampler.sampleMemory = newSampleMemory(tok.VocabSize())
	start := time.Now()
	defer func() {
		r.Tokens, r.Reason = g.Tokens(), g.reason
		if r.PromptTokens > 0 {
			r.Decode = time.Since(start)
		}
	}()
	for g.reason == "" {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		if g.read < len(g.ids) {
			ids := g.ids[g.read:min(len(g.ids), g.read+8*prefillChunk)]
			if _, err := s.Prefill(ids); err != nil {
				return r, err
			}
			if g.hasRead(len(ids)); r.PromptTokens == 0 && g.read == len(g.ids) {
				now := time.Now()
				r.PromptTokens, r.Prefill, start = len(prompt), now.Sub(start), now
			}
			continue
		}
		if err := g.take(s.Draw(g.sampler), emit); err != nil {
			return r, err
		}
	}
	return r, nil
}

// stream holds back what must not be given out yet.
type stream struct {
	stop []string
	held []byte
}

// flush gives to emit what it may; end says that nothing will follow. stopped
// is true when a stop string has come up: what precedes it is given out.
func (s *stream) flush(end bool, emit func(text []byte) error) (stopped bool, err error) {
	ready := len(s.held)
	for _, stop := range s.stop {
		if i := bytes.Index(s.held, []byte(stop)); i >= 0 && i < ready {
			ready, stopped = i, true
		}
	}
	if !stopped && !end {
		// The start of a stop string at the end waits for the rest.
		for _, stop := range s.stop {
			for n := min(len(stop)-1, len(s.held)); n > 0; n-- {
				if string(s.held[len(s.held)-n:]) == stop[:n] {
					ready = min(ready, len(s.held)-n)
					break
				}
			}
		}
	}
	text, used := wholeCharacters(s.held[:ready])
	if len(text) > 0 {
		err = emit(text)
	}
	s.held = append(s.held[:0], s.held[used:]...)
	return stopped, err
}

// wholeCharacters gives b without an unfinished character at its end, with
// U+FFFD for each byte that belongs to none, and how many bytes of b that
// covers. It copies only when there is something to replace.
func wholeCharacters(b []byte) (text []byte, used int) {
	clean := true
	for used < len(b) && utf8.FullRune(b[used:]) {
		r, size := utf8.DecodeRune(b[used:])
		if r == utf8.RuneError && size == 1 {
			if clean {
				text, clean = append([]byte(nil), b[:used]...), false
			}
		}
		if !clean {
			text = utf8.AppendRune(text, r)
		}
		used += size
	}
	if clean {
		text = b[:used]
	}
	return text, used
}
