//go:build nocuda || !((linux || windows) && (amd64 || arm64))

package cuda

import (
	"errors"

	"spinnet/tensor"
)

// errLeftOut says why there is no GPU here.
var errLeftOut = errors.New("cuda: this build has no GPU support (build tag nocuda, or a system without CUDA)")

// Devices lists the GPUs and the driver's version, such as "13.0".
func Devices() (gpus []Info, driver string, err error) { return nil, "", errLeftOut }

// Open returns the GPU of that number as a device.
func Open(int) (tensor.Device, error) { return nil, errLeftOut }

// CuBLAS is the version of cuBLASLt in use.
func CuBLAS() (string, error) { return "", errLeftOut }
