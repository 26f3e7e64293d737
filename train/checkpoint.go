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
	"slices"
	"strconv"
	"strings"
	"time"

	"spinnet/arch"
	"spinnet/interop"
	"spinnet/spinfile"
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
	Train         *float64 `json:"train_loss,omitempty"` // of the last evaluation
	Val           *float64 `json:"val_loss,omitempty"`
	BestVal       *float64 `json:"best_val_loss,omitempty"`
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
	if t.savedStep != t.step {
		if err := t.writeCheckpoint(root, dir); err != nil {
			return "", fmt.Errorf("train: checkpoint of step %d not written: %w", t.step, err)
		}
		t.savedStep = t.step
	}
	if err := link(root, "last", stepDir(t.step)); err != nil {
		return "", err
	}
	if best {
		if err := link(root, "best", stepDir(t.step)); err != nil {
			return "", err
		}
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
			interop.SafeTensor{Name: meanPrefix + p.Name, Shape: p.Shape, Data: t.host(t.mean[i])},
			interop.SafeTensor{Name: variancePrefix + p.Name, Shape: p.Shape, Data: t.host(t.variance[i])})
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
		Train:       finiteOrNil(t.last.Train), Val: finiteOrNil(t.last.Val), BestVal: finiteOrNil(t.bestVal),
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

// link makes root/name lead to target, replacing what it led to in one step.
func link(root, name, target string) error {
	tmp := filepath.Join(root, "."+name+".tmp")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("train: %w", err)
	}
	if err := os.Symlink(target, tmp); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(root, name)); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return interop.SyncDir(root)
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
	n, err := strconv.Atoi(strings.TrimPrefix(name, "step-"))
	if err != nil {
		return -1
	}
	return n
}

// Resume continues the run in out_dir from its last checkpoint. The model
// configuration and the dataset must be the ones it was made with.
func (t *Trainer) Resume() error {
	dir := filepath.Join(t.checkpointsDir(), "last")
	s, err := readState(filepath.Join(dir, interop.StateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("train: nothing to resume: no checkpoint in %s", t.cfg.OutDir)
	}
	if err != nil {
		return err
	}
	if err := t.checkSame(dir, s); err != nil {
		return err
	}
	if err := t.load(dir, ""); err != nil {
		return err
	}
	path := filepath.Join(dir, optimizerFile)
	moments, _, err := interop.ReadSafetensors(path)
	if err != nil {
		return err
	}
	for i, p := range t.model.Params {
		for prefix, into := range map[string][]float32{meanPrefix: t.mean[i].Data, variancePrefix: t.variance[i].Data} {
			x, err := tensorOf(moments, path, prefix+p.Name, p.Shape)
			if err != nil {
				return err
			}
			copy(into, x)
		}
	}
	t.step, t.savedStep, t.smooth = s.Step, s.Step, s.Smooth
	t.elapsed = time.Duration(s.Elapsed * float64(time.Second))
	t.bestVal = orNaN(s.BestVal)
	t.last = EvalInfo{Step: s.Step, Train: orNaN(s.Train), Val: orNaN(s.Val)}
	t.resumed = true
	return nil
}

// InitFrom takes the weights of another model of the same shape (a run or
// checkpoint folder, or a .safetensors file) as the start of a new run.
func (t *Trainer) InitFrom(path string) error {
	file, err := interop.Resolve(path)
	if err != nil {
		return err
	}
	s, err := interop.ReadState(filepath.Join(filepath.Dir(file), interop.StateFile))
	if err != nil {
		return err
	}
	if have, want := s.Tokenizer, t.tokenizerInfo(); have.Kind != "" && want.Kind != "" && !have.Equal(want) {
		return fmt.Errorf("train: %s was trained with another vocabulary (%s) than the dataset's (%s)", file, have.Kind, want.Kind)
	}
	return t.load(filepath.Dir(file), filepath.Base(file))
}

// load reads the weights of a checkpoint folder into the model.
func (t *Trainer) load(dir, name string) error {
	if name == "" {
		name = interop.WeightsFile
	}
	path := filepath.Join(dir, name)
	weights, _, err := interop.ReadSafetensors(path)
	if err != nil {
		return err
	}
	for _, p := range t.model.Params {
		x, err := tensorOf(weights, path, p.Name, p.Shape)
		if err != nil {
			return err
		}
		t.model.Device.Write(p.Value, x)
	}
	t.model.Refresh(true)
	return nil
}

// tensorOf finds a tensor by name and checks its shape.
func tensorOf(ts interop.SafeTensors, path, name string, shape []int) ([]float32, error) {
	x := ts.Find(name)
	switch {
	case x == nil:
		return nil, &interop.SafetensorsError{File: path, Tensor: name, Offset: -1, Reason: "missing"}
	case !slices.Equal(x.Shape, shape):
		return nil, &interop.SafetensorsError{File: path, Tensor: name, Offset: -1,
			Reason: fmt.Sprintf("shape %v, the configuration asks for %v", x.Shape, shape)}
	}
	if !allFinite(x.Data) {
		return nil, &interop.SafetensorsError{File: path, Tensor: name, Offset: -1, Reason: "holds values that are not finite"}
	}
	return x.Data, nil
}

const maxStateBytes = 16 << 20

func readState(path string) (*state, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	defer f.Close()
	var s state
	if err := json.NewDecoder(io.LimitReader(f, maxStateBytes)).Decode(&s); err != nil {
		return nil, fmt.Errorf("train: %s is not a checkpoint's state: %w", path, err)
	}
	if s.Step < 0 {
		return nil, fmt.Errorf("train: %s: step %d", path, s.Step)
	}
	return &s, nil
}

// checkSame refuses to resume with another model, dataset or seed.
func (t *Trainer) checkSame(dir string, s *state) error {
	have, want := s.Model.WithDefaults(), t.model.Config
	if have != want {
		key, was, now := firstDifference(have, want)
		return fmt.Errorf("train: cannot resume %s: %s was %v and is now %v; keep the model's configuration or start in another out_dir", dir, key, was, now)
	}
	if s.DatasetHash != t.data.Hash {
		return fmt.Errorf("train: cannot resume %s: the dataset %s has changed since (hash %.12s, was %.12s)", dir, t.data.Name, t.data.Hash, s.DatasetHash)
	}
	if !s.Tokenizer.Equal(t.tokenizerInfo()) {
		return fmt.Errorf("train: cannot resume %s: the dataset's vocabulary has changed", dir)
	}
	return nil
}

// firstDifference names the first key in which two configurations differ.
func firstDifference(a, b arch.Config) (key string, was, now any) {
	fields := func(c arch.Config) (m map[string]any, keys []string) {
		text, _ := json.Marshal(c) // a flat struct of numbers and strings
		_ = json.Unmarshal(text, &m)
		for k := range m {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		return m, keys
	}
	fa, keys := fields(a)
	fb, _ := fields(b)
	for _, k := range keys {
		if fa[k] != fb[k] {
			return k, fa[k], fb[k]
		}
	}
	return "", nil, nil
}
