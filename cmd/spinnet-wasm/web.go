//go:build wasip1

package main

import (
	"math"
	"strconv"
	"strings"
	"unsafe"

	"spinnet/algebra"
	"spinnet/arch"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// The exports for a web page, which runs on their caller's thread. A page writes
// its input into a buffer of the module (web_alloc), calls, and reads back a
// text (web_text_ptr, web_text_len) that is valid until the next call: what is
// written, what web_info says, or the message of an error. A negative result is
// an error.
//
//	web_alloc(n) → address of an input buffer of n bytes, 0 if n is too large
//	web_load(n) → 0: the model in the buffer's first n bytes is ready
//	web_info() → 0: lines of key, tab, value describe it
//	web_start(n, …) → 0: the prompt in the buffer's first n bytes will be continued
//	web_more(n) → 0: n more tokens will be drawn after those that are
//	web_step() → 0: one step further, 1: the end, 2: the end, the model's choice
//	web_tokens() → how many tokens are drawn
//	web_prompt_tokens() → how many the prompt has
//	web_unread() → how many of these are still to be read

// Results of web_step and, but for the first and the last, of nothing else.
const (
	stepDone   = 0
	stepLength = 1 // the end: as many tokens as asked for
	stepStop   = 2 // the end: the model ended the text
	stepFailed = -1
)

// maxInput bounds the buffer: a module's memory has 4 GiB.
const maxInput = 2<<30 - 1

// page is what the page has loaded and is writing.
var page struct {
	in         []byte // the input buffer
	text       []byte // the text to read back
	engine     *engine.Engine
	tok        tokenizer.Tokenizer
	facts      string // of its file, as lines of web_info; an image says less
	session    *engine.Session
	generation *engine.Generation // nil: none has begun
	most       int                // tokens that it is to draw
}

// webAlloc gives the place of a canister's model to the page's, if it fits.
//
//go:wasmexport web_alloc
func webAlloc(n int32) int32 {
	switch {
	case n <= 0 || n > maxInput:
		return 0
	case page.engine == nil && int(n) <= modelCapacity:
		page.in = model[modelStart:][:n]
	case int(n) > len(page.in):
		page.in = nil // so that the collector may take it first
		page.in = make([]byte, n)
	}
	return int32(uintptr(unsafe.Pointer(unsafe.SliceData(page.in))))
}

// webLoad makes the first n bytes of the input buffer, a .spinnet file or an
// image, the model that writes. The buffer is the model's from then on. It
// computes in int8 with a cache of floats, as spinnet generate does with a model
// of int8 activations, and with any other if it is told --numeric int8.
//
//go:wasmexport web_load
func webLoad(n int32) int32 {
	data, ok := input(n)
	page.in, page.engine, page.tok, page.session, page.generation, page.facts = nil, nil, nil, nil, nil, ""
	if !ok {
		return failed(errNoInput)
	}
	e, tok, err := loadForPage(data)
	if err != nil {
		return failed(err.Error())
	}
	page.engine, page.tok, page.session = e, tok, e.NewSession()
	return stepDone
}

// loadForPage makes ready the model that lies in data, which it keeps.
func loadForPage(data []byte) (*engine.Engine, tokenizer.Tokenizer, error) {
	if engine.IsImage(data) {
		return engine.FromImage(data)
	}
	m, err := spinfile.Decode(data)
	if err != nil {
		return nil, nil, err
	}
	tok, err := engine.NewTokenizer(m.Tokenizer)
	if err != nil {
		return nil, nil, err
	}
	page.facts = facts(m) // which the engine does not keep
	e, err := engine.NewInt8(m, engine.Options{Threads: 1})
	return e, tok, err
}

// Errors of a page that calls in the wrong order.
const (
	errNoInput = "web: there is no such input"
	errNothing = "web: no model is loaded"
	errNoText  = "web: no text is being written"
)

// input gives the first n bytes of the input buffer.
func input(n int32) ([]byte, bool) {
	if n < 0 || int(n) > len(page.in) {
		return nil, n == 0
	}
	return page.in[:n], true
}

//go:wasmexport web_info
func webInfo() int32 {
	if page.engine == nil {
		return failed(errNothing)
	}
	var b strings.Builder
	b.WriteString(page.facts)
	line := func(key, value string) { b.WriteString(key + "\t" + value + "\n") }
	number := func(key string, n int) { line(key, strconv.Itoa(n)) }
	c := page.engine.Config()
	counts := arch.Count(c)
	number("layers", c.NLayer)
	number("width", c.NEmbd)
	number("hidden", c.HiddenDim)
	number("heads", c.NHead)
	number("context", c.BlockSize)
	number("vocabulary", page.tok.VocabSize())
	number("weights", counts.Ternary+counts.Float)
	number("macs", counts.MACs)
	number("activation_bits", c.ActBits)
	line("tokenizer", page.tok.Kind())
	line("quantizer", c.Quantizer)
	line("algebra", c.Algebra)
	if t, err := algebra.ByName(c.LayerAlgebra(0)); err == nil { // it is known, or no engine were there
		for _, row := range t.Sign {
			signs := make([]byte, len(row))
			for i, s := range row {
				signs[i] = "-+"[(s+1)/2]
			}
			line("signs", string(signs))
		}
	}
	page.text = append(page.text[:0], b.String()...)
	return stepDone
}

// facts gives the lines of web_info that are about the weights: how many of
// the ternary ones there are and are 0, the first of them, and the bits of the
// embedding.
func facts(m *spinfile.Model) string {
	trits, zeros, _ := m.Counts()
	bits, first := 32, make([]byte, 0, 256)
	for i := range m.Tensors {
		t := &m.Tensors[i]
		switch {
		case t.Kind != arch.Embedding:
		case t.Packed != nil:
			bits = t.Bits
		case t.Int8 != nil:
			bits = 8
		}
		for _, q := range t.Trits[:min(len(t.Trits), cap(first)-len(first))] {
			first = append(first, "-0+"[q+1])
		}
	}
	return "ternary\t" + strconv.Itoa(trits) + "\nzeros\t" + strconv.Itoa(zeros) + "\ntrits\t" + string(first) + "\nembedding_bits\t" + strconv.Itoa(bits) + "\n"
}

// webStart makes ready to continue the prompt in the first n bytes of the input
// buffer. seed is in two halves. A text that was being written is given up.
//
//go:wasmexport web_start
func webStart(n, maxTokens int32, temperature float64, topK int32, topP, minP float64, seedLow, seedHigh int32) int32 {
	page.generation = nil
	prompt, ok := input(n)
	switch {
	case page.engine == nil:
		return failed(errNothing)
	case !ok:
		return failed(errNoInput)
	case maxTokens < 0:
		return failed("web: " + strconv.Itoa(int(maxTokens)) + " tokens are asked for, want 0 or more")
	}
	ids, err := tokenizer.Prompt(page.tok, string(prompt))
	if err != nil {
		return failed(err.Error())
	}
	page.most = int(maxTokens)
	page.session.Reset()
	page.generation, err = engine.NewGeneration(page.session, page.tok, ids, engine.GenerateOptions{MaxTokens: math.MaxInt32, Sample: engine.SampleOptions{
		Temperature: temperature, TopK: int(topK), TopP: topP, MinP: minP,
		Seed: uint64(uint32(seedHigh))<<32 | uint64(uint32(seedLow)),
	}})
	if err != nil {
		return failed(err.Error())
	}
	return stepDone
}

// webMore lets a text go on. It is that of a larger maxTokens from the start.
//
//go:wasmexport web_more
func webMore(n int32) int32 {
	switch g := page.generation; {
	case g == nil:
		return failed(errNoText)
	case g.Reason() != "":
		return failed("web: the model has ended the text")
	case n < 0:
		return failed("web: " + strconv.Itoa(int(n)) + " tokens are asked for, want 0 or more")
	default:
		page.most = g.Tokens() + int(n)
	}
	return stepDone
}

// webStep draws the next token, or reads some of the prompt: never for so long
// that a page could not stop in between.
//
//go:wasmexport web_step
func webStep() int32 {
	g := page.generation
	if g == nil {
		return failed(errNoText)
	}
	page.text = page.text[:0]
	for g.Tokens() < page.most {
		piece, n := g.Next()
		if piece == engine.Done {
			break
		}
		if err := g.Do(maxRead, appendText); err != nil {
			page.generation = nil
			return failed(err.Error())
		}
		if piece == engine.Draw || piece == engine.Layer && n > 1 {
			break
		}
	}
	switch {
	case g.Reason() == engine.ReasonStop:
		return stepStop
	case g.Reason() != "" || g.Tokens() >= page.most:
		return stepLength
	}
	return stepDone
}

// maxRead is how many tokens of a prompt are read together.
const maxRead = 128

// appendText adds to the text to read back.
func appendText(text []byte) error {
	page.text = append(page.text, text...)
	return nil
}

// failed keeps the message of an error.
func failed(message string) int32 {
	page.text = append(page.text[:0], message...)
	return stepFailed
}

//go:wasmexport web_text_ptr
func webTextPtr() int32 { return int32(uintptr(unsafe.Pointer(unsafe.SliceData(page.text)))) }

//go:wasmexport web_text_len
func webTextLen() int32 { return int32(len(page.text)) }

//go:wasmexport web_tokens
func webTokens() int32 { return count((*engine.Generation).Tokens) }

//go:wasmexport web_prompt_tokens
func webPromptTokens() int32 { return count((*engine.Generation).PromptTokens) }

//go:wasmexport web_unread
func webUnread() int32 { return count((*engine.Generation).Unread) }

// count is a number of the text being written, 0 without one.
func count(of func(*engine.Generation) int) int32 {
	if page.generation == nil {
		return 0
	}
	return int32(of(page.generation))
}
