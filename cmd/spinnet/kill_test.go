//go:build unix

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"spinnet/runlog"
)

// killRecipe trains in about a second, with a checkpoint every few steps.
const killRecipe = `dataset = "tinyshakespeare"
n_layer = 2
n_head = 8
n_embd = 64
block_size = 16
batch_size = 4
octonion_attention = true
dropout = 0.1
max_iters = 200
warmup_iters = 5
eval_interval = 40
eval_iters = 1
checkpoint_interval = 4
sample_tokens = 0
`

// workDir is a folder with the recipe and its prepared dataset.
func workDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kill.toml"), []byte(killRecipe), 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := spinnetCommand(t, dir, "prepare", "tinyshakespeare").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// trainToEnd runs the recipe to its end.
func trainToEnd(t *testing.T, dir string, args ...string) {
	t.Helper()
	out, err := spinnetCommand(t, dir, append([]string{"train", "kill.toml"}, args...)...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nfinal: step 200 ") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// sameRun fails unless two runs ended with the same weights, optimizer state
// and metrics.
func sameRun(t *testing.T, want, got string) {
	t.Helper()
	for _, name := range []string{"model.safetensors", "optimizer.safetensors"} {
		a, err := os.ReadFile(filepath.Join(want, "checkpoints", "last", name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(got, "checkpoints", "last", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs from the run that was not stopped", name)
		}
	}
	a, err := runlog.ReadFile(filepath.Join(want, runlog.File))
	if err != nil {
		t.Fatal(err)
	}
	b, err := runlog.ReadFile(filepath.Join(got, runlog.File))
	if err != nil {
		t.Fatal(err)
	}
	if len(a) != 200 || len(b) != len(a) {
		t.Fatalf("got %d and %d records, want 200", len(a), len(b))
	}
	for i := range a {
		if a[i].Step != i+1 || b[i].Step != i+1 || a[i].Loss != b[i].Loss || a[i].Smooth != b[i].Smooth {
			t.Fatalf("record %d: got %+v, want %+v", i, b[i], a[i])
		}
	}
}

// matches reports whether a pattern matches a file.
func matches(pattern string) bool {
	found, _ := filepath.Glob(pattern)
	return len(found) > 0
}

// resumeArgs is --resume once there is a checkpoint, and before that what
// begins the run anew.
func resumeArgs(run string) []string {
	if matches(filepath.Join(run, "checkpoints", "step-????????", "state.json")) {
		return []string{"--resume"}
	}
	return []string{"--overwrite"}
}

// A run killed at any moment, also while it writes a checkpoint, and resumed
// ends exactly as one that was left alone.
func TestKilledRunResumesIdentically(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for seconds")
	}
	dir := workDir(t)
	trainToEnd(t, dir, "--out_dir=whole")
	rng := rand.New(rand.NewPCG(1, 2))
	for try := range 10 {
		name := fmt.Sprint("killed", try)
		inWrite := killTenTimes(t, dir, name, rng)
		run := filepath.Join(dir, name)
		trainToEnd(t, dir, append([]string{"--out_dir=" + name}, resumeArgs(run)...)...)
		sameRun(t, filepath.Join(dir, "whole"), run)
		if matches(filepath.Join(run, "checkpoints", "*.tmp")) {
			t.Error("an unfinished checkpoint is left behind")
		}
		if inWrite > 0 {
			t.Logf("run %d: %d kills came in the middle of a checkpoint", try, inWrite)
			return
		}
	}
	t.Error("no kill came in the middle of a checkpoint")
}

// killTenTimes runs the recipe and kills and resumes it up to ten times. It
// counts the kills that left an unfinished checkpoint.
func killTenTimes(t *testing.T, dir, name string, rng *rand.Rand) (inWrite int) {
	t.Helper()
	run := filepath.Join(dir, name)
	for kill := range 10 {
		cmd := spinnetCommand(t, dir, append([]string{"train", "kill.toml", "--out_dir=" + name}, resumeArgs(run)...)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		waitForKill(kill, run, rng)
		_ = cmd.Process.Kill()
		if err := <-done; err == nil {
			break // it was faster: nothing left to kill
		} else if exit, ok := err.(*exec.ExitError); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("kill %d: %v\n%s", kill, err, &out)
		}
		if matches(filepath.Join(run, "checkpoints", "*.tmp")) {
			inWrite++
		}
	}
	return inWrite
}

// waitForSteps waits until a run's log grows, for at most twenty seconds.
func waitForSteps(run string) (deadline time.Time) {
	deadline = time.Now().Add(20 * time.Second)
	size := func() int64 {
		info, err := os.Stat(filepath.Join(run, runlog.File))
		if err != nil {
			return 0
		}
		return info.Size()
	}
	for before := size(); size() <= before && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	return deadline
}

// waitForKill waits for the moment of one kill: every second one for a
// checkpoint being written and a part of its time, the others for some steps.
func waitForKill(kill int, run string, rng *rand.Rand) {
	deadline := waitForSteps(run)
	if kill%2 == 1 {
		for !matches(filepath.Join(run, "checkpoints", "*.tmp")) && time.Now().Before(deadline) {
			time.Sleep(20 * time.Microsecond)
		}
		if kill%4 == 3 {
			time.Sleep(time.Duration(rng.IntN(4000)) * time.Microsecond)
		}
		return
	}
	time.Sleep(time.Duration(10+rng.IntN(120)) * time.Millisecond)
}

// Ctrl-C, SIGTERM and a terminal that goes away save a checkpoint and exit 130;
// resumed, the run ends as if it had not been stopped.
func TestInterruptedRunResumes(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for seconds")
	}
	dir := workDir(t)
	slow := []string{"--checkpoint_interval=0", "--batch_size=32"}
	trainToEnd(t, dir, append(slow, "--out_dir=whole")...)
	run := filepath.Join(dir, "stopped")
	slow = append(slow, "--out_dir=stopped")
	for i, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		cmd := spinnetCommand(t, dir, slices.Concat([]string{"train", "kill.toml"}, slow, resumeArgs(run))...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitForSteps(run)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
			t.Fatalf("stop %d: exit code %d (%v), want %d\n%s", i, code, err, exitInterrupted, &out)
		}
		if !strings.Contains(out.String(), "interrupted after step ") {
			t.Errorf("stop %d: no word about it:\n%s", i, &out)
		}
	}
	trainToEnd(t, dir, append(slow, "--resume")...)
	sameRun(t, filepath.Join(dir, "whole"), run)
}

// Ctrl-C during the last evaluation saves and exits 130; resumed, the run ends
// with the losses of its last step.
func TestInterruptedLastEvaluation(t *testing.T) {
	dir := workDir(t)
	args := []string{"--max_iters=6", "--eval_interval=3", "--checkpoint_interval=0", "--eval_iters=2"}
	whole, err := spinnetCommand(t, dir, slices.Concat([]string{"train", "kill.toml", "--out_dir=whole"}, args)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	// So many batches that the evaluation lasts until the signal comes.
	cmd := spinnetCommand(t, dir, slices.Concat([]string{"train", "kill.toml", "--out_dir=stopped", "--log_interval=1"}, args, []string{"--eval_interval=0", "--eval_iters=1000000"})...)
	var out bytes.Buffer
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(log)
	said := ""
	for lines.Scan() {
		said += lines.Text() + "\n"
		if strings.HasPrefix(lines.Text(), "step 6/6") {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait()
	hung.Stop()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || out.Len() > 0 || !strings.Contains(said, "interrupted after step 6") {
		t.Errorf("exit code %d, want %d; stdout %q, stderr:\n%s", code, exitInterrupted, &out, said)
	}
	resumed, err := spinnetCommand(t, dir, slices.Concat([]string{"train", "kill.toml", "--out_dir=stopped", "--resume"}, args)...).Output()
	if err != nil || string(resumed) != string(whole) {
		t.Errorf("resumed: %q, %v, want %q", resumed, err, whole)
	}
}

// TestStopWhileReading: Ctrl-C ends a command that waits for its input.
func TestStopWhileReading(t *testing.T) {
	seedTiny, err := filepath.Abs(seedTiny)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"generate", seedTiny}, {"score", seedTiny, "--file", "-"}, {"tokenize"}} {
		cmd := spinnetCommand(t, t.TempDir(), args...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		hung := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		time.Sleep(300 * time.Millisecond) // now it reads
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		hung.Stop()
		in.Close()
		if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGINT {
			t.Errorf("%v: ended with %v, want an interrupt", args, cmd.ProcessState)
		}
	}
}

// TestPipesAreRefused: a text is read twice, which a pipe cannot be; asking
// must not wait for its writer.
func TestPipesAreRefused(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o666); err != nil {
		t.Skip(err)
	}
	cmd := spinnetCommand(t, dir, "prepare", "text", "pipe", "--out", "data")
	hung := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	out, _ := cmd.CombinedOutput()
	hung.Stop()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(string(out), "not a regular file") {
		t.Errorf("got exit code %d and %q, want %d and the reason", code, out, exitFailed)
	}
}
