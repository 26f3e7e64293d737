package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"spinnet/cuda"
	"spinnet/dataset"
	"spinnet/train"
)

// TestFirstOpen: of several GPUs the first that opens is taken, and where none
// does the first one's error is kept.
func TestFirstOpen(t *testing.T) {
	for _, c := range []struct {
		first, count int
		good         []bool
		want         int // −1: an error
	}{
		{0, 1, []bool{true}, 0},
		{0, 3, []bool{false, true, true}, 1},
		{0, 3, []bool{false, false, true}, 2},
		{0, 2, []bool{false, false}, -1},
		{1, 2, []bool{true, false, true}, -1}, // asked for by its number
	} {
		got, err := firstOpen(c.first, c.count, func(n int) (int, error) {
			if !c.good[n] {
				return -1, fmt.Errorf("GPU %d is in use", n)
			}
			return n, nil
		})
		if c.want < 0 {
			if want := fmt.Sprintf("GPU %d is in use", c.first); err == nil || err.Error() != want {
				t.Errorf("%v: got %d and error %v, want %q", c, got, err, want)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%v: got %d and error %v, want %d", c, got, err, c.want)
		}
	}
	if _, err := openGPU("cuda:x", func(int) (int, error) { return 0, errors.New("opened") }); err == nil || err.Error() == "opened" {
		t.Errorf("cuda:x: got %v, want what is wrong with the name", err)
	}
}

// TestGPUMemoryEstimate: near what the benchmarks took on an H100
// (docs/benchmarks.md).
func TestGPUMemoryEstimate(t *testing.T) {
	const vocab = 65 // of the text that the benchmarks train on
	for _, c := range []struct {
		recipe          string
		octonion, walsh float64 // MiB
	}{{gpuChars, 3058, 2972}, {gpu50k, 2468, 2382}, {gpu124m, 15878, 14289}} {
		for algebra, want := range map[string]float64{"octonion": c.octonion, "walsh": c.walsh} {
			cfg, err := train.LoadConfig("bench", []byte("dataset = 'x'\n"+c.recipe), []string{"algebra=" + algebra})
			if err != nil {
				t.Fatal(err)
			}
			if got := float64(gpuMemoryEstimate(cfg, cfg.Arch(vocab))) / (1 << 20); math.Abs(got/want-1) > 0.07 {
				t.Errorf("%s %q: about %.0f MiB, want near %.0f", algebra, c.recipe, got, want)
			}
		}
	}
}

// TestWithNeed: only a GPU that is full is told how much would do.
func TestWithNeed(t *testing.T) {
	cfg, err := train.LoadConfig("bench", []byte("dataset = 'x'\n"+gpuChars), nil)
	if err != nil {
		t.Fatal(err)
	}
	shape := cfg.Arch(65)
	full := fmt.Errorf("train: %w", &cuda.Error{Call: "cuMemAlloc_v2", Name: "CUDA_ERROR_OUT_OF_MEMORY", Code: 2})
	hint, ok := errors.AsType[*dataset.HintError](withNeed(full, cfg, shape))
	if !ok || !strings.Contains(hint.Hint(), "needs about 3.") || !strings.Contains(hint.Hint(), "GB on the GPU") {
		t.Errorf("got %v", withNeed(full, cfg, shape))
	}
	for _, err := range []error{nil, errors.New("other"), &cuda.Error{Name: "CUDA_ERROR_ILLEGAL_ADDRESS", Code: 700}} {
		if got := withNeed(err, cfg, shape); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}
