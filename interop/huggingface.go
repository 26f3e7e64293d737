package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"spinnet/arch"
	"spinnet/spinfile"
)

// The Llama models of Hugging Face's transformers: a safetensors file with
// other names, and config.json beside it. Its query and key matrices have the
// rows of each head sorted into halves, because it rotates channels m and
// m + head_dim/2 where we, and the models' makers, rotate 2m and 2m + 1.

const (
	hfConfigFile = "config.json"
	hfIndexFile  = "model.safetensors.index.json"
	hfEmbedding  = "model.embed_tokens.weight"
)

// hfNames are transformers' names within a layer and outside.
var hfNames = map[string]string{
	"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output",
	"input_layernorm": "attention_norm", "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
	"self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo", "post_attention_layernorm": "ffn_norm",
	"mlp.gate_proj": "feed_forward.gate_proj", "mlp.up_proj": "feed_forward.up_proj", "mlp.down_proj": "feed_forward.down_proj",
}

// hfName gives our name of a tensor, or "".
func hfName(name string) string {
	prefix := ""
	if rest, ok := strings.CutPrefix(name, "model.layers."); ok {
		layer, inner, ok := strings.Cut(rest, ".")
		if !ok {
			return ""
		}
		prefix, name = "layers."+layer+".", inner
	}
	base, ok := strings.CutSuffix(name, ".weight")
	if ours := hfNames[base]; ok && ours != "" {
		return prefix + ours + ".weight"
	}
	return ""
}

// hfConfig is what is read of config.json.
type hfConfig struct {
	ModelType    string   `json:"model_type"`
	Hidden       int      `json:"hidden_size"`
	Intermediate int      `json:"intermediate_size"`
	Layers       int      `json:"num_hidden_layers"`
	Heads        int      `json:"num_attention_heads"`
	KVHeads      int      `json:"num_key_value_heads"`
	HeadDim      int      `json:"head_dim"`
	Positions    int      `json:"max_position_embeddings"`
	Vocab        int      `json:"vocab_size"`
	Eps          float64  `json:"rms_norm_eps"`
	Theta        float64  `json:"rope_theta"`
	Activation   string   `json:"hidden_act"`
	AttnBias     bool     `json:"attention_bias"`
	MLPBias      bool     `json:"mlp_bias"`
	Scaling      *hfScale `json:"rope_scaling"`
	Rope         *hfScale `json:"rope_parameters"`
}

// hfScale says how rotations are scaled, under either of two names.
type hfScale struct {
	Type  string  `json:"rope_type"`
	Old   string  `json:"type"`
	Theta float64 `json:"rope_theta"`
}

// scaled reports whether rotations are other than the plain ones.
func (s *hfScale) scaled() bool {
	return s != nil && (s.Type != "" && s.Type != "default" || s.Old != "" && s.Old != "default")
}

// parseHFConfig reads a config.json; path is for errors.
func parseHFConfig(path string, b []byte) (c arch.Config, err error) {
	bad := func(format string, args ...any) (arch.Config, error) {
		return c, &FormatError{File: path, Offset: -1, Reason: cut(fmt.Sprintf(format, args...), maxReason)}
	}
	h := hfConfig{Activation: "silu", Eps: 1e-6, Theta: arch.RopeTheta, Positions: 2048} // transformers' defaults
	if err := json.Unmarshal(b, &h); err != nil {
		return bad("%v", err)
	}
	if h.Rope != nil && h.Rope.Theta != 0 {
		h.Theta = h.Rope.Theta
	}
	if h.KVHeads == 0 {
		h.KVHeads = h.Heads
	}
	switch {
	case h.ModelType != "llama":
		return bad("model_type is %s, want llama", quoted(h.ModelType))
	case h.Activation != "silu":
		return bad("hidden_act is %s, want silu", quoted(h.Activation))
	case h.AttnBias || h.MLPBias:
		return bad("attention_bias or mlp_bias is set; layers with a bias are not supported")
	case h.Scaling.scaled() || h.Rope.scaled():
		return bad("rope_scaling is set; scaled rotations are not supported")
	case h.Intermediate < 1 || h.KVHeads < 1 || h.Eps == 0 || h.Theta == 0:
		return bad("intermediate_size, num_key_value_heads, rms_norm_eps or rope_theta is 0")
	}
	c = arch.Config{NLayer: h.Layers, NHead: h.Heads, NKVHead: h.KVHeads, NEmbd: h.Hidden, HiddenDim: h.Intermediate, BlockSize: h.Positions,
		VocabSize: h.Vocab, Algebra: "real", Quantizer: arch.None, NormEps: h.Eps, RopeTheta: h.Theta}.WithDefaults()
	if err := c.Validate(); err != nil {
		return bad("%v", err)
	}
	if h.HeadDim != 0 && h.HeadDim != c.HeadDim() {
		return bad("head_dim is %d, want hidden_size/num_attention_heads = %d", h.HeadDim, c.HeadDim())
	}
	return c, nil
}

// openHuggingFace opens a Llama model of transformers.
func (l *Latents) openHuggingFace(entries []placed, o Options) error {
	path := filepath.Join(filepath.Dir(l.File), hfConfigFile)
	b, err := readBounded(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return failing(path, "")("", -1, "missing: it holds the configuration of a model in Hugging Face's layout")
	}
	if err != nil {
		return err
	}
	config, err := parseHFConfig(path, b)
	if err != nil {
		return err
	}
	if err := l.useHuggingFace(config, entries); err != nil {
		return err
	}
	l.Tokenizer, err = o.tokenizer(l.File, config.VocabSize, spinfile.TokenizerInfo{}, findLlamaTokenizer)
	return err
}

// useHuggingFace makes a model of its two parts.
func (l *Latents) useHuggingFace(c arch.Config, entries []placed) error {
	l.Config = c
	for _, e := range entries {
		name := hfName(e.name)
		switch {
		case strings.HasSuffix(e.name, ".rotary_emb.inv_freq"):
			continue // computed, not learned
		case name == "":
			return l.fail(e.name, -1, "does not belong to a llama model")
		case name == arch.OutputName:
			l.Config.UntiedOutput = true
		}
		t := l.stored(e, name)
		if strings.HasSuffix(name, ".wq.weight") || strings.HasSuffix(name, ".wk.weight") {
			width := c.HeadDim()
			t.read = func(dst []float32) error { return readHalves(dst, l.file, e, width) }
		}
		l.Tensors = append(l.Tensors, t)
	}
	return l.tie()
}

// readHalves fills dst with a matrix of heads of width rows each: row m of a
// head's first half becomes its row 2m, that of its second half row 2m + 1.
func readHalves(dst []float32, r io.ReaderAt, e placed, width int) error {
	w := make([]float32, len(dst))
	if err := readValues(w, r, e.at, e.DType); err != nil {
		return err
	}
	cols := int(e.Shape[1]) // check has compared the shape
	for from := range len(w) / cols {
		head, i := from/width, from%width
		half, m := i/(width/2), i%(width/2)
		copy(dst[(head*width+2*m+half)*cols:][:cols], w[from*cols:])
	}
	return nil
}
