package main

import (
	"encoding/binary"
	"errors"

	"spinnet/canister/ic0"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// loaded is the model in use.
type loaded struct {
	engine *engine.Engine
	tok    tokenizer.Tokenizer
	bytes  int // of its file or image
	source string
	mark   [32]byte // tells models apart: a hash of parts of them
}

// Sources of a model.
const (
	sourceModule = "module" // it came with the module
	sourceUpload = "upload" // it was uploaded
)

// errNoModel says what to do without a model.
var errNoModel = errors.New("spinnet: the canister holds no model: upload one, or install a module that spinnet canister build has made of one")

// load finds the model: an uploaded one, else that of the module.
func (c *canister) load() {
	if h := readHeader(); h.state == modelReady {
		m, err := openUpload(&h)
		if err == nil {
			c.model = m
			return
		}
		ic0.Print("spinnet: the uploaded model cannot be used: " + err.Error())
	}
	c.model, c.modelErr = openModule()
}

// openModule makes the module's model ready.
func openModule() (*loaded, error) {
	switch n := binary.LittleEndian.Uint32(model[:]); {
	case n == 0:
		return nil, errNoModel
	case n > uint32(modelCapacity):
		return nil, errors.New("spinnet: the module's model is longer than the module")
	default:
		return open(model[modelStart:modelStart+int(n)], sourceModule)
	}
}

// use makes another model the one in use, or none. Sessions go with their
// model.
func (c *canister) use(m *loaded) {
	kept := c.sessions.all
	if c.model == nil || m == nil || c.model.mark != m.mark {
		c.stats.dropped += uint64(len(kept))
		kept = nil
	}
	for _, s := range kept {
		c.sessions.release(s) // its cache is of the engine before
	}
	c.sessions.all, c.sessions.free, c.sessions.made = kept, nil, 0
	c.model, c.costs = m, costs{}
}

// open makes a model ready that lies in b, which must stay as it is: an image
// as it lies, a .spinnet file by unpacking it.
func open(b []byte, source string) (*loaded, error) {
	m, err := unpack(b)
	if err != nil {
		return nil, err
	}
	m.bytes, m.source, m.mark = len(b), source, markOf(b)
	return m, nil
}

func unpack(b []byte) (*loaded, error) {
	if engine.IsImage(b) {
		e, tok, err := engine.FromImage(b)
		return &loaded{engine: e, tok: tok}, err
	}
	m, err := spinfile.Decode(b)
	if err != nil {
		return nil, err
	}
	tok, err := engine.NewTokenizer(m.Tokenizer)
	if err != nil {
		return nil, err
	}
	e, err := engine.NewInt8(m, engine.Options{Threads: 1})
	return &loaded{engine: e, tok: tok}, err
}

// markOf is a hash of a model's beginning, which describes it, and of samples
// of the rest.
func markOf(b []byte) [32]byte {
	const first, samples, sample = 8192, 16, 512
	h := newSHA256()
	h.write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
	h.write(b[:min(first, len(b))])
	if rest := len(b) - first - sample; rest > 0 {
		for i := range samples {
			h.write(b[first+rest/(samples-1)*i:][:sample])
		}
	}
	return h.sum()
}

// cacheMemory bounds the memory of all caches, in bytes. With a model of
// maxModel in use and one that takes its place it leaves some of 4 GiB.
const cacheMemory = 1 << 30

// caches is how many caches there may be.
func (m *loaded) caches(l limits) int {
	each := m.engine.CacheBytes(m.engine.Config().BlockSize)
	return max(1, min(int(l.Caches), cacheMemory/each))
}
