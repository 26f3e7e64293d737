package main

import (
	"encoding/binary"
	"hash/crc32"

	"spinnet/canister/ic0"
)

// Stable memory, which survives upgrades. The first page is the header:
//
//	0    "SPNC", version, 4 bytes each
//	8    what there is of a model, 8 bytes: a modelState
//	16   its length, and how much has come, 8 bytes each
//	32   its SHA-256 as announced
//	64   the state of its SHA-256: 8 numbers of 4 bytes, 64 bytes
//	160  where the state of an upgrade begins and its length, 8 bytes each,
//	     and its CRC-32C, 4 bytes
//
// The model begins at the second page; the state of an upgrade lies behind it.
const (
	stableMagic   = "SPNC"
	stableVersion = 1
	stableHeader  = 256
	stableModel   = ic0.PageSize
)

// modelState says what there is of a model in stable memory.
type modelState uint64

const (
	modelNone    modelState = iota // nothing
	modelPartial                   // an upload that is not committed
	modelReady                     // a model
)

// header is that of stable memory.
type header struct {
	state            modelState
	size, received   uint64
	want             [32]byte
	hash             sha256
	stateAt, stateOf uint64 // place and length
	stateSum         uint32
}

// readHeader reads the header; what is not ours is empty.
func readHeader() (h header) {
	h.hash = *newSHA256()
	if ic0.StableSize() == 0 {
		return h
	}
	b := make([]byte, stableHeader)
	ic0.StableRead(b, 0)
	le := binary.LittleEndian
	if string(b[:4]) != stableMagic || le.Uint32(b[4:]) != stableVersion {
		return h
	}
	h.state, h.size, h.received = modelState(le.Uint64(b[8:])), le.Uint64(b[16:]), le.Uint64(b[24:])
	copy(h.want[:], b[32:])
	for i := range h.hash.h {
		h.hash.h[i] = le.Uint32(b[64+4*i:])
	}
	copy(h.hash.block[:], b[96:])
	h.hash.n = h.received
	h.stateAt, h.stateOf, h.stateSum = le.Uint64(b[160:]), le.Uint64(b[168:]), le.Uint32(b[176:])
	return h
}

// write writes the header, for which there must be a page.
func (h *header) write() {
	b := make([]byte, stableHeader)
	le := binary.LittleEndian
	copy(b, stableMagic)
	le.PutUint32(b[4:], stableVersion)
	le.PutUint64(b[8:], uint64(h.state))
	le.PutUint64(b[16:], h.size)
	le.PutUint64(b[24:], h.received)
	copy(b[32:], h.want[:])
	for i, v := range h.hash.h {
		le.PutUint32(b[64+4*i:], v)
	}
	copy(b[96:], h.hash.block[:])
	le.PutUint64(b[160:], h.stateAt)
	le.PutUint64(b[168:], h.stateOf)
	le.PutUint32(b[176:], h.stateSum)
	ic0.StableWrite(0, b)
}

// behindModel is the first page behind the model.
func (h *header) behindModel() uint64 {
	if h.state == modelNone {
		return stableModel
	}
	return (stableModel + h.size + ic0.PageSize - 1) / ic0.PageSize * ic0.PageSize
}

// reserve makes stable memory at least so large.
func reserve(bytes uint64) bool {
	pages := (bytes + ic0.PageSize - 1) / ic0.PageSize
	have := ic0.StableSize()
	return have >= pages || ic0.StableGrow(pages-have)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
