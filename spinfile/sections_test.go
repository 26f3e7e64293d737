package spinfile

import (
	"os"
	"testing"
)

// The sections of a file follow each other from its beginning to its end, and
// a file that is cut off has none.
func TestSections(t *testing.T) {
	v4, err := os.ReadFile("testdata/seed_tiny.spinnet")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Decode(v4)
	if err != nil {
		t.Fatal(err)
	}
	v5, _, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	for want, data := range map[int][]byte{4: v4, 5: v5} {
		version, list, err := Sections(data)
		if err != nil || version != want {
			t.Fatalf("version %d: got %d, %v", want, version, err)
		}
		end, tensors := int64(0), 0
		for _, s := range list {
			if s.Offset < end || want == 4 && s.Offset != end {
				t.Errorf("version %d: %s begins at %d, what is before it ends at %d", want, s.Name, s.Offset, end)
			}
			end = s.Offset + s.Bytes
			if s.Encoding != "" && s.Name != rope4 {
				tensors++
			}
		}
		if left := int64(len(data)) - end; left != map[int]int64{4: 4, 5: 0}[want] {
			t.Errorf("version %d: %d bytes after the last section", want, left)
		}
		if n := map[int]int{4: 38, 5: 24}[want]; tensors != n {
			t.Errorf("version %d: %d tensors, want %d", want, tensors, n)
		}
		for n := 0; n < len(data)-4; n++ {
			if _, _, err := Sections(data[:n]); err == nil {
				t.Fatalf("version %d: no error for the first %d bytes of %d", want, n, len(data))
			}
		}
	}
	if _, _, err := Sections([]byte("SPIN\x02\x00")); err == nil {
		t.Error("version 2 was taken")
	}
}
