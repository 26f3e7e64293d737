// Package dataset prepares, opens and reads tokenised corpora: a folder with
// one token file a split and a manifest, or nanoGPT's bare train.bin and
// val.bin. It may import tokenizer.
package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"spinnet/pickle"
	"spinnet/tokenizer"
)

// maxVocab16 is the largest vocabulary of uint16 token files.
const maxVocab16 = 65535

// nanoGPTVocab is what a bare train.bin is taken to hold when no meta.pkl
// tells: GPT-2 ids.
const nanoGPTVocab = 50257

// Dataset is an open tokenised corpus. Close it when done.
type Dataset struct {
	Name      string
	Dir       string
	Tokenizer tokenizer.Tokenizer // nil when unknown
	VocabSize int
	Train     *Tokens
	Val       *Tokens // never nil; Len 0 when there is no validation split
	// Hash identifies the content (tokens and tokenizer), for checks at
	// resume: 64 hexadecimal digits. For a folder without a manifest it covers
	// the sizes and both ends of the files only.
	Hash string
	// Bytes of text that the splits stand for, to turn nats a token into bits
	// a byte; 0 when unknown.
	TrainBytes, ValBytes int64

	manifest *Manifest // nil if Bare
	verified bool      // Verify has found nothing wrong
}

// Tokens is one split: a token file read in pieces, never held in memory. It
// is safe for concurrent use.
type Tokens struct {
	path  string
	f     *os.File
	n     int64
	width int // bytes a token
	vocab int

	mu  sync.Mutex
	buf []byte // of at most readBuffer bytes, reused
}

const readBuffer = 64 << 10

// HintError is an error with advice on what to do about it.
type HintError struct {
	Err  error
	Text string // such as "run: spinnet prepare tinyshakespeare"
}

// Error gives the error without the advice.
func (e *HintError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *HintError) Unwrap() error { return e.Err }

// Hint gives the advice, for the command line's "hint:" line.
func (e *HintError) Hint() string { return e.Text }

// verifyAtOpen is the size in bytes up to which Open verifies the token files:
// some hundredths of a second. Who reads a larger dataset for long calls Verify.
const verifyAtOpen = 64 << 20

// Open opens the dataset in folder dir and checks its files against the
// manifest: their sizes, and if they are small also what Verify checks. A
// folder without manifest.json but with train.bin is read as nanoGPT's: uint16
// tokens, of the characters of meta.pkl when that file is there, of GPT-2 when
// not.
func Open(dir string) (*Dataset, error) {
	d, err := open(dir)
	if err != nil {
		return nil, err
	}
	if d.Size() <= verifyAtOpen {
		if err := d.Verify(context.Background()); err != nil {
			d.Close()
			return nil, err
		}
	}
	return d, nil
}

// Bare reports whether the folder has no manifest: its files were taken for nanoGPT's.
func (d *Dataset) Bare() bool { return d.manifest == nil }

func open(dir string) (*Dataset, error) {
	if _, err := os.Stat(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, missing(dir, err)
		}
		return nil, fmt.Errorf("dataset: %w", err)
	}
	path := filepath.Join(dir, ManifestFile)
	data, err := readBounded(path, manifestLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return openBare(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t, err := tokenizer.New(m.Tokenizer.Kind, m.Tokenizer.Chars)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d := &Dataset{
		Name: m.Name, Dir: dir, Tokenizer: t, VocabSize: m.VocabSize,
		TrainBytes: m.Train.SourceBytes, ValBytes: m.Val.SourceBytes, manifest: m,
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%q\n%s\n%s\n%s\n", m.Tokenizer.Kind, m.Tokenizer.Chars, m.DType,
		strings.ToLower(m.Train.SHA256), strings.ToLower(m.Val.SHA256))
	d.Hash = hex.EncodeToString(h.Sum(nil))
	if d.Train, err = openTokens(filepath.Join(dir, m.Train.File), m.width(), m.VocabSize, m.Train.Tokens); err != nil {
		return nil, err
	}
	if d.Val, err = openTokens(filepath.Join(dir, m.Val.File), m.width(), m.VocabSize, m.Val.Tokens); err != nil {
		d.Train.close()
		return nil, err
	}
	return d, nil
}

// missing is the error for a folder that is not there, with the command that
// makes it.
func missing(dir string, cause error) error {
	name := filepath.Base(dir)
	command := "spinnet prepare text FILE… --out " + dir + " --tokenizer gpt2"
	switch name {
	case "tinyshakespeare", "gostd":
		command = "spinnet prepare " + name
		if filepath.Clean(dir) != DefaultDir(name) {
			command += " --out " + dir
		}
	}
	return &HintError{fmt.Errorf("dataset: %q is not prepared: %w", dir, cause), "run: " + command}
}

// DefaultDir is where `spinnet prepare NAME` writes: datasets/NAME.
func DefaultDir(name string) string { return filepath.Join("datasets", name) }

// openBare opens nanoGPT's train.bin and val.bin.
func openBare(dir string) (*Dataset, error) {
	d := &Dataset{Name: filepath.Base(dir), Dir: dir, VocabSize: nanoGPTVocab}
	train := filepath.Join(dir, "train.bin")
	if _, err := os.Stat(train); err != nil {
		return nil, missing(dir, fmt.Errorf("no %s and no train.bin in it", ManifestFile))
	}
	kind, chars := tokenizer.KindGPT2, ""
	meta := filepath.Join(dir, pickle.MetaFile)
	data, err := readBounded(meta, metaLimit)
	if err == nil {
		if chars, err = pickle.Meta(data); err != nil {
			return nil, fmt.Errorf("%s: %w", meta, err)
		}
		kind = tokenizer.KindChars
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	if d.Tokenizer, err = tokenizer.New(kind, chars); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	d.VocabSize = d.Tokenizer.VocabSize()
	if d.Train, err = openTokens(train, 2, d.VocabSize, -1); err != nil {
		return nil, err
	}
	d.Val = &Tokens{path: filepath.Join(dir, "val.bin"), width: 2, vocab: d.VocabSize}
	if _, err := os.Stat(d.Val.path); err == nil {
		if d.Val, err = openTokens(d.Val.path, 2, d.VocabSize, -1); err != nil {
			d.Train.close()
			return nil, err
		}
	}
	h := sha256.New()
	fmt.Fprintf(h, "bare\n%q\n", chars)
	for _, t := range []*Tokens{d.Train, d.Val} {
		fmt.Fprintf(h, "%d\n", t.n)
		if t.f == nil {
			continue
		}
		buf := make([]byte, readBuffer)
		for _, off := range []int64{0, max(0, t.n*2-readBuffer)} {
			n, err := t.f.ReadAt(buf, off)
			if err != nil && err != io.EOF {
				d.Close()
				return nil, fmt.Errorf("dataset: %w", err)
			}
			h.Write(buf[:n])
		}
	}
	d.Hash = hex.EncodeToString(h.Sum(nil))
	return d, nil
}

// openTokens opens a token file; want is the number of tokens it must have, or
// −1 for any but none.
func openTokens(path string, width, vocab int, want int64) (*Tokens, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("dataset: %w", err)
	}
	size, w := info.Size(), int64(width)
	switch {
	case want >= 0 && size != want*w:
		err = fmt.Errorf("dataset: %s: %d bytes, but the manifest says %d tokens of %d bytes (truncated or replaced; prepare it again)", path, size, want, width)
	case want < 0 && size == 0:
		err = fmt.Errorf("dataset: %s: empty", path)
	case size%w != 0:
		err = fmt.Errorf("dataset: %s: %d bytes is no whole number of uint%d tokens (truncated?)", path, size, 8*width)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Tokens{path: path, f: f, n: size / w, width: width, vocab: vocab}, nil
}

// Close closes the token files.
func (d *Dataset) Close() error {
	return errors.Join(d.Train.close(), d.Val.close())
}

// Size is the size of the token files in bytes.
func (d *Dataset) Size() int64 { return (d.Train.n + d.Val.n) * int64(d.Train.width) }

// Verified tells whether Verify, or Open for it, has found the files right.
func (d *Dataset) Verified() bool { return d.verified }

// Verify reads both files whole: their SHA-256 must be the manifest's (when
// there is one) and every token must be in the vocabulary.
func (d *Dataset) Verify(ctx context.Context) error {
	for i, t := range []*Tokens{d.Train, d.Val} {
		h := sha256.New()
		ids := make([]int32, readBuffer/4)
		for off := int64(0); off < t.n; {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("dataset: %w", err)
			}
			n := min(int64(len(ids)), t.n-off)
			t.mu.Lock()
			err := t.read(ids[:n], off)
			if err == nil {
				h.Write(t.buf[:n*int64(t.width)])
			}
			t.mu.Unlock()
			if err != nil {
				return err
			}
			off += n
		}
		if d.manifest == nil {
			continue
		}
		want := d.manifest.Train.SHA256
		if i == 1 {
			want = d.manifest.Val.SHA256
		}
		if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, want) {
			return fmt.Errorf("dataset: %s: sha256 is %s, but the manifest says %s (the file was changed; prepare it again)", t.path, got, want)
		}
	}
	d.verified = true
	return nil
}

// Len is the number of tokens.
func (t *Tokens) Len() int64 { return t.n }

// Read fills dst with the tokens off … off+len(dst)−1. It allocates nothing
// once warm, and fails when the range is outside the split, the file cannot be
// read, or a token is not below the vocabulary's size.
func (t *Tokens) Read(dst []int32, off int64) error {
	if off < 0 || off > t.n || int64(len(dst)) > t.n-off {
		return fmt.Errorf("dataset: %s: tokens %d … %d of %d do not exist", t.path, off, off+int64(len(dst)), t.n)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	step := readBuffer / 4
	for len(dst) > 0 {
		n := min(len(dst), step)
		if err := t.read(dst[:n], off); err != nil {
			return err
		}
		dst, off = dst[n:], off+int64(n)
	}
	return nil
}

// read reads at most readBuffer/4 tokens through t.buf, which it leaves holding
// their bytes; t.mu is held.
func (t *Tokens) read(dst []int32, off int64) error {
	if t.buf == nil {
		t.buf = make([]byte, readBuffer)
	}
	b := t.buf[:len(dst)*t.width]
	if _, err := t.f.ReadAt(b, off*int64(t.width)); err != nil {
		if err == io.EOF {
			err = errors.New("the file became shorter while open")
		}
		return fmt.Errorf("dataset: %s: tokens at byte %d: %w", t.path, off*int64(t.width), err)
	}
	var worst uint32
	if t.width == 2 {
		for i := range dst {
			id := uint32(binary.LittleEndian.Uint16(b[2*i:]))
			worst = max(worst, id)
			dst[i] = int32(id)
		}
	} else {
		for i := range dst {
			id := binary.LittleEndian.Uint32(b[4*i:])
			worst = max(worst, id)
			dst[i] = int32(id)
		}
	}
	if worst < uint32(t.vocab) {
		return nil
	}
	for i, id := range dst {
		if uint32(id) >= uint32(t.vocab) {
			at := off + int64(i)
			return fmt.Errorf("dataset: %s: token %d at position %d (byte %d) is outside the vocabulary of %d", t.path, uint32(id), at, at*int64(t.width), t.vocab)
		}
	}
	return nil
}

func (t *Tokens) close() error {
	if t == nil || t.f == nil {
		return nil
	}
	return t.f.Close()
}
