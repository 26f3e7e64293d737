// Package cuda is the tensor.Device of NVIDIA GPUs. It needs the driver alone:
// libcuda is opened at run time, without cgo, and the kernels (cuda/*.cu, one
// stem an operation, as in package kernel) travel compiled in kernels/. It may
// import arch, algebra, tensor, spinfile and engine.
//
// Build tag nocuda leaves all of it out; so do systems that CUDA does not run
// on. What other packages call is there all the same and says why it does nothing.
package cuda

import (
	"errors"
	"fmt"
	"strings"
)

//go:generate ./build.sh

// maxHeadDim is the widest attention head that can be trained.
const maxHeadDim = 128

// Trains tells whether a GPU can train a model with attention heads of headDim
// values each: even, and at most 128. The error says so.
func Trains(headDim int) error {
	if headDim > maxHeadDim || headDim%2 != 0 {
		return fmt.Errorf("cuda: attention heads of %d values; on the GPU want an even number up to %d (n_embd / n_head), or device = cpu", headDim, maxHeadDim)
	}
	return nil
}

// Info describes one GPU.
type Info struct {
	Index  int    `json:"index"`
	Name   string `json:"name"`
	Memory uint64 `json:"memory"` // bytes
	Major  int    `json:"major"`  // compute capability
	Minor  int    `json:"minor"`

	Unusable string `json:"unusable,omitempty"` // why we cannot compute on it
}

// String is the GPU in one line.
func (i Info) String() string {
	return fmt.Sprintf("cuda:%d %s, %.1f GB, sm_%d%d", i.Index, i.Name, float64(i.Memory)/1e9, i.Major, i.Minor)
}

// What a driver and a GPU must at least be. The compiler of the kernels (see
// kernels/kernels.json) sets the first.
const (
	minDriver     = 13000 // CUDA 13.0, as cuDriverGetVersion counts
	minDriverName = "580"
	minMajor      = 8 // sm_80, the first with bf16 tensor cores
)

// Reasons for there being no GPU to compute with.
var (
	// ErrNoDriver: the driver's library cannot be opened.
	ErrNoDriver = errors.New("cuda: no NVIDIA driver")
	// ErrNoKernels: this binary, or the folder that is named in their place, has
	// no compiled kernels.
	ErrNoKernels = errors.New("cuda: no compiled kernels")
	// ErrLeftOut: this binary, or this system, has no CUDA at all.
	ErrLeftOut = errors.New("cuda: this build has no GPU support (build tag nocuda, or a system without CUDA)")
)

// Error is a failed call of the driver.
type Error struct {
	Call   string // the driver's function, or a kernel's name
	Device string // "cuda:0 NVIDIA H100"; empty before there is one
	Name   string // the driver's name of the error, such as CUDA_ERROR_OUT_OF_MEMORY
	Code   int
	Hint   string // what may help; may be empty
}

// Error is one line.
func (e *Error) Error() string {
	s := "cuda: "
	if e.Device != "" {
		s += e.Device + ": "
	}
	s += fmt.Sprintf("%s: %s (%d)", e.Call, e.Name, e.Code)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// OutOfMemory tells whether the GPU's memory was too little.
func (e *Error) OutOfMemory() bool {
	return e.Name == "CUDA_ERROR_OUT_OF_MEMORY" && !strings.HasPrefix(e.Call, "cuMemAllocHost") // which takes the machine's
}
