package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"spinnet/arch"
	"spinnet/cuda"
	"spinnet/dataset"
	"spinnet/train"
)

// dryRun prints what a run would be: parameters, memory and speed.
func dryRun(w io.Writer, cfg train.Config, data *dataset.Dataset) error {
	shape := cfg.Arch(data.VocabSize)
	fmt.Fprint(w, cfg.Resolved().TOML(), "\n")
	dev, note, err := openDevice(cfg)
	if err != nil {
		return err
	}
	noteDevice(w, dev, note)
	if dev != nil {
		dev.Close()
	}
	printModel(w, cfg, shape)
	if dev != nil {
		fmt.Fprintf(w, "memory      about %s on the GPU\n", bytesText(gpuMemoryEstimate(cfg, shape)))
	} else {
		fmt.Fprintf(w, "memory      about %s\n", bytesText(memoryEstimate(cfg, shape)))
		if err := checkMemory(cfg, shape); err != nil {
			return err
		}
	}
	perToken, err := timeEstimate(cfg, data)
	if err != nil {
		return withNeed(err, cfg, shape)
	}
	tokens := float64(cfg.TokensPerStep()) * float64(cfg.MaxIters)
	total := time.Duration(min(tokens*perToken, maxSeconds) * float64(time.Second))
	_, err = fmt.Fprintf(w, "speed       about %.0f tokens/s: %s for %s steps\n", 1/perToken, round(total), thousands(cfg.MaxIters))
	return err
}

// maxSeconds, some 290 years, is about the most that a time.Duration holds.
const maxSeconds = 9e9

// memoryEstimate is the bytes a run on the CPU holds: weights, gradients and two
// moments of every parameter, quantised and packed copies, and the activations
// that the backward pass reads.
func memoryEstimate(cfg train.Config, shape arch.Config) int {
	n := arch.Count(shape)
	stream, rest := activations(cfg, shape)
	return int(min(4*(6*float64(n.Ternary+n.Float)+stream+rest), math.MaxInt/2))
}

// gpuMemoryEstimate is the bytes a run takes on a GPU: weights, gradients and two
// moments in float32; in bf16 a copy of the embedding, the matrix of every linear
// layer and its transpose's, which but for Walsh's are as large as dense ones,
// and the logits of a chunk; and the activations. It comes within 7 % of what
// docs/benchmarks.md measured.
func gpuMemoryEstimate(cfg train.Config, shape arch.Config) int {
	n := arch.Count(shape)
	params, embedding := float64(n.Ternary+n.Float), float64(shape.VocabSize)*float64(shape.NEmbd)
	parts := 0.0 // of a layer's stored weights in its matrix, the mean of all layers
	for i := range shape.NLayer {
		if name := shape.LayerAlgebra(i); name == "walsh" {
			parts++
		} else {
			parts += float64(arch.AlgebraDim(name))
		}
	}
	parts /= float64(shape.NLayer)
	stream, rest := activations(cfg, shape)
	logits := min(2*float64(cfg.BatchSize)*float64(cfg.BlockSize)*float64(shape.VocabSize), 512<<20)
	return int(min(16*params+2*embedding+4*parts*(params-embedding)+logits+4*stream+2*rest, math.MaxInt/2))
}

// activations is how many values of the residual stream and how many others a
// micro-batch keeps for its backward pass.
func activations(cfg train.Config, shape arch.Config) (stream, rest float64) {
	d, hidden, layers := float64(shape.NEmbd), float64(shape.HiddenDim), float64(shape.NLayer)
	perLayer := 8*d + 2*float64(shape.KVDim()) + 3*hidden
	kept := layers
	if cfg.Recompute {
		kept = 1
	}
	tokens := float64(cfg.BatchSize) * float64(cfg.BlockSize)
	return tokens * (layers + 4) * d, tokens * (kept*perLayer + 3*hidden)
}

// withNeed adds to the error of a GPU that is full how much the recipe needs in
// all.
func withNeed(err error, cfg train.Config, shape arch.Config) error {
	if e, ok := errors.AsType[*cuda.Error](err); !ok || !e.OutOfMemory() {
		return err
	}
	return &dataset.HintError{Err: err, Text: fmt.Sprintf("this recipe needs about %s on the GPU", bytesText(gpuMemoryEstimate(cfg, shape)))}
}

// checkMemory refuses a run that cannot fit, which would otherwise end
// without a word when the system runs out.
func checkMemory(cfg train.Config, shape arch.Config) error {
	have := machineMemory()
	if need := memoryEstimate(cfg, shape); have > 0 && need > have {
		return &dataset.HintError{Err: fmt.Errorf("this recipe needs about %s of memory; there are %s", bytesText(need), bytesText(have)),
			Text: "lower batch_size and raise gradient_accumulation_steps, set recompute = true, or make the model smaller"}
	}
	return nil
}

// timeEstimate measures the seconds a token takes: a step of one layer and
// one of two, on a small batch, carried on to the recipe's number of layers.
func timeEstimate(cfg train.Config, data *dataset.Dataset) (float64, error) {
	small := cfg
	small.BatchSize = max(1, min(cfg.BatchSize, 1024/cfg.BlockSize))
	small.GradAccum = 1
	small.EvalInterval, small.SampleTokens = 0, 0
	var seconds [3]float64
	for layers := 1; layers <= 2; layers++ {
		small.NLayer = layers
		dev, _, err := openDevice(cfg)
		if err != nil {
			return 0, err
		}
		t, err := train.New(small, data, train.Options{Threads: cfg.Threads, Device: dev})
		if err != nil {
			return 0, err
		}
		for i := range 5 {
			start := time.Now()
			if _, _, err = t.TrainStep(context.Background()); err != nil {
				break
			}
			if s := time.Since(start).Seconds(); i == 2 || i > 2 && s < seconds[layers] { // the first two warm up
				seconds[layers] = s
			}
		}
		t.Close()
		if err != nil {
			return 0, err
		}
	}
	step := seconds[1] + max(0, seconds[2]-seconds[1])*float64(cfg.NLayer-1)
	return step / float64(small.TokensPerStep()), nil
}
