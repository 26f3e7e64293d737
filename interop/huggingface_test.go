package interop

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"spinnet/arch"
)

const tinyHFConfig = `{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 5, "max_position_embeddings": 6, "rms_norm_eps": 1e-5, "rope_theta": 500.0,
"hidden_act": "silu", "tie_word_embeddings": true, "rope_scaling": null, "torch_dtype": "float32"}`

var tinyHF = arch.Config{NLayer: 2, NHead: 2, NKVHead: 1, NEmbd: 8, HiddenDim: 12, BlockSize: 6, VocabSize: 5,
	Algebra: "real", Quantizer: arch.None, NormEps: 1e-5, RopeTheta: 500}.WithDefaults()

// hfTensors is a model as transformers stores it.
func hfTensors(c arch.Config) []SafeTensor {
	var ts []SafeTensor
	all := tinyWeights(c)
	theirs := map[string]string{}
	for k, v := range hfNames {
		theirs[v] = k
	}
	for _, p := range arch.Params(c) {
		name := strings.TrimSuffix(p.Name, ".weight")
		if rest, ok := strings.CutPrefix(name, "layers."); ok {
			layer, inner, _ := strings.Cut(rest, ".")
			name = "model.layers." + layer + "." + theirs[inner]
		} else {
			name = theirs[name]
		}
		w := all[p.Name]
		if strings.Contains(name, "q_proj") || strings.Contains(name, "k_proj") {
			// As transformers' conversion does: view(heads, half, 2, cols), transpose(1, 2).
			hd, cols := c.HeadDim(), p.Shape[2]
			halves := make([]float32, 0, len(w))
			for h := range p.Shape[1] / hd {
				for s := range 2 {
					for m := range hd / 2 {
						halves = append(halves, w[(h*hd+2*m+s)*cols:][:cols]...)
					}
				}
			}
			w = halves
		}
		ts = append(ts, SafeTensor{name + ".weight", storedShape(p, 2), w})
	}
	return ts
}

func TestHuggingFace(t *testing.T) {
	for _, untied := range []bool{false, true} {
		c := tinyHF
		c.UntiedOutput = untied
		dir := t.TempDir()
		var b bytes.Buffer
		ts := append(hfTensors(c), SafeTensor{"model.layers.0.self_attn.rotary_emb.inv_freq", []int{2}, []float32{1, 2}})
		if err := WriteSafetensors(&b, ts, map[string]string{"format": "pt"}); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{WeightsFile: b.Bytes(), hfConfigFile: []byte(tinyHFConfig)} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		m, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if m.Config != c {
			t.Errorf("got %+v, want %+v", m.Config, c)
		}
		for name, want := range tinyWeights(c) {
			if got := m.Tensor(name); got == nil || !slices.Equal(got.Data, want) {
				t.Errorf("untied %v: %s differs", untied, name)
			}
		}
		if err := os.Remove(filepath.Join(dir, hfConfigFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "config.json: missing") {
			t.Errorf("got %v", err)
		}
	}
}

func TestHuggingFaceConfigBad(t *testing.T) {
	for old, c := range map[string]struct{ with, want string }{
		`"model_type": "llama"`:       {`"model_type": "gpt2"`, `model_type is "gpt2"`},
		`"silu"`:                      {`"gelu"`, `hidden_act is "gelu"`},
		`"rope_scaling": null`:        {`"rope_scaling": {"rope_type": "llama3", "factor": 8}`, "rope_scaling is set"},
		`"tie_word_embeddings": true`: {`"attention_bias": true`, "bias"},
		`"hidden_size": 8`:            {`"hidden_size": 9`, "n_embd = 9"},
		`"torch_dtype": "float32"`:    {`"head_dim": 8`, "head_dim is 8"},
		`"num_hidden_layers": 2`:      {`"num_hidden_layers": 1000000`, "n_layer = 1000000"},
		`"intermediate_size": 12`:     {`"intermediate_size": 0`, "is 0"},
		`{"arch`:                      {`["arch`, "invalid"},
	} {
		text := strings.Replace(tinyHFConfig, old, c.with, 1)
		_, err := parseHFConfig("config.json", []byte(text))
		if _, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.with, err, c.want)
		}
	}
}

func FuzzHuggingFace(f *testing.F) {
	var b bytes.Buffer
	if err := WriteSafetensors(&b, hfTensors(tinyHF), nil); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(tinyHFConfig), b.Bytes())
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		c, err := parseHFConfig("config.json", config)
		if err != nil {
			return
		}
		l := &Latents{Format: FormatSafetensors, Size: int64(len(weights)), Meta: map[string]string{}, file: bytes.NewReader(weights)}
		entries, _, err := scanSafetensors(l.file, l.Size, l.fail)
		if err != nil || l.useHuggingFace(c, entries) != nil || l.check() != nil {
			return
		}
		m, err := l.Model()
		if err != nil {
			return
		}
		if err := m.Validate(); err != nil {
			t.Fatalf("a bad model was accepted: %v", err)
		}
	})
}

// What is written to one file is what was read: latents as they are, finished
// models so that they compute the same.
func TestWriteModels(t *testing.T) {
	want, err := Open(seedTinyPT)
	if err != nil {
		t.Fatal(err)
	}
	l, err := OpenLatents(seedTinyPT, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var latents, finished bytes.Buffer
	if err := WriteLatents(&latents, l); err != nil {
		t.Fatal(err)
	}
	want.Meta["val_loss"] = "1.5"
	if err := WriteModel(&finished, want); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"latents": latents.Bytes(), "finished": finished.Bytes()} {
		m, err := readBytes(b, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.Config != want.Config || !reflect.DeepEqual(m.Tensors, want.Tensors) || !m.Tokenizer.Equal(want.Tokenizer) || m.Meta["step"] != "150" {
			t.Errorf("%s: another model: %+v %v", name, m.Config, m.Meta)
		}
		if loss := m.Meta["val_loss"]; (loss == "1.5") != (name == "finished") || m.Meta["source"] != name {
			t.Errorf("%s: metadata %v", name, m.Meta)
		}
	}
	// A model of absmean becomes one of classic with the same weights.
	m, err := Open(seedTiny)
	if err != nil {
		t.Fatal(err)
	}
	m.Config.Quantizer = arch.AbsMean
	finished.Reset()
	if err := WriteModel(&finished, m); err != nil {
		t.Fatal(err)
	}
	again, err := readBytes(finished.Bytes(), "absmean")
	if err != nil {
		t.Fatal(err)
	}
	if again.Config.Quantizer != arch.Classic || !reflect.DeepEqual(again.Tensors, m.Tensors) {
		t.Error("absmean: another model")
	}
}
