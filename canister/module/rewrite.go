package module

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// MapFuncs gives every function index the number f says: in code, tables,
// exports, globals and the start. The functions themselves stay where they are.
func (m *Module) MapFuncs(f func(uint32) uint32) {
	for i := range m.Funcs {
		m.Funcs[i].Code = mapFuncs(m.Funcs[i].Code, f)
	}
	for i := range m.Globals {
		m.Globals[i].Init = mapFuncs(m.Globals[i].Init, f)
	}
	for i := range m.Exports {
		if e := &m.Exports[i]; e.Kind == KindFunc {
			e.Index = f(e.Index)
		}
	}
	if m.Start != nil {
		start := f(*m.Start)
		m.Start = &start
	}
	for i := range m.Elems {
		e := &m.Elems[i]
		for j, index := range e.Funcs {
			e.Funcs[j] = f(index)
		}
		for j, x := range e.Exprs {
			e.Exprs[j] = mapFuncs(x, f)
		}
	}
}

func mapFuncs(code []byte, f func(uint32) uint32) []byte {
	var out []byte
	copied := 0
	each(code, func(in instr) {
		if in.refersToFunc() && f(in.index) != in.index {
			out = append(out, code[copied:in.pos]...)
			out = appendU32(append(out, byte(in.op)), f(in.index))
			copied = in.end
		}
	})
	if copied == 0 {
		return code
	}
	return append(out, code[copied:]...)
}

// FuncNames reads the names of functions, which are a debugging aid, from the
// name section: index by name. A module without one gives none.
func (m *Module) FuncNames() (map[string]uint32, error) {
	names := map[string]uint32{}
	for _, c := range m.Customs {
		if c.Name != "name" {
			continue
		}
		r := reader{b: c.Bytes}
		for r.p < len(r.b) && r.err == nil {
			id := r.byte()
			s := reader{b: r.bytes(r.count())}
			if id == 1 {
				s.vector(func() {
					index := s.u32()
					names[s.name()] = index
				})
			}
			if s.err != nil {
				return nil, fmt.Errorf("module: name section: %w", s.err)
			}
		}
		if r.err != nil {
			return nil, fmt.Errorf("module: name section: %w", r.err)
		}
	}
	return names, nil
}

// DropNops removes every nop and gives their number. Go 1.27.3 writes a stray
// one after each SIMD instruction whose number is above 127, and ICP charges
// for them.
func (m *Module) DropNops() int {
	dropped := 0
	for i := range m.Funcs {
		code := m.Funcs[i].Code
		var out []byte
		copied := 0
		each(code, func(in instr) {
			if in.op == opNop {
				out = append(out, code[copied:in.pos]...)
				copied = in.end
				dropped++
			}
		})
		if copied > 0 {
			m.Funcs[i].Code = append(out, code[copied:]...)
		}
	}
	return dropped
}

// offset evaluates the place of an active segment.
func (d Data) offset() (uint32, bool) {
	r := reader{b: d.Offset}
	if r.byte() != opI32Const {
		return 0, false
	}
	v := int64(0)
	for shift := uint(0); ; shift += 7 {
		c := r.byte()
		v |= int64(c&0x7f) << shift
		if c < 0x80 {
			if shift < 28 && c&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			break
		}
	}
	return uint32(v), r.byte() == opEnd && r.err == nil
}

// NewData gives an active segment.
func NewData(address uint32, bytes []byte) Data {
	return Data{Offset: new(Code).I32(int32(address)).Op(opEnd).b, Bytes: bytes}
}

// MergeData joins active data segments that follow each other with at most gap
// bytes between, which it fills with zeros: memory that no segment covers is
// zero anyway. It puts them in ascending order; none may overlap.
func (m *Module) MergeData(gap uint32) error {
	type segment struct {
		at    uint64
		bytes []byte
	}
	segments := make([]segment, 0, len(m.Data))
	for i, d := range m.Data {
		at, ok := d.offset()
		if d.Passive || !ok {
			return fmt.Errorf("module: data segment %d has no constant address", i)
		}
		segments = append(segments, segment{uint64(at), d.Bytes})
	}
	slices.SortStableFunc(segments, func(a, b segment) int { return cmp.Compare(a.at, b.at) })
	var out []segment
	end := uint64(0) // of the last segment
	for _, s := range segments {
		if s.at < end {
			return fmt.Errorf("module: a data segment begins at %d, before the end of another, %d", s.at, end)
		}
		if last := len(out) - 1; last >= 0 && s.at-end <= uint64(gap) {
			b := out[last].bytes
			if len(b) == cap(b) { // the input's own bytes: copy
				b = append(make([]byte, 0, 2*len(b)+64), b...)
			}
			b = append(b, make([]byte, s.at-end)...)
			out[last].bytes = append(b, s.bytes...)
		} else {
			out = append(out, segment{s.at, slices.Clip(s.bytes)})
		}
		if end = s.at + uint64(len(s.bytes)); end > math.MaxUint32 {
			return fmt.Errorf("module: a data segment ends at %d, beyond 4 GiB", end)
		}
	}
	m.Data = m.Data[:0:0]
	for _, s := range out {
		m.Data = append(m.Data, NewData(uint32(s.at), s.bytes))
	}
	return nil
}
