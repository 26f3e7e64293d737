package runlog

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func write(t *testing.T, path string, rs ...Record) {
	t.Helper()
	w, err := Append(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	nan := math.NaN()
	want := []Record{
		{Step: 1, Loss: 4.174387269895637, Smooth: 4.17, LR: 3e-21, GradNorm: 1.5e300, Zeros: 0.31, TokensPerSecond: 41234.5, Elapsed: 0.018},
		{Step: 2, Loss: nan, Smooth: -1, LR: 1, GradNorm: nan, Eval: &Eval{2.5, 2.625}},
		{Step: 3, Eval: &Eval{nan, 1}},
	}
	write(t, path, want[:1]...)
	write(t, path, want[1:]...) // opened again: appended
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestInfinityIsLeftOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	write(t, path, Record{Step: 7, Loss: math.Inf(1)})
	text, _ := os.ReadFile(path)
	if strings.Contains(string(text), "loss") || !strings.HasPrefix(string(text), `{"step":7,"smooth":0,`) {
		t.Errorf("got %s", text)
	}
}

func TestTruncate(t *testing.T) {
	const log = `{"step":1,"loss":3}` + "\n" + `{"step":2,"loss":2}` + "\n" + `{"step":3,"loss":1}` + "\n"
	for _, r := range []struct {
		name, text string
		step, want int // want: bytes kept
	}{
		{"after the end", log, 9, 60},
		{"at the end", log, 3, 60},
		{"in the middle", log, 2, 40},
		{"everything", log, 0, 0},
		{"torn last line", log + `{"step":4,"lo`, 9, 60},
		{"torn last line that reads", log + `{"step":4}`, 9, 60},
		{"a foreign line stays", "hello\n" + log, 1, 26},
		{"empty", "", 5, 0},
	} {
		path := filepath.Join(t.TempDir(), File)
		if err := os.WriteFile(path, []byte(r.text), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := Truncate(path, r.step); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		if got, _ := os.ReadFile(path); string(got) != r.text[:r.want] {
			t.Errorf("%s: got %q, want %q", r.name, got, r.text[:r.want])
		}
	}
	if err := Truncate(filepath.Join(t.TempDir(), "none"), 1); err != nil {
		t.Errorf("no file: %v", err)
	}
}

func TestAppendCutsTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	write(t, path, Record{Step: 1})
	f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString(`{"step":2,"loss":`)
	f.Close()
	write(t, path, Record{Step: 2})
	got, err := ReadFile(path)
	if err != nil || len(got) != 2 || got[1].Step != 2 {
		t.Errorf("got %v, %v, want steps 1 and 2", got, err)
	}
}

// An evaluation that comes later joins the record of its step, and no other.
func TestAddEval(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	write(t, path, Record{Step: 1}, Record{Step: 2, Loss: 0.5})
	w, err := Append(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	want := []Record{{Step: 1}, {Step: 2, Loss: 0.5, Eval: &Eval{1.25, 1.5}}, {Step: 3, Eval: &Eval{2, math.NaN()}}, {Step: 4}}
	for _, err := range []error{
		w.AddEval(1, Eval{9, 9}), w.AddEval(2, *want[1].Eval), w.AddEval(3, Eval{9, 9}),
		w.Write(Record{Step: 3}), w.AddEval(3, *want[2].Eval), w.AddEval(3, Eval{9, 9}), w.Write(want[3]),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	again, err := Append(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.AddEval(4, Eval{}); err != nil {
		t.Fatal(err)
	}
	want[3].Eval = &Eval{}
	last, err := Append(path) // as after a kill between the log and the checkpoint
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	if err := last.AddEval(4, Eval{9, 9}); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	foreign := filepath.Join(t.TempDir(), File)
	const text = `{"step":1}` + "\n" + `{"x":1}` + "\n"
	if err := os.WriteFile(foreign, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	other, err := Append(foreign)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.AddEval(1, Eval{1, 1}); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(foreign); string(got) != text {
		t.Errorf("a foreign line became %q", got)
	}
}

func TestReadErrors(t *testing.T) {
	for _, r := range []struct{ name, text, want string }{
		{"not JSON", "{\"step\":1}\nhello\n", "runlog: line 2: invalid character"},
		{"no step", "{\"loss\":1}\n", "runlog: line 1: no step"},
		{"wrong type", "{\"step\":\"x\"}\n", "runlog: line 1: json: cannot unmarshal"},
		{"endless line", strings.Repeat("x", maxLine+9), "runlog: line 1: line longer than"},
	} {
		var err error
		for _, err = range Read(strings.NewReader(r.text)) {
		}
		if err == nil || !strings.HasPrefix(err.Error(), r.want) {
			t.Errorf("%s: got %v, want %s", r.name, err, r.want)
		}
	}
}

func TestWriteAllocatesNothing(t *testing.T) {
	w, err := Append(filepath.Join(t.TempDir(), File))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if n := testing.AllocsPerRun(100, func() { _ = w.Write(Record{Step: 1, Loss: 1.25}) }); n > 0 {
		t.Errorf("got %v allocations a record, want 0", n)
	}
}

// Whatever the bytes: no panic, and what remains after a cut is a prefix that
// can be appended to.
func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"step\":1,\"loss\":2.5}\n{\"step\":2"), 1)
	f.Add([]byte("{}\n[]\nnull\n"), 0)
	f.Fuzz(func(t *testing.T, text []byte, step int) {
		path := filepath.Join(t.TempDir(), File)
		if err := os.WriteFile(path, text, 0o666); err != nil {
			t.Fatal(err)
		}
		ReadFile(path)
		if Truncate(path, step) != nil {
			return
		}
		got, _ := os.ReadFile(path)
		if len(got) > len(text) || string(got) != string(text[:len(got)]) {
			t.Errorf("Truncate left %q of %q", got, text)
		}
		write(t, path, Record{Step: 1})
	})
}
