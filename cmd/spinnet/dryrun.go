package main

import (
	"fmt"
	"io"
	"time"

	"spinnet/arch"
	"spinnet/dataset"
	"spinnet/train"
)

// dryRun prints what a run would be: parameters, memory and speed.
func dryRun(w io.Writer, cfg train.Config, data *dataset.Dataset) error {
	shape := cfg.Arch(data.VocabSize)
	fmt.Fprint(w, cfg.Resolved(), "\n")
	printModel(w, cfg, shape)
	fmt.Fprintf(w, "memory      about %s\n", bytesText(memoryEstimate(cfg, shape)))
	perToken, err := timeEstimate(cfg, data)
	if err != nil {
		return err
	}
	tokens := float64(cfg.TokensPerStep()) * float64(cfg.MaxIters)
	total := time.Duration(tokens * perToken * float64(time.Second))
	_, err = fmt.Fprintf(w, "speed       about %.0f tokens/s: %s for %s steps\n", 1/perToken, round(total), thousands(cfg.MaxIters))
	return err
}

// memoryEstimate is the bytes a run holds: weights, gradients and two moments
// of every parameter, quantised and packed copies, and the activations that
// the backward pass reads.
func memoryEstimate(cfg train.Config, shape arch.Config) int {
	params := 0
	for _, p := range arch.Params(shape) {
		params += p.Len()
	}
	tokens := cfg.BatchSize * cfg.BlockSize
	layer := 8*shape.NEmbd + 2*shape.KVDim() + 3*shape.HiddenDim
	layers := shape.NLayer
	if cfg.Recompute {
		layers = 1
	}
	activations := tokens * (layers*layer + (shape.NLayer+4)*shape.NEmbd + 3*shape.HiddenDim)
	return 4 * (4*params + 2*params + activations)
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
		t, err := train.New(small, data, train.Options{Threads: cfg.Threads})
		if err != nil {
			return 0, err
		}
		for i := range 4 {
			start := time.Now()
			if _, _, err = t.TrainStep(); err != nil {
				break
			}
			if s := time.Since(start).Seconds(); i == 1 || i > 1 && s < seconds[layers] { // the first warms up
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
