package main

import (
	"fmt"
	"io"
	"strings"

	"spinnet/cuda"
	"spinnet/dataset"
	"spinnet/tensor"
	"spinnet/train"
)

// Names of devices, beside cuda and cuda:N.
const (
	deviceAuto = "auto"
	deviceCPU  = "cpu"
)

// deviceNumber is the GPU that a device's name asks for, 0 where it names none.
func deviceNumber(name string) (int, error) {
	if name == deviceAuto || name == deviceCPU {
		return 0, nil
	}
	n, ok := train.GPUNumber(name)
	if !ok {
		return 0, fmt.Errorf("device %q: want auto, cpu, cuda or cuda:N", name)
	}
	return n, nil
}

// onCPU says why a GPU was not taken.
func onCPU(err error) string { return "on the CPU: " + strings.TrimPrefix(err.Error(), "cuda: ") }

// openGPU opens the GPU that a device's name asks for, or with auto the first
// that opens; where none does, the error is that of the first.
func openGPU[T any](name string, open func(number int) (T, error)) (opened T, err error) {
	number, err := deviceNumber(name)
	if err != nil {
		return opened, err
	}
	count := number + 1
	if name == deviceAuto {
		gpus, _, _ := cuda.Devices() // an error comes again from open
		count = max(1, len(gpus))
	}
	return firstOpen(number, count, open)
}

// firstOpen opens the first of the numbers from first to count−1 that opens.
func firstOpen[T any](first, count int, open func(number int) (T, error)) (opened T, err error) {
	for n := first; n < count; n++ {
		o, e := open(n)
		if e == nil {
			return o, nil
		}
		if n == first {
			err = e
		}
	}
	return opened, err
}

// openDevice opens what a recipe's key device asks for; nil stands for the
// CPU. auto is the first GPU that works for the recipe; where none does, note
// says why.
func openDevice(cfg train.Config) (dev tensor.Device, note string, err error) {
	if cfg.Device == deviceCPU {
		return nil, "", nil
	}
	if err = cuda.Trains(cfg.NEmbd / cfg.NHead); err == nil {
		dev, err = openGPU(cfg.Device, cuda.Open)
	}
	switch {
	case err == nil:
		return dev, "", nil
	case cfg.Device == deviceAuto:
		return nil, onCPU(err), nil
	}
	return nil, "", &dataset.HintError{Err: err, Text: "--device=cpu trains without a GPU"}
}

// noteDevice says what computes, and why when it is not what could be.
func noteDevice(w io.Writer, dev tensor.Device, note string) {
	if note == "" && dev != nil {
		note = dev.Name()
	}
	if note != "" {
		fmt.Fprintf(w, "device      %s\n", note)
	}
}
