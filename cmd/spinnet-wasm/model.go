package main

import (
	"encoding/binary"
	"errors"

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
	n := binary.LittleEndian.Uint32(model[:])
	switch {
	case n == 0:
		c.modelErr = errNoModel
	case n > modelCapacity():
		c.modelErr = errors.New("spinnet: the module's model is longer than the module")
	default:
		c.model, c.modelErr = open(model[modelStart:modelStart+int(n)], sourceModule)
	}
}

// open makes a model ready that lies in b, which must stay as it is: an image
// as it lies, a .spinnet file by unpacking it.
func open(b []byte, source string) (*loaded, error) {
	if engine.IsImage(b) {
		e, tok, err := engine.FromImage(b)
		if err != nil {
			return nil, err
		}
		return &loaded{engine: e, tok: tok, bytes: len(b), source: source}, nil
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
	if err != nil {
		return nil, err
	}
	return &loaded{engine: e, tok: tok, bytes: len(b), source: source}, nil
}

// cacheMemory bounds the memory of all caches, in bytes.
const cacheMemory = 1 << 30

// caches is how many caches there may be.
func (m *loaded) caches(l limits) int {
	c := m.engine.Config()
	bytes := 2 * c.NLayer * c.KVDim() * 4 * (c.BlockSize + 128)
	return max(1, min(int(l.Caches), cacheMemory/bytes))
}
