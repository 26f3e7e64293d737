package tokenizer

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// newLlamaTest is a vocabulary with equal scores, merges of merges, and all
// bytes.
func newLlamaTest(t testing.TB) *llamaTokenizer {
	t.Helper()
	pieces := []string{"<unk>", "<s>", "</s>"}
	for b := range 256 {
		pieces = append(pieces, fmt.Sprintf("<0x%02X>", b))
	}
	scores := make([]float32, len(pieces))
	for i, p := range strings.Split(" |a|b|c|é|aa|ab|bc|abc| a| b|aaa|abab|  |c | ab|éé|<|s|>|<s|<s>", "|") {
		pieces = append(pieces, p)
		scores = append(scores, -float32(i/2))
	}
	pieces = append(pieces, "aaaa", "never")
	scores = append(scores, 3, -1e11)
	tok, err := NewLlama(pieces, scores)
	if err != nil {
		t.Fatal(err)
	}
	return tok.(*llamaTokenizer)
}

// naive joins pairs as llama2.c does: look at all, take the best, again.
func (t *llamaTokenizer) naive(text string) []int32 {
	type part struct {
		text string
		id   int32
	}
	var parts []part
	for text = " " + text; text != ""; {
		n := 1
		for n < len(text) && text[n]&0xc0 == 0x80 && n < 4 {
			n++
		}
		if id, ok := t.ids[text[:n]]; ok {
			parts = append(parts, part{text[:n], id})
		} else {
			for i := range n {
				parts = append(parts, part{"\x00", t.bytes[text[i]]}) // joins nothing
			}
		}
		text = text[n:]
	}
	for {
		best, at := float32(lowestScore), -1
		var made int32
		for i := range len(parts) - 1 {
			if id, ok := t.ids[parts[i].text+parts[i+1].text]; ok && t.scores[id] > best {
				best, at, made = t.scores[id], i, id
			}
		}
		if at < 0 {
			break
		}
		parts[at] = part{parts[at].text + parts[at+1].text, made}
		parts = slices.Delete(parts, at+1, at+2)
	}
	var ids []int32
	for _, p := range parts {
		ids = append(ids, p.id)
	}
	return ids
}

func TestLlama(t *testing.T) {
	tok := newLlamaTest(t)
	rng := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "b", "c", " ", "é", "日", "\n", "\xff", "\x80", "<s>", "never"}
	for range 2000 {
		var b strings.Builder
		for range rng.IntN(30) {
			b.WriteString(alphabet[rng.IntN(len(alphabet))])
		}
		text := b.String()
		if text == "" {
			continue
		}
		got, err := tok.Encode(nil, []byte(text))
		if want := tok.naive(text); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q: got %v, %v; want %v", text, got, err, want)
		}
		if back, err := Decode(tok, nil, got); err != nil || string(back) != text {
			t.Fatalf("%q: decoded to %q, %v", text, back, err)
		}
	}
	if ids, err := tok.Encode([]int32{LlamaBOS}, nil); err != nil || !slices.Equal(ids, []int32{LlamaBOS}) {
		t.Errorf("nothing: got %v, %v", ids, err)
	}
	if tok.Kind() != KindLlama || tok.VocabSize() != len(tok.texts) || tok.Cut([]byte("a b")) != 0 {
		t.Error("wrong kind, size or cut")
	}
}

// The space that Encode adds is taken away where a text begins, and only
// there.
func TestLlamaDecode(t *testing.T) {
	tok := newLlamaTest(t)
	space, a := tok.ids[" "], tok.ids[" a"]
	for _, c := range []struct {
		ids  []int32
		want string
	}{
		{[]int32{LlamaBOS, a, a}, "a a"},
		{[]int32{a, LlamaEOS, a}, "a a"},
		{[]int32{LlamaBOS, space, a}, " a"},
		{[]int32{LlamaBOS, tok.bytes[' '] + 1, 0}, "!"},
	} {
		if got, err := Decode(tok, nil, c.ids); err != nil || string(got) != c.want {
			t.Errorf("%v: got %q, %v; want %q", c.ids, got, err, c.want)
		}
	}
	for _, id := range []int32{-1, int32(tok.VocabSize())} {
		if _, err := tok.AppendDecode(nil, id); err == nil {
			t.Errorf("id %d: no error", id)
		}
	}
}

func TestLlamaBad(t *testing.T) {
	zero := float32(0)
	for name, c := range map[string]struct {
		pieces []string
		scores []float32
	}{
		"few":    {[]string{"a", "b"}, []float32{0, 0}},
		"scores": {[]string{"a", "b", "c"}, []float32{0, 0}},
		"nan":    {[]string{"a", "b", "c"}, []float32{0, 0, zero / zero}},
	} {
		if _, err := NewLlama(c.pieces, c.scores); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	tok, err := NewLlama([]string{"", "", "", " ", "a"}, make([]float32, 5))
	if err != nil {
		t.Fatal(err)
	}
	_, err = tok.Encode(nil, []byte("aab"))
	if input, ok := errors.AsType[*InputError](err); !ok || input.Offset != 2 {
		t.Errorf("got %v, want an error at byte 2", err)
	}
}

// A megabyte takes a moment, also where everything merges.
func TestLlamaSpeed(t *testing.T) {
	tok := newLlamaTest(t)
	for _, unit := range []string{"a", "ab c", "é"} {
		text := bytes.Repeat([]byte(unit), 1<<20/len(unit))
		start := time.Now()
		if _, err := tok.Encode(nil, text); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("%q: a megabyte took %v", unit, d)
		} else {
			t.Logf("%q: a megabyte took %v", unit, d)
		}
	}
}

func FuzzLlama(f *testing.F) {
	f.Add("abc aa")
	f.Add("日\xff é")
	tok := newLlamaTest(f)
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" || len(text) > 300 {
			return
		}
		got, err := tok.Encode(nil, []byte(text))
		if want := tok.naive(text); err != nil || !slices.Equal(got, want) {
			t.Fatalf("got %v, %v; want %v", got, err, want)
		}
	})
}
