package link

import (
	"bytes"
	"encoding/binary"
	"errors"

	"spinnet/canister/module"
)

// dropLines removes from Go's table of functions the numbers of source lines and
// the marks for preemption by signals: a tenth of the module when compressed.
// Traces of panics still name the functions. What the runtime needs to walk and
// to move stacks stays. The layout is that of Go 1.27: pcHeader in
// runtime/symtab.go and _func in runtime/runtime2.go.
func dropLines(m *module.Module) error {
	const magic = "\xf1\xff\xff\xff\x00\x00\x01\x08"
	for i := range m.Data {
		at := bytes.Index(m.Data[i].Bytes, []byte(magic))
		if at < 0 {
			continue
		}
		data := bytes.Clone(m.Data[i].Bytes)
		if !dropLinesOf(data[at:]) {
			break
		}
		m.Data[i].Bytes = data
		return nil
	}
	return errors.New("link: there is no table of functions as Go 1.27 writes it")
}

// A function's record: words of four bytes, then four bytes of which the last
// counts further words, then the offsets of npcdata tables.
const (
	funcFile    = 20 // offset of the table of files
	funcLine    = 24 // and of lines
	funcTables  = 28 // npcdata
	funcStart   = 36 // the first line
	funcSize    = 44
	unsafePoint = 0 // two tables by number
	liveArgs    = 3
)

// dropLinesOf changes the table that b begins with. It reports whether there is
// one.
func dropLinesOf(b []byte) bool {
	le := binary.LittleEndian
	if len(b) < 72 {
		return false
	}
	functions, tables, records := le.Uint64(b[8:]), le.Uint64(b[56:]), le.Uint64(b[64:])
	if tables > records || records > uint64(len(b)) || functions > (uint64(len(b))-records)/8 {
		return false
	}
	pairs, pctab := b[records:], b[tables:records]
	needed, dropped := map[uint32]bool{}, map[uint32]bool{}
	for f := range functions {
		at := uint64(le.Uint32(pairs[8*f+4:]))
		if at+funcSize > uint64(len(pairs)) {
			return false
		}
		record := pairs[at:]
		n := uint64(le.Uint32(record[funcTables:]))
		if n > (uint64(len(record))-funcSize)/4 {
			return false
		}
		needed[le.Uint32(record[16:])] = true // the stack's size
		for _, field := range []int{funcFile, funcLine} {
			dropped[le.Uint32(record[field:])] = true
			le.PutUint32(record[field:], 0)
		}
		le.PutUint32(record[funcStart:], 0)
		for t := range n {
			table := record[funcSize+4*t:]
			switch t {
			case unsafePoint, liveArgs:
				dropped[le.Uint32(table)] = true
				le.PutUint32(table, 0)
			default: // of pointers on the stack (1), of inlined calls (2)
				needed[le.Uint32(table)] = true
			}
		}
	}
	ends := map[uint32]uint32{} // first: a table that is cleared has no end
	for offset := range dropped {
		if offset == 0 || needed[offset] {
			continue
		}
		end, ok := tableEnd(pctab, offset)
		if !ok {
			return false
		}
		ends[offset] = end
	}
	for offset, end := range ends {
		clear(pctab[offset:end])
	}
	return functions > 0
}

// tableEnd finds the end of a table of changes: pairs of variable-length
// numbers, the difference of the value and that of the address, up to a value
// that does not change. The first may be 0.
func tableEnd(b []byte, at uint32) (uint32, bool) {
	for first := true; ; first = false {
		value, n := binary.Uvarint(b[min(int(at), len(b)):])
		if n <= 0 {
			return 0, false
		}
		at += uint32(n)
		if value == 0 && !first {
			return at, true
		}
		if _, n = binary.Uvarint(b[min(int(at), len(b)):]); n <= 0 {
			return 0, false
		}
		at += uint32(n)
	}
}
