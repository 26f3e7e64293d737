package main

import (
	"testing"

	"spinnet/arch"
	"spinnet/configs"
	"spinnet/model"
	"spinnet/train"
)

// Every recipe that ships loads, and the classic ones are the original's.
func TestRecipes(t *testing.T) {
	type classic struct {
		layers, heads, d, hidden, block, batch, accum, iters, warmup, vocab int
		lr, minLR, decay                                                    float64
		mixer                                                               bool
	}
	classics := map[string]classic{
		"classic-tinyshakespeare": {8, 8, 512, 1368, 512, 32, 1, 5000, 50, 0, 1e-2, 1e-5, 0, true},
		"classic-tinystories":     {8, 8, 512, 1368, 256, 32, 4, 25000, 200, 50304, 6e-3, 1e-4, 0.1, true},
		"classic-tinycodes":       {8, 8, 512, 1368, 256, 32, 4, 5000, 500, 50304, 3e-3, 6e-5, 0.1, true},
		"classic-scholar-124m":    {24, 20, 1280, 3416, 1024, 10, 8, 75000, 1000, 50304, 3e-3, 1e-5, 0.1, false},
	}
	ours := map[string]bool{"demo": true, "tinyshakespeare": true, "tinystories": true}
	for _, name := range configs.Names() {
		text, err := configs.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := train.LoadConfig(name+".toml", text, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c = c.Resolved()
		want, ok := classics[name]
		if !ok {
			if !ours[name] {
				t.Errorf("%s: not in this test's lists", name)
			}
			if c.Quantizer != arch.AbsMean || c.Init != model.InitScaled || c.HiddenDim%128 != 0 {
				t.Errorf("%s is not of our kind: %s, %s, hidden %d", name, c.Quantizer, c.Init, c.HiddenDim)
			}
			delete(ours, name)
			continue
		}
		got := classic{c.NLayer, c.NHead, c.NEmbd, c.HiddenDim, c.BlockSize, c.BatchSize, c.GradAccum, c.MaxIters, c.WarmupIters, c.VocabSize,
			c.LearningRate, c.MinLR, c.WeightDecay, c.OctonionAttention}
		if got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
		}
		if c.Algebra != "octonion" || c.MixerAlgebra != "octonion" || c.Quantizer != arch.Classic || c.Init != model.InitClassic ||
			c.Beta1 != 0.9 || c.Beta2 != 0.95 || c.GradClip != 1 || c.Dropout != 0 || c.LRDecayIters != c.MaxIters {
			t.Errorf("%s has not the classic rest: %s", name, c.TOML())
		}
		delete(classics, name)
	}
	if len(classics)+len(ours) > 0 {
		t.Errorf("missing recipes: %v %v", classics, ours)
	}
}
