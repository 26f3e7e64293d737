//go:build unix

package interop

import (
	"os"
	"syscall"
)

// mapFile maps a file into memory, to read only, or reads it where that
// cannot be done (a pipe, an empty file).
func mapFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if size := info.Size(); info.Mode().IsRegular() && size > 0 && int64(int(size)) == size {
		if data, err := syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_PRIVATE); err == nil {
			return data, nil
		}
	}
	return os.ReadFile(path)
}

// unmapFile gives mapped memory back. What was not mapped stays as it is.
func unmapFile(data []byte) { _ = syscall.Munmap(data) }
