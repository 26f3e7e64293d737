//go:build !wasm

package kernel

import "syscall"

// forcedSet reads SPINNET_KERNEL. (Not through package os, which the
// WebAssembly module does without.)
func forcedSet() string {
	v, _ := syscall.Getenv("SPINNET_KERNEL")
	return v
}
