//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spinnet/dataset"
	"spinnet/interop"
	"spinnet/model"
	"spinnet/tensor"
	"spinnet/train"
)

// TestGradientsOfTheOriginal runs the original's tiny checkpoint (SPEC §6) and
// compares loss and gradients within what bf16 leaves of them.
func TestGradientsOfTheOriginal(t *testing.T) {
	const dir = "../model/testdata/seed_tiny/"
	st, err := interop.ReadState(dir + "state.json")
	if err != nil {
		t.Fatal(err)
	}
	weights, _, err := interop.ReadSafetensors(dir + "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := interop.ReadSafetensors(dir + "grads_48.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dir + "expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		IDs         []int32 `json:"ids"`
		Loss        float64 `json:"loss"`
		TrainLoss48 float64 `json:"train_loss_48"`
	}
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	for _, recompute := range []bool{false, true} {
		d := needDevice(t)
		m, err := model.New(d, st.Model)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Params {
			d.Write(p.Value, weights.Find(p.Name).Data)
		}
		set := func(b *model.Batch) {
			n := b.Rows * b.T
			d.WriteInts(b.IDs, e.IDs[:n])
			d.WriteInts(b.Targets, e.IDs[1:n+1])
		}
		mean := func(b *model.Batch) float64 {
			losses := make([]float32, b.Rows*b.T)
			d.Read(losses, b.Losses)
			var sum float64
			for _, l := range losses {
				sum += float64(l)
			}
			return sum / float64(len(losses))
		}
		m.Refresh(true)
		whole := m.NewBatch(1, len(e.IDs)-1)
		tape := m.Record(whole, model.Options{})
		set(whole)
		tape.Forward()
		if got := mean(whole); math.Abs(got/e.Loss-1) > 1e-3 {
			t.Errorf("loss %.6f, want %.6f", got, e.Loss)
		}
		b := m.NewBatch(1, 48)
		tape = m.Record(b, model.Options{Train: true, Recompute: recompute, GradScale: 1.0 / 48})
		set(b)
		pass := d.Record(func() {
			m.ZeroGradients()
			tape.Forward()
			tape.Backward()
			m.FinishGradients()
		})
		for range 3 { // run, captured, replayed
			pass()
		}
		if got := mean(b); math.Abs(got/e.TrainLoss48-1) > 1e-3 {
			t.Errorf("training loss %.6f, want %.6f", got, e.TrainLoss48)
		}
		for _, p := range m.Params {
			got := make([]float32, p.Len())
			d.Read(got, p.Grad)
			far := distance(got, want.Find(p.Name).Data)
			if !(far < 5e-2) {
				t.Errorf("recompute %v: gradient of %s: relative distance %.2g", recompute, p.Name, far)
			} else if testing.Verbose() {
				t.Logf("gradient of %s: %.2g", p.Name, far)
			}
		}
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		d.Close()
	}
}

func verses(t *testing.T) *dataset.Dataset {
	t.Helper()
	text := strings.Repeat("the quick brown fox jumps over the lazy dog. ", 60)
	dir := filepath.Join(t.TempDir(), "verse")
	src := dataset.Source{Name: "verse", Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
	if _, err := dataset.Prepare(context.Background(), dataset.Options{Name: "verse", Dir: dir, Tokenizer: "chars", Val: 0.1}, []dataset.Source{src}); err != nil {
		t.Fatal(err)
	}
	d, err := dataset.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// stopAt is the step at which tests interrupt a run; with -short, for
// compute-sanitizer, runs are short.
func stopAt() int {
	if testing.Short() {
		return 3
	}
	return 23
}

func recipe(t *testing.T, overrides ...string) train.Config {
	t.Helper()
	if testing.Short() {
		overrides = append(overrides, "max_iters=6", "warmup_iters=1", "eval_interval=2", "checkpoint_interval=2", "n_layer=2")
	}
	return fullRecipe(t, overrides...)
}

func fullRecipe(t *testing.T, overrides ...string) train.Config {
	t.Helper()
	text := `dataset = "verse"
n_layer = 3
n_head = 8
n_embd = 64
hidden_dim = 128
block_size = 32
batch_size = 4
gradient_accumulation_steps = 2
max_iters = 50
eval_interval = 10
checkpoint_interval = 10
warmup_iters = 5
octonion_attention = true
dropout = 0.1
sample_tokens = 8
sample_prompt = "the"
`
	overrides = append([]string{"out_dir=" + filepath.Join(t.TempDir(), "run")}, overrides...)
	c, err := train.LoadConfig("verse.toml", []byte(text), overrides)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run trains by a recipe and gives the losses of all steps; stop ends it
// after that step.
func run(t *testing.T, c train.Config, data *dataset.Dataset, dev tensor.Device, resume bool, stop int) (losses []float64, val float64) {
	t.Helper()
	tr, err := train.New(c, data, train.Options{Threads: 2, Device: dev})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if resume {
		if err := tr.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err = tr.Run(ctx, train.Observer{
		Step: func(s train.StepInfo) {
			losses = append(losses, s.Loss)
			if s.Step == stop {
				cancel()
			}
		},
		Note: func(s string) { t.Error("note:", s) },
	})
	if err != nil && !(stop > 0 && errors.Is(err, train.ErrInterrupted)) {
		t.Fatal(err)
	}
	return losses, tr.Last().Val
}

func lastFiles(t *testing.T, c train.Config) []byte {
	t.Helper()
	var all []byte
	for _, f := range []string{"model.safetensors", "optimizer.safetensors"} {
		b, err := os.ReadFile(filepath.Join(c.OutDir, "checkpoints", "last", f))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// TestTrainingFollowsTheCPU: the same recipe on both devices gives nearly the
// same losses; two runs on the GPU, one of them interrupted and resumed, give
// the same bits; and a run goes on where another device stopped.
func TestTrainingFollowsTheCPU(t *testing.T) {
	needDevice(t).Close()
	data := verses(t)
	gpu := func() tensor.Device { return needDevice(t) }
	for _, change := range [][]string{
		{"algebra=octonion"},
		{"algebra=walsh", "act_bits=8", "recompute=true"}, {"algebra=quaternion", "quantizer=classic", "init=classic", "n_kv_head=2", "act_bits=0"},
	} {
		t.Run(strings.Join(change, " "), func(t *testing.T) {
			if testing.Short() && change[0] != "algebra=walsh" {
				t.Skip("long")
			}
			c := recipe(t, change...)
			onCPU := recipe(t, change...)
			got, gotVal := run(t, c, data, gpu(), false, 0)
			want, wantVal := run(t, onCPU, data, nil, false, 0)
			var worst float64
			for i := range want {
				worst = max(worst, math.Abs(got[i]/want[i]-1))
			}
			t.Logf("losses of %d steps differ by at most %.2g of their size; validation %.4f and %.4f", len(want), worst, gotVal, wantVal)
			if math.Abs(gotVal/wantVal-1) > 0.05 {
				t.Errorf("validation %.4f, want near %.4f", gotVal, wantVal)
			}
			if !(worst < 0.05) || len(got) != len(want) {
				t.Errorf("losses\n%.4f, want near\n%.4f", got, want)
			}
			again := recipe(t, change...)
			run(t, again, data, gpu(), false, stopAt())
			run(t, again, data, gpu(), true, 0)
			if !bytes.Equal(lastFiles(t, c), lastFiles(t, again)) {
				t.Error("an interrupted and resumed run gave other bits")
			}
			for _, from := range []string{"cpu", "gpu"} { // what stopped on one goes on on the other
				devices := []tensor.Device{nil, gpu()}
				if from == "gpu" {
					devices = []tensor.Device{gpu(), nil}
				}
				moved := recipe(t, change...)
				before, _ := run(t, moved, data, devices[0], false, stopAt())
				after, val := run(t, moved, data, devices[1], true, 0)
				var far float64
				for i, l := range append(before, after...) {
					far = max(far, math.Abs(l/want[i]-1))
				}
				if !(far < 0.05) || math.Abs(val/wantVal-1) > 0.05 {
					t.Errorf("moved from the %s at step %d: losses differ by %.2g of their size, validation %.4f, want near %.4f", from, stopAt(), far, val, wantVal)
				}
			}
		})
	}
}

// TestEvaluationFollowsTheCPU: without a backward the memory of what a layer read
// is soon another's; of many rows, so that many blocks of a launch share the work.
func TestEvaluationFollowsTheCPU(t *testing.T) {
	needDevice(t).Close()
	data := verses(t)
	for _, bits := range []string{"0", "8"} {
		change := []string{"act_bits=" + bits, "batch_size=64", "n_embd=128", "hidden_dim=384", "max_iters=1", "eval_interval=1", "eval_iters=2", "warmup_iters=0", "n_layer=2"}
		_, got := run(t, fullRecipe(t, change...), data, needDevice(t), false, 0)
		_, want := run(t, fullRecipe(t, change...), data, nil, false, 0)
		if !(math.Abs(got/want-1) < 2e-3) {
			t.Errorf("act_bits %s: validation %.4f, want %.4f", bits, got, want)
		}
	}
}

// TestTrainingAllocatesNothing once its parts are recorded.
func TestTrainingAllocatesNothing(t *testing.T) {
	d := needDevice(t)
	tr, err := train.New(recipe(t), verses(t), train.Options{Threads: 1, Device: d})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	step := func() {
		if _, _, err := tr.TrainStep(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	step()
	step()
	used := d.used
	if got := testing.AllocsPerRun(5, step); got != 0 {
		t.Errorf("%v allocations a step", got)
	}
	if d.used != used {
		t.Errorf("%d bytes of device memory taken after the second step", d.used-used)
	}
}

// TestTooLarge: a run that does not fit says what to lower.
func TestTooLarge(t *testing.T) {
	d := needDevice(t)
	c := recipe(t, "batch_size=200000", "block_size=1024", "dropout=0")
	c.GradAccum = 1
	_, err := train.New(c, verses(t), train.Options{Threads: 1, Device: d})
	if err == nil || !strings.Contains(err.Error(), "lower batch_size") || !strings.Contains(err.Error(), "GB more needed") {
		t.Errorf("got %v", err)
	}
	fmt.Fprintln(os.Stderr, err)
}
