package train

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"spinnet/dataset"
	"spinnet/interop"
)

// verse is a text with structure enough for a tiny model to learn from.
var verse = strings.Repeat("the quick brown fox jumps over the lazy dog. ", 60)

func testData(t *testing.T, val float64) *dataset.Dataset {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "verse")
	src := dataset.Source{Name: "verse", Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(verse)), nil }}
	if _, err := dataset.Prepare(context.Background(), dataset.Options{Name: "verse", Dir: dir, Tokenizer: "chars", Val: val}, []dataset.Source{src}); err != nil {
		t.Fatal(err)
	}
	d, err := dataset.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func testConfig(t *testing.T, overrides ...string) Config {
	t.Helper()
	recipe := `dataset = "verse"
n_layer = 2
n_head = 8
n_embd = 32
hidden_dim = 64
block_size = 16
batch_size = 4
gradient_accumulation_steps = 2
max_iters = 30
eval_interval = 10
checkpoint_interval = 5
warmup_iters = 3
octonion_attention = true
dropout = 0.1
sample_tokens = 8
sample_prompt = "the"
`
	overrides = append([]string{"out_dir=" + filepath.Join(t.TempDir(), "run")}, overrides...)
	c, err := LoadConfig("verse.toml", []byte(recipe), overrides)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newTrainer(t *testing.T, c Config, d *dataset.Dataset, threads int) *Trainer {
	t.Helper()
	tr, err := New(c, d, Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

func weightsOf(t *testing.T, c Config) []byte {
	t.Helper()
	var all []byte
	for _, f := range []string{interop.WeightsFile, optimizerFile} {
		b, err := os.ReadFile(filepath.Join(c.OutDir, "checkpoints", "last", f))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

func TestRunLearns(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t, "max_iters=120", "eval_interval=60", "learning_rate=0.01")
	tr := newTrainer(t, c, d, 2)
	var evals []EvalInfo
	var sample string
	steps := 0
	err := tr.Run(context.Background(), Observer{
		Eval:   func(e EvalInfo) { evals = append(evals, e) },
		Step:   func(s StepInfo) { steps++ },
		Sample: func(_ int, text string) { sample = text },
	})
	if err != nil {
		t.Fatal(err)
	}
	if steps != 120 || len(evals) != 2 {
		t.Errorf("%d steps and %d evaluations, want 120 and 2", steps, len(evals))
	}
	if got := evals[len(evals)-1].Val; !(got < 2) { // 27 characters: 3.3 without learning
		t.Errorf("validation loss %.3f after 120 steps, want under 2", got)
	}
	if !strings.HasPrefix(sample, "the") || len(sample) != 11 {
		t.Errorf("sample %q, want the prompt and 8 characters", sample)
	}
	for _, link := range []string{"last", "best"} {
		if _, err := interop.Open(filepath.Join(c.OutDir, "checkpoints", link)); err != nil {
			t.Errorf("%s: %v", link, err)
		}
	}
}

// TestResumeGivesTheSameBits interrupts a run, resumes it with another number
// of threads, and compares weights and moments with those of a whole run.
func TestResumeGivesTheSameBits(t *testing.T) {
	d := testData(t, 0.1)
	whole := testConfig(t)
	if err := newTrainer(t, whole, d, 2).Run(context.Background(), Observer{}); err != nil {
		t.Fatal(err)
	}
	parts := testConfig(t)
	ctx, cancel := context.WithCancel(context.Background())
	err := newTrainer(t, parts, d, 1).Run(ctx, Observer{Step: func(s StepInfo) {
		if s.Step == 13 {
			cancel()
		}
	}})
	if !errors.Is(err, ErrInterrupted) {
		t.Fatalf("got %v, want ErrInterrupted", err)
	}
	tr := newTrainer(t, parts, d, 3)
	if err := tr.Resume(); err != nil {
		t.Fatal(err)
	}
	if tr.Step() != 13 {
		t.Errorf("resumed at step %d, want 13", tr.Step())
	}
	if err := tr.Run(context.Background(), Observer{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(weightsOf(t, whole), weightsOf(t, parts)) {
		t.Error("the resumed run ended with other weights than the whole one")
	}
}

func TestRecomputeGivesTheSameWeights(t *testing.T) {
	d := testData(t, 0.1)
	a, b := testConfig(t), testConfig(t, "recompute=true")
	for _, c := range []Config{a, b} {
		if err := newTrainer(t, c, d, 2).Run(context.Background(), Observer{}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(weightsOf(t, a), weightsOf(t, b)) {
		t.Error("recompute changed the weights")
	}
}

func TestCheckpointsAreKeptAndPruned(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t, "keep_checkpoints=2")
	if err := newTrainer(t, c, d, 2).Run(context.Background(), Observer{}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(c.OutDir, "checkpoints"))
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			t.Errorf("%s was left behind", e.Name())
		}
		if strings.HasPrefix(e.Name(), "step-") {
			steps++
		}
	}
	if steps < 2 || steps > 3 { // the newest two, and the best if older
		t.Errorf("%d checkpoints, want 2 or 3", steps)
	}
}

func TestRefusals(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t)
	if err := newTrainer(t, c, d, 2).Run(context.Background(), Observer{}); err != nil {
		t.Fatal(err)
	}
	check := func(name string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got error %v, want one line with %q", name, err, want)
		}
	}
	before := weightsOf(t, c)
	check("a run in the way", newTrainer(t, c, d, 2).Run(context.Background(), Observer{}), "already holds a run")
	if !bytes.Equal(before, weightsOf(t, c)) {
		t.Error("the old run was changed")
	}
	changed := c
	changed.NLayer = 3
	check("another model", newTrainer(t, changed, d, 2).Resume(), "n_layer was 2 and is now 3")
	other := testData(t, 0.2)
	changed = c
	changed.Seed = 7
	check("another seed", newTrainer(t, changed, d, 2).Resume(), "seed was 1337 and is now 7")
	check("another dataset", newTrainer(t, c, other, 2).Resume(), "dataset")
	empty := testConfig(t)
	check("nothing there", newTrainer(t, empty, d, 2).Resume(), "nothing to resume")
	_, err := New(testConfig(t, "block_size=4096"), d, Options{})
	check("a long block", err, "block_size")
	_, err = New(testConfig(t, "vocab_size=5"), d, Options{})
	check("a small vocabulary", err, "vocab_size")
	goroutines := runtime.NumGoroutine()
	bad := testConfig(t)
	bad.Init = "none"
	_, err = New(bad, d, Options{Threads: 16})
	check("an unknown initialisation", err, "initialisation")
	for range 100 { // the workers end by themselves
		if runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines are left of a run that was not made", n-goroutines)
	}

	last := filepath.Join(c.OutDir, "checkpoints", "last")
	for _, f := range []string{interop.WeightsFile, optimizerFile, interop.StateFile} {
		path := filepath.Join(last, f)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range [][]byte{nil, good[:len(good)/2], []byte("not a checkpoint"), append(bytes.Clone(good), "{}"...)} {
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			check("a corrupt "+f, newTrainer(t, c, d, 2).Resume(), f)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		check("no "+f, newTrainer(t, c, d, 2).Resume(), f)
		if err := os.WriteFile(path, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDivergenceStopsAndNamesTheTensor(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t)
	tr := newTrainer(t, c, d, 2)
	err := tr.Run(context.Background(), Observer{Step: func(s StepInfo) {
		if s.Step == 12 {
			p := tr.model.Param("layers.1.feed_forward.down_proj.weight")
			p.Value.Data[3] = float32(math.NaN())
			tr.model.Refresh(true)
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "parameter layers.1.feed_forward.down_proj.weight") || !strings.Contains(err.Error(), "step 13") {
		t.Errorf("got %v, want the parameter and the step", err)
	}
	tr = newTrainer(t, c, d, 2)
	if err := tr.Resume(); err != nil || tr.Step() != 10 {
		t.Errorf("resumed at %d with error %v, want the good checkpoint of step 10", tr.Step(), err)
	}
}

// TestNoBadCheckpoint: an update that overflows right before a checkpoint is
// due must not replace the good one.
func TestNoBadCheckpoint(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t, "eval_interval=0")
	tr := newTrainer(t, c, d, 2)
	err := tr.Run(context.Background(), Observer{Step: func(s StepInfo) {
		if s.Step == 15 {
			tr.model.Param("norm.weight").Value.Data[0] = float32(math.Inf(1))
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "parameter norm.weight") {
		t.Errorf("got %v, want the parameter", err)
	}
	tr = newTrainer(t, c, d, 2)
	if err := tr.Resume(); err != nil || tr.Step() != 10 {
		t.Errorf("resumed at %d with error %v, want step 10", tr.Step(), err)
	}
}

func TestInitFrom(t *testing.T) {
	d := testData(t, 0.1)
	c := testConfig(t)
	if err := newTrainer(t, c, d, 2).Run(context.Background(), Observer{}); err != nil {
		t.Fatal(err)
	}
	fresh := newTrainer(t, testConfig(t), d, 2)
	if err := fresh.InitFrom(c.OutDir); err != nil {
		t.Fatal(err)
	}
	loss, _, err := fresh.TrainStep(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if !(loss < 3) {
		t.Errorf("first loss %.3f, want that of the model it began from", loss)
	}
	for change, want := range map[string]string{
		"n_embd=64":         "its n_embd is 32, the recipe's 64",
		"n_head=16":         "its n_head is 8, the recipe's 16",
		"algebra=octonion":  "its algebra is walsh, the recipe's octonion",
		"quantizer=none":    "its quantizer is absmean, the recipe's none",
		"dropout=0.5":       "",
		"block_size=8":      "",
		"act_bits=8":        "",
		"learning_rate=0.1": "",
	} {
		err := newTrainer(t, testConfig(t, change), d, 2).InitFrom(c.OutDir)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", change, err, want)
		}
	}
}
