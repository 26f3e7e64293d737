//go:build !nocuda && (amd64 || arm64)

package cuda

import (
	"errors"
	"syscall"
)

// openLibrary opens the first of the shared libraries that is there.
func openLibrary(names ...string) (uintptr, error) {
	var all error
	for _, name := range names {
		handle, err := syscall.LoadLibrary(name)
		if err == nil {
			return uintptr(handle), nil
		}
		all = errors.Join(all, err)
	}
	return 0, all
}

// symbol is a function's address, 0 if the library lacks it.
func symbol(library uintptr, name string) uintptr {
	addr, err := syscall.GetProcAddress(syscall.Handle(library), name)
	if err != nil {
		return 0
	}
	return addr
}

// driverNames are where the driver is looked for.
var driverNames = []string{"nvcuda.dll"}

// cublasNames are where cuBLASLt is looked for.
var cublasNames = []string{"cublasLt64_13.dll", "cublasLt64_12.dll"}
