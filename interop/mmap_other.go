//go:build !unix

package interop

import "os"

// mapFile reads a file; mapping it is for unix.
func mapFile(path string) ([]byte, error) { return os.ReadFile(path) }

func unmapFile([]byte) {}
