// Package arch says what a model is: its configuration, the names and shapes
// of its parameters, and their counts. It imports nothing of ours, so every
// other package may use it, also in a WebAssembly module (so no fmt).
package arch

import (
	"strconv"
	"strings"
)

// Quantisers of the ternary linear layers.
const (
	Classic = "classic" // round and clamp a latent in about ±1.5 (original recipe)
	AbsMean = "absmean" // BitNet b1.58: scale by the mean absolute value first
	None    = "none"    // no quantisation
)

// Config is the architecture of one model: everything that fixes the shapes
// of its parameters and the arithmetic of its forward pass. JSON names are
// the keys of the TOML recipes and of checkpoint sidecars.
type Config struct {
	NLayer    int `json:"n_layer"`
	NHead     int `json:"n_head"`
	NKVHead   int `json:"n_kv_head"`  // 0 means n_head
	NEmbd     int `json:"n_embd"`     // d, width of the residual stream
	HiddenDim int `json:"hidden_dim"` // width of the SwiGLU; 0 means ClassicHidden(d)
	BlockSize int `json:"block_size"` // context length in tokens
	VocabSize int `json:"vocab_size"`

	// Algebra of the linear layers: a name such as "octonion", or several
	// separated by commas, which layers take in turn ("walsh,octonion").
	Algebra   string `json:"algebra"`
	Quantizer string `json:"quantizer"`
	ActBits   int    `json:"act_bits"` // 0: float activations; 8: int8 per token

	OctonionAttention bool   `json:"octonion_attention"` // head mixer on or off
	MixerAlgebra      string `json:"mixer_algebra"`      // "" means octonion

	Dropout float64 `json:"dropout"` // on attention weights, in training only

	// What models of other programs may have and training here never gives.
	NormEps      float64 `json:"norm_eps,omitempty"`      // of RMSNorm; 0 means NormEps
	RopeTheta    float64 `json:"rope_theta,omitempty"`    // base of the rotations; 0 means RopeTheta
	UntiedOutput bool    `json:"untied_output,omitempty"` // output.weight beside the embedding
}

// Norm and rotary constants of every model trained here (SPEC §2).
const (
	NormEps   = 1e-6
	RopeTheta = 10000.0
)

// AlgebraDim gives the dimension n of an algebra by name, or 0 when there is
// no such algebra. Package algebra holds the tables; "random" may carry a
// seed, as in "random:7".
func AlgebraDim(name string) int {
	switch base, _, _ := strings.Cut(name, ":"); base {
	case "real":
		return 1
	case "complex":
		return 2
	case "quaternion":
		return 4
	case "octonion", "walsh", "random":
		return 8
	case "sedenion":
		return 16
	}
	return 0
}

// AlgebraNames lists the names AlgebraDim knows, for error messages.
var AlgebraNames = []string{"real", "complex", "quaternion", "octonion", "sedenion", "walsh", "random"}

// ClassicHidden is the original's hidden width: ⌈⌊2·4d/3⌋/8⌉·8 (SPEC §2).
func ClassicHidden(d int) int { return (2*4*d/3 + 7) / 8 * 8 }

// WithDefaults fills the fields that have a rule: n_kv_head, hidden_dim,
// algebra, quantizer, mixer_algebra, norm_eps and rope_theta.
func (c Config) WithDefaults() Config {
	if c.NKVHead == 0 {
		c.NKVHead = c.NHead
	}
	if c.HiddenDim == 0 {
		c.HiddenDim = ClassicHidden(c.NEmbd)
	}
	if c.Algebra == "" {
		c.Algebra = "octonion"
	}
	if c.Quantizer == "" {
		c.Quantizer = AbsMean
	}
	if c.MixerAlgebra == "" {
		c.MixerAlgebra = "octonion"
	}
	if c.NormEps == 0 {
		c.NormEps = NormEps
	}
	if c.RopeTheta == 0 {
		c.RopeTheta = RopeTheta
	}
	return c
}

// HeadDim is the width of one attention head.
func (c Config) HeadDim() int { return c.NEmbd / c.NHead }

// KVDim is the width of the key and value projections.
func (c Config) KVDim() int { return c.NKVHead * c.HeadDim() }

// LayerAlgebra is the algebra of layer i's linear layers.
func (c Config) LayerAlgebra(i int) string {
	names := c.algebras()
	return names[i%len(names)]
}

// algebras are the names that the layers take in turn.
func (c Config) algebras() []string {
	names := strings.Split(c.Algebra, ",")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	return names
}

// HasBeta reports whether linear layers carry a learned output scale beta.
// absmean has its own scale γ and no beta (SPEC §1).
func (c Config) HasBeta() bool { return c.Quantizer == Classic }

// Limits that keep a hostile or mistyped configuration from asking for
// absurd memory before anything is allocated.
const (
	maxLayers = 1 << 12
	maxWidth  = 1 << 20
	maxBlock  = 1 << 24
	maxVocab  = 1 << 24
	maxTheta  = 1e12
	maxName   = 32 // bytes of an algebra, with its seed and what separates it from the next
)

// ConfigError is a mistake in a configuration.
type ConfigError struct {
	Keys   []string // that it is about, the likeliest culprit first
	Reason string   // with the value and what would be allowed
}

// Error gives the reason.
func (e *ConfigError) Error() string { return "arch: " + e.Reason }

// bad makes the error about keys, which are separated by spaces.
func bad(keys, reason string) error {
	return &ConfigError{strings.Fields(keys), reason}
}

// Validate checks a configuration whose defaults are filled. The error is a
// *ConfigError.
func (c Config) Validate() error {
	for _, f := range []struct {
		key     string
		v, most int
	}{
		{"n_layer", c.NLayer, maxLayers}, {"n_head", c.NHead, maxWidth}, {"n_kv_head", c.NKVHead, maxWidth},
		{"n_embd", c.NEmbd, maxWidth}, {"hidden_dim", c.HiddenDim, maxWidth},
		{"block_size", c.BlockSize, maxBlock}, {"vocab_size", c.VocabSize, maxVocab},
	} {
		if f.v < 1 || f.v > f.most {
			return bad(f.key, f.key+" = "+itoa(f.v)+", want 1 to "+itoa(f.most))
		}
	}
	if c.NEmbd%c.NHead != 0 {
		return bad("n_head n_embd", "n_embd = "+itoa(c.NEmbd)+" is not a multiple of n_head = "+itoa(c.NHead))
	}
	if c.HeadDim()%2 != 0 {
		return bad("n_head n_embd", "head width n_embd/n_head = "+itoa(c.HeadDim())+" is odd; rotary embedding turns pairs")
	}
	if c.NHead%c.NKVHead != 0 {
		return bad("n_kv_head n_head", "n_head = "+itoa(c.NHead)+" is not a multiple of n_kv_head = "+itoa(c.NKVHead))
	}
	if n := strings.Count(c.Algebra, ",") + 1; n > c.NLayer {
		return bad("algebra n_layer", "algebra lists "+itoa(n)+" names, want at most n_layer = "+itoa(c.NLayer))
	}
	if n := len(c.Algebra); n > maxName*c.NLayer {
		return bad("algebra", "algebra has "+itoa(n)+" bytes, want at most "+itoa(maxName)+" a layer")
	}
	for _, name := range c.algebras() {
		n := AlgebraDim(name)
		if n == 0 || !validSeed(name) {
			return bad("algebra", "unknown algebra "+quote(name)+", want one of "+strings.Join(AlgebraNames, ", "))
		}
		for _, w := range []struct {
			keys, what string
			v          int
		}{
			{"n_embd algebra", "n_embd", c.NEmbd}, {"hidden_dim algebra n_embd", "hidden_dim", c.HiddenDim},
			{"n_kv_head algebra n_head n_embd", "n_kv_head × head width", c.KVDim()},
		} {
			if w.v%n != 0 {
				return bad(w.keys, w.what+" = "+itoa(w.v)+" is not a multiple of "+itoa(n)+", the dimension of algebra "+strconv.Quote(name))
			}
		}
	}
	if n := len(c.MixerAlgebra); n > maxName {
		return bad("mixer_algebra", "mixer_algebra has "+itoa(n)+" bytes, want at most "+itoa(maxName))
	}
	switch c.Quantizer {
	case Classic, AbsMean, None:
	default:
		return bad("quantizer", "unknown quantizer "+quote(c.Quantizer)+", want classic, absmean or none")
	}
	if c.ActBits != 0 && c.ActBits != 8 {
		return bad("act_bits", "act_bits = "+itoa(c.ActBits)+", want 0 or 8")
	}
	if !(c.Dropout >= 0 && c.Dropout < 1) {
		return bad("dropout", "dropout = "+strconv.FormatFloat(c.Dropout, 'g', -1, 64)+", want 0 or more and under 1")
	}
	if !(c.NormEps > 0 && c.NormEps < 1) {
		return bad("norm_eps", "norm_eps = "+strconv.FormatFloat(c.NormEps, 'g', -1, 64)+", want more than 0 and under 1")
	}
	if !(c.RopeTheta >= 1 && c.RopeTheta <= maxTheta) {
		return bad("rope_theta", "rope_theta = "+strconv.FormatFloat(c.RopeTheta, 'g', -1, 64)+", want 1 to 1e12")
	}
	if c.OctonionAttention {
		n := AlgebraDim(c.MixerAlgebra)
		if n == 0 || !validSeed(c.MixerAlgebra) {
			return bad("mixer_algebra", "unknown mixer_algebra "+quote(c.MixerAlgebra)+", want one of "+strings.Join(AlgebraNames, ", "))
		}
		if c.NHead%n != 0 {
			return bad("n_head octonion_attention mixer_algebra", "the head mixer needs n_head to be a multiple of "+itoa(n)+", the dimension of "+strconv.Quote(c.MixerAlgebra)+
				"; n_head = "+itoa(c.NHead)+" (or set octonion_attention = false)")
		}
	}
	return nil
}

// validSeed reports whether what follows a colon in an algebra's name is a
// seed of the one algebra that has one.
func validSeed(name string) bool {
	base, seed, has := strings.Cut(name, ":")
	if !has {
		return true
	}
	_, err := strconv.ParseUint(seed, 10, 64)
	return base == "random" && err == nil
}

// quote quotes a value, which may come from a file, and cuts it where it is
// long.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
	}
	return strconv.Quote(s)
}

func itoa(n int) string { return strconv.Itoa(n) }
