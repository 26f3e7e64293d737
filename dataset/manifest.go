package dataset

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"spinnet/tokenizer"
)

// File names and limits of a dataset folder.
const (
	ManifestFile = "manifest.json"

	manifestFormat  = "spinnet-dataset"
	manifestVersion = 1
	manifestLimit   = 16 << 20 // bytes; a vocabulary of every Unicode character fits
	metaLimit       = 4 << 20  // of meta.pkl
	maxVocab        = 1 << 24
	maxTokens       = 1 << 48
)

// Manifest is manifest.json, the description of one prepared dataset.
type Manifest struct {
	Format    string        `json:"format"`  // "spinnet-dataset"
	Version   int           `json:"version"` // 1
	Name      string        `json:"name"`
	Tokenizer TokenizerInfo `json:"tokenizer"`
	VocabSize int           `json:"vocab_size"`
	DType     string        `json:"dtype"` // "uint16" or "uint32", little-endian
	Train     Shard         `json:"train"`
	Val       Shard         `json:"val"`
}

// TokenizerInfo names a tokenizer: the arguments of tokenizer.New.
type TokenizerInfo struct {
	Kind  string `json:"kind"`
	Chars string `json:"chars,omitempty"`
}

// Shard describes one token file.
type Shard struct {
	File        string `json:"file"`
	Tokens      int64  `json:"tokens"`
	Documents   int64  `json:"documents"`
	SourceBytes int64  `json:"source_bytes"` // text the tokens stand for, without separators
	SHA256      string `json:"sha256"`       // of the file, hexadecimal
}

// width is the size of a token in bytes, 0 for an unknown dtype.
func (m *Manifest) width() int {
	switch m.DType {
	case "uint16":
		return 2
	case "uint32":
		return 4
	}
	return 0
}

// ParseManifest reads and checks a manifest: everything that can be known
// without the token files. It never allocates more than the data's size.
func ParseManifest(data []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("dataset: not a manifest: %w", err)
	}
	if m.Format != manifestFormat {
		return nil, fmt.Errorf("dataset: format is %.40q, want %q", m.Format, manifestFormat)
	}
	if m.Version != manifestVersion {
		return nil, fmt.Errorf("dataset: manifest version %d, this program reads %d", m.Version, manifestVersion)
	}
	if m.width() == 0 {
		return nil, fmt.Errorf("dataset: dtype is %.40q, want uint16 or uint32", m.DType)
	}
	if m.VocabSize < 1 || m.VocabSize > maxVocab {
		return nil, fmt.Errorf("dataset: vocab_size %d is not in 1 … %d", m.VocabSize, maxVocab)
	}
	if m.DType == "uint16" && m.VocabSize > maxVocab16 {
		return nil, fmt.Errorf("dataset: a vocabulary of %d does not fit uint16 shards (at most %d)", m.VocabSize, maxVocab16)
	}
	t, err := tokenizer.New(m.Tokenizer.Kind, m.Tokenizer.Chars)
	if err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	if t.VocabSize() != m.VocabSize {
		return nil, fmt.Errorf("dataset: vocab_size is %d but the %s tokenizer has %d", m.VocabSize, t.Kind(), t.VocabSize())
	}
	for _, s := range []struct {
		key string
		Shard
	}{{"train", m.Train}, {"val", m.Val}} {
		if s.File == "" || s.File != filepath.Base(s.File) || strings.ContainsAny(s.File, `/\:`) || s.File == "." || s.File == ".." {
			return nil, fmt.Errorf("dataset: %s.file %.80q is not a plain file name", s.key, s.File)
		}
		if s.Tokens < 0 || s.Tokens > maxTokens || s.Documents < 0 || s.SourceBytes < 0 {
			return nil, fmt.Errorf("dataset: %s has an absurd count (tokens %d, documents %d, source_bytes %d)", s.key, s.Tokens, s.Documents, s.SourceBytes)
		}
		if b, err := hex.DecodeString(s.SHA256); err != nil || len(b) != 32 {
			return nil, fmt.Errorf("dataset: %s.sha256 is not 64 hexadecimal digits", s.key)
		}
	}
	if m.Train.File == m.Val.File {
		return nil, fmt.Errorf("dataset: train and val are the same file %.80q", m.Train.File)
	}
	return &m, nil
}

// encode gives the manifest as indented JSON.
func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	if b.Len() > manifestLimit {
		return nil, errors.New("dataset: the manifest would be too large")
	}
	return b.Bytes(), nil
}

// readBounded reads a whole file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return data, nil
}
