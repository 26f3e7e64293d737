package pickle

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	rebuild := Global{"torch._utils", "_rebuild_tensor_v2"}
	allow := func(module, name string) bool { return (Global{module, name}) == rebuild }
	for _, c := range []struct {
		name, in string
		want     any
	}{
		{"none", "\x80\x02N.", nil},
		{"true", "\x80\x02\x88.", true},
		{"integers", "\x80\x02K\x07M\x00\x01J\xff\xff\xff\xff\x87.", Tuple{int64(7), int64(256), int64(-1)}},
		{"longs", "\x80\x02\x8a\x00\x8a\x01\x80\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40\x87.", Tuple{int64(0), int64(-128), int64(1 << 62)}},
		{"float", "\x80\x02G\x3f\xe0\x00\x00\x00\x00\x00\x00.", 0.5},
		{"strings", "\x80\x04X\x02\x00\x00\x00\xc3\xa9\x8c\x01a\x8d\x01\x00\x00\x00\x00\x00\x00\x00b\x87.", Tuple{"é", "a", "b"}},
		{"bytes", "\x80\x03C\x01\xffB\x00\x00\x00\x00\x86.", Tuple{[]byte{255}, []byte(nil)}},
		{"list", "\x80\x02](K\x01K\x02eK\x03a.", &List{[]any{int64(1), int64(2), int64(3)}}},
		{"dict", "\x80\x02}X\x01\x00\x00\x00aK\x01s(K\x02K\x03u.", &Dict{[]any{"a", int64(2)}, []any{int64(1), int64(3)}}},
		{"memo", "\x80\x02]q\x05\x85h\x05\x86.", Tuple{Tuple{&List{}}, &List{}}},
		{"memo 4", "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00K\x01\x94h\x00\x86.", Tuple{int64(1), int64(1)}},
		{"ordered dict", "\x80\x02ccollections\nOrderedDict\n)R(K\x01NuX\x01\x00\x00\x00aN\x86b.", &Dict{[]any{int64(1)}, []any{nil}}},
		{"call", "\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR.", &Call{rebuild, Tuple{int64(1)}}},
		{"stack global", "\x80\x04\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93.", rebuild},
		{"persistent", "\x80\x02X\x01\x00\x00\x000Q.", Persistent{"0"}},
	} {
		got, err := Load([]byte(c.in), allow)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %#v, %v; want %#v", c.name, got, err, c.want)
		}
		for n := range len(c.in) {
			if _, err := Load([]byte(c.in[:n]), allow); err == nil {
				t.Errorf("%s: no error for its first %d bytes", c.name, n)
			}
		}
		if _, err := Load([]byte(c.in+"x"), allow); err == nil {
			t.Errorf("%s: no error for a trailing byte", c.name)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"system", "\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.", `names "posix.system"`},
		{"system 4", "\x80\x04\x8c\x05posix\x8c\x06system\x93.", `names "posix.system"`},
		{"inst", "\x80\x02(iposix\nsystem\n.", `names "posix.system"`},
		{"newobj", "\x80\x02K\x01)\x81.", "operation 0x81 holds no plain data"},
		{"build", "\x80\x02]}b.", "attributes of something"},
		{"call of data", "\x80\x02K\x01)R.", "no name"},
		{"ordered dict of", "\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "made of 1"},
		{"protocol 0", "(I1\nI2\nt.", "operation 0x49"},
		{"protocol 9", "\x80\x09N.", "protocol 9"},
		{"long name", "\x80\x02c" + strings.Repeat("a", 300) + "\nb\n.", "without an end"},
		{"huge string", "\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "wanted"},
		{"huge long", "\x80\x02\x8a\x0900000000\x00.", "integer of 9 bytes"},
		{"below mark", "\x80\x02K\x01(\x85.", "lacks its operands"},
		{"no mark", "\x80\x02}u.", "lacks its mark"},
		{"odd items", "\x80\x02}(K\x01u.", "takes none"},
		{"items of a number", "\x80\x02K\x01K\x02a.", "takes none"},
		{"unknown memo", "\x80\x02h\x00.", "nothing was kept"},
		{"two values", "\x80\x02NN.", "leaves 2 values"},
		{"mark left", "\x80\x02N(.", "leaves 1 values"},
		{"not UTF-8", "\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"},
		{"endless", "\x80\x02" + strings.Repeat("N", maxOps), "more than"},
	} {
		got, err := Load([]byte(c.in), nil)
		if _, ok := errors.AsType[*Error](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v; want %q", c.name, got, err, c.want)
		}
	}
}

// A list may contain itself; reading it ends.
func TestLoadCycle(t *testing.T) {
	got, err := Load([]byte("\x80\x02]q\x00h\x00a."), nil)
	l, ok := got.(*List)
	if err != nil || !ok || len(l.Items) != 1 || l.Items[0] != got {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("\x80\x02ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(K\x00M\x00\x01\x86tRu."))
	f.Add([]byte("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01G\x3f\xe0\x00\x00\x00\x00\x00\x00e."))
	f.Add([]byte("\x80\x02]q\x00h\x00a."))
	f.Fuzz(func(t *testing.T, data []byte) {
		named := ""
		_, err := Load(data, func(module, name string) bool {
			named = module
			return strings.HasPrefix(module, "torch")
		})
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if named != "" && !bytes.Contains(data, []byte(named)) {
			t.Fatalf("it asked for %q, which is not in the data", named)
		}
	})
}
