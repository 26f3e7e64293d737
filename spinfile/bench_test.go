package spinfile

import (
	"math/rand/v2"
	"strings"
	"testing"

	"spinnet/arch"
)

// large is the shape of a model of 30 million parameters.
var large = arch.Config{NLayer: 8, NHead: 8, NEmbd: 512, HiddenDim: 1536, BlockSize: 256, VocabSize: 50304, OctonionAttention: true}

// random is a model with random weights.
func random(c arch.Config, zeros float64) *Model {
	r := rand.New(rand.NewPCG(7, 8))
	c = c.WithDefaults()
	m := &Model{Config: c}
	for _, p := range arch.Params(c) {
		t := Tensor{Param: p}
		if p.Kind == arch.Ternary {
			t.Trits, t.Scale = randomTrits(p.Len(), zeros, r), make([]float32, p.Shape[1])
		} else {
			t.Data = make([]float32, p.Len())
			for i := range t.Data {
				t.Data[i] = float32(r.NormFloat64())
			}
		}
		m.Tensors = append(m.Tensors, t)
	}
	return m.Quantize()
}

// The original's character model fits into 0.96 MB.
func TestCharacterModelSize(t *testing.T) {
	c := arch.Config{NLayer: 8, NHead: 8, NEmbd: 512, BlockSize: 512, VocabSize: 65, OctonionAttention: true}
	m := random(c, 0.33)
	m.Tokenizer = GuessTokenizer(65)
	m.Meta = map[string]string{"config_sha256": strings.Repeat("0", 64), "data_hash": strings.Repeat("0", 64), "step": "5000", "train_loss": "1.2345678901234567", "val_loss": "1.2345678901234567"}
	_, r, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if m.Config.HiddenDim != 1368 || r.Total > 960_000 {
		t.Errorf("hidden %d, %d bytes, want 1368 and at most 960,000", m.Config.HiddenDim, r.Total)
	}
	t.Logf("%d bytes, of which %d are no tensors", r.Total, r.Config+r.Overhead)
}

// A model of 30 million parameters, zeros as absmean trains them, takes 1/13 of
// its checkpoint (a weight and two moments in float32) with an embedding in
// int8, and 1/20 in 4 bits.
func TestRatios(t *testing.T) {
	m := random(large, 0.33)
	checkpoint := 0
	for _, p := range arch.Params(m.Config) {
		checkpoint += 12 * p.Len()
	}
	for _, c := range []struct{ bits, want int }{{8, 13}, {4, 20}} {
		_, r, err := Encode(m.QuantizeEmbedding(c.bits))
		if err != nil {
			t.Fatal(err)
		}
		if c.want*r.Total > checkpoint {
			t.Errorf("%d bits: %d bytes, want at most 1/%d of %d", c.bits, r.Total, c.want, checkpoint)
		}
		t.Logf("embedding of %d bits: %d bytes, 1/%.1f of %d", c.bits, r.Total, float64(checkpoint)/float64(r.Total), checkpoint)
	}
}

// Loading: the time from a file's bytes to a model.
func BenchmarkDecode(b *testing.B) {
	m := random(large, 0.33)
	for _, f := range []struct {
		name string
		bits int
	}{{"int8", 8}, {"q6", 6}, {"q4", 4}} {
		file, r, err := Encode(m.QuantizeEmbedding(f.bits))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(f.name, func(b *testing.B) {
			b.SetBytes(int64(r.Total))
			for b.Loop() {
				if _, err := Decode(file); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Ternary tensors: bytes are trits, so MB/s are millions of trits a second.
func BenchmarkTrits(b *testing.B) {
	const n = 1 << 20
	r := rand.New(rand.NewPCG(9, 10))
	got := make([]int8, n)
	for _, s := range []struct {
		name  string
		zeros float64
	}{{"33%", 0.33}, {"88%", 0.88}} {
		q := randomTrits(n, s.zeros, r)
		base3, mask, signs := appendBase3(nil, q), appendMask(nil, q), appendSigns(nil, q)
		nonzeros, err := countMask(mask, n)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("base3/"+s.name, func(b *testing.B) {
			b.SetBytes(n)
			for b.Loop() {
				readBase3(got, base3)
			}
			b.ReportMetric(8*float64(len(base3))/n, "bits/trit")
		})
		b.Run("bitmask/"+s.name, func(b *testing.B) {
			b.SetBytes(n)
			for b.Loop() {
				if err := readBitmask(got, mask, signs, nonzeros); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(8*float64(len(mask)+len(signs))/n, "bits/trit")
		})
		entropy := appendEntropy(nil, q)
		b.Run("entropy/"+s.name, func(b *testing.B) {
			b.SetBytes(n)
			for b.Loop() {
				if _, err := readEntropy(got, entropy); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(8*float64(len(entropy))/n, "bits/trit")
		})
	}
}
