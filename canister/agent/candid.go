package agent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"

	"spinnet/canister/candid"
)

// Candid values in Go:
//
//	null, reserved      nil            bool     bool
//	nat                 Nat            int      Int
//	nat8 … nat64        uint8 …        int8 …   int8 …
//	float32, float64    same           text     string
//	principal           Principal      opt      Opt
//	vec nat8            []byte         vec      Vec
//	record              Record         variant  Variant
//
// References to functions and services are not values here.
type (
	// Nat and Int are unbounded numbers.
	Nat struct{ *big.Int }
	// Int has a sign.
	Int struct{ *big.Int }
	// Opt is a value or its absence.
	Opt struct {
		Set   bool
		Value any
	}
	// Vec holds values of one type.
	Vec []any
	// Record holds named values.
	Record []Field
	// Variant is one value of several named ones.
	Variant Field
	// Field is a value with a name, or with a name's hash where the name is
	// not known.
	Field struct {
		Name  string
		ID    uint32
		Value any
	}
)

// N is a Nat of a machine number.
func N(v uint64) Nat { return Nat{new(big.Int).SetUint64(v)} }

// Some is a present value, None an absent one.
func Some(v any) Opt { return Opt{true, v} }

// None is an absent value.
var None = Opt{}

// F is a named field.
func F(name string, v any) Field { return Field{name, candid.Hash(name), v} }

// V is a variant.
func V(name string, v any) Variant { return Variant(F(name, v)) }

// Get finds a field: nil when it is not there.
func (r Record) Get(name string) any {
	id := candid.Hash(name)
	for _, f := range r {
		if f.ID == id {
			return f.Value
		}
	}
	return nil
}

// Is reports whether the variant is the named one.
func (v Variant) Is(name string) bool { return v.ID == candid.Hash(name) }

// Type codes of the wire.
const (
	typeNull      = -1
	typeBool      = -2
	typeNat       = -3
	typeInt       = -4
	typeNat8      = -5
	typeNat64     = -8
	typeInt8      = -9
	typeInt64     = -12
	typeFloat32   = -13
	typeFloat64   = -14
	typeText      = -15
	typeReserved  = -16
	typeEmpty     = -17
	typeOpt       = -18
	typeVec       = -19
	typeRecord    = -20
	typeVariant   = -21
	typeFunc      = -22
	typeService   = -23
	typePrincipal = -24
)

// EncodeArgs writes a list of values. An absent value and an empty vec have
// the type that fits everywhere.
func EncodeArgs(values ...any) ([]byte, error) {
	var e encoder
	var types, body []byte
	for _, v := range values {
		typ, b, err := e.value(v, 0)
		if err != nil {
			return nil, err
		}
		types, body = sleb(types, typ), append(body, b...)
	}
	out := binary.AppendUvarint([]byte("DIDL"), uint64(len(e.types)))
	for _, t := range e.types {
		out = append(out, t...)
	}
	out = binary.AppendUvarint(out, uint64(len(values)))
	return append(append(out, types...), body...), nil
}

type encoder struct{ types [][]byte }

// intern gives the number of a composite type.
func (e *encoder) intern(t []byte) int64 {
	if i := slices.IndexFunc(e.types, func(o []byte) bool { return bytes.Equal(o, t) }); i >= 0 {
		return int64(i)
	}
	e.types = append(e.types, t)
	return int64(len(e.types) - 1)
}

// value gives the type and the bytes of a value.
func (e *encoder) value(v any, depth int) (int64, []byte, error) {
	if depth > maxNesting {
		return 0, nil, fmt.Errorf("agent: candid: a value nested more than %d deep", maxNesting)
	}
	le := binary.LittleEndian
	switch v := v.(type) {
	case nil:
		return typeNull, nil, nil
	case bool:
		if v {
			return typeBool, []byte{1}, nil
		}
		return typeBool, []byte{0}, nil
	case Nat:
		if v.Sign() < 0 {
			return 0, nil, fmt.Errorf("agent: candid: %v is no natural number", v)
		}
		return typeNat, bigLEB(v.Int, false), nil
	case Int:
		return typeInt, bigLEB(v.Int, true), nil
	case uint8:
		return typeNat8, []byte{v}, nil
	case uint16:
		return typeNat8 - 1, le.AppendUint16(nil, v), nil
	case uint32:
		return typeNat8 - 2, le.AppendUint32(nil, v), nil
	case uint64:
		return typeNat64, le.AppendUint64(nil, v), nil
	case int8:
		return typeInt8, []byte{byte(v)}, nil
	case int16:
		return typeInt8 - 1, le.AppendUint16(nil, uint16(v)), nil
	case int32:
		return typeInt8 - 2, le.AppendUint32(nil, uint32(v)), nil
	case int64:
		return typeInt64, le.AppendUint64(nil, uint64(v)), nil
	case float32:
		return typeFloat32, le.AppendUint32(nil, math.Float32bits(v)), nil
	case float64:
		return typeFloat64, le.AppendUint64(nil, math.Float64bits(v)), nil
	case string:
		return typeText, append(binary.AppendUvarint(nil, uint64(len(v))), v...), nil
	case Principal:
		return typePrincipal, append(binary.AppendUvarint([]byte{1}, uint64(len(v))), v...), nil
	case []byte:
		return e.intern(sleb(sleb(nil, typeVec), typeNat8)), append(binary.AppendUvarint(nil, uint64(len(v))), v...), nil
	case Opt:
		if !v.Set {
			return e.intern(sleb(sleb(nil, typeOpt), typeEmpty)), []byte{0}, nil
		}
		t, b, err := e.value(v.Value, depth+1)
		return e.intern(sleb(sleb(nil, typeOpt), t)), append([]byte{1}, b...), err
	case Vec:
		elem, body := int64(typeEmpty), binary.AppendUvarint(nil, uint64(len(v)))
		for i, x := range v {
			t, b, err := e.value(x, depth+1)
			if err != nil {
				return 0, nil, err
			}
			if i > 0 && t != elem {
				return 0, nil, fmt.Errorf("agent: candid: element %d of a vec has another type than the one before", i)
			}
			elem, body = t, append(body, b...)
		}
		return e.intern(sleb(sleb(nil, typeVec), elem)), body, nil
	case Record:
		fields := slices.SortedFunc(slices.Values(v), func(a, b Field) int { return int(int64(a.ID) - int64(b.ID)) })
		typ, body := binary.AppendUvarint(sleb(nil, typeRecord), uint64(len(fields))), []byte(nil)
		for i, f := range fields {
			if i > 0 && fields[i-1].ID == f.ID {
				return 0, nil, fmt.Errorf("agent: candid: two fields %q", f.Name)
			}
			t, b, err := e.value(f.Value, depth+1)
			if err != nil {
				return 0, nil, err
			}
			typ, body = sleb(binary.AppendUvarint(typ, uint64(f.ID)), t), append(body, b...)
		}
		return e.intern(typ), body, nil
	case Variant:
		t, b, err := e.value(v.Value, depth+1)
		return e.intern(sleb(binary.AppendUvarint(binary.AppendUvarint(sleb(nil, typeVariant), 1), uint64(v.ID)), t)), append([]byte{0}, b...), err
	}
	return 0, nil, fmt.Errorf("agent: candid: no value of Go type %T", v)
}

// sleb appends a signed LEB128 number.
func sleb(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// bigLEB is LEB128 of a number of any size.
func bigLEB(v *big.Int, signed bool) []byte {
	v = new(big.Int).Set(v)
	var b []byte
	for low := big.NewInt(0x7f); ; {
		c := byte(new(big.Int).And(v, low).Uint64()) // And and Rsh read negative numbers in two's complement
		v.Rsh(v, 7)
		switch {
		case !signed && v.Sign() == 0, signed && v.Sign() == 0 && c&0x40 == 0, signed && v.IsInt64() && v.Int64() == -1 && c&0x40 != 0:
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
