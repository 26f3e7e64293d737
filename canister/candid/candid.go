// Package candid reads and writes the messages of Internet Computer canisters,
// in the binary format of the Candid specification. It imports nothing of
// ours, and neither fmt nor encoding/json: it is also compiled to WebAssembly.
//
// Reading follows the specification's subtyping as far as its types go: fields
// and arguments that nobody asks for are skipped, what is missing is null, and
// an optional value of another type is null. A message is bounded before it
// is believed: types may not nest deeply, and values without bytes may not be
// many.
package candid

import "errors"

// Type is a type of the wire: a code below zero, or the number of an entry in
// a message's table.
type Type int64

// Codes of types.
const (
	Null      Type = -1
	Bool      Type = -2
	Nat       Type = -3
	Int       Type = -4
	Nat8      Type = -5
	Nat16     Type = -6
	Nat32     Type = -7
	Nat64     Type = -8
	Int8      Type = -9
	Int16     Type = -10
	Int32     Type = -11
	Int64     Type = -12
	Float32   Type = -13
	Float64   Type = -14
	Text      Type = -15
	Reserved  Type = -16
	Empty     Type = -17
	opt       Type = -18
	vec       Type = -19
	record    Type = -20
	variant   Type = -21
	function  Type = -22
	service   Type = -23
	Principal Type = -24
)

// names of types in errors.
var names = [...]string{"null", "bool", "nat", "int", "nat8", "nat16", "nat32", "nat64", "int8", "int16", "int32", "int64",
	"float32", "float64", "text", "reserved", "empty", "opt", "vec", "record", "variant", "func", "service", "principal"}

// sizes of the values of types that have a fixed one.
var sizes = map[Type]int{Bool: 1, Nat8: 1, Nat16: 2, Nat32: 4, Nat64: 8, Int8: 1, Int16: 2, Int32: 4, Int64: 8, Float32: 4, Float64: 8}

// magic begins every message.
const magic = "DIDL"

// Hash is the number of a field or a tag of that name.
func Hash(name string) uint32 {
	h := uint32(0)
	for i := range len(name) {
		h = h*223 + uint32(name[i])
	}
	return h
}

// fail makes an error of this package.
func fail(what string) error { return errors.New("candid: " + what) }
