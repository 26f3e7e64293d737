package spinfile

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"spinnet/arch"
)

func readSeedTiny(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/seed_tiny.spinnet")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The original's own file survives both formats byte for byte.
func TestSeedTiny(t *testing.T) {
	want := readSeedTiny(t)
	m, err := Decode(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	got, err := Encode4(m)
	if err != nil {
		t.Fatal(err)
	}
	diffBytes(t, "4 → 4", got, want)
	five, _, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = Decode(five); err != nil {
		t.Fatal(err)
	}
	if got, err = Encode4(m); err != nil {
		t.Fatal(err)
	}
	diffBytes(t, "4 → 5 → 4", got, want)
	three := slices.Clone(want)
	three[4] = 3
	if _, err := Decode(three); err != nil {
		t.Errorf("version 3: %v", err)
	}
}

func diffBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("%s: %d bytes, want %d; the first difference is at %d: %#x, want %#x", what, len(got), len(want), i, got[i], want[i])
			return
		}
	}
	t.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
}

// samples are models of every kind that version 5 holds.
func samples(t testing.TB) map[string]*Model {
	t.Helper()
	all := map[string]*Model{}
	add := func(name string, change func(c *arch.Config), tok TokenizerInfo, meta map[string]string) {
		c := tiny
		change(&c)
		m, err := FromLatents(c, tok, func(name string) []float32 { return randomLatents(c)[name] })
		if err != nil {
			t.Fatal(err)
		}
		if meta != nil {
			m.Meta = meta
		}
		all[name] = m
	}
	chars := TokenizerInfo{Kind: "chars", Chars: "aé😀"}
	meta := map[string]string{"step": "3000", "val_loss": "1.66", "note": "a b\n"}
	add("classic", func(*arch.Config) {}, chars, meta)
	add("absmean", func(c *arch.Config) { c.Quantizer = arch.AbsMean; c.ActBits = 8; c.Dropout = 0.1 }, chars, nil)
	add("none", func(c *arch.Config) { c.Quantizer = arch.None; c.Algebra = "real" }, TokenizerInfo{Kind: "llama", Pieces: []string{"", "\xff", "ab"}, Scores: []float32{0, -1, 2.5}}, nil)
	add("mixed", func(c *arch.Config) {
		c.Algebra = "walsh,octonion"
		c.NKVHead = 8
		c.OctonionAttention = false
		c.VocabSize = 256
	}, TokenizerInfo{Kind: "bytes"}, nil)
	add("grouped", func(c *arch.Config) { c.Algebra = "complex"; c.NKVHead = 4; c.VocabSize = 300 }, TokenizerInfo{Kind: "gpt2", Keep: keptBytes(300, 50256)}, nil)
	add("untied", func(c *arch.Config) { c.UntiedOutput = true; c.NormEps = 1e-5; c.RopeTheta = 5e5; c.NEmbd = 48 }, TokenizerInfo{}, nil)
	for _, name := range []string{"classic", "untied"} {
		all[name+" int8"] = all[name].Quantize()
		all[name+" q6"] = all[name].QuantizeEmbedding(6).Quantize()
		all[name+" q4"] = all[name].QuantizeEmbedding(4)
	}
	return all
}

// randomLatents gives every parameter of c values that fit float16.
func randomLatents(c arch.Config) map[string][]float32 {
	r := rand.New(rand.NewPCG(1, 2))
	all := map[string][]float32{}
	for _, p := range arch.Params(c.WithDefaults()) {
		w := make([]float32, p.Len())
		for i := range w {
			w[i] = FromFloat16(ToFloat16(float32(r.NormFloat64())))
		}
		all[p.Name] = w
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	for name, m := range samples(t) {
		t.Run(name, func(t *testing.T) {
			m.Meta["source"] = "somewhere"
			b, report, err := Encode(m)
			if err != nil {
				t.Fatal(err)
			}
			delete(m.Meta, "source")
			if report.Total != len(b) || len(report.Tensors) != len(m.Tensors) {
				t.Errorf("the report says %d bytes and %d tensors of %d and %d", report.Total, len(report.Tensors), len(b), len(m.Tensors))
			}
			got, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if err := got.Validate(); err != nil {
				t.Fatal(err)
			}
			sameModel(t, got, m)
			again, _, err := Encode(got)
			if err != nil {
				t.Fatal(err)
			}
			diffBytes(t, "encoded again", again, b)
		})
	}
}

func sameModel(t *testing.T, got, want *Model) {
	t.Helper()
	if got.Config != want.Config {
		t.Errorf("configuration %+v, want %+v", got.Config, want.Config)
	}
	if !got.Tokenizer.Equal(want.Tokenizer) {
		t.Errorf("tokenizer %+v, want %+v", got.Tokenizer, want.Tokenizer)
	}
	if !reflect.DeepEqual(got.Meta, want.Meta) {
		t.Errorf("metadata %v, want %v", got.Meta, want.Meta)
	}
	if len(got.Tensors) != len(want.Tensors) {
		t.Fatalf("%d tensors, want %d", len(got.Tensors), len(want.Tensors))
	}
	for i := range want.Tensors {
		if !reflect.DeepEqual(got.Tensors[i], want.Tensors[i]) {
			t.Fatalf("tensor %s differs:\n%v\nwant\n%v", want.Tensors[i].Name, got.Tensors[i], want.Tensors[i])
		}
	}
}

// Embeddings in integers lie in the file's memory.
func TestInPlace(t *testing.T) {
	for _, name := range []string{"int8", "q6", "q4"} {
		b, _, err := Encode(samples(t)["classic "+name])
		if err != nil {
			t.Fatal(err)
		}
		m, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		e := &m.Tensors[0]
		for i, part := range [][]byte{asBytes(e.Int8), e.Packed, e.Groups} {
			if len(part) == 0 {
				continue
			}
			at := bytes.Index(b, part)
			if i < 2 && at%align != 0 {
				t.Errorf("%s: the embedding is at %d, want a multiple of %d", name, at, align)
			}
			was := part[0]
			if b[at] ^= 1; part[0] == was {
				t.Errorf("%s: the embedding was copied", name)
			}
		}
	}
}

// Whatever is cut off or changed in a file, it is refused, with a typed error.
func TestDamage(t *testing.T) {
	five, _, err := Encode(samples(t)["classic q4"])
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name string
		data []byte
		flip bool // every bit counts: version 4 has no checksums
		step int
	}{{"version 5", five, true, 1}, {"version 4", readSeedTiny(t), false, 13}} {
		t.Run(f.name, func(t *testing.T) {
			for n := range f.data {
				checkCorrupt(t, f.data[:n:n])
			}
			checkCorrupt(t, append(slices.Clone(f.data), 0))
			step := f.step
			if testing.Short() {
				step *= 7
			}
			for i := 0; i < 8*len(f.data); i += step {
				b := slices.Clone(f.data)
				b[i/8] ^= 1 << (i % 8)
				if m, err := Decode(b); err == nil && f.flip {
					t.Fatalf("bit %d of byte %d changed, and the file was read", i%8, i/8)
				} else if err == nil {
					if err := m.Validate(); err != nil {
						t.Fatalf("bit %d of byte %d: %v", i%8, i/8, err)
					}
				}
			}
		})
	}
}

func checkCorrupt(t *testing.T, b []byte) {
	t.Helper()
	_, err := Decode(b)
	if _, ok := errors.AsType[*CorruptError](err); !ok {
		t.Fatalf("%d bytes: got %v, want a CorruptError", len(b), err)
	}
}

// Encode4 names what version 4 has no place for.
func TestRefused4(t *testing.T) {
	base := tiny
	base.HiddenDim = 0
	for _, c := range []struct {
		want   string
		change func(c *arch.Config, tok *TokenizerInfo)
	}{
		{"", func(*arch.Config, *TokenizerInfo) {}},
		{"", func(c *arch.Config, _ *TokenizerInfo) { c.UntiedOutput = true; c.Quantizer = arch.AbsMean }},
		{`algebra = "walsh"`, func(c *arch.Config, _ *TokenizerInfo) { c.Algebra = "walsh" }},
		{`algebra = "octonion,walsh"`, func(c *arch.Config, _ *TokenizerInfo) { c.Algebra = "octonion,walsh" }},
		{"n_kv_head = 4", func(c *arch.Config, _ *TokenizerInfo) { c.NKVHead = 4 }},
		{"quantizer = none", func(c *arch.Config, _ *TokenizerInfo) { c.Quantizer = arch.None }},
		{"hidden_dim = 64", func(c *arch.Config, _ *TokenizerInfo) { c.HiddenDim = 64 }},
		{"act_bits = 8", func(c *arch.Config, _ *TokenizerInfo) { c.ActBits = 8 }},
		{`mixer_algebra = "walsh"`, func(c *arch.Config, _ *TokenizerInfo) { c.MixerAlgebra = "walsh" }},
		{"norm_eps = 1e-05", func(c *arch.Config, _ *TokenizerInfo) { c.NormEps = 1e-5 }},
		{"rope_theta = 500000", func(c *arch.Config, _ *TokenizerInfo) { c.RopeTheta = 5e5 }},
		{"a trimmed vocabulary", func(c *arch.Config, tok *TokenizerInfo) {
			c.VocabSize, *tok = 256, TokenizerInfo{Kind: "gpt2", Keep: keptBytes()}
		}},
		{"a llama tokenizer", func(_ *arch.Config, tok *TokenizerInfo) {
			*tok = TokenizerInfo{Kind: "llama", Pieces: make([]string, 3), Scores: make([]float32, 3)}
		}},
	} {
		conf, tok := base, TokenizerInfo{}
		c.change(&conf, &tok)
		if conf.NEmbd = 16; conf.NKVHead == 4 {
			conf.NEmbd = 32
		}
		all := randomLatents(conf)
		m, err := FromLatents(conf, tok, func(n string) []float32 { return all[n] })
		if err != nil {
			t.Fatal(err)
		}
		b, err := Encode4(m)
		if c.want == "" {
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			for i := range m.Tensors {
				if m.Tensors[i].Trits != nil && !slices.Equal(m.Tensors[i].Trits, got.Tensors[i].Trits) {
					t.Errorf("%s: the trits changed", m.Tensors[i].Name)
				}
			}
		} else if err == nil || !strings.Contains(err.Error(), "version 4 cannot hold "+c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	m := samples(t)["classic"]
	m.Tensors[2].Scale[0] = 1e6
	m.Config.HiddenDim = arch.ClassicHidden(m.Config.NEmbd)
	if _, err := Encode4(m); err == nil {
		t.Error("a scale of 1e6 was written as float16")
	}
}

func TestPythonFloat(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.0", 0.1: "0.1", 0.25: "0.25", 1: "1.0", 1e-5: "1e-05", 0.0001: "0.0001", 1.5e-7: "1.5e-07",
		1e15: "1000000000000000.0", 1e16: "1e+16", 1.0 / 3: "0.3333333333333333", 5e-324: "5e-324",
	} {
		if got := pythonFloat(v); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// The JSON header of version 4: what is read and what is not.
func TestHeader4(t *testing.T) {
	const good = `{"n_layer": 2, "n_head": 8, "n_embd": 64, "block_size": 64, "bias": false, "vocab_size": 65, "dropout": 0.0, "octonion_attention": true}`
	for _, c := range []struct{ in, want string }{
		{good, ""},
		{" {\n\"n_layer\":2 , \"n_head\":8,\"n_embd\":64,\"block_size\":64,\"vocab_size\":65}\t", ""},
		{strings.Replace(good, "0.0", "1e-1", 1), ""},
		{strings.Replace(good, "0.0", "0", 1), ""},
		{strings.Replace(good, `"bias": false`, `"bias": true`, 1), "biases"},
		{strings.Replace(good, "0.0", "null", 1), "dropout = null"},
		{strings.Replace(good, "0.0", "01", 1), "want a number"},
		{strings.Replace(good, "0.0", "1.", 1), "does not parse"},
		{strings.Replace(good, "0.0", "1e999", 1), "does not parse"},
		{strings.Replace(good, "0.0", "1", 1), "dropout = 1"},
		{strings.Replace(good, "0.0", "[0]", 1), "want a number"},
		{strings.Replace(good, "65", "6.5e1", 1), "whole number"},
		{strings.Replace(good, "65", "-65", 1), "whole number"},
		{strings.Replace(good, "65", "99999999999", 1), "whole number"},
		{strings.Replace(good, "vocab_size", "n_vocab", 1), "n_vocab = 65: unknown key"},
		{strings.Replace(good, "vocab_size", "n_layer", 1), "n_layer = 65: twice"},
		{strings.Replace(good, "vocab_size", `vocab\u005fsize`, 1), "plain text"},
		{strings.Replace(good, `"n_head": 8, `, "", 1), "n_head is missing"},
		{strings.Replace(good, `"n_head": 8`, `"n_head": 7`, 1), "not a multiple"},
		{good[:len(good)-1], "want '}'"},
		{good + "x", "after the JSON object"},
		{"{}", "n_layer is missing"},
		{"", "want '{'"},
	} {
		_, err := header4([]byte(c.in), 0, len(c.in))
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.in, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.in, err, c.want)
		}
	}
}

// Every float16, and what is near it, half to even.
func TestFloat16(t *testing.T) {
	for h := range 1 << 16 {
		v := FromFloat16(uint16(h))
		exponent, fraction := h>>10&31, float64(h&1023)
		want := math.Ldexp(fraction/1024, -14)
		switch exponent {
		case 0:
		case 31:
			want = math.Inf(1)
			if fraction != 0 {
				want = math.NaN()
			}
		default:
			want = math.Ldexp(1+fraction/1024, exponent-15)
		}
		if h>>15 != 0 {
			want = -want
		}
		if float64(v) != want && !(v != v && want != want) || math.Signbit(float64(v)) != (h>>15 != 0) {
			t.Fatalf("%#04x is %v, want %v", h, v, want)
		}
		if v != v {
			continue
		}
		if got := ToFloat16(v); got != uint16(h) {
			t.Fatalf("%v is %#04x, want %#04x", v, got, h)
		}
		if exponent == 31 {
			continue
		}
		// The middle between h and the next one away from zero.
		next := FromFloat16(uint16(h + 1))
		if exponent == 30 && fraction == 1023 {
			next = float32(math.Copysign(65536, want))
		}
		middle := v + (next-v)/2
		even := uint16(h + h&1)
		for _, c := range []struct {
			v    float32
			want uint16
		}{
			{middle, even},
			{math.Nextafter32(middle, v), uint16(h)},
			{math.Nextafter32(middle, next), uint16(h + 1)},
		} {
			if got := ToFloat16(c.v); got != c.want {
				t.Fatalf("%v, near %#04x, is %#04x, want %#04x", c.v, h, got, c.want)
			}
		}
	}
	for _, c := range []struct {
		v    float32
		want uint16
	}{{65519, 0x7bff}, {65520, 0x7c00}, {1e30, 0x7c00}, {-1e30, 0xfc00}, {1e-30, 0}, {-1e-30, 0x8000}} {
		if got := ToFloat16(c.v); got != c.want {
			t.Errorf("%v is %#04x, want %#04x", c.v, got, c.want)
		}
	}
	if ToFloat16(float32(math.NaN()))&0x7fff <= 0x7c00 {
		t.Error("NaN did not stay one")
	}
}

// randomTrits gives n trits of which a share is zero.
func randomTrits(n int, zeros float64, r *rand.Rand) []int8 {
	q := make([]int8, n)
	for i := range q {
		if r.Float64() >= zeros {
			q[i] = int8(2*r.IntN(2) - 1)
		}
	}
	return q
}

func TestTrits(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for n := 1; n < 300; n++ {
		for _, zeros := range []float64{0, 0.33, 0.9, 1} {
			q := randomTrits(n, zeros, r)
			b := appendBase3(nil, q)
			if len(b) != base3Len(n) {
				t.Fatalf("%d trits are %d bytes, want %d", n, len(b), base3Len(n))
			}
			guarded := make([]int8, n+8)
			for i := range guarded {
				guarded[i] = 99
			}
			if bad := readBase3(guarded[:n], b); bad >= 0 || !slices.Equal(guarded[:n], q) || guarded[n] != 99 {
				t.Fatalf("base-3 of %d trits: bad at %d, got %v, want %v", n, bad, guarded, q)
			}
			mask := appendMask(nil, q)
			signs := appendSigns(nil, q)
			nonzeros, err := countMask(mask, n)
			wantMask, wantSigns := bitmaskLen(n, nonzeros)
			if err != nil || len(mask) != wantMask || len(signs) != wantSigns {
				t.Fatalf("bitmask of %d trits: %v, %d and %d bytes, want %d and %d", n, err, len(mask), len(signs), wantMask, wantSigns)
			}
			for i := range guarded {
				guarded[i] = 99
			}
			if err := readBitmask(guarded[:n], mask, signs, nonzeros); err != nil || !slices.Equal(guarded[:n], q) || guarded[n] != 99 {
				t.Fatalf("bitmask of %d trits: %v, got %v, want %v", n, err, guarded, q)
			}
		}
	}
	for _, c := range []struct {
		n    int
		b    []byte
		want int
	}{{5, []byte{243}, 0}, {3, []byte{27}, 0}, {3, []byte{26}, -1}, {20, []byte{0, 255, 0, 0}, 1}, {20, []byte{0, 0, 0, 250}, 3}} {
		if got := readBase3(make([]int8, c.n), c.b); got != c.want {
			t.Errorf("%v as %d trits: bad at %d, want %d", c.b, c.n, got, c.want)
		}
	}
	if _, err := countMask([]byte{8}, 3); err == nil {
		t.Error("a mask with a bit after its last was taken")
	}
	if err := readBitmask(make([]int8, 3), []byte{7}, []byte{8}, 3); err == nil {
		t.Error("signs with a bit after their last were taken")
	}
}

// Embeddings in groups come back exactly, are near what they stand for, and
// products that do not fit are refused.
func TestGroups(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, d := range []int{1, 31, 32, 33, 64, 100, 512} {
		const rows = 9
		w := make([]float32, rows*d)
		for i := range w {
			w[i] = float32(r.NormFloat64() * math.Exp(float64(i/d)-4))
		}
		clear(w[3*d : 4*d])
		m := &Model{Tensors: []Tensor{{Param: arch.Param{Name: "e", Kind: arch.Embedding, Shape: []int{rows, d}}, Data: w}}}
		last := math.Inf(1)
		for _, c := range []struct {
			bits  int
			bound float64 // relative error, root mean square
		}{{4, 0.13}, {6, 0.045}, {8, 0.012}} {
			e := &m.QuantizeEmbedding(c.bits).Tensors[0]
			var diff, norm float64
			for i, v := range e.Floats() {
				diff += float64(v-w[i]) * float64(v-w[i])
				norm += float64(w[i]) * float64(w[i])
			}
			rel := math.Sqrt(diff / norm)
			if rel > c.bound || rel > last+1e-6 {
				t.Errorf("%d bits, d %d: relative error %.4f, want at most %.4f", c.bits, d, rel, c.bound)
			}
			last = rel
			for _, v := range e.Floats()[3*d : 4*d] {
				if v != 0 {
					t.Fatalf("%d bits: a zero became %v", c.bits, v)
				}
			}
			if c.bits == 8 {
				continue
			}
			if err := e.checkPacked(); err != nil {
				t.Fatal(err)
			}
			q := e.Expanded()
			low, high := make([]byte, len(e.Groups)*lowLen), make([]byte, len(e.Groups)*highLen)
			for r := range rows {
				g := r * groupsOf(d)
				packRow(low[g*lowLen:], high[g*highLen:], q[r*d:(r+1)*d], e.Groups[g:g+groupsOf(d)], c.bits)
			}
			if again := append(low, high...); !bytes.Equal(again[:len(e.Packed)], e.Packed) {
				t.Fatalf("%d bits, d %d: packed again %v, want %v", c.bits, d, again, e.Packed)
			}
		}
	}
	// Every factor and every u.
	for _, bits := range []int{4, 6} {
		half := 1 << (bits - 1)
		for f := range 256 {
			for u := range 2 * half {
				low, high := make([]byte, lowLen), make([]byte, highLen)
				for j := range low {
					low[j] = byte(u&15 | half&15<<4)
				}
				for j := range high {
					high[j] = byte(u>>4 | u>>4<<2 | 2<<4 | 2<<6)
				}
				got := make([]int8, GroupSize)
				bad := readGroups(got, low, high, []uint8{uint8(f)}, GroupSize, bits)
				want := f * (u - half)
				if ok := f > 0 && want >= -127 && want <= 127; ok != (bad < 0) || ok && (int(got[0]) != want || int(got[15]) != want || got[16] != 0) {
					t.Fatalf("%d bits: %d times %d is %v, bad %d", bits, f, u-half, got, bad)
				}
			}
		}
	}
}

// A mixer in memory as Int8 is transposed; its values are not.
func TestMixerTransposed(t *testing.T) {
	m := samples(t)["classic"]
	b, _, err := Encode(m.Quantize())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	const name = "layers.1.attention.head_mixer.W"
	want, mixer := m.Tensor(name).Data, got.Tensor(name)
	n := mixer.Shape[1]
	for k := range mixer.Shape[0] {
		for in := range n {
			for out := range n {
				v := mixer.Scale[out] * float32(mixer.Int8[(k*n+out)*n+in])
				if w := want[(k*n+in)*n+out]; math.Abs(float64(v-w)) > 0.51*float64(mixer.Scale[out]) {
					t.Fatalf("block %d, %d to %d: %v, want %v", k, in, out, v, w)
				}
			}
		}
	}
}
