package main

import (
	"errors"
	"fmt"
	"testing"
)

// TestFirstOpen: of several GPUs the first that opens is taken, and where none
// does the first one's error is kept.
func TestFirstOpen(t *testing.T) {
	for _, c := range []struct {
		first, count int
		good         []bool
		want         int // −1: an error
	}{
		{0, 1, []bool{true}, 0},
		{0, 3, []bool{false, true, true}, 1},
		{0, 3, []bool{false, false, true}, 2},
		{0, 2, []bool{false, false}, -1},
		{1, 2, []bool{true, false, true}, -1}, // asked for by its number
	} {
		got, err := firstOpen(c.first, c.count, func(n int) (int, error) {
			if !c.good[n] {
				return -1, fmt.Errorf("GPU %d is in use", n)
			}
			return n, nil
		})
		if c.want < 0 {
			if want := fmt.Sprintf("GPU %d is in use", c.first); err == nil || err.Error() != want {
				t.Errorf("%v: got %d and error %v, want %q", c, got, err, want)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%v: got %d and error %v, want %d", c, got, err, c.want)
		}
	}
	if _, err := openGPU("cuda:x", func(int) (int, error) { return 0, errors.New("opened") }); err == nil || err.Error() == "opened" {
		t.Errorf("cuda:x: got %v, want what is wrong with the name", err)
	}
}
