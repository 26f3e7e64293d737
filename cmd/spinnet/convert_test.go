package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spinnet/corpus"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// The characters of a model of 65 that carries none are those of the corpus.
func TestShakespeareCharacters(t *testing.T) {
	var set tokenizer.CharSet
	set.Add([]byte(corpus.TinyShakespeare))
	if got, want := spinfile.GuessTokenizer(65), set.String(); got.Kind != tokenizer.KindChars || got.Chars != want {
		t.Errorf("got %q, want %q", got.Chars, want)
	}
}

// A real model of llama2.c writes what llama2.c prints for it, also as GGUF,
// safetensors and .spinnet.
func TestGenerateStories(t *testing.T) {
	data := filepath.Join("..", "..", "..", "shared", "data")
	want, err := os.ReadFile(filepath.Join(data, "stories260K_greedy_t0_n256.txt"))
	if err != nil {
		t.Skip("../shared/data is not here")
	}
	bin := filepath.Join(data, "stories260K.bin")
	safetensors := filepath.Join(t.TempDir(), "m.safetensors")
	if _, _, err := spinnetCmd(t, "", "convert", bin, safetensors); err != nil {
		t.Fatal(err)
	}
	small := filepath.Join(t.TempDir(), "m.spinnet")
	if _, _, err := spinnetCmd(t, "", "convert", bin, small); err != nil {
		t.Fatal(err)
	}
	for _, model := range []string{bin, safetensors, filepath.Join(data, "stories260Ktok512.gguf"), small} {
		got, _, err := spinnetCmd(t, "", "generate", model, "-t", "0", "-n", "256", "--prompt", "")
		want := want
		if model != bin && model != safetensors {
			// The GGUF file claims a context of 128, and .spinnet rounds: the
			// text may go another way after a while.
			got, want = got[:min(len(got), 250)], want[:250]
		}
		if err != nil || got != string(want) {
			t.Errorf("%s: got %q, %v; want %q", model, got, err, want)
		}
	}
	got, _, err := spinnetCmd(t, "", "score", bin, "--text", "Once upon a time, there was a little girl named Lily.")
	if err != nil || !strings.HasPrefix(got, "loss           0.1001") {
		t.Errorf("got %q, %v", got, err)
	}
}
