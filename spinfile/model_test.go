package spinfile

import (
	"math"
	"slices"
	"strings"
	"testing"

	"spinnet/arch"
)

func TestQuantizeClassic(t *testing.T) {
	// SPEC §1's check vector.
	w := []float32{-1.6, -1.5, -1.2, -.5, .5, .49, 1.5, 1.5001, 2.5}
	want := []int8{-1, -1, -1, 0, 0, 0, 1, 1, 1}
	got := make([]int8, len(w))
	QuantizeClassic(got, w)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestQuantizeAbsMean(t *testing.T) {
	w := []float32{1, -1, 0.25, -0.25, 0.26, 2, -3, 0}
	want := []int8{1, -1, 0, 0, 1, 1, -1, 0} // 0.25/0.5 is a tie and goes to the even 0
	got := make([]int8, len(w))
	QuantizeAbsMean(got, w, 0.5)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestGamma(t *testing.T) {
	long := make([]float32, 12345)
	for i := range long {
		long[i] = float32(1 - 2*(i%2)) // ±1
	}
	for _, c := range []struct {
		name string
		w    []float32
		want float32
	}{
		{"empty", nil, 1e-8},
		{"zero", []float32{0, 0}, 1e-8},
		{"tiny", []float32{1e-9, -1e-9}, 1e-8},
		{"signs", []float32{-1, 2, -3}, 2},
		{"long", long, 1},
	} {
		if got := Gamma(c.w); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

var tiny = arch.Config{NLayer: 2, NHead: 8, NKVHead: 8, NEmbd: 16, HiddenDim: 16, BlockSize: 4, VocabSize: 3,
	Algebra: "octonion", Quantizer: arch.Classic, OctonionAttention: true}

// latents gives every parameter of c values that depend on its name's length
// and place.
func latents(c arch.Config) map[string][]float32 {
	all := map[string][]float32{}
	for _, p := range arch.Params(c.WithDefaults()) {
		w := make([]float32, p.Len())
		for i := range w {
			w[i] = float32((i*7+len(p.Name))%13)/6 - 1
		}
		all[p.Name] = w
	}
	return all
}

func TestFromLatents(t *testing.T) {
	for _, quantizer := range []string{arch.Classic, arch.AbsMean, arch.None} {
		t.Run(quantizer, func(t *testing.T) {
			c := tiny
			c.Quantizer = quantizer
			all := latents(c)
			m, err := FromLatents(c, TokenizerInfo{Kind: "chars", Chars: "abc"}, func(n string) []float32 { return all[n] })
			if err != nil {
				t.Fatal(err)
			}
			wq := m.Tensor("layers.1.attention.wq.weight")
			switch quantizer {
			case arch.None:
				if wq.Trits != nil || wq.Scale != nil || !slices.Equal(wq.Data, all[wq.Name]) {
					t.Error("latents changed without a quantizer")
				}
			case arch.AbsMean:
				g := Gamma(all[wq.Name])
				for i, q := range wq.Trits {
					if want := int8(max(-1, min(1, math.RoundToEven(float64(all[wq.Name][i]/g))))); q != want {
						t.Fatalf("trit %d: got %d, want %d", i, q, want)
					}
				}
				if wq.Scale[0] != g || wq.Scale[1] != g {
					t.Errorf("scale %v, want γ = %v", wq.Scale, g)
				}
			case arch.Classic:
				if want := all["layers.1.attention.wq.beta"]; !slices.Equal(wq.Scale, want) {
					t.Errorf("scale %v, want beta %v", wq.Scale, want)
				}
			}
			trits, zeros, floats := m.Counts()
			want := arch.Count(m.Config)
			if trits != want.Ternary || zeros > trits || floats < want.Float {
				t.Errorf("counts %d, %d, %d; arch counts %d and %d", trits, zeros, floats, want.Ternary, want.Float)
			}
		})
	}
}

func TestBadModels(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(all map[string][]float32)
	}{
		{"missing", "norm.weight is missing", func(all map[string][]float32) { delete(all, "norm.weight") }},
		{"length", "layers.0.attention.wk.weight has 31 values, want 32 = [8, 2, 2]", func(all map[string][]float32) {
			all["layers.0.attention.wk.weight"] = make([]float32, 31)
		}},
		{"nan", "layers.1.attention.wo.beta has the value NaN at 1", func(all map[string][]float32) {
			all["layers.1.attention.wo.beta"][1] = float32(math.NaN())
		}},
		{"inf", "tok_embeddings.weight has the value -Inf at 5", func(all map[string][]float32) {
			all["tok_embeddings.weight"][5] = float32(math.Inf(-1))
		}},
	} {
		all := latents(tiny)
		c.change(all)
		_, err := FromLatents(tiny, TokenizerInfo{}, func(n string) []float32 { return all[n] })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	for _, c := range []struct {
		name, want string
		change     func(m *Model)
	}{
		{"trit", "the trit 2 at 0", func(m *Model) { m.Tensors[2].Trits[0] = 2 }},
		{"order", `tensor 1 is "layers.0.attention.wq.weight"`, func(m *Model) { m.Tensors[1], m.Tensors[2] = m.Tensors[2], m.Tensors[1] }},
		{"extra", "does not belong", func(m *Model) { m.Tensors = append(m.Tensors, m.Tensors[0]) }},
		{"short", "norm.weight is missing", func(m *Model) { m.Tensors = m.Tensors[:len(m.Tensors)-1] }},
		{"shape", "has shape [3, 8], want [3, 16]", func(m *Model) { m.Tensors[0].Shape = []int{3, 8} }},
		{"scale", "1 scales, want 0, 32, 0 and 2", func(m *Model) { m.Tensors[2].Scale = m.Tensors[2].Scale[:1] }},
		{"algebra", `want a ternary of "octonion"`, func(m *Model) { m.Tensors[2].Algebra = "walsh" }},
		{"characters", "the tokenizer has 4 characters", func(m *Model) { m.Tokenizer = TokenizerInfo{Kind: "chars", Chars: "abcd"} }},
		{"tokenizer", "unknown tokenizer", func(m *Model) { m.Tokenizer.Kind = "spm" }},
		{"packed", "1 bits, 0 bytes and 0 groups, want an embedding of 4 or 6 bits and 3 groups", func(m *Model) {
			m.Tensors[0].Packed, m.Tensors[0].Bits = []byte{}, 1
		}},
		{"factor", "in group 2", func(m *Model) {
			*m = *m.QuantizeEmbedding(4)
			m.Tensors[0].Groups[2] = 0
		}},
		{"config", "block_size = 0", func(m *Model) { m.Config.BlockSize = 0 }},
	} {
		all := latents(tiny)
		m, err := FromLatents(tiny, TokenizerInfo{}, func(n string) []float32 { return all[n] })
		if err != nil {
			t.Fatal(err)
		}
		c.change(m)
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}
