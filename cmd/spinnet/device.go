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
// CPU. auto is the first GPU where it works; where not, note says why.
func openDevice(name string) (dev tensor.Device, note string, err error) {
	number, err := deviceNumber(name)
	switch {
	case err != nil || name == deviceCPU:
		return nil, "", err
	case name == deviceAuto:
		if dev, err = cuda.Open(0); err != nil {
			return nil, onCPU(err), nil
		}
		return dev, "", nil
	}
	if dev, err = cuda.Open(number); err != nil {
		return nil, "", &dataset.HintError{Err: err, Text: "device = cpu trains without a GPU"}
	}
	return dev, "", nil
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
