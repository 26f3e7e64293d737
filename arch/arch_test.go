package arch

import (
	"errors"
	"strings"
	"testing"
)

func valid() Config {
	return Config{NLayer: 2, NHead: 8, NEmbd: 64, BlockSize: 64, VocabSize: 65, OctonionAttention: true}.WithDefaults()
}

func TestClassicHidden(t *testing.T) {
	for d, want := range map[int]int{64: 176, 512: 1368, 1280: 3416} {
		if got := ClassicHidden(d); got != want {
			t.Errorf("ClassicHidden(%d) = %d, want %d", d, got, want)
		}
	}
}

func TestParamsOfTheOriginal(t *testing.T) {
	c := valid()
	c.Quantizer = Classic
	var names []string
	for _, p := range Params(c)[:14] {
		names = append(names, p.Name)
	}
	want := "tok_embeddings.weight layers.0.attention_norm.weight layers.0.attention.wq.weight layers.0.attention.wq.beta " +
		"layers.0.attention.wk.weight layers.0.attention.wk.beta layers.0.attention.wv.weight layers.0.attention.wv.beta " +
		"layers.0.attention.wo.weight layers.0.attention.wo.beta layers.0.attention.head_mixer.W layers.0.attention.head_mixer.beta " +
		"layers.0.ffn_norm.weight layers.0.feed_forward.gate_proj.weight"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	decayed := map[Kind]bool{Embedding: true, Ternary: true, MixerWeight: true}
	for _, p := range Params(c) {
		if p.Decayed() != decayed[p.Kind] {
			t.Errorf("%s: decayed %v", p.Name, p.Decayed())
		}
	}
}

func TestCount(t *testing.T) {
	// One octonion layer of d 64, hidden 176: 4·64² + 3·64·176 dense weights,
	// an eighth of them stored.
	c := valid()
	c.NLayer, c.OctonionAttention = 1, false
	n := Count(c)
	dense := 4*64*64 + 3*64*176
	if n.Ternary != dense/8 || n.Float != 65*64+3*64 || n.MACs != dense+65*64 {
		t.Errorf("got %+v", n)
	}
	if c.Quantizer = None; Count(c).Ternary != 0 || Count(c).Float != dense/8+65*64+3*64 {
		t.Errorf("unquantised: got %+v", Count(c))
	}
}

func TestLayerAlgebrasTakeTurns(t *testing.T) {
	c := valid()
	c.NLayer, c.Algebra = 3, "walsh, octonion"
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if a, b, d := c.LayerAlgebra(0), c.LayerAlgebra(1), c.LayerAlgebra(2); a != "walsh" || b != "octonion" || d != "walsh" {
		t.Errorf("got %s, %s, %s", a, b, d)
	}
}

func TestValidateNamesTheKey(t *testing.T) {
	if err := valid().Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"n_layer = 0":                                     func(c *Config) { c.NLayer = 0 },
		"vocab_size = 2147483647":                         func(c *Config) { c.VocabSize = 1<<31 - 1 },
		"n_embd = 60 is not a multiple of n_head":         func(c *Config) { c.NEmbd = 60 },
		"head width n_embd/n_head = 3 is odd":             func(c *Config) { c.NEmbd = 24 },
		"not a multiple of n_kv_head = 3":                 func(c *Config) { c.NKVHead = 3 },
		`unknown algebra "octonian"`:                      func(c *Config) { c.Algebra = "octonian" },
		`unknown algebra "walsh:3"`:                       func(c *Config) { c.Algebra = "walsh:3" },
		"hidden_dim = 100 is not a multiple of 8":         func(c *Config) { c.HiddenDim = 100 },
		"algebra lists 3 names, want at most n_layer = 2": func(c *Config) { c.Algebra = "walsh,walsh,walsh" },
		"algebra has 100000 bytes":                        func(c *Config) { c.Algebra = strings.Repeat("x", 100000) },
		`unknown quantizer "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"…, want`: func(c *Config) { c.Quantizer = strings.Repeat("x", 100000) },
		"mixer_algebra has 100000 bytes":                func(c *Config) { c.OctonionAttention, c.MixerAlgebra = false, strings.Repeat("x", 100000) },
		"not a multiple of 16":                          func(c *Config) { c.Algebra, c.HiddenDim = "sedenion", 24 },
		`unknown quantizer "ternary"`:                   func(c *Config) { c.Quantizer = "ternary" },
		"act_bits = 4":                                  func(c *Config) { c.ActBits = 4 },
		"dropout = 1":                                   func(c *Config) { c.Dropout = 1 },
		"head mixer needs n_head to be a multiple of 8": func(c *Config) { c.NHead, c.NKVHead = 4, 4 },
		`unknown mixer_algebra "none"`:                  func(c *Config) { c.MixerAlgebra = "none" },
	} {
		c := valid()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		} else if e, ok := errors.AsType[*ConfigError](err); !ok || len(e.Keys) == 0 {
			t.Errorf("%v names no key", err)
		}
	}
}
