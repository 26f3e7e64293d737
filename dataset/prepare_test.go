package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"spinnet/tokenizer"
)

const sepLine = "\n" + Separator + "\n"

func TestPrepareSplits(t *testing.T) {
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprintf("story %d", i)
	}
	var train []string
	for i, s := range many {
		if i != 9 && i != 19 {
			train = append(train, s)
		}
	}
	const eot = "<|endoftext|>"
	for _, c := range []struct {
		name       string
		opts       Options
		texts      []string
		train, val string
	}{
		{"one document by position", Options{Tokenizer: "gpt2", Val: 0.25}, []string{"aé😀dwxyz\nüö!"}, "aé😀dwxyz\n", "üö!"},
		{"by bytes", Options{Tokenizer: "bytes", Val: 0.5}, []string{"\xff\xfeab"}, "\xff\xfe", "ab"},
		{"few documents, cut within one", Options{Tokenizer: "bytes", Val: 0.25}, []string{"abcd", "efgh"}, "abcd\n\nef", "gh"},
		{"few documents, cut between", Options{Tokenizer: "gpt2", Val: 0.4}, []string{"abcdef", "ghij"}, "abcdef", "ghij"},
		{"every tenth", Options{Tokenizer: "gpt2", Val: 0.1}, []string{strings.Join(many, sepLine)}, strings.Join(train, eot), "story 9" + eot + "story 19"},
		{"every tenth, chars", Options{Tokenizer: "chars", Val: 0.1}, []string{strings.Join(many, sepLine)}, strings.Join(train, "\n\n"), "story 9\n\nstory 19"},
		{"no validation", Options{Tokenizer: "chars"}, []string{"ab", "cd"}, "ab\n\ncd", ""},
		{"validation files", Options{Tokenizer: "chars", ValSources: []Source{textSource("v", "é"+sepLine+"b")}}, []string{"ab"}, "ab", "é\n\nb"},
		{"empty documents", Options{Tokenizer: "gpt2"}, []string{Separator + sepLine + "a" + sepLine + Separator + sepLine + "b\n" + Separator}, "a<|endoftext|>b", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := opened(t, prepared(t, c.opts, c.texts...))
			if got := decoded(t, d, d.Train); got != c.train {
				t.Errorf("train: got %q, want %q", got, c.train)
			}
			if got := decoded(t, d, d.Val); got != c.val {
				t.Errorf("val: got %q, want %q", got, c.val)
			}
			if err := d.Verify(context.Background()); err != nil {
				t.Error(err)
			}
			joints := int64(strings.Count(c.train, eot)*len(eot) + strings.Count(c.train, "\n\n")*2)
			if got, want := d.TrainBytes, int64(len(c.train))-joints; got != want {
				t.Errorf("train bytes: got %d, want %d", got, want)
			}
		})
	}
}

// Texts longer than the buffers give the same ids as at once, wherever they
// are cut.
func TestPrepareLongDocuments(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	words := []string{"hello", " world", "\n\n", "    ", "日本", "語", "。", "'s", "12", "!?", "\t", "  x", "é"}
	var b strings.Builder
	for b.Len() < 3*chunkSize+1234 {
		b.WriteString(words[r.IntN(len(words))])
	}
	text := b.String()
	for _, kind := range []string{"gpt2", "bytes", "chars"} {
		d := opened(t, prepared(t, Options{Tokenizer: kind}, text))
		want, err := d.Tokenizer.Encode(nil, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := all(t, d.Train); !slices.Equal(got, want) {
			t.Errorf("%s: %d ids, not the %d of the text at once", kind, len(got), len(want))
		}
	}
}

func TestPrepareWithoutWordBreak(t *testing.T) {
	text := strings.Repeat("日", pendingLimit/3+chunkSize)
	d := opened(t, prepared(t, Options{Tokenizer: "gpt2"}, text))
	if decoded(t, d, d.Train) != text {
		t.Error("the tokens do not decode to the text")
	}
}

func TestPrepareUint32(t *testing.T) {
	var b strings.Builder
	for r := rune(1); b.Len() < 4*70000; r++ {
		if r < 0xD800 || r > 0xDFFF {
			b.WriteRune(r)
		}
	}
	text := b.String()
	dir := prepared(t, Options{Tokenizer: "chars", Val: 0.01}, text)
	d := opened(t, dir)
	if d.VocabSize <= 65535 || d.Train.width != 4 {
		t.Errorf("vocabulary %d in %d bytes", d.VocabSize, d.Train.width)
	}
	if decoded(t, d, d.Train)+decoded(t, d, d.Val) != text {
		t.Error("the tokens do not decode to the text")
	}
	opts := Options{Tokenizer: "chars", NanoGPT: true, Dir: filepath.Join(t.TempDir(), "x")}
	if _, err := Prepare(t.Context(), opts, []Source{textSource("many", text)}); err == nil || !strings.Contains(err.Error(), "65535") {
		t.Errorf("got %v, want an error about uint16", err)
	}
}

func TestNanoGPT(t *testing.T) {
	dir := prepared(t, Options{Tokenizer: "chars", Val: 0.5, NanoGPT: true}, "Hällo, wörld")
	if err := os.Remove(filepath.Join(dir, ManifestFile)); err != nil {
		t.Fatal(err)
	}
	d := opened(t, dir)
	if got, want := decoded(t, d, d.Train)+decoded(t, d, d.Val), "Hällo, wörld"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if d.TrainBytes != 0 || d.Tokenizer.Kind() != "chars" || len(d.Hash) != 64 {
		t.Errorf("got %d bytes, %s, hash %q", d.TrainBytes, d.Tokenizer.Kind(), d.Hash)
	}
	// Without meta.pkl and val.bin: GPT-2, no validation.
	os.Remove(filepath.Join(dir, "meta.pkl"))
	os.Remove(filepath.Join(dir, "val.bin"))
	d = opened(t, dir)
	if d.VocabSize != 50257 || d.Tokenizer.Kind() != "gpt2" || d.Val.Len() != 0 || d.Train.Len() != 6 {
		t.Errorf("got vocabulary %d, %s, %d and %d tokens", d.VocabSize, d.Tokenizer.Kind(), d.Train.Len(), d.Val.Len())
	}
	if err := d.Verify(context.Background()); err != nil {
		t.Error(err)
	}
}

// failing reads some text, then fails.
type failing struct{ io.Reader }

func (f failing) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	if err == io.EOF {
		err = errors.New("disk on fire")
	}
	return n, err
}
func (failing) Close() error { return nil }

func TestPrepareRefuses(t *testing.T) {
	file := func(name, text string) Source {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return FileSource(path)
	}
	opens := 0
	changing := Source{"changing", func() (io.ReadCloser, error) {
		opens++
		return io.NopCloser(strings.NewReader(strings.Repeat("é", opens))), nil
	}}
	late := Source{"late", func() (io.ReadCloser, error) {
		return failing{strings.NewReader(strings.Repeat("a", 2*chunkSize))}, nil
	}}
	valid := []Source{textSource("valid", "some text")}
	for _, c := range []struct {
		name    string
		opts    Options
		sources []Source
		want    []string
	}{
		{"no sources", Options{Tokenizer: "gpt2"}, nil, []string{"no text"}},
		{"missing", Options{Tokenizer: "gpt2"}, []Source{FileSource("nowhere.txt")}, []string{"nowhere.txt", "no such file"}},
		{"folder", Options{Tokenizer: "gpt2"}, []Source{FileSource(t.TempDir())}, []string{"is a directory"}},
		{"device", Options{Tokenizer: "gpt2"}, []Source{FileSource(os.DevNull)}, []string{"not a regular file"}},
		{"empty", Options{Tokenizer: "gpt2"}, []Source{file("e.txt", "")}, []string{"e.txt", "empty"}},
		{"separators only", Options{Tokenizer: "gpt2"}, []Source{file("s.txt", Separator+"\n")}, []string{"s.txt", "empty"}},
		{"one empty of two", Options{Tokenizer: "bytes"}, append(valid, file("e.txt", "")), []string{"e.txt", "empty"}},
		{"all empty, skipped", Options{Tokenizer: "bytes", SkipEmpty: true}, []Source{file("e.txt", "")}, []string{"empty"}},
		{"UTF-8, gpt2", Options{Tokenizer: "gpt2"}, []Source{file("u.txt", "abc\n"+Separator+"\nd\xffe")}, []string{"u.txt", "invalid UTF-8 at byte 19"}},
		{"UTF-8, chars", Options{Tokenizer: "chars"}, []Source{file("u.txt", strings.Repeat("é", chunkSize)+"\xc3")}, []string{"u.txt", fmt.Sprint("invalid UTF-8 at byte ", 2*chunkSize)}},
		{"unknown tokenizer", Options{Tokenizer: "words"}, valid, []string{"unknown kind", "words"}},
		{"share 1", Options{Tokenizer: "bytes", Val: 1}, valid, []string{"share"}},
		{"share NaN", Options{Tokenizer: "bytes", Val: nan()}, valid, []string{"share"}},
		{"share and files", Options{Tokenizer: "bytes", Val: 0.1, ValSources: valid}, valid, []string{"not both"}},
		{"all for validation", Options{Tokenizer: "bytes", Val: 0.99}, valid, []string{"training split is empty"}},
		{"changing text", Options{Tokenizer: "gpt2"}, []Source{changing}, []string{"changed"}},
		{"read error", Options{Tokenizer: "gpt2"}, []Source{late}, []string{"late", "disk on fire"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := t.TempDir()
			c.opts.Dir = filepath.Join(parent, "set")
			// An existing dataset stays as it is.
			prepared(t, Options{Tokenizer: "bytes", Dir: c.opts.Dir}, "old")
			c.opts.Force = true
			_, err := Prepare(t.Context(), c.opts, c.sources)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q has several lines", err)
			}
			if d := opened(t, c.opts.Dir); decoded(t, d, d.Train) != "old" {
				t.Error("the old dataset is gone")
			}
			if entries, _ := os.ReadDir(parent); len(entries) != 1 {
				t.Errorf("%v is left behind", entries)
			}
		})
	}
}

func nan() float64 { zero := 0.0; return zero / zero }

func TestPrepareCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := filepath.Join(t.TempDir(), "set")
	opts := Options{Tokenizer: "bytes", Dir: dir, Progress: func(int64, int64) { cancel() }}
	_, err := Prepare(ctx, opts, []Source{textSource("long", strings.Repeat("a", 8<<20))})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it cancelled", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a folder is left behind")
	}
}

func TestForce(t *testing.T) {
	dir := prepared(t, Options{Tokenizer: "bytes"}, "old")
	try := func(force bool) error {
		_, err := Prepare(t.Context(), Options{Tokenizer: "chars", Dir: dir, Force: force}, []Source{textSource("new", "new")})
		return err
	}
	var hint *HintError
	if err := try(false); !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "--force") {
		t.Errorf("got %v, want a hint of --force", err)
	}
	mine := filepath.Join(dir, "thesis.doc")
	if err := os.WriteFile(mine, []byte("dear"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := try(true); err == nil || !strings.Contains(err.Error(), "thesis.doc") {
		t.Errorf("got %v, want a refusal that names thesis.doc", err)
	}
	if err := os.Remove(mine); err != nil {
		t.Fatal(err)
	}
	if err := try(true); err != nil {
		t.Fatal(err)
	}
	if d := opened(t, dir); decoded(t, d, d.Train) != "new" {
		t.Error("the dataset was not replaced")
	}
}

// repeated is a text of a given length that is nowhere in memory.
type repeated struct {
	line []byte
	left int64
}

func (r *repeated) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := 0
	for n+len(r.line) <= len(b) && r.left >= int64(len(r.line)) {
		n += copy(b[n:], r.line)
		r.left -= int64(len(r.line))
	}
	if n == 0 {
		n = copy(b, r.line[:min(int64(len(r.line)), r.left)])
		r.left -= int64(n)
	}
	return n, nil
}
func (r *repeated) Close() error { return nil }

// Memory does not grow with the text, be it one document or many.
func TestPrepareMemory(t *testing.T) {
	size := int64(200 << 20)
	if testing.Short() {
		size = 24 << 20
	}
	for _, line := range []string{"Once upon a time there was a little girl.\n", "Once upon a time.\n" + Separator + "\n", "x"} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		peak := uint64(0)
		opts := Options{Tokenizer: "gpt2", Val: 0.1, Dir: filepath.Join(t.TempDir(), "big"), Progress: func(int64, int64) {
			runtime.ReadMemStats(&after)
			peak = max(peak, after.HeapSys-after.HeapReleased)
		}}
		length := size
		if line == "x" {
			length = size / 8 // a single word
		}
		if _, err := Prepare(t.Context(), opts, []Source{{"big", func() (io.ReadCloser, error) {
			return &repeated{bytes.Repeat([]byte(line), 1+4096/len(line)), length}, nil
		}}}); err != nil {
			t.Fatal(err)
		}
		t.Logf("%q, %d MB: heap of %d MB", line, length>>20, peak>>20)
		if peak > 250<<20 {
			t.Errorf("%q: heap of %d MB", line, peak>>20)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	text := "The quick brown fox."
	file := func(name string) func(dir string) error {
		return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
	}
	truncate := func(name string, by int64) func(dir string) error {
		return func(dir string) error {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			return os.Truncate(filepath.Join(dir, name), info.Size()-by)
		}
	}
	edit := func(old, new string) func(dir string) error {
		return func(dir string) error {
			path := filepath.Join(dir, ManifestFile)
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if !bytes.Contains(data, []byte(old)) {
				return fmt.Errorf("no %s in %s", old, data)
			}
			return os.WriteFile(path, bytes.Replace(data, []byte(old), []byte(new), 1), 0o666)
		}
	}
	bare := func(dir string) error { return os.Remove(filepath.Join(dir, ManifestFile)) }
	for _, c := range []struct {
		name string
		harm func(dir string) error
		want []string
	}{
		{"truncated shard", truncate("train.bin", 2), []string{"train.bin", "manifest says"}},
		{"changed shard", poke("train.bin", 4, 'Q', 0), []string{"train.bin", "sha256"}},
		{"no manifest, no such token", func(dir string) error { return errors.Join(bare(dir), poke("val.bin", 2, 0xff, 0xff)(dir)) }, []string{"val.bin", "token 65535 at position 1 (byte 2)", "50257"}},
		{"odd shard", truncate("val.bin", 1), []string{"val.bin"}},
		{"missing shard", file("val.bin"), []string{"val.bin", "no such file"}},
		{"no manifest, odd shard", func(dir string) error { return errors.Join(bare(dir), truncate("train.bin", 1)(dir)) }, []string{"train.bin", "no whole number"}},
		{"no manifest, empty shard", func(dir string) error { return errors.Join(bare(dir), os.Truncate(filepath.Join(dir, "train.bin"), 0)) }, []string{"train.bin", "empty"}},
		{"nothing", func(dir string) error { return errors.Join(bare(dir), file("train.bin")(dir)) }, []string{"manifest.json", "train.bin"}},
		{"damaged manifest", truncateTo(ManifestFile, 40), []string{"manifest.json"}},
		{"empty manifest", truncateTo(ManifestFile, 0), []string{"manifest.json"}},
		{"huge manifest", func(dir string) error { return os.Truncate(filepath.Join(dir, ManifestFile), manifestLimit+1) }, []string{"manifest.json", "larger"}},
		{"version", edit(`"version": 1`, `"version": 2`), []string{"manifest.json", "version 2"}},
		{"format", edit("spinnet-dataset", "other"), []string{"other"}},
		{"dtype", edit("uint16", "float64"), []string{"float64"}},
		{"vocabulary", edit(`"vocab_size": 256`, `"vocab_size": 255`), []string{"vocab_size", "256"}},
		{"large vocabulary", edit(`"vocab_size": 256`, `"vocab_size": 70000`), []string{"70000", "uint16", "65535"}},
		{"negative", edit(`"tokens": 18`, `"tokens": -1`), []string{"absurd"}},
		{"overflow", edit(`"tokens": 18`, `"tokens": 9223372036854775807`), []string{"absurd"}},
		{"fraction", edit(`"tokens": 18`, `"tokens": 1.5`), []string{"manifest"}},
		{"path", edit("train.bin", "../train.bin"), []string{"plain file name"}},
		{"hash", edit(`"sha256": "`, `"sha256": "zz`), []string{"sha256"}},
		{"kind", edit(`"kind": "bytes"`, `"kind": "words"`), []string{"words"}},
		{"same file", edit("val.bin", "train.bin"), []string{"same file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := prepared(t, Options{Tokenizer: "bytes", Val: 0.1}, text)
			if err := c.harm(dir); err != nil {
				t.Fatal(err)
			}
			d, err := Open(dir)
			if err == nil {
				d.Close()
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q has several lines", err)
			}
		})
	}
}

// poke overwrites bytes of a file.
func poke(name string, off int64, data ...byte) func(dir string) error {
	return func(dir string) error {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(data, off)
		return errors.Join(err, f.Close())
	}
}

func truncateTo(name string, size int64) func(dir string) error {
	return func(dir string) error { return os.Truncate(filepath.Join(dir, name), size) }
}

func TestOpenMissing(t *testing.T) {
	for _, c := range []struct{ dir, want string }{
		{"datasets/tinyshakespeare", "spinnet prepare tinyshakespeare"},
		{"datasets/gostd", "spinnet prepare gostd"},
		{"elsewhere/gostd", "spinnet prepare gostd --out elsewhere/gostd"},
		{"datasets/tinystories", "spinnet prepare text FILE… --out datasets/tinystories"},
	} {
		_, err := Open(filepath.FromSlash(c.dir))
		var hint *HintError
		if !errors.As(err, &hint) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v, want a HintError", c.dir, err)
			continue
		}
		if !strings.Contains(filepath.ToSlash(hint.Hint()), c.want) || strings.HasSuffix(hint.Hint(), c.want+" ") {
			t.Errorf("%s: got hint %q, want %q", c.dir, hint.Hint(), c.want)
		}
	}
}

func TestRead(t *testing.T) {
	text := strings.Repeat("0123456789", 9000)
	dir := prepared(t, Options{Tokenizer: "bytes"}, text)
	d := opened(t, dir)
	for _, c := range []struct{ off, n int64 }{{0, 0}, {0, 1}, {5, 90000 - 5}, {90000, 0}, {16383, 2}, {40000, 33000}} {
		ids := make([]int32, c.n)
		if err := d.Train.Read(ids, c.off); err != nil {
			t.Fatal(err)
		}
		got, _ := tokenizer.Decode(d.Tokenizer, nil, ids)
		if want := text[c.off : c.off+c.n]; string(got) != want {
			t.Errorf("%d from %d: got %.40q, want %.40q", c.n, c.off, got, want)
		}
	}
	for _, c := range []struct{ off, n int64 }{{-1, 1}, {90000, 1}, {89999, 2}, {1 << 62, 1}, {0, 90001}} {
		if err := d.Train.Read(make([]int32, c.n), c.off); err == nil {
			t.Errorf("%d from %d: no error", c.n, c.off)
		}
	}
	if n := testing.AllocsPerRun(20, func() {
		var ids [300]int32
		if err := d.Train.Read(ids[:], 777); err != nil {
			t.Fatal(err)
		}
	}); n > 1 { // the test's own array
		t.Errorf("got %v allocations a read", n)
	}

	// A token that is none: found on reading, with its place.
	if err := poke("train.bin", 2*50000, 0, 1)(dir); err != nil {
		t.Fatal(err)
	}
	if err := d.Train.Read(make([]int32, 100), 0); err != nil {
		t.Error(err)
	}
	err := d.Train.Read(make([]int32, 20000), 40000)
	if err == nil {
		t.Fatal("no error for a token outside the vocabulary")
	}
	for _, want := range []string{"train.bin", "token 256", "position 50000", "byte 100000", "vocabulary of 256"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	}
	if d.Verify(context.Background()) == nil {
		t.Error("Verify: no error")
	}
	if err := poke("train.bin", 2*50000, 'x', 0)(dir); err != nil {
		t.Fatal(err)
	}
	if err := d.Verify(context.Background()); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("Verify: got %v, want a difference of sha256", err)
	}
	if err := os.Truncate(d.Train.path, 1000); err != nil {
		t.Fatal(err)
	}
	if err := d.Train.Read(make([]int32, 100), 40000); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("got %v, want an error about a shorter file", err)
	}
}

// Open leaves a large dataset to Verify.
func TestVerifyLarge(t *testing.T) {
	const size = verifyAtOpen + 1<<20 // zeros, which are ids: a sparse file takes no room
	dir := t.TempDir()
	h := sha256.New()
	h.Write(make([]byte, size))
	empty := sha256.Sum256(nil)
	m := Manifest{Format: manifestFormat, Version: manifestVersion, Name: "zeros", Tokenizer: TokenizerInfo{Kind: "bytes"}, VocabSize: 256, DType: "uint16",
		Train: Shard{"train.bin", size / 2, 1, size / 2, hex.EncodeToString(h.Sum(nil))}, Val: Shard{"val.bin", 0, 0, 0, hex.EncodeToString(empty[:])}}
	data, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{ManifestFile: data, "train.bin": nil, "val.bin": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "train.bin"), size); err != nil {
		t.Fatal(err)
	}
	d := opened(t, dir)
	if d.Verified() {
		t.Error("verified by Open")
	}
	start := time.Now()
	if err := d.Verify(context.Background()); err != nil || !d.Verified() {
		t.Errorf("got %v, verified %v", err, d.Verified())
	}
	t.Logf("%.0f MB/s", size/1e6/time.Since(start).Seconds())
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	if err := d.Verify(stopped); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: got %v", err)
	}
	if err := poke("train.bin", size/2, 1)(dir); err != nil {
		t.Fatal(err)
	}
	if err := opened(t, dir).Verify(context.Background()); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("a changed byte: got %v, want a difference of sha256", err)
	}
}

func FuzzManifest(f *testing.F) {
	m := &Manifest{
		Format: manifestFormat, Version: manifestVersion, Name: "x", Tokenizer: TokenizerInfo{"chars", "\naé"}, VocabSize: 3, DType: "uint16",
		Train: Shard{"train.bin", 5, 1, 6, strings.Repeat("0a", 32)}, Val: Shard{"val.bin", 0, 0, 0, strings.Repeat("ff", 32)},
	}
	data, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			return
		}
		if m.VocabSize < 1 || m.width() == 0 || filepath.Base(m.Train.File) != m.Train.File || m.Train.Tokens < 0 {
			t.Errorf("accepted %+v", m)
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseManifest(again)
		if err != nil || *back != *m {
			t.Errorf("got %+v, %v, want %+v", back, err, m)
		}
	})
}
