//go:build unix

package replica

import (
	"fmt"
	"os"
	"syscall"
)

// lock takes a folder for this process, until the file is closed or the
// process ends.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("replica: %s: another replica keeps its state there: %w", path, err)
	}
	return f, nil
}
