//go:build nocuda || !((linux || windows) && (amd64 || arm64))

package cuda

import (
	"spinnet/arch"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/tensor"
)

// Devices lists the GPUs and says which driver they have.
func Devices() (gpus []Info, driver string, err error) { return nil, "", ErrLeftOut }

// Open returns GPU number, from 0, as a device. That there is no driver, no such
// GPU, or one that is too old or taken is an error; ErrNoDriver, ErrNoKernels and
// ErrLeftOut can be told apart.
func Open(int) (tensor.Device, error) { return nil, ErrLeftOut }

// Measure gives the bytes that something would take on a GPU.
func Measure(int, func(tensor.Device) error) (uint64, Info, error) { return 0, Info{}, ErrLeftOut }

// CuBLAS is the version of cuBLASLt in use.
func CuBLAS() (string, error) { return "", ErrLeftOut }

// Session is a model on a GPU. There is none here.
type Session struct{}

// NewSession puts a model on a GPU.
func NewSession(int, *spinfile.Model, engine.Options) (*Session, error) { return nil, ErrLeftOut }

// Name is the number and the name of the GPU.
func (s *Session) Name() string { return "" }

// Numeric is the arithmetic in use.
func (s *Session) Numeric() string { return "" }

// Memory is the bytes of device memory taken.
func (s *Session) Memory() (weights, cache, all uint64) { return 0, 0, 0 }

// Config is the model's configuration.
func (s *Session) Config() arch.Config { return arch.Config{} }

// Pos is the number of tokens read.
func (s *Session) Pos() int { return 0 }

// Reset empties the session.
func (s *Session) Reset() {}

// Prefill reads ids.
func (s *Session) Prefill([]int32) ([]float32, error) { return nil, ErrLeftOut }

// Draw draws the next token.
func (s *Session) Draw(*engine.Sampler) int32 { return 0 }

// Score reads ids.
func (s *Session) Score([]float32, []int32, []int32) ([]float32, error) { return nil, ErrLeftOut }

// Close gives back all memory.
func (s *Session) Close() {}
