package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// datasetFiles are the files a dataset folder may hold: a folder with any
// other is never replaced.
var datasetFiles = map[string]bool{
	ManifestFile: true, "train.bin": true, "val.bin": true, "train.u32": true, "val.u32": true, "meta.pkl": true,
}

// checkTarget tells whether dir may be made or replaced.
func checkTarget(dir string, force bool) error {
	if dir == "" {
		return errors.New("dataset: no folder to write to")
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("dataset: %w", err)
	case len(entries) == 0:
		return nil
	case !force:
		return &HintError{fmt.Errorf("dataset: %s exists already", dir), "add --force to replace it"}
	}
	for _, e := range entries {
		if !datasetFiles[e.Name()] || !e.Type().IsRegular() {
			return fmt.Errorf("dataset: %s is not replaced: it holds %q, which is no file of a dataset", dir, e.Name())
		}
	}
	return nil
}

// replaceDir has write fill a new folder beside dir, then puts it in dir's
// place by renaming. On any error dir stays as it was.
func replaceDir(dir string, force bool, write func(tmp string) error) error {
	parent, base := filepath.Dir(filepath.Clean(dir)), filepath.Base(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o777); err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	tmp, err := os.MkdirTemp(parent, base+".*.tmp")
	if err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	keep := false // tmp holds the only copy of the old dataset
	defer func() {
		if !keep {
			os.RemoveAll(tmp)
		}
	}()
	fresh := filepath.Join(tmp, "new")
	if err := os.Mkdir(fresh, 0o777); err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	if err := write(fresh); err != nil {
		return err
	}
	if err := syncDir(fresh); err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	// Someone may have made the folder meanwhile.
	if err := checkTarget(dir, force); err != nil {
		return err
	}
	old := filepath.Join(tmp, "old")
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("dataset: %w", err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		if back := os.Rename(old, dir); back != nil && !errors.Is(back, fs.ErrNotExist) {
			keep = true
			return fmt.Errorf("dataset: %w (the old dataset is in %s: %v)", err, old, back)
		}
		return fmt.Errorf("dataset: %w", err)
	}
	if err := syncDir(parent); err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	return nil
}

// writeFile writes a new file and flushes it to the disk.
func writeFile(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	return nil
}

// syncDir makes renames in a folder durable, where the system can.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
