package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"spinnet/arch"
	"spinnet/interop"
	"spinnet/runlog"
	"spinnet/spinfile"
	"spinnet/tensor"
)

// optimizerFile holds AdamW's two moments of every parameter.
const optimizerFile = "optimizer.safetensors"

// Prefixes of the moments' names, as PyTorch calls them.
const (
	meanPrefix     = "exp_avg."
	variancePrefix = "exp_avg_sq."
)

// state is a checkpoint's state.json: what interop.Open needs to run the
// model, and what the trainer needs to go on.
type state struct {
	interop.State          // model, tokenizer, step
	Config        Config   `json:"config"`
	DatasetHash   string   `json:"dataset_hash"`
	Elapsed       float64  `json:"elapsed_s"`
	Smooth        float64  `json:"smooth_loss"`
	EvalStep      *int     `json:"eval_step,omitempty"` // of the last evaluation
	Train         *float64 `json:"train_loss,omitempty"`
	Val           *float64 `json:"val_loss,omitempty"`
	BestStep      *int     `json:"best_step,omitempty"` // of the best evaluation
	BestVal       *float64 `json:"best_val_loss,omitempty"`
}

// Steps of evaluations are −1 for none, as are losses NaN.
func stepOrNil(step int) *int {
	if step < 0 {
		return nil
	}
	return &step
}

func orNone(step *int) int {
	if step == nil {
		return -1
	}
	return *step
}

func finiteOrNil(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

func orNaN(x *float64) float64 {
	if x == nil {
		return math.NaN()
	}
	return *x
}

// checkpointsDir is where the run's checkpoints stand.
func (t *Trainer) checkpointsDir() string { return filepath.Join(t.cfg.OutDir, "checkpoints") }

func stepDir(step int) string { return fmt.Sprintf("step-%08d", step) }

// save writes a checkpoint of the current step, if it is not there already,
// and points "last" (and "best") at it. A checkpoint appears whole or not at
// all: its files are synced in a folder that is renamed at the end.
func (t *Trainer) save(best bool) (dir string, err error) {
	root := t.checkpointsDir()
	dir = filepath.Join(root, stepDir(t.step))
	switch {
	case t.savedStep != t.step:
		err = t.writeCheckpoint(root, dir)
	case t.savedEval != t.last.Step: // evaluated since
		err = interop.WriteFile(filepath.Join(dir, interop.StateFile), t.writeState)
	}
	if err != nil {
		return "", fmt.Errorf("train: checkpoint of step %d not written: %w; %s", t.step, err, t.kept())
	}
	t.savedStep, t.savedEval = t.step, t.last.Step
	// Killed between the two, best leads to the best checkpoint there is, and
	// relink puts it back to the best that last knows of. Only when both
	// are set may old checkpoints go.
	if best {
		if err := link(root, "best", stepDir(t.step)); err != nil {
			return "", err
		}
	}
	if err := link(root, "last", stepDir(t.step)); err != nil {
		return "", err
	}
	return dir, t.prune(root)
}

func (t *Trainer) writeCheckpoint(root, dir string) (err error) {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	weights := make([]interop.SafeTensor, 0, len(t.model.Params))
	moments := make([]interop.SafeTensor, 0, 2*len(t.model.Params))
	for i, p := range t.model.Params {
		weights = append(weights, interop.SafeTensor{Name: p.Name, Shape: p.Shape, Data: t.host(p.Value)})
		moments = append(moments,
			interop.SafeTensor{Name: meanPrefix + p.Name, Shape: p.Shape, Data: t.host(t.adam.M[i])},
			interop.SafeTensor{Name: variancePrefix + p.Name, Shape: p.Shape, Data: t.host(t.adam.V[i])})
	}
	if err := t.model.Device.Sync(); err != nil { // what it gave may be wrong
		return err
	}
	for _, f := range []struct {
		name  string
		write func(w io.Writer) error
	}{
		{interop.WeightsFile, func(w io.Writer) error { return interop.WriteSafetensors(w, weights, nil) }},
		{optimizerFile, func(w io.Writer) error { return interop.WriteSafetensors(w, moments, nil) }},
		{interop.StateFile, t.writeState},
	} {
		if err := interop.WriteFile(filepath.Join(tmp, f.name), f.write); err != nil {
			return err
		}
	}
	if _, err := os.Stat(dir); err == nil { // the same step of a run that was resumed from an earlier one
		old := dir + ".old.tmp"
		if err := os.RemoveAll(old); err != nil {
			return err
		}
		if err := os.Rename(dir, old); err != nil {
			return err
		}
		defer os.RemoveAll(old)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return interop.SyncDir(root)
}

func (t *Trainer) writeState(w io.Writer) error {
	s := state{
		State:       interop.State{Model: t.model.Config, Tokenizer: t.tokenizerInfo(), Step: t.step},
		Config:      t.cfg,
		DatasetHash: t.data.Hash,
		Elapsed:     t.elapsed.Seconds(),
		Smooth:      t.smooth,
		EvalStep:    stepOrNil(t.last.Step), Train: finiteOrNil(t.last.Train), Val: finiteOrNil(t.last.Val),
		BestStep: stepOrNil(t.bestStep), BestVal: finiteOrNil(t.bestVal),
	}
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(s)
}

func (t *Trainer) tokenizerInfo() spinfile.TokenizerInfo {
	if t.data.Tokenizer == nil {
		return spinfile.TokenizerInfo{}
	}
	return spinfile.TokenizerInfo{Kind: t.data.Tokenizer.Kind(), Chars: t.data.Tokenizer.Chars()}
}

// link makes root/name lead to target, replacing what it led to in one step,
// where the system can.
func link(root, name, target string) error {
	tmp := filepath.Join(root, "."+name+".tmp")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("train: %w", err)
	}
	if err := os.Symlink(target, tmp); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if runtime.GOOS == "windows" { // its rename does not replace a link to a folder
		if err := os.Remove(filepath.Join(root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("train: %w", err)
		}
	}
	if err := os.Rename(tmp, filepath.Join(root, name)); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return interop.SyncDir(root)
}

// relink makes "last" and "best" lead to the checkpoint resumed from and the
// best before it, which they do not after a kill at the wrong moment.
func (t *Trainer) relink() error {
	root := t.checkpointsDir()
	for name, step := range map[string]int{"last": t.step, "best": t.bestStep} {
		if err := unfollow(root, name); err != nil {
			return err
		}
		to := stepDir(step)
		if have, err := os.Readlink(filepath.Join(root, name)); err == nil && have == to {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, to, interop.WeightsFile)); err != nil {
			continue // the best was never saved, or somebody removed it
		}
		if err := link(root, name, to); err != nil {
			return err
		}
	}
	return nil
}

// unfollow gives a checkpoint that stands where "last" or "best" is to be a link
// the name of its step, if there is none of that name: programs that copy a run
// often copy what a link leads to.
func unfollow(root, name string) error {
	dir := filepath.Join(root, name)
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return nil
	}
	s, err := readState(filepath.Join(dir, interop.StateFile))
	if err != nil {
		return err
	}
	to := filepath.Join(root, stepDir(s.Step))
	if _, err = os.Stat(filepath.Join(to, interop.WeightsFile)); err == nil {
		err = os.RemoveAll(dir)
	} else {
		err = os.Rename(dir, to)
	}
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return nil
}

// lastCheckpoint is the checkpoint to resume from: where "last" leads or, when
// a kill came before that was set, the newest. The error is fs.ErrNotExist if
// there is none.
func (t *Trainer) lastCheckpoint() (string, error) {
	root := t.checkpointsDir()
	last := filepath.Join(root, "last")
	if _, err := os.Lstat(last); !errors.Is(err, fs.ErrNotExist) {
		return last, err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return "", err
	}
	newest := -1
	for _, e := range entries {
		newest = max(newest, checkpointStep(e.Name()))
	}
	if newest < 0 {
		return "", fs.ErrNotExist
	}
	return filepath.Join(root, stepDir(newest)), nil
}

// prune removes all but the newest keep_checkpoints checkpoints and those
// that a link leads to, and what an interrupted write left behind.
func (t *Trainer) prune(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	var steps []string
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, "step-") {
			continue
		}
		if strings.HasSuffix(name, ".tmp") {
			if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
				return fmt.Errorf("train: %w", err)
			}
			continue
		}
		steps = append(steps, name)
	}
	slices.SortFunc(steps, func(a, b string) int { return checkpointStep(a) - checkpointStep(b) })
	for _, name := range steps[:max(0, len(steps)-t.cfg.KeepCheck)] {
		if isLinked(root, name) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			return fmt.Errorf("train: %w", err)
		}
	}
	return nil
}

func isLinked(root, name string) bool {
	for _, l := range []string{"last", "best"} {
		if to, err := os.Readlink(filepath.Join(root, l)); err == nil && to == name {
			return true
		}
	}
	return false
}

// checkpointStep is the step in a checkpoint folder's name, −1 for others.
func checkpointStep(name string) int {
	digits, ok := strings.CutPrefix(name, "step-")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return -1
	}
	return n
}

// Resume continues the run in out_dir from its last checkpoint: weights, moments,
// step. That there is none is an error, and so are another model configuration,
// dataset or seed than it was made with, and another process that trains there.
func (t *Trainer) Resume() (err error) {
	if err := t.lock(); err != nil { // or the checkpoint may be replaced while it is read
		return err
	}
	defer func() {
		if err != nil {
			t.unlock()
		}
	}()
	dir, err := t.lastCheckpoint()
	if errors.Is(err, fs.ErrNotExist) {
		why := ""
		if _, err := os.Stat(filepath.Join(t.cfg.OutDir, runlog.File)); err == nil {
			why = ", the run there was stopped before its first one; begin it again with --overwrite"
		}
		return fmt.Errorf("train: nothing to resume: no checkpoint in %s%s", t.cfg.OutDir, why)
	}
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	s, err := readState(filepath.Join(dir, interop.StateFile))
	if err != nil {
		return err
	}
	if err := t.checkSame(dir, s); err != nil {
		return err
	}
	path := filepath.Join(dir, interop.WeightsFile)
	weights, _, err := interop.ReadSafetensors(path)
	if err != nil {
		return err
	}
	if err := t.load(path, weights); err != nil {
		return err
	}
	path = filepath.Join(dir, optimizerFile)
	moments, _, err := interop.ReadSafetensors(path)
	if err != nil {
		return err
	}
	for i, p := range t.model.Params {
		for prefix, into := range map[string]*tensor.Tensor{meanPrefix: t.adam.M[i], variancePrefix: t.adam.V[i]} {
			x, err := tensorOf(moments, path, prefix+p.Name, p.Shape)
			if err != nil {
				return err
			}
			t.model.Device.Write(into, x)
		}
	}
	t.step, t.smooth = s.Step, s.Smooth
	t.elapsed = time.Duration(s.Elapsed * float64(time.Second))
	t.bestStep, t.bestVal = orNone(s.BestStep), orNaN(s.BestVal)
	t.last = EvalInfo{Step: orNone(s.EvalStep), Train: orNaN(s.Train), Val: orNaN(s.Val)}
	t.savedStep, t.savedEval = t.step, t.last.Step
	t.resumed = true
	return nil
}

// InitFrom takes the weights of another model of the same configuration (a run
// or checkpoint folder, or any file that interop.OpenLatents takes) as the start
// of a new run. Another configuration or vocabulary is an error that names the
// difference.
func (t *Trainer) InitFrom(path string) error {
	from, err := interop.OpenLatents(path, interop.Options{})
	if err != nil {
		return err
	}
	defer from.Close()
	if have, want := from.Tokenizer, t.tokenizerInfo(); have.Kind != "" && want.Kind != "" && !have.Equal(want) {
		return fmt.Errorf("train: %s was trained with another vocabulary (%s) than the dataset's (%s)", from.File, have.Kind, want.Kind)
	}
	if err := t.checkInit(from.File, from.Config); err != nil {
		return err
	}
	weights, err := from.ReadAll()
	if err != nil {
		return err
	}
	return t.load(from.File, weights)
}

// checkInit refuses to begin from a model whose weights mean something else.
// The keys that give no weight another meaning may differ.
func (t *Trainer) checkInit(file string, have arch.Config) error {
	want := t.model.Config
	have.Dropout, have.BlockSize, have.ActBits = want.Dropout, want.BlockSize, want.ActBits
	if key, its, ours := firstDifference(have, want); key != "" {
		return fmt.Errorf("train: cannot begin from %s: its %s is %v, the recipe's %v", file, key, its, ours)
	}
	return nil
}

// load fills the model with the weights of the file at path.
func (t *Trainer) load(path string, weights interop.SafeTensors) error {
	for _, p := range t.model.Params {
		x, err := tensorOf(weights, path, p.Name, p.Shape)
		if err != nil {
			return err
		}
		t.model.Device.Write(p.Value, x)
	}
	t.model.Refresh(true)
	return t.model.Device.Sync()
}

// tensorOf finds a tensor by name and checks its shape and values.
func tensorOf(ts interop.SafeTensors, path, name string, shape []int) ([]float32, error) {
	x, err := ts.Need(path, name, shape)
	if err == nil && !allFinite(x) {
		err = &interop.FormatError{File: path, Tensor: name, Offset: -1, Reason: "holds values that are not finite"}
	}
	return x, err
}

func readState(path string) (*state, error) {
	var s state
	var err error
	if s.State, err = interop.ReadStateAnd(path, &s); err != nil {
		return nil, err
	}
	if s.Step < 0 {
		return nil, fmt.Errorf("train: %s: step %d", path, s.Step)
	}
	return &s, nil
}

// checkSame refuses to resume with another model, dataset or seed.
func (t *Trainer) checkSame(dir string, s *state) error {
	if key, was, now := firstDifference(s.Model, t.model.Config); key != "" {
		return fmt.Errorf("train: cannot resume %s: %s was %v and is now %v; keep the model's configuration or start in another out_dir", dir, key, was, now)
	}
	if s.Config.Seed != t.cfg.Seed {
		return fmt.Errorf("train: cannot resume %s: seed was %d and is now %d; keep it, or start in another out_dir", dir, s.Config.Seed, t.cfg.Seed)
	}
	if s.DatasetHash != t.data.Hash {
		return fmt.Errorf("train: cannot resume %s: the dataset %s has changed since (hash %.12s, was %.12s)", dir, t.data.Name, t.data.Hash, s.DatasetHash)
	}
	if !s.Tokenizer.Equal(t.tokenizerInfo()) {
		return fmt.Errorf("train: cannot resume %s: the dataset's vocabulary has changed", dir)
	}
	return nil
}

// firstDifference names the first key in which two configurations differ, ""
// for none.
func firstDifference(a, b arch.Config) (key string, was, now any) {
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range va.NumField() {
		if was, now := va.Field(i).Interface(), vb.Field(i).Interface(); was != now {
			name, _, _ := strings.Cut(va.Type().Field(i).Tag.Get("json"), ",")
			return name, was, now
		}
	}
	return "", nil, nil
}
