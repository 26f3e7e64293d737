package candid

import (
	"bytes"
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"testing"
)

// TestEncode compares with messages written by hand after the specification.
func TestEncode(t *testing.T) {
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"nothing", Encode(), "4449444c 00 00"},
		{"text", Encode(TextValue("Hi ☃")), "4449444c 00 01 71 06 486920e29883"},
		{"two arguments", Encode(TextValue("a"), Nat32Value(258)), "4449444c 00 02 71 79 01 61 02010000"},
		{"bools", Encode(BoolValue(true), BoolValue(false)), "4449444c 00 02 7e 7e 01 00"},
		{"nat", Encode(NatValue(300)), "4449444c 00 01 7d ac02"},
		{"nat64", Encode(Nat64Value(1 << 40)), "4449444c 00 01 78 0000000000010000"},
		{"float64", Encode(Float64Value(1.5)), "4449444c 00 01 72 000000000000f83f"},
		{"null", Encode(NullValue()), "4449444c 00 01 7f"},
		{"blob", Encode(BlobValue([]byte{1, 2})), "4449444c 01 6d7b 01 00 02 0102"},
		{"principal", Encode(PrincipalValue([]byte{4})), "4449444c 00 01 68 01 01 04"},
		{"opt", Encode(OptValue(TextValue("a"))), "4449444c 01 6e71 01 00 01 01 61"},
		{"vec", Encode(VecValue(TextValue("a"), TextValue("b"))), "4449444c 01 6d71 01 00 02 0161 0162"},
		{"empty vec", Encode(VecValue()), "4449444c 01 6d6f 01 00 00"},
		// ok is 24860 and err is 5048165 by the specification's hash.
		{"variant", Encode(VariantValue("ok", TextValue("a"))), "4449444c 01 6b01 9cc201 71 01 00 00 0161"},
		{"record", Encode(RecordValue(Field{"err", TextValue("a")}, Field{"ok", Nat8Value(7)})), "4449444c 01 6c02 9cc201 7b e58eb402 71 01 00 07 0161"},
		{"nested, one entry for equal types", Encode(RecordValue(Field{"ok", BlobValue(nil)}, Field{"err", BlobValue([]byte{9})}), BlobValue(nil)),
			"4449444c 02 6d7b 6c02 9cc201 00 e58eb402 00 02 01 00 00 01 09 00"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c.got, want) {
			t.Errorf("%s: got %x, want %x", c.name, c.got, want)
		}
		d, err := NewDecoder(c.got)
		if err == nil {
			err = d.Close()
		}
		if err != nil {
			t.Errorf("%s: what was written is not read: %v", c.name, err)
		}
	}
}

func decoder(t testing.TB, message []byte) *Decoder {
	t.Helper()
	d, err := NewDecoder(message)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDecode(t *testing.T) {
	d := decoder(t, Encode(TextValue("é"), BoolValue(true), Nat32Value(5), Nat64Value(6), Float64Value(-2), BlobValue([]byte{7, 8}), VecValue(TextValue("x"), TextValue("")),
		VariantValue("err", Nat32Value(9))))
	if s, err := d.Arg().Text(); s != "é" || err != nil {
		t.Error(s, err)
	}
	if v, err := d.Arg().Bool(); !v || err != nil {
		t.Error(v, err)
	}
	if v, err := d.Arg().Nat32(); v != 5 || err != nil {
		t.Error(v, err)
	}
	if v, err := d.Arg().Nat64(); v != 6 || err != nil {
		t.Error(v, err)
	}
	if v, err := d.Arg().Float64(); v != -2 || err != nil {
		t.Error(v, err)
	}
	if v, err := d.Arg().Blob(); !bytes.Equal(v, []byte{7, 8}) || err != nil {
		t.Error(v, err)
	}
	if v, err := d.Arg().Texts(2); !slices.Equal(v, []string{"x", ""}) || err != nil {
		t.Error(v, err)
	}
	id, a, err := d.Arg().Variant()
	if id != Hash("err") || err != nil {
		t.Error(id, err)
	}
	if v, err := a.Nat32(); v != 9 || err != nil {
		t.Error(v, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// sample is what TestSubtyping reads: record {name: text; size: opt nat32}.
type sample struct {
	name string
	size int // −1 for null
}

func readSample(a Arg) (s sample, err error) {
	s.size = -1
	err = a.Record(func(id uint32, v Arg) (bool, error) {
		var err error
		switch id {
		case Hash("name"):
			s.name, err = v.Text()
		case Hash("size"):
			err = v.Opt(func(v Arg) bool { return v.Is(Nat32) }, func(v Arg) error {
				n, err := v.Nat32()
				s.size = int(n)
				return err
			})
		default:
			return false, nil
		}
		return true, err
	})
	return s, err
}

// TestSubtyping: other types than the expected ones, as the specification has
// them read.
func TestSubtyping(t *testing.T) {
	name := Field{"name", TextValue("a")}
	deep := RecordValue(Field{"x", VecValue(OptValue(VariantValue("y", RecordValue(Field{"z", PrincipalValue([]byte{1})}))))}, Field{"f", Float64Value(1)})
	for _, c := range []struct {
		name string
		v    Value
		want sample
	}{
		{"as expected", RecordValue(name, Field{"size", OptValue(Nat32Value(3))}), sample{"a", 3}},
		{"missing field", RecordValue(name), sample{"a", -1}},
		{"null", RecordValue(name, Field{"size", NullValue()}), sample{"a", -1}},
		{"not optional", RecordValue(name, Field{"size", Nat32Value(4)}), sample{"a", 4}},
		{"optional of another type", RecordValue(name, Field{"size", OptValue(TextValue("b"))}), sample{"a", -1}},
		{"another type", RecordValue(name, Field{"size", deep}), sample{"a", -1}},
		{"optional twice", RecordValue(name, Field{"size", OptValue(OptValue(Nat32Value(5)))}), sample{"a", -1}},
		{"further fields", RecordValue(name, Field{"a", deep}, Field{"zz", NatValue(1 << 60)}, Field{"size", OptValue(Nat32Value(6))}), sample{"a", 6}},
	} {
		d := decoder(t, Encode(c.v, deep)) // and a further argument
		got, err := readSample(d.Arg())
		if err == nil {
			err = d.Close()
		}
		if got != c.want || err != nil {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
	d := decoder(t, Encode())
	if err := d.Arg().Opt(func(Arg) bool { return true }, func(Arg) error { t.Error("a missing argument is there"); return nil }); err != nil {
		t.Error(err)
	}
	if _, err := decoder(t, Encode()).Arg().Text(); err == nil || !strings.Contains(err.Error(), "a value of type null, want text") {
		t.Errorf("a missing text: %v", err)
	}
}

func TestBad(t *testing.T) {
	for _, c := range []struct{ name, message, want string }{
		{"empty", "", "does not begin with DIDL"},
		{"other magic", "4449444d0000", "does not begin with DIDL"},
		{"no table", "4449444c", "cut short"},
		{"many types", "4449444c ffffff7f 00", "types, more than there may be"},
		{"many arguments", "4449444c 00 ffffff7f", "arguments, more than there may be"},
		{"missing arguments", "4449444c 00 02 71", "arguments, more than there may be"},
		{"a simple type in the table", "4449444c 01 71 00", "is not composite"},
		{"a type that is not there", "4449444c 01 6e 01 00", "there is no type 1"},
		{"a code that is not there", "4449444c 00 01 67", "there is no type -25"},
		{"composite code as a reference", "4449444c 00 01 6e", "there is no type -18"},
		{"fields out of order", "4449444c 01 6c 02 02 71 01 71 00 00", "not in order"},
		{"a field twice", "4449444c 01 6c 02 01 71 01 71 00 00", "not in order"},
		{"many fields", "4449444c 01 6c ffff7f 01 71", "fields, more than there may be"},
		{"text cut short", "4449444c 00 01 71 05 61", "cut short"},
		{"text of 2⁶³ bytes", "4449444c 00 01 71 80808080808080808001", "cut short"},
		{"text not UTF-8", "4449444c 00 01 71 02 c328", "not valid UTF-8"},
		{"bool 2", "4449444c 00 01 7e 02", "neither 0 nor 1"},
		{"opt 2", "4449444c 01 6e71 01 00 02", "neither 0 nor 1"},
		{"variant without tag", "4449444c 01 6b01 00 71 01 00 01", "no tag 1"},
		{"empty variant", "4449444c 01 6b00 01 00 00", "no tag 0"},
		{"empty", "4449444c 00 01 6f", "of type empty"},
		{"number too long", "4449444c 80808080808080808080808001 00", "too large"},
		{"opaque principal", "4449444c 00 01 68 00", "not public"},
		{"long principal", "4449444c 00 01 68 01 1e" + strings.Repeat("00", 30), "bytes of a principal"},
		{"bytes left", "4449444c 00 00 00", "1 bytes too many"},
		{"a vec null of 2³²", "4449444c 01 6d7f 01 00 ffffffff0f", "without bytes"},
		{"a vec of empty records", "4449444c 02 6d01 6c00 01 00 ffffffff0f", "without bytes"},
		{"a type that is itself", "4449444c 01 6e00 01 00" + strings.Repeat("01", 200), "nested more than"},
		{"a record that is itself", "4449444c 01 6c01 00 00 01 00", "nested more than"},
		{"vec of nat64 cut short", "4449444c 01 6d78 01 00 02 0000000000000000", "cut short"},
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(c.message, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		d, err := NewDecoder(b)
		if err == nil {
			err = d.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

// TestWide: a table that describes 2¹⁰⁰ nulls is refused soon.
func TestWide(t *testing.T) {
	b := appendLEB([]byte(magic), 100)
	for i := range 100 {
		b = append(b, 0x6c, 2)
		for id := range byte(2) {
			of := int64(Null)
			if i < 99 {
				of = int64(i + 1)
			}
			b = appendSLEB(append(b, id), of)
		}
	}
	d := decoder(t, append(b, 1, 0))
	if err := d.Close(); err == nil || !strings.Contains(err.Error(), "without bytes") && !strings.Contains(err.Error(), "nested") {
		t.Errorf("error %v", err)
	}
}

// TestLater: functions, services and types of later versions are passed over.
func TestLater(t *testing.T) {
	for name, message := range map[string]string{
		"function":             "4449444c 01 6a 01 71 01 79 01 01 02 00 71 01 01 01 04 03 666f6f 00",
		"service":              "4449444c 02 6a 00 00 00 69 01 03 666f6f 00 02 01 71 01 01 04 00",
		"a later version's":    "4449444c 01 67 02 abcd 02 00 71 03 00 010203 00",
		"nat of many bytes":    "4449444c 00 02 7d 71 ffffffffffffffffffffffff01 00",
		"reserved and service": "4449444c 00 02 70 71 00",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(message, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		d, err := NewDecoder(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := d.Arg().Skip(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s, err := d.Arg().Text(); s != "" || err != nil {
			t.Errorf("%s: then %q, %v", name, s, err)
		}
		if err := d.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecode: no message makes reading panic, and what is read is bounded.
func FuzzDecode(f *testing.F) {
	f.Add(Encode(RecordValue(Field{"name", TextValue("a")}, Field{"size", OptValue(Nat32Value(3))})))
	f.Add(Encode(VecValue(OptValue(BlobValue([]byte{1}))), VariantValue("ok", PrincipalValue([]byte{4}))))
	f.Add([]byte("DIDL\x01\x6d\x7f\x01\x00\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, message []byte) {
		if d, err := NewDecoder(message); err == nil {
			if s, err := readSample(d.Arg()); err == nil && len(s.name) > len(message) {
				t.Errorf("a text of %d bytes from %d", len(s.name), len(message))
			}
			_ = d.Close()
		}
		if d, err := NewDecoder(message); err == nil {
			if texts, err := d.Arg().Texts(math.MaxInt); err == nil && len(texts) > len(message) {
				t.Errorf("%d texts from %d bytes", len(texts), len(message))
			}
			_, _ = d.Arg().Blob()
			_, _, _ = d.Arg().Variant()
			_ = d.Close()
		}
	})
}
