//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"context"
	"errors"
	"testing"
	"time"

	"spinnet/dataset"
	"spinnet/tensor"
	"spinnet/train"
)

// measure measures a recipe.
func measure(c train.Config, data *dataset.Dataset) (uint64, Info, error) {
	return Measure(0, func(dev tensor.Device) error { return train.Measure(c, data, dev) })
}

// TestMeasure: what is measured is what a run takes, and nothing is taken.
func TestMeasure(t *testing.T) {
	for _, change := range []func(*train.Config){
		func(*train.Config) {},
		func(c *train.Config) { c.Recompute = true },
		func(c *train.Config) { c.GradAccum = 1 },
		func(c *train.Config) { c.VocabSize = 2000 }, // other logits
		func(c *train.Config) { c.Algebra = "walsh" },
		func(c *train.Config) { c.Dropout = 0 },
	} {
		for _, major := range []int{8, 9} {
			c := fullRecipe(t)
			change(&c)
			f := useFake(t, &fake{major: major})
			got, gpu, err := measure(c, verses(t))
			if err != nil {
				t.Fatal(err)
			}
			if f.used != 0 || len(f.launch) != 0 || gpu.Name != "Fake" || gpu.Memory != f.memory {
				t.Errorf("%d bytes and %v were taken of %+v", f.used, f.launch, gpu)
			}
			dev, err := Open(0)
			if err != nil {
				t.Fatal(err)
			}
			c.MaxIters, c.EvalInterval = 3, 1
			tr, err := train.New(c, verses(t), train.Options{Threads: 1, Device: dev})
			if err != nil {
				t.Fatal(err)
			}
			if err := tr.Run(context.Background(), train.Observer{}); err != nil {
				t.Error(err)
			}
			if want := dev.(*Device).Memory(); got != want {
				t.Errorf("sm_%d0: measured %d bytes, a run takes %d", major, got, want)
			}
			tr.Close()
		}
	}
	// What an H100 took (docs/benchmarks-gpu.md), within 2 %.
	const (
		small = "n_layer = 8\nn_head = 8\nn_embd = 512\nhidden_dim = 1408\noctonion_attention = true\nblock_size = 256\nbatch_size = 32\ngradient_accumulation_steps = 4\n"
		large = "n_layer = 24\nn_head = 20\nn_embd = 1280\nhidden_dim = 3456\nblock_size = 1024\nbatch_size = 10\n"
	)
	for _, c := range []struct {
		shape, algebra string
		want           int // MiB
	}{{small, "octonion", 2468}, {small, "walsh", 2382}, {large, "octonion", 15878}, {large, "walsh", 14289}} {
		useFake(t, &fake{multi: 132, memory: 1}) // more than there is can be measured, too
		cuBLASLt.err = nil                       // it was there; nothing of it is called
		cfg, err := train.LoadConfig("shape", []byte("dataset = 'x'\nvocab_size = 50304\n"+c.shape), []string{"algebra=" + c.algebra})
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := measure(cfg, verses(t))
		if mib := int(got+1<<19) >> 20; err != nil || 50*max(mib-c.want, c.want-mib) > c.want {
			t.Errorf("%s, d %d: measured %d MiB with error %v, want %d", c.algebra, cfg.NEmbd, mib, err, c.want)
		}
	}
	// Shapes that no GPU and no host could hold.
	for _, shape := range []string{"n_layer = 96\nn_head = 128\nn_embd = 8192\nhidden_dim = 65536\nbatch_size = 524288\n", "n_head = 8192\nn_embd = 1048576\nhidden_dim = 1048576\n"} {
		useFake(t, new(fake))
		cfg, err := train.LoadConfig("shape", []byte("dataset = 'x'\n"+shape), nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		got, _, err := measure(cfg, verses(t))
		if took := time.Since(start); took > 10*time.Second || err == nil && got < 1<<40 {
			t.Errorf("%q: measured %d bytes with error %v in %v", shape, got, err, took)
		}
	}
	// Errors of what runs, and of a GPU that is not there.
	useFake(t, new(fake))
	want := errors.New("want")
	if _, _, err := Measure(0, func(tensor.Device) error { return want }); err != want {
		t.Errorf("got %v", err)
	}
	_, _, err := Measure(1, func(tensor.Device) error { return nil })
	oneLine(t, err, "no GPU number 1")
}
