package engine

import (
	"bytes"
	"context"
	"errors"
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
// nothing that may still turn out to be a stop string. The session goes on
// from where it is; Reset it first for a new text. tok's ids must be those of
// the model; ids from tok.VocabSize() on are never drawn. An error of emit or
// of ctx ends the generation and is returned with the result so far.
func Generate(ctx context.Context, s *Session, tok tokenizer.Tokenizer, prompt []int32, o GenerateOptions, emit func(text []byte) error) (r Result, err error) {
	vocab := s.e.config.VocabSize
	if tok.VocabSize() > vocab {
		return r, errors.New("engine: the tokenizer has " + itoa(tok.VocabSize()) + " tokens, the model " + itoa(vocab))
	}
	for _, stop := range o.Stop {
		if stop == "" {
			return r, errors.New("engine: a stop string is empty")
		}
	}
	sampler, err := NewSampler(o.Sample, tok.VocabSize())
	if err != nil {
		return r, err
	}
	start := time.Now()
	logits, err := s.prefill(ctx, prompt)
	if err != nil {
		return r, err
	}
	for _, id := range prompt {
		sampler.Accept(id)
	}
	r.PromptTokens, r.Prefill = len(prompt), time.Since(start)
	start = time.Now()
	defer func() { r.Decode = time.Since(start) }()
	out := stream{emit: emit, stop: o.Stop}
	end, hasEnd := tokenizer.End(tok)
	last := prompt[len(prompt)-1]
	for r.Tokens < o.MaxTokens {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		id := sampler.Next(logits)
		r.Tokens++
		if hasEnd && id == end || id == tokenizer.LlamaBOS && tok.Kind() == tokenizer.KindLlama { // llama2.c ends at the next text's beginning
			r.Reason = ReasonStop
			break
		}
		if out.held, err = tokenizer.AppendAfter(tok, out.held, last, id); err != nil {
			return r, err
		}
		last = id
		if stopped, err := out.flush(false); err != nil {
			return r, err
		} else if stopped {
			r.Reason = ReasonStop
			return r, nil
		}
		if r.Tokens < o.MaxTokens { // nobody asks for the logits after the last
			sampler.Accept(id)
			logits = s.Step(id)
		}
	}
	if r.Reason == "" {
		r.Reason = ReasonLength
	}
	_, err = out.flush(true)
	return r, err
}

// prefill is Prefill in steps between which ctx may end it.
func (s *Session) prefill(ctx context.Context, ids []int32) (logits []float32, err error) {
	if len(ids) == 0 {
		return s.Prefill(ids) // the error
	}
	if err := s.e.checkIDs(ids); err != nil {
		return nil, err
	}
	for len(ids) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(len(ids), 8*s.chunk)
		if logits, err = s.Prefill(ids[:n]); err != nil {
			return nil, err
		}
		ids = ids[n:]
	}
	return logits, nil
}

// stream holds back what must not be given out yet.
type stream struct {
	emit func(text []byte) error
	stop []string
	held []byte
}

// flush gives out what it may; end says that nothing will follow. stopped is
// true when a stop string has come up: what precedes it is given out.
func (s *stream) flush(end bool) (stopped bool, err error) {
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
		err = s.emit(text)
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
