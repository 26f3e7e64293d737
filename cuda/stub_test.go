//go:build nocuda || !((linux || windows) && (amd64 || arm64))

package cuda

import (
	"errors"
	"testing"

	"spinnet/engine"
)

var _ engine.Text = (*Session)(nil)

// TestLeftOut: a build without GPUs says so, whatever is asked for.
func TestLeftOut(t *testing.T) {
	_, _, devices := Devices()
	_, open := Open(0)
	_, session := NewSession(0, nil, engine.Options{})
	_, blas := CuBLAS()
	for what, err := range map[string]error{"Devices": devices, "Open": open, "NewSession": session, "CuBLAS": blas} {
		if !errors.Is(err, ErrLeftOut) {
			t.Errorf("%s: got %v, want ErrLeftOut", what, err)
		}
	}
}
