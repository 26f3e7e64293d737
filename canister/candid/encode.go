package candid

import (
	"encoding/binary"
	"math"
	"slices"
)

// Value is a value to be written, with its type.
type Value struct {
	t *shape
	b []byte
}

// shape is a type as it is built up: a primitive, or one made of others.
type shape struct {
	code   Type
	of     *shape // of opt and vec
	fields []field
}

// field is a field of a record or the tag of a variant.
type field struct {
	id uint32
	t  *shape
}

// primitives are the shapes of simple types.
var primitives = func() (p [25]*shape) {
	for i := range p {
		p[i] = &shape{code: Type(-i)}
	}
	return p
}()

func simple(code Type, b []byte) Value { return Value{primitives[-code], b} }

// NullValue is null, which also stands for an optional value that is absent.
func NullValue() Value { return simple(Null, nil) }

// BoolValue is a bool.
func BoolValue(v bool) Value {
	if v {
		return simple(Bool, []byte{1})
	}
	return simple(Bool, []byte{0})
}

// TextValue is a text, which must be valid UTF-8.
func TextValue(s string) Value { return simple(Text, append(appendLEB(nil, uint64(len(s))), s...)) }

// Nat8Value is a nat8.
func Nat8Value(v uint8) Value { return simple(Nat8, []byte{v}) }

// Nat32Value is a nat32.
func Nat32Value(v uint32) Value { return simple(Nat32, binary.LittleEndian.AppendUint32(nil, v)) }

// Nat64Value is a nat64.
func Nat64Value(v uint64) Value { return simple(Nat64, binary.LittleEndian.AppendUint64(nil, v)) }

// NatValue is a nat.
func NatValue(v uint64) Value { return simple(Nat, appendLEB(nil, v)) }

// Float64Value is a float64.
func Float64Value(v float64) Value {
	return simple(Float64, binary.LittleEndian.AppendUint64(nil, math.Float64bits(v)))
}

// PrincipalValue is a principal.
func PrincipalValue(p []byte) Value {
	return simple(Principal, append(appendLEB([]byte{1}, uint64(len(p))), p...))
}

// BlobValue is a vec nat8.
func BlobValue(b []byte) Value {
	return Value{&shape{code: vec, of: primitives[-Nat8]}, append(appendLEB(nil, uint64(len(b))), b...)}
}

// OptValue is an optional value that is present.
func OptValue(v Value) Value {
	return Value{&shape{code: opt, of: v.t}, append([]byte{1}, v.b...)}
}

// VecValue is a vec of values that have the same type, that of the first.
func VecValue(vs ...Value) Value {
	of := primitives[-Empty]
	b := appendLEB(nil, uint64(len(vs)))
	for _, v := range vs {
		of = v.t
		b = append(b, v.b...)
	}
	return Value{&shape{code: vec, of: of}, b}
}

// Field is a named field of a record.
type Field struct {
	Name  string
	Value Value
}

// RecordValue is a record of fields in any order.
func RecordValue(fields ...Field) Value {
	fields = slices.Clone(fields)
	slices.SortFunc(fields, func(a, b Field) int { return int(int64(Hash(a.Name)) - int64(Hash(b.Name))) })
	t, b := &shape{code: record}, []byte(nil)
	for _, f := range fields {
		t.fields = append(t.fields, field{Hash(f.Name), f.Value.t})
		b = append(b, f.Value.b...)
	}
	return Value{t, b}
}

// VariantValue is a variant. Its type on the wire has this tag only, and so is
// a subtype of every variant that knows it.
func VariantValue(tag string, v Value) Value {
	return Value{&shape{code: variant, fields: []field{{Hash(tag), v.t}}}, append([]byte{0}, v.b...)}
}

// Encode writes a message of values.
func Encode(values ...Value) []byte {
	var table [][]byte
	places := map[string]int{}
	args := appendLEB(nil, uint64(len(values)))
	for _, v := range values {
		args = appendSLEB(args, int64(v.t.place(&table, places)))
	}
	b := appendLEB([]byte(magic), uint64(len(table)))
	for _, entry := range table {
		b = append(b, entry...)
	}
	b = append(b, args...)
	for _, v := range values {
		b = append(b, v.b...)
	}
	return b
}

// place is the type's code, or its number in the table, to which it is added
// when it is new.
func (t *shape) place(table *[][]byte, places map[string]int) Type {
	entry := appendSLEB(nil, int64(t.code))
	switch t.code {
	case opt, vec:
		entry = appendSLEB(entry, int64(t.of.place(table, places)))
	case record, variant:
		entry = appendLEB(entry, uint64(len(t.fields)))
		for _, f := range t.fields {
			entry = appendSLEB(appendLEB(entry, uint64(f.id)), int64(f.t.place(table, places)))
		}
	default:
		return t.code
	}
	n, ok := places[string(entry)]
	if !ok {
		n = len(*table)
		places[string(entry)] = n
		*table = append(*table, entry)
	}
	return Type(n)
}

// appendLEB appends an unsigned number in LEB128.
func appendLEB(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

// appendSLEB appends a signed number in LEB128.
func appendSLEB(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
