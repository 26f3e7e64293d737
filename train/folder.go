package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"spinnet/dataset"
	"spinnet/interop"
	"spinnet/runlog"
)

// configFile is the recipe in a run's folder.
const configFile = "config.toml"

// openFolder makes out_dir ready: it refuses one that is not this run's,
// checks the dataset if nobody has, and opens metrics.jsonl. Until nothing is
// left to refuse it changes nothing.
func (t *Trainer) openFolder(ctx context.Context, o Observer) error {
	if err := t.lock(); err != nil { // first: files of a run that is going would puzzle checkFolder
		return err
	}
	if err := t.checkFolder(); err != nil {
		return err
	}
	if t.data.Bare() {
		o.Note(fmt.Sprintf("dataset %s has no %s: its files are read as nanoGPT's, %d tokens by %s", t.data.Name, dataset.ManifestFile, t.data.VocabSize, t.data.Tokenizer.Kind()))
	}
	if !t.data.Verified() {
		o.Note(fmt.Sprintf("checking the %d MB of dataset %s", t.data.Size()/1e6, t.data.Name))
		if err := t.data.Verify(ctx); err != nil && !stopped(ctx, err) { // the next run checks it
			return err
		}
	}
	if err := os.MkdirAll(t.cfg.OutDir, 0o755); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if err := t.lock(); err != nil { // a folder that was not there before
		return err
	}
	if err := t.checkFolder(); err != nil { // what another run left meanwhile
		return err
	}
	if err := t.writeConfig(); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	path := filepath.Join(t.cfg.OutDir, runlog.File)
	if t.resumed {
		if err := t.relink(); err != nil {
			return err
		}
		if err := runlog.Truncate(path, t.step); err != nil {
			return err
		}
	}
	var err error
	t.log, err = runlog.Append(path)
	return err
}

// checkFolder refuses an out_dir with files that a new run would change: those
// of another run, or of another program.
func (t *Trainer) checkFolder() error {
	if t.resumed || t.overwrite {
		return nil
	}
	if _, err := t.lastCheckpoint(); err == nil {
		return fmt.Errorf("train: %s already holds a run; add --resume to go on with it, --overwrite to replace it, or choose another --out_dir", t.cfg.OutDir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("train: %w", err)
	}
	path := filepath.Join(t.cfg.OutDir, runlog.File)
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		return fmt.Errorf("train: %s is there already without a checkpoint: it is of a run stopped before its first one, or not of a run; add --overwrite to replace it, or choose another --out_dir", path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("train: %w", err)
	}
	path = filepath.Join(t.cfg.OutDir, configFile)
	if have, err := os.ReadFile(path); err == nil && string(have) != t.cfg.TOML() {
		return fmt.Errorf("train: %s is there already and is another recipe; add --overwrite to replace it, or choose another --out_dir", path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("train: %w", err)
	}
	return nil
}

// unlock ends what lock began.
func (t *Trainer) unlock() {
	if t.held != nil {
		t.held.Close()
		t.held = nil
	}
}

// writeConfig leaves the recipe in out_dir, where it also serves --resume: the
// old one stays until the new one is whole.
func (t *Trainer) writeConfig() error {
	path, text := filepath.Join(t.cfg.OutDir, configFile), []byte(t.cfg.TOML())
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, text) {
		return nil
	}
	return interop.WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

// Overwrite removes the checkpoints and the metrics of an earlier run in
// out_dir, and lets Run write there. Other files stay.
func (t *Trainer) Overwrite() error {
	if err := t.lock(); err != nil {
		return err
	}
	root := t.checkpointsDir()
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("train: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name == "last" || name == "best" || strings.HasPrefix(name, "step-") {
			if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
				return fmt.Errorf("train: %w", err)
			}
		}
	}
	if err := os.Remove(filepath.Join(t.cfg.OutDir, runlog.File)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("train: %w", err)
	}
	t.overwrite = true
	return nil
}
