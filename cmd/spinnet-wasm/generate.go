package main

import (
	"errors"
	"math/rand/v2"
	"strconv"

	"spinnet/canister/candid"
	"spinnet/canister/ic0"
	"spinnet/engine"
	"spinnet/tokenizer"
)

// order is what a caller asks generate for.
type order struct {
	prompt  string
	seeded  bool // the seed is the caller's
	options engine.GenerateOptions
}

// Hashes of the fields of generate's argument.
var (
	hashPrompt      = candid.Hash("prompt")
	hashMaxTokens   = candid.Hash("max_tokens")
	hashTemperature = candid.Hash("temperature")
	hashTopK        = candid.Hash("top_k")
	hashTopP        = candid.Hash("top_p")
	hashMinP        = candid.Hash("min_p")
	hashPenalty     = candid.Hash("repetition_penalty")
	hashSeed        = candid.Hash("seed")
	hashStop        = candid.Hash("stop")
)

// Bounds of what a caller may ask for.
const (
	maxStops      = 16
	maxStopLength = 256 // bytes
	usualTokens   = 200 // where max_tokens is missing, as on the command line
)

// readOrder reads generate's argument.
func readOrder(a candid.Arg) (o order, err error) {
	o.options.MaxTokens = usualTokens
	sample := &o.options.Sample
	sample.Temperature = engine.DefaultTemperature
	prompted := false
	float := func(v candid.Arg, to *float64) error {
		return v.Opt(func(v candid.Arg) bool { return v.Is(candid.Float64) }, func(v candid.Arg) (err error) {
			*to, err = v.Float64()
			return err
		})
	}
	nat32 := func(v candid.Arg, to *int) error {
		return v.Opt(func(v candid.Arg) bool { return v.Is(candid.Nat32) }, func(v candid.Arg) error {
			n, err := v.Nat32()
			*to = int(n)
			return err
		})
	}
	err = a.Record(func(id uint32, v candid.Arg) (known bool, err error) {
		switch id {
		case hashPrompt:
			prompted = true
			o.prompt, err = v.Text()
		case hashMaxTokens:
			err = nat32(v, &o.options.MaxTokens)
		case hashTemperature:
			err = float(v, &sample.Temperature)
		case hashTopK:
			err = nat32(v, &sample.TopK)
		case hashTopP:
			err = float(v, &sample.TopP)
		case hashMinP:
			err = float(v, &sample.MinP)
		case hashPenalty:
			err = float(v, &sample.RepetitionPenalty)
		case hashSeed:
			err = v.Opt(func(v candid.Arg) bool { return v.Is(candid.Nat64) }, func(v candid.Arg) (err error) {
				o.seeded = true
				sample.Seed, err = v.Nat64()
				return err
			})
		case hashStop:
			err = v.Opt(func(v candid.Arg) bool { return v.IsVec(candid.Text) }, func(v candid.Arg) (err error) {
				o.options.Stop, err = v.Texts(maxStops)
				return err
			})
		default:
			return false, nil
		}
		return true, err
	})
	if err == nil && !prompted {
		err = errors.New("spinnet: the argument has no field prompt")
	}
	return o, err
}

// check compares an order with the limits, and gives the prompt's ids.
func (c *canister) check(r *request, o *order) (ids []int32, hidden int, err error) {
	if err := c.ready(r); err != nil {
		return nil, 0, err
	}
	l := &c.limits
	if n := len(o.prompt); n > int(l.PromptBytes) {
		return nil, 0, errors.New("spinnet: a prompt of " + strconv.Itoa(n) + " bytes, want at most " + strconv.Itoa(int(l.PromptBytes)))
	}
	if n := o.options.MaxTokens; n > int(l.MaxTokens) {
		return nil, 0, errors.New("spinnet: max_tokens is " + strconv.Itoa(n) + ", want at most " + strconv.Itoa(int(l.MaxTokens)))
	}
	for _, stop := range o.options.Stop {
		if len(stop) > maxStopLength {
			return nil, 0, errors.New("spinnet: a stop text of " + strconv.Itoa(len(stop)) + " bytes, want at most " + strconv.Itoa(maxStopLength))
		}
	}
	if err := o.options.Sample.Validate(); err != nil {
		return nil, 0, err
	}
	if ids, err = tokenizer.Prompt(c.model.tok, o.prompt); err != nil {
		return nil, 0, err
	}
	if n := len(ids); n > int(l.PromptTokens) {
		return nil, 0, errors.New("spinnet: a prompt of " + strconv.Itoa(n) + " tokens, want at most " + strconv.Itoa(int(l.PromptTokens)))
	}
	if n := c.model.engine.CacheBytes(len(ids) + o.options.MaxTokens); n > cacheMemory {
		return nil, 0, errors.New("spinnet: the keys and values of so long a text take " + strconv.Itoa(n>>20) + " MiB, and there are " + strconv.Itoa(cacheMemory>>20) + ": ask for fewer tokens")
	}
	if o.prompt == "" {
		hidden = len(ids)
	}
	return ids, hidden, nil
}

// ready says why texts cannot be written now, if so.
func (c *canister) ready(r *request) error {
	switch {
	case c.model == nil:
		return c.modelErr
	case c.paused:
		return errors.New("spinnet: the service is paused by its controllers")
	case r.caller == anonymous && c.limits.AnonymousSessions == 0:
		return errors.New("spinnet: anonymous callers are not served here: call with an identity")
	}
	return nil
}

// generate starts a session and writes as much of its text as the budget
// allows.
func (c *canister) generate(r *request) ([]candid.Value, error) {
	o, err := readOrder(r.arg.Arg())
	if err == nil {
		err = r.arg.Close()
	}
	if err != nil {
		return nil, err
	}
	ids, hidden, err := c.check(r, &o)
	if err != nil {
		return okOr(candid.Value{}, err)
	}
	write := func(r *request) ([]candid.Value, error) {
		s, err := c.begin(r, ids, hidden, o.options)
		if err != nil {
			return okOr(candid.Value{}, err)
		}
		v, err := c.write(r, s)
		if err != nil { // the caller has not been told its number
			c.sessions.remove(s)
		}
		return okOr(v, err)
	}
	if o.seeded || o.options.Sample.Temperature == 0 {
		return write(r)
	}
	return c.seeded(r, &o.options.Sample.Seed, write)
}

// seeded chooses a seed and goes on. The first time it asks the management
// canister for random bytes, from which later seeds follow.
func (c *canister) seeded(r *request, seed *uint64, then func(*request) ([]candid.Value, error)) ([]candid.Value, error) {
	if c.random != nil {
		*seed = c.random.Uint64()
		return then(r)
	}
	model := c.model
	err := ic0.Call(ic0.ManagementCanister, "raw_rand", candid.Encode(), func(reply []byte, err error) {
		if c.random == nil {
			if bytes, bad := readRandom(reply); err == nil && bad == nil {
				c.random = rand.NewChaCha8(bytes)
			}
		}
		*seed = c.seed(r)
		later := &request{caller: r.caller, now: ic0.Time(), budget: c.limits.budget(false)}
		err = c.ready(later) // much may have changed since
		if err == nil && c.model != model {
			err = errors.New("spinnet: the model has just been replaced: call again")
		}
		if err != nil {
			answer(okOr(candid.Value{}, err))
			return
		}
		answer(then(later))
	})
	if err != nil {
		*seed = c.seed(r)
		return then(r)
	}
	return nil, errLater
}

// seed gives a seed: a random one, or without random bytes one of the time and
// a counter, which others can foresee.
func (c *canister) seed(r *request) uint64 {
	if c.random != nil {
		return c.random.Uint64()
	}
	c.stats.guessable++
	return rand.NewPCG(r.now, c.stats.sessions).Uint64()
}

// readRandom reads raw_rand's reply: a blob of 32 bytes.
func readRandom(reply []byte) (seed [32]byte, err error) {
	d, err := candid.NewDecoder(reply)
	if err != nil {
		return seed, err
	}
	b, err := d.Arg().Blob()
	if err == nil && copy(seed[:], b) < len(seed) {
		err = errors.New("spinnet: too few random bytes")
	}
	return seed, err
}

// resume goes on with a session.
func (c *canister) resume(r *request) ([]candid.Value, error) {
	id, err := r.arg.Arg().Nat64()
	if err == nil {
		err = r.arg.Close()
	}
	if err != nil {
		return nil, err
	}
	if err := c.ready(r); err != nil {
		return okOr(candid.Value{}, err)
	}
	c.expire(r.now)
	s, err := c.sessions.find(r.caller, id)
	if err != nil {
		return okOr(candid.Value{}, err)
	}
	return okOr(c.write(r, s))
}

// write writes on a session's text within the budget, and gives the reply: what
// is new.
func (c *canister) write(r *request, s *session) (candid.Value, error) {
	c.sessions.touch(s, r.now)
	if err := c.attach(s); err != nil {
		return candid.Value{}, err
	}
	from, tokens := len(s.text), s.g.Tokens()
	paused, err := c.work(s, r.budget, nil)
	if err != nil {
		return candid.Value{}, err
	}
	reason, unread := s.g.Reason(), 0
	if paused {
		reason, unread = "paused", s.g.Unread()
	} else {
		c.sessions.release(s)
	}
	return candid.RecordValue(
		candid.Field{Name: "session", Value: candid.Nat64Value(s.id)},
		candid.Field{Name: "text", Value: candid.TextValue(string(s.text[from:]))},
		candid.Field{Name: "tokens", Value: candid.Nat32Value(uint32(s.g.Tokens() - tokens))},
		candid.Field{Name: "total_tokens", Value: candid.Nat32Value(uint32(s.g.Tokens()))},
		candid.Field{Name: "prompt_tokens", Value: candid.Nat32Value(uint32(s.g.PromptTokens()))},
		candid.Field{Name: "unread", Value: candid.Nat32Value(uint32(unread))},
		candid.Field{Name: "finish_reason", Value: candid.TextValue(reason)},
		candid.Field{Name: "seed", Value: candid.Nat64Value(s.g.Options().Sample.Seed)},
		candid.Field{Name: "instructions", Value: candid.Nat64Value(ic0.Counter(ic0.CounterMessage))},
	), nil
}

// endSession forgets a session.
func (c *canister) endSession(r *request) ([]candid.Value, error) {
	id, err := r.arg.Arg().Nat64()
	if err == nil {
		err = r.arg.Close()
	}
	if err != nil {
		return nil, err
	}
	s, err := c.sessions.find(r.caller, id)
	if err != nil {
		return okOr(candid.Value{}, err)
	}
	c.sessions.remove(s)
	return okOr(candid.NullValue(), nil)
}
