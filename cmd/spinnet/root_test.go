package main

import (
	"strings"
	"testing"
)

// What a file holds does not reach the terminal as it is.
func TestOneLine(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain text", "plain text"},
		{"two\r\nlines\n", "two lines"},
		{"\x1b[31mred\x07\x9b", "\ufffd[31mred\ufffd\ufffd"},
		{"left\u202eright", "left\ufffdright"},
		{"ä → 世", "ä → 世"},
	} {
		if got := oneLine(c.in); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
	if got := oneLine(strings.Repeat("x", 1<<20)); len(got) > maxLine+10 {
		t.Errorf("a line of %d bytes", len(got))
	}
	if got := short("añb\x00cd", 4); got != "añb\ufffd…" {
		t.Errorf("got %q", got)
	}
}
