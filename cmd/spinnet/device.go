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

// openDevice opens what a recipe's key device asks for; nil stands for the
// CPU. auto is the first GPU where it works for the recipe; where not, note says
// why.
func openDevice(cfg train.Config) (dev tensor.Device, note string, err error) {
	number, err := deviceNumber(cfg.Device)
	if err != nil || cfg.Device == deviceCPU {
		return nil, "", err
	}
	if err = cuda.Trains(cfg.NEmbd / cfg.NHead); err == nil {
		dev, err = cuda.Open(number)
	}
	switch {
	case err == nil:
		return dev, "", nil
	case cfg.Device == deviceAuto:
		return nil, onCPU(err), nil
	}
	return nil, "", &dataset.HintError{Err: err, Text: "device = cpu trains without a GPU"}
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
