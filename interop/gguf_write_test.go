package interop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"spinnet/algebra"
	"spinnet/arch"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// parsedGGUF is a GGUF file taken apart, its tensors as float32.
type parsedGGUF struct {
	meta    map[string]any // uint32, float32, bool, string, []string, []int32, []float32
	names   []string
	shapes  map[string][]int // the fastest first
	types   map[string]uint32
	tensors map[string][]float32
}

// parseGGUF reads what WriteGGUF writes, and panics on anything else.
func parseGGUF(b []byte) parsedGGUF {
	at := 0
	take := func(n int) []byte { at += n; return b[at-n : at] }
	u32 := func() uint32 { return binary.LittleEndian.Uint32(take(4)) }
	u64 := func() int { return int(binary.LittleEndian.Uint64(take(8))) }
	str := func() string { return string(take(u64())) }
	f := parsedGGUF{meta: map[string]any{}, shapes: map[string][]int{}, types: map[string]uint32{}, tensors: map[string][]float32{}}
	if string(take(4)) != ggufMagic || u32() != ggufVersion {
		panic("no GGUF of version 3")
	}
	tensors, pairs := u64(), u64()
	for range pairs {
		key := str()
		switch kind := u32(); kind {
		case ggufUint32:
			f.meta[key] = u32()
		case ggufFloat32:
			f.meta[key] = math.Float32frombits(u32())
		case ggufBool:
			f.meta[key] = take(1)[0] == 1
		case ggufString:
			f.meta[key] = str()
		case ggufArray:
			switch element, n := u32(), u64(); element {
			case ggufString:
				v := make([]string, n)
				for i := range v {
					v[i] = str()
				}
				f.meta[key] = v
			case ggufInt32:
				v := make([]int32, n)
				for i := range v {
					v[i] = int32(u32())
				}
				f.meta[key] = v
			case ggufFloat32:
				v := make([]float32, n)
				for i := range v {
					v[i] = math.Float32frombits(u32())
				}
				f.meta[key] = v
			default:
				panic("array of " + fmt.Sprint(element))
			}
		default:
			panic("value of type " + fmt.Sprint(kind))
		}
	}
	offsets := map[string]int{}
	for range tensors {
		name := str()
		f.names = append(f.names, name)
		for range u32() {
			f.shapes[name] = append(f.shapes[name], u64())
		}
		f.types[name], offsets[name] = u32(), u64()
	}
	data := (at + ggufAlign - 1) / ggufAlign * ggufAlign
	end := data
	for _, name := range f.names {
		if data+offsets[name] != (end+ggufAlign-1)/ggufAlign*ggufAlign {
			panic("tensor " + name + " does not follow the one before it")
		}
		n := 1
		for _, d := range f.shapes[name] {
			n *= d
		}
		t := ggufTypes[slices.IndexFunc(ggufTypes, func(t ggufType) bool { return t.id == f.types[name] })]
		end = data + offsets[name] + n/t.values*t.bytes
		f.tensors[name] = dequantize(t.id, b[data+offsets[name]:end])
	}
	if len(b) != (end+ggufAlign-1)/ggufAlign*ggufAlign {
		panic("bytes after the last tensor")
	}
	return f
}

// dequantize decodes blocks of a type.
func dequantize(id uint32, b []byte) []float32 {
	t := ggufTypeByID(id)
	v := make([]float32, len(b)/t.bytes*t.values)
	for i := 0; i*t.bytes < len(b); i++ {
		t.decode(v[i*t.values:(i+1)*t.values], b[i*t.bytes:])
	}
	return v
}

func TestGGUFTypesRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, scale := range []float32{1, 1e-3, 300, -0.02} {
		x, trits := make([]float32, 512), make([]float32, 512)
		for i := range x {
			x[i] = scale * float32(rng.NormFloat64())
			trits[i] = scale * float32(rng.IntN(3)-1)
		}
		copy(x[32:64], make([]float32, 32))
		x[3] = 4 * scale // an outlier
		for i := range ggufTypes {
			typ := &ggufTypes[i]
			if !typ.ternary {
				got := dequantize(typ.id, typ.appendRow(nil, x, 0))
				// Half a step of the block's factor, which float16 rounds (to
				// a multiple of 2⁻²⁴ where it is small).
				for j := range x {
					group := map[uint32]int{ggmlQ6_K: 16}[typ.id]
					if group == 0 {
						group = typ.values
					}
					most := float64(maxAbs(x[j/group*group : j/group*group+group]))
					steps := map[uint32]float64{ggmlF32: math.Inf(1), ggmlF16: math.Inf(1), ggmlQ8_0: 127, ggmlQ4_0: 7, ggmlQ6_K: 31}[typ.id]
					bound := most/steps/2*1.1 + most/1024 + 1.0/(1<<25)
					if typ.id == ggmlF32 {
						bound = 0
					} else if typ.id == ggmlQ6_K { // the factor of a group is itself a multiple of 1/127 of the largest
						bound += float64(maxAbs(x[j/256*256:j/256*256+256])) / 127 / 2
					}
					if err := math.Abs(float64(got[j] - x[j])); !(err <= bound) {
						t.Fatalf("%s: %g became %g, off by %.2g, want at most %.2g", typ.name, x[j], got[j], err, bound)
					}
				}
			}
			got := dequantize(typ.id, typ.appendRow(nil, trits, scale))
			within := 1.0 / 2048
			if typ.id == ggmlF32 {
				within = 0
			} else if typ.id == ggmlQ6_K || math.Abs(float64(scale)) < 0.01 { // factors below 2⁻¹⁴ have fewer bits
				within = 1.0 / 128
			}
			for j := range trits {
				if err := math.Abs(float64(got[j] - trits[j])); err > within*math.Abs(float64(scale)) {
					t.Fatalf("%s: trit %g became %g", typ.name, trits[j], got[j])
				}
			}
		}
	}
}

func TestHalfBits(t *testing.T) {
	for h := range 1 << 16 {
		v := spinfile.FromFloat16(uint16(h))
		if v-v != 0 {
			continue
		}
		if got := spinfile.ToFloat16(v); got != uint16(h) {
			t.Fatalf("%g: got %#04x, want %#04x", v, got, h)
		}
		if next := spinfile.FromFloat16(uint16(h + 1)); next-next == 0 && h&0x7FFF < 0x7BFF { // halfway to the next goes to the even one
			if got, want := spinfile.ToFloat16((v+next)/2), uint16(h+h&1); got != want {
				t.Fatalf("between %g and %g: got %#04x, want %#04x", v, next, got, want)
			}
		}
	}
	for v, want := range map[float32]uint16{1e9: 0x7C00, -1e9: 0xFC00, 65504: 0x7BFF, 65520: 0x7C00, 1e-9: 0, 3e-8: 1, math.Nextafter32(1, 0): 0x3C00} {
		if got := spinfile.ToFloat16(v); got != want {
			t.Errorf("%g: got %#04x, want %#04x", v, got, want)
		}
	}
}

// randomGGUFModel makes a model of random latents.
func randomGGUFModel(t *testing.T, c arch.Config, tok spinfile.TokenizerInfo) *spinfile.Model {
	t.Helper()
	c = c.WithDefaults()
	rng := rand.New(rand.NewPCG(3, 1))
	all := map[string][]float32{}
	for _, p := range arch.Params(c) {
		w := make([]float32, p.Len())
		for i := range w {
			w[i] = float32(rng.NormFloat64())
			if p.Kind == arch.Beta || p.Kind == arch.MixerBeta || p.Kind == arch.MixerWeight {
				w[i] *= 0.2
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

func writeGGUF(t *testing.T, m *spinfile.Model, o GGUFOptions) parsedGGUF {
	t.Helper()
	var b bytes.Buffer
	if err := WriteGGUF(&b, m, o); err != nil {
		t.Fatal(err)
	}
	return parseGGUF(b.Bytes())
}

var lettersInfo = spinfile.TokenizerInfo{Kind: "chars", Chars: "abcdefghijklmnop"}

func TestGGUFLinearLayers(t *testing.T) {
	for _, alg := range []string{"real", "complex", "quaternion", "octonion", "sedenion", "walsh", "random:3"} {
		for _, quantizer := range []string{arch.Classic, arch.AbsMean, arch.None} {
			m := randomGGUFModel(t, arch.Config{NLayer: 2, NHead: 2, NEmbd: 32, HiddenDim: 48, BlockSize: 8, VocabSize: 16,
				Algebra: alg + ",real", Quantizer: quantizer}, lettersInfo)
			f := writeGGUF(t, m, GGUFOptions{Linear: "f32"})
			w := m.Tensor("layers.0.feed_forward.up_proj.weight")
			table, err := algebra.ByName(alg)
			if err != nil {
				t.Fatal(err)
			}
			// The definition, SPEC §1.
			n, outs, ins := w.Shape[0], w.Shape[1], w.Shape[2]
			values := w.Floats()
			got := f.tensors["blk.0.ffn_up.weight"]
			for i := range n {
				for j := range n {
					for r := range outs {
						for c := range ins {
							want := float32(table.Sign[i][j]) * values[((i^j)*outs+r)*ins+c]
							if d := got[(i*outs+r)*n*ins+j*ins+c]; d != want {
								t.Fatalf("%s %s: part %d of %d, row %d, column %d: got %v, want %v", alg, quantizer, i, j, r, c, d, want)
							}
						}
					}
				}
			}
			if got, want := f.shapes["blk.0.ffn_up.weight"], []int{32, 48}; !slices.Equal(got, want) {
				t.Errorf("%s: shape %v, want %v", alg, got, want)
			}
		}
	}
}

// The mixer comes before wo: what both make of some heads' outputs is what
// the one matrix of the file makes of them.
func TestGGUFMixerInOutput(t *testing.T) {
	for _, c := range []struct {
		mixer string
		heads int
	}{{"octonion", 16}, {"quaternion", 8}, {"walsh", 8}} {
		m := randomGGUFModel(t, arch.Config{NLayer: 1, NHead: c.heads, NEmbd: 64, HiddenDim: 64, BlockSize: 8, VocabSize: 16,
			OctonionAttention: true, MixerAlgebra: c.mixer}, lettersInfo)
		for _, m := range []*spinfile.Model{m, m.Quantize()} {
			f := writeGGUF(t, m, GGUFOptions{Linear: "f32"})
			got := f.tensors["blk.0.attn_output.weight"]
			mixer, beta := m.Tensor("layers.0.attention.head_mixer.W"), m.Tensor("layers.0.attention.head_mixer.beta")
			wo, err := linearMatrix(m.Tensor("layers.0.attention.wo.weight"))
			if err != nil {
				t.Fatal(err)
			}
			table, err := algebra.ByName(c.mixer)
			if err != nil {
				t.Fatal(err)
			}
			w, hd := mixer.Floats(), mixer.Shape[1]
			rng := rand.New(rand.NewPCG(5, 5))
			x, mixed := make([]float64, 64), make([]float64, 64)
			for i := range x {
				x[i] = rng.NormFloat64()
			}
			for i := range mixed {
				group, part, e := i/hd/table.N*table.N*hd, i/hd%table.N, i%hd
				for j := range table.N {
					for c := range hd {
						mixed[i] += float64(table.Sign[part][j]) * x[group+j*hd+c] * float64(w[((part^j)*hd+c)*hd+e])
					}
				}
				mixed[i] *= float64(beta.Data[e])
			}
			row := make([]float32, 64)
			for r := range 64 {
				wo.row(row, r)
				var sum, want, size float64
				for c := range row {
					sum += float64(got[r*64+c]) * x[c]
					want += float64(row[c]) * mixed[c]
					size += math.Abs(float64(got[r*64+c]) * x[c])
				}
				if math.Abs(sum-want) > size/(1<<23) {
					t.Fatalf("%s: row %d: got %v, want %v", c.mixer, r, sum, want)
				}
			}
		}
	}
}

// A file of f32, taken for a dense model, computes what the model does: to
// float32's precision, as only the mixer is computed in another order.
func TestGGUFComputesTheSame(t *testing.T) {
	seedTiny, err := Open("../model/testdata/seed_tiny")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*spinfile.Model{
		seedTiny,
		randomGGUFModel(t, arch.Config{NLayer: 3, NHead: 16, NKVHead: 8, NEmbd: 64, HiddenDim: 96, BlockSize: 64, VocabSize: 65,
			Algebra: "walsh,sedenion,quaternion", OctonionAttention: true}, seedTiny.Tokenizer),
	} {
		f := writeGGUF(t, m, GGUFOptions{Linear: "f32", Embedding: "f32"})
		c := m.Config
		c.Algebra, c.Quantizer, c.OctonionAttention = "real", arch.None, false
		dense, err := spinfile.FromLatents(c, m.Tokenizer, func(name string) []float32 {
			layer, inner, ok := strings.Cut(strings.TrimPrefix(name, "layers."), ".")
			if strings.HasPrefix(name, "layers.") && ok {
				return f.tensors["blk."+layer+"."+llamaNames[inner]]
			}
			w := f.tensors[llamaNames[name]]
			return w[:min(len(w), c.VocabSize*c.NEmbd)] // without the end of text
		})
		if err != nil {
			t.Fatal(err)
		}
		var logits [2][]float32
		for i, m := range []*spinfile.Model{m, dense} {
			e, err := engine.New(m, engine.Options{Threads: 1, Numeric: engine.Float})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if logits[i], err = e.NewSession().Prefill([]int32{30, 27, 25, 1, 40, 64, 7, 7}); err != nil {
				t.Fatal(err)
			}
		}
		var diff, norm float64
		for i, want := range logits[0] {
			d := float64(logits[1][i] - want)
			diff += d * d
			norm += float64(want) * float64(want)
		}
		if rel := math.Sqrt(diff / norm); !(rel < 2e-6) {
			t.Errorf("%s: logits differ by %.2g", m.Config.Algebra, rel)
		} else {
			t.Logf("%s: logits within %.2g", m.Config.Algebra, rel)
		}
	}
}

func TestGGUFMetadata(t *testing.T) {
	m := randomGGUFModel(t, arch.Config{NLayer: 3, NHead: 4, NKVHead: 2, NEmbd: 64, HiddenDim: 96, BlockSize: 24, VocabSize: 20,
		Algebra: "quaternion", NormEps: 1e-5, RopeTheta: 5000, UntiedOutput: true, ActBits: 8}, lettersInfo)
	f := writeGGUF(t, m, GGUFOptions{Linear: "q8_0", Name: "a name"})
	for key, want := range map[string]any{
		"general.architecture": "llama", "general.name": "a name", "general.file_type": uint32(7),
		"llama.block_count": uint32(3), "llama.context_length": uint32(24), "llama.embedding_length": uint32(64),
		"llama.feed_forward_length": uint32(96), "llama.attention.head_count": uint32(4), "llama.attention.head_count_kv": uint32(2),
		"llama.attention.layer_norm_rms_epsilon": float32(1e-5), "llama.rope.freq_base": float32(5000),
		"llama.rope.dimension_count": uint32(16), "llama.vocab_size": uint32(20),
	} {
		if f.meta[key] != want {
			t.Errorf("%s: got %v, want %v", key, f.meta[key], want)
		}
	}
	if len(f.names) != 1+3*9+2 || f.types["output.weight"] != ggmlF16 || f.types["output_norm.weight"] != ggmlF32 {
		t.Errorf("tensors: %v %v", f.names, f.types)
	}
	var again, once bytes.Buffer
	if err := errors.Join(WriteGGUF(&once, m, GGUFOptions{}), WriteGGUF(&again, m, GGUFOptions{})); err != nil || !bytes.Equal(once.Bytes(), again.Bytes()) {
		t.Errorf("two files of one model differ (%v)", err)
	}
}

func TestGGUFFallsBack(t *testing.T) {
	m := randomGGUFModel(t, arch.Config{NLayer: 1, NHead: 8, NEmbd: 256, HiddenDim: 264, BlockSize: 8, VocabSize: 16, OctonionAttention: true}, lettersInfo)
	dense := randomGGUFModel(t, arch.Config{NLayer: 1, NHead: 8, NEmbd: 256, HiddenDim: 512, BlockSize: 8, VocabSize: 16, Algebra: "real", Quantizer: arch.None}, lettersInfo)
	for _, c := range []struct {
		m                               *spinfile.Model
		tensor, wanted, written, reason string
	}{
		{m, "blk.0.attn_q.weight", "tq2_0", "tq2_0", ""},
		{m, "blk.0.ffn_up.weight", "tq1_0", "tq1_0", ""},
		{m, "blk.0.ffn_down.weight", "tq1_0", "f16", "multiple of 32 values, these have 264"},
		{m, "blk.0.attn_output.weight", "tq2_0", "q8_0", "mixer"},
		{m, "blk.0.attn_output.weight", "q4_0", "q4_0", ""},
		{m, "token_embd.weight", "tq2_0", "q6_k", ""},
		{dense, "blk.0.attn_q.weight", "tq2_0", "q8_0", "not ternary"},
	} {
		err := WriteGGUF(&bytes.Buffer{}, c.m, GGUFOptions{Linear: c.wanted, Embedding: "q6_k", Report: func(got GGUFTensor) {
			if got.Name == c.tensor && (got.Type != c.written || !strings.Contains(got.Reason, c.reason) || (got.Reason == "") != (c.reason == "")) {
				t.Errorf("%s as %s: got %+v, want %s because %q", c.tensor, c.wanted, got, c.written, c.reason)
			}
		}})
		if err != nil {
			t.Error(err)
		}
	}
}

// An embedding that is int8 already stays what it is in q8_0.
func TestGGUFKeepsInt8(t *testing.T) {
	m := randomGGUFModel(t, arch.Config{NLayer: 1, NHead: 2, NEmbd: 64, HiddenDim: 64, BlockSize: 8, VocabSize: 16}, lettersInfo).Quantize()
	f := writeGGUF(t, m, GGUFOptions{Embedding: "q8_0"})
	e := m.Tensor("tok_embeddings.weight")
	for i, got := range f.tensors["token_embd.weight"][:len(e.Int8)] { // without the end of text
		if want := spinfile.FromFloat16(spinfile.ToFloat16(e.Scale[i/64])) * float32(e.Int8[i]); got != want {
			t.Fatalf("value %d: got %v, want %v", i, got, want)
		}
	}
}

func TestGGUFRefuses(t *testing.T) {
	small := arch.Config{NLayer: 1, NHead: 2, NEmbd: 32, HiddenDim: 32, BlockSize: 8, VocabSize: 16}
	good := func() *spinfile.Model { return randomGGUFModel(t, small, lettersInfo) }
	for _, c := range []struct {
		name, want string
		o          GGUFOptions
		change     func(m *spinfile.Model)
	}{
		{"type", `unknown GGUF type "q5_1", want one of f32, f16`, GGUFOptions{Linear: "q5_1"}, func(*spinfile.Model) {}},
		{"ternary embedding", "the embedding is not ternary", GGUFOptions{Embedding: "tq2_0"}, func(*spinfile.Model) {}},
		{"no tokenizer", `tokenizer is unknown (kind "")`, GGUFOptions{}, func(m *spinfile.Model) { m.Tokenizer = spinfile.TokenizerInfo{} }},
		{"GPT-2 in 16", "the tokenizer has 50257 tokens, the model a vocabulary of 16", GGUFOptions{}, func(m *spinfile.Model) { m.Tokenizer = spinfile.TokenizerInfo{Kind: "gpt2"} }},
		{"bytes in 16", "the tokenizer has 256 tokens, the model a vocabulary of 16", GGUFOptions{}, func(m *spinfile.Model) { m.Tokenizer = spinfile.TokenizerInfo{Kind: "bytes"} }},
		{"invalid", "missing", GGUFOptions{}, func(m *spinfile.Model) { m.Tensors = m.Tensors[:3] }},
		{"large scale", `"blk.0.attn_q.weight": the value 1e+06 is too large`, GGUFOptions{Linear: "tq2_0"}, func(m *spinfile.Model) {
			m.Tensor("layers.0.attention.wq.weight").Scale[1] = 1e6
		}},
		{"small scale", `"blk.0.attn_q.weight": a row with values of 1e-08 at most becomes 0`, GGUFOptions{Linear: "tq2_0"}, func(m *spinfile.Model) {
			m.Tensor("layers.0.attention.wq.weight").Scale[1] = 1e-8
		}},
		{"small scale in q4_0", "becomes 0", GGUFOptions{Linear: "q4_0"}, func(m *spinfile.Model) {
			m.Tensor("layers.0.attention.wq.weight").Scale[1] = 1e-7
		}},
		{"small row", `"token_embd.weight": a row with values of 1e-08`, GGUFOptions{}, func(m *spinfile.Model) {
			for i := range 32 {
				m.Tensors[0].Data[i] = 1e-8
			}
		}},
		{"small int8 row", "becomes 0", GGUFOptions{Embedding: "q8_0"}, func(m *spinfile.Model) {
			*m = *m.Quantize()
			m.Tensors[0].Scale[2] = 1e-9
		}},
		{"large value", "write f32", GGUFOptions{}, func(m *spinfile.Model) { m.Tensors[0].Data[5] = 7e4 }},
	} {
		m := good()
		c.change(m)
		if err := WriteGGUF(&bytes.Buffer{}, m, c.o); err == nil || !strings.HasPrefix(err.Error(), "interop: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	for n := 0; n < 8000; n += 500 {
		if err := WriteGGUF(&shortWriter{n}, good(), GGUFOptions{}); !errors.Is(err, errShort) {
			t.Fatalf("a writer that takes %d bytes: %v", n, err)
		}
	}
}

var errShort = errors.New("the disk is full")

// shortWriter fails after so many bytes.
type shortWriter struct{ left int }

func (w *shortWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return 0, errShort
	}
	w.left -= len(p)
	return len(p), nil
}

func TestGGUFVocabularies(t *testing.T) {
	c := arch.Config{NLayer: 1, NHead: 2, NEmbd: 8, HiddenDim: 8, BlockSize: 8, Algebra: "real"}
	tokens := func(vocab int, info spinfile.TokenizerInfo) ([]string, parsedGGUF) {
		c := c
		c.VocabSize = vocab
		f := writeGGUF(t, randomGGUFModel(t, c, info), GGUFOptions{})
		list := f.meta["tokenizer.ggml.tokens"].([]string)
		if got := f.shapes["token_embd.weight"][1]; got != len(list) {
			t.Errorf("%s: %d tokens, %d rows", info.Kind, len(list), got)
		}
		if len(slices.Compact(slices.Sorted(slices.Values(list)))) != len(list) {
			t.Errorf("%s: a token is there twice", info.Kind)
		}
		return list, f
	}
	equal := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}

	list, f := tokens(4, spinfile.TokenizerInfo{Kind: "chars", Chars: " aé\u4e16"})
	equal("characters", list, []string{"Ġ", "a", "Ã©", "ä¸ĸ", "<|endoftext|>"})
	equal("merges", f.meta["tokenizer.ggml.merges"], []string{"Ã ©", "ä ¸", "ä¸ ĸ"})
	equal("end", f.meta["tokenizer.ggml.eos_token_id"], 4)
	for i := range 8 { // of the extra token
		var sum float32
		e := f.tensors["token_embd.weight"]
		for id := range 4 {
			sum += e[8*id+i]
		}
		if math.Abs(float64(e[32+i]-sum/4)) > 2e-3 {
			t.Errorf("the extra token has %v at %d, the mean is %v", e[32+i], i, sum/4)
		}
	}

	list, f = tokens(6, spinfile.TokenizerInfo{Kind: "chars", Chars: " aé\u4e16"})
	equal("padded characters", list[4:], []string{"<|endoftext|>", "<unused5>"})
	equal("types", f.meta["tokenizer.ggml.token_type"], []int32{1, 1, 1, 1, 3, 5})

	list, f = tokens(258, spinfile.TokenizerInfo{Kind: "bytes"})
	equal("bytes", []string{list[0], list['a'], list['\\'], list[255], list[257]}, []string{`\x00`, "a", `\x5c`, `\xff`, `\xff\xfe<unused257>`})
	equal("bytes suppressed", f.meta["tokenizer.ggml.suppress_tokens"], []int32{256, 257})

	list, f = tokens(6, spinfile.TokenizerInfo{Kind: "llama", Pieces: []string{"<unk>", "\n<s>\n", "\n</s>\n", "<0x0A>", " a"}, Scores: []float32{0, 0, 0, 0, -3}})
	equal("llama", list, []string{"<unk>", "<s>", "</s>", "<0x0A>", "\u2581a", "<unused5>"})
	equal("llama types", f.meta["tokenizer.ggml.token_type"], []int32{2, 3, 3, 6, 1, 5})
	equal("llama scores", f.meta["tokenizer.ggml.scores"], []float32{0, 0, 0, 0, -3, 0})
	equal("llama ids", []any{f.meta["tokenizer.ggml.unknown_token_id"], f.meta["tokenizer.ggml.bos_token_id"], f.meta["tokenizer.ggml.eos_token_id"]}, []int{0, 1, 2})

	list, f = tokens(50304, spinfile.TokenizerInfo{Kind: "gpt2"})
	merges := f.meta["tokenizer.ggml.merges"].([]string)
	equal("GPT-2's merges", []any{len(merges), merges[:5]}, []any{50000, []string{"Ġ t", "Ġ a", "h e", "i n", "r e"}}) // as in OpenAI's vocab.bpe
	equal("GPT-2's tokens", []string{list[0], list[220], list[15496], list[tokenizer.EndOfText], list[50303]}, []string{"!", "Ġ", "Hello", "<|endoftext|>", "<unused50303>"})

	var keep []int32
	for id := range int32(256) {
		keep = append(keep, id)
	}
	keep = append(keep, 15496, tokenizer.EndOfText)
	list, f = tokens(259, spinfile.TokenizerInfo{Kind: "gpt2", Keep: keep})
	equal("trimmed", []any{list[0], list[220], list[256:]}, []any{"!", "Ġ", []string{"Hello", "<|endoftext|>", "<unused258>"}})
	equal("trimmed end", f.meta["tokenizer.ggml.eos_token_id"], 257)
}
