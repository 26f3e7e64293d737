package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"spinnet/cuda"
	"spinnet/dataset"
	"spinnet/tensor"
)

// openDevice opens what a recipe's key device asks for; nil stands for the
// CPU. auto is the first GPU where it works; where not, note says why.
func openDevice(name string) (dev tensor.Device, note string, err error) {
	number := 0
	switch {
	case name == "cpu":
		return nil, "", nil
	case name == "auto":
		if dev, err = cuda.Open(0); err != nil {
			return nil, "on the CPU: " + strings.TrimPrefix(err.Error(), "cuda: "), nil
		}
		return dev, "", nil
	case strings.HasPrefix(name, "cuda:"):
		if number, err = strconv.Atoi(name[len("cuda:"):]); err != nil {
			return nil, "", fmt.Errorf("device = %q: %w", name, err)
		}
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
