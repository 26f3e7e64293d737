package interop

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// The vocabulary that version 5 files name by its hash is our tokenizer's.
func TestGPT2VocabularyHash(t *testing.T) {
	tok := tokenizer.GPT2()
	h := sha256.New()
	for id := range tok.VocabSize() {
		b, err := tok.AppendDecode(nil, int32(id))
		if err != nil {
			t.Fatal(err)
		}
		h.Write([]byte{byte(len(b))})
		h.Write(b)
	}
	if got := [32]byte(h.Sum(nil)); got != spinfile.GPT2VocabularyHash {
		t.Errorf("got %x, want %x", got, spinfile.GPT2VocabularyHash)
	}
}

// The original's checkpoint, compressed, is the original's file byte for byte.
func TestCompressSeedTiny(t *testing.T) {
	m, err := Open("../model/testdata/seed_tiny")
	if err != nil {
		t.Fatal(err)
	}
	got, err := spinfile.Encode4(m)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("../spinfile/testdata/seed_tiny.spinnet")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the bytes differ")
	}
}

func TestOpenSpinnet(t *testing.T) {
	m, err := Open("../spinfile/testdata/seed_tiny.spinnet")
	if err != nil {
		t.Fatal(err)
	}
	if m.Config.NEmbd != 64 || m.Tokenizer.Kind != "chars" || !strings.HasSuffix(m.Meta["source"], "seed_tiny.spinnet") {
		t.Errorf("got %+v, %+v, %v", m.Config, m.Tokenizer, m.Meta)
	}
	b, _, err := spinfile.Encode(m.Quantize())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.spinnet")
	if err := WriteFile(path, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, b[:len(b)-1], 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = Open(path)
	if corrupt, ok := errors.AsType[*spinfile.CorruptError](err); !ok || corrupt.Section != "header" || !strings.Contains(err.Error(), path) {
		t.Errorf("a truncated file: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err = Open(path); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("an empty file: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.spinnet")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// What a checkpoint says of its training goes into Meta, whatever is missing.
func TestProvenance(t *testing.T) {
	path := filepath.Join(t.TempDir(), StateFile)
	for _, c := range []struct {
		state string
		want  map[string]string
	}{
		{`{"config": {"a":  1}, "dataset_hash": "abc", "train_loss": 1.25, "val_loss": 1.5}`, map[string]string{
			"config_sha256": "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862", "data_hash": "abc", "train_loss": "1.25", "val_loss": "1.5"}},
		{`{"val_loss": null, "train_loss": 2}`, map[string]string{"train_loss": "2"}},
		{`{}`, map[string]string{}},
		{`[`, map[string]string{}},
	} {
		if err := os.WriteFile(path, []byte(c.state), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := provenance(path); !maps.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.state, got, c.want)
		}
	}
}
