//go:build unix

package train

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// lock takes out_dir for this run, until unlock or the process's end. A folder
// that is not there yet has nothing to keep, and file systems without locks
// are trusted.
func (t *Trainer) lock() error {
	if t.held != nil {
		return nil
	}
	dir, err := os.Open(t.cfg.OutDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		dir.Close()
		return fmt.Errorf("train: another process trains in %s; stop it first, or choose another --out_dir", t.cfg.OutDir)
	}
	t.held = dir
	return nil
}
