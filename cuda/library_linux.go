//go:build !nocuda && (amd64 || arm64)

package cuda

import (
	"errors"

	"github.com/ebitengine/purego"
)

// openLibrary opens the first of the shared libraries that is there.
func openLibrary(names ...string) (uintptr, error) {
	var all error
	for _, name := range names {
		handle, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err == nil {
			return handle, nil
		}
		all = errors.Join(all, err)
	}
	return 0, all
}

// symbol is a function's address, 0 if the library lacks it.
func symbol(library uintptr, name string) uintptr {
	addr, err := purego.Dlsym(library, name)
	if err != nil {
		return 0
	}
	return addr
}

// driverNames are where the driver is looked for.
var driverNames = []string{"libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1"}

// cublasNames are where cuBLASLt is looked for.
var cublasNames = []string{"libcublasLt.so.13", "libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.12"}
