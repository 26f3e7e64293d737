// Package train trains a model: the recipe, the loop, AdamW, batches and
// checkpoints.
package train

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"spinnet/arch"
	"spinnet/engine"
	"spinnet/model"
)

// Config is one training recipe: the keys of a TOML file, which are also the
// --key=value options of "spinnet train". The usage tags are the single
// description of each key; help texts and docs/training.md are made from them.
//
// A Config that LoadConfig returned is valid. It holds 0 for a key that is left
// to its rule (hidden_dim, n_kv_head, lr_decay_iters), so that the rule applies
// anew when another key changes; Resolved gives what will be used.
type Config struct {
	Dataset string `toml:"dataset" json:"dataset" usage:"prepared corpus: a name under datasets/ or the path of a folder"`
	OutDir  string `toml:"out_dir" json:"out_dir" usage:"run folder for checkpoints and metrics; empty: runs/ and the recipe's name"`
	Seed    uint64 `toml:"seed" json:"seed" usage:"seed of initialisation, batches and dropout; same seed, same weights"`
	Device  string `toml:"device" json:"device" usage:"cpu, cuda (the first GPU), cuda:N, or auto: a GPU if there is one"`
	Threads int    `toml:"threads" json:"threads" usage:"worker threads; 0: one a core. Never changes the result"`

	NLayer            int     `toml:"n_layer" json:"n_layer" usage:"transformer layers"`
	NHead             int     `toml:"n_head" json:"n_head" usage:"attention heads"`
	NKVHead           int     `toml:"n_kv_head" json:"n_kv_head" usage:"key and value heads (grouped-query attention); 0: n_head"`
	NEmbd             int     `toml:"n_embd" json:"n_embd" usage:"width d of the residual stream"`
	HiddenDim         int     `toml:"hidden_dim" json:"hidden_dim" usage:"width of the SwiGLU; 0: 8d/3 rounded up to a multiple of 128, or the original's rule with quantizer classic"`
	BlockSize         int     `toml:"block_size" json:"block_size" usage:"context length in tokens"`
	VocabSize         int     `toml:"vocab_size" json:"vocab_size" usage:"rows of the embedding; 0: the dataset's vocabulary; larger pads it"`
	Algebra           string  `toml:"algebra" json:"algebra" usage:"of the linear layers: real, complex, quaternion, octonion, sedenion, walsh, random:SEED; several with commas, at most one a layer, take turns"`
	Quantizer         string  `toml:"quantizer" json:"quantizer" usage:"of the linear layers: absmean, classic or none"`
	ActBits           int     `toml:"act_bits" json:"act_bits" usage:"bits of a linear layer's input: 8, or 0 for float"`
	OctonionAttention bool    `toml:"octonion_attention" json:"octonion_attention" usage:"head mixer after attention; n_head must be a multiple of its algebra's dimension"`
	MixerAlgebra      string  `toml:"mixer_algebra" json:"mixer_algebra" usage:"algebra of the head mixer"`
	Dropout           float64 `toml:"dropout" json:"dropout" usage:"probability of dropping an attention weight in training"`
	Init              string  `toml:"init" json:"init" usage:"initialisation: scaled or classic"`

	BatchSize     int    `toml:"batch_size" json:"batch_size" usage:"sequences in a micro-batch"`
	GradAccum     int    `toml:"gradient_accumulation_steps" json:"gradient_accumulation_steps" usage:"micro-batches averaged in one step"`
	MaxIters      int    `toml:"max_iters" json:"max_iters" usage:"steps to train"`
	Recompute     bool   `toml:"recompute" json:"recompute" usage:"recompute activations in the backward pass: less memory, same gradients"`
	SampleTokens  int    `toml:"sample_tokens" json:"sample_tokens" usage:"length of the sample printed at each evaluation; 0: none"`
	SamplePrompt  string `toml:"sample_prompt" json:"sample_prompt" usage:"text the sample continues"`
	EvalInterval  int    `toml:"eval_interval" json:"eval_interval" usage:"steps between evaluations; 0: only at the end"`
	EvalIters     int    `toml:"eval_iters" json:"eval_iters" usage:"batches in an evaluation; 0: the whole validation split"`
	LogInterval   int    `toml:"log_interval" json:"log_interval" usage:"steps between log lines"`
	CheckInterval int    `toml:"checkpoint_interval" json:"checkpoint_interval" usage:"steps between checkpoints; 0: only with evaluations and at the end"`
	KeepCheck     int    `toml:"keep_checkpoints" json:"keep_checkpoints" usage:"newest checkpoints kept, beside the best"`

	LearningRate float64 `toml:"learning_rate" json:"learning_rate" usage:"peak learning rate of AdamW"`
	MinLR        float64 `toml:"min_lr" json:"min_lr" usage:"learning rate at the end of the cosine"`
	DecayLR      bool    `toml:"decay_lr" json:"decay_lr" usage:"false: constant learning rate after the warm-up"`
	WarmupIters  int     `toml:"warmup_iters" json:"warmup_iters" usage:"steps of linear warm-up"`
	LRDecayIters int     `toml:"lr_decay_iters" json:"lr_decay_iters" usage:"step at which the cosine reaches min_lr; 0: max_iters"`
	WeightDecay  float64 `toml:"weight_decay" json:"weight_decay" usage:"decoupled weight decay of parameters with two or more dimensions"`
	Beta1        float64 `toml:"beta1" json:"beta1" usage:"AdamW's mean decay"`
	Beta2        float64 `toml:"beta2" json:"beta2" usage:"AdamW's variance decay"`
	GradClip     float64 `toml:"grad_clip" json:"grad_clip" usage:"largest gradient norm over all parameters; 0: no clipping"`

	EmbeddingLRScale    float64 `toml:"embedding_lr_scale" json:"embedding_lr_scale" usage:"multiplies the embedding's learning rate"`
	MixerLRScale        float64 `toml:"mixer_lr_scale" json:"mixer_lr_scale" usage:"multiplies the head mixers' learning rate"`
	NormLRScale         float64 `toml:"norm_lr_scale" json:"norm_lr_scale" usage:"multiplies the learning rate of norms and output scales (beta)"`
	EmbeddingDecayScale float64 `toml:"embedding_decay_scale" json:"embedding_decay_scale" usage:"multiplies the embedding's weight decay"`
	MixerDecayScale     float64 `toml:"mixer_decay_scale" json:"mixer_decay_scale" usage:"multiplies the head mixers' weight decay"`
}

// DefaultConfig holds the value of every key a recipe leaves out: our best
// general recipe at 8 layers, d 512. Only dataset has no default.
func DefaultConfig() Config {
	return Config{
		Seed: 1337, Device: "auto",
		NLayer: 8, NHead: 8, NEmbd: 512, BlockSize: 256,
		Algebra: "walsh", Quantizer: arch.AbsMean, MixerAlgebra: "octonion", Init: model.InitScaled,
		BatchSize: 32, GradAccum: 1, MaxIters: 5000, SampleTokens: 200, SamplePrompt: "\n",
		EvalInterval: 250, EvalIters: 0, LogInterval: 10, CheckInterval: 250, KeepCheck: 2,
		LearningRate: 3e-3, MinLR: 1e-5, DecayLR: true, WarmupIters: 100,
		WeightDecay: 0.1, Beta1: 0.9, Beta2: 0.95, GradClip: 1,
		EmbeddingLRScale: 1, MixerLRScale: 1, NormLRScale: 1, EmbeddingDecayScale: 1, MixerDecayScale: 1,
	}
}

// Key describes one key of a recipe.
type Key struct {
	Name    string // as in TOML and --key=value
	Type    string // "integer", "number", "true or false" or "string"
	Usage   string
	Default string // as TOML writes it
}

// Keys lists the keys of a recipe in the order of TOML.
func Keys() []Key {
	v := reflect.ValueOf(DefaultConfig())
	keys := make([]Key, v.NumField())
	for i := range keys {
		f := v.Type().Field(i)
		text := fmt.Sprint(v.Field(i).Interface())
		if f.Type.Kind() == reflect.String {
			text = strconv.Quote(text)
		}
		keys[i] = Key{f.Tag.Get("toml"), typeName(f.Type.Kind()), f.Tag.Get("usage"), text}
	}
	return keys
}

func typeName(k reflect.Kind) string {
	switch k {
	case reflect.Int, reflect.Uint64:
		return "integer"
	case reflect.Float64:
		return "number"
	case reflect.Bool:
		return "true or false"
	}
	return "string"
}

// fieldByKey gives the field index of a key, or −1.
func fieldByKey(key string) int {
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("toml") == key {
			return i
		}
	}
	return -1
}

// ConfigError is a mistake in a recipe or an override.
type ConfigError struct {
	Where  string   // "file.toml:12", "file.toml" or "--key=value"
	Keys   []string // at fault, the likeliest first; none when it is no key's
	Reason string
	Near   string // nearest valid key for an unknown one, else ""
}

// Error is one line: where, what, and the nearest valid key.
func (e *ConfigError) Error() string {
	s := e.Reason
	if e.Where != "" {
		s = e.Where + ": " + s
	}
	if e.Near != "" {
		s += fmt.Sprintf("; did you mean %q?", e.Near)
	}
	return strings.Map(func(r rune) rune { // a quoted piece of the file may hold anything
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}

// LoadConfig reads a recipe strictly. path names data in errors and, without
// its extension, gives the default out_dir; overrides are "key=value" with or
// without leading dashes, applied in order. Every mistake is a *ConfigError.
func LoadConfig(path string, data []byte, overrides []string) (Config, error) {
	c := DefaultConfig()
	d := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Config{}, tomlError(path, data, err)
	}
	from := map[string]string{} // key → the override that set it last
	for _, o := range overrides {
		key, err := c.override(o)
		if err != nil {
			return Config{}, err
		}
		from[key] = o
	}
	if c.OutDir == "" {
		name := filepath.Base(path)
		c.OutDir = filepath.Join("runs", strings.TrimSuffix(name, filepath.Ext(name)))
	}
	err := c.Validate()
	if ce, ok := errors.AsType[*ConfigError](err); ok {
		ce.Where = placeOf(ce.Keys, path, data, from)
	}
	if err != nil {
		return Config{}, err
	}
	return c, nil
}

// placeOf is where the first of the keys that was set at all was set last: an
// override, a line of the file, or the file alone.
func placeOf(keys []string, path string, data []byte, from map[string]string) string {
	for _, k := range keys {
		if o := from[k]; o != "" {
			return "--" + strings.TrimLeft(o, "-")
		}
	}
	for _, k := range keys {
		if line := keyLine(data, k); line > 0 {
			return fmt.Sprintf("%s:%d", path, line)
		}
	}
	return path
}

// tomlError turns the decoder's errors into ours: file, line, key, and what
// would be right.
func tomlError(path string, data []byte, err error) error {
	if missing, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		first := &missing.Errors[0]
		line, _ := first.Position()
		e := unknownKey(fmt.Sprintf("%s:%d", path, line), strings.Join(first.Key(), "."))
		if text := slices.Collect(bytes.Lines(data))[line-1]; bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
			e.Reason, e.Near = e.Reason+": a recipe has no tables, only keys", ""
		}
		return e
	}
	bad, ok := errors.AsType[*toml.DecodeError](err)
	if !ok {
		return &ConfigError{Where: path, Reason: strings.TrimPrefix(err.Error(), "toml: ")}
	}
	line, _ := bad.Position()
	where := fmt.Sprintf("%s:%d", path, line)
	key := strings.Join(bad.Key(), ".")
	if i := fieldByKey(key); i >= 0 && strings.Contains(bad.Error(), "cannot") {
		return &ConfigError{Where: where, Keys: []string{key}, Reason: fmt.Sprintf("%s: wrong type, want %s", key, typeWanted(i))}
	}
	return &ConfigError{Where: where, Keys: []string{key}, Reason: strings.TrimPrefix(bad.Error(), "toml: ")}
}

// unknownKey is the error for a key that there is not.
func unknownKey(where, key string) *ConfigError {
	e := &ConfigError{Where: where, Keys: []string{key}, Reason: fmt.Sprintf("unknown key %q", key)}
	switch name, _, _ := strings.Cut(key, "."); name {
	case "bias": // a key of the original, which took only false
		e.Reason += ": no layer has a bias; leave it out"
	default:
		e.Near = nearestKey(key)
	}
	return e
}

// typeWanted says what a key takes, with its article and an example.
func typeWanted(field int) string {
	t := reflect.TypeFor[Config]().Field(field)
	switch t.Type.Kind() {
	case reflect.Int:
		return "an integer such as " + t.Tag.Get("toml") + " = 4"
	case reflect.Uint64:
		return "an integer, 0 or more"
	case reflect.Float64:
		return "a number such as " + t.Tag.Get("toml") + " = 0.1"
	case reflect.Bool:
		return "true or false"
	}
	return `a quoted string such as ` + t.Tag.Get("toml") + ` = "…"`
}

// override applies one "key=value" and returns its key.
func (c *Config) override(o string) (string, error) {
	name, value, ok := strings.Cut(strings.TrimLeft(o, "-"), "=")
	key := strings.ReplaceAll(name, "-", "_")
	where := "--" + strings.TrimLeft(o, "-")
	field := fieldByKey(key)
	if field < 0 {
		return "", unknownKey(where, key)
	}
	if !ok {
		return "", &ConfigError{Where: where, Keys: []string{key}, Reason: fmt.Sprintf("no value, want --%s=VALUE", key)}
	}
	v := reflect.ValueOf(c).Elem().Field(field)
	var err error
	switch v.Kind() {
	case reflect.Int:
		var n int64
		n, err = strconv.ParseInt(value, 10, strconv.IntSize)
		v.SetInt(n)
	case reflect.Uint64:
		var n uint64
		n, err = strconv.ParseUint(value, 10, 63) // TOML's integers are signed
		v.SetUint(n)
	case reflect.Float64:
		var f float64
		f, err = strconv.ParseFloat(value, 64)
		v.SetFloat(f)
	case reflect.Bool:
		var b bool
		b, err = strconv.ParseBool(value)
		v.SetBool(b)
	default:
		v.SetString(value)
	}
	if err != nil {
		want, _, _ := strings.Cut(typeWanted(field), " such as ")
		reason := "wrong type"
		if errors.Is(err, strconv.ErrRange) {
			reason = "out of range"
		}
		return "", &ConfigError{Where: where, Keys: []string{key}, Reason: fmt.Sprintf("%s: %s, want %s", key, reason, want)}
	}
	return key, nil
}

// Resolved is c with the rules of hidden_dim, n_kv_head and lr_decay_iters
// applied where the keys are 0.
func (c Config) Resolved() Config {
	if c.NKVHead == 0 {
		c.NKVHead = c.NHead
	}
	if c.HiddenDim == 0 && c.NEmbd > 0 && c.NEmbd <= 1<<24 {
		if c.Quantizer == arch.Classic {
			c.HiddenDim = arch.ClassicHidden(c.NEmbd)
		} else { // sixteen float32 lanes in each of eight parts
			c.HiddenDim = ((8*c.NEmbd+2)/3 + 127) / 128 * 128
		}
	}
	if c.LRDecayIters == 0 {
		c.LRDecayIters = c.MaxIters
	}
	return c
}

// Validate checks the ranges of a configuration, with its rules applied. The
// error is a *ConfigError that names the key, its value and what is allowed.
func (c Config) Validate() error {
	c = c.Resolved()
	bad := func(key, format string, args ...any) *ConfigError {
		return &ConfigError{Keys: []string{key}, Reason: key + fmt.Sprintf(format, args...)}
	}
	if c.Dataset == "" {
		return &ConfigError{Keys: []string{"dataset"}, Reason: `no dataset; set dataset = "tinyshakespeare", another name under datasets/, or a path`}
	}
	const many = math.MaxInt32
	for _, k := range []struct {
		key         string
		v           int
		least, most int
	}{
		{"n_layer", c.NLayer, 1, 1 << 12}, {"n_head", c.NHead, 1, 1 << 20}, {"n_kv_head", c.NKVHead, 1, 1 << 20},
		{"n_embd", c.NEmbd, 1, 1 << 20}, {"hidden_dim", c.HiddenDim, 1, 1 << 20}, {"block_size", c.BlockSize, 1, 1 << 24},
		{"vocab_size", c.VocabSize, 0, 1 << 24}, {"threads", c.Threads, 0, engine.MaxThreads},
		{"batch_size", c.BatchSize, 1, 1 << 20}, {"gradient_accumulation_steps", c.GradAccum, 1, 1 << 20},
		{"max_iters", c.MaxIters, 1, many}, {"sample_tokens", c.SampleTokens, 0, 1 << 20},
		{"eval_interval", c.EvalInterval, 0, many}, {"eval_iters", c.EvalIters, 0, many},
		{"log_interval", c.LogInterval, 1, many}, {"checkpoint_interval", c.CheckInterval, 0, many},
		{"keep_checkpoints", c.KeepCheck, 1, 1 << 20}, {"warmup_iters", c.WarmupIters, 0, many},
		{"lr_decay_iters", c.LRDecayIters, 1, many},
	} {
		if k.v < k.least || k.v > k.most {
			return bad(k.key, " = %d, want %d to %d", k.v, k.least, k.most)
		}
	}
	if c.BatchSize > many/c.BlockSize {
		e := bad("batch_size", " × block_size = %d × %d tokens in a micro-batch, want at most %d; raise gradient_accumulation_steps instead", c.BatchSize, c.BlockSize, many)
		e.Keys = append(e.Keys, "block_size")
		return e
	}
	if !(c.LearningRate > 0 && c.LearningRate <= 1000) {
		return bad("learning_rate", " = %v, want more than 0 and at most 1000", c.LearningRate)
	}
	if !(c.MinLR >= 0 && c.MinLR <= c.LearningRate) {
		e := bad("min_lr", " = %v, want 0 to learning_rate = %v", c.MinLR, c.LearningRate)
		e.Keys = append(e.Keys, "learning_rate")
		return e
	}
	for _, k := range []struct {
		key  string
		v    float64
		most float64
	}{
		{"weight_decay", c.WeightDecay, 1000}, {"grad_clip", c.GradClip, math.MaxFloat32},
		{"embedding_lr_scale", c.EmbeddingLRScale, 1000}, {"mixer_lr_scale", c.MixerLRScale, 1000},
		{"norm_lr_scale", c.NormLRScale, 1000}, {"embedding_decay_scale", c.EmbeddingDecayScale, 1000},
		{"mixer_decay_scale", c.MixerDecayScale, 1000},
	} {
		if !(k.v >= 0 && k.v <= k.most) {
			return bad(k.key, " = %v, want 0 to %v", k.v, k.most)
		}
	}
	for _, k := range []struct {
		key string
		v   float64
	}{{"beta1", c.Beta1}, {"beta2", c.Beta2}, {"dropout", c.Dropout}} {
		if !(k.v >= 0 && k.v < 1) {
			return bad(k.key, " = %v, want 0 or more and under 1", k.v)
		}
	}
	for _, k := range []struct {
		key, v  string
		allowed []string
	}{
		{"quantizer", c.Quantizer, []string{arch.AbsMean, arch.Classic, arch.None}},
		{"init", c.Init, []string{model.InitScaled, model.InitClassic}},
	} {
		if !slices.Contains(k.allowed, k.v) {
			return bad(k.key, " = %q, want %s", k.v, strings.Join(k.allowed, " or "))
		}
	}
	if _, ok := GPUNumber(c.Device); !ok && c.Device != "auto" && c.Device != "cpu" {
		return bad("device", " = %q, want auto, cpu, cuda or cuda:N", c.Device)
	}
	if c.ActBits != 0 && c.ActBits != 8 {
		return bad("act_bits", " = %d, want 0 or 8", c.ActBits)
	}
	vocab := max(c.VocabSize, 1) // the dataset's, not known here, has no bearing on the rest
	err := c.Arch(vocab).Validate()
	if e, ok := errors.AsType[*arch.ConfigError](err); ok {
		return &ConfigError{Keys: e.Keys, Reason: e.Reason}
	}
	return err
}

// Arch is the model this recipe trains on a dataset of the given vocabulary.
// A vocab_size in the recipe wins; that it covers the dataset is the
// trainer's check.
func (c Config) Arch(vocab int) arch.Config {
	c = c.Resolved()
	if c.VocabSize > 0 {
		vocab = c.VocabSize
	}
	return arch.Config{
		NLayer: c.NLayer, NHead: c.NHead, NKVHead: c.NKVHead, NEmbd: c.NEmbd, HiddenDim: c.HiddenDim,
		BlockSize: c.BlockSize, VocabSize: vocab, Algebra: c.Algebra, Quantizer: c.Quantizer, ActBits: c.ActBits,
		OctonionAttention: c.OctonionAttention, MixerAlgebra: c.MixerAlgebra, Dropout: c.Dropout,
	}.WithDefaults()
}

// DatasetDir is the folder of the dataset: datasets/NAME for a bare name,
// else the path itself.
func (c Config) DatasetDir() string {
	if strings.ContainsAny(c.Dataset, `/\`) || c.Dataset == "." || c.Dataset == ".." {
		return c.Dataset
	}
	return filepath.Join("datasets", c.Dataset)
}

// TokensPerStep is batch_size × block_size × gradient_accumulation_steps.
func (c Config) TokensPerStep() int { return c.BatchSize * c.BlockSize * c.GradAccum }

// LRAt is the learning rate of step it (from 0), before a group's scale:
// linear warm-up lr·(it+1)/(warmup+1), then a cosine from lr to min_lr that
// ends at lr_decay_iters, min_lr afterwards (SPEC §3).
func (c Config) LRAt(it int) float64 {
	c = c.Resolved()
	switch {
	case it < c.WarmupIters:
		return c.LearningRate * float64(it+1) / float64(c.WarmupIters+1)
	case !c.DecayLR:
		return c.LearningRate
	case it >= c.LRDecayIters:
		return c.MinLR
	}
	x := float64(it-c.WarmupIters) / float64(c.LRDecayIters-c.WarmupIters)
	return c.MinLR + 0.5*(1+math.Cos(math.Pi*x))*(c.LearningRate-c.MinLR)
}

// Group gives what AdamW uses for one parameter: the factor of the learning
// rate and the weight decay (0 for parameters of one dimension).
func (c Config) Group(p arch.Param) (lrScale, decay float64) {
	lrScale, decay = 1, c.WeightDecay
	switch p.Kind {
	case arch.Embedding:
		lrScale, decay = c.EmbeddingLRScale, decay*c.EmbeddingDecayScale
	case arch.MixerWeight:
		lrScale, decay = c.MixerLRScale, decay*c.MixerDecayScale
	case arch.MixerBeta:
		lrScale = c.MixerLRScale
	case arch.Norm, arch.Beta:
		lrScale = c.NormLRScale
	}
	if !p.Decayed() {
		decay = 0
	}
	return lrScale, decay
}

// TOML is the configuration as a recipe with every key in a fixed order;
// LoadConfig reads it back to an equal Config.
func (c Config) TOML() string {
	text, err := toml.Marshal(c)
	if err != nil {
		panic("train: config does not marshal: " + err.Error()) // flat struct of plain fields
	}
	return string(text)
}

// keyLine is the 1-based line that sets a key, or 0.
func keyLine(data []byte, key string) int {
	if key == "" {
		return 0
	}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		name, _, ok := bytes.Cut(line, []byte("="))
		if ok && strings.Trim(string(bytes.TrimSpace(name)), `"'`) == key {
			return n
		}
	}
	return 0
}

// nearestKey is the valid key with the smallest edit distance to name, or ""
// when none is near enough to be what was meant. To have name in it is as near
// as two edits.
func nearestKey(name string) string {
	if len(name) < 2 || len(name) > 64 {
		return ""
	}
	best, at := "", max(2, len(name)*3/5)+1
	for _, k := range Keys() {
		d := EditDistance(name, k.Name)
		if strings.Contains(k.Name, name) {
			d = min(d, 2)
		}
		if d < at {
			best, at = k.Name, d
		}
	}
	return best
}

// EditDistance is Levenshtein's, in bytes: insertions, deletions and
// substitutions that turn a into b.
func EditDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diag+cost)
		}
	}
	return row[len(b)]
}

// GPUNumber is N, from 0, of a device cuda:N, 0 of cuda; ok is false for other names.
func GPUNumber(device string) (n int, ok bool) {
	digits, ok := strings.CutPrefix(device, "cuda:")
	if !ok {
		return 0, device == "cuda"
	}
	v, err := strconv.ParseUint(digits, 10, 31) // which takes no sign
	return int(v), err == nil
}
