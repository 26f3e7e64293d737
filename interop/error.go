package interop

import "fmt"

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
		s += fmt.Sprintf("tensor %q: ", e.Tensor)
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
		return &FormatError{File: file, Format: format, Tensor: tensor, Offset: offset, Reason: fmt.Sprintf(reason, args...)}
	}
}
