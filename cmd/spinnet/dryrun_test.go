package main

import (
	"errors"
	"strings"
	"testing"

	"spinnet/cuda"
	"spinnet/train"
)

// TestWithNeed: only the error of a full GPU is added to, and stays what it is.
func TestWithNeed(t *testing.T) {
	data, remove, err := shakespeare()
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	cfg, err := train.LoadConfig("small", []byte("dataset = 'x'\nn_layer = 1\nn_embd = 64\nn_head = 8\nhidden_dim = 64\nblock_size = 32\nbatch_size = 2\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []error{errors.New("other"), &cuda.Error{Call: "cuLaunchKernelEx", Name: "CUDA_ERROR_LAUNCH_FAILED", Code: 719}} {
		if got := withNeed(want, cfg, data); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	full := &cuda.Error{Call: "cuMemAlloc_v2", Device: "cuda:0", Name: "CUDA_ERROR_OUT_OF_MEMORY", Code: 2}
	got := withNeed(full, cfg, data)
	if !errors.Is(got, full) || strings.Contains(got.Error(), "\n") {
		t.Errorf("got %q, want %q with more in the same line", got, full)
	}
	_, _, none := gpuMemory(cfg, data)
	if has := strings.Contains(got.Error(), "the recipe needs about "); has != (none == nil) {
		t.Errorf("got %q where a GPU says %v", got, none)
	}
}
