package main

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"strconv"

	"spinnet/canister/ic0"
	"spinnet/engine"
)

// What an upgrade keeps, beside the model: the limits, whether the service is
// paused, the counts, and the sessions with their texts, their random numbers
// and the ids they have read. Not kept are the caches, which the texts are read
// again for, what the pieces of work cost, and the random bytes for seeds.
// Sessions of another model than the new module's are dropped.

// savedVersion begins what save writes.
const savedVersion = 1

// stableWriter writes behind the model. When stable memory does not grow any
// more it remembers that.
type stableWriter struct {
	at   uint64
	sum  uint32
	full bool
}

// block writes a block behind its length.
func (w *stableWriter) block(b []byte) {
	b = append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
	if w.full = w.full || !reserve(w.at+uint64(len(b))); w.full {
		return
	}
	ic0.StableWrite(w.at, b)
	w.sum = crc32.Update(w.sum, castagnoli, b)
	w.at += uint64(len(b))
}

// save keeps the state for post_upgrade. Nothing here may trap: that would
// make upgrades impossible.
func (c *canister) save() {
	h := readHeader()
	if !reserve(stableModel) {
		ic0.Print("spinnet: no stable memory: the upgrade drops sessions and settings")
		return
	}
	w := stableWriter{at: h.behindModel()}
	start := w.at
	le := binary.LittleEndian
	b := []byte{savedVersion, 0}
	if c.paused {
		b[1] = 1
	}
	b = le.AppendUint64(b, c.sessions.last)
	b = le.AppendUint64(b, c.sessions.clock)
	if c.model != nil {
		b = append(b, c.model.mark[:]...)
	} else {
		b = append(b, make([]byte, 32)...)
	}
	numbers := c.limits.numbers()
	b = append(b, byte(len(numbers)))
	for _, n := range numbers {
		b = appendNamed(b, n.name, n.get())
	}
	fields := c.stats.fields()
	b = append(b, byte(len(fields)))
	for _, f := range fields {
		b = appendNamed(b, f.name, *f.value)
	}
	w.block(b)
	for _, s := range c.sessions.all {
		b = b[:0]
		flags := byte(0)
		if s.classic {
			flags |= 1
		}
		if s.forward {
			flags |= 2
		}
		b = append(b, flags, byte(len(s.owner)))
		b = append(b, s.owner...)
		b = le.AppendUint64(b, s.id)
		b = le.AppendUint64(b, s.used)
		b = le.AppendUint64(b, s.order)
		b = le.AppendUint32(b, uint32(s.hidden))
		b = le.AppendUint32(b, uint32(len(s.text)))
		b = append(b, s.text...)
		w.block(s.g.AppendState(b))
	}
	if w.full {
		ic0.Print("spinnet: stable memory is full: the upgrade drops sessions")
	}
	h.stateAt, h.stateOf, h.stateSum = start, w.at-start, w.sum
	h.write()
}

// appendNamed appends a number behind its name.
func appendNamed(b []byte, name string, v uint64) []byte {
	b = append(append(b, byte(len(name))), name...)
	return binary.LittleEndian.AppendUint64(b, v)
}

// restore takes up what save has kept, once.
func (c *canister) restore() {
	h := readHeader()
	size := ic0.StableSize() * ic0.PageSize
	if h.stateOf == 0 || h.stateAt > size || h.stateOf > size-h.stateAt {
		return
	}
	r := stableReader{at: h.stateAt, end: h.stateAt + h.stateOf}
	for r.at < r.end && !r.bad {
		r.add(r.block())
	}
	if r.bad || r.sum != h.stateSum {
		ic0.Print("spinnet: what the upgrade has kept is damaged: sessions and settings are dropped")
	} else {
		r.at = h.stateAt
		same, err := c.restoreSettings(r.block())
		for err == nil && r.at < r.end {
			if b := r.block(); !same || c.restoreSession(b) != nil {
				c.stats.dropped++
			}
		}
		if err != nil {
			ic0.Print("spinnet: " + err.Error())
		}
	}
	h.stateOf = 0
	h.write()
}

// restoreSettings reads the first block, and reports whether the sessions are
// of the model in use.
func (c *canister) restoreSettings(b []byte) (same bool, err error) {
	d := savedReader{b: b}
	if version := d.u8(); version != savedVersion {
		return false, errors.New("the upgrade has kept a state of version " + strconv.Itoa(int(version)) + ", which is dropped")
	}
	c.paused = d.u8() != 0
	c.sessions.last, c.sessions.clock = d.u64(), d.u64()
	mark := d.bytes(32)
	l := c.limits
	numbers := l.numbers()
	for range d.u8() {
		name, v := d.named()
		for i := range numbers {
			if n := &numbers[i]; n.name == name && n.set(v) != nil {
				ic0.Print("spinnet: the limit " + name + " is as it was in the beginning")
			}
		}
	}
	fields := c.stats.fields()
	for range d.u8() {
		name, v := d.named()
		for _, f := range fields {
			if f.name == name {
				*f.value = v
			}
		}
	}
	if d.bad || len(d.b) > 0 {
		return false, errors.New("the settings that the upgrade has kept are damaged")
	}
	c.limits = l
	return c.model != nil && string(mark) == string(c.model.mark[:]), nil
}

// restoreSession reads a session.
func (c *canister) restoreSession(b []byte) error {
	d := savedReader{b: b}
	flags := d.u8()
	s := &session{classic: flags&1 != 0, forward: flags&2 != 0, owner: string(d.bytes(int(d.u8())))}
	s.id, s.used, s.order, s.hidden = d.u64(), d.u64(), d.u64(), int(d.u32())
	s.text = append(s.text, d.bytes(int(d.u32()))...)
	if d.bad {
		return errors.New("cut short")
	}
	var err error
	if s.g, err = engine.RestoreGeneration(c.model.tok, d.b); err != nil {
		return err
	}
	if s.hidden > s.g.PromptTokens() {
		return errors.New("it contradicts itself")
	}
	c.sessions.all = append(c.sessions.all, s)
	return nil
}

// stableReader reads blocks.
type stableReader struct {
	at, end uint64
	sum     uint32
	bad     bool
}

func (r *stableReader) block() []byte {
	var n [4]byte
	if r.end-r.at < 4 {
		r.bad = true
		return nil
	}
	ic0.StableRead(n[:], r.at)
	size := uint64(binary.LittleEndian.Uint32(n[:]))
	if size > r.end-r.at-4 || size > math.MaxInt32 {
		r.bad = true
		return nil
	}
	b := make([]byte, size)
	ic0.StableRead(b, r.at+4)
	r.at += 4 + size
	return b
}

// add adds a block to the checksum.
func (r *stableReader) add(b []byte) {
	r.sum = crc32.Update(crc32.Update(r.sum, castagnoli, binary.LittleEndian.AppendUint32(nil, uint32(len(b)))), castagnoli, b)
}

// savedReader reads a block from front to back. What is missing is zero.
type savedReader struct {
	b   []byte
	bad bool
}

func (r *savedReader) bytes(n int) []byte {
	if n > len(r.b) {
		r.bad, n = true, 0
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *savedReader) u8() byte {
	if b := r.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (r *savedReader) u32() uint32 {
	if b := r.bytes(4); len(b) == 4 {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *savedReader) u64() uint64 {
	if b := r.bytes(8); len(b) == 8 {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *savedReader) named() (string, uint64) {
	name := string(r.bytes(int(r.u8())))
	return name, r.u64()
}
