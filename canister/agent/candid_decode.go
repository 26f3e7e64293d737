package agent

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"unicode/utf8"
)

// Limits of a Candid message from outside.
const (
	maxNesting  = 64
	maxTypes    = 10_000
	maxFields   = 10_000    // of all types of a message
	maxValues   = 1_000_000 // of a message; a vec nat8 counts as one
	maxLEBBytes = 128       // of a nat or int
)

type wireType struct {
	code   int64
	elem   int64 // of opt and vec
	fields []wireField
}

type wireField struct {
	id  uint32
	typ int64
}

type candidDecoder struct {
	rest   []byte
	types  []wireType
	values int
	names  map[uint32]string
}

// candidError unwinds the decoder; DecodeArgs turns it into an error.
type candidError struct{ error }

func (d *candidDecoder) fail(format string, args ...any) {
	panic(candidError{fmt.Errorf("agent: candid: "+format, args...)})
}

// DecodeArgs reads a list of values. names gives fields their names and may
// be nil.
func DecodeArgs(data []byte, names map[uint32]string) (values []any, err error) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case candidError:
			values, err = nil, e.error
		default:
			panic(e)
		}
	}()
	d := &candidDecoder{rest: data, names: names}
	if string(d.take(4)) != "DIDL" {
		d.fail("the message does not begin with DIDL")
	}
	d.table()
	n := d.natural(maxFields)
	types := make([]int64, n)
	for i := range types {
		types[i] = d.typeRef()
	}
	for _, t := range types {
		values = append(values, d.value(t, 0))
	}
	if len(d.rest) != 0 {
		d.fail("%d bytes after the last value", len(d.rest))
	}
	return values, nil
}

func (d *candidDecoder) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail("the message ends early: %d bytes more wanted, %d left", n, len(d.rest))
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

// natural reads a number that is at most most.
func (d *candidDecoder) natural(most uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > most {
		d.fail("a count that is cut short or more than %d", most)
	}
	d.rest = d.rest[n:]
	return v
}

// signed reads a type code.
func (d *candidDecoder) signed() int64 {
	var v int64
	for shift := 0; shift < 35; shift += 7 {
		c := d.take(1)[0]
		v |= int64(c&0x7f) << shift
		if c < 0x80 {
			if c&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
	d.fail("a type code of more than 35 bits")
	return 0
}

func (d *candidDecoder) typeRef() int64 {
	t := d.signed()
	d.check(t)
	return t
}

// check fails on a type that is neither in the table nor primitive.
func (d *candidDecoder) check(t int64) {
	if t >= int64(len(d.types)) || t < typePrincipal || t <= typeOpt && t > typePrincipal {
		d.fail("type %d does not exist", t)
	}
}

// table reads the type table. Types may refer to later ones, so references
// are checked when all are known.
func (d *candidDecoder) table() {
	n := d.natural(maxTypes)
	budget := maxFields
	for range n {
		t := wireType{code: d.signed()}
		switch t.code {
		case typeOpt, typeVec:
			t.elem = d.signed()
		case typeRecord, typeVariant:
			k := int(d.natural(uint64(budget)))
			budget -= k
			for i := range k {
				f := wireField{uint32(d.natural(math.MaxUint32)), d.signed()}
				if i > 0 && t.fields[i-1].id >= f.id {
					d.fail("fields out of order")
				}
				t.fields = append(t.fields, f)
			}
		case typeFunc, typeService:
			d.fail("references to functions and services are not supported")
		default:
			d.fail("type %d in the table", t.code)
		}
		d.types = append(d.types, t)
	}
	for _, t := range d.types {
		if t.code == typeOpt || t.code == typeVec {
			d.check(t.elem)
		}
		for _, f := range t.fields {
			d.check(f.typ)
		}
	}
}

func (d *candidDecoder) field(f wireField, depth int) Field {
	return Field{d.names[f.id], f.id, d.value(f.typ, depth)}
}

func (d *candidDecoder) value(t int64, depth int) any {
	if d.values++; d.values > maxValues || depth > maxNesting {
		d.fail("more than %d values, or nested more than %d deep", maxValues, maxNesting)
	}
	if t >= 0 {
		return d.composite(d.types[t], depth)
	}
	le := binary.LittleEndian
	switch t {
	case typeNull, typeReserved:
		return nil
	case typeBool:
		c := d.take(1)[0]
		if c > 1 {
			d.fail("a bool of %d", c)
		}
		return c == 1
	case typeNat:
		return Nat{d.big(false)}
	case typeInt:
		return Int{d.big(true)}
	case typeNat8:
		return d.take(1)[0]
	case typeNat8 - 1:
		return le.Uint16(d.take(2))
	case typeNat8 - 2:
		return le.Uint32(d.take(4))
	case typeNat64:
		return le.Uint64(d.take(8))
	case typeInt8:
		return int8(d.take(1)[0])
	case typeInt8 - 1:
		return int16(le.Uint16(d.take(2)))
	case typeInt8 - 2:
		return int32(le.Uint32(d.take(4)))
	case typeInt64:
		return int64(le.Uint64(d.take(8)))
	case typeFloat32:
		return math.Float32frombits(le.Uint32(d.take(4)))
	case typeFloat64:
		return math.Float64frombits(le.Uint64(d.take(8)))
	case typeText:
		b := d.take(d.natural(uint64(len(d.rest))))
		if !utf8.Valid(b) {
			d.fail("a text that is not UTF-8")
		}
		return string(b)
	case typePrincipal:
		if d.take(1)[0] != 1 {
			d.fail("an opaque reference")
		}
		return Principal(d.take(d.natural(MaxPrincipal)))
	}
	d.fail("a value of type empty")
	return nil
}

func (d *candidDecoder) composite(t wireType, depth int) any {
	switch t.code {
	case typeOpt:
		switch c := d.take(1)[0]; c {
		case 0:
			return None
		case 1:
			return Some(d.value(t.elem, depth+1))
		default:
			d.fail("an opt of %d", c)
		}
	case typeVec:
		n := d.natural(math.MaxUint32)
		if t.elem == typeNat8 {
			return d.take(n)
		}
		v := Vec{}
		for range n { // each element costs of maxValues, even those without bytes
			v = append(v, d.value(t.elem, depth+1))
		}
		return v
	case typeRecord:
		r := Record{}
		for _, f := range t.fields {
			r = append(r, d.field(f, depth+1))
		}
		return r
	case typeVariant:
		if len(t.fields) == 0 {
			d.fail("a variant of nothing")
		}
		return Variant(d.field(t.fields[d.natural(uint64(len(t.fields)-1))], depth+1))
	}
	return nil
}

// big reads a number of any size.
func (d *candidDecoder) big(signed bool) *big.Int {
	v := new(big.Int)
	for i := uint(0); i < maxLEBBytes; i++ {
		c := d.take(1)[0]
		part := new(big.Int).SetUint64(uint64(c & 0x7f))
		v.Or(v, part.Lsh(part, 7*i))
		if c < 0x80 {
			if signed && c&0x40 != 0 {
				v.Sub(v, new(big.Int).Lsh(big.NewInt(1), 7*(i+1)))
			}
			return v
		}
	}
	d.fail("a number of more than %d bytes", maxLEBBytes)
	return nil
}
