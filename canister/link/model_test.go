package link

import (
	"bytes"
	"context"
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

// testModel is a random model of bytes.
func testModel(t testing.TB) *spinfile.Model {
	t.Helper()
	c := arch.Config{NLayer: 2, NHead: 8, NEmbd: 64, HiddenDim: 96, BlockSize: 128, VocabSize: 256, ActBits: 8,
		Quantizer: arch.AbsMean, OctonionAttention: true}
	m, err := sampleModel(c, spinfile.TokenizerInfo{Kind: tokenizer.KindBytes})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func image(t testing.TB, m *spinfile.Model) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := engine.WriteImage(&b, m, engine.Options{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func canisterOf(t testing.TB, image []byte) []byte {
	t.Helper()
	wasm, info, err := Runtime()
	if err != nil {
		t.Fatal(err)
	}
	if wasm, err = Canister(wasm, info, image); err != nil {
		t.Fatal(err)
	}
	return wasm
}

// generateArg is the argument of the method generate: the most probable tokens.
func generateArg(prompt string, tokens uint32) []byte {
	return candid.Encode(candid.RecordValue(
		candid.Field{Name: "prompt", Value: candid.TextValue(prompt)},
		candid.Field{Name: "max_tokens", Value: candid.OptValue(candid.Nat32Value(tokens))},
		candid.Field{Name: "temperature", Value: candid.OptValue(candid.Float64Value(0))},
		candid.Field{Name: "seed", Value: candid.OptValue(candid.Nat64Value(1))},
	))
}

// The committed module writes what the native engine writes.
func TestSameTextAsNative(t *testing.T) {
	m := testModel(t)
	e, err := engine.New(m, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	tok, err := engine.NewTokenizer(m.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := tokenizer.Prompt(tok, "Once")
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	o := engine.GenerateOptions{MaxTokens: 40}
	if _, err := engine.Generate(t.Context(), e.NewSession(), tok, ids, o, func(text []byte) error {
		want.Write(text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	c, err := host.Load(t.Context(), canisterOf(t, image(t, m)), module.ICP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	r, err := c.Call(t.Context(), host.Message{Export: "canister_init"})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("canister_init: %d instructions", r.Instructions)
	if r, err = c.Call(t.Context(), host.Message{Export: "canister_update generate", Arg: generateArg("Once", 40)}); err != nil {
		t.Fatal(err)
	}
	t.Logf("generate: %d instructions", r.Instructions)
	if text := strings.ToValidUTF8(want.String(), "\uFFFD"); !bytes.Contains(r.Data, []byte(text)) {
		t.Errorf("the canister replied %q, the native engine wrote %q", r.Data, text)
	}
}
