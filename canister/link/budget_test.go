package link

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"spinnet/arch"
	"spinnet/canister/candid"
	"spinnet/canister/host"
	"spinnet/canister/module"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// spent is what a model takes in a canister, in instructions by ICP's table,
// the most probable token of the whole vocabulary drawn each time, with keys and
// values in int8.
type spent struct {
	Init     uint64            `json:"init"`      // canister_init
	Token    map[string]uint64 `json:"token"`     // a call that writes one token, by the position of what it reads
	Prefill  uint64            `json:"prefill"`   // a token of a prompt of 256 words
	InUpdate uint32            `json:"in_update"` // tokens written in one call of 40 · 10⁹ instructions, 98 % of them, from an empty cache
	InQuery  uint32            `json:"in_query"`  // and of 5 · 10⁹
}

// TestInstructions counts the instructions of the committed module. The counts
// are exact, so that a change of a hundredth is seen.
func TestInstructions(t *testing.T) {
	if testing.Short() {
		t.Skip("writes thousands of tokens")
	}
	const file = "testdata/instructions.json"
	shape := arch.Config{NLayer: 8, NHead: 8, NEmbd: 512, HiddenDim: 1408, BlockSize: 1024, ActBits: 8, Quantizer: arch.AbsMean}
	got := map[string]*spent{}
	most := map[string]spent{ // what was asked for; the fewest tokens
		"octonion":   {Init: 50e6, Token: map[string]uint64{"1": 45e6, "256": 55e6, "1024": 70e6}, InUpdate: 700, InQuery: 100},
		"walsh":      {Init: 50e6, Token: map[string]uint64{"1": 32e6}, InUpdate: 1000, InQuery: 100},
		"characters": {Init: 50e6, InUpdate: 1500, InQuery: 100},
	}
	for name, bound := range most {
		c, info := shape, spinfile.TokenizerInfo{Kind: tokenizer.KindGPT2}
		c.Algebra, c.VocabSize = name, 50304
		if name == "characters" {
			c.Algebra, c.VocabSize, c.BlockSize, info.Kind = "octonion", 256, 512, tokenizer.KindBytes
		}
		s := measure(t, randomModel(t, c, info))
		got[name] = s
		for at, n := range bound.Token {
			if s.Token[at] > n {
				t.Errorf("%s: %d instructions at position %s, want at most %d", name, s.Token[at], at, n)
			}
		}
		if s.Init > bound.Init {
			t.Errorf("%s: %d instructions at the start, want at most %d", name, s.Init, bound.Init)
		}
		if s.InUpdate < bound.InUpdate || s.InQuery < bound.InQuery {
			t.Errorf("%s: %d tokens in an update and %d in a query, want %d and %d", name, s.InUpdate, s.InQuery, bound.InUpdate, bound.InQuery)
		}
		if s.Prefill >= s.Token["256"] {
			t.Errorf("%s: a token of a prompt takes %d instructions, one that is written %d", name, s.Prefill, s.Token["256"])
		}
	}
	b, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]*spent{}
	if err := json.Unmarshal(golden, &want); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(append(b, '\n'), golden) {
		t.Logf("%s differs; UPDATE_GOLDEN=1 writes it anew:\n%s", file, b)
	}
	grown := func(name, what string, got, want uint64) {
		if got > want+want/50 {
			t.Errorf("%s: %s takes %d instructions, more than 2 %% above %d", name, what, got, want)
		}
	}
	for name, s := range got {
		w := want[name]
		if w == nil {
			t.Errorf("%s has nothing on %s", file, name)
			continue
		}
		grown(name, "canister_init", s.Init, w.Init)
		grown(name, "a token of a prompt", s.Prefill, w.Prefill)
		for at, n := range s.Token {
			grown(name, "a token at position "+at, n, w.Token[at])
		}
		if s.InUpdate < w.InUpdate-w.InUpdate/50 || s.InQuery < w.InQuery-w.InQuery/50 {
			t.Errorf("%s: %d tokens in an update and %d in a query, before %d and %d", name, s.InUpdate, s.InQuery, w.InUpdate, w.InQuery)
		}
	}
}

// randomModel has latents of a normal distribution and int8 embeddings.
func randomModel(t *testing.T, c arch.Config, info spinfile.TokenizerInfo) *spinfile.Model {
	t.Helper()
	sizes := map[string]arch.Param{}
	for _, p := range arch.Params(c.WithDefaults()) {
		sizes[p.Name] = p
	}
	rng := rand.New(rand.NewPCG(1, 2))
	m, err := spinfile.FromLatents(c, info, func(name string) []float32 {
		p, ok := sizes[name]
		if !ok {
			return nil
		}
		w := make([]float32, p.Len())
		for i := range w {
			if w[i] = 1; p.Kind != arch.Norm && p.Kind != arch.Beta {
				w[i] = float32(rng.NormFloat64()) / 16
			}
		}
		return w
	})
	if err != nil {
		t.Fatal(err)
	}
	return m.QuantizeEmbedding(8).Quantize()
}

// measure runs a model as a canister does.
func measure(t *testing.T, m *spinfile.Model) *spent {
	t.Helper()
	ctx := context.Background()
	var b bytes.Buffer
	if err := engine.WriteImage(&b, m, engine.Options{Int8Cache: true}); err != nil {
		t.Fatal(err)
	}
	c, err := host.Load(ctx, canisterOf(t, b.Bytes()), module.ICP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	c.Controller = func([]byte) bool { return true }
	call := func(method string, arg []byte) host.Reply {
		t.Helper()
		r, err := c.Call(ctx, host.Message{Export: "canister_update " + method, Arg: arg})
		if err != nil || r.Rejected {
			t.Fatalf("%s: %v %s", method, err, r.Data)
		}
		return r
	}
	limits := func(of string, n uint64) {
		t.Helper()
		call("set_limits", candid.Encode(candid.RecordValue(
			candid.Field{Name: "budget_percent", Value: candid.OptValue(candid.Nat32Value(98))},
			candid.Field{Name: of, Value: candid.OptValue(candid.Nat64Value(n))},
		)))
	}
	s := &spent{Token: map[string]uint64{}}
	r, err := c.Call(ctx, host.Message{Export: "canister_init"})
	if err != nil {
		t.Fatal(err)
	}
	s.Init = r.Instructions
	limits("update_instructions", module.UpdateLimit)

	// One text, up to and beyond the positions of interest. A call reads the
	// token drawn last and draws the next.
	call("start_generation", candid.Encode(candid.TextValue("a"), candid.Nat32Value(2000)))
	call("generate_next_token", candid.Encode())
	at := 1
	for _, p := range []struct {
		name string
		at   int
	}{{"1", 1}, {"256", 256}, {"1024", 1024}} {
		for p.at > at {
			n := min(256, p.at-at)
			call("generate_n_tokens", candid.Encode(candid.Nat32Value(uint32(n))))
			at += n
		}
		s.Token[p.name] = call("generate_next_token", candid.Encode()).Instructions
		at++
	}

	// A long prompt, less one of a word.
	tok, err := engine.NewTokenizer(m.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	prompt := func(words int) (tokens, instructions uint64) {
		text := strings.Repeat(" a", words)
		ids, err := tokenizer.Prompt(tok, text)
		if err != nil {
			t.Fatal(err)
		}
		return uint64(len(ids)), call("generate_full", candid.Encode(candid.TextValue(text), candid.Nat32Value(1))).Instructions
	}
	prompt(256) // the cache has grown
	long, all := prompt(256)
	short, rest := prompt(1)
	s.Prefill = (all - rest) / (long - short)

	for _, budget := range []struct {
		limit  uint64
		tokens *uint32
	}{{module.UpdateLimit, &s.InUpdate}, {module.QueryLimit, &s.InQuery}} {
		limits("update_instructions", budget.limit)
		*budget.tokens = writtenTokens(t, call("generate", generateArg("a", 5000)).Data)
	}
	return s
}

// writtenTokens is how many tokens a reply of generate has.
func writtenTokens(t *testing.T, reply []byte) (tokens uint32) {
	t.Helper()
	d, err := candid.NewDecoder(reply)
	if err != nil {
		t.Fatal(err)
	}
	tag, a, err := d.Arg().Variant()
	if err != nil || tag != candid.Hash("ok") {
		text, _ := a.Text()
		t.Fatalf("generate: %v %s", err, text)
	}
	if err := a.Record(func(id uint32, v candid.Arg) (known bool, err error) {
		if id == candid.Hash("tokens") {
			tokens, err = v.Nat32()
			return true, err
		}
		return false, nil
	}); err != nil {
		t.Fatal(err)
	}
	return tokens
}
