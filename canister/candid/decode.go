package candid

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"
)

// Bounds of what is read.
const (
	maxTable  = 10_000  // entries of a table of types
	maxFields = 10_000  // of all its records and variants together
	maxDepth  = 100     // of values within values
	maxEmpty  = 100_000 // values without bytes, such as the nulls of a vec null
)

// Decoder reads the arguments of a message one after another.
type Decoder struct {
	table []entry
	args  []Type // not yet read
	b     []byte // the values, from the next on
	empty int    // values without bytes so far
}

// entry is a composite type.
type entry struct {
	code   Type
	of     Type // of opt and vec
	fields []wireField
}

type wireField struct {
	id uint32
	t  Type
}

// NewDecoder reads a message's types.
func NewDecoder(message []byte) (*Decoder, error) {
	if len(message) < len(magic) || string(message[:len(magic)]) != magic {
		return nil, fail("the message does not begin with DIDL")
	}
	d := &Decoder{b: message[len(magic):]}
	n, err := d.length(maxTable, "types")
	if err != nil {
		return nil, err
	}
	fields := 0
	for range n {
		e, err := d.entry(&fields, n)
		if err != nil {
			return nil, err
		}
		d.table = append(d.table, e)
	}
	args, err := d.length(maxFields, "arguments")
	if err != nil {
		return nil, err
	}
	for range args {
		t, err := d.typeRef(n)
		if err != nil {
			return nil, err
		}
		d.args = append(d.args, t)
	}
	return d, nil
}

// entry reads an entry of the table.
func (d *Decoder) entry(fields *int, table int) (e entry, err error) {
	code, err := d.sleb()
	if err != nil {
		return e, err
	}
	switch e.code = Type(code); {
	case e.code == opt || e.code == vec:
		e.of, err = d.typeRef(table)
	case e.code == record || e.code == variant:
		var n int
		if n, err = d.length(maxFields-*fields, "fields"); err != nil {
			return e, err
		}
		*fields += n
		for i := range n {
			id, err := d.leb()
			if err != nil {
				return e, err
			}
			if id > math.MaxUint32 || i > 0 && uint32(id) <= e.fields[i-1].id {
				return e, fail("the fields of a type are not in order")
			}
			t, err := d.typeRef(table)
			if err != nil {
				return e, err
			}
			e.fields = append(e.fields, wireField{uint32(id), t})
		}
	case e.code == function:
		for range 2 { // arguments, results
			if err = d.refs(table); err != nil {
				return e, err
			}
		}
		var n int
		if n, err = d.length(maxFields, "annotations"); err == nil {
			_, err = d.take(n)
		}
	case e.code == service:
		var n int
		if n, err = d.length(maxFields-*fields, "methods"); err != nil {
			return e, err
		}
		*fields += n
		for range n {
			if _, err = d.text(); err != nil {
				return e, err
			}
			if _, err = d.typeRef(table); err != nil {
				return e, err
			}
		}
	case e.code < Principal: // of a later version of the format
		var n uint64
		if n, err = d.leb(); err == nil {
			_, err = d.take(int(min(n, math.MaxInt32)))
		}
	default:
		err = fail("the type " + strconv.FormatInt(code, 10) + " in the table is not composite")
	}
	return e, err
}

// refs reads a list of types and forgets it.
func (d *Decoder) refs(table int) error {
	n, err := d.length(maxFields, "types of a function")
	for range n {
		if _, err = d.typeRef(table); err != nil {
			break
		}
	}
	return err
}

// typeRef reads a type: a simple one or one of the table.
func (d *Decoder) typeRef(table int) (Type, error) {
	v, err := d.sleb()
	if err != nil {
		return 0, err
	}
	t := Type(v)
	if t >= Type(table) || t < Principal || t <= opt && t > Principal {
		return 0, fail("there is no type " + strconv.FormatInt(v, 10))
	}
	return t, nil
}

// length reads a number of things of at least a byte, of which there may be so
// many.
func (d *Decoder) length(most int, what string) (int, error) {
	n, err := d.leb()
	if err != nil {
		return 0, err
	}
	if n > uint64(min(most, len(d.b))) {
		return 0, fail(strconv.FormatUint(n, 10) + " " + what + ", more than there may be")
	}
	return int(n), nil
}

// take gives the next n bytes.
func (d *Decoder) take(n int) ([]byte, error) {
	if n < 0 || n > len(d.b) {
		return nil, fail("the message is cut short")
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b, nil
}

// leb reads an unsigned number below 2⁶⁴.
func (d *Decoder) leb() (uint64, error) {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		return 0, fail("a number is cut short or too large")
	}
	d.b = d.b[n:]
	return v, nil
}

// sleb reads a signed number.
func (d *Decoder) sleb() (int64, error) {
	v, shift := int64(0), 0
	for i, c := range d.b {
		if shift > 56 {
			break
		}
		v |= int64(c&0x7f) << shift
		if shift += 7; c < 0x80 {
			if c&0x40 != 0 {
				v |= -1 << shift
			}
			d.b = d.b[i+1:]
			return v, nil
		}
	}
	return 0, fail("a number is cut short or too large")
}

// big skips a nat or an int of any size.
func (d *Decoder) big() error {
	for i, c := range d.b {
		if c < 0x80 {
			d.b = d.b[i+1:]
			return nil
		}
	}
	return fail("a number is cut short")
}

// text reads a text.
func (d *Decoder) text() (string, error) {
	n, err := d.leb()
	if err != nil {
		return "", err
	}
	b, err := d.take(int(min(n, math.MaxInt32)))
	if err != nil {
		return "", err
	}
	if !utf8.Valid(b) {
		return "", fail("a text is not valid UTF-8")
	}
	return string(b), nil
}

// principal reads a principal.
func (d *Decoder) principal() ([]byte, error) {
	b, err := d.take(1)
	if err != nil {
		return nil, err
	}
	if b[0] != 1 {
		return nil, fail("a reference that is not public")
	}
	n, err := d.length(29, "bytes of a principal")
	if err != nil {
		return nil, err
	}
	return d.take(n)
}

// kind is a type's code, of the table's entries too.
func (d *Decoder) kind(t Type) Type {
	if t >= 0 {
		return d.table[t].code
	}
	return t
}

// name is what a type is called in errors.
func (d *Decoder) name(t Type) string {
	if k := -d.kind(t) - 1; int(k) < len(names) {
		return names[k]
	}
	return "a later type"
}

// Skip reads a value and forgets it.
func (d *Decoder) skip(t Type, depth int) error {
	if depth > maxDepth {
		return fail("values are nested more than " + strconv.Itoa(maxDepth) + " deep")
	}
	before := len(d.b)
	err := d.skipValue(t, depth)
	if err == nil && len(d.b) == before {
		if d.empty++; d.empty > maxEmpty {
			err = fail("more than " + strconv.Itoa(maxEmpty) + " values without bytes")
		}
	}
	return err
}

func (d *Decoder) skipValue(t Type, depth int) error {
	k := d.kind(t)
	if n, ok := sizes[k]; ok {
		b, err := d.take(n)
		if err == nil && k == Bool && b[0] > 1 {
			err = fail("a bool is neither 0 nor 1")
		}
		return err
	}
	switch k {
	case Null, Reserved:
		return nil
	case Nat, Int:
		return d.big()
	case Text:
		_, err := d.text()
		return err
	case Principal, service:
		_, err := d.principal()
		return err
	case opt:
		some, err := d.some()
		if err == nil && some {
			err = d.skip(d.table[t].of, depth+1)
		}
		return err
	case vec:
		n, err := d.leb()
		if err != nil {
			return err
		}
		of := d.table[t].of
		if size, ok := sizes[d.kind(of)]; ok && of != Bool {
			if n > uint64(len(d.b)/size) {
				return fail("the message is cut short")
			}
			_, err := d.take(int(n) * size)
			return err
		}
		for ; n > 0; n-- {
			if err := d.skip(of, depth+1); err != nil {
				return err
			}
		}
		return nil
	case record:
		for _, f := range d.table[t].fields {
			if err := d.skip(f.t, depth+1); err != nil {
				return err
			}
		}
		return nil
	case variant:
		n, err := d.leb()
		if err != nil {
			return err
		}
		if n >= uint64(len(d.table[t].fields)) {
			return fail("a variant has no tag " + strconv.FormatUint(n, 10))
		}
		return d.skip(d.table[t].fields[n].t, depth+1)
	case function:
		b, err := d.take(1)
		if err != nil {
			return err
		}
		if b[0] != 1 {
			return fail("a reference that is not public")
		}
		if _, err := d.principal(); err != nil {
			return err
		}
		_, err = d.text()
		return err
	case Empty:
		return fail("a value of type empty")
	}
	n, err := d.leb() // a later type: its bytes, and its references, which there are none of
	if err != nil {
		return err
	}
	if _, err := d.leb(); err != nil {
		return err
	}
	_, err = d.take(int(min(n, math.MaxInt32)))
	return err
}

// some reads whether an optional value is there.
func (d *Decoder) some() (bool, error) {
	b, err := d.take(1)
	if err == nil && b[0] > 1 {
		err = fail("an opt is neither 0 nor 1")
	}
	return err == nil && b[0] == 1, err
}

// Arg is a value of a message that is to be read, once and before those after
// it. What cannot be read leaves the message unusable.
type Arg struct {
	d *Decoder
	t Type
}

// Arg gives the next argument; null when there is none.
func (d *Decoder) Arg() Arg {
	if len(d.args) == 0 {
		return Arg{d, Null}
	}
	t := d.args[0]
	d.args = d.args[1:]
	return Arg{d, t}
}

// Close skips the arguments that nobody asked for, and checks that nothing
// follows them.
func (d *Decoder) Close() error {
	for len(d.args) > 0 {
		if err := d.Arg().Skip(); err != nil {
			return err
		}
	}
	if len(d.b) > 0 {
		return fail(strconv.Itoa(len(d.b)) + " bytes too many")
	}
	return nil
}

// Skip reads the value and forgets it.
func (a Arg) Skip() error { return a.d.skip(a.t, 0) }

// want complains about another type.
func (a Arg) want(t Type) error {
	if k := a.d.kind(a.t); k != t {
		return fail("a value of type " + a.d.name(a.t) + ", want " + names[-t-1])
	}
	return nil
}

// fixed reads a value of a type of so many bytes.
func (a Arg) fixed(t Type) ([]byte, error) {
	if err := a.want(t); err != nil {
		return nil, err
	}
	return a.d.take(sizes[t])
}

// Text reads a text.
func (a Arg) Text() (string, error) {
	if err := a.want(Text); err != nil {
		return "", err
	}
	return a.d.text()
}

// Bool reads a bool.
func (a Arg) Bool() (bool, error) {
	b, err := a.fixed(Bool)
	if err != nil {
		return false, err
	}
	if b[0] > 1 {
		return false, fail("a bool is neither 0 nor 1")
	}
	return b[0] == 1, nil
}

// Nat32 reads a nat32.
func (a Arg) Nat32() (uint32, error) {
	b, err := a.fixed(Nat32)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

// Nat64 reads a nat64.
func (a Arg) Nat64() (uint64, error) {
	b, err := a.fixed(Nat64)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// Float64 reads a float64.
func (a Arg) Float64() (float64, error) {
	b, err := a.fixed(Float64)
	if err != nil {
		return 0, err
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b)), nil
}

// Blob reads a vec nat8, as a part of the message.
func (a Arg) Blob() ([]byte, error) {
	if !a.IsVec(Nat8) {
		return nil, fail("a value of type " + a.d.name(a.t) + ", want blob")
	}
	n, err := a.d.leb()
	if err != nil {
		return nil, err
	}
	return a.d.take(int(min(n, math.MaxInt32)))
}

// Is reports whether the value is of a simple type.
func (a Arg) Is(t Type) bool { return a.t == t }

// IsVec reports whether the value is a vec of a simple type.
func (a Arg) IsVec(of Type) bool { return a.d.kind(a.t) == vec && a.d.table[a.t].of == of }

// Texts reads a vec text of at most so many texts.
func (a Arg) Texts(most int) ([]string, error) {
	if !a.IsVec(Text) {
		return nil, fail("a value of type " + a.d.name(a.t) + ", want vec text")
	}
	n, err := a.d.length(math.MaxInt, "texts")
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, fail(strconv.Itoa(n) + " texts, want at most " + strconv.Itoa(most))
	}
	texts := make([]string, n)
	for i := range texts {
		if texts[i], err = a.d.text(); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// Opt calls read with an optional value, if it is there and ok says that its
// type is the right one. Otherwise it is skipped, and read is not called: null,
// a value of another type, or nothing. A value that is not optional counts as
// one that is there.
func (a Arg) Opt(ok func(Arg) bool, read func(Arg) error) error {
	switch a.d.kind(a.t) {
	case Null, Reserved:
		return a.Skip()
	case opt:
		some, err := a.d.some()
		if err != nil || !some {
			return err
		}
		a.t = a.d.table[a.t].of
	}
	if !ok(a) {
		return a.Skip()
	}
	return read(a)
}

// Record calls read with each of a record's fields, by the hash of its name,
// in the order of the message. What read leaves unread must be what it
// skipped: it returns false for a field that it does not know.
func (a Arg) Record(read func(id uint32, value Arg) (known bool, err error)) error {
	if err := a.want(record); err != nil {
		return err
	}
	for _, f := range a.d.table[a.t].fields {
		value := Arg{a.d, f.t}
		known, err := read(f.id, value)
		if err == nil && !known {
			err = a.d.skip(f.t, 1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Variant gives a variant's tag and value.
func (a Arg) Variant() (id uint32, value Arg, err error) {
	if err := a.want(variant); err != nil {
		return 0, Arg{}, err
	}
	n, err := a.d.leb()
	if err != nil {
		return 0, Arg{}, err
	}
	fields := a.d.table[a.t].fields
	if n >= uint64(len(fields)) {
		return 0, Arg{}, fail("a variant has no tag " + strconv.FormatUint(n, 10))
	}
	return fields[n].id, Arg{a.d, fields[n].t}, nil
}
