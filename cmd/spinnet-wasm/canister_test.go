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
	return modelOf(t, arch.Config{NLayer: 3, NHead: 2, NEmbd: 16, HiddenDim: 24, BlockSize: 64, VocabSize: 256, ActBits: 8, Quantizer: arch.AbsMean})
}

// modelOf is a random model of bytes.
func modelOf(t testing.TB, c arch.Config) *spinfile.Model {
	t.Helper()
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
		place(b)
	}
	ic0.System = ic0.Fake{Time: 1e18, Caller: []byte{1, 2, 3}}
	start()
}

// place puts a model into the module, as the link step does.
func place(b []byte) {
	binary.LittleEndian.PutUint32(model[:], uint32(len(b)))
	copy(model[modelStart:], b)
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

// written is what generate and resume give.
type written struct {
	session, seed, instructions               uint64
	text, reason, err                         string
	tokens, totalTokens, promptTokens, unread int
}

// readWritten reads the result of generate and resume.
func readWritten(t testing.TB, a candid.Arg) (w written) {
	t.Helper()
	tag, a, err := a.Variant()
	if err != nil {
		t.Fatal(err)
	}
	if tag == candid.Hash("err") {
		if w.err, err = a.Text(); err != nil {
			t.Fatal(err)
		}
		return w
	}
	nat32 := func(v candid.Arg, to *int) error {
		n, err := v.Nat32()
		*to = int(n)
		return err
	}
	if err := a.Record(func(id uint32, v candid.Arg) (bool, error) {
		var err error
		switch id {
		case candid.Hash("session"):
			w.session, err = v.Nat64()
		case candid.Hash("text"):
			w.text, err = v.Text()
		case candid.Hash("tokens"):
			err = nat32(v, &w.tokens)
		case candid.Hash("total_tokens"):
			err = nat32(v, &w.totalTokens)
		case candid.Hash("prompt_tokens"):
			err = nat32(v, &w.promptTokens)
		case candid.Hash("unread"):
			err = nat32(v, &w.unread)
		case candid.Hash("finish_reason"):
			w.reason, err = v.Text()
		case candid.Hash("seed"):
			w.seed, err = v.Nat64()
		case candid.Hash("instructions"):
			w.instructions, err = v.Nat64()
		default:
			t.Errorf("unknown field %d", id)
		}
		return true, err
	}); err != nil {
		t.Fatal(err)
	}
	return w
}

// ask is a request for generate.
func ask(prompt string, o engine.GenerateOptions, more ...candid.Field) candid.Value {
	fields := append(more, candid.Field{Name: "prompt", Value: candid.TextValue(prompt)},
		candid.Field{Name: "max_tokens", Value: candid.OptValue(nat32(o.MaxTokens))},
		candid.Field{Name: "temperature", Value: candid.OptValue(candid.Float64Value(o.Sample.Temperature))},
		candid.Field{Name: "seed", Value: candid.OptValue(candid.Nat64Value(o.Sample.Seed))})
	if o.Sample.TopK > 0 {
		fields = append(fields, candid.Field{Name: "top_k", Value: candid.OptValue(nat32(o.Sample.TopK))})
	}
	if o.Sample.TopP > 0 {
		fields = append(fields, candid.Field{Name: "top_p", Value: candid.Float64Value(o.Sample.TopP)}) // not optional, which is fine
	}
	if len(o.Stop) > 0 {
		var stops []candid.Value
		for _, s := range o.Stop {
			stops = append(stops, candid.TextValue(s))
		}
		fields = append(fields, candid.Field{Name: "stop", Value: candid.OptValue(candid.VecValue(stops...))})
	}
	return candid.RecordValue(fields...)
}

// slow lets every look at the counter find so many instructions more, so that
// the budget is soon used up.
func slow(each uint64) {
	ic0.System.Counter = func(counted uint64) uint64 { return counted * each }
}

// rest resumes a session until it is done.
func rest(t testing.TB, w written) (text string, calls int) {
	t.Helper()
	text = w.text
	for calls = 1; w.reason == "paused"; calls++ {
		if w = readWritten(t, call(t, "resume", candid.Nat64Value(w.session))); w.err != "" {
			t.Fatal(w.err)
		}
		text += w.text
	}
	return text, calls
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
