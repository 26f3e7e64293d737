package main

import (
	"errors"
	"strconv"

	"spinnet/canister/ic0"
	"spinnet/engine"
)

// budget is what a message may spend.
type budget struct {
	stop uint64 // pause before the counter passes this
	hard uint64 // never start what would pass this
}

// costs are what the pieces of a text have taken, in instructions: what the
// next ones are expected to take. They are learned from the first pieces on,
// which begin with a single token.
type costs struct {
	layer1 uint64 // a layer for one token
	layerN uint64 // a layer for each of several tokens
	begin  uint64 // taking up tokens, beyond what a layer takes for them
	draw   uint64
}

// margin is added to what is expected, for a cache that grows, a collection of
// garbage and attention over a longer text: an eighth and a bit.
func margin(n uint64) uint64 { return n + n/8 + 4_000_000 }

// layer is what a layer is expected to take.
func (k *costs) layer(rows int) uint64 {
	if rows == 1 || k.layerN == 0 {
		return k.layer1 * uint64(rows)
	}
	return k.layerN * uint64(rows)
}

// expect is what a piece is expected to take.
func (k *costs) expect(p engine.Piece, rows int) uint64 {
	switch p {
	case engine.Begin:
		return k.begin + k.layer(rows)
	case engine.Layer:
		return k.layer(rows)
	}
	return k.draw
}

// learn notes what a piece took: more at once, less slowly.
func (k *costs) learn(p engine.Piece, rows int, took uint64) {
	cost := &k.draw
	switch {
	case p == engine.Begin:
		cost = &k.begin
		took -= min(took, k.layer(rows))
	case p == engine.Layer && rows == 1:
		cost = &k.layer1
	case p == engine.Layer:
		cost = &k.layerN
		took /= uint64(rows)
	}
	if took > *cost {
		*cost = took
	} else {
		*cost -= (*cost - took) / 8
	}
}

// rows is how many of n tokens to take up at once: as many as get through a
// layer in a small part of the budget, so that pauses are never far.
func (k *costs) rows(n int, b budget) int {
	if k.layer1 == 0 {
		return 1
	}
	return int(max(1, min(uint64(n), b.stop/16/k.layer1)))
}

// maxPart is after how many bytes of new text a message pauses: a reply that
// the network does not carry would be a trap, again with each try. Tests
// change it.
var maxPart = 1 << 20

// work does the pieces of a session's text until it is done, leave says that
// the piece to come is to be left, or, with paused, the budget is used up or the
// reply is full. The first piece is always done, if the message can have room
// for it.
func (c *canister) work(s *session, b budget, leave func(engine.Piece) bool) (paused bool, err error) {
	emit := func(text []byte) error {
		s.text = append(s.text, text...)
		return nil
	}
	used, from := ic0.Counter(ic0.CounterMessage), len(s.text)
	for first := true; ; first = false {
		p, rows := s.g.Next()
		if p == engine.Done || leave != nil && leave(p) {
			return false, nil
		}
		if p == engine.Begin {
			rows = c.costs.rows(min(rows, s.cache.Chunk()), b)
		}
		until := used + margin(c.costs.expect(p, rows))
		if until > b.hard && first {
			return false, errors.New("spinnet: one layer takes about " + strconv.FormatUint(until-used, 10) + " instructions, and a message has " + strconv.FormatUint(b.hard, 10))
		}
		if !first && (until > b.stop || len(s.text)-from > maxPart) {
			c.stats.pauses++
			return true, nil
		}
		tokens := s.g.Tokens()
		if err := s.g.Do(rows, emit); err != nil {
			return false, err
		}
		now := ic0.Counter(ic0.CounterMessage)
		c.costs.learn(p, rows, now-used)
		used = now
		switch p {
		case engine.Begin:
			c.stats.read += uint64(rows)
		case engine.Draw:
			c.stats.drawn += uint64(s.g.Tokens() - tokens)
		}
	}
}
