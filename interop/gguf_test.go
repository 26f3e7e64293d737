package interop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"spinnet/arch"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// ggufKey is a key of metadata with its value.
type ggufKey struct {
	key   string
	value any
}

func ggufString8(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

// appendGGUF appends a value with its type.
func appendGGUF(b []byte, v any) []byte {
	le := binary.LittleEndian
	kind := func(k uint32) { b = le.AppendUint32(b, k) }
	switch v := v.(type) {
	case int:
		kind(ggufUint32)
		return le.AppendUint32(b, uint32(v))
	case int64:
		kind(ggufInt64)
		return le.AppendUint64(b, uint64(v))
	case bool:
		kind(ggufBool)
		if v {
			return append(b, 1)
		}
		return append(b, 0)
	case float32:
		kind(ggufFloat32)
		return le.AppendUint32(b, math.Float32bits(v))
	case string:
		kind(ggufString)
		return ggufString8(b, v)
	case []string:
		kind(ggufArray)
		kind(ggufString)
		b = le.AppendUint64(b, uint64(len(v)))
		for _, s := range v {
			b = ggufString8(b, s)
		}
		return b
	case []float32:
		kind(ggufArray)
		kind(ggufFloat32)
		b = le.AppendUint64(b, uint64(len(v)))
		for _, f := range v {
			b = le.AppendUint32(b, math.Float32bits(f))
		}
		return b
	case []int32:
		kind(ggufArray)
		kind(ggufInt32)
		b = le.AppendUint64(b, uint64(len(v)))
		for _, n := range v {
			b = le.AppendUint32(b, uint32(n))
		}
		return b
	}
	panic(fmt.Sprintf("%T", v))
}

// tinyKeys is the metadata of a model without a tokenizer.
func tinyKeys(c arch.Config) []ggufKey {
	return []ggufKey{
		{"general.architecture", "llama"}, {"general.name", "tiny"}, {"llama.context_length", c.BlockSize}, {"llama.embedding_length", c.NEmbd},
		{"llama.feed_forward_length", c.HiddenDim}, {"llama.attention.head_count", c.NHead}, {"llama.attention.head_count_kv", int64(c.NKVHead)},
		{"llama.block_count", c.NLayer}, {"llama.rope.dimension_count", c.HeadDim()}, {"llama.attention.layer_norm_rms_epsilon", float32(c.NormEps)},
	}
}

// tinyGGUF is a GGUF file with the given type of the matrices whose rows it
// suits.
func tinyGGUF(c arch.Config, version uint32, kind uint32, keys []ggufKey) []byte {
	le := binary.LittleEndian
	names := map[string]string{}
	for theirs, ours := range ggufNames {
		names[ours] = theirs
	}
	params := arch.Params(c)
	b := le.AppendUint32([]byte(ggufMagic), version)
	b = le.AppendUint64(le.AppendUint64(b, uint64(len(params))), uint64(len(keys)))
	for _, k := range keys {
		b = appendGGUF(ggufString8(b, k.key), k.value)
	}
	var data []byte
	all := tinyWeights(c)
	for _, p := range params {
		name := strings.TrimSuffix(p.Name, ".weight")
		if rest, ok := strings.CutPrefix(name, "layers."); ok {
			layer, inner, _ := strings.Cut(rest, ".")
			name = "blk." + layer + "." + names[inner]
		} else {
			name = names[name]
		}
		b = ggufString8(b, name+".weight")
		shape := storedShape(p, 2)
		b = le.AppendUint32(b, uint32(len(shape)))
		for _, d := range slices.Backward(shape) {
			b = le.AppendUint64(b, uint64(d))
		}
		kind := kind
		if len(shape) == 1 || kind == ggmlQ8_0 && shape[1]%32 != 0 {
			kind = ggmlF32
		}
		for len(data)%32 != 0 {
			data = append(data, 0)
		}
		b = le.AppendUint64(le.AppendUint32(b, kind), uint64(len(data)))
		w := all[p.Name]
		switch kind {
		case ggmlF32:
			for _, v := range w {
				data = le.AppendUint32(data, math.Float32bits(v))
			}
		case ggmlBF16:
			for _, v := range w {
				data = le.AppendUint16(data, uint16(math.Float32bits(v)>>16))
			}
		case ggmlQ8_0: // blocks of 0 … 31, halved
			for range len(w) / 32 {
				data = le.AppendUint16(data, 0x3800)
				for i := range 32 {
					data = append(data, byte(i-16))
				}
			}
		}
	}
	for len(b)%32 != 0 {
		b = append(b, 0)
	}
	return append(b, data...)
}

func TestGGUF(t *testing.T) {
	for _, version := range []uint32{2, 3} {
		m, err := readBytes(tinyGGUF(tinyDense, version, ggmlF32, tinyKeys(tinyDense)), "x")
		if err != nil {
			t.Fatal(err)
		}
		if m.Config != tinyDense || m.Meta["name"] != "tiny" {
			t.Errorf("got %+v, %v; want %+v", m.Config, m.Meta, tinyDense)
		}
		for name, want := range tinyWeights(tinyDense) {
			if got := m.Tensor(name); got == nil || !slices.Equal(got.Data, want) {
				t.Errorf("%s differs", name)
			}
		}
	}
	untied := tinyDense
	untied.UntiedOutput = true
	if m, err := readBytes(tinyGGUF(untied, 3, ggmlF32, tinyKeys(untied)), "x"); err != nil || m.Config != untied {
		t.Errorf("untied: got %+v, %v", m, err)
	}
	wide := tinyDense
	wide.NEmbd, wide.HiddenDim = 32, 64
	m, err := readBytes(tinyGGUF(wide, 3, ggmlQ8_0, tinyKeys(wide)), "x")
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range m.Tensor("layers.1.attention.wk.weight").Data {
		if want := float32(i%32-16) / 2; v != want {
			t.Fatalf("Q8_0: value %d is %v, want %v", i, v, want)
		}
	}
	m, err = readBytes(tinyGGUF(wide, 3, ggmlBF16, tinyKeys(wide)), "x")
	if err != nil {
		t.Fatal(err)
	}
	want := tinyWeights(wide)["layers.1.attention.wk.weight"]
	if rel := relL2(m.Tensor("layers.1.attention.wk.weight").Data, want); rel == 0 || rel > 1.0/128 {
		t.Errorf("BF16: relative difference %.2g", rel)
	}
}

func TestGGUFTokenizers(t *testing.T) {
	pieces, scores := tinyPieces()
	marked := slices.Clone(pieces)
	for i, p := range pieces {
		marked[i] = strings.ReplaceAll(p, " ", "▁")
	}
	gpt2 := tokenizer.GPT2()
	var tokens, some []string
	var keep []int32
	letters := map[byte]string{} // in GPT-2's way of writing
	for r, b := range plainBytes {
		letters[b] = string(r)
	}
	for id := range int32(tokenizer.EndOfText) {
		b, err := gpt2.AppendDecode(nil, id)
		if err != nil {
			t.Fatal(err)
		}
		token := ""
		for _, c := range b {
			token += letters[c]
		}
		tokens = append(tokens, token)
		if id < 256 || id%1000 == 0 {
			some, keep = append(some, token), append(keep, id)
		}
	}
	types := func(n, last int) []int32 { // normal, the last of another type
		x := slices.Repeat([]int32{1}, n)
		x[n-1] = int32(last)
		return x
	}
	var rwkvBytes []string
	for b := range 256 {
		rwkvBytes = append(rwkvBytes, fmt.Sprintf(`\x%02x`, b))
	}
	for _, c := range []struct {
		name string
		keys []ggufKey
		want spinfile.TokenizerInfo
		err  string
	}{
		{"llama", []ggufKey{{"tokenizer.ggml.model", "llama"}, {"tokenizer.ggml.tokens", marked}, {"tokenizer.ggml.scores", scores}},
			spinfile.TokenizerInfo{Kind: "llama", Pieces: pieces, Scores: scores}, ""},
		{"gpt2", []ggufKey{{"tokenizer.ggml.model", "gpt2"}, {"tokenizer.ggml.tokens", append(slices.Clone(tokens), "<|endoftext|>", "<pad>")}, {"tokenizer.ggml.token_type", append(types(50257, 3), 5)}},
			spinfile.TokenizerInfo{Kind: "gpt2"}, ""},
		{"trimmed", []ggufKey{{"tokenizer.ggml.model", "gpt2"}, {"tokenizer.ggml.tokens", append(slices.Clone(some), "<|endoftext|>")}, {"tokenizer.ggml.token_type", types(len(some)+1, 3)}},
			spinfile.TokenizerInfo{Kind: "gpt2", Keep: append(slices.Clone(keep), tokenizer.EndOfText)}, ""},
		{"characters", []ggufKey{{"tokenizer.ggml.model", "rwkv"}, {"tokenizer.ggml.tokens", []string{`\x0a`, `\x20`, "a", "<|endoftext|>"}}, {"tokenizer.ggml.token_type", []int32{1, 1, 1, 3}}},
			spinfile.TokenizerInfo{Kind: "chars", Chars: "\n a"}, ""},
		{"other characters", []ggufKey{{"tokenizer.ggml.model", "gpt2"}, {"tokenizer.ggml.tokens", []string{"Ġ", "a", "Ã©", "<unused3>"}}, {"tokenizer.ggml.token_type", []int32{1, 1, 1, 5}}},
			spinfile.TokenizerInfo{Kind: "chars", Chars: " aé"}, ""},
		{"bytes", []ggufKey{{"tokenizer.ggml.model", "rwkv"}, {"tokenizer.ggml.tokens", rwkvBytes}}, spinfile.TokenizerInfo{Kind: "bytes"}, ""},
		{"none", nil, spinfile.TokenizerInfo{}, ""},
		{"unknown", []ggufKey{{"tokenizer.ggml.model", "bert"}, {"tokenizer.ggml.tokens", []string{"a"}}}, spinfile.TokenizerInfo{}, `tokenizer.ggml.model = "bert" with 1 tokens`},
		{"other bpe", []ggufKey{{"tokenizer.ggml.model", "gpt2"}, {"tokenizer.ggml.tokens", []string{"ab", "a"}}}, spinfile.TokenizerInfo{}, "not one that is known"},
		{"no scores", []ggufKey{{"tokenizer.ggml.model", "llama"}, {"tokenizer.ggml.tokens", pieces}}, spinfile.TokenizerInfo{}, "0 numbers for 262 tokens"},
		{"bos", []ggufKey{{"tokenizer.ggml.model", "llama"}, {"tokenizer.ggml.tokens", pieces}, {"tokenizer.ggml.scores", scores}, {"tokenizer.ggml.bos_token_id", 7}}, spinfile.TokenizerInfo{}, "bos_token_id = 7"},
		{"no prefix", []ggufKey{{"tokenizer.ggml.model", "llama"}, {"tokenizer.ggml.tokens", pieces}, {"tokenizer.ggml.scores", scores}, {"tokenizer.ggml.add_space_prefix", false}}, spinfile.TokenizerInfo{}, "add_space_prefix = false"},
		{"not UTF-8", []ggufKey{{"tokenizer.ggml.model", "llama"}, {"tokenizer.ggml.tokens", []string{"a", "b", "c\xff"}}, {"tokenizer.ggml.scores", make([]float32, 3)}}, spinfile.TokenizerInfo{}, "not UTF-8"},
	} {
		config := tinyDense
		config.VocabSize = 50304
		m, err := readBytes(tinyGGUF(config, 3, ggmlF32, append(tinyKeys(config), c.keys...)), "x")
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want %q", c.name, err, c.err)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case !reflect.DeepEqual(m.Tokenizer, c.want):
			t.Errorf("%s: got kind %q, %d kept, %q, %d pieces", c.name, m.Tokenizer.Kind, len(m.Tokenizer.Keep), m.Tokenizer.Chars, len(m.Tokenizer.Pieces))
		}
	}
}

func TestGGUFBad(t *testing.T) {
	keys := tinyKeys(tinyDense)
	good := tinyGGUF(tinyDense, 3, ggmlF32, keys)
	for n := range good {
		if n > 2000 && n < len(good)-100 && n%37 != 0 {
			continue // in the data one place is like another
		}
		if _, err := readBytes(good[:n], "x.gguf"); err == nil {
			t.Fatalf("no error for the first %d bytes of %d", n, len(good))
		}
	}
	with := func(key string, v any) []byte {
		changed := slices.Clone(keys)
		i := slices.IndexFunc(changed, func(k ggufKey) bool { return k.key == key })
		if i < 0 {
			changed = append(changed, ggufKey{key, v})
		} else if changed[i].value = v; v == nil {
			changed = slices.Delete(changed, i, i+1)
		}
		return tinyGGUF(tinyDense, 3, ggmlF32, changed)
	}
	put := func(after string, at int, s string) []byte {
		b := bytes.Clone(good)
		i := bytes.Index(b, []byte(after))
		copy(b[i+len(after)+at:], s)
		return b
	}
	// padded changes a file whose tensors do not end where the next begins;
	// data is the place of the first, 48 bytes of embedding.
	padded := func(change func(b []byte, data int)) []byte {
		c := arch.Config{NEmbd: 4, HiddenDim: 4, NLayer: 1, NHead: 2, NKVHead: 1, VocabSize: 3, BlockSize: 2, Algebra: "real", Quantizer: arch.None}.WithDefaults()
		b := tinyGGUF(c, 3, ggmlF32, tinyKeys(c))
		data := bytes.LastIndex(b, []byte("output_norm.weight"))
		change(b, (data+18+4+8+4+8+31)/32*32)
		return b
	}
	const stringArray = "\x09\x00\x00\x00\x08\x00\x00\x00"
	long := with("a", []string{"x"})
	copy(long[bytes.Index(long, []byte(stringArray))+len(stringArray):], "\xff\xff\xff\xff")
	const huge = "\xff\xff\xff\xff\xff\xff\xff\x7f"
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"magic", `begins with "FUGG"`, append([]byte("FUGG"), good[4:]...)},
		{"version", "version 1, want 2 or 3", append([]byte("GGUF\x01\x00\x00\x00"), good[8:]...)},
		{"big-endian", "version 50331648", append([]byte("GGUF\x00\x00\x00\x03"), good[8:]...)},
		{"tensors", "0 dimensions", put("GGUF\x03\x00\x00\x00", 0, huge)},
		{"keys", "left", put("GGUF\x03\x00\x00\x00", 8, huge)},
		{"key length", "9223372036854775807 bytes wanted", put("GGUF\x03\x00\x00\x00", 16, huge)},
		{"value type", "a value of type 99", put("general.name", 0, "\x63")},
		{"array length", "an array of 4294967295 strings", long},
		{"architecture", `general.architecture = "bert"`, with("general.architecture", "bert")},
		{"no architecture", "general.architecture = nothing", with("general.architecture", nil)},
		{"no layers", "llama.block_count is missing", with("llama.block_count", nil)},
		{"many layers", `tensor "layers.2.attention_norm.weight": missing`, with("llama.block_count", 3)},
		{"fewer layers", "does not belong", with("llama.block_count", 1)},
		{"text for a number", "llama.block_count is not one number", with("llama.block_count", "2")},
		{"heads a layer", "is not one number", with("llama.attention.head_count", []int32{4, 4})},
		{"no heads", "n_head = 0", with("llama.attention.head_count", 0)},
		{"width", "shape [12 8], the configuration wants [16 8]", with("llama.feed_forward_length", 16)},
		{"negative", "is not one number", with("llama.attention.head_count_kv", int64(-1))},
		{"epsilon", "is no float", with("llama.attention.layer_norm_rms_epsilon", 1)},
		{"part of rotations", "rope.dimension_count = 1", with("llama.rope.dimension_count", 1)},
		{"scaled rotations", `rope.scaling.type = "linear"; only "none"`, with("llama.rope.scaling.type", "linear")},
		{"experts", "llama.expert_count = 8", with("llama.expert_count", 8)},
		{"alignment", "general.alignment = 0", with("general.alignment", 0)},
		{"odd alignment", "no multiple of", with("general.alignment", 4096)},
		{"tensor type", "data of ggml's type 12; known are f32", put("token_embd.weight", 4+16, "\x0c")},
		{"dimensions", "9 dimensions", put("token_embd.weight", 0, "\x09")},
		{"dimension", "a dimension of", put("token_embd.weight", 4, huge)},
		{"no dimension", "a dimension of 0", put("token_embd.weight", 4, "\x00")},
		{"offset", "no multiple of 32", put("token_embd.weight", 4+16+4, "\x01")},
		{"overlap", "overlaps", put("output_norm.weight", 4+8+4, "\x00\x00\x00")},
		{"beyond", "before its data belong to no tensor", put("output_norm.weight", 4+8+4, "\x00\x00\x00\x7f")},
		{"unknown tensor", "does not belong to a llama model", bytes.Replace(good, []byte("blk.0.attn_q.weight"), []byte("blk.0.attn_q.bias__"), 1)},
		{"long architecture", `general.architecture = "x\x1b\nx`, with("general.architecture", strings.Repeat("x\x1b\n", 100000))},
		{"an array for text", "general.architecture = an array of 3 strings, want", with("general.architecture", []string{"a", "b", "c"})},
		{"an array for a number", "general.alignment = an array of numbers", with("general.alignment", make([]int32, 100000))},
		{"an array for a key", "llama.expert_count = an array of numbers", with("llama.expert_count", make([]int32, 100000))},
		{"long key", "is not one number", with("llama.block_count", strings.Repeat("x", 100000))},
		{"padding of the header", "a byte of padding is 1, must be 0", padded(func(b []byte, data int) { b[data-1] = 1 })},
		{"padding", "a byte of padding is 1, must be 0", padded(func(b []byte, data int) { b[data+48] = 1 })},
		{"padding at the end", "a byte of padding is 1, must be 0", append(padded(func([]byte, int) {}), 0, 1)},
		{"trailing", "after the last tensor", append(bytes.Clone(good), make([]byte, 64)...)},
	} {
		_, err := readBytes(c.b, "x.gguf")
		if _, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want a FormatError with %q", c.name, err, c.want)
		}
	}
}

func FuzzGGUF(f *testing.F) {
	c := arch.Config{NEmbd: 4, HiddenDim: 4, NLayer: 1, NHead: 2, NKVHead: 1, VocabSize: 3, BlockSize: 2, Algebra: "real", Quantizer: arch.None}.WithDefaults()
	f.Add(tinyGGUF(c, 3, ggmlF32, append(tinyKeys(c), ggufKey{"tokenizer.ggml.model", "llama"}, ggufKey{"tokenizer.ggml.tokens", []string{"a", "b", "c"}}, ggufKey{"tokenizer.ggml.scores", make([]float32, 3)})))
	f.Add(tinyGGUF(c, 2, ggmlBF16, append(tinyKeys(c), ggufKey{"tokenizer.ggml.model", "gpt2"}, ggufKey{"tokenizer.ggml.tokens", []string{"a", "b", "c"}})))
	c.NEmbd, c.HiddenDim = 32, 32
	f.Add(tinyGGUF(c, 3, ggmlQ8_0, tinyKeys(c)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readBytes(b, "x.gguf")
		if err != nil {
			return
		}
		if err := m.Validate(); err != nil {
			t.Fatalf("a bad model was accepted: %v", err)
		}
	})
}

// An embedding in 8, 6 or 4 bits is exported as the values that it stands for,
// in q8_0 with the very integers.
func TestGGUFOfSmallEmbeddings(t *testing.T) {
	m, err := Open(seedTinyPT)
	if err != nil {
		t.Fatal(err)
	}
	for _, bits := range []int{8, 6, 4} {
		small := m.QuantizeEmbedding(bits)
		want := small.Tensor("tok_embeddings.weight").Floats()
		for kind, most := range map[string]float64{"f32": 0, "q8_0": 1.0 / 2048} {
			var b bytes.Buffer
			if err := WriteGGUF(&b, small, GGUFOptions{Embedding: kind}); err != nil {
				t.Fatal(err)
			}
			back, err := readBytes(b.Bytes(), "small.gguf")
			if err != nil {
				t.Fatal(err)
			}
			got := back.Tensor("tok_embeddings.weight").Floats()
			if rel := relL2(got, want); !(rel <= most) {
				t.Errorf("%d bits as %s: relative difference %.2g, want at most %.2g", bits, kind, rel, most)
			}
		}
	}
}

// An exported model is read back as the dense model that it stands for.
func TestGGUFRoundTrip(t *testing.T) {
	m, err := Open(seedTinyPT)
	if err != nil {
		t.Fatal(err)
	}
	ids := []int32{18, 47, 56, 57, 58, 1, 15, 47, 58, 47, 64, 43, 52}
	logits := func(m *spinfile.Model) []float32 {
		e, err := engine.New(m, engine.Options{Threads: 1, Numeric: engine.Float})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		l, err := e.NewSession().Prefill(ids)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	want := logits(m)
	for linear, most := range map[string]float64{"f32": 1e-5, "f16": 2e-3, "q8_0": 2e-2, "q4_0": 1e-1} {
		var b bytes.Buffer
		if err := WriteGGUF(&b, m, GGUFOptions{Linear: linear, Embedding: linear}); err != nil {
			t.Fatal(err)
		}
		back, err := readBytes(b.Bytes(), linear+".gguf")
		if err != nil {
			t.Errorf("%s: %v", linear, err)
			continue
		}
		if back.Config.VocabSize != 65 {
			t.Errorf("%s: a vocabulary of %d: the extra end of text is still there", linear, back.Config.VocabSize)
		}
		if !back.Tokenizer.Equal(m.Tokenizer) {
			t.Errorf("%s: tokenizer %+v", linear, back.Tokenizer)
		}
		if rel := relL2(logits(back), want); !(rel <= most) {
			t.Errorf("%s: logits: relative difference %.2g", linear, rel)
		}
	}
}
