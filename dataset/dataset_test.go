package dataset

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spinnet/corpus"
)

// textSource is a text in memory.
func textSource(name, text string) Source {
	return Source{name, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
}

// prepared makes a dataset in a temporary folder.
func prepared(t *testing.T, opts Options, texts ...string) string {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = filepath.Join(t.TempDir(), "set")
	}
	var sources []Source
	for i, text := range texts {
		sources = append(sources, textSource("text"+string(rune('0'+i%10)), text))
	}
	if _, err := Prepare(context.Background(), opts, sources); err != nil {
		t.Fatal(err)
	}
	return opts.Dir
}

// opened opens a dataset for the time of the test.
func opened(t *testing.T, dir string) *Dataset {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// all reads a whole split.
func all(t *testing.T, tokens *Tokens) []int32 {
	t.Helper()
	ids := make([]int32, tokens.Len())
	if err := tokens.Read(ids, 0); err != nil {
		t.Fatal(err)
	}
	return ids
}

// decoded is the text of a whole split.
func decoded(t *testing.T, d *Dataset, tokens *Tokens) string {
	t.Helper()
	var text []byte
	var err error
	for _, id := range all(t, tokens) {
		if text, err = d.Tokenizer.AppendDecode(text, id); err != nil {
			t.Fatal(err)
		}
	}
	return string(text)
}

func TestTinyShakespeare(t *testing.T) {
	dir := prepared(t, Options{Name: "tinyshakespeare", Tokenizer: "chars", Val: 0.1}, corpus.TinyShakespeare)
	d := opened(t, dir)
	if d.VocabSize != 65 || d.Train.Len() != 1003854 || d.Val.Len() != 111540 {
		t.Errorf("got vocabulary %d, %d and %d tokens", d.VocabSize, d.Train.Len(), d.Val.Len())
	}
	if d.TrainBytes != 1003854 || d.ValBytes != 111540 {
		t.Errorf("got %d and %d bytes", d.TrainBytes, d.ValBytes)
	}
	if decoded(t, d, d.Train)+decoded(t, d, d.Val) != corpus.TinyShakespeare {
		t.Error("the tokens do not decode to the text")
	}
	if err := d.Verify(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err != nil {
		t.Error(err)
	}
}
