package interop

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"spinnet/arch"
	"spinnet/engine"
	"spinnet/pickle"
	"spinnet/spinfile"
)

// seedTinyPT is a checkpoint of the original implementation; the expected
// values are in seedTiny.
const seedTinyPT = "testdata/seed_tiny_ckpt.pt"

// readBytes opens a file that is in memory.
func readBytes(b []byte, path string) (*spinfile.Model, error) {
	l, err := openLatents(bytes.NewReader(b), int64(len(b)), path, Options{})
	if err != nil {
		return nil, err
	}
	return l.Model()
}

// unzip gives the entries of an archive by name.
func unzip(t testing.TB, path string) map[string][]byte {
	t.Helper()
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	entries := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if entries[f.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return entries
}

func zipped(t testing.TB, entries map[string][]byte, method uint16) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(entries)) { // in order: the fuzzer wants the same path each time
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(entries[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// word is a string in a pickle of protocol 2.
func word(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

// The checkpoint is the model of the converted one in model/testdata, and
// computes what the original does (SPEC §6).
func TestPyTorch(t *testing.T) {
	m, err := Open(seedTinyPT)
	if err != nil {
		t.Fatal(err)
	}
	same, err := Open(seedTiny)
	if err != nil {
		t.Fatal(err)
	}
	if m.Config != same.Config || !reflect.DeepEqual(m.Tensors, same.Tensors) || !m.Tokenizer.Equal(same.Tokenizer) || m.Meta["step"] != "150" {
		t.Errorf("got %+v, %q, %v; want %+v", m.Config, m.Tokenizer.Chars, m.Meta, same.Config)
	}
	checkSeedTiny(t, m)
	got, err := spinfile.Encode4(m)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("../spinfile/testdata/seed_tiny.spinnet")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, file) {
		t.Error("compressing it does not give the original's file")
	}
}

// checkSeedTiny compares a model with the original's results.
func checkSeedTiny(t *testing.T, m *spinfile.Model) {
	t.Helper()
	var want struct {
		IDs          []int32   `json:"ids"`
		Loss         float64   `json:"loss"`
		LastLogits   []float32 `json:"last_logits"`
		GreedyFrom16 []int32   `json:"greedy_from_16"`
	}
	b, err := os.ReadFile(seedTiny + "/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(m, engine.Options{Threads: 1, Numeric: engine.Float})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	got, err := e.Score(context.Background(), want.IDs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rel := math.Abs(got.Loss-want.Loss) / want.Loss; !(rel <= 1e-6) {
		t.Errorf("loss %v, want %v", got.Loss, want.Loss)
	}
	if rel := relL2(got.Logits, want.LastLogits); !(rel <= 5e-6) {
		t.Errorf("last logits: relative error %.2g", rel)
	}
	if got := greedy(t, e, want.IDs[:16], 40); !slices.Equal(got, want.GreedyFrom16) {
		t.Errorf("greedy: got %v, want %v", got, want.GreedyFrom16)
	}
}

// relL2 is |got − want| / |want|.
func relL2(got, want []float32) float64 {
	var diff, norm float64
	for i := range want {
		d := float64(got[i]) - float64(want[i])
		diff += d * d
		norm += float64(want[i]) * float64(want[i])
	}
	return math.Sqrt(diff / norm)
}

// greedy continues ids by n of the most probable tokens.
func greedy(t *testing.T, e *engine.Engine, ids []int32, n int) []int32 {
	t.Helper()
	s := e.NewSession()
	ids = slices.Clone(ids)
	logits, err := s.Prefill(ids)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		best := int32(0)
		for i, v := range logits {
			if v > logits[best] {
				best = int32(i)
			}
		}
		ids = append(ids, best)
		logits = s.Step(best)
	}
	return ids
}

func TestPyTorchVariants(t *testing.T) {
	want, err := Open(seedTinyPT)
	if err != nil {
		t.Fatal(err)
	}
	const root = "seed_tiny_ckpt/"
	check := func(t *testing.T, entries map[string][]byte, method uint16) *spinfile.Model {
		t.Helper()
		m, err := readBytes(zipped(t, entries, method), "x.pt")
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	t.Run("compressed", func(t *testing.T) {
		if m := check(t, unzip(t, seedTinyPT), zip.Deflate); !reflect.DeepEqual(m.Tensors, want.Tensors) {
			t.Error("another model")
		}
	})
	t.Run("compiled", func(t *testing.T) { // torch.compile's prefix on every parameter
		entries := unzip(t, seedTinyPT)
		p := string(entries[root+"data.pkl"])
		for _, q := range arch.Params(want.Config) {
			p = strings.Replace(p, word(q.Name), word("_orig_mod."+q.Name), 1)
		}
		for _, name := range []string{"output.weight", "freqs_cis", "layers.0.attention.head_mixer.signs"} {
			p = strings.Replace(p, word(name), word("_orig_mod."+name), 1)
		}
		entries[root+"data.pkl"] = []byte(p)
		if m := check(t, entries, zip.Store); !reflect.DeepEqual(m.Tensors, want.Tensors) {
			t.Error("another model")
		}
	})
	t.Run("no optimizer", func(t *testing.T) {
		entries := unzip(t, seedTinyPT)
		for name := range entries { // the model's storages are the first 43
			if n := strings.TrimPrefix(name, root+"data/"); len(n) == 3 || len(n) == 2 && n >= "43" {
				delete(entries, name)
			}
		}
		p := entries[root+"data.pkl"]
		entries[root+"data.pkl"] = []byte(strings.Replace(string(p), word("optimizer"), word("something"), 1))
		if m := check(t, entries, zip.Store); !reflect.DeepEqual(m.Tensors, want.Tensors) {
			t.Error("another model")
		}
	})
	for storage, convert := range map[string]func(b []byte, v float32) []byte{
		"BFloat16Storage": func(b []byte, v float32) []byte {
			return binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(v)>>16))
		},
		"DoubleStorage": func(b []byte, v float32) []byte {
			return binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(v)))
		},
	} {
		t.Run(storage, func(t *testing.T) {
			entries := unzip(t, seedTinyPT)
			p := string(entries[root+"data.pkl"])
			for _, key := range floatStorages(t, []byte(p)) {
				var b []byte
				old := entries[root+"data/"+key]
				for i := 0; i < len(old); i += 4 {
					b = convert(b, math.Float32frombits(binary.LittleEndian.Uint32(old[i:])))
				}
				entries[root+"data/"+key] = b
			}
			entries[root+"data.pkl"] = []byte(strings.ReplaceAll(p, "ctorch\nFloatStorage\n", "ctorch\n"+storage+"\n"))
			m := check(t, entries, zip.Store)
			for i := range m.Tensors {
				for j, v := range m.Tensors[i].Data {
					w := want.Tensors[i].Data[j]
					if storage == "BFloat16Storage" {
						w = math.Float32frombits(math.Float32bits(w) &^ 0xffff)
					}
					if v != w {
						t.Fatalf("%s: value %d is %v, want %v", m.Tensors[i].Name, j, v, w)
					}
				}
			}
		})
	}
	// The output's table with another storage: an Adam moment of its size, or
	// a copy of the embedding.
	for name, data := range map[string]string{"untied": "data/44", "equal": "data/1"} {
		t.Run(name, func(t *testing.T) {
			entries := unzip(t, seedTinyPT)
			entries[root+"data/out"] = entries[root+data]
			p := string(entries[root+"data.pkl"])
			before, after, ok := strings.Cut(p, word("output.weight")+"r\x62\x01\x00\x00h\x05((h\x06h\x11h\x12")
			if !ok {
				t.Fatal("the fixture has changed")
			}
			entries[root+"data.pkl"] = []byte(before + word("output.weight") + "h\x05((h\x06h\x11" + word("out") + after)
			m := check(t, entries, zip.Store)
			output := m.Tensor(arch.OutputName)
			if m.Config.UntiedOutput != (name == "untied") || (output != nil) != (name == "untied") {
				t.Fatalf("untied %v, output %v", m.Config.UntiedOutput, output != nil)
			}
			if output != nil && slices.Equal(output.Data, m.Tensor("tok_embeddings.weight").Data) {
				t.Error("the output is the embedding")
			}
		})
	}
}

// floatStorages lists the keys of the storages of float32 numbers.
func floatStorages(t *testing.T, p []byte) []string {
	t.Helper()
	top, err := pickle.Load(p, allowTorch)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	seen := map[any]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case *pickle.Dict:
			for _, x := range v.Values {
				walk(x)
			}
		case *pickle.Call:
			if p, err := placeOf(v); err == nil && p.storage == "FloatStorage" && !seen[p.key] {
				seen[p.key] = true
				keys = append(keys, p.key)
			}
		}
	}
	walk(top)
	return keys
}

func TestPyTorchTokenizer(t *testing.T) {
	b, err := os.ReadFile(seedTinyPT)
	if err != nil {
		t.Fatal(err)
	}
	shakespeare := spinfile.GuessTokenizer(65).Chars
	other := shakespeare[:64] + "é"
	dir := t.TempDir()
	path := filepath.Join(dir, "ckpt.pt")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, pickle.MetaFile), pickle.EncodeMeta(other), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := Open(dir) // the folder: the original calls its checkpoints ckpt.pt
	if err != nil || m.Tokenizer.Chars != other {
		t.Errorf("meta.pkl: got %q, %v", m.Tokenizer.Chars, err)
	}
	given := shakespeare[1:] + "ê"
	m, err = OpenWith(path, Options{Chars: given})
	if err != nil || m.Tokenizer.Chars != given {
		t.Errorf("option: got %v, %v", m, err)
	}
	for _, bad := range []Options{{Chars: "abc"}, {Chars: shakespeare[1:] + "a"}, {Chars: given, Tokenizer: "tok"}} {
		if _, err := OpenWith(path, bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
	for name, meta := range map[string][]byte{"code": []byte("\x80\x02cposix\nsystem\n."), "too many": pickle.EncodeMeta(shakespeare + "éêë")} {
		if err := os.WriteFile(filepath.Join(dir, pickle.MetaFile), meta, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// tupleBomb is a tuple of two tuples, each of them the same tuple of two, and
// so on: a text of 2⁴⁰ brackets out of 160 bytes.
var tupleBomb = ")" + strings.Repeat("q\xffh\xff\x86", 40)

func TestPyTorchBad(t *testing.T) {
	const root = "seed_tiny_ckpt/"
	p := string(unzip(t, seedTinyPT)[root+"data.pkl"])
	replace := func(old, with string) func(map[string][]byte) {
		if !strings.Contains(p, old) {
			t.Fatalf("the pickle lacks %q", old)
		}
		return func(e map[string][]byte) { e[root+"data.pkl"] = []byte(strings.Replace(p, old, with, 1)) }
	}
	for _, c := range []struct {
		name, want string
		change     func(map[string][]byte)
	}{
		{"code", `names "posix.system", which is not data`, replace("ctorch\nLongStorage\n", "cposix\nsystem\n")},
		{"eval", `names "builtins.eval"`, replace("ctorch._utils\n_rebuild_tensor_v2\n", "cbuiltins\neval\n")},
		{"no pickle", `no entry "data.pkl"`, func(e map[string][]byte) { delete(e, root+"data.pkl") }},
		{"empty pickle", "data.pkl: it ends too early", func(e map[string][]byte) { e[root+"data.pkl"] = nil }},
		{"a list", "it holds no dict", func(e map[string][]byte) { e[root+"data.pkl"] = []byte("\x80\x02].") }},
		{"no model", `lacks the dict "model"`, replace(word("model"), word("module"))},
		{"big-endian", `byte order "big"`, func(e map[string][]byte) { e[root+"byteorder"] = []byte("big") }},
		{"no storage", `no entry "data/1"`, func(e map[string][]byte) { delete(e, root+"data/1") }},
		{"short storage", "has 16636 bytes, want 4160 values", func(e map[string][]byte) { e[root+"data/1"] = e[root+"data/1"][4:] }},
		{"missing parameter", `tensor "norm.weight": missing`, replace(word("norm.weight"), word("freqs_cis"))},
		{"unknown parameter", `tensor "bias": does not belong`, replace(word("layers.1.attention.head_mixer.signs"), word("bias"))},
		{"twice", `tensor "norm.weight": twice`, replace(word("layers.1.attention.head_mixer.signs"), word("norm.weight"))},
		{"stride", "do not lie in a row", replace("K\x00K\x41K\x40\x86", "K\x00K\x40K\x41\x86")},
		{"offset", "4160 values from 1 on, in a storage of 4160", replace("K\x00K\x41K\x40\x86", "K\x01K\x41K\x40\x86")},
		{"negative offset", "damaged reference", replace("K\x00K\x41K\x40\x86", "J\xff\xff\xff\xffK\x41K\x40\x86")},
		{"shape", "wants [65 64]", replace("K\x00K\x41K\x40\x86", "K\x00K\x40K\x40\x86")},
		{"huge shape", "137438953408 values from 0 on", replace("K\x00K\x41K\x40\x86", "K\x00J\xff\xff\xff\x7fK\x40\x86")},
		{"layers", "n_layer is no positive number", replace(word("n_layer"), word("layers"))},
		{"width", "wants [", replace(word("n_embd")+"r\xbf\x04\x00\x00K\x40", word("n_embd")+"K\x80")},
		{"bias", "bias is not False", func(e map[string][]byte) {
			at := strings.LastIndex(p, word("bias"))
			off := strings.Index(p[at:], "\x89")
			e[root+"data.pkl"] = []byte(p[:at+off] + "\x88" + p[at+off+1:])
		}},
		{"a tuple of tuples", "a shape with the size that is no number", replace("K\x00K\x41K\x40\x86", "K\x00"+tupleBomb+"K\x40\x86")},
		{"strides of tuples", "stride that is no number", replace("K\x40K\x01\x86", tupleBomb+"K\x01\x86")},
		{"integers", "its values are in a LongStorage", replace("ctorch\nFloatStorage\n", "ctorch\nLongStorage\n")},
	} {
		t.Run(c.name, func(t *testing.T) {
			entries := unzip(t, seedTinyPT)
			c.change(entries)
			_, err := readBytes(zipped(t, entries, zip.Store), "x.pt")
			if _, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a FormatError with %q", err, c.want)
			}
		})
	}
}

// A file that is cut off anywhere, or changed in its tensors, is refused.
func TestPyTorchDamaged(t *testing.T) {
	b, err := os.ReadFile(seedTinyPT)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(b); n += 1 + n/16 {
		if _, err := readBytes(b[:n], "x.pt"); err == nil {
			t.Errorf("no error for the first %d bytes", n)
		}
	}
	for n := len(b) - 300; n < len(b); n++ {
		if _, err := readBytes(b[:n], "x.pt"); err == nil {
			t.Errorf("no error for the first %d bytes", n)
		}
	}
	for _, junk := range []string{"\x00", "junk", string(make([]byte, 70000))} {
		if _, err := readBytes(append(bytes.Clone(b), junk...), "x.pt"); err == nil || !strings.Contains(err.Error(), "zip archive") {
			t.Errorf("%d bytes after the end: got %v", len(junk), err)
		}
	}
	flipped := bytes.Clone(b)
	flipped[20112+1000] ^= 1 // in the embedding
	if _, err := readBytes(flipped, "x.pt"); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("a flipped bit: got %v", err)
	}
	old := []byte("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.") // torch.save before 1.6
	if _, err := readBytes(old, "x.pt"); err == nil || !strings.Contains(err.Error(), "since version 1.6") {
		t.Errorf("an old file: got %v", err)
	}
}

// A compressed entry cannot make more of a file than its size allows.
func TestPyTorchBomb(t *testing.T) {
	const root = "seed_tiny_ckpt/"
	entries := unzip(t, seedTinyPT)
	entries[root+"data.pkl"] = make([]byte, maxPickle+1)
	if _, err := readBytes(zipped(t, entries, zip.Deflate), "x.pt"); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v", err)
	}
}

// tinyPT is a checkpoint of a very small model, as torch.save lays it out.
func tinyPT() (entries map[string][]byte) {
	c := arch.Config{NLayer: 1, NHead: 8, NEmbd: 16, BlockSize: 4, VocabSize: 3, Quantizer: arch.Classic}.WithDefaults()
	entries = map[string][]byte{"x/byteorder": []byte("little")}
	p := "\x80\x02}(" + word("model_args") + "}("
	for _, f := range []struct {
		key string
		v   int
	}{{"n_layer", c.NLayer}, {"n_head", c.NHead}, {"n_embd", c.NEmbd}, {"block_size", c.BlockSize}, {"vocab_size", c.VocabSize}} {
		p += word(f.key) + "K" + string(rune(f.v))
	}
	p += "u" + word("model") + "ccollections\nOrderedDict\n)R("
	number := func(n int) string { return "J" + string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }
	for i, q := range arch.Params(c) {
		key := string(rune('A' + i))
		entries["x/data/"+key] = make([]byte, 4*q.Len())
		size, stride, step := "", "", 1
		for _, d := range slices.Backward(q.Shape) {
			size, stride = number(d)+size, number(step)+stride
			step *= d
		}
		p += word(q.Name) + "ctorch._utils\n_rebuild_tensor_v2\n((" + word("storage") + "ctorch\nFloatStorage\n" + word(key) + word("cpu") + number(q.Len()) +
			"tQK\x00(" + size + "t(" + stride + "t\x89NtR"
	}
	entries["x/data.pkl"] = []byte(p + "uu.")
	return entries
}

func FuzzPyTorch(f *testing.F) {
	f.Add(zipped(f, tinyPT(), zip.Store))
	f.Add(zipped(f, tinyPT(), zip.Deflate))
	b, err := os.ReadFile(seedTinyPT)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readBytes(b, "x.pt")
		if err != nil {
			return
		}
		if err := m.Validate(); err != nil {
			t.Fatalf("a bad model was accepted: %v", err)
		}
	})
}

// FuzzCheckpointPickle changes the pickle alone: the zip's sums hide it from
// FuzzPyTorch.
func FuzzCheckpointPickle(f *testing.F) {
	const name = "x/data.pkl"
	entries := tinyPT()
	f.Add(entries[name])
	const size = "(J\x03\x00\x00\x00J" // of the embedding
	f.Add([]byte(strings.Replace(string(entries[name]), size, "("+tupleBomb+"J", 1)))
	f.Fuzz(func(t *testing.T, p []byte) {
		with := maps.Clone(entries)
		with[name] = p
		m, err := readBytes(zipped(t, with, zip.Store), "x.pt")
		if err != nil {
			return
		}
		if err := m.Validate(); err != nil {
			t.Fatalf("a bad model was accepted: %v", err)
		}
	})
}

// Every truncation of a small file is refused.
func TestPyTorchTruncated(t *testing.T) {
	b := zipped(t, tinyPT(), zip.Store)
	if _, err := readBytes(b, "x.pt"); err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if _, err := readBytes(b[:n], "x.pt"); err == nil {
			t.Errorf("no error for the first %d bytes of %d", n, len(b))
		}
	}
}
