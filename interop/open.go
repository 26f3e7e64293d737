// Package interop moves models between files and memory. Open reads any
// supported model, OpenLatents those that training can go on from; the
// safetensors reader and writer also serve checkpoints. Nothing that a file
// says is trusted: lengths are checked before memory is asked for, and no
// pickle is run. It imports arch, algebra, pickle, spinfile and tokenizer.
package interop

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"spinnet/arch"
	"spinnet/spinfile"
)

// Names of the files of a checkpoint directory.
const (
	WeightsFile = "model.safetensors"
	StateFile   = "state.json"
)

// originalFile is what the original program calls its checkpoints.
const originalFile = "ckpt.pt"

// State is what Open needs of a checkpoint's state.json; the trainer's own
// file holds more.
type State struct {
	Model     arch.Config            `json:"model"`
	Tokenizer spinfile.TokenizerInfo `json:"tokenizer"`
	Step      int                    `json:"step"`
}

// maxState bounds the size of a state.json that is read.
const maxState = 16 << 20

// Open reads the model at path, whose format its content tells: a run
// directory (its best checkpoint, else its last), a checkpoint directory, a
// .safetensors file, a PyTorch checkpoint of the original program, a .spinnet
// or GGUF file, or a llama2.c model. Latents are quantised. Meta holds "source"
// (the weights file), "step", and what else the file says of itself and its
// training. A file that is wrong is a *FormatError or a *spinfile.CorruptError.
func Open(path string) (*spinfile.Model, error) { return OpenWith(path, Options{}) }

// OpenWith is Open for files that do not say all: that have no tokenizer.
func OpenWith(path string, o Options) (*spinfile.Model, error) {
	f, size, weights, err := openModel(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	format, err := detect(f, size, weights)
	if err != nil {
		return nil, err
	}
	if format == FormatSpinnet {
		m, _, err := openFinished(weights, o)
		return m, err
	}
	l, err := openLatents(f, size, weights, o)
	if err != nil {
		return nil, err
	}
	return l.Model()
}

// openFinished opens a .spinnet file and gives its bytes, in which the model
// lies. The original program's, of versions 3 and 4, carry no tokenizer.
func openFinished(path string, o Options) (*spinfile.Model, []byte, error) {
	m, data, err := openSpinnet(path)
	if err != nil {
		return nil, nil, err
	}
	own, find := m.Tokenizer, func(string, int) (spinfile.TokenizerInfo, error) { return m.Tokenizer, nil }
	if binary.LittleEndian.Uint16(data[4:]) < 5 {
		own, find = spinfile.TokenizerInfo{}, originalTokenizer
	}
	if m.Tokenizer, err = o.tokenizer(path, m.Config.VocabSize, own, find); err != nil {
		return nil, nil, err
	}
	return m, data, m.Validate()
}

// Resolve gives the weights file that Open would read for path: path itself, or
// one in that folder. A folder without a model is an error.
func Resolve(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("interop: %w", err)
	}
	if !info.IsDir() {
		return path, nil
	}
	for _, sub := range []string{WeightsFile, "checkpoints/best/" + WeightsFile, "checkpoints/last/" + WeightsFile,
		"best/" + WeightsFile, "last/" + WeightsFile, originalFile} {
		p := filepath.Join(path, filepath.FromSlash(sub))
		if _, err := os.Stat(p); err == nil {
			return p, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("interop: %w", err)
		}
	}
	if _, err := os.Stat(filepath.Join(path, hfIndexFile)); err == nil {
		return "", fmt.Errorf("interop: %s: the model is split over several files, which is not supported", path)
	}
	return "", fmt.Errorf("interop: %s: no model in it: neither %s nor checkpoints/best nor checkpoints/last nor %s", path, WeightsFile, originalFile)
}

// Format tells the format of the model at path by its content: one of the Format
// constants, or an error if it is none of them.
func Format(path string) (string, error) {
	f, size, weights, err := openModel(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return detect(f, size, weights)
}

// detect tells the format of a file by its first bytes. A file whose content
// says nothing is of the format of its name, whose reader says what is wrong.
func detect(r io.ReaderAt, size int64, path string) (string, error) {
	head := make([]byte, min(size, 32))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("interop: %s: %w", path, err)
	}
	starts := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case starts("SPIN"):
		return FormatSpinnet, nil
	case starts("PK\x03\x04"), starts("PK\x05\x06"):
		return FormatPyTorch, nil
	case starts("GGUF"):
		return FormatGGUF, nil
	case len(head) > 8 && head[8] == '{' && binary.LittleEndian.Uint64(head) <= uint64(size-8):
		return FormatSafetensors, nil
	case isLlama2C(head, size):
		return FormatLlama2C, nil
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".safetensors":
		return FormatSafetensors, nil
	case ".pt", ".pth", ".ckpt":
		return FormatPyTorch, nil
	case ".gguf":
		return FormatGGUF, nil
	case ".spinnet":
		return FormatSpinnet, nil
	case ".bin":
		return FormatLlama2C, nil
	}
	if size == 0 {
		return "", &FormatError{File: path, Offset: -1, Reason: "the file is empty"}
	}
	return "", &FormatError{File: path, Offset: 0, Reason: fmt.Sprintf("not a model file: it begins with %q; want a run or checkpoint folder, .spinnet, .safetensors, .pt, .gguf or a llama2.c .bin", head[:min(len(head), 8)])}
}

// ReadState reads the model configuration, the tokenizer and the step of a
// state.json, fills the configuration's defaults and checks it.
func ReadState(path string) (State, error) { return ReadStateAnd(path, nil) }

// ReadStateAnd is ReadState, and decodes the same JSON into more unless that is
// nil.
func ReadStateAnd(path string, more any) (State, error) {
	b, err := readBounded(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, failing(path, "")("", -1, "missing: it holds the model's configuration and tokenizer")
	}
	if err != nil {
		return State{}, err
	}
	if more != nil {
		if err := json.Unmarshal(b, more); err != nil {
			return State{}, failing(path, "")("", -1, "%v", err)
		}
	}
	return parseState(b, failing(path, ""))
}

func parseState(b []byte, fail failure) (State, error) {
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		return st, fail("", -1, "%v", err)
	}
	st.Model = st.Model.WithDefaults()
	if err := st.Model.Validate(); err != nil {
		return st, fail("", -1, "%s", strings.TrimPrefix(err.Error(), "arch: "))
	}
	return st, nil
}

// stateKey is the metadata of a safetensors file that holds its State, so that
// it needs no state.json. The rest of such a file's metadata is Meta's.
const stateKey = "spinnet"

// openSafetensors opens a file in our layout, whose State is in its metadata
// or in a state.json beside it, or in that of Hugging Face.
func (l *Latents) openSafetensors(o Options) error {
	entries, meta, err := scanSafetensors(l.file, l.Size, l.fail)
	if err != nil {
		return err
	}
	own, ok := meta[stateKey]
	var st State
	switch {
	case ok:
		st, err = parseState([]byte(own), l.fail)
		delete(meta, stateKey)
		maps.Copy(meta, l.Meta)
		l.Meta = meta
	case slices.ContainsFunc(entries, func(e placed) bool { return e.name == hfEmbedding }):
		return l.openHuggingFace(entries, o)
	default:
		beside := filepath.Join(filepath.Dir(l.File), StateFile)
		st, err = ReadState(beside)
		maps.Copy(l.Meta, provenance(beside))
	}
	if err != nil {
		return err
	}
	l.useState(st, entries)
	l.Tokenizer, err = o.tokenizer(l.File, l.Config.VocabSize, l.Tokenizer, nil)
	return err
}

// useState makes a checkpoint of its two parts.
func (l *Latents) useState(st State, entries []placed) {
	l.Config, l.Tokenizer = st.Model, st.Tokenizer
	if st.Step > 0 {
		l.setStep(st.Step)
	}
	for _, e := range entries {
		l.Tensors = append(l.Tensors, l.stored(e, e.name))
	}
}

// stored makes a parameter of a tensor of a safetensors file.
func (l *Latents) stored(e placed, name string) Stored {
	return Stored{Name: name, Source: e.name, Type: e.DType, Shape: e.shape(), Offset: e.at, Bytes: e.Offsets[1] - e.Offsets[0],
		read: func(dst []float32) error { return readValues(dst, l.file, e.at, e.DType) }}
}
