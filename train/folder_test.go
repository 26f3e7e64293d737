package train

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"spinnet/dataset"
	"spinnet/runlog"
	"spinnet/tensor"
)

// runToEnd trains, after Resume where asked for, and gives the trainer.
func runToEnd(t *testing.T, c Config, d *dataset.Dataset, resume bool) *Trainer {
	t.Helper()
	tr := newTrainer(t, c, d, 2)
	if resume {
		if err := tr.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Run(context.Background(), Observer{}); err != nil {
		t.Fatal(err)
	}
	return tr
}

// interruptAt starts a run that is interrupted when a step is done.
func interruptAt(t *testing.T, c Config, d *dataset.Dataset, step int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := newTrainer(t, c, d, 2).Run(ctx, Observer{Step: func(s StepInfo) {
		if s.Step == step {
			cancel()
		}
	}})
	if !errors.Is(err, ErrInterrupted) {
		t.Fatalf("got %v, want ErrInterrupted", err)
	}
}

// logOf is a run's log without what the clock decides.
func logOf(t *testing.T, c Config) []runlog.Record {
	t.Helper()
	rs, err := runlog.ReadFile(filepath.Join(c.OutDir, runlog.File))
	if err != nil {
		t.Fatal(err)
	}
	for i := range rs {
		rs[i].TokensPerSecond, rs[i].Elapsed = 0, 0
	}
	return rs
}

func bestOf(t *testing.T, c Config) string {
	t.Helper()
	to, err := os.Readlink(filepath.Join(c.OutDir, "checkpoints", "best"))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// An evaluation that an interruption stopped is made up for at resume, so that
// the log, the best checkpoint and the final losses are those of a run that
// was left alone.
func TestInterruptedEvaluation(t *testing.T) {
	d := testData(t, 0.1)
	whole := testConfig(t, "max_iters=12", "eval_interval=6", "eval_iters=2")
	want := runToEnd(t, whole, d, false)
	for _, step := range []int{6, 12} {
		c := whole
		c.OutDir = filepath.Join(t.TempDir(), "run")
		interruptAt(t, c, d, step)
		got := runToEnd(t, c, d, true)
		if diff := cmp.Diff(want.Last(), got.Last()); diff != "" {
			t.Errorf("interrupted at %d: last evaluation (-want +got):\n%s", step, diff)
		}
		if diff := cmp.Diff(logOf(t, whole), logOf(t, c), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("interrupted at %d: log (-want +got):\n%s", step, diff)
		}
		if got, want := bestOf(t, c), bestOf(t, whole); got != want {
			t.Errorf("interrupted at %d: best is %s, want %s", step, got, want)
		}
		if !bytes.Equal(weightsOf(t, whole), weightsOf(t, c)) {
			t.Errorf("interrupted at %d: other weights", step)
		}
		again := newTrainer(t, c, d, 2) // it knows that all is done
		if err := again.Resume(); err != nil || again.Last().Step != 12 || again.Last().Val != want.Last().Val {
			t.Errorf("interrupted at %d: resumed with %+v, %v", step, again.Last(), err)
		}
		if err := again.Run(context.Background(), Observer{Eval: func(EvalInfo) { t.Error("evaluated again") }}); err != nil {
			t.Error(err)
		}
	}
}

// Losses of an earlier step are not shown as the last one's.
func TestResumeToAnEarlierEnd(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t, "eval_iters=2")
	interruptAt(t, c, d, 13)
	c.MaxIters = 13
	tr := runToEnd(t, c, d, true)
	if tr.Last().Step != 13 {
		t.Errorf("the last evaluation is of step %d, want 13", tr.Last().Step)
	}
	if rs := logOf(t, c); len(rs) != 13 || rs[12].Eval == nil || rs[12].Eval.Val != tr.Last().Val {
		t.Errorf("the log does not end with the evaluation: %+v", rs[len(rs)-1])
	}
}

// Wherever a kill falls between the two links of a checkpoint, a resumed run
// has the best checkpoint that its state knows of.
func TestKilledBetweenLinks(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t, "keep_checkpoints=10", "eval_interval=5", "max_iters=20", "learning_rate=0.01")
	runToEnd(t, c, d, false)
	best, weights := bestOf(t, c), weightsOf(t, c)
	if best != stepDir(20) {
		t.Fatalf("best is %s; this test wants a run that improves to its end", best)
	}
	root := filepath.Join(c.OutDir, "checkpoints")
	set := func(name, to string) {
		path := filepath.Join(root, name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if to == "" {
			return
		}
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []struct{ name, last, best string }{
		{"last before best", stepDir(20), stepDir(15)},
		{"last before the first best", stepDir(20), ""},
		{"best before last", stepDir(15), stepDir(20)},
		{"neither", stepDir(15), stepDir(15)},
		{"no last (a system that has to remove it first)", "", stepDir(20)},
	} {
		set("last", r.last)
		set("best", r.best)
		tr := newTrainer(t, c, d, 2)
		if err := tr.Resume(); err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		if want := r.last; want != "" && stepDir(tr.Step()) != want {
			t.Errorf("%s: resumed at step %d, want %s", r.name, tr.Step(), want)
		}
		stop, cancel := context.WithCancel(context.Background())
		cancel()
		if err := tr.Run(stop, Observer{}); tr.Step() < 20 && !errors.Is(err, ErrInterrupted) {
			t.Errorf("%s: %v", r.name, err)
		}
		if got, want := bestOf(t, c), stepDir(tr.Step()); got != want {
			t.Errorf("%s: best is %s after the resume, want %s", r.name, got, want)
		}
		runToEnd(t, c, d, true)
		if got := bestOf(t, c); got != best || !bytes.Equal(weights, weightsOf(t, c)) {
			t.Errorf("%s: ended with best %s and other weights", r.name, got)
		}
	}
}

// What is in out_dir and not of this run stays.
func TestForeignFilesStay(t *testing.T) {
	d := testData(t, 0.1)
	for name, content := range map[string]string{runlog.File: "{\"loss\": 1}\nnot ours\n", configFile: "dataset = 'mine'\n"} {
		c := testConfig(t, "max_iters=2")
		if err := os.MkdirAll(c.OutDir, 0o777); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(c.OutDir, name)
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		err := newTrainer(t, c, d, 2).Run(context.Background(), Observer{})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--overwrite") {
			t.Errorf("%s: got %v, want a refusal with its name", name, err)
		}
		if got, _ := os.ReadFile(path); string(got) != content {
			t.Errorf("%s became %q", name, got)
		}
		if entries, _ := os.ReadDir(c.OutDir); len(entries) != 1 {
			t.Errorf("%s: the run that was refused left %v", name, entries)
		}
		other := filepath.Join(c.OutDir, "checkpoints", "other")
		if err := os.MkdirAll(other, 0o777); err != nil {
			t.Fatal(err)
		}
		tr := newTrainer(t, c, d, 2)
		if err := tr.Overwrite(); err != nil {
			t.Fatal(err)
		}
		if err := tr.Run(context.Background(), Observer{}); err != nil {
			t.Errorf("%s: --overwrite: %v", name, err)
		}
		if rs := logOf(t, c); len(rs) != 2 {
			t.Errorf("%s: %d records, want 2", name, len(rs))
		}
		if _, err := os.Stat(other); err != nil {
			t.Errorf("--overwrite took what is no checkpoint: %v", err)
		}
	}
}

// A run whose log cannot be written, on a full disk say, tells what is left.
func TestLogFails(t *testing.T) {
	c := testConfig(t, "checkpoint_interval=2")
	tr := newTrainer(t, c, testData(t, 0), 1)
	err := tr.Run(context.Background(), Observer{Step: func(s StepInfo) {
		if s.Step == 3 {
			tr.log.Close()
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "step 3 not logged") || !strings.Contains(err.Error(), "the checkpoint of step 2 in") {
		t.Errorf("got %v, want the step and the checkpoint that is kept", err)
	}
}

// A run that was copied by a program that follows links can be gone on with,
// also where nothing but what the links led to was copied.
func TestResumeCopyWithoutLinks(t *testing.T) {
	d := testData(t, 0.1)
	whole := testConfig(t, "max_iters=12", "eval_interval=4", "eval_iters=2", "checkpoint_interval=4")
	runToEnd(t, whole, d, false)
	for _, steps := range []bool{true, false} {
		c := whole
		c.OutDir, c.MaxIters = filepath.Join(t.TempDir(), "run"), 8
		c.LRDecayIters = whole.MaxIters
		runToEnd(t, c, d, false)
		root := filepath.Join(c.OutDir, "checkpoints")
		for _, name := range []string{"last", "best"} {
			to, err := os.Readlink(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(root, name), os.DirFS(filepath.Join(root, to))); err != nil {
				t.Fatal(err)
			}
		}
		if !steps {
			all, err := filepath.Glob(filepath.Join(root, "step-*"))
			if err != nil || len(all) == 0 {
				t.Fatal(all, err)
			}
			for _, dir := range all {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.MaxIters, c.LRDecayIters = whole.MaxIters, 0
		runToEnd(t, c, d, true)
		if !bytes.Equal(weightsOf(t, whole), weightsOf(t, c)) {
			t.Errorf("step folders %v: other weights", steps)
		}
		if got, want := bestOf(t, c), bestOf(t, whole); got != want { // which are links again
			t.Errorf("step folders %v: best is %s, want %s", steps, got, want)
		}
	}
}

// A run that was killed before its first checkpoint says what to do.
func TestStoppedBeforeTheFirstCheckpoint(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t)
	tr := newTrainer(t, c, d, 2)
	if err := tr.openFolder(context.Background(), Observer{}.fill()); err != nil {
		t.Fatal(err)
	}
	if err := tr.log.Write(runlog.Record{Step: 1}); err != nil {
		t.Fatal(err)
	}
	if err := tr.log.Close(); err != nil {
		t.Fatal(err)
	}
	tr.unlock() // as the end of its process does
	for _, err := range []error{newTrainer(t, c, d, 2).Run(context.Background(), Observer{}), newTrainer(t, c, d, 2).Resume()} {
		if err == nil || !strings.Contains(err.Error(), "stopped before its first") || !strings.Contains(err.Error(), "--overwrite") {
			t.Errorf("got %v, want the reason and --overwrite", err)
		}
	}
}

// The recipe that is not changed is not written again.
func TestConfigIsKept(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t, "max_iters=2")
	runToEnd(t, c, d, false)
	path := filepath.Join(c.OutDir, configFile)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	runToEnd(t, c, d, true)
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("config.toml was written again: %v", err)
	}
	c.MaxIters = 3
	runToEnd(t, c, d, true)
	if text, err := os.ReadFile(path); err != nil || string(text) != c.TOML() {
		t.Errorf("config.toml is not the resumed run's: %v\n%s", err, text)
	}
}

// A dataset too large for Open to verify is verified by the run.
func TestLargeDatasetIsVerified(t *testing.T) {
	const size = 66 << 20 // zeros, in a sparse file
	dir := t.TempDir()
	sum := sha256.Sum256(make([]byte, size))
	manifest := fmt.Sprintf(`{"format":"spinnet-dataset","version":1,"name":"zeros","tokenizer":{"kind":"bytes"},"vocab_size":256,"dtype":"uint16",
		"train":{"file":"train.bin","tokens":%d,"documents":1,"source_bytes":1,"sha256":"%x"},
		"val":{"file":"val.bin","tokens":0,"documents":0,"source_bytes":0,"sha256":"%x"}}`, size/2, sum, sha256.Sum256(nil))
	for name, text := range map[string]string{dataset.ManifestFile: manifest, "train.bin": "", "val.bin": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	train := filepath.Join(dir, "train.bin")
	if err := os.Truncate(train, size); err != nil {
		t.Fatal(err)
	}
	run := func() (note string, err error) {
		d, err := dataset.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		c := testConfig(t, "max_iters=1", "sample_tokens=0")
		err = newTrainer(t, c, d, 2).Run(context.Background(), Observer{Note: func(s string) { note += s }})
		if _, there := os.Stat(c.OutDir); err != nil && there == nil {
			t.Error("a refused run made its folder")
		}
		return note, err
	}
	if note, err := run(); err != nil || !strings.Contains(note, "checking the 69 MB of dataset zeros") {
		t.Errorf("got note %q, %v", note, err)
	}
	f, err := os.OpenFile(train, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{7}, size/2); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := run(); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("a changed file: got %v, want an error", err)
	}
}

// poison is a device that gives NaN for the losses of a validation batch.
type poison struct {
	tensor.Device
	armed bool
}

func (p *poison) WriteInts(dst *tensor.Ints, src []int32) {
	p.armed = true
	p.Device.WriteInts(dst, src)
}

func (p *poison) Read(dst []float32, src *tensor.Tensor) {
	p.Device.Read(dst, src)
	if p.armed {
		dst[0], p.armed = float32(math.NaN()), false
	}
}

// A validation loss that is not a number stops the run; the checkpoint before
// it stays.
func TestBadValidationLossStops(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t)
	tr := newTrainer(t, c, d, 2)
	err := tr.Run(context.Background(), Observer{Step: func(s StepInfo) {
		if s.Step == 17 {
			p := &poison{Device: tr.dev}
			tr.model.Device, tr.evalVal.dev = p, p
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "validation loss is NaN at step 20") {
		t.Errorf("got %v, want the validation loss", err)
	}
	tr = newTrainer(t, c, d, 2)
	if err := tr.Resume(); err != nil || tr.Step() != 15 {
		t.Errorf("resumed at %d with error %v, want the good checkpoint of step 15", tr.Step(), err)
	}
}

// An interruption does not wait for the step's other micro-batches, and leaves
// no trace of the step.
func TestInterruptedBetweenMicroBatches(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t, "max_iters=5", "eval_interval=0", "gradient_accumulation_steps=3")
	want := testConfig(t, "max_iters=5", "eval_interval=0", "gradient_accumulation_steps=3")
	runToEnd(t, want, d, false)
	tr := newTrainer(t, c, d, 2)
	for range 2 {
		if _, _, err := tr.TrainStep(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := tr.TrainStep(&countdown{Context: context.Background(), left: 2}); !errors.Is(err, context.Canceled) || tr.Step() != 2 {
		t.Errorf("got %v at step %d, want the interruption at step 2", err, tr.Step())
	}
	if err := tr.Run(context.Background(), Observer{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(weightsOf(t, want), weightsOf(t, c)) {
		t.Error("the interrupted step changed the weights")
	}
}

// An interruption does not wait for the sample either, and is not noted as a
// fault of it.
func TestInterruptedSample(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t, "sample_tokens=1000000", "eval_interval=5")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := newTrainer(t, c, d, 2).Run(ctx, Observer{
		Eval:   func(EvalInfo) { time.AfterFunc(20*time.Millisecond, cancel) },
		Sample: func(int, string) { t.Error("a whole sample") },
		Note:   func(s string) { t.Errorf("note %q", s) },
	})
	if !errors.Is(err, ErrInterrupted) {
		t.Errorf("got %v, want ErrInterrupted", err)
	}
}

// countdown ends when it has been asked left times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}
