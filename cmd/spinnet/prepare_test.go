package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spinnet/corpus"
	"spinnet/tokenizer"
)

// The corpus of the standard library has its packages and none of what is
// left out.
func TestGoSources(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command here")
	}
	sources, err := goSources()
	if err != nil {
		t.Fatal(err)
	}
	packages := make(map[string]bool)
	for _, s := range sources {
		name := filepath.ToSlash(s.Name)
		_, inside, _ := strings.Cut(name, "/src/")
		packages[filepath.Dir(inside)] = true
		for _, bad := range []string{"_test.go", "/testdata/", "/vendor/", "/src/cmd/"} {
			if strings.Contains(name, bad) {
				t.Errorf("%s should not be in", name)
			}
		}
	}
	for _, want := range []string{"fmt", "net/http", "encoding/json", "go/parser"} {
		if !packages[want] {
			t.Errorf("package %s is not in", want)
		}
	}
}

// A vocabulary file of any size gives its characters, also where a read ends
// within one.
func TestCharsOfFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big.txt")
	if err := os.WriteFile(path, []byte("x"+strings.Repeat("é€😀", 30_000)+corpus.TinyShakespeare), 0o666); err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizerByFlag("chars:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.VocabSize(), 65+3; got != want {
		t.Errorf("got %d characters, want %d", got, want)
	}
	if tok.Kind() != tokenizer.KindChars {
		t.Errorf("got kind %q", tok.Kind())
	}
}
