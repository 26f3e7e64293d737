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
	"spinnet/tensor"
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
	if dev == nil {
		fmt.Fprintf(w, "memory      about %s\n", bytesText(memoryEstimate(cfg, shape)))
		err = checkMemory(cfg, shape)
	} else {
		err = printGPUMemory(w, cfg, data)
	}
	if err != nil {
		return err
	}
	perToken, err := timeEstimate(cfg, data)
	if err != nil {
		return err
	}
	tokens := float64(cfg.TokensPerStep()) * float64(cfg.MaxIters)
	total := time.Duration(min(tokens*perToken, maxSeconds) * float64(time.Second))
	_, err = fmt.Fprintf(w, "speed       about %.0f tokens/s: %s for %s steps\n", 1/perToken, round(total), thousands(cfg.MaxIters))
	return err
}

// maxSeconds, some 290 years, is about the most that a time.Duration holds.
const maxSeconds = 9e9

// memoryEstimate is the bytes a run holds: weights, gradients and two moments
// of every parameter, quantised and packed copies, and the activations that
// the backward pass reads.
func memoryEstimate(cfg train.Config, shape arch.Config) int {
	n := arch.Count(shape)
	params := float64(n.Ternary + n.Float)
	d, hidden, layers := float64(shape.NEmbd), float64(shape.HiddenDim), float64(shape.NLayer)
	perLayer := 8*d + 2*float64(shape.KVDim()) + 3*hidden
	kept := layers
	if cfg.Recompute {
		kept = 1
	}
	activations := float64(cfg.BatchSize) * float64(cfg.BlockSize) * (kept*perLayer + (layers+4)*d + 3*hidden)
	return int(min(4*(6*params+activations), math.MaxInt/2))
}

// checkMemory refuses a run that cannot fit, which would otherwise end
// without a word when the system runs out.
func checkMemory(cfg train.Config, shape arch.Config) error {
	have := machineMemory()
	if need := memoryEstimate(cfg, shape); have > 0 && need > have {
		return tooLarge(need, have, "memory")
	}
	return nil
}

func tooLarge(need, have int, memory string) error {
	return &dataset.HintError{Err: fmt.Errorf("this recipe needs about %s of %s; there are %s", bytesText(need), memory, bytesText(have)),
		Text: "lower batch_size and raise gradient_accumulation_steps, set recompute = true, or make the model smaller"}
}

// gpuMemory is the bytes that a run takes of the GPU of its recipe, beside some
// half a gigabyte that the driver takes.
func gpuMemory(cfg train.Config, data *dataset.Dataset) (need int, gpu cuda.Info, err error) {
	bytes, err := openGPU(cfg.Device, func(number int) (n uint64, err error) {
		n, gpu, err = cuda.Measure(number, func(dev tensor.Device) error { return train.Measure(cfg, data, dev) })
		return n, err
	})
	return int(min(bytes, math.MaxInt/2)), gpu, err
}

// printGPUMemory prints it, and refuses a run that cannot fit.
func printGPUMemory(w io.Writer, cfg train.Config, data *dataset.Dataset) error {
	need, gpu, err := gpuMemory(cfg, data)
	if err != nil {
		return err
	}
	have := int(min(gpu.Memory, math.MaxInt/2))
	fmt.Fprintf(w, "memory      about %s of the GPU's %s\n", bytesText(need), bytesText(have))
	if need > have {
		return tooLarge(need, have, "memory on the GPU")
	}
	return nil
}

// withNeed adds to the error of a GPU that is full how much the recipe needs.
func withNeed(err error, cfg train.Config, data *dataset.Dataset) error {
	if e, ok := errors.AsType[*cuda.Error](err); !ok || !e.OutOfMemory() {
		return err
	}
	need, _, measured := gpuMemory(cfg, data)
	if measured != nil {
		return err
	}
	return fmt.Errorf("%w; the recipe needs about %s on the GPU in all", err, bytesText(need))
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
