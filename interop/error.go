package interop

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// A FormatError says what is wrong with a model file.
type FormatError struct {
	File   string
	Format string // such as "safetensors"; one of the Format constants
	Tensor string // "" when the fault is not in one tensor
	Offset int64  // of the fault in the file, in bytes; −1 when there is no one place
	Reason string
}

// Error names the file, the format, the tensor, the fault and its offset.
func (e *FormatError) Error() string {
	s := "interop: " + e.File + ": "
	if e.Format != "" {
		s += e.Format + ": "
	}
	if e.Tensor != "" {
		s += "tensor " + quoted(e.Tensor) + ": "
	}
	s += e.Reason
	if e.Offset >= 0 {
		s += fmt.Sprintf(" (at byte %d)", e.Offset)
	}
	return s
}

// failure makes the errors of one file.
type failure func(tensor string, offset int64, format string, args ...any) error

// failing gives the failure of a file.
func failing(file, format string) failure {
	return func(tensor string, offset int64, reason string, args ...any) error {
		return &FormatError{File: file, Format: format, Tensor: tensor, Offset: offset, Reason: cut(fmt.Sprintf(reason, args...), maxReason)}
	}
}

// What a file says of itself is shown up to these lengths, in characters.
const (
	maxQuoted = 80
	maxReason = 1000
)

// quoted shows a text from a file.
func quoted(s string) string { return strconv.Quote(cut(s, maxQuoted)) }

// cut is the beginning of a text of at most n characters.
func cut(s string, n int) string {
	if len(s) <= n || utf8.RuneCountInString(s) <= n {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i] + "…"
		}
		n--
	}
	return s
}

// shown shows a value of GGUF's metadata.
func shown(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case string:
		return quoted(v)
	case []string:
		return fmt.Sprintf("an array of %d strings", len(v))
	case ggufNumbers:
		return "an array of numbers"
	}
	return fmt.Sprint(v)
}
