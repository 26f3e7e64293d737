package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"spinnet/corpus"
	"spinnet/dataset"
	"spinnet/tensor"
	"spinnet/tokenizer"
	"spinnet/train"
)

func init() {
	benches = append(benches, bench{"train/d128", benchTrainD128}, bench{"train/d512", benchTrainD512})
}

// smallRecipe and largeRecipe are the two shapes that docs/benchmarks.md
// follows: characters, vocabulary 65.
const (
	smallRecipe = "dataset = 'x'\nn_layer = 4\nn_head = 4\nn_embd = 128\nhidden_dim = 384\nblock_size = 64\nbatch_size = 12\n"
	largeRecipe = "dataset = 'x'\nn_layer = 8\nn_head = 8\nn_embd = 512\nhidden_dim = 1408\nblock_size = 256\nbatch_size = 8\n"
)

func benchTrainD128(b *benchContext) error {
	return benchTrain(b, "4L d128 12x64", smallRecipe, false)
}

func benchTrainD512(b *benchContext) error {
	return benchTrain(b, "8L d512 8x256", largeRecipe, true)
}

// benchTrain measures whole training steps: batch, forward, backward, clip,
// AdamW and quantising anew, for each algebra, and with the octonion head
// mixer where asked for.
func benchTrain(b *benchContext, shape, recipe string, mixer bool) error {
	data, remove, err := shakespeare()
	if err != nil {
		return err
	}
	defer remove()
	for _, v := range []struct {
		algebra string
		mixer   bool
	}{{"octonion", false}, {"octonion", true}, {"walsh", false}} {
		if v.mixer && !mixer {
			continue
		}
		name := shape + " " + v.algebra
		if v.mixer {
			name += " mixer"
		}
		for _, threads := range b.Threads() {
			cfg, err := train.LoadConfig("bench", []byte(recipe), []string{"algebra=" + v.algebra, fmt.Sprint("octonion_attention=", v.mixer)})
			if err != nil {
				return err
			}
			if err := benchTrainSteps(b, name, cfg, data, threads, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// benchTrainSteps measures steps on a device; nil: the CPU.
func benchTrainSteps(b *benchContext, name string, cfg train.Config, data *dataset.Dataset, threads int, dev tensor.Device) error {
	debug.FreeOSMemory() // what the last bench left
	t, err := train.New(cfg, data, train.Options{Threads: threads, Device: dev})
	if err != nil {
		return err
	}
	defer t.Close()
	if dev != nil { // its first step runs, its second is recorded
		for range 2 {
			if _, _, err := t.TrainStep(context.Background()); err != nil {
				return err
			}
		}
	}
	median, allocs := b.Measure(func() {
		if _, _, e := t.TrainStep(context.Background()); e != nil {
			err = e
		}
	})
	// A step allocates nothing, so what the process holds now is its peak.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if err != nil {
		return err
	}
	memory := m.Sys - m.HeapReleased
	if gpu, ok := dev.(interface{ Memory() uint64 }); ok {
		memory = gpu.Memory()
	}
	return b.Report(benchResult{Shape: name, Threads: threads, Ms: milliseconds(median), Allocs: &allocs,
		TokensPerS: float64(cfg.TokensPerStep()) / median.Seconds(), PeakMemoryMiB: float64(memory) / (1 << 20)})
}

// shakespeare prepares the text that ships in a folder that remove deletes.
func shakespeare() (data *dataset.Dataset, remove func(), err error) {
	dir, err := os.MkdirTemp("", "spinnet-bench-")
	if err != nil {
		return nil, nil, err
	}
	clean := func() { os.RemoveAll(dir) }
	opts := dataset.Options{Name: "tinyshakespeare", Dir: filepath.Join(dir, "data"), Tokenizer: tokenizer.KindChars, Val: 0.1}
	text := dataset.Source{Name: "tinyshakespeare",
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(corpus.TinyShakespeare)), nil }}
	if _, err = dataset.Prepare(context.Background(), opts, []dataset.Source{text}); err == nil {
		data, err = dataset.Open(opts.Dir)
	}
	if err != nil {
		clean()
		return nil, nil, err
	}
	return data, func() { data.Close(); clean() }, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
