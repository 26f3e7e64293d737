package main

import (
	"errors"
	"strconv"

	"spinnet/canister/candid"
	"spinnet/canister/ic0"
	"spinnet/engine"
	"spinnet/tokenizer"
)

// The methods of the original canister, with its names and its texts. It had
// one text at a time for everybody; here every caller has one of their own. A
// text is always the most probable one (temperature 0), and what is wrong is
// told by a text that begins with "Error:".

// errorText is how these methods tell an error.
func errorText(err error) ([]candid.Value, error) { return text("Error: " + err.Error()) }

// classic reads no arguments and gives the caller's text, with a cache.
func (c *canister) classic(r *request) (s *session, reply []candid.Value, err error) {
	if err := r.arg.Close(); err != nil {
		return nil, nil, err
	}
	return c.continued(r)
}

// continued gives the caller's text, with a cache, or the reply that there is
// none.
func (c *canister) continued(r *request) (s *session, reply []candid.Value, err error) {
	if err := c.ready(r); err != nil {
		reply, err = errorText(err)
		return nil, reply, err
	}
	c.expire(r.now)
	if s = c.sessions.classicOf(r.caller); s == nil {
		reply, err = text("Error: No generation started")
		return nil, reply, err
	}
	c.sessions.touch(s, r.now)
	if err := c.attach(s); err != nil {
		reply, err = errorText(err)
		return nil, reply, err
	}
	return s, nil, nil
}

// beginClassic reads a prompt and a number of tokens and starts the caller's
// text.
func (c *canister) beginClassic(r *request) (s *session, reply []candid.Value, err error) {
	var o order
	if o.prompt, err = r.arg.Arg().Text(); err != nil {
		return nil, nil, err
	}
	most, err := r.arg.Arg().Nat32()
	if err == nil {
		err = r.arg.Close()
	}
	if err != nil {
		return nil, nil, err
	}
	o.options.MaxTokens = int(most)
	ids, hidden, err := c.check(r, &o)
	if err == nil {
		if old := c.sessions.classicOf(r.caller); old != nil {
			c.sessions.remove(old)
		}
		s, err = c.begin(r, ids, hidden, o.options)
	}
	if err != nil {
		reply, err = errorText(err)
		return nil, reply, err
	}
	s.classic = true
	return s, nil, nil
}

// startGeneration begins a text: start_generation(prompt, max_tokens).
func (c *canister) startGeneration(r *request) ([]candid.Value, error) {
	s, reply, err := c.beginClassic(r)
	if s == nil {
		return reply, err
	}
	return text("Started: " + strconv.Itoa(s.g.PromptTokens()) + " prompt tokens, " + strconv.Itoa(s.g.Options().MaxTokens) + " to generate")
}

// startForward takes up the tokens that come next: the prompt, later the
// token drawn last.
func (c *canister) startForward(r *request) ([]candid.Value, error) {
	s, reply, err := c.classic(r)
	if s == nil {
		return reply, err
	}
	switch p, _ := s.g.Next(); {
	case p == engine.Done:
		return text("Error: the generation is finished")
	case p == engine.Draw && s.forward:
		return text("Error: the layers are done; finish_forward comes next")
	case p == engine.Begin:
		if _, err := c.work(s, r.budget, func(p engine.Piece) bool { return p != engine.Begin }); err != nil {
			return errorText(err)
		}
	}
	s.forward = true
	if s.g.Tokens() == 0 {
		return text("Forward: init, seq_len=" + strconv.Itoa(s.g.PromptTokens()))
	}
	return text("Forward: cached, new_len=1")
}

// processLayers takes these tokens through layers: process_layers(count). A
// long prompt goes through all layers in several parts.
func (c *canister) processLayers(r *request) ([]candid.Value, error) {
	count, err := r.arg.Arg().Nat32()
	if err == nil {
		err = r.arg.Close()
	}
	if err != nil {
		return nil, err
	}
	s, reply, err := c.continued(r)
	if s == nil {
		return reply, err
	}
	if !s.forward {
		return text("Error: No forward state")
	}
	left := int64(count)
	paused, err := c.work(s, r.budget, func(p engine.Piece) bool {
		if p == engine.Layer {
			left--
		}
		return p == engine.Draw || left < 0
	})
	if err != nil {
		return errorText(err)
	}
	if p, _ := s.g.Next(); p == engine.Draw || p == engine.Done {
		return text("Done")
	}
	at, layers := strconv.Itoa(s.g.Layer()), strconv.Itoa(c.model.engine.Config().NLayer)
	if paused {
		percent := ic0.Counter(ic0.CounterMessage) * 100 / c.limits.UpdateInstructions
		return text("Paused at layer " + at + " (" + strconv.FormatUint(percent, 10) + "% budget)")
	}
	return text("Layer " + at + "/" + layers)
}

// finishForward chooses the next token and gives the text that it completes.
func (c *canister) finishForward(r *request) ([]candid.Value, error) {
	s, reply, err := c.classic(r)
	if s == nil {
		return reply, err
	}
	if !s.forward {
		return text("Error: No forward state")
	}
	p, _ := s.g.Next()
	if p == engine.Begin || p == engine.Layer {
		return text("Error: layers are left; process_layers comes next")
	}
	return c.draw(r, s, 1)
}

// generateNextToken writes one token.
func (c *canister) generateNextToken(r *request) ([]candid.Value, error) {
	s, reply, err := c.classic(r)
	if s == nil {
		return reply, err
	}
	return c.draw(r, s, 1)
}

// generateNTokens writes up to so many tokens: generate_n_tokens(n).
func (c *canister) generateNTokens(r *request) ([]candid.Value, error) {
	n, err := r.arg.Arg().Nat32()
	if err == nil {
		err = r.arg.Close()
	}
	if err != nil {
		return nil, err
	}
	s, reply, err := c.continued(r)
	if s == nil {
		return reply, err
	}
	return c.draw(r, s, int(n))
}

// generateFull begins a text and writes as much as the budget allows:
// generate_full(prompt, max_tokens). generate_n_tokens goes on.
func (c *canister) generateFull(r *request) ([]candid.Value, error) {
	s, reply, err := c.beginClassic(r)
	if s == nil {
		return reply, err
	}
	return c.draw(r, s, s.g.Options().MaxTokens)
}

// draw writes up to n tokens and gives their text.
func (c *canister) draw(r *request, s *session, n int) ([]candid.Value, error) {
	s.forward = false
	from, until := len(s.text), s.g.Tokens()+n
	_, err := c.work(s, r.budget, func(engine.Piece) bool { return s.g.Tokens() >= until })
	if err != nil {
		return errorText(err)
	}
	if s.done() {
		c.sessions.release(s)
	}
	return text(string(s.text[from:]))
}

// getResult gives the caller's prompt and text so far.
func (c *canister) getResult(r *request) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	s := c.sessions.classicOf(r.caller)
	if s == nil {
		return text("No generation")
	}
	prompt, err := c.promptOf(s)
	if err == nil {
		err = fits(len(prompt) + len(s.text))
	}
	if err != nil {
		return errorText(err)
	}
	return text(prompt + string(s.text))
}

// promptOf gives the text of a session's prompt.
func (c *canister) promptOf(s *session) (string, error) {
	if c.model == nil {
		return "", c.modelErr
	}
	b, err := tokenizer.Decode(c.model.tok, nil, s.g.IDs()[s.hidden:s.g.PromptTokens()])
	return string(b), err
}

// generationStatus describes the caller's text as JSON.
func (c *canister) generationStatus(r *request) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	s := c.sessions.classicOf(r.caller)
	if s == nil {
		return text(`{"active":false}`)
	}
	return text(`{"tokens":` + strconv.Itoa(len(s.g.IDs())) + `,"generated":` + strconv.Itoa(s.g.Tokens()) +
		`,"max":` + strconv.Itoa(s.g.Options().MaxTokens) + `,"done":` + strconv.FormatBool(s.done()) + `}`)
}

// getConfig describes the model as JSON.
func (c *canister) getConfig(r *request) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	if c.model == nil {
		return text("{}")
	}
	m := c.model.engine.Config()
	out := "{"
	for _, f := range []struct {
		name  string
		value string
	}{
		{"n_layer", strconv.Itoa(m.NLayer)}, {"n_head", strconv.Itoa(m.NHead)}, {"n_kv_head", strconv.Itoa(m.NKVHead)},
		{"n_embd", strconv.Itoa(m.NEmbd)}, {"hidden_dim", strconv.Itoa(m.HiddenDim)}, {"block_size", strconv.Itoa(m.BlockSize)},
		{"vocab_size", strconv.Itoa(m.VocabSize)}, {"octonion_attention", strconv.FormatBool(m.OctonionAttention)},
		{"algebra", strconv.Quote(m.Algebra)}, {"quantizer", strconv.Quote(m.Quantizer)}, {"act_bits", strconv.Itoa(m.ActBits)},
		{"numeric", strconv.Quote(c.model.engine.Numeric())}, {"tokenizer", strconv.Quote(c.model.tok.Kind())},
	} {
		if len(out) > 1 {
			out += ","
		}
		out += strconv.Quote(f.name) + ":" + f.value
	}
	return text(out + "}")
}

// quickTokens is how many tokens generate_quick writes at most: more than its
// budget allows with the models it is for.
const quickTokens = 200

// generateQuick writes the beginning of a text in a query, which costs the
// canister nothing and changes nothing: generate_quick(prompt).
func (c *canister) generateQuick(r *request) ([]candid.Value, error) {
	var o order
	var err error
	if o.prompt, err = r.arg.Arg().Text(); err == nil {
		err = r.arg.Close()
	}
	if err != nil {
		return nil, err
	}
	o.options.MaxTokens = min(quickTokens, int(c.limits.MaxTokens))
	ids, _, err := c.check(r, &o)
	if err != nil {
		return errorText(err)
	}
	s := &session{owner: r.caller}
	s.cache = c.cache(r.caller)
	defer func() { c.sessions.free = append(c.sessions.free, s.cache) }()
	s.cache.Reset()
	if s.g, err = engine.NewGeneration(s.cache, c.model.tok, ids, o.options); err != nil {
		return errorText(err)
	}
	paused, err := c.work(s, r.budget, nil)
	switch {
	case err != nil:
		return errorText(err)
	case paused && len(s.text) == 0:
		return errorText(errors.New("the prompt is too long for a query: use generate_full"))
	}
	return text(string(s.text))
}
