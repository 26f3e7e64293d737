package tokenizer

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// someOf keeps the bytes, the end of text and a share of the other tokens.
func someOf(share float64, seed uint64) []int32 {
	r := rand.New(rand.NewPCG(seed, 0))
	var keep []int32
	for id := range int32(gpt2Tokens) {
		if id < 256 || r.Float64() < share {
			keep = append(keep, id)
		}
	}
	return append(keep, EndOfText)
}

func TestTrimmedAll(t *testing.T) {
	tok, err := NewTrimmed(someOf(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("Once upon a time, <|endoftext|> 12345 naïve\x00\xff")
	want, _ := GPT2().Encode(nil, text)
	if got, _ := tok.Encode(nil, text); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Any bytes decode to themselves, whatever is kept, and a token that is kept
// is used.
func TestTrimmedRoundTrip(t *testing.T) {
	bpe := GPT2()
	for _, share := range []float64{0, 0.05, 0.5, 0.95} {
		keep := someOf(share, uint64(share*100))
		tok, err := NewTrimmed(keep)
		if err != nil {
			t.Fatal(err)
		}
		check := func(t interface {
			Fatalf(string, ...any)
		}, text []byte) {
			before := []int32{7}
			ids, err := tok.Encode(before, text)
			if err != nil || ids[0] != 7 {
				t.Fatalf("%q: %v, %v", text, ids, err)
			}
			got, err := Decode(tok, nil, ids[1:])
			if err != nil || !bytes.Equal(got, text) {
				t.Fatalf("%q came back as %q: %v", text, got, err)
			}
			whole, _ := bpe.Encode(nil, text)
			var kept []int32
			for _, id := range whole {
				if i, ok := slices.BinarySearch(keep, id); ok {
					kept = append(kept, int32(i))
				}
			}
			for _, id := range ids[1:] {
				if len(kept) > 0 && id == kept[0] {
					kept = kept[1:]
				}
			}
			if len(kept) > 0 {
				t.Fatalf("%q: GPT-2 has the kept token %d, which %v has not", text, kept[0], ids)
			}
		}
		rapid.Check(t, func(t *rapid.T) { check(t, rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) })
		rapid.Check(t, func(t *rapid.T) { check(t, []byte(rapid.String().Draw(t, "text"))) })
		check(t, []byte(strings.Repeat("the quick brown fox's 1234567 jumps\n\n  over — ", 20)))
	}
}

func TestTrimmedBad(t *testing.T) {
	all := someOf(0, 0)
	for _, c := range []struct {
		want string
		keep []int32
	}{
		{"lacks the byte of GPT-2's id 9", slices.Delete(slices.Clone(all), 9, 10)},
		{"GPT-2's id 50257 at 257", append(slices.Clone(all), 50257)},
		{"GPT-2's id 3 at 257", append(slices.Clone(all), 3)},
		{"GPT-2's id -1 at 0", append([]int32{-1}, all...)},
		{"lacks the byte of GPT-2's id 0", nil},
	} {
		if _, err := NewTrimmed(c.keep); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	tok, err := NewTrimmed(all)
	if err != nil {
		t.Fatal(err)
	}
	if tok.VocabSize() != 257 || tok.Kind() != KindGPT2 || tok.Chars() != "" {
		t.Errorf("%d ids of kind %q", tok.VocabSize(), tok.Kind())
	}
	for _, id := range []int32{-1, 257} {
		if _, err := tok.AppendDecode(nil, id); err == nil {
			t.Errorf("the id %d was decoded", id)
		}
	}
}

func TestEnd(t *testing.T) {
	all := someOf(0, 0)
	trimmed, err := NewTrimmed(all)
	if err != nil {
		t.Fatal(err)
	}
	without, err := NewTrimmed(all[:256])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tok  Tokenizer
		want int32
		ok   bool
	}{{GPT2(), EndOfText, true}, {trimmed, 256, true}, {without, 0, false}, {byteTokenizer{}, 0, false}} {
		if id, ok := End(c.tok); ok != c.ok || ok && id != c.want {
			t.Errorf("got %d, %v, want %d, %v", id, ok, c.want, c.ok)
		}
	}
}

func TestPrompt(t *testing.T) {
	without, err := NewTrimmed(someOf(0, 0)[:256])
	if err != nil {
		t.Fatal(err)
	}
	chars, err := New(KindChars, "abc")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		tok    Tokenizer
		prompt string
		want   []int32
	}{
		{"gpt2", GPT2(), "", []int32{EndOfText}},
		{"trimmed without an end", without, "", encode(t, without, "\n")},
		{"bytes", byteTokenizer{}, "", []int32{'\n'}},
		{"bytes", byteTokenizer{}, "hi", []int32{'h', 'i'}},
		{"characters without a line's end", chars, "", []int32{0}},
		{"characters", chars, "cb", []int32{2, 1}},
		{"llama", newLlamaTest(t), "", []int32{LlamaBOS}},
	} {
		if got, err := Prompt(c.tok, c.prompt); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s %q: got %v, %v, want %v", c.name, c.prompt, got, err, c.want)
		}
	}
	if _, err := Prompt(chars, "x"); err == nil {
		t.Error("a foreign character is taken")
	}
}
