package module

import "encoding/binary"

func appendU32(b []byte, v uint32) []byte { return binary.AppendUvarint(b, uint64(v)) }

func appendS64(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func appendBytes[T string | []byte](b []byte, s T) []byte {
	return append(appendU32(b, uint32(len(s))), s...)
}

func appendLimits(b []byte, low uint64, high int64) []byte {
	if high < 0 {
		return appendU32(append(b, 0), uint32(low))
	}
	return appendU32(appendU32(append(b, 1), uint32(low)), uint32(high))
}

// section appends a section of n elements; none without elements.
func section(out []byte, id byte, n int, each func(b []byte, i int) []byte) []byte {
	if n == 0 {
		return out
	}
	b := appendU32(nil, uint32(n))
	for i := range n {
		b = each(b, i)
	}
	return appendBytes(append(out, id), b)
}

// CodeSection gives the code section's contents, without its number and
// length.
func (m *Module) CodeSection() []byte {
	size := 5
	for i := range m.Funcs {
		size += 5 + len(m.Funcs[i].Locals) + len(m.Funcs[i].Code)
	}
	b := appendU32(make([]byte, 0, size), uint32(len(m.Funcs)))
	for _, f := range m.Funcs {
		b = appendU32(b, uint32(len(f.Locals)+len(f.Code)))
		b = append(append(b, f.Locals...), f.Code...)
	}
	return b
}

// Encode writes the module. The same module gives the same bytes.
func (m *Module) Encode() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	out = section(out, 1, len(m.Types), func(b []byte, i int) []byte {
		return appendBytes(appendBytes(append(b, 0x60), m.Types[i].Params), m.Types[i].Results)
	})
	out = section(out, 2, len(m.Imports), func(b []byte, i int) []byte {
		im := m.Imports[i]
		b = append(appendBytes(appendBytes(b, im.Module), im.Name), byte(im.Kind))
		if im.Kind == KindFunc {
			return appendU32(b, im.Type)
		}
		return append(b, im.Desc...)
	})
	out = section(out, 3, len(m.Funcs), func(b []byte, i int) []byte { return appendU32(b, m.Funcs[i].Type) })
	out = section(out, 4, len(m.Tables), func(b []byte, i int) []byte { return append(b, m.Tables[i]...) })
	out = section(out, 5, len(m.Memories), func(b []byte, i int) []byte {
		return appendLimits(b, m.Memories[i].Min, m.Memories[i].Max)
	})
	out = section(out, 6, len(m.Globals), func(b []byte, i int) []byte {
		g := m.Globals[i]
		mutable := byte(0)
		if g.Mutable {
			mutable = 1
		}
		return append(append(b, g.Type, mutable), g.Init...)
	})
	out = section(out, 7, len(m.Exports), func(b []byte, i int) []byte {
		e := m.Exports[i]
		return appendU32(append(appendBytes(b, e.Name), byte(e.Kind)), e.Index)
	})
	if m.Start != nil {
		out = appendBytes(append(out, 8), appendU32(nil, *m.Start))
	}
	out = section(out, 9, len(m.Elems), func(b []byte, i int) []byte {
		e := m.Elems[i]
		b = append(b, e.Head...)
		if e.Funcs == nil {
			b = appendU32(b, uint32(len(e.Exprs)))
			for _, x := range e.Exprs {
				b = append(b, x...)
			}
			return b
		}
		b = appendU32(b, uint32(len(e.Funcs)))
		for _, f := range e.Funcs {
			b = appendU32(b, f)
		}
		return b
	})
	if m.HasCount {
		out = appendBytes(append(out, 12), appendU32(nil, uint32(len(m.Data))))
	}
	if len(m.Funcs) > 0 {
		out = appendBytes(append(out, 10), m.CodeSection())
	}
	out = section(out, 11, len(m.Data), func(b []byte, i int) []byte {
		d := m.Data[i]
		if d.Passive {
			b = append(b, 1)
		} else {
			b = append(append(b, 0), d.Offset...)
		}
		return appendBytes(b, d.Bytes)
	})
	for _, c := range m.Customs {
		out = appendBytes(append(out, 0), append(appendBytes(nil, c.Name), c.Bytes...))
	}
	return out
}
