package interop

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"spinnet/spinfile"
)

// SafeTensor is one tensor of a safetensors file, as float32.
type SafeTensor struct {
	Name  string
	Shape []int     // empty for a scalar
	Data  []float32 // row-major, the product of Shape
}

// SafeTensors are the tensors of a file in the order of their data.
type SafeTensors []SafeTensor

// Need returns the data of the tensor of that name, which must have that shape;
// file is for errors.
func (ts SafeTensors) Need(file, name string, shape []int) ([]float32, error) {
	t := ts.Find(name)
	switch {
	case t == nil:
		return nil, &FormatError{Format: FormatSafetensors, File: file, Tensor: name, Offset: -1, Reason: "missing"}
	case !slices.Equal(t.Shape, shape):
		return nil, &FormatError{Format: FormatSafetensors, File: file, Tensor: name, Offset: -1, Reason: fmt.Sprintf("shape %v, the configuration wants %v", t.Shape, shape)}
	}
	return t.Data, nil
}

// Find returns the tensor of that name, or nil.
func (ts SafeTensors) Find(name string) *SafeTensor {
	for i := range ts {
		if ts[i].Name == name {
			return &ts[i]
		}
	}
	return nil
}

// maxHeader is the largest header that the format's own library reads.
const maxHeader = 100_000_000

// metadataKey is the one header entry that is not a tensor.
const metadataKey = "__metadata__"

// safeEntry is a tensor's entry in the header.
type safeEntry struct {
	DType   string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// WriteSafetensors writes tensors as float32 in the order given, with meta
// as the file's metadata, to w. The same input gives the same bytes. The
// header is padded to a multiple of eight bytes. A repeated or reserved name,
// or data that does not fill its shape, is an error before anything is
// written.
func WriteSafetensors(w io.Writer, ts []SafeTensor, meta map[string]string) error {
	header := []byte{'{'}
	field := func(key string, value any) error {
		k, err := json.Marshal(key)
		if err != nil {
			return fmt.Errorf("interop: %w", err)
		}
		v, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("interop: %w", err)
		}
		if len(header) > 1 {
			header = append(header, ',')
		}
		header = append(append(append(header, k...), ':'), v...)
		return nil
	}
	if len(meta) > 0 {
		if err := field(metadataKey, meta); err != nil { // encoding/json sorts the keys
			return err
		}
	}
	seen := map[string]bool{metadataKey: true}
	var at int64
	for _, t := range ts {
		if seen[t.Name] {
			return fmt.Errorf("interop: tensor name %q is repeated or reserved", t.Name)
		}
		seen[t.Name] = true
		e := safeEntry{DType: "F32", Shape: make([]int64, len(t.Shape))}
		n := 1
		for i, d := range t.Shape {
			e.Shape[i] = int64(d)
			n *= d
		}
		if n != len(t.Data) {
			return fmt.Errorf("interop: tensor %q has %d values, its shape %v wants %d", t.Name, len(t.Data), t.Shape, n)
		}
		e.Offsets = [2]int64{at, at + 4*int64(n)}
		at = e.Offsets[1]
		if err := field(t.Name, e); err != nil {
			return err
		}
	}
	header = append(header, '}')
	for len(header)%8 != 0 {
		header = append(header, ' ')
	}
	b := bufio.NewWriterSize(w, 1<<16)
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], uint64(len(header)))
	b.Write(word[:]) // bufio keeps the first error for Flush
	b.Write(header)
	for _, t := range ts {
		for _, v := range t.Data {
			binary.LittleEndian.PutUint32(word[:4], math.Float32bits(v))
			if _, err := b.Write(word[:4]); err != nil {
				return fmt.Errorf("interop: writing tensor %q: %w", t.Name, err)
			}
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("interop: writing tensors: %w", err)
	}
	return nil
}

// ReadSafetensors reads a safetensors file of F32, F16, BF16 and F64 tensors
// and its metadata. Memory is bounded by the file's size (twice that for
// 16-bit data). A file that is not wholly right is a *FormatError.
func ReadSafetensors(path string) (SafeTensors, map[string]string, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return readSafetensors(f, size, path)
}

// placed is a header entry with its name and what follows from it.
type placed struct {
	safeEntry
	name  string
	count int64 // of values
	at    int64 // place of the data in the file
}

func (e *placed) shape() []int {
	shape := make([]int, len(e.Shape))
	for i, d := range e.Shape {
		shape[i] = int(d)
	}
	return shape
}

// readSafetensors reads a file of size bytes; name is for errors.
func readSafetensors(r io.ReaderAt, size int64, name string) (SafeTensors, map[string]string, error) {
	fail := failing(name, FormatSafetensors)
	entries, meta, err := scanSafetensors(r, size, fail)
	if err != nil {
		return nil, nil, err
	}
	ts := make(SafeTensors, len(entries))
	for i, e := range entries {
		ts[i] = SafeTensor{Name: e.name, Shape: e.shape(), Data: make([]float32, e.count)}
		if err := readValues(ts[i].Data, r, e.at, e.DType); err != nil {
			return nil, nil, fail(e.name, e.at, "%v", err)
		}
	}
	return ts, meta, nil
}

// scanSafetensors reads the header of a file of size bytes: its tensors in
// the order of their data, which they fill without gaps, and its metadata.
func scanSafetensors(r io.ReaderAt, size int64, fail failure) ([]placed, map[string]string, error) {
	if size < 8 {
		return nil, nil, fail("", 0, "%d bytes, a safetensors file has at least 8", size)
	}
	var word [8]byte
	if _, err := r.ReadAt(word[:], 0); err != nil {
		return nil, nil, fail("", 0, "%v", err)
	}
	length := binary.LittleEndian.Uint64(word[:])
	if length > uint64(min(size-8, maxHeader)) {
		return nil, nil, fail("", 0, "header of %d bytes in a file of %d; truncated, or not a safetensors file", length, size)
	}
	header := make([]byte, length)
	if _, err := r.ReadAt(header, 8); err != nil {
		return nil, nil, fail("", 8, "%v", err)
	}
	entries, meta, err := parseHeader(header, fail)
	if err != nil {
		return nil, nil, err
	}
	start := 8 + int64(length)
	var at int64
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Offsets[0] < at:
			return nil, nil, fail(e.name, start+e.Offsets[0], "its data overlaps the tensor before it")
		case e.Offsets[0] > at:
			return nil, nil, fail(e.name, start+at, "%d bytes before its data belong to no tensor", e.Offsets[0]-at)
		case e.Offsets[1] > size-start:
			return nil, nil, fail(e.name, size, "its data ends at byte %d of a file of %d; truncated", start+e.Offsets[1], size)
		}
		at = e.Offsets[1]
		e.at = start + e.Offsets[0]
	}
	if at != size-start {
		return nil, nil, fail("", start+at, "%d bytes after the last tensor", size-start-at)
	}
	return entries, meta, nil
}

// parseHeader reads the header's entries, checks each by itself and sorts
// them by the place of their data.
func parseHeader(header []byte, fail failure) ([]placed, map[string]string, error) {
	dec := json.NewDecoder(strings.NewReader(string(header)))
	bad := func(err error) error {
		if errors.Is(err, io.EOF) {
			err = errors.New("it ends too early")
		}
		return fail("", 8+dec.InputOffset(), "bad header: %v", err)
	}
	if tok, err := dec.Token(); err != nil {
		return nil, nil, bad(err)
	} else if tok != json.Delim('{') {
		return nil, nil, fail("", 8, "bad header: not a JSON object")
	}
	var entries []placed
	meta := map[string]string{}
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, nil, bad(err)
		}
		name, _ := tok.(string) // a key of an object is a string
		if seen[name] {
			return nil, nil, fail(name, 8+dec.InputOffset(), "named twice in the header")
		}
		seen[name] = true
		if name == metadataKey {
			if err := dec.Decode(&meta); err != nil {
				return nil, nil, bad(err)
			}
			continue
		}
		e := placed{name: name}
		if err := dec.Decode(&e.safeEntry); err != nil {
			return nil, nil, bad(err)
		}
		width := dtypeWidth(e.DType)
		if width == 0 {
			return nil, nil, fail(name, -1, "data type %s, want F32, F16, BF16 or F64", quoted(e.DType))
		}
		if e.Offsets[0] < 0 || e.Offsets[1] < e.Offsets[0] {
			return nil, nil, fail(name, -1, "data offsets %v", e.Offsets)
		}
		e.count = 1
		for _, d := range e.Shape {
			if d < 0 || d > 0 && e.count > math.MaxInt64/8/d {
				return nil, nil, fail(name, -1, "shape %s", cut(fmt.Sprint(e.Shape), maxQuoted))
			}
			e.count *= d
		}
		if e.count*width != e.Offsets[1]-e.Offsets[0] {
			return nil, nil, fail(name, -1, "%d bytes of data, its shape %s of %s wants %d", e.Offsets[1]-e.Offsets[0], cut(fmt.Sprint(e.Shape), maxQuoted), e.DType, e.count*width)
		}
		entries = append(entries, e)
	}
	if _, err := dec.Token(); err != nil {
		return nil, nil, bad(err)
	}
	if rest := strings.Trim(string(header[dec.InputOffset():]), " \t\r\n"); rest != "" {
		return nil, nil, fail("", 8+dec.InputOffset(), "bad header: more than one JSON value")
	}
	slices.SortStableFunc(entries, func(a, b placed) int {
		if a.Offsets[0] != b.Offsets[0] {
			return int(min(1, max(-1, a.Offsets[0]-b.Offsets[0])))
		}
		return int(min(1, max(-1, a.Offsets[1]-b.Offsets[1]))) // an empty tensor first
	})
	return entries, meta, nil
}

// dtypeWidth is the size of one element in bytes, 0 for a type not read.
func dtypeWidth(dtype string) int64 {
	switch dtype {
	case "F64":
		return 8
	case "F32":
		return 4
	case "F16", "BF16":
		return 2
	}
	return 0
}

// readValues fills dst with the values at offset.
func readValues(dst []float32, r io.ReaderAt, offset int64, dtype string) error {
	width := int(dtypeWidth(dtype))
	buf := make([]byte, min(1<<16, len(dst)*width))
	for len(dst) > 0 {
		n := min(len(dst), len(buf)/width)
		if _, err := r.ReadAt(buf[:n*width], offset); err != nil {
			return err
		}
		decodeValues(dst[:n], buf, dtype)
		dst = dst[n:]
		offset += int64(n * width)
	}
	return nil
}

// decodeValues fills dst with little-endian floats.
func decodeValues(dst []float32, b []byte, dtype string) {
	switch dtype {
	case "F64":
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:])))
		}
	case "F32":
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	case "BF16":
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16)
		}
	case "F16":
		for i := range dst {
			dst[i] = spinfile.FromFloat16(binary.LittleEndian.Uint16(b[2*i:]))
		}
	}
}
