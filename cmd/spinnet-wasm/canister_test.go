package main

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"spinnet/arch"
	"spinnet/canister/candid"
	"spinnet/canister/ic0"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// testModel is a random model of bytes in int8 arithmetic.
func testModel(t testing.TB) *spinfile.Model {
	t.Helper()
	c := arch.Config{NLayer: 3, NHead: 2, NEmbd: 16, HiddenDim: 24, BlockSize: 64, VocabSize: 256, ActBits: 8, Quantizer: arch.AbsMean}
	rng := rand.New(rand.NewPCG(3, 4))
	m, err := spinfile.FromLatents(c, spinfile.TokenizerInfo{Kind: tokenizer.KindBytes}, func(name string) []float32 {
		for _, p := range arch.Params(c.WithDefaults()) {
			if p.Name == name {
				w := make([]float32, p.Len())
				for i := range w {
					w[i] = float32(rng.NormFloat64())
					if p.Kind == arch.Norm || p.Kind == arch.Beta {
						w[i] = 1
					}
				}
				return w
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m.Quantize() // as a file has it
}

// install makes the canister anew with a model in its module, or none.
func install(t testing.TB, m *spinfile.Model) {
	t.Helper()
	clear(model[:modelStart])
	if m != nil {
		b, _, err := spinfile.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint32(model[:], uint32(len(b)))
		copy(model[modelStart:], b)
	}
	ic0.System = ic0.Fake{Time: 1e18, Caller: []byte{1, 2, 3}}
	start()
}

// native is the text of engine.Generate.
func native(t testing.TB, m *spinfile.Model, prompt string, o engine.GenerateOptions) string {
	t.Helper()
	e, err := engine.New(m, engine.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	tok, err := engine.NewTokenizer(m.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := tokenizer.Prompt(tok, prompt)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if _, err := engine.Generate(context.Background(), e.NewSession(), tok, ids, o, func(text []byte) error {
		b.Write(text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// send serves a message, and gives the reply or the text of the rejection.
func send(t testing.TB, name string, arg []byte) (reply []byte, rejected string) {
	t.Helper()
	s := &ic0.System
	s.Arg, s.Replies, s.Rejections = arg, nil, nil
	s.ResetCounter()
	serve(name)
	switch {
	case len(s.Replies) == 1 && len(s.Rejections) == 0:
		return s.Replies[0], ""
	case len(s.Replies) == 0 && len(s.Rejections) == 1:
		return nil, s.Rejections[0]
	case len(s.Replies)+len(s.Rejections) == 0:
		return nil, ""
	}
	t.Fatalf("%s: %d replies and %d rejections", name, len(s.Replies), len(s.Rejections))
	return nil, ""
}

// call serves a message that must not be rejected, and gives its result.
func call(t testing.TB, name string, args ...candid.Value) candid.Arg {
	t.Helper()
	reply, rejected := send(t, name, candid.Encode(args...))
	if rejected != "" {
		t.Fatalf("%s: rejected: %s", name, rejected)
	}
	return result(t, reply)
}

func result(t testing.TB, reply []byte) candid.Arg {
	t.Helper()
	d, err := candid.NewDecoder(reply)
	if err != nil {
		t.Fatal(err)
	}
	return d.Arg()
}

// callText is call of a method that gives a text.
func callText(t testing.TB, name string, args ...candid.Value) string {
	t.Helper()
	s, err := call(t, name, args...).Text()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}

func nat32(n int) candid.Value { return candid.Nat32Value(uint32(n)) }

// TestGenerateFull: the text of the command line.
func TestGenerateFull(t *testing.T) {
	m := testModel(t)
	install(t, m)
	want := native(t, m, "Once upon", engine.GenerateOptions{MaxTokens: 90})
	if got := callText(t, "generate_full", candid.TextValue("Once upon"), nat32(90)); got != want || want == "" {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := callText(t, "get_result"); got != "Once upon"+want {
		t.Errorf("get_result: got %q", got)
	}
	if got := callText(t, "generate_quick", candid.TextValue("Once upon")); !strings.HasPrefix(got, want) {
		t.Errorf("generate_quick: got %q, want it to begin with %q", got, want)
	}
}
