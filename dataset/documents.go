package dataset

import (
	"bytes"
	"io"
	"unicode/utf8"
)

// Separator is the line between two documents of a text file.
const Separator = "<|endoftext|>"

// chunkSize bounds the pieces in which texts are read.
const chunkSize = 1 << 20

// docReader cuts a text into documents at lines that are exactly Separator,
// and hands each out in pieces of at most about chunkSize bytes. The line
// break before a separator line belongs to the separator.
type docReader struct {
	r         io.Reader
	buf       []byte
	pos, end  int   // unread part of buf
	eof       bool  // r is exhausted
	lineStart bool  // buf[pos] begins a line
	offset    int64 // of buf[pos] in the text
}

func newDocReader(r io.Reader, buf []byte) *docReader {
	return &docReader{r: r, buf: buf[:cap(buf)], lineStart: true}
}

// next returns the next piece of the current document, its offset in the text,
// and whether the document ends after it. A piece ends within a UTF-8
// character only if the document does. After the last one: io.EOF.
func (d *docReader) next() (piece []byte, offset int64, last bool, err error) {
	offset = d.offset
	for full := false; ; full = true {
		b := d.buf[d.pos:d.end]
		if text, size, ok := d.cut(b); ok {
			d.advance(size)
			d.lineStart = true
			return text, offset, true, nil
		}
		if !d.eof && !full {
			if err := d.fill(); err != nil {
				return nil, offset, false, err
			}
			continue
		}
		if len(b) == 0 {
			return nil, offset, false, io.EOF
		}
		if d.eof {
			d.advance(len(b))
			return b, offset, true, nil
		}
		// Keep back what may be the beginning of a separator, or of a character.
		n := len(b) - len("\r\n"+Separator+"\r\n")
		for i := 1; i < utf8.UTFMax && !utf8.RuneStart(b[n]); i++ {
			n--
		}
		d.advance(n)
		d.lineStart = b[n-1] == '\n'
		return b[:n], offset, false, nil
	}
}

// cut finds the first separator line in b: the text before it and the bytes
// that text and separator take together.
func (d *docReader) cut(b []byte) (text []byte, size int, ok bool) {
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(Separator))
		if i < 0 {
			return nil, 0, false
		}
		i += from
		after, ok := lineEnd(b[i+len(Separator):], d.eof)
		if !ok || i > 0 && b[i-1] != '\n' || i == 0 && !d.lineStart {
			from = i + 1
			continue
		}
		if i > 0 {
			text = bytes.TrimSuffix(b[:i-1], []byte("\r"))
		}
		return text, i + len(Separator) + after, true
	}
}

// lineEnd tells whether b begins with the end of a line, and its length.
func lineEnd(b []byte, eof bool) (int, bool) {
	switch {
	case bytes.HasPrefix(b, []byte("\n")):
		return 1, true
	case bytes.HasPrefix(b, []byte("\r\n")):
		return 2, true
	case len(b) == 0 && eof:
		return 0, true
	}
	return 0, false
}

func (d *docReader) advance(n int) {
	d.pos += n
	d.offset += int64(n)
}

// fill reads until the buffer is full or the text ends.
func (d *docReader) fill() error {
	if d.eof {
		return nil
	}
	d.end = copy(d.buf, d.buf[d.pos:d.end])
	d.pos = 0
	for d.end < len(d.buf) {
		n, err := d.r.Read(d.buf[d.end:])
		d.end += n
		if err == io.EOF {
			d.eof = true
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
