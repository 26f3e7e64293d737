package dataset

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// readDocuments gives the documents of a text, and checks the offsets.
func readDocuments(t *testing.T, text string, r io.Reader, buffer int) []string {
	t.Helper()
	d := newDocReader(r, make([]byte, buffer))
	docs := []string{}
	doc := ""
	for {
		piece, offset, last, err := d.next()
		if err == io.EOF {
			return docs
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := text[offset:][:len(piece)]; got != string(piece) {
			t.Fatalf("%q: piece %q at %d, where %q is", text, piece, offset, got)
		}
		doc += string(piece)
		if last {
			docs = append(docs, doc)
			doc = ""
		}
	}
}

func TestDocuments(t *testing.T) {
	const sep = Separator
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", []string{}},
		{"a", []string{"a"}},
		{"a\n", []string{"a\n"}},
		{"a\n" + sep + "\nb\n", []string{"a", "b\n"}},
		{"a\r\n" + sep + "\r\nb", []string{"a", "b"}},
		{sep + "\na", []string{"", "a"}},
		{"a\n" + sep, []string{"a"}},
		{"a\n" + sep + "\n", []string{"a"}},
		{sep, []string{""}},
		{sep + "\n" + sep + "\n", []string{"", ""}},
		{"a\n\n" + sep + "\n\nb", []string{"a\n", "\nb"}},
		{"a " + sep + "\nb", []string{"a " + sep + "\nb"}},
		{"a\n" + sep + " \nb", []string{"a\n" + sep + " \nb"}},
		{"a\n" + sep + sep + "\nb", []string{"a\n" + sep + sep + "\nb"}},
		{"x" + sep, []string{"x" + sep}},
		{"é\n" + sep + "\nü", []string{"é", "ü"}},
	} {
		for _, size := range []int{64, 1 << 12} {
			if got := readDocuments(t, c.text, strings.NewReader(c.text), size); !slices.Equal(got, c.want) {
				t.Errorf("%q: got %q, want %q", c.text, got, c.want)
			}
			if got := readDocuments(t, c.text, iotest.OneByteReader(strings.NewReader(c.text)), size); !slices.Equal(got, c.want) {
				t.Errorf("%q by single bytes: got %q, want %q", c.text, got, c.want)
			}
		}
	}
}

// Wherever the buffer ends, the documents are the same, and no piece but the
// last of a document ends within a character.
func TestDocumentsAcrossBuffers(t *testing.T) {
	want := []string{strings.Repeat("äb€😀c\n", 40), "x", strings.Repeat("\n", 90), "z" + Separator + strings.Repeat("y", 100)}
	for n := range 70 {
		docs := slices.Clone(want)
		docs[0] = strings.Repeat("p", n) + docs[0]
		text := strings.Join(docs, "\n"+Separator+"\n")
		if got := readDocuments(t, text, strings.NewReader(text), 64); !slices.Equal(got, docs) {
			t.Fatalf("shift %d: got %q, want %q", n, got, docs)
		}
		d := newDocReader(strings.NewReader(text), make([]byte, 64))
		for {
			piece, _, _, err := d.next()
			if err == io.EOF {
				break
			}
			if !bytes.Equal(bytes.ToValidUTF8(piece, nil), piece) {
				t.Fatalf("shift %d: piece %q is cut within a character", n, piece)
			}
		}
	}
}
