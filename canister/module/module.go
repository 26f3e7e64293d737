// Package module reads, changes, meters and writes WebAssembly modules: what
// the link step, the local replica and the budget tests need, and no more. It
// follows the binary format of WebAssembly 2.0 (with SIMD, bulk memory and
// reference types) as far as the Internet Computer (ICP) accepts it. It does
// not type-check code: an engine does that before it runs a module.
//
// Input is untrusted: Parse returns an error for every malformed module, and
// what it allocates is proportional to the input's length. The parts of a
// Module are slices of that input; nothing here changes them in place.
package module

import (
	"bytes"
	"fmt"
	"slices"
)

// ValType is the type of a value, as the binary format writes it.
type ValType = byte

// The types of values.
const (
	I32  ValType = 0x7f
	I64  ValType = 0x7e
	F32  ValType = 0x7d
	F64  ValType = 0x7c
	V128 ValType = 0x7b
)

// Kind says what an import or an export is.
type Kind byte

// The kinds of imports and exports.
const (
	KindFunc Kind = iota
	KindTable
	KindMemory
	KindGlobal
)

// FuncType is a function's parameters and results.
type FuncType struct{ Params, Results []ValType }

// Import is one import. Type is its function type's index if it is a function,
// and Desc the bytes that describe it otherwise.
type Import struct {
	Module, Name string
	Kind         Kind
	Type         uint32
	Desc         []byte
}

// Func is a function that the module defines: the index of its type, its local
// variables as the format writes them, and its instructions, `end` included.
type Func struct {
	Type   uint32
	Locals []byte
	Code   []byte
}

// Global is a global variable; Init is a constant expression, `end` included.
type Global struct {
	Type    ValType
	Mutable bool
	Init    []byte
}

// Memory is a linear memory's size in pages of 64 KiB. Max is -1 without one.
type Memory struct {
	Min uint64
	Max int64
}

// Export is one export: Index counts from the imports of its kind on.
type Export struct {
	Name  string
	Kind  Kind
	Index uint32
}

// Elem is an element segment. Head is what comes before its items (the flag,
// the table, the offset, the kind). The items are function indices in Funcs, or
// constant expressions in Exprs.
type Elem struct {
	Head  []byte
	Funcs []uint32
	Exprs [][]byte
}

// Data is a data segment. An active one is copied to Offset (a constant
// expression, `end` included) when the module is instantiated.
type Data struct {
	Passive bool
	Offset  []byte
	Bytes   []byte
}

// Custom is a custom section.
type Custom struct {
	Name  string
	Bytes []byte
}

// Module is a WebAssembly module. Encode writes custom sections last, in their
// order.
type Module struct {
	Types    []FuncType
	Imports  []Import
	Funcs    []Func
	Tables   [][]byte // each as the format writes it
	Memories []Memory
	Globals  []Global
	Exports  []Export
	Start    *uint32
	Elems    []Elem
	Data     []Data
	HasCount bool // there is a data count section
	Customs  []Custom
}

// Imported gives the number of imports of a kind.
func (m *Module) Imported(k Kind) uint32 {
	n := uint32(0)
	for i := range m.Imports {
		if m.Imports[i].Kind == k {
			n++
		}
	}
	return n
}

// Export finds an export by name and kind.
func (m *Module) Export(name string, k Kind) (uint32, bool) {
	for _, e := range m.Exports {
		if e.Name == name && e.Kind == k {
			return e.Index, true
		}
	}
	return 0, false
}

// FuncType gives the type of a function by its index, imports first.
func (m *Module) FuncType(index uint32) (FuncType, error) {
	t := uint32(0)
	if n := m.Imported(KindFunc); index < n {
		for i := range m.Imports {
			if m.Imports[i].Kind != KindFunc {
				continue
			}
			if index == 0 {
				t = m.Imports[i].Type
				break
			}
			index--
		}
	} else if int(index-n) < len(m.Funcs) {
		t = m.Funcs[index-n].Type
	} else {
		return FuncType{}, fmt.Errorf("module: there is no function %d", index)
	}
	if int(t) >= len(m.Types) {
		return FuncType{}, fmt.Errorf("module: function %d has type %d of %d", index, t, len(m.Types))
	}
	return m.Types[t], nil
}

// AddType gives the index of a function type, which it adds if it is new.
func (m *Module) AddType(params, results []ValType) uint32 {
	for i, t := range m.Types {
		if bytes.Equal(t.Params, params) && bytes.Equal(t.Results, results) {
			return uint32(i)
		}
	}
	m.Types = append(m.Types, FuncType{params, results})
	return uint32(len(m.Types) - 1)
}

// AddFunc adds a function and gives its index. locals holds the types of its
// local variables beyond the parameters; code comes without the last `end`.
func (m *Module) AddFunc(typ uint32, locals []ValType, code *Code) uint32 {
	m.Funcs = append(m.Funcs, NewFunc(typ, locals, code))
	return m.Imported(KindFunc) + uint32(len(m.Funcs)) - 1
}

// NewFunc gives a function as AddFunc adds it.
func NewFunc(typ uint32, locals []ValType, code *Code) Func {
	l := appendU32(nil, uint32(len(locals)))
	for _, t := range locals {
		l = append(l, 1, t)
	}
	return Func{typ, l, append(slices.Clip(code.b), opEnd)}
}

// AddGlobal adds a mutable global of type i64 and gives its index.
func (m *Module) AddGlobal(value int64) uint32 {
	m.Globals = append(m.Globals, Global{I64, true, append(appendS64([]byte{opI64Const}, value), opEnd)})
	return m.Imported(KindGlobal) + uint32(len(m.Globals)) - 1
}

// Code collects instructions. Its methods return it, so that calls chain.
type Code struct{ b []byte }

// Op appends bytes: instructions without immediates, or with short ones.
func (c *Code) Op(b ...byte) *Code { c.b = append(c.b, b...); return c }

// LocalGet appends local.get.
func (c *Code) LocalGet(i uint32) *Code { c.b = appendU32(append(c.b, 0x20), i); return c }

// LocalSet appends local.set.
func (c *Code) LocalSet(i uint32) *Code { c.b = appendU32(append(c.b, 0x21), i); return c }

// GlobalGet appends global.get.
func (c *Code) GlobalGet(i uint32) *Code { c.b = appendU32(append(c.b, opGlobalGet), i); return c }

// GlobalSet appends global.set.
func (c *Code) GlobalSet(i uint32) *Code { c.b = appendU32(append(c.b, opGlobalSet), i); return c }

// I32 appends i32.const.
func (c *Code) I32(v int32) *Code { c.b = appendS64(append(c.b, opI32Const), int64(v)); return c }

// I64 appends i64.const.
func (c *Code) I64(v int64) *Code { c.b = appendS64(append(c.b, opI64Const), v); return c }

// Call appends a call.
func (c *Code) Call(f uint32) *Code { c.b = appendU32(append(c.b, opCall), f); return c }

// Mem appends a load or a store of any alignment at an offset.
func (c *Code) Mem(op byte, offset uint32) *Code {
	c.b = appendU32(append(c.b, op, 0), offset)
	return c
}
