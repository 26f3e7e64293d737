//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"bytes"
	"context"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spinnet/interop"
	"spinnet/model"
	"spinnet/tensor"
	"spinnet/train"
)

// TestRecompute: computing activations again gives the bits of keeping them.
func TestRecompute(t *testing.T) {
	needDevice(t).Close()
	data := verses(t)
	var kept []byte
	for _, recompute := range []string{"false", "true"} {
		c := recipe(t, "recompute="+recompute, "act_bits=8")
		run(t, c, data, needDevice(t), false, 0)
		if files := lastFiles(t, c); kept == nil {
			kept = files
		} else if !bytes.Equal(kept, files) {
			t.Error("recompute changes the bits of a run")
		}
	}
}

// TestRunShowsItsProgress: evaluations and samples come in a run on a GPU too.
func TestRunShowsItsProgress(t *testing.T) {
	c := recipe(t)
	tr, err := train.New(c, verses(t), train.Options{Threads: 1, Device: needDevice(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	evals, samples, checkpoints := 0, 0, 0
	err = tr.Run(context.Background(), train.Observer{
		Eval: func(e train.EvalInfo) {
			if evals++; !(e.Val > 0) || !(e.Train > 0) {
				t.Errorf("evaluation %+v", e)
			}
		},
		Sample: func(step int, text string) {
			if samples++; !strings.HasPrefix(text, "the") || len(text) < 6 {
				t.Errorf("step %d: sample %q", step, text)
			}
		},
		Checkpoint: func(int, string) { checkpoints++ },
		Note:       func(s string) { t.Error("note:", s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := c.MaxIters / c.EvalInterval
	if evals != want || samples != want || checkpoints < want {
		t.Errorf("%d evaluations, %d samples, %d checkpoints; want %d of each", evals, samples, checkpoints, want)
	}
}

// TestOneCheckpointOnBoth: the same weights give the same losses, token by
// token, and the gradient of a batch is the sum of its halves'.
func TestOneCheckpointOnBoth(t *testing.T) {
	needDevice(t).Close()
	data := verses(t)
	c := recipe(t, "dropout=0")
	run(t, c, data, needDevice(t), false, 0)
	weights, _, err := interop.ReadSafetensors(filepath.Join(c.OutDir, "checkpoints", "last", "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	const rows = 4
	ids := make([]int32, rows*c.BlockSize+1)
	if err := data.Train.Read(ids, 0); err != nil {
		t.Fatal(err)
	}
	// losses and gradients of the batch, in so many parts.
	pass := func(dev tensor.Device, parts int) (losses []float32, grads map[string][]float32) {
		m, err := model.New(dev, c.Arch(data.VocabSize))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Params {
			dev.Write(p.Value, weights.Find(p.Name).Data)
		}
		m.Refresh(true)
		b := m.NewBatch(rows/parts, c.BlockSize)
		n := b.Rows * b.T
		tape := m.Record(b, model.Options{Train: true, GradScale: 1 / float32(rows*c.BlockSize)})
		m.ZeroGradients()
		for i := range parts {
			dev.WriteInts(b.IDs, ids[i*n:(i+1)*n])
			dev.WriteInts(b.Targets, ids[i*n+1:(i+1)*n+1])
			tape.Forward()
			tape.Backward()
			part := make([]float32, n)
			dev.Read(part, b.Losses)
			losses = append(losses, part...)
		}
		m.FinishGradients()
		grads = map[string][]float32{}
		for _, p := range m.Params {
			grads[p.Name] = make([]float32, p.Len())
			dev.Read(grads[p.Name], p.Grad)
		}
		if err := dev.Sync(); err != nil {
			t.Fatal(err)
		}
		return losses, grads
	}
	cpu := tensor.NewCPU(2)
	defer cpu.Close()
	want, wantGrads := pass(cpu, 1)
	for _, parts := range []int{1, 2, 4} {
		got, grads := pass(needDevice(t), parts)
		if d := distance(got, want); !(d < 0.02) {
			t.Errorf("%d parts: losses differ by %.2g of their size", parts, d)
		}
		var a, b float64
		for i := range got {
			a, b = a+float64(got[i]), b+float64(want[i])
		}
		if !(math.Abs(a/b-1) < 2e-3) {
			t.Errorf("%d parts: mean loss %.5f, want %.5f", parts, a/float64(len(got)), b/float64(len(got)))
		}
		for name, g := range grads {
			if d := distance(g, wantGrads[name]); !(d < 0.1) {
				t.Errorf("%d parts: gradient of %s: relative distance %.2g", parts, name, d)
			}
		}
	}
}

// child runs one test of this program in a process of its own, with a variable
// that says so.
func child(t *testing.T, test, env string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v") //nolint:gosec // this program
	if testing.Short() {
		cmd.Args = append(cmd.Args, "-test.short")
	}
	cmd.Env = append(os.Environ(), env)
	return cmd
}

// TestTwoProcesses: two runs at a time on one GPU both give the bits that one
// alone gives.
func TestTwoProcesses(t *testing.T) {
	if dir := os.Getenv("SPINNET_RUN_INTO"); dir != "" {
		c := recipe(t, "out_dir="+dir)
		run(t, c, verses(t), needDevice(t), false, 0)
		return
	}
	needDevice(t).Close()
	var cmds []*exec.Cmd
	var outs []*bytes.Buffer
	var runs []train.Config
	for range 2 {
		c := recipe(t)
		cmd, out := child(t, "TestTwoProcesses", "SPINNET_RUN_INTO="+c.OutDir), new(bytes.Buffer)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds, outs, runs = append(cmds, cmd), append(outs, out), append(runs, c)
	}
	alone := recipe(t)
	run(t, alone, verses(t), needDevice(t), false, 0)
	want := lastFiles(t, alone)
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, outs[i])
		}
		if !bytes.Equal(lastFiles(t, runs[i]), want) {
			t.Errorf("run %d gave other bits than one alone", i)
		}
	}
}

// TestKernelFaultInARun: a kernel that writes where no memory is ends a run with
// the GPU's name and what is kept; the checkpoint before it goes on on the CPU.
func TestKernelFaultInARun(t *testing.T) {
	if dir := os.Getenv("SPINNET_FAULT_INTO"); dir != "" {
		d := needDevice(t)
		wild := d.function(d.loadModule([]byte(testPTX)), "wild")
		tr, err := train.New(recipe(t, "out_dir="+dir), verses(t), train.Options{Threads: 1, Device: d})
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		err = tr.Run(context.Background(), train.Observer{Step: func(s train.StepInfo) {
			if s.Step == stopAt() {
				d.last = "wild"
				d.launchFunction(wild, grid{x: 1, threads: 1}, false, [4]*tensorMap{})
			}
		}})
		oneLine(t, err, "after step", d.name(), "CUDA_ERROR", "a kernel failed", "the checkpoint of step", "is good")
		return
	}
	needDevice(t).Close()
	c := recipe(t)
	out, err := child(t, "TestKernelFaultInARun", "SPINNET_FAULT_INTO="+c.OutDir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tr, err := train.New(c, verses(t), train.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	want := stopAt() / c.CheckInterval * c.CheckInterval
	if err := tr.Resume(); err != nil || tr.Step() != want {
		t.Errorf("resumed at step %d with error %v, want %d", tr.Step(), err, want)
	}
	if _, _, err := tr.TrainStep(context.Background()); err != nil {
		t.Error(err)
	}
}
