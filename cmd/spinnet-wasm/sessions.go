package main

import (
	"cmp"
	"errors"
	"slices"
	"strconv"

	"spinnet/engine"
)

// session is a text of a caller.
type session struct {
	id      uint64
	owner   string // principal
	g       *engine.Generation
	cache   *engine.Session // what it is computed in; nil: it reads its text again first
	text    []byte          // written so far
	used    uint64          // when last, in nanoseconds since 1970
	order   uint64          // of its last use among all
	classic bool            // the one of the methods without a session
	forward bool            // of start_forward: finish_forward has not come yet
	hidden  int             // ids before the prompt, which a text without one begins with
}

// done reports whether the text is finished.
func (s *session) done() bool { return s.g.Reason() != "" }

// sessions are all texts, and the caches that they are computed in.
type sessions struct {
	all   []*session        // in the order of their ids
	last  uint64            // id
	clock uint64            // counts uses
	free  []*engine.Session // caches without a text
	made  int               // caches that exist
}

// find gives a caller's session by its id.
func (t *sessions) find(owner string, id uint64) (*session, error) {
	for _, s := range t.all {
		if s.id == id && s.owner == owner {
			return s, nil
		}
	}
	return nil, errors.New("spinnet: you have no session " + strconv.FormatUint(id, 10) + ": it has expired, made room for others, or never was")
}

// classicOf gives a caller's session of the methods without ids.
func (t *sessions) classicOf(owner string) *session {
	for _, s := range t.all {
		if s.classic && s.owner == owner {
			return s
		}
	}
	return nil
}

// touch notes that a session is used.
func (t *sessions) touch(s *session, now uint64) {
	t.clock++
	s.used, s.order = now, t.clock
}

// remove ends a session.
func (t *sessions) remove(s *session) {
	t.release(s)
	t.all = slices.DeleteFunc(t.all, func(o *session) bool { return o == s })
}

// release gives a session's cache back.
func (t *sessions) release(s *session) {
	if s.cache != nil {
		s.g.Detach()
		t.free = append(t.free, s.cache)
		s.cache = nil
	}
}

// owned counts a caller's sessions.
func (t *sessions) owned(owner string) int {
	n := 0
	for _, s := range t.all {
		if s.owner == owner {
			n++
		}
	}
	return n
}

// expire ends the sessions that nobody has used for long.
func (c *canister) expire(now uint64) {
	idle := uint64(c.limits.IdleSeconds) * 1e9
	for _, s := range slices.Clone(c.sessions.all) {
		if s.used+idle < now {
			c.sessions.remove(s)
			c.stats.expired++
		}
	}
}

// room makes room for one more session of a caller, or says why there is none.
// A caller at their own limit loses their oldest finished session. When there
// are too many in all, the caller who has most loses one: a finished one before
// another, the longest unused first.
func (c *canister) room(owner string, now uint64) error {
	t := &c.sessions
	c.expire(now)
	most := c.limits.SessionsPerCaller
	if owner == anonymous {
		most = c.limits.AnonymousSessions
	}
	if most == 0 {
		return errors.New("spinnet: anonymous callers have no sessions here: call with an identity")
	}
	if t.owned(owner) >= int(most) {
		victim := t.oldest(func(s *session) bool { return s.owner == owner && s.done() })
		if victim == nil {
			return errors.New("spinnet: you have " + strconv.Itoa(int(most)) + " unfinished sessions, which is the limit: resume or end one")
		}
		t.remove(victim)
		c.stats.evicted++
	}
	for len(t.all) >= int(c.limits.Sessions) {
		busiest := t.busiest(func(*session) bool { return true }, owner)
		victim := t.oldest(func(s *session) bool { return s.owner == busiest && s.done() })
		if victim == nil {
			victim = t.oldest(func(s *session) bool { return s.owner == busiest })
		}
		t.remove(victim)
		c.stats.evicted++
	}
	return nil
}

// oldest gives the session of a kind that has not been used for longest.
func (t *sessions) oldest(kind func(*session) bool) *session {
	var best *session
	for _, s := range t.all {
		if kind(s) && (best == nil || s.order < best.order) {
			best = s
		}
	}
	return best
}

// busiest gives the caller with most sessions of a kind. Who asks for one more
// counts with it; among equals it is whose last use is longest ago.
func (t *sessions) busiest(kind func(*session) bool, asking string) string {
	type caller struct {
		owner string
		n     int
		order uint64 // of the last use
	}
	var callers []caller
	for _, s := range t.all {
		if !kind(s) {
			continue
		}
		i := slices.IndexFunc(callers, func(k caller) bool { return k.owner == s.owner })
		if i < 0 {
			i = len(callers)
			callers = append(callers, caller{owner: s.owner})
			if s.owner == asking {
				callers[i].n++
			}
		}
		callers[i].n++
		callers[i].order = max(callers[i].order, s.order)
	}
	return slices.MaxFunc(callers, func(a, b caller) int {
		return cmp.Or(cmp.Compare(a.n, b.n), cmp.Compare(b.order, a.order))
	}).owner
}

// begin makes a session for a prompt's ids.
func (c *canister) begin(r *request, ids []int32, hidden int, o engine.GenerateOptions) (*session, error) {
	if err := c.room(r.caller, r.now); err != nil {
		return nil, err
	}
	cache := c.cache(r.caller)
	cache.Reset()
	g, err := engine.NewGeneration(cache, c.model.tok, ids, o)
	if err != nil {
		c.sessions.free = append(c.sessions.free, cache)
		return nil, err
	}
	t := &c.sessions
	t.last++
	s := &session{id: t.last, owner: r.caller, g: g, cache: cache, hidden: hidden}
	t.all = append(t.all, s)
	t.touch(s, r.now)
	c.stats.sessions++
	return s, nil
}

// cache gives a cache that no session uses. When all that may exist are in
// use, the caller with most of them gives one up; its session reads its text
// again when it goes on.
func (c *canister) cache(owner string) *engine.Session {
	t := &c.sessions
	if n := len(t.free); n > 0 {
		cache := t.free[n-1]
		t.free = t.free[:n-1]
		return cache
	}
	if t.made < c.model.caches(c.limits) {
		t.made++
		return c.model.engine.NewSession()
	}
	computing := func(s *session) bool { return s.cache != nil }
	busiest := t.busiest(computing, owner)
	victim := t.oldest(func(s *session) bool { return computing(s) && s.owner == busiest })
	c.stats.detached++
	t.release(victim)
	return c.cache(owner)
}

// attach gives a session a cache if it has none.
func (c *canister) attach(s *session) error {
	if s.cache != nil || s.done() {
		return nil
	}
	cache := c.cache(s.owner)
	if err := s.g.Attach(cache); err != nil {
		c.sessions.free = append(c.sessions.free, cache)
		return err
	}
	s.cache = cache
	return nil
}
