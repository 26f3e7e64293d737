package main

import (
	"fmt"
	"os"

	"spinnet/train"
)

func init() {
	const small = "n_layer = 8\nn_head = 8\nn_embd = 512\nhidden_dim = 1408\noctonion_attention = true\n"
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
