package train

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spinnet/arch"
)

func load(t *testing.T, text string, overrides ...string) Config {
	t.Helper()
	c, err := LoadConfig("some/dir/tiny.toml", []byte(text), overrides)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLoadConfigRules(t *testing.T) {
	c := load(t, `dataset = "x"`).Resolved()
	for _, r := range []struct {
		key       string
		got, want any
	}{
		{"out_dir", c.OutDir, filepath.Join("runs", "tiny")},
		{"hidden_dim", c.HiddenDim, 1408},
		{"n_kv_head", c.NKVHead, 8},
		{"lr_decay_iters", c.LRDecayIters, c.MaxIters},
		{"dataset folder", c.DatasetDir(), filepath.Join("datasets", "x")},
		{"classic hidden_dim", load(t, "dataset = 'x'\nquantizer = 'classic'").Resolved().HiddenDim, 1368},
		{"d 128 hidden_dim", load(t, "dataset = 'x'\nn_embd = 128").Resolved().HiddenDim, 384},
		{"path dataset", load(t, `dataset = "./x"`).DatasetDir(), "./x"},
		{"last override wins", load(t, `dataset = "x"`, "--n_layer=3", "n-layer=4").NLayer, 4},
		{"override beats file", load(t, "dataset = \"x\"\nlearning_rate = 1", "--learning-rate=2e-3").LearningRate, 2e-3},
		{"integer for a number", load(t, "dataset = \"x\"\nlearning_rate = 1").LearningRate, 1.0},
		{"bool override", load(t, `dataset = "x"`, "--octonion_attention=true").OctonionAttention, true},
		{"string override", load(t, `dataset = "x"`, "--dataset=a=b").Dataset, "a=b"},
		{"padded vocabulary", load(t, `dataset = "x"`, "--vocab_size=50304").Arch(50257).VocabSize, 50304},
		{"own vocabulary", load(t, `dataset = "x"`).Arch(65).VocabSize, 65},
	} {
		if r.got != r.want {
			t.Errorf("%s: got %v, want %v", r.key, r.got, r.want)
		}
	}
}

func TestLoadConfigErrors(t *testing.T) {
	for _, r := range []struct {
		name, text string
		overrides  []string
		want       string
	}{
		{"unknown key", "dataset = 'x'\n\nn_layers = 4", nil, `tiny.toml:3: unknown key "n_layers"; did you mean "n_layer"?`},
		{"far unknown key", "zzzzzzzz = 4", nil, `tiny.toml:1: unknown key "zzzzzzzz"`},
		{"original's bias", "dataset = 'x'\nbias = true", nil, `tiny.toml:2: unknown key "bias": no layer has a bias; leave it out`},
		{"table", "dataset = 'x'\n[model]\nn_layer = 4", nil, `tiny.toml:2: unknown key "model": a recipe has no tables, only keys`},
		{"string for integer", "dataset = 'x'\nn_layer = 'four'", nil, "tiny.toml:2: n_layer: wrong type, want an integer such as n_layer = 4"},
		{"float for integer", "n_layer = 4.5", nil, "tiny.toml:1: n_layer: wrong type, want an integer such as n_layer = 4"},
		{"string for number", "learning_rate = '3e-3'", nil, "tiny.toml:1: learning_rate: wrong type, want a number such as learning_rate = 0.1"},
		{"integer for bool", "octonion_attention = 1", nil, "tiny.toml:1: octonion_attention: wrong type, want true or false"},
		{"integer for string", "algebra = 8", nil, `tiny.toml:1: algebra: wrong type, want a quoted string such as algebra = "…"`},
		{"array for string", "algebra = ['walsh']", nil, `tiny.toml:1: algebra: wrong type, want a quoted string such as algebra = "…"`},
		{"bare word", "dataset = x", nil, "tiny.toml:1: "},
		{"twice", "n_layer = 4\nn_layer = 5", nil, "tiny.toml:2: "},
		{"negative seed", "seed = -1", nil, "tiny.toml:1: seed: wrong type, want an integer, 0 or more"},
		{"huge integer", "n_layer = 99999999999999999999", nil, "tiny.toml:1: "},
		{"not UTF-8", "dataset = \"\xff\"", nil, "tiny.toml:1: "},
		{"no dataset", "", nil, `tiny.toml: no dataset; set dataset = "tinyshakespeare"`},
		{"range", "dataset = 'x'\n  n_layer   = 0", nil, "tiny.toml:2: n_layer = 0, want 1 to 4096"},
		{"range of a rule's key", "dataset = 'x'\nn_embd = -8", nil, "tiny.toml:2: n_embd = -8, want 1 to 1048576"},
		{"NaN", "dataset = 'x'\nlearning_rate = nan", nil, "tiny.toml:2: learning_rate = NaN, want more than 0"},
		{"infinity", "dataset = 'x'\ngrad_clip = inf", nil, "tiny.toml:2: grad_clip = +Inf, want 0 to"},
		{"min_lr above", "dataset = 'x'\nmin_lr = 1\nlearning_rate = 0.5", nil, "tiny.toml:2: min_lr = 1, want 0 to learning_rate = 0.5"},
		{"choice", "dataset = 'x'\nquantizer = 'ternary'", nil, `tiny.toml:2: quantizer = "ternary", want absmean or classic or none`},
		{"heads", "dataset = 'x'\nn_head = 7", nil, "tiny.toml:2: n_embd = 512 is not a multiple of n_head = 7"},
		{"mixer heads", "dataset = 'x'\nn_head = 4\noctonion_attention = true", nil, "tiny.toml:2: the head mixer needs n_head to be a multiple of 8"},
		{"algebra", "dataset = 'x'\nalgebra = 'octonoin'", nil, `tiny.toml:2: unknown algebra "octonoin"`},
		{"mixer heads of the default", "dataset = 'x'\noctonion_attention = true\nmixer_algebra = 'sedenion'", nil, "tiny.toml:2: the head mixer needs n_head to be a multiple of 16"},
		{"mixer algebra", "dataset = 'x'\noctonion_attention = true\nmixer_algebra = 'octonoin'", nil, `tiny.toml:3: unknown mixer_algebra "octonoin"`},
		{"width", "dataset = 'x'\nn_head = 2\nn_embd = 12", nil, "tiny.toml:3: n_embd = 12 is not a multiple of 8"},
		{"hidden width", "dataset = 'x'\nhidden_dim = 12", nil, "tiny.toml:2: hidden_dim = 12 is not a multiple of 8"},
		{"key heads", "dataset = 'x'\nn_kv_head = 3", nil, "tiny.toml:2: n_head = 8 is not a multiple of n_kv_head = 3"},
		{"override of heads", "dataset = 'x'\nn_embd = 512", []string{"--n_head=7"}, "--n_head=7: n_embd = 512 is not a multiple"},
		{"override of the algebra", "dataset = 'x'\nn_head = 2\nn_embd = 12\nhidden_dim = 12\nalgebra = 'real'", []string{"algebra=walsh"}, "--algebra=walsh: n_embd = 12 is not a multiple of 8"},
		{"huge batch", "dataset = 'x'\nbatch_size = 1000000\nblock_size = 1000000", nil, "tiny.toml:2: batch_size × block_size"},
		{"override range", "dataset = 'x'\nn_layer = 2", []string{"--n_layer=0"}, "--n_layer=0: n_layer = 0, want 1 to 4096"},
		{"override type", "dataset = 'x'", []string{"--n-layer=four"}, "--n-layer=four: n_layer: wrong type, want an integer"},
		{"override of the seed", "dataset = 'x'", []string{"--seed=-1"}, "--seed=-1: seed: wrong type, want an integer, 0 or more"},
		{"huge override", "dataset = 'x'", []string{"--max_iters=99999999999999999999"}, "--max_iters=99999999999999999999: max_iters: out of range, want an integer"},
		{"override unknown", "dataset = 'x'", []string{"--learning_rat=1"}, `--learning_rat=1: unknown key "learning_rat"; did you mean "learning_rate"?`},
		{"override without value", "dataset = 'x'", []string{"--n_layer"}, "--n_layer: no value, want --n_layer=VALUE"},
	} {
		_, err := LoadConfig("tiny.toml", []byte(r.text), r.overrides)
		var ce *ConfigError
		switch {
		case !errors.As(err, &ce):
			t.Errorf("%s: got %v, want a *ConfigError", r.name, err)
		case !strings.HasPrefix(err.Error(), r.want):
			t.Errorf("%s:\n got %s\nwant %s", r.name, err, r.want)
		case strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: more than one line: %q", r.name, err)
		}
	}
}

func TestTOMLReadsBack(t *testing.T) {
	c := load(t, "dataset = 'x'\nsample_prompt = \"quo\\\"te'\\n\\u0007\"", "--learning_rate=1e-7", "--min_lr=0", "--seed=9223372036854775807")
	back := load(t, c.TOML())
	if diff := cmp.Diff(c, back); diff != "" {
		t.Errorf("TOML does not read back (-want +got):\n%s\n%s", diff, c.TOML())
	}
}

// A recipe that was written and read again leaves keys to their rules that it
// left to them before.
func TestRulesApplyAnew(t *testing.T) {
	written := load(t, "dataset = 'x'\nlearning_rate = 1.0\nmin_lr = 0.5").TOML()
	c := load(t, written, "n_head=16", "n_embd=128", "max_iters=9000")
	if r := c.Resolved(); r.NKVHead != 16 || r.HiddenDim != 384 || r.LRDecayIters != 9000 {
		t.Errorf("got n_kv_head %d, hidden_dim %d, lr_decay_iters %d, want 16, 384, 9000", r.NKVHead, r.HiddenDim, r.LRDecayIters)
	}
	if lr := c.LRAt(5000); !(lr > 0.6) {
		t.Errorf("learning rate %v in the middle of the longer run, want the longer cosine", lr)
	}
	fixed := load(t, load(t, "dataset = 'x'\nlr_decay_iters = 700").TOML(), "max_iters=9000")
	if fixed.LRDecayIters != 700 {
		t.Errorf("a given lr_decay_iters became %d", fixed.LRDecayIters)
	}
}

func TestLRAt(t *testing.T) {
	c := Config{LearningRate: 1, MinLR: 0.1, DecayLR: true, WarmupIters: 3, LRDecayIters: 13}
	flat := c
	flat.DecayLR = false
	short := c
	short.LRDecayIters = 2
	for _, r := range []struct {
		name string
		c    Config
		it   int
		want float64
	}{
		{"first", c, 0, 0.25}, {"warm", c, 2, 0.75}, {"peak", c, 3, 1}, {"half", c, 8, 0.55},
		{"end", c, 13, 0.1}, {"after", c, 99, 0.1}, {"constant", flat, 99, 1},
		{"decay before the warm-up ends", short, 2, 0.75}, {"and after it", short, 3, 0.1},
	} {
		if got := r.c.LRAt(r.it); math.Abs(got-r.want) > 1e-12 {
			t.Errorf("%s: LRAt(%d) = %v, want %v", r.name, r.it, got, r.want)
		}
	}
}

func TestGroup(t *testing.T) {
	c := load(t, "dataset='x'\nweight_decay=0.1\nembedding_lr_scale=2.0\nembedding_decay_scale=0.5\nmixer_lr_scale=3.0\nmixer_decay_scale=0\nnorm_lr_scale=4.0")
	for _, r := range []struct {
		p         arch.Param
		lr, decay float64
	}{
		{arch.Param{Kind: arch.Embedding, Shape: []int{5, 8}}, 2, 0.05},
		{arch.Param{Kind: arch.Ternary, Shape: []int{8, 1, 1}}, 1, 0.1},
		{arch.Param{Kind: arch.Beta, Shape: []int{1}}, 4, 0},
		{arch.Param{Kind: arch.Norm, Shape: []int{8}}, 4, 0},
		{arch.Param{Kind: arch.MixerWeight, Shape: []int{8, 2, 2}}, 3, 0},
		{arch.Param{Kind: arch.MixerBeta, Shape: []int{2}}, 3, 0},
	} {
		if lr, decay := c.Group(r.p); lr != r.lr || decay != r.decay {
			t.Errorf("%s: got %v, %v, want %v, %v", r.p.Kind, lr, decay, r.lr, r.decay)
		}
	}
}

// The keys table of docs/training.md is this file's; UPDATE_GOLDEN=1 writes it.
func TestKeysDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString("| key | default | what it is |\n|---|---|---|\n")
	for _, k := range Keys() {
		if k.Usage == "" || k.Type == "" {
			t.Errorf("%s has no usage", k.Name)
		}
		b.WriteString("| `" + k.Name + "` | `" + k.Default + "` | " + k.Usage + " |\n")
	}
	const file, begin, end = "../docs/training.md", "<!-- keys: written by train.TestKeysDocumented -->\n", "<!-- end of keys -->\n"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(doc), begin)
	table, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no keys section", file)
	}
	if table == b.String() {
		return
	}
	if os.Getenv("UPDATE_GOLDEN") == "" {
		t.Fatalf("%s is stale; run UPDATE_GOLDEN=1 go test ./train -run TestKeysDocumented", file)
	}
	if err := os.WriteFile(file, []byte(head+begin+b.String()+end+tail), 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestNearestKey(t *testing.T) {
	for _, r := range [][2]string{
		{"n_layers", "n_layer"}, {"layers", "n_layer"}, {"lr", "min_lr"}, {"batch", "batch_size"}, {"batchsize", "batch_size"}, {"max_iter", "max_iters"}, {"dropuot", "dropout"},
		{"", ""}, {"qqqqqqqqqqqq", ""}, {strings.Repeat("n", 100), ""},
	} {
		if got := nearestKey(r[0]); got != r[1] {
			t.Errorf("nearestKey(%q) = %q, want %q", r[0], got, r[1])
		}
	}
}

// Whatever the bytes: a valid configuration or one line of error.
func FuzzLoadConfig(f *testing.F) {
	f.Add([]byte(`dataset = "x"`), "n_layer=4")
	f.Add([]byte("n_layers = 4\n[a.b]\nc = 1"), "--x")
	f.Add([]byte("dataset = '''\nx'''\nlearning_rate = nan"), "seed=-1")
	f.Add([]byte("n_embd = 9223372036854775807\ndataset='x'"), "hidden_dim=0")
	f.Fuzz(func(t *testing.T, text []byte, override string) {
		c, err := LoadConfig("f.toml", text, []string{override})
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %q", err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("loaded, but not valid: %v", err)
		}
		back, err := LoadConfig("f.toml", []byte(c.TOML()), nil)
		if err != nil || back != c {
			t.Errorf("TOML does not read back: %v\n%s", err, c.TOML())
		}
	})
}
