package agent

import (
	"bytes"
	"encoding/hex"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
)

func integer(s string) Int {
	v, _ := new(big.Int).SetString(s, 10)
	return Int{v}
}

// Values, their text and their bytes; the bytes of the first few are those of
// Candid's specification or of other implementations.
var candidCases = []struct {
	value any
	text  string
	wire  string // hex after DIDL, "" where only the way back is checked
}{
	{nil, "null", "00017f"},
	{true, "true", "00017e01"},
	{N(0), "0 : nat", "00017d00"},
	{N(300), "300 : nat", "00017dac02"},
	{Int{big.NewInt(-1)}, "-1 : int", "00017c7f"},
	{Int{big.NewInt(-129)}, "-129 : int", "00017cff7e"},
	{integer("-123456789012345678901234567890"), "-123456789012345678901234567890 : int", ""},
	{uint8(7), "7 : nat8", "00017b07"},
	{uint16(7), "7 : nat16", "00017a0700"},
	{uint32(50), "50 : nat32", "00017932000000"},
	{uint64(math.MaxUint64), "18446744073709551615 : nat64", ""},
	{int8(-7), "-7 : int8", "000177f9"},
	{int64(-7), "-7 : int64", ""},
	{float32(0.5), "0.5 : float32", "0001730000003f"},
	{1.25, "1.25 : float64", ""},
	{"Once \"upon\"\n\\ ä", `"Once \"upon\"\n\\ ä"`, ""},
	{"a", `"a"`, "0001710161"},
	{Anonymous, `principal "2vxsx-fae"`, "0001680101" + "04"},
	{[]byte("ab\x00"), `blob "ab\u{0}"`, ""},
	{[]byte{0xff, 0}, `blob "\ff\00"`, "016d7b010002ff00"},
	{None, "null", "016e6f0100" + "00"},
	{Some("x"), `opt "x"`, "016e71010001" + "0178"},
	{Some(N(5)), "opt (5 : nat)", ""},
	{Vec{}, "vec {}", "016d6f0100" + "00"},
	{Vec{"a", "b"}, `vec { "a"; "b" }`, ""},
	{Record{}, "record {}", "016c000100"},
	{Record{F("tokens", uint32(2)), F("text", "hi")}, `record { tokens = 2 : nat32; text = "hi" }`, ""},
	{V("ok", nil), "variant { ok }", ""},
	{V("err", "no"), `variant { err = "no" }`, ""},
}

func TestCandid(t *testing.T) {
	names := FieldNames("type r = record { tokens : nat32; text : text }; variant { ok; err }")
	for _, c := range candidCases {
		b, err := EncodeArgs(c.value)
		if err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		if got := hex.EncodeToString(b[4:]); c.wire != "" && got != c.wire {
			t.Errorf("%s: bytes %s, want %s", c.text, got, c.wire)
		}
		back, err := DecodeArgs(b, names)
		if err != nil {
			t.Fatalf("%s: decode: %v", c.text, err)
		}
		want := c.value
		if r, ok := want.(Record); ok && len(r) == 2 { // in the order of the hashes
			want = Record{r[1], r[0]}
			if r[0].ID < r[1].ID {
				want = r
			}
		}
		if !same(back[0], want) {
			t.Errorf("%s: decoded %#v, want %#v", c.text, back[0], want)
		}
		if got := Format(c.value); got != c.text {
			t.Errorf("text %s, want %s", got, c.text)
		}
		if _, none := c.value.(Opt); none && !c.value.(Opt).Set {
			continue // its text is that of null
		}
		parsed, err := ParseArgs("(" + c.text + ",)")
		if err != nil || len(parsed) != 1 || !same(parsed[0], c.value) {
			t.Errorf("ParseArgs(%s) = %#v, %v, want %#v", c.text, parsed, err, c.value)
		}
	}
}

// same compares values; big numbers by what they are.
func same(a, b any) bool {
	ab, err1 := EncodeArgs(a)
	bb, err2 := EncodeArgs(b)
	return err1 == nil && err2 == nil && bytes.Equal(ab, bb) && reflect.TypeOf(a) == reflect.TypeOf(b)
}

func TestParseArgs(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`()`, `()`},
		{`"a"`, `("a")`},
		{`("a", 5)`, `("a", 5 : int)`},
		{`( record { prompt = "x"; n = 1_000 : nat64; }, 1.5e3 )`, `(record { prompt = "x"; n = 1000 : nat64 }, 1500 : float64)`},
		{`(record { 1 : nat8; "b" })`, `(record { 0 = 1 : nat8; 1 = "b" })`},
		{`(vec { 1 : nat8; 255 : nat8 })`, `(blob "\01\ff")`},
		{`(opt opt null, (true))`, `(opt opt null, true)`},
		{`("\41\u{42}")`, `("AB")`},
	} {
		got, err := ParseArgs(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
		} else if text := FormatArgs(got); text != c.want {
			t.Errorf("%s: got %s, want %s", c.in, text, c.want)
		}
	}
	for _, bad := range []string{`(`, `("a"`, `("a" "b")`, `(1 : nat9)`, `(-1 : nat)`, `(256 : nat8)`, `("\q")`, `("a`, `(record {)`,
		`(variant { a; b })`, `(principal "x")`, `(x)`, `(vec { 1 : nat8; "a" })`, `("\ff")`, `1 2`, strings.Repeat("(", 100), strings.Repeat("opt ", 100) + "1"} {
		if v, err := ParseArgs(bad); err == nil {
			t.Errorf("ParseArgs(%.40q) = %v, want an error", bad, v)
		}
	}
}

// Messages that are not Candid, or ask for more than they hold.
func TestCandidHostile(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":                "",
		"foreign":                "4449444b00",
		"type that is not there": "4449444c000105",
		"many types":             "4449444cffffffff0f",
		"many arguments":         "4449444c00ffffffff0f",
		"vec of 4 G nulls":       "4449444c016d7f0100ffffffff0f",
		"vec longer than itself": "4449444c016d7b0100ffffff7f00",
		"endless opt":            "4449444c016e0001" + "00" + strings.Repeat("01", 200),
		"record of itself":       "4449444c016c01000001" + "00",
		"text of bad UTF-8":      "4449444c00017101ff",
		"bool of 2":              "4449444c00017e02",
		"empty":                  "4449444c00016f",
		"trailing":               "4449444c00017f00",
		"fields out of order":    "4449444c016c0201710071010000",
		"long number":            "4449444c00017d" + strings.Repeat("ff", 300),
		"function":               "4449444c016a0000000100",
		"variant out of range":   "4449444c016b01007f010005",
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(name, err)
		}
		if v, err := DecodeArgs(b, nil); err == nil {
			t.Errorf("%s: %v, want an error", name, v)
		}
	}
}

func FuzzDecodeArgs(f *testing.F) {
	for _, c := range candidCases {
		b, err := EncodeArgs(c.value)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := DecodeArgs(b, nil)
		if err != nil {
			return
		}
		text := FormatArgs(values)
		if len(text) < 1<<16 {
			ParseArgs(text) // not all types have a text of their own; it must not panic
		}
	})
}

func FuzzParseArgs(f *testing.F) {
	for _, c := range candidCases {
		f.Add("(" + c.text + ")")
	}
	f.Fuzz(func(t *testing.T, s string) {
		values, err := ParseArgs(s)
		if err != nil {
			return
		}
		b, err := EncodeArgs(values...)
		if err != nil {
			return // fields twice, or a vec of several types
		}
		if _, err := DecodeArgs(b, nil); err != nil {
			t.Errorf("%q: its encoding does not decode: %v", s, err)
		}
	})
}

func FuzzTree(f *testing.F) {
	f.Add([]byte("\x82\x03\x41a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var tree Tree
		if tree.UnmarshalCBOR(b) == nil {
			tree.Value([]byte("a"), []byte("b"))
			if w := tree.Witness([]Path{{[]byte("a")}}); w.Hash() != tree.Hash() {
				t.Errorf("the witness of %x hashes otherwise", b)
			}
		}
	})
}
