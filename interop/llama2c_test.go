package interop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"spinnet/arch"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

const sharedData = "../../shared/data/"

// shared gives the path of a file of the folder of data beside the repository,
// or skips the test.
func shared(t testing.TB, name string) string {
	t.Helper()
	path := sharedData + name
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%s is not here", strings.TrimPrefix(path, "../"))
	}
	return path
}

var tinyDense = arch.Config{NEmbd: 8, HiddenDim: 12, NLayer: 2, NHead: 4, NKVHead: 2, VocabSize: 262, BlockSize: 6,
	Algebra: "real", Quantizer: arch.None, NormEps: 1e-5}.WithDefaults()

// tinyWeights are values for each parameter that no two places share.
func tinyWeights(c arch.Config) map[string][]float32 {
	all := map[string][]float32{}
	n := 0
	for _, p := range arch.Params(c) {
		w := make([]float32, p.Len())
		for i := range w {
			n++
			w[i] = float32(n) / 1024
		}
		all[p.Name] = w
	}
	return all
}

// tinyLlama2C is a llama2.c model.
func tinyLlama2C(c arch.Config) []byte {
	vocab := c.VocabSize
	if c.UntiedOutput {
		vocab = -vocab
	}
	var b []byte
	for _, v := range []int{c.NEmbd, c.HiddenDim, c.NLayer, c.NHead, c.NKVHead, vocab, c.BlockSize} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	all := tinyWeights(c)
	add := func(w []float32) {
		for _, v := range w {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	add(all["tok_embeddings.weight"])
	for _, name := range []string{"attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo", "ffn_norm",
		"feed_forward.gate_proj", "feed_forward.down_proj", "feed_forward.up_proj"} {
		for i := range c.NLayer {
			add(all[fmt.Sprintf("layers.%d.%s.weight", i, name)])
		}
	}
	add(all["norm.weight"])
	add(make([]float32, c.BlockSize*c.HeadDim()))
	if c.UntiedOutput {
		add(all[arch.OutputName])
	}
	return b
}

// tinyPieces is a tokenizer of 262 pieces.
func tinyPieces() (pieces []string, scores []float32) {
	pieces = []string{"<unk>", "<s>", "</s>"}
	for b := range 256 {
		pieces = append(pieces, fmt.Sprintf("<0x%02X>", b))
	}
	pieces = append(pieces, " a", " ", "a")
	scores = make([]float32, len(pieces))
	scores[260], scores[261] = -1, -2
	return pieces, scores
}

// llama2cTokenizer is a tokenizer as llama2.c has it.
func llama2cTokenizer() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 6)
	pieces, scores := tinyPieces()
	for i, p := range pieces {
		if i == 1 || i == 2 {
			p = "\n" + p + "\n"
		}
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(scores[i]))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

func TestLlama2C(t *testing.T) {
	for _, untied := range []bool{false, true} {
		c := tinyDense
		c.UntiedOutput = untied
		dir := t.TempDir()
		path := filepath.Join(dir, "any.name")
		if err := os.WriteFile(path, tinyLlama2C(c), 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if m.Config != c || m.Tokenizer.Kind != "" {
			t.Errorf("got %+v, %q; want %+v and no tokenizer", m.Config, m.Tokenizer.Kind, c)
		}
		for name, want := range tinyWeights(c) {
			if got := m.Tensor(name); got == nil || !slices.Equal(got.Data, want) {
				t.Errorf("%s differs", name)
			}
		}
		pieces, scores := tinyPieces()
		for _, name := range []string{"tokenizer.bin", "tok262.bin"} {
			if err := os.WriteFile(filepath.Join(dir, name), llama2cTokenizer(), 0o644); err != nil {
				t.Fatal(err)
			}
			m, err := Open(path)
			if err != nil || !m.Tokenizer.Equal(spinfile.TokenizerInfo{Kind: tokenizer.KindLlama, Pieces: pieces, Scores: scores}) {
				t.Errorf("%s: got %+v, %v", name, m, err)
			}
		}
		if _, err := OpenWith(path, Options{Tokenizer: filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	}
}

func TestLlama2CBad(t *testing.T) {
	good := tinyLlama2C(tinyDense)
	for n := range good {
		if _, err := readBytes(good[:n], "x.bin"); err == nil {
			t.Fatalf("no error for the first %d bytes of %d", n, len(good))
		}
	}
	with := func(i int, v int32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[4*i:], uint32(v))
		return b
	}
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"trailing", "its header asks for", append(bytes.Clone(good), 0)},
		{"empty", "shorter than its header", nil},
		{"later version", "later version than 0", []byte("24ka" + strings.Repeat("\x00", 256))},
		{"width", "its header asks for", with(0, 16)},
		{"negative width", "n_embd = -8", with(0, -8)},
		{"huge", "n_embd = 2147483647", with(0, math.MaxInt32)},
		{"layers", "its header asks for", with(2, 4096)},
		{"heads", "multiple of n_head", with(3, 3)},
		{"no kv heads", "without sizes", with(4, 0)},
		{"vocabulary", "vocab_size = ", with(5, math.MinInt32)},
		{"untied", "its header asks for", with(5, -262)},
		{"not finite", "has the value NaN", with(7, 0x7fc00000)},
	} {
		_, err := readBytes(c.b, "x.bin")
		if _, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want a FormatError with %q", c.name, err, c.want)
		}
	}
}

func TestLlama2CTokenizerBad(t *testing.T) {
	good := llama2cTokenizer()
	if _, err := parseLlamaTokenizer("tok", good, 262); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := parseLlamaTokenizer("tok", good[:n], 262); err == nil {
			t.Fatalf("no error for the first %d bytes of %d", n, len(good))
		}
	}
	put := func(at int, s string) []byte {
		b := bytes.Clone(good)
		copy(b[at:], s)
		return b
	}
	for _, c := range []struct {
		name, want string
		b          []byte
		vocab      int
	}{
		{"trailing", "1 bytes after piece 261", append(bytes.Clone(good), 0), 262},
		{"another vocabulary", "bytes after piece 199", good, 200},
		{"a larger one", "truncated", good, 263},
		{"length", "has -1 bytes", put(8, "\xff\xff\xff\xff"), 262},
		{"huge", "too short", good, 1 << 24},
		{"not UTF-8", "not UTF-8", put(12, "\xff"), 262},
		{"score", "not finite", put(4, "\x00\x00\xc0\x7f"), 262},
	} {
		_, err := parseLlamaTokenizer("tok", c.b, c.vocab)
		if _, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want a FormatError with %q", c.name, err, c.want)
		}
	}
}

// A real model of llama2.c tells what llama2.c prints for it.
func TestStories(t *testing.T) {
	m, err := Open(shared(t, "stories260K.bin"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(shared(t, "stories260K_greedy_t0_n256.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if got := tellStory(t, m); got+"\n" != string(want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	// The same model as GGUF, which claims a shorter context.
	g, err := Open(shared(t, "stories260Ktok512.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if g.Config.BlockSize != 128 {
		t.Errorf("context of %d", g.Config.BlockSize)
	}
	g.Config.BlockSize = 512
	if g.Config != m.Config || !reflect.DeepEqual(g.Tokenizer, m.Tokenizer) {
		t.Errorf("GGUF: got %+v, want %+v; tokenizers equal: %v", g.Config, m.Config, g.Tokenizer.Equal(m.Tokenizer))
	}
	if got := tellStory(t, g); got+"\n" != string(want) {
		t.Errorf("GGUF: got %q\nwant %q", got, want)
	}
	for i := range m.Tensors {
		if rel := relL2(g.Tensors[i].Data, m.Tensors[i].Data); rel > 1e-6 {
			t.Errorf("%s: relative difference %.2g", m.Tensors[i].Name, rel)
		}
	}
}

// tellStory continues nothing by 256 greedy tokens.
func tellStory(t *testing.T, m *spinfile.Model) string {
	t.Helper()
	e, err := engine.New(m, engine.Options{Threads: 1, Numeric: engine.Float})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	tok, err := engine.NewTokenizer(m.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	_, err = engine.Generate(t.Context(), e.NewSession(), tok, []int32{tokenizer.LlamaBOS}, engine.GenerateOptions{MaxTokens: 256},
		func(b []byte) error { text.Write(b); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func FuzzLlama2C(f *testing.F) {
	c := arch.Config{NEmbd: 4, HiddenDim: 4, NLayer: 1, NHead: 2, NKVHead: 1, VocabSize: 3, BlockSize: 2, Algebra: "real", Quantizer: arch.None}.WithDefaults()
	f.Add(tinyLlama2C(c), llama2cTokenizer(), 262)
	c.UntiedOutput = true
	f.Add(tinyLlama2C(c), llama2cTokenizer(), 3)
	f.Fuzz(func(t *testing.T, b, tok []byte, vocab int) {
		if info, err := parseLlamaTokenizer("tok", tok, min(max(vocab, 1), 1<<24)); err == nil {
			if _, err := tokenizer.NewLlama(info.Pieces, info.Scores); err != nil {
				t.Fatalf("a bad tokenizer was accepted: %v", err)
			}
		}
		m, err := readBytes(b, "x.bin")
		if err != nil {
			return
		}
		if err := m.Validate(); err != nil {
			t.Fatalf("a bad model was accepted: %v", err)
		}
	})
}
