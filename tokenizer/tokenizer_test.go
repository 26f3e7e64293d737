package tokenizer

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// charsOf makes the character tokenizer of a text's characters.
func charsOf(text []byte) (Tokenizer, error) {
	var set CharSet
	if n := set.Add(text); n < len(text) {
		return nil, &InputError{n, "invalid UTF-8"}
	}
	return New(KindChars, set.String())
}

func TestChars(t *testing.T) {
	tok, err := charsOf([]byte("héllo wörld 日本😀\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.Chars(), "\n dhlorwéö日本😀"; got != want {
		t.Errorf("got vocabulary %q, want %q", got, want)
	}
	if got, want := tok.VocabSize(), 13; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	const text = "döö 本\n😀"
	ids := encode(t, tok, text)
	if want := []int32{2, 9, 9, 1, 11, 0, 12}; !slices.Equal(ids, want) {
		t.Errorf("got %v, want %v", ids, want)
	}
	if got := decode(t, tok, ids); got != text {
		t.Errorf("got %q, want %q", got, text)
	}
	again, err := New(tok.Kind(), tok.Chars())
	if err != nil || !slices.Equal(encode(t, again, text), ids) {
		t.Errorf("New does not make the same tokenizer: %v", err)
	}
	for _, c := range []struct {
		text   string
		offset int
		want   string
	}{{"héz", 3, "'z'"}, {"hé€", 3, "'€'"}, {"h\xff", 1, "invalid UTF-8"}, {"日\xe6\x97", 3, "invalid UTF-8"}} {
		_, err := tok.Encode(nil, []byte(c.text))
		var bad *InputError
		if !errors.As(err, &bad) || bad.Offset != c.offset || !strings.Contains(bad.Reason, c.want) {
			t.Errorf("%q: got %v, want %s at %d", c.text, err, c.want, c.offset)
		}
	}
	if got, want := tok.Cut([]byte("ab\xe6\x97")), 2; got != want {
		t.Errorf("cut: got %d, want %d", got, want)
	}
}

func TestTinyShakespeareChars(t *testing.T) {
	text, err := os.ReadFile("../corpus/tinyshakespeare.txt")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := charsOf(text)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.VocabSize(), 65; got != want {
		t.Errorf("got %d characters, want %d", got, want)
	}
	ids := encode(t, tok, string(text))
	if len(ids) != 1115394 || decode(t, tok, ids) != string(text) {
		t.Errorf("%d ids do not decode to the text", len(ids))
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct{ kind, chars, want string }{
		{"", "", "unknown kind"},
		{"words", "", "unknown kind"},
		{"bytes", "ab", "takes no character vocabulary"},
		{"gpt2", "ab", "takes no character vocabulary"},
		{"chars", "", "empty"},
		{"chars", "ba", "not sorted"},
		{"chars", "aa", "not sorted"},
		{"chars", "a\xff", "UTF-8"},
	} {
		if _, err := New(c.kind, c.chars); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %q: got %v, want %q", c.kind, c.chars, err, c.want)
		}
	}
	if _, err := charsOf([]byte("ab\xffc")); err == nil || !strings.Contains(err.Error(), "byte 2") {
		t.Errorf("got %v, want invalid UTF-8 at byte 2", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	chars, err := New("chars", "abc")
	if err != nil {
		t.Fatal(err)
	}
	for _, tok := range []Tokenizer{chars, byteTokenizer{}, GPT2()} {
		for _, id := range []int32{-1, int32(tok.VocabSize()), 1 << 30, -1 << 31} {
			if _, err := tok.AppendDecode(nil, id); err == nil {
				t.Errorf("%s: no error for id %d", tok.Kind(), id)
			}
		}
		for id := range int32(tok.VocabSize()) {
			if b, err := tok.AppendDecode(nil, id); err != nil || len(b) == 0 {
				t.Fatalf("%s: id %d: %q, %v", tok.Kind(), id, b, err)
			}
		}
	}
}

func FuzzChars(f *testing.F) {
	f.Add([]byte("héllo"), []byte("hello"))
	f.Add([]byte("ab\xff"), []byte("\xe6\x97"))
	f.Fuzz(func(t *testing.T, vocabulary, text []byte) {
		tok, err := charsOf(vocabulary)
		if err != nil {
			if len(vocabulary) > 0 && utf8.Valid(vocabulary) {
				t.Errorf("%q: %v", vocabulary, err)
			}
			return
		}
		if got := encode(t, tok, string(vocabulary)); decode(t, tok, got) != string(vocabulary) {
			t.Errorf("%q: %v", vocabulary, got)
		}
		ids, err := tok.Encode(nil, text)
		if bad := (*InputError)(nil); errors.As(err, &bad) {
			text = text[:bad.Offset]
		}
		if got := decode(t, tok, ids); got != string(text) {
			t.Errorf("got %q, want %q", got, text)
		}
	})
}
