package interop_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"spinnet/arch"
	"spinnet/engine"
	"spinnet/interop"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// llamaJob and llamaResult are what llamacpp/run.mjs takes and gives.
type llamaJob struct {
	Model       string   `json:"model"`
	Texts       []string `json:"texts,omitempty"`
	Prompt      []int32  `json:"prompt,omitempty"`
	Greedy      int      `json:"greedy"`
	ContextSize int      `json:"contextSize,omitempty"`
}

type llamaResult struct {
	Library string    `json:"library"`
	Tokens  [][]int32 `json:"tokens"`
	Decoded []string  `json:"decoded"`
	Greedy  []int32   `json:"greedy"`
	Logits  string    `json:"logits"`
	Last    string    `json:"last"`
}

// runLlama exports the model and runs the job on it in llama.cpp.
func runLlama(t *testing.T, m *spinfile.Model, o interop.GGUFOptions, job llamaJob) llamaResult {
	t.Helper()
	needLlama(t)
	var file bytes.Buffer
	if err := interop.WriteGGUF(&file, m, o); err != nil {
		t.Fatal(err)
	}
	job.Model = filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(job.Model, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "llamacpp/run.mjs")
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("llama.cpp: %v\n%s", err, stderr.String())
	}
	var r llamaResult
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("llama.cpp: %v in %q\n%s", err, out, stderr.String())
	}
	return r
}

// needLlama skips the test where llama.cpp is not installed.
func needLlama(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("llama.cpp takes seconds to start")
	}
	missing := ""
	if _, err := exec.LookPath("node"); err != nil {
		missing = "node is not installed"
	} else if _, err := os.Stat("llamacpp/node_modules/node-llama-cpp"); err != nil {
		missing = "llama.cpp is not installed; run: npm --prefix interop/llamacpp run setup"
	}
	switch {
	case missing == "":
	case os.Getenv("SPINNET_REQUIRE") == "peers":
		t.Fatal(missing)
	default:
		t.Skip(missing)
	}
}

func decodeFloats(t *testing.T, s string) []float32 {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

// relL2 is |got − want| / |want|.
func relL2(got, want []float32) float64 {
	var diff, norm float64
	for i := range want {
		d := float64(got[i]) - float64(want[i])
		diff += d * d
		norm += float64(want[i]) * float64(want[i])
	}
	return math.Sqrt(diff / norm)
}

// continuation is what our engine makes of a prompt, in float32.
type continuation struct {
	logits, last []float32 // after the prompt, and before the last id
	greedy       []int32
	margin       float64 // the smallest distance of the best logit from the second, in their standard deviations
}

func continueGreedy(t *testing.T, m *spinfile.Model, prompt []int32, n int) continuation {
	t.Helper()
	e, err := engine.New(m, engine.Options{Threads: 1, Numeric: engine.Float})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s := e.NewSession()
	logits, err := s.Prefill(prompt)
	if err != nil {
		t.Fatal(err)
	}
	c := continuation{logits: slices.Clone(logits), margin: math.Inf(1)}
	for i := range n {
		if i > 0 {
			logits = s.Step(c.greedy[i-1])
		}
		best, sum := 0, 0.0
		second := float32(math.Inf(-1))
		for id, v := range logits {
			sum += float64(v) * float64(v)
			if id > 0 && v > logits[best] {
				best, second = id, logits[best]
			} else if id > 0 {
				second = max(second, v)
			}
		}
		c.margin = min(c.margin, float64(logits[best]-second)/math.Sqrt(sum/float64(len(logits))))
		c.greedy = append(c.greedy, int32(best))
	}
	c.last = slices.Clone(logits)
	return c
}

// randomModel makes a model of random latents, its head mixer near the
// identity so that it passes on what the heads found.
func randomModel(t *testing.T, c arch.Config, tok spinfile.TokenizerInfo, seed uint64) *spinfile.Model {
	t.Helper()
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	all := map[string][]float32{}
	for _, p := range arch.Params(c) {
		w := make([]float32, p.Len())
		for i := range w {
			x := float32(rng.NormFloat64())
			switch p.Kind {
			case arch.Embedding:
				w[i] = 0.03 * x
			case arch.Norm:
				w[i] = 1 + 0.1*x
			case arch.Beta, arch.MixerBeta:
				w[i] = 0.3 * x
			default:
				w[i] = x / float32(math.Sqrt(float64(p.Shape[0]*p.Shape[2])))
				if c.Quantizer == arch.Classic && p.Kind == arch.Ternary {
					w[i] = x
				}
			}
		}
		all[p.Name] = w
	}
	m, err := spinfile.FromLatents(c, tok, func(n string) []float32 { return all[n] })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var (
	gpt2Info = spinfile.TokenizerInfo{Kind: "gpt2"}
	// accented has characters of one to four bytes in UTF-8.
	accented = spinfile.TokenizerInfo{Kind: "chars", Chars: "\n !,.:abcdehilnorstuvwxyzàçéñö\u2019\u3042\u4e16\u754c\U0001F600"}
)

func seedTiny(t *testing.T) *spinfile.Model {
	t.Helper()
	m, err := interop.Open("../model/testdata/seed_tiny")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The seeds are such that no margin is near the difference in the logits:
// the same text is then no matter of luck.
func TestLlamaGeneratesTheSame(t *testing.T) {
	needLlama(t)
	for _, c := range []struct {
		name   string
		m      *spinfile.Model
		prompt []int32
	}{
		{"classic octonion with mixer", seedTiny(t), []int32{30}},
		{"absmean octonion with mixer", randomModel(t, arch.Config{NLayer: 2, NHead: 8, NEmbd: 256, HiddenDim: 512, BlockSize: 128,
			VocabSize: 50304, OctonionAttention: true}, gpt2Info, 8), []int32{464, 3797, 3332, 319, 262, 2603, 13}},
		{"walsh, grouped heads", randomModel(t, arch.Config{NLayer: 2, NHead: 8, NKVHead: 2, NEmbd: 256, HiddenDim: 768, BlockSize: 128,
			VocabSize: 35, Algebra: "walsh"}, accented, 17), []int32{5, 6, 7, 20, 30}},
		{"dense, untied, sedenion next", randomModel(t, arch.Config{NLayer: 2, NHead: 4, NEmbd: 128, HiddenDim: 320, BlockSize: 128, VocabSize: 64,
			Algebra: "real,sedenion", Quantizer: arch.None, UntiedOutput: true, NormEps: 1e-5, RopeTheta: 50000}, accented, 21), []int32{1, 2, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := continueGreedy(t, c.m, c.prompt, 64)
			got := runLlama(t, c.m, interop.GGUFOptions{}, llamaJob{Prompt: c.prompt, Greedy: 64})
			vocab := c.m.Config.VocabSize // there may be one more; see ggufVocab.end
			first, last := relL2(decodeFloats(t, got.Logits)[:vocab], want.logits), relL2(decodeFloats(t, got.Last)[:vocab], want.last)
			t.Logf("%s: logits within %.2g, later %.2g; %d different tokens, smallest margin %.2g", got.Library, first, last, len(slices.Compact(slices.Sorted(slices.Values(want.greedy)))), want.margin)
			if !(want.margin > 4*max(first, last)) {
				t.Errorf("the margin is too small for a fair comparison; choose another seed")
			}
			if !(first < 1e-2) {
				t.Errorf("logits after the prompt: relative error %.2g", first)
			}
			if !slices.Equal(got.Greedy, want.greedy) {
				t.Errorf("greedy:\ngot  %v\nwant %v", got.Greedy, want.greedy)
			} else if !(last < 1e-2) {
				t.Errorf("logits of the last token: relative error %.2g", last)
			}
		})
	}
}

func TestLlamaRunsEveryType(t *testing.T) {
	m := randomModel(t, arch.Config{NLayer: 2, NHead: 8, NEmbd: 256, HiddenDim: 512, BlockSize: 64,
		VocabSize: 65, OctonionAttention: true}, seedTiny(t).Tokenizer, 2)
	for i := range m.Tensors[0].Data {
		m.Tensors[0].Data[i] *= 16 // as large as what the layers add
	}
	prompt := []int32{1, 20, 33, 40, 12, 64, 7, 9}
	want := continueGreedy(t, m, prompt, 1)
	// What llama.cpp does with activations is its own: eight bits, one factor
	// for 32 or 256 of them.
	for _, c := range []struct {
		linear, embedding string
		within            float64
	}{
		{"f32", "f32", 1e-2}, {"f16", "f16", 1e-2}, {"q8_0", "q8_0", 2e-2}, {"q4_0", "q6_k", 5e-2},
		{"q6_k", "q4_0", 0.2}, {"tq2_0", "q8_0", 5e-2}, {"tq1_0", "f16", 5e-2},
	} {
		t.Run(c.linear+" "+c.embedding, func(t *testing.T) {
			got := runLlama(t, m, interop.GGUFOptions{Linear: c.linear, Embedding: c.embedding}, llamaJob{Prompt: prompt})
			err := relL2(decodeFloats(t, got.Logits), want.logits)
			t.Logf("logits within %.2g", err)
			if !(err < c.within) {
				t.Errorf("logits: relative error %.2g, want at most %v", err, c.within)
			}
		})
	}
}

func TestLlamaTokenizesTheSame(t *testing.T) {
	needLlama(t)
	const partText = "Hello world, it's me.\n\nThe cat sat"
	part := keepTokens(t, partText)
	small := arch.Config{NLayer: 1, NHead: 2, NEmbd: 32, HiddenDim: 32, BlockSize: 32, Algebra: "real"}
	sized := func(vocab int) arch.Config { c := small; c.VocabSize = vocab; return c }
	for _, c := range []struct {
		name  string
		m     *spinfile.Model
		texts []string
	}{
		{"characters", seedTiny(t), []string{"ROMEO:\nWhat's in a name? That which", "a  b\n\n\nc ", "z"}},
		{"accented characters", randomModel(t, sized(36), accented, 1),
			[]string{"hello, wörld!\nça va: señor\u2019s ¡", "\u4e16\u754c \U0001F600\U0001F600 \u3042.", "a  .\n\n b , c"}},
		{"bytes", randomModel(t, sized(256), spinfile.TokenizerInfo{Kind: "bytes"}, 1),
			[]string{"hello\n\t  w\u00f6rld\\ \u4e16\u754c \U0001F600", "a\u007f\u0001b"}},
		{"bytes and unused", randomModel(t, sized(300), spinfile.TokenizerInfo{Kind: "bytes"}, 1), []string{"<unused260> \\xff"}},
		{"GPT-2", randomModel(t, sized(50304), gpt2Info, 1), append(gpt2Texts(t),
			"Hello world, it's me.\n\nThe  cat\tsat 12345 times", "w\u00f6rld na\u00efve \u4e16\u754c\u3002 \U0001F600\U0001F468\u200d\U0001F469", "<|endoftext|> is text")},
		{"part of GPT-2", randomModel(t, sized(len(part)+7), spinfile.TokenizerInfo{Kind: "gpt2", Keep: part}, 1), []string{partText, "the cat"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok, err := engine.NewTokenizer(c.m.Tokenizer)
			if err != nil {
				t.Fatal(err)
			}
			got := runLlama(t, c.m, interop.GGUFOptions{}, llamaJob{Texts: c.texts})
			different := 0
			for i, text := range c.texts {
				want, err := tok.Encode(nil, []byte(text))
				if err != nil && c.m.Tokenizer.Kind == "chars" {
					text = text[:err.(*tokenizer.InputError).Offset] // llama.cpp drops what is not in the vocabulary
				} else if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got.Tokens[i], want) {
					different++
					t.Errorf("%q:\ngot  %v\nwant %v", text, got.Tokens[i], want)
				}
				if got.Decoded[i] != text && c.m.Tokenizer.Kind != "gpt2" { // there llama.cpp removes spaces before punctuation
					t.Errorf("%q decodes to %q", text, got.Decoded[i])
				}
			}
			t.Logf("%d texts, %d different", len(c.texts), different)
		})
	}
}

// gpt2Texts are the texts on whose ids four tokenizers agree.
func gpt2Texts(t *testing.T) (texts []string) {
	t.Helper()
	b, err := os.ReadFile("../tokenizer/testdata/gpt2_vectors.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(b)); d.More(); {
		var v struct {
			Text string `json:"text"`
		}
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		if v.Text != "" {
			texts = append(texts, v.Text)
		}
	}
	return texts
}

// keepTokens gives the ids of GPT-2 that a text needs, and the single bytes.
func keepTokens(t *testing.T, text string) []int32 {
	t.Helper()
	keep, err := tokenizer.GPT2().Encode(nil, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for id := range int32(256) {
		keep = append(keep, id)
	}
	slices.Sort(keep)
	return slices.Compact(keep)
}
