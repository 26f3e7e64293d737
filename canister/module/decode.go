package module

import (
	"fmt"
	"unicode/utf8"
)

// reader reads a section or a body. The first error stays, with its offset in
// the file; what is read after it is zero.
type reader struct {
	b    []byte
	p    int
	base int // offset of b[0] in the file
	err  error
}

func (r *reader) fail(reason string) {
	if r.err == nil {
		r.err = fmt.Errorf("module: offset %d: %s", r.base+r.p, reason)
	}
}

func (r *reader) byte() byte {
	if r.err != nil || r.p >= len(r.b) {
		r.fail("ends too early")
		return 0
	}
	c := r.b[r.p]
	r.p++
	return c
}

func (r *reader) bytes(n int) []byte {
	if r.err != nil || n > len(r.b)-r.p {
		r.fail("ends too early")
		return nil
	}
	b := r.b[r.p : r.p+n : r.p+n]
	r.p += n
	return b
}

// leb skips a LEB128 number of so many bits.
func (r *reader) leb(bits int) {
	for n := 0; r.byte() >= 0x80; {
		if n += 7; n >= bits {
			r.fail("a number is too long")
			return
		}
	}
}

func (r *reader) u64(bits uint) uint64 {
	var v uint64
	for shift := uint(0); ; shift += 7 {
		c := r.byte()
		if shift+7 > bits && c>>(bits-shift) != 0 {
			r.fail("a number is too large")
			return 0
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

func (r *reader) u32() uint32 { return uint32(r.u64(32)) }

// count reads the length of a vector: at most the bytes that are left, since
// every element takes at least one.
func (r *reader) count() int {
	n := r.u32()
	if int64(n) > int64(len(r.b)-r.p) {
		r.fail(fmt.Sprintf("%d elements in %d bytes", n, len(r.b)-r.p))
		return 0
	}
	return int(n)
}

func (r *reader) name() string {
	b := r.bytes(r.count())
	if !utf8.Valid(b) {
		r.fail("a name is not UTF-8")
	}
	return string(b)
}

// constant reads a constant expression, `end` included.
func (r *reader) constant() []byte {
	start := r.p
	for r.err == nil {
		switch in := r.next(); in.op {
		case opEnd:
			return r.b[start:r.p:r.p]
		case opI32Const, opI64Const, opF32Const, opF64Const, opGlobalGet, opRefNull, opRefFunc, simd + 12:
		default:
			r.fail("not a constant expression")
		}
	}
	return nil
}

// limits reads the bounds of a table or of a memory.
func (r *reader) limits() (low uint64, high int64) {
	flag := r.byte()
	if flag > 1 {
		r.fail(fmt.Sprintf("limits of kind %d: shared and 64-bit memories are not accepted", flag))
	}
	low, high = uint64(r.u32()), -1
	if flag == 1 {
		high = int64(r.u32())
	}
	return low, high
}

// order is the place of each section by its number; the data count (12) stands
// before the code (10).
var order = [...]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9, 12: 10, 10: 11, 11: 12}

// Parse reads a module. The errors say at which offset the input is not one.
func Parse(wasm []byte) (*Module, error) {
	if len(wasm) < 8 || string(wasm[:8]) != "\x00asm\x01\x00\x00\x00" {
		return nil, fmt.Errorf("module: not a WebAssembly module of version 1")
	}
	m := &Module{}
	r := &reader{b: wasm, p: 8}
	var types []uint32
	dataCount := 0
	for last := 0; r.p < len(wasm) && r.err == nil; {
		id := r.byte()
		n := r.count()
		s := &reader{base: r.p, b: r.bytes(n)}
		if r.err != nil {
			break
		}
		if id != 0 {
			if int(id) >= len(order) || order[id] <= last {
				return nil, fmt.Errorf("module: offset %d: section %d is unknown, repeated or out of order", s.base, id)
			}
			last = order[id]
		}
		switch id {
		case 0:
			name := s.name()
			m.Customs = append(m.Customs, Custom{name, s.bytes(len(s.b) - s.p)})
		case 3:
			s.vector(func() { types = append(types, s.u32()) })
		case 10:
			m.code(s, types)
		case 12:
			m.HasCount = true
			dataCount = int(s.u32())
		default:
			m.section(id, s)
		}
		if s.err == nil && s.p != len(s.b) {
			s.fail(fmt.Sprintf("section %d is longer than its contents", id))
		}
		if s.err != nil {
			return nil, s.err
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(m.Funcs) != len(types) {
		return nil, fmt.Errorf("module: %d functions are declared and %d defined", len(types), len(m.Funcs))
	}
	if m.HasCount && dataCount != len(m.Data) {
		return nil, fmt.Errorf("module: %d data segments are counted and %d defined", dataCount, len(m.Data))
	}
	return m, m.checkIndices()
}

// vector reads a length and calls f so many times.
func (r *reader) vector(f func()) {
	for n := r.count(); n > 0 && r.err == nil; n-- {
		f()
	}
}

// section reads the sections that need no other.
func (m *Module) section(id byte, s *reader) {
	switch id {
	case 1:
		s.vector(func() {
			if s.byte() != 0x60 {
				s.fail("not a function type")
			}
			m.Types = append(m.Types, FuncType{s.bytes(s.count()), s.bytes(s.count())})
		})
	case 2:
		s.vector(func() { m.Imports = append(m.Imports, s.imported()) })
	case 4:
		s.vector(func() {
			start := s.p
			s.leb(33)
			s.limits()
			if s.err == nil {
				m.Tables = append(m.Tables, s.b[start:s.p])
			}
		})
	case 5:
		s.vector(func() {
			low, high := s.limits()
			m.Memories = append(m.Memories, Memory{low, high})
		})
		if len(m.Memories) > 1 {
			s.fail("more than one memory")
		}
	case 6:
		s.vector(func() {
			g := Global{Type: s.byte()}
			mutable := s.byte()
			if mutable > 1 {
				s.fail("a global is neither constant nor variable")
			}
			g.Mutable = mutable == 1
			g.Init = s.constant()
			m.Globals = append(m.Globals, g)
		})
	case 7:
		s.vector(func() {
			e := Export{s.name(), Kind(s.byte()), s.u32()}
			if e.Kind > KindGlobal {
				s.fail("an export of an unknown kind")
			}
			m.Exports = append(m.Exports, e)
		})
	case 8:
		start := s.u32()
		m.Start = &start
	case 9:
		s.vector(func() { m.Elems = append(m.Elems, s.elem()) })
	case 11:
		s.vector(func() {
			var d Data
			switch s.u32() {
			case 0:
				d.Offset = s.constant()
			case 1:
				d.Passive = true
			default:
				s.fail("a data segment of another memory")
			}
			d.Bytes = s.bytes(s.count())
			m.Data = append(m.Data, d)
		})
	}
}

func (r *reader) imported() Import {
	im := Import{Module: r.name(), Name: r.name(), Kind: Kind(r.byte())}
	start := r.p
	switch im.Kind {
	case KindFunc:
		im.Type = r.u32()
	case KindTable:
		r.leb(33)
		r.limits()
	case KindMemory:
		r.limits()
	case KindGlobal:
		r.bytes(2)
	default:
		r.fail("an import of an unknown kind")
	}
	if r.err == nil && im.Kind != KindFunc {
		im.Desc = r.b[start:r.p]
	}
	return im
}

// elem reads an element segment. The bits of its flag: 1 not active, 2 a table
// is named (or, with 1, declared only), 4 the items are expressions.
func (r *reader) elem() Elem {
	start := r.p
	flag := r.u32()
	if flag > 7 {
		r.fail("an element segment of an unknown kind")
	}
	if flag&1 == 0 {
		if flag&2 != 0 {
			r.u32()
		}
		r.constant()
	}
	if flag&3 != 0 {
		r.byte()
	}
	if r.err != nil {
		return Elem{}
	}
	e := Elem{Head: r.b[start:r.p]}
	if flag&4 == 0 {
		e.Funcs = []uint32{}
		r.vector(func() { e.Funcs = append(e.Funcs, r.u32()) })
	} else {
		r.vector(func() { e.Exprs = append(e.Exprs, r.constant()) })
	}
	return e
}

// code reads the bodies and checks that they decode.
func (m *Module) code(s *reader, types []uint32) {
	n := s.count()
	if n != len(types) {
		s.fail(fmt.Sprintf("%d functions are declared and %d defined", len(types), n))
		return
	}
	m.Funcs = make([]Func, 0, n)
	for i := 0; i < n && s.err == nil; i++ {
		size := s.count()
		b := &reader{base: s.base + s.p, b: s.bytes(size)}
		locals := uint64(0)
		b.vector(func() {
			locals += uint64(b.u32())
			b.byte()
		})
		if locals > 50_000 {
			b.fail(fmt.Sprintf("%d local variables, of at most 50,000", locals))
		}
		if b.err == nil {
			m.Funcs = append(m.Funcs, Func{types[i], b.b[:b.p:b.p], b.b[b.p:]})
			if err := checkBody(b.b[b.p:]); err != nil {
				b.err = fmt.Errorf("module: function %d at offset %d: %w", i, b.base, err)
			}
		}
		if b.err != nil {
			s.err = b.err
		}
	}
}

// checkIndices reports indices of types and functions that lead nowhere: what
// the rewriting here relies on.
func (m *Module) checkIndices() error {
	funcs := m.Imported(KindFunc) + uint32(len(m.Funcs))
	globals := m.Imported(KindGlobal) + uint32(len(m.Globals))
	bad := func(what string, index uint32) error {
		return fmt.Errorf("module: %s refers to %d, which does not exist", what, index)
	}
	for _, im := range m.Imports {
		if im.Kind == KindFunc && int(im.Type) >= len(m.Types) {
			return bad("import "+im.Name, im.Type)
		}
	}
	for i, f := range m.Funcs {
		if int(f.Type) >= len(m.Types) {
			return bad(fmt.Sprintf("the type of function %d", i), f.Type)
		}
		var err error
		each(f.Code, func(in instr) {
			if in.refersToFunc() && in.index >= funcs {
				err = bad(fmt.Sprintf("function %d", i), in.index)
			}
		})
		if err != nil {
			return err
		}
	}
	for _, e := range m.Exports {
		if e.Kind == KindFunc && e.Index >= funcs || e.Kind == KindGlobal && e.Index >= globals {
			return bad("export "+e.Name, e.Index)
		}
	}
	if m.Start != nil && *m.Start >= funcs {
		return bad("the start", *m.Start)
	}
	for _, e := range m.Elems {
		for _, f := range e.Funcs {
			if f >= funcs {
				return bad("a table", f)
			}
		}
	}
	return nil
}
