package spinfile

import (
	"errors"
	"reflect"
	"testing"
)

func TestHead(t *testing.T) {
	m, err := Decode(readSeedTiny(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, tok := range []TokenizerInfo{{}, {Kind: "chars", Chars: "ab€"}, {Kind: "llama", Pieces: []string{"", "<s>", "a"}, Scores: []float32{0, 1, 2}}} {
		m.Tokenizer, m.Meta = tok, map[string]string{"step": "150", "note": "x"}
		b, err := m.AppendHead([]byte{1, 2, 3})
		if err != nil {
			t.Fatal(err)
		}
		b = b[3:]
		got, err := DecodeHead(b)
		if err != nil {
			t.Fatal(err)
		}
		if want := (&Model{Config: m.Config, Tokenizer: m.Tokenizer, Meta: m.Meta}); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		var corrupt *CorruptError
		for n := range b {
			if _, err := DecodeHead(b[:n]); !errors.As(err, &corrupt) {
				t.Fatalf("%d bytes of %d: error %v", n, len(b), err)
			}
		}
		if _, err := DecodeHead(append(b, 0)); !errors.As(err, &corrupt) {
			t.Errorf("a byte too many: error %v", err)
		}
	}
}
