package main

import (
	"errors"
	"runtime"
	"strconv"

	"spinnet/canister/candid"
	"spinnet/canister/ic0"
)

// limits are what the controllers can set.
type limits struct {
	UpdateInstructions, QueryInstructions uint64 // of a message, by the subnet
	BudgetPercent                         uint32 // of them, what a message uses
	Sessions                              uint32 // in all
	SessionsPerCaller                     uint32
	AnonymousSessions                     uint32 // of the anonymous caller; 0 refuses anonymous calls
	Caches                                uint32 // sessions whose texts need not be read again
	PromptBytes, PromptTokens             uint32
	MaxTokens                             uint32 // that a caller may ask for
	IdleSeconds                           uint32 // after which a session ends
}

func defaultLimits() limits {
	return limits{UpdateInstructions: 40e9, QueryInstructions: 5e9, BudgetPercent: 60,
		Sessions: 256, SessionsPerCaller: 8, AnonymousSessions: 8, Caches: 8,
		PromptBytes: 1 << 16, PromptTokens: 1 << 14, MaxTokens: 1 << 14, IdleSeconds: 24 * 3600}
}

// budget is what a message may spend.
func (l *limits) budget(query bool) budget {
	all := l.UpdateInstructions
	if query {
		all = l.QueryInstructions
	}
	return budget{stop: all / 100 * uint64(l.BudgetPercent), hard: all / 100 * 99}
}

// number is a limit by its name in candid.
type number struct {
	name        string
	narrow      *uint32 // one of these two
	wide        *uint64
	least, most uint64
}

// numbers are all limits. The first two may not exceed what the network allows
// by more than it may allow one day.
func (l *limits) numbers() []number {
	return []number{
		{"update_instructions", nil, &l.UpdateInstructions, 1e9, 1e12}, {"query_instructions", nil, &l.QueryInstructions, 1e8, 1e12},
		{"budget_percent", &l.BudgetPercent, nil, 5, 98},
		{"sessions", &l.Sessions, nil, 1, 10_000}, {"sessions_per_caller", &l.SessionsPerCaller, nil, 1, 1000},
		{"anonymous_sessions", &l.AnonymousSessions, nil, 0, 1000}, {"caches", &l.Caches, nil, 1, 1000},
		{"prompt_bytes", &l.PromptBytes, nil, 1, 1 << 20}, {"prompt_tokens", &l.PromptTokens, nil, 1, 1 << 20},
		{"max_tokens", &l.MaxTokens, nil, 1, 1 << 16}, {"idle_seconds", &l.IdleSeconds, nil, 1, 1 << 31},
	}
}

// get is the limit.
func (n *number) get() uint64 {
	if n.wide != nil {
		return *n.wide
	}
	return uint64(*n.narrow)
}

// set changes the limit, or says why not.
func (n *number) set(v uint64) error {
	switch {
	case v < n.least || v > n.most:
		return errors.New("spinnet: " + n.name + " is " + strconv.FormatUint(v, 10) + ", want " + strconv.FormatUint(n.least, 10) + " to " + strconv.FormatUint(n.most, 10))
	case n.wide != nil:
		*n.wide = v
	default:
		*n.narrow = uint32(v)
	}
	return nil
}

// value is a limit in candid.
func (n *number) value() candid.Field {
	if n.wide != nil {
		return candid.Field{Name: n.name, Value: candid.Nat64Value(*n.wide)}
	}
	return candid.Field{Name: n.name, Value: candid.Nat32Value(*n.narrow)}
}

// getLimits gives the limits.
func (c *canister) getLimits(r *request) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	return one(c.limits.record())
}

func (l *limits) record() candid.Value {
	var fields []candid.Field
	for _, n := range l.numbers() {
		fields = append(fields, n.value())
	}
	return candid.RecordValue(fields...)
}

// setLimits changes those limits that its argument has, or none.
func (c *canister) setLimits(r *request) ([]candid.Value, error) {
	l := c.limits
	numbers := l.numbers()
	var wrong error // the first value that may not be
	set := func(n *number, v uint64) {
		if err := n.set(v); wrong == nil {
			wrong = err
		}
	}
	err := r.arg.Arg().Record(func(id uint32, v candid.Arg) (bool, error) {
		for i := range numbers {
			n := &numbers[i]
			if candid.Hash(n.name) != id {
				continue
			}
			if n.wide != nil {
				return true, v.Opt(func(v candid.Arg) bool { return v.Is(candid.Nat64) }, func(v candid.Arg) error {
					x, err := v.Nat64()
					set(n, x)
					return err
				})
			}
			return true, v.Opt(func(v candid.Arg) bool { return v.Is(candid.Nat32) }, func(v candid.Arg) error {
				x, err := v.Nat32()
				set(n, uint64(x))
				return err
			})
		}
		return false, nil
	})
	if err == nil {
		err = r.arg.Close()
	}
	if err != nil {
		return nil, err
	}
	if wrong != nil {
		return okOr(candid.Value{}, wrong)
	}
	c.limits = l
	return okOr(l.record(), nil)
}

// pauseService lets the canister refuse to write texts; sessions stay.
func (c *canister) pauseService(r *request) ([]candid.Value, error) { return c.setPaused(r, true) }

// resumeService ends pauseService.
func (c *canister) resumeService(r *request) ([]candid.Value, error) { return c.setPaused(r, false) }

func (c *canister) setPaused(r *request, paused bool) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	c.paused = paused
	return nil, nil
}

// stats are counts since the last installation.
type stats struct {
	calls, errors, instructions uint64
	sessions                    uint64 // begun
	read, drawn                 uint64 // tokens
	pauses                      uint64 // of texts for want of budget
	detached                    uint64 // texts that lost their cache
	expired, evicted            uint64 // sessions
	guessable                   uint64 // seeds without random bytes
	dropped                     uint64 // sessions by upgrades
}

// fields are the counts by their names in candid.
func (s *stats) fields() []struct {
	name  string
	value *uint64
} {
	return []struct {
		name  string
		value *uint64
	}{
		{"calls", &s.calls}, {"errors", &s.errors}, {"instructions", &s.instructions}, {"sessions_begun", &s.sessions},
		{"tokens_read", &s.read}, {"tokens_written", &s.drawn}, {"pauses", &s.pauses}, {"caches_lost", &s.detached},
		{"sessions_expired", &s.expired}, {"sessions_evicted", &s.evicted}, {"guessable_seeds", &s.guessable}, {"sessions_dropped", &s.dropped},
	}
}

// metrics gives the counts, and what there is now.
func (c *canister) metrics(r *request) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	fields := []candid.Field{
		{Name: "heap_bytes", Value: candid.Nat64Value(memory.HeapSys)},
		{Name: "collections", Value: candid.Nat32Value(memory.NumGC)},
		{Name: "sessions", Value: candid.Nat32Value(uint32(len(c.sessions.all)))},
		{Name: "caches", Value: candid.Nat32Value(uint32(c.sessions.made))},
		{Name: "stable_bytes", Value: candid.Nat64Value(ic0.StableSize() * ic0.PageSize)},
		{Name: "layer_instructions", Value: candid.Nat64Value(c.costs.layer1)},
	}
	for _, f := range c.stats.fields() {
		fields = append(fields, candid.Field{Name: f.name, Value: candid.Nat64Value(*f.value)})
	}
	return one(candid.RecordValue(fields...))
}

// health says whether the canister can write.
func (c *canister) health(r *request) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	status, source, size := "ok", "none", 0
	switch {
	case c.model == nil:
		status = c.modelErr.Error()
	case c.paused:
		status = "paused"
	}
	if c.model != nil {
		source, size = c.model.source, c.model.bytes
	}
	return one(candid.RecordValue(
		candid.Field{Name: "ready", Value: candid.BoolValue(status == "ok")},
		candid.Field{Name: "status", Value: candid.TextValue(status)},
		candid.Field{Name: "model", Value: candid.TextValue(source)},
		candid.Field{Name: "model_bytes", Value: candid.Nat64Value(uint64(size))},
	))
}

// session describes one of the caller's texts.
func (c *canister) session(r *request) ([]candid.Value, error) {
	id, err := r.arg.Arg().Nat64()
	if err == nil {
		err = r.arg.Close()
	}
	if err != nil {
		return nil, err
	}
	s, err := c.sessions.find(r.caller, id)
	if err == nil {
		err = fits(len(s.text))
	}
	if err != nil {
		return okOr(candid.Value{}, err)
	}
	return okOr(s.record(string(s.text)), nil)
}

// maxReply is how much text a reply holds: what the network carries, less the
// rest of the reply.
const maxReply = 2<<20 - 1<<12

// fits complains about a text that no reply holds.
func fits(n int) error {
	if n > maxReply {
		return errors.New("spinnet: the text has " + strconv.Itoa(n) + " bytes, more than a reply holds; the replies that brought it have it in parts")
	}
	return nil
}

// listSessions describes all of the caller's texts, without the texts.
func (c *canister) listSessions(r *request) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	var all []candid.Value
	for _, s := range c.sessions.all {
		if s.owner == r.caller {
			all = append(all, s.record(""))
		}
	}
	return one(candid.VecValue(all...))
}

func (s *session) record(text string) candid.Value {
	reason := s.g.Reason()
	if reason == "" {
		reason = "paused"
	}
	return candid.RecordValue(
		candid.Field{Name: "session", Value: candid.Nat64Value(s.id)},
		candid.Field{Name: "text", Value: candid.TextValue(text)},
		candid.Field{Name: "tokens", Value: candid.Nat32Value(uint32(s.g.Tokens()))},
		candid.Field{Name: "max_tokens", Value: candid.Nat32Value(uint32(s.g.Options().MaxTokens))},
		candid.Field{Name: "prompt_tokens", Value: candid.Nat32Value(uint32(s.g.PromptTokens()))},
		candid.Field{Name: "finish_reason", Value: candid.TextValue(reason)},
		candid.Field{Name: "seed", Value: candid.Nat64Value(s.g.Options().Sample.Seed)},
		candid.Field{Name: "cached", Value: candid.BoolValue(s.cache != nil)},
		candid.Field{Name: "last_used", Value: candid.Nat64Value(s.used)},
	)
}
