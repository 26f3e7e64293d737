//go:build !unix

package replica

import (
	"fmt"
	"os"
)

// lock would keep a second replica out; here nothing does.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	return f, nil
}
