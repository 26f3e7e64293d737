package main

import (
	"errors"
	"fmt"
	"os"

	"spinnet/cuda"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/train"
)

func init() {
	const small = "n_layer = 8\nn_head = 8\nn_embd = 512\nhidden_dim = 1408\noctonion_attention = true\n"
	benches = append(benches, bench{"gpu/decode", benchDecodeGPU})
	for _, b := range []struct{ name, shape, recipe string }{
		{"gpu/chars", "8L d512 32x512", small + "block_size = 512\nbatch_size = 32\n"},
		{"gpu/50k", "8L d512 4x32x256", small + "vocab_size = 50304\nblock_size = 256\nbatch_size = 32\ngradient_accumulation_steps = 4\n"},
		{"gpu/124m", "24L d1280 10x1024", "n_layer = 24\nn_head = 20\nn_embd = 1280\nhidden_dim = 3456\n" +
			"block_size = 1024\nvocab_size = 50304\nbatch_size = 10\n"},
	} {
		benches = append(benches, bench{b.name, func(c *benchContext) error { return benchTrainGPU(c, b.shape, b.recipe) }})
	}
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
		cfg, err := train.LoadConfig("bench", []byte("dataset = 'x'\n"+recipe), []string{"algebra=" + alg, "device=auto"})
		if err != nil {
			return err
		}
		dev, note, err := openDevice(cfg.Device)
		if err != nil {
			return err
		}
		if dev == nil {
			_, err := fmt.Fprintf(os.Stderr, "%s: not measured: %s\n", b.name, note)
			return err
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
			err := benchSessionGPU(b, m, o)
			if errors.Is(err, cuda.ErrNoDriver) || errors.Is(err, cuda.ErrLeftOut) {
				_, err := fmt.Fprintf(os.Stderr, "%s: not measured: %v\n", b.name, err)
				return err
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func benchSessionGPU(b *benchContext, m *spinfile.Model, o engine.Options) error {
	s, err := cuda.NewSession(0, m, o)
	if err != nil {
		return err
	}
	defer s.Close()
	shape := "8L d512 " + m.Config.Algebra + " " + s.Numeric()
	if o.Int8Cache {
		shape += " cache int8"
	}
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
	ids := benchIDs(m.Config, benchContextLength)
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
