package interop

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// WriteFile writes a file that is either wholly there or not at all: write
// fills a temporary file in the same folder, which is synced and renamed to
// path. On any error the temporary file is removed and what stood at path
// stays.
func WriteFile(path string, write func(w io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close() // a second Close does no harm
			_ = os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes renames inside a folder durable. Systems that cannot sync a
// folder (Windows) need no more than the rename, so only its opening fails.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	defer d.Close()
	_ = d.Sync()
	return nil
}
