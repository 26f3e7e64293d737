package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"spinnet/arch"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

func TestStream(t *testing.T) {
	for _, c := range []struct {
		name   string
		stop   []string
		pieces []string
		want   []string
		stops  bool
	}{
		{"plain", nil, []string{"a", "bc", ""}, []string{"a", "bc"}, false},
		{"split character", nil, []string{"a\xe2", "\x82", "\xacb"}, []string{"a", "€b"}, false},
		{"unfinished end", nil, []string{"a\xf0\x9f", "\x99"}, []string{"a"}, false},
		{"stray bytes", nil, []string{"\x82a", "\xe2b", "\xff"}, []string{"\uFFFDa", "\uFFFDb", "\uFFFD"}, false},
		{"stop", []string{"END"}, []string{"abENDcd"}, []string{"ab"}, true},
		{"stop at once", []string{"a"}, []string{"a"}, nil, true},
		{"stop over pieces", []string{"END"}, []string{"aE", "N", "Dx"}, []string{"a"}, true},
		{"not a stop after all", []string{"END"}, []string{"aE", "N", "N"}, []string{"a", "ENN"}, false},
		{"held to the end", []string{"END"}, []string{"aEN"}, []string{"a", "EN"}, false},
		{"overlapping start", []string{"aab"}, []string{"a", "a", "a", "b"}, []string{"a"}, true},
		{"first of several", []string{"yz", "x"}, []string{"w", "xyz"}, []string{"w"}, true},
		{"stop of bytes inside a character", []string{"é!"}, []string{"\xc3", "\xa9", "?"}, []string{"é?"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			s := stream{stop: c.stop}
			emit := func(b []byte) error { got = append(got, string(b)); return nil }
			stopped := false
			for _, p := range c.pieces {
				s.held = append(s.held, p...)
				var err error
				if stopped, err = s.flush(false, emit); err != nil {
					t.Fatal(err)
				}
				if stopped {
					break
				}
			}
			if !stopped {
				if _, err := s.flush(true, emit); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(got, c.want) || stopped != c.stops {
				t.Errorf("got %q, stopped %v; want %q, %v", got, stopped, c.want, c.stops)
			}
		})
	}
}

func generate(t *testing.T, s *Session, tok tokenizer.Tokenizer, prompt []int32, o GenerateOptions) (string, Result) {
	t.Helper()
	s.Reset()
	var b strings.Builder
	r, err := Generate(context.Background(), s, tok, prompt, o, func(p []byte) error {
		if !utf8.Valid(p) {
			t.Errorf("%q is not whole characters", p)
		}
		b.Write(p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), r
}

func TestGenerateSeedTiny(t *testing.T) {
	m, want := openSeedTiny(t)
	s := newEngine(t, m, 1).NewSession()
	tok, err := tokenizer.New(m.Tokenizer.Kind, m.Tokenizer.Chars)
	if err != nil {
		t.Fatal(err)
	}
	text, err := tokenizer.Decode(tok, nil, want.GreedyFrom16[16:])
	if err != nil {
		t.Fatal(err)
	}
	got, r := generate(t, s, tok, want.IDs[:16], GenerateOptions{MaxTokens: 40})
	if got != string(text) || r.Tokens != 40 || r.PromptTokens != 16 || r.Reason != ReasonLength {
		t.Errorf("got %q, %+v; want %q", got, r, text)
	}
	stop := got[10:13]
	cut, r := generate(t, s, tok, want.IDs[:16], GenerateOptions{MaxTokens: 40, Stop: []string{stop}})
	if before, _, _ := strings.Cut(got, stop); cut != before || r.Reason != ReasonStop {
		t.Errorf("with stop %q: got %q, %+v", stop, cut, r)
	}
	// Past the context length of 64, and the same again with the same seed.
	o := GenerateOptions{MaxTokens: 200, Sample: SampleOptions{Temperature: 0.8, Seed: 3}}
	first, _ := generate(t, s, tok, want.IDs[:1], o)
	second, _ := generate(t, s, tok, want.IDs[:1], o)
	if len(first) != 200 || first != second {
		t.Errorf("got %q and %q", first, second)
	}
	if none, r := generate(t, s, tok, want.IDs[:1], GenerateOptions{}); none != "" || r.Tokens != 0 {
		t.Errorf("no tokens asked for: got %q", none)
	}
}

func TestGenerateBytes(t *testing.T) {
	c := arch.Config{NLayer: 1, NHead: 1, NEmbd: 8, HiddenDim: 8, BlockSize: 16, VocabSize: 300}
	s := newEngine(t, randomModel(t, c, 4), 1).NewSession()
	tok, err := tokenizer.New(tokenizer.KindBytes, "")
	if err != nil {
		t.Fatal(err)
	}
	got, r := generate(t, s, tok, []int32{65}, GenerateOptions{MaxTokens: 500, Sample: SampleOptions{Temperature: 3}})
	if r.Tokens != 500 || !utf8.ValidString(got) {
		t.Errorf("%d tokens, %q", r.Tokens, got)
	}
}

// TestGenerateEndOfText uses a model that always ends the text: its layers are
// all zero, and each logit is the product of two first channels.
func TestGenerateEndOfText(t *testing.T) {
	c := arch.Config{NLayer: 1, NHead: 1, NEmbd: 8, HiddenDim: 8, BlockSize: 4, VocabSize: 50304}
	m, err := spinfile.FromLatents(c, spinfile.TokenizerInfo{Kind: "gpt2"}, func(name string) []float32 {
		switch name {
		case "tok_embeddings.weight":
			e := make([]float32, 50304*8)
			for id := range 50304 {
				e[id*8] = 1
			}
			e[tokenizer.EndOfText*8] = 2
			e[50300*8] = 3 // padding
			return e
		case "layers.0.attention_norm.weight", "layers.0.ffn_norm.weight", "norm.weight":
			return []float32{1, 1, 1, 1, 1, 1, 1, 1}
		}
		return make([]float32, 8)
	})
	if err != nil {
		t.Fatal(err)
	}
	s := newEngine(t, m, 1).NewSession()
	tok, err := tokenizer.New(tokenizer.KindGPT2, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, r := generate(t, s, tok, []int32{1}, GenerateOptions{MaxTokens: 9}); got != "" || r.Tokens != 1 || r.Reason != ReasonStop {
		t.Errorf("got %q, %+v", got, r)
	}
}

func TestGenerateErrors(t *testing.T) {
	m, want := openSeedTiny(t)
	s := newEngine(t, m, 1).NewSession()
	tok, err := tokenizer.New(m.Tokenizer.Kind, m.Tokenizer.Chars)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := tokenizer.New(tokenizer.KindBytes, "")
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	ok := func([]byte) error { return nil }
	for _, c := range []struct {
		name   string
		ctx    context.Context
		tok    tokenizer.Tokenizer
		prompt []int32
		o      GenerateOptions
		emit   func([]byte) error
		want   string
	}{
		{"no prompt", context.Background(), tok, nil, GenerateOptions{}, ok, "nothing to read"},
		{"bad id", context.Background(), tok, []int32{65}, GenerateOptions{}, ok, "outside the vocabulary"},
		{"larger tokenizer", context.Background(), bytes, want.IDs, GenerateOptions{}, ok, "the tokenizer has 256 tokens, the model 65"},
		{"empty stop", context.Background(), tok, want.IDs, GenerateOptions{Stop: []string{""}}, ok, "stop string is empty"},
		{"bad option", context.Background(), tok, want.IDs, GenerateOptions{Sample: SampleOptions{TopP: 2}}, ok, "top-p"},
		{"cancelled", cancelled, tok, want.IDs, GenerateOptions{MaxTokens: 5}, ok, "canceled"},
		{"emit", context.Background(), tok, want.IDs, GenerateOptions{MaxTokens: 5}, func([]byte) error { return full }, "disk full"},
	} {
		if _, err := Generate(c.ctx, s, c.tok, c.prompt, c.o, c.emit); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}
