package main

import (
	"fmt"
	"os"

	"spinnet/train"
)

func init() { benches = append(benches, bench{"gpu/train", benchTrainGPU}) }

// benchTrainGPU measures whole training steps on the first GPU: the shapes of
// docs/benchmarks.md, in its terms. Without a GPU it says so and measures
// nothing.
func benchTrainGPU(b *benchContext) error {
	data, remove, err := shakespeare()
	if err != nil {
		return err
	}
	defer remove()
	const shape = "dataset = 'x'\ndevice = 'auto'\nn_layer = 8\nn_head = 8\nn_embd = 512\nhidden_dim = 1408\n"
	for _, v := range []struct{ name, recipe string }{
		{"chars 8L d512 32x512", shape + "block_size = 512\nbatch_size = 32\n"},
		{"50k 8L d512 4x32x256", shape + "vocab_size = 50304\nblock_size = 256\nbatch_size = 32\ngradient_accumulation_steps = 4\n"},
		{"124M 24L d1280 10x1024", "dataset = 'x'\ndevice = 'auto'\nn_layer = 24\nn_head = 20\nn_embd = 1280\nhidden_dim = 3456\n" +
			"block_size = 1024\nvocab_size = 50304\nbatch_size = 10\n"},
	} {
		for _, alg := range []string{"octonion", "walsh"} {
			mixer := v.name[0] != '1' // 20 heads are no multiple of 8
			cfg, err := train.LoadConfig("bench", []byte(v.recipe), []string{"algebra=" + alg, fmt.Sprint("octonion_attention=", mixer)})
			if err != nil {
				return err
			}
			dev, note, err := openDevice(cfg.Device)
			if err != nil {
				return err
			}
			if dev == nil {
				fmt.Fprintln(os.Stderr, "gpu/train: not measured,", note)
				return nil
			}
			if err := benchTrainSteps(b, v.name+" "+alg, cfg, data, 1, dev); err != nil {
				return err
			}
		}
	}
	return nil
}
