package engine

import (
	"encoding/binary"
	"errors"
	"math"

	"spinnet/tokenizer"
)

// stateVersion is the first byte of a generation's state.
const stateVersion = 1

// reasons by their number in a state.
var reasons = [...]string{"", ReasonLength, ReasonStop}

// AppendState appends all that a generation needs to go on elsewhere, but the
// model and its cache: RestoreGeneration and Attach make it anew.
func (g *Generation) AppendState(dst []byte) []byte {
	le, s := binary.LittleEndian, g.o.Sample
	dst = append(dst, stateVersion)
	for _, v := range []uint64{s.Seed, math.Float64bits(s.RepetitionPenalty), uint64(s.RepetitionWindow), math.Float64bits(s.Temperature),
		uint64(s.TopK), math.Float64bits(s.TopP), math.Float64bits(s.MinP), uint64(g.o.MaxTokens)} {
		dst = le.AppendUint64(dst, v)
	}
	dst, _ = g.sampler.pcg.AppendBinary(dst) // of pcgState bytes; it has no errors
	for i, reason := range reasons {
		if reason == g.reason {
			dst = append(dst, byte(i))
		}
	}
	dst = le.AppendUint32(dst, uint32(len(g.o.Stop)))
	for _, stop := range g.o.Stop {
		dst = append(le.AppendUint32(dst, uint32(len(stop))), stop...)
	}
	dst = append(le.AppendUint32(dst, uint32(len(g.out.held))), g.out.held...)
	dst = le.AppendUint32(le.AppendUint32(dst, uint32(g.prompt)), uint32(len(g.ids)))
	for _, id := range g.ids {
		dst = le.AppendUint32(dst, uint32(id))
	}
	return dst
}

// pcgState is the length of a generator's state.
const pcgState = 20

// RestoreGeneration makes a detached generation of what AppendState wrote.
// Bytes that are cut short, too long or foreign are an error. The ids are
// compared with the vocabulary by Attach.
func RestoreGeneration(tok tokenizer.Tokenizer, state []byte) (*Generation, error) {
	r := stateReader{b: state}
	if v := r.bytes(1); r.bad || v[0] != stateVersion {
		return nil, errors.New("engine: not the state of a generation, or one of another version")
	}
	var o GenerateOptions
	s := &o.Sample
	s.Seed, s.RepetitionPenalty, s.RepetitionWindow, s.Temperature = r.u64(), r.f64(), r.int(), r.f64()
	s.TopK, s.TopP, s.MinP, o.MaxTokens = r.int(), r.f64(), r.f64(), r.int()
	pcg, reason := r.bytes(pcgState), r.bytes(1)
	for range r.count(4) {
		o.Stop = append(o.Stop, string(r.bytes(int(r.u32()))))
	}
	held := r.bytes(int(r.u32()))
	prompt := int(r.u32())
	ids := make([]int32, r.count(4))
	for i := range ids {
		ids[i] = int32(r.u32())
	}
	switch {
	case r.bad || len(r.b) > 0:
		return nil, errors.New("engine: the state of a generation has a wrong length")
	case prompt < 1 || prompt > len(ids) || len(ids)-prompt > o.MaxTokens || int(reason[0]) >= len(reasons):
		return nil, errors.New("engine: the state of a generation contradicts itself")
	}
	g, err := detachedGeneration(tok, ids, o)
	if err != nil {
		return nil, err
	}
	if err := g.sampler.pcg.UnmarshalBinary(pcg); err != nil {
		return nil, errors.New("engine: the state of a generation has no random numbers: " + err.Error())
	}
	g.prompt, g.reason = prompt, reasons[reason[0]]
	g.out.held = append(g.out.held, held...)
	return g, nil
}

// stateReader reads a state from front to back. What is missing is zero.
type stateReader struct {
	b   []byte
	bad bool
}

func (r *stateReader) bytes(n int) []byte {
	if r.bad = r.bad || n < 0 || n > len(r.b); r.bad {
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *stateReader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *stateReader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *stateReader) f64() float64 { return math.Float64frombits(r.u64()) }

// int reads a number that an int holds.
func (r *stateReader) int() int {
	v := r.u64()
	r.bad = r.bad || v > math.MaxInt32
	return int(v)
}

// count reads how many things of at least size bytes follow.
func (r *stateReader) count(size int) int {
	n := int64(r.u32())
	if r.bad = r.bad || n*int64(size) > int64(len(r.b)); r.bad {
		return 0
	}
	return int(n)
}
