package interop

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile writes a file that is either wholly there or not at all: write
// fills a temporary file in the same folder, which is synced and renamed to
// path. On any error the temporary file is removed and what stood at path
// stays. Where path is a symbolic link, the file that it leads to is written;
// what is no file (a folder, a device, a pipe) is refused.
func WriteFile(path string, write func(w io.Writer) error) (err error) {
	name := path
	bad := func(err error) error {
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err // without the name of the temporary file
		}
		if l, ok := errors.AsType[*os.LinkError](err); ok {
			err = l.Err
		}
		return fmt.Errorf("interop: %s cannot be written: %w", name, err)
	}
	if path, err = writable(path); err != nil {
		return bad(err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return bad(err)
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
		return bad(err)
	}
	if err := f.Chmod(0o644); err != nil {
		return bad(err)
	}
	if err := f.Close(); err != nil {
		return bad(err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return bad(err)
	}
	return SyncDir(filepath.Dir(path))
}

// writable gives the path of the file that writing to path would write.
func writable(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return "", errors.New("it is a folder")
	case err == nil && !info.Mode().IsRegular():
		return "", errors.New("it is not a regular file")
	case err == nil:
		return filepath.EvalSymlinks(path)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	// A link may lead to a file that is yet to be written.
	for range 16 {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("there is no folder %s", filepath.Dir(path))
		}
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		link, err := os.Readlink(path)
		if err != nil {
			return path, nil // not a link
		}
		if path = link; !filepath.IsAbs(link) {
			path = filepath.Join(dir, link)
		}
	}
	return "", errors.New("too many symbolic links")
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
