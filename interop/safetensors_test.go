package interop

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spinnet/arch"
	"spinnet/spinfile"
)

// file builds a safetensors file of a header and data.
func file(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func read(b []byte) (SafeTensors, map[string]string, error) {
	return readSafetensors(bytes.NewReader(b), int64(len(b)), "test")
}

func TestSafetensorsRoundTrip(t *testing.T) {
	long := make([]float32, 40000) // over one buffer
	for i := range long {
		long[i] = float32(i) * 0.1
	}
	want := SafeTensors{
		{"a", []int{2, 3}, []float32{0, -1, float32(math.Inf(1)), 1e-45, 3, 4}},
		{"empty", []int{0, 5}, []float32{}},
		{"long \"name\" <&>\n", []int{40000}, long},
		{"scalar", nil, []float32{7}},
	}
	meta := map[string]string{"step": "12", "algebra": "walsh"}
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := WriteSafetensors(w, want, meta); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two writes of the same tensors differ")
	}
	if n := binary.LittleEndian.Uint64(first.Bytes()); n%8 != 0 {
		t.Errorf("header of %d bytes is not aligned", n)
	}
	got, gotMeta, err := read(first.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) || gotMeta["step"] != "12" || gotMeta["algebra"] != "walsh" {
		t.Fatalf("got %d tensors and %v", len(got), gotMeta)
	}
	for i := range want {
		if got[i].Name != want[i].Name || !slices.Equal(got[i].Shape, want[i].Shape) || !slices.Equal(got[i].Data, want[i].Data) {
			t.Errorf("tensor %d: got %q %v, want %q %v", i, got[i].Name, got[i].Shape, want[i].Name, want[i].Shape)
		}
	}
	if got.Find("scalar").Data[0] != 7 || got.Find("none") != nil {
		t.Error("Get is wrong")
	}
}

func TestSafetensorsHalves(t *testing.T) {
	halves := []uint16{0x3c00, 0xc000, 0x0001, 0x8001, 0x7bff, 0x0000, 0x3555, 0x0400, 0x7c00}
	want := []float32{1, -2, 1.0 / (1 << 24), -1.0 / (1 << 24), 65504, 0, 0.333251953125, 1.0 / (1 << 14), float32(math.Inf(1))}
	var data []byte
	for _, h := range halves {
		data = binary.LittleEndian.AppendUint16(data, h)
	}
	data = binary.LittleEndian.AppendUint16(data, 0xbfc0) // −1.5 in bfloat16
	ts, _, err := read(file(`{"h":{"dtype":"F16","shape":[9],"data_offsets":[0,18]},"b":{"dtype":"BF16","shape":[],"data_offsets":[18,20]}} `, data...))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(ts.Find("h").Data, want) || ts.Find("b").Data[0] != -1.5 {
		t.Errorf("got %v and %v", ts.Find("h").Data, ts.Find("b").Data)
	}
}

func TestSafetensorsBad(t *testing.T) {
	one := `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"empty", "at least 8", nil},
		{"short", "at least 8", []byte("spinnet")},
		{"header over file", "truncated", binary.LittleEndian.AppendUint64(nil, 1)},
		{"huge header", "truncated", binary.LittleEndian.AppendUint64(nil, math.MaxUint64)},
		{"not json", "bad header", file("PK.. ....")},
		{"array", "not a JSON object", file("[]      ")},
		{"cut json", "bad header", file(one[:len(one)-1])},
		{"two values", "more than one", file(one+"{}", 0, 0, 0, 0)},
		{"twice", "named twice", file(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`)},
		{"type", `data type "I64"`, file(`{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}`, make([]byte, 8)...)},
		{"negative shape", "shape [-1 -1]", file(`{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}`, 0, 0, 0, 0)},
		{"shape overflow", "shape [4611686018427387904 4]", file(`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`)},
		{"offsets reversed", "data offsets [4 0]", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`)},
		{"size", "wants 8", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 0, 0, 0, 0)},
		{"truncated data", "truncated", file(one, 0, 0, 0)},
		{"trailing", "1 bytes after the last", file(one, 0, 0, 0, 0, 0)},
		{"hole", "belong to no tensor", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, make([]byte, 8)...)},
		{"overlap", "overlaps", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, make([]byte, 8)...)},
		{"metadata", "bad header", file(`{"__metadata__":{"step":1}}`)},
	} {
		ts, _, err := read(c.b)
		var typed *FormatError
		if !errors.As(err, &typed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v; want a FormatError with %q", c.name, ts, err, c.want)
		}
	}
}

// A checkpoint that is cut off anywhere is refused.
func TestSafetensorsTruncated(t *testing.T) {
	b, err := os.ReadFile(seedTiny + "/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	header := 8 + int(binary.LittleEndian.Uint64(b))
	for n := 0; n < len(b); n++ {
		if n > header && n < len(b)-10 { // in the data one place is like another
			n += 500
		}
		if _, _, err := scanSafetensors(bytes.NewReader(b[:min(n, len(b)-1)]), int64(min(n, len(b)-1)), failing("test", FormatSafetensors)); err == nil {
			t.Fatalf("no error for the first %d bytes of %d", n, len(b))
		}
	}
}

func TestWriteSafetensorsBad(t *testing.T) {
	for _, ts := range [][]SafeTensor{
		{{"a", []int{2}, []float32{1}}},
		{{"a", nil, []float32{1}}, {"a", nil, []float32{1}}},
		{{"__metadata__", nil, []float32{1}}},
	} {
		var b bytes.Buffer
		if err := WriteSafetensors(&b, ts, nil); err == nil || b.Len() > 0 {
			t.Errorf("%v: no error or %d bytes written", ts, b.Len())
		}
	}
}

func FuzzSafetensors(f *testing.F) {
	f.Add(file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 0, 0, 0, 0))
	f.Add(file(`{"__metadata__":{"k":"v"},"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[],"data_offsets":[4,6]}}`, 1, 2, 3, 4, 5, 6))
	f.Add(file(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ts, meta, err := read(b)
		if err != nil {
			var typed *FormatError
			if !errors.As(err, &typed) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		var again bytes.Buffer
		if err := WriteSafetensors(&again, ts, meta); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back, _, err := read(again.Bytes())
		if err != nil || len(back) != len(ts) {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		for i := range ts {
			for j, v := range ts[i].Data {
				if math.Float32bits(v) != math.Float32bits(back[i].Data[j]) {
					t.Fatalf("tensor %q value %d: %v became %v", ts[i].Name, j, v, back[i].Data[j])
				}
			}
		}
	})
}

// FuzzCheckpoint reads both files of a checkpoint.
func FuzzCheckpoint(f *testing.F) {
	c := arch.Config{NLayer: 1, NHead: 1, NEmbd: 2, HiddenDim: 2, BlockSize: 2, VocabSize: 2, Algebra: "real"}.WithDefaults()
	state, err := json.Marshal(State{Model: c, Tokenizer: spinfile.TokenizerInfo{Kind: "chars", Chars: "ab"}, Step: 3})
	if err != nil {
		f.Fatal(err)
	}
	var ts []SafeTensor
	for _, p := range arch.Params(c) {
		ts = append(ts, SafeTensor{p.Name, p.Shape, make([]float32, p.Len())})
	}
	var weights bytes.Buffer
	if err := WriteSafetensors(&weights, ts, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(state, weights.Bytes())
	f.Fuzz(func(t *testing.T, state, weights []byte) {
		st, err := parseState(state, failing("state.json", ""))
		if err != nil {
			return
		}
		l := &Latents{Format: FormatSafetensors, Size: int64(len(weights)), Meta: map[string]string{}, file: bytes.NewReader(weights)}
		entries, _, err := scanSafetensors(l.file, l.Size, l.fail)
		if err != nil {
			return
		}
		if l.useState(st, entries); l.check() != nil {
			return
		}
		m, err := l.Model()
		if err != nil {
			return
		}
		if err := m.Validate(); err != nil {
			t.Fatalf("a bad model was accepted: %v", err)
		}
	})
}

const seedTiny = "../model/testdata/seed_tiny"

func TestOpen(t *testing.T) {
	run := t.TempDir()
	best := filepath.Join(run, "checkpoints", "best")
	if err := os.CopyFS(best, os.DirFS(seedTiny)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{seedTiny, seedTiny + "/model.safetensors", run, best} {
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		trits, zeros, _ := m.Counts()
		if m.Config.NLayer != 2 || len(m.Tokenizer.Chars) != 65 || trits != arch.Count(m.Config).Ternary || zeros == 0 || m.Meta["step"] != "150" {
			t.Errorf("%s: got %+v, %d trits, %d zeros, %v", path, m.Config, trits, zeros, m.Meta)
		}
	}
}

func TestOpenBad(t *testing.T) {
	state, err := os.ReadFile(seedTiny + "/state.json")
	if err != nil {
		t.Fatal(err)
	}
	weights, err := os.ReadFile(seedTiny + "/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, with string) []byte { return bytes.Replace(state, []byte(old), []byte(with), 1) }
	for _, c := range []struct {
		name, want     string
		state, weights []byte
	}{
		{"no weights", "no model in it", state, nil},
		{"no state", "state.json: missing", nil, weights},
		{"bad state", "state.json: ", []byte("{"), weights},
		{"other width", "shape [65 64], the configuration wants [65 128]", replace(`"n_embd": 64`, `"n_embd": 128`), weights},
		{"more layers", `tensor "layers.2.attention_norm.weight": missing`, replace(`"n_layer": 2`, `"n_layer": 3`), weights},
		{"fewer layers", "does not belong", replace(`"n_layer": 2`, `"n_layer": 1`), weights},
		{"absurd", "n_layer = 1000000", replace(`"n_layer": 2`, `"n_layer": 1000000`), weights},
		{"truncated", "truncated", state, weights[:len(weights)-1]},
		{"cut", "at least 8", state, []byte{}},
	} {
		dir := t.TempDir()
		for name, b := range map[string][]byte{StateFile: c.state, WeightsFile: c.weights} {
			if b == nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Open(dir)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if _, ok := errors.AsType[*FormatError](err); !ok && c.weights != nil {
			t.Errorf("%s: %v is no FormatError", c.name, err)
		}
	}
	for _, own := range []string{"{", `{"model": {"n_layer": 0}}`, `{"model": {"n_layer": 1` + strings.Repeat("0", 1<<20) + "}}"} {
		var b bytes.Buffer
		if err := WriteSafetensors(&b, nil, map[string]string{stateKey: own}); err != nil {
			t.Fatal(err)
		}
		_, err := readBytes(b.Bytes(), "x.safetensors")
		if _, ok := errors.AsType[*FormatError](err); !ok || len(err.Error()) > 5000 {
			t.Errorf("metadata %.40s: got %.200v, want a FormatError", own, err)
		}
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), "open.go", "testdata"} {
		if _, err := Open(path); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, c := range []struct {
		text string
		err  error
		want string
	}{{"one", nil, "one"}, {"two", errors.New("disk full"), "one"}, {"three", nil, "three"}} {
		err := WriteFile(path, func(w io.Writer) error {
			w.Write([]byte(c.text))
			return c.err
		})
		if !errors.Is(err, c.err) {
			t.Errorf("got %v, want %v", err, c.err)
		}
		if got, _ := os.ReadFile(path); string(got) != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// What is no file stays what it is, links lead to what is written, and an
// error names what was asked for.
func TestWriteFilePlaces(t *testing.T) {
	dir := t.TempDir()
	write := func(path string) error {
		return WriteFile(path, func(w io.Writer) error { _, err := w.Write([]byte("new")); return err })
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(in("folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"link": "file", "dangling": "folder/later", "loop": "loop", "far": "none/file"} {
		if err := os.Symlink(to, in(link)); err != nil {
			t.Skip("no symbolic links here: ", err)
		}
	}
	if err := os.WriteFile(in("file"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"link": "file", "dangling": "folder/later"} {
		if err := write(in(link)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(in(to)); string(got) != "new" {
			t.Errorf("%s: got %q, %v", link, got, err)
		}
		if info, err := os.Lstat(in(link)); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s is no link any more: %v", link, err)
		}
	}
	for path, want := range map[string]string{
		in("folder"): "it is a folder", os.DevNull: "not a regular file", in("none/file"): "there is no folder", in("loop"): "symbolic links",
		in("far"): "there is no folder", in("file/file"): "not a directory",
	} {
		err := write(path)
		if err == nil || !strings.HasPrefix(err.Error(), "interop: "+path+" cannot be written: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), ".tmp") {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 6 {
		t.Errorf("left behind: %v", left)
	}
}
