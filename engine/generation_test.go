package engine

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"spinnet/arch"
	"spinnet/tokenizer"
)

// bytesModel is a random model of bytes, with a tokenizer.
func bytesModel(t testing.TB) (*Engine, tokenizer.Tokenizer) {
	t.Helper()
	tok, err := tokenizer.New(tokenizer.KindBytes, "")
	if err != nil {
		t.Fatal(err)
	}
	return newInt8Engine(t, arch.Config{NLayer: 3, NHead: 2, NEmbd: 16, HiddenDim: 24, BlockSize: 20, VocabSize: 300, ActBits: 8}, Options{Threads: 1}), tok
}

// TestGenerationStops: a generation that stops, moves to other sessions and
// goes through its state at random gives the text of Generate.
func TestGenerationStops(t *testing.T) {
	e, tok := bytesModel(t)
	prompt := randomIDs(50, 256, 9)
	sessions := []*Session{e.NewSession(), e.NewSession()}
	for _, o := range []GenerateOptions{
		{MaxTokens: 60},
		{MaxTokens: 60, Sample: SampleOptions{Temperature: 1.2, Seed: 5}},
		{MaxTokens: 60, Sample: SampleOptions{Temperature: 2, Seed: 6, TopK: 40, TopP: 0.9, MinP: 0.01, RepetitionPenalty: 1.3, RepetitionWindow: 7}},
		{MaxTokens: 60, Sample: SampleOptions{Temperature: 3, Seed: 8}, Stop: []string{"xyz", "e", "\x00"}},
		{MaxTokens: 0},
		{MaxTokens: 1},
	} {
		want, r := generate(t, e.NewSession(), tok, prompt, o)
		for seed := range uint64(5) {
			rng := rand.New(rand.NewPCG(seed, 1))
			sessions[0].Reset()
			g, err := NewGeneration(sessions[0], tok, prompt, o)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			emit := func(b []byte) error { got.Write(b); return nil }
			for {
				if p, _ := g.Next(); p == Done {
					break
				}
				if err := g.Do(rng.IntN(30), emit); err != nil {
					t.Fatal(err)
				}
				if rng.IntN(60) == 0 {
					if rng.IntN(2) == 0 {
						g.Detach()
						if err := g.Attach(sessions[rng.IntN(2)]); err != nil {
							t.Fatal(err)
						}
						continue
					}
					state := g.AppendState(nil)
					if g, err = RestoreGeneration(tok, state); err != nil {
						t.Fatal(err)
					}
					if again := g.AppendState(nil); string(again) != string(state) {
						t.Errorf("the state changes in a round trip:\n%x\n%x", state, again)
					}
					if err := g.Attach(sessions[rng.IntN(2)]); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got.String() != want || g.Tokens() != r.Tokens || g.Reason() != r.Reason || g.PromptTokens() != len(prompt) {
				t.Errorf("%+v: got %q, %d tokens, %q; want %q, %+v", o, got.String(), g.Tokens(), g.Reason(), want, r)
			}
		}
	}
}

// TestGenerationPieces: what comes next, token by token.
func TestGenerationPieces(t *testing.T) {
	e, tok := bytesModel(t)
	g, err := NewGeneration(e.NewSession(), tok, []int32{1, 2, 3}, GenerateOptions{MaxTokens: 2})
	if err != nil {
		t.Fatal(err)
	}
	names := [...]string{Done: "done", Begin: "begin", Layer: "layer", Draw: "draw"}
	var got []string
	for {
		p, n := g.Next()
		got = append(got, names[p]+itoa(n))
		if p == Done {
			break
		}
		if err := g.Do(2, func([]byte) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	want := "begin3 layer2 layer2 layer2 begin1 layer1 layer1 layer1 draw1 begin1 layer1 layer1 layer1 draw1 done0"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got %s\nwant %s", s, want)
	}
}

func TestGenerationBad(t *testing.T) {
	e, tok := bytesModel(t)
	g, err := NewGeneration(e.NewSession(), tok, []int32{1, 2, 3}, GenerateOptions{MaxTokens: 2, Stop: []string{"stop"}})
	if err != nil {
		t.Fatal(err)
	}
	state := g.AppendState(nil)
	for n := range state {
		if _, err := RestoreGeneration(tok, state[:n]); err == nil {
			t.Errorf("a state of %d bytes of %d is taken", n, len(state))
		}
	}
	if _, err := RestoreGeneration(tok, append(state, 0)); err == nil {
		t.Error("a state with a byte too many is taken")
	}
	state[len(state)-1] = 0x7f // the last id
	if g, err = RestoreGeneration(tok, state); err != nil {
		t.Fatal(err)
	}
	if err := g.Attach(e.NewSession()); err == nil || !strings.Contains(err.Error(), "outside the vocabulary") {
		t.Errorf("a foreign id: %v", err)
	}
}

func FuzzRestoreGeneration(f *testing.F) {
	e, tok := bytesModel(f)
	s := e.NewSession()
	for _, o := range []GenerateOptions{{MaxTokens: 3}, {MaxTokens: 9, Stop: []string{"a", "bc"}, Sample: SampleOptions{Temperature: 1, RepetitionPenalty: 2}}} {
		g, err := NewGeneration(s, tok, []int32{1, 2, 3}, o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(g.AppendState(nil))
	}
	f.Fuzz(func(t *testing.T, state []byte) {
		g, err := RestoreGeneration(tok, state)
		if err != nil || g.Attach(s) != nil || len(g.IDs()) > 200 {
			return
		}
		for range 200 {
			if err := g.Do(8, func(b []byte) error {
				if !utf8.Valid(b) {
					t.Errorf("%q is not whole characters", b)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
