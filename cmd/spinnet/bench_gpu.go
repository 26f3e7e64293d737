package main

import (
	"fmt"
	"os"
	"strings"

	"spinnet/cuda"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/train"
)

// Recipes of the training steps that are measured.
const (
	gpuSmall = "n_layer = 8\nn_head = 8\nn_embd = 512\nhidden_dim = 1408\noctonion_attention = true\n"
	gpuChars = gpuSmall + "block_size = 512\nbatch_size = 32\n"
	gpu50k   = gpuSmall + "vocab_size = 50304\nblock_size = 256\nbatch_size = 32\ngradient_accumulation_steps = 4\n"
	gpu124m  = "n_layer = 24\nn_head = 20\nn_embd = 1280\nhidden_dim = 3456\nblock_size = 1024\nvocab_size = 50304\nbatch_size = 10\n"
)

func init() {
	benches = append(benches, bench{"gpu/decode", benchDecodeGPU})
	for _, b := range []struct{ name, shape, recipe string }{
		{"gpu/chars", "8L d512 32x512", gpuChars},
		{"gpu/50k", "8L d512 4x32x256", gpu50k},
		{"gpu/124m", "24L d1280 10x1024", gpu124m},
	} {
		benches = append(benches, bench{b.name, func(c *benchContext) error { return benchTrainGPU(c, b.shape, b.recipe) }})
	}
}

// notMeasured says why there is nothing to measure, which does not end the
// benchmarks that follow.
func notMeasured(b *benchContext, why error) error {
	_, err := fmt.Fprintf(os.Stderr, "%s: not measured: %s\n", b.name, strings.TrimPrefix(why.Error(), "cuda: "))
	return err
}

// benchTrainGPU measures whole training steps on the first GPU. Without one it
// says so and measures nothing.
func benchTrainGPU(b *benchContext, shape, recipe string) error {
	data, remove, err := shakespeare()
	if err != nil {
		return err
	}
	defer remove()
	for _, alg := range []string{"octonion", "walsh"} {
		cfg, err := train.LoadConfig("bench", []byte("dataset = 'x'\n"+recipe), []string{"algebra=" + alg})
		if err != nil {
			return err
		}
		dev, err := cuda.Open(0)
		if err != nil {
			return notMeasured(b, err)
		}
		if err := benchTrainSteps(b, shape+" "+alg, cfg, data, 1, dev); err != nil {
			return err
		}
	}
	return nil
}

// benchDecodeGPU measures tokens at three positions and a prompt on the first
// GPU, with a head mixer and GPT-2's vocabulary. MiB are those of the weights on
// the GPU.
func benchDecodeGPU(b *benchContext) error {
	if _, _, err := cuda.Devices(); err != nil { // before a model is made for nothing
		return notMeasured(b, err)
	}
	for _, model := range []struct {
		algebra string
		options []engine.Options
	}{{"octonion", []engine.Options{{}, {Int8Cache: true}, {Numeric: engine.Float}}}, {"walsh", []engine.Options{{}}}} {
		c := benchModelConfig(model.algebra)
		c.HiddenDim, c.BlockSize, c.OctonionAttention = 1408, 1100, true
		m, err := randomModel(c, spinfile.TokenizerInfo{Kind: "gpt2"})
		if err != nil {
			return err
		}
		m = m.QuantizeEmbedding(8)
		for _, o := range model.options {
			s, err := cuda.NewSession(0, m, o)
			if err != nil {
				return notMeasured(b, err)
			}
			shape := "8L d512 " + model.algebra + " " + s.Numeric()
			if o.Int8Cache {
				shape += " cache int8"
			}
			err = benchSessionGPU(b, s, shape)
			s.Close()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// benchSessionGPU measures one session.
func benchSessionGPU(b *benchContext, s *cuda.Session, shape string) error {
	weights, _, _ := s.Memory()
	for _, at := range []int{10, 255, 1000} {
		ms, err := decodeTime(s, at)
		if err != nil {
			return err
		}
		if err := b.Report(benchResult{Shape: fmt.Sprintf("%s at %d", shape, at), Ms: ms, TokensPerS: 1e3 / ms, Context: at,
			PeakMemoryMiB: float64(weights) / (1 << 20)}); err != nil {
			return err
		}
	}
	ids := benchIDs(s.Config(), benchContextLength)
	var failed error
	d, _ := b.Measure(func() {
		s.Reset()
		if _, err := s.Prefill(ids); err != nil {
			failed = err
		}
	})
	if failed != nil {
		return failed
	}
	return b.Report(benchResult{Shape: shape + " prompt of 256", Ms: d.Seconds() * 1e3, TokensPerS: benchContextLength / d.Seconds(), Context: benchContextLength})
}
