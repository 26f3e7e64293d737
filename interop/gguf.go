package interop

import (
	"bufio"
	"encoding/binary"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"spinnet/arch"
)

// Limits of a GGUF header.
const (
	maxGGUFHeader = 256 << 20
	maxGGUFAlign  = 1 << 20
	maxGGUFDims   = 4
)

// ggufWidths are the sizes of the numbers of metadata.
var ggufWidths = map[uint32]uint64{
	ggufUint8: 1, ggufInt8: 1, ggufBool: 1, ggufUint16: 2, ggufInt16: 2,
	ggufUint32: 4, ggufInt32: 4, ggufFloat32: 4, ggufUint64: 8, ggufInt64: 8, ggufFloat64: 8,
}

// ggufNumbers is an array of numbers of metadata.
type ggufNumbers struct {
	kind uint32
	data []byte
}

// floats gives the numbers of an array of float32.
func (n ggufNumbers) floats() []float32 {
	if n.kind != ggufFloat32 {
		return nil
	}
	values := make([]float32, len(n.data)/4)
	decodeValues(values, n.data, "F32")
	return values
}

// ints gives the numbers of an array of int32 or uint32.
func (n ggufNumbers) ints() []int32 {
	if n.kind != ggufInt32 && n.kind != ggufUint32 {
		return nil
	}
	values := make([]int32, len(n.data)/4)
	for i := range values {
		values[i] = int32(binary.LittleEndian.Uint32(n.data[4*i:]))
	}
	return values
}

// ggufTensor is an entry of the table of tensors.
type ggufTensor struct {
	name   string
	shape  []int // row-major: the file has it the other way round
	kind   *ggufType
	count  int64
	offset uint64 // from the beginning of the data
}

// ggufFile is a GGUF header.
type ggufFile struct {
	meta    map[string]any // uint64, int64, float64, bool, string, []string or ggufNumbers
	tensors []ggufTensor
	data    int64 // where it begins
}

// ggufReader reads a header from front to back. The first failure stays.
type ggufReader struct {
	r    *bufio.Reader
	at   int64 // of the next byte
	left int64 // bytes of the file, or of the largest header
	fail failure
	err  error
}

// bytes reads the next n bytes.
func (g *ggufReader) bytes(n uint64) []byte {
	if g.err != nil {
		return nil
	}
	if n > uint64(g.left) {
		g.err = g.fail("", g.at, "%d bytes wanted, %d left", n, g.left)
		return nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(g.r, b); err != nil {
		g.err = g.fail("", g.at, "%v", err)
		return nil
	}
	g.at += int64(n)
	g.left -= int64(n)
	return b
}

func (g *ggufReader) number(width uint64) uint64 {
	var word [8]byte
	copy(word[:], g.bytes(width))
	return binary.LittleEndian.Uint64(word[:])
}

func (g *ggufReader) u32() uint32    { return uint32(g.number(4)) }
func (g *ggufReader) u64() uint64    { return g.number(8) }
func (g *ggufReader) string() string { return string(g.bytes(g.u64())) }

// value reads a value of metadata.
func (g *ggufReader) value(kind uint32) any {
	switch kind {
	case ggufString:
		return g.string()
	case ggufArray:
		return g.array()
	}
	width, ok := ggufWidths[kind]
	if !ok && g.err == nil {
		g.err = g.fail("", g.at-4, "a value of type %d, want 0 to 12", kind)
	}
	v := g.number(width)
	switch kind {
	case ggufBool:
		return v != 0
	case ggufInt8:
		return int64(int8(v))
	case ggufInt16:
		return int64(int16(v))
	case ggufInt32:
		return int64(int32(v))
	case ggufInt64:
		return int64(v)
	case ggufFloat32:
		// 1e-5 should stay 1e-5, not become 0.0000099999997.
		f, _ := strconv.ParseFloat(strconv.FormatFloat(float64(math.Float32frombits(uint32(v))), 'g', -1, 32), 64)
		return f
	case ggufFloat64:
		return math.Float64frombits(v)
	}
	return v
}

// array reads an array of numbers or strings.
func (g *ggufReader) array() any {
	kind, n := g.u32(), g.u64()
	if g.err != nil {
		return nil
	}
	if width := ggufWidths[kind]; width > 0 {
		if n > uint64(g.left)/width {
			g.err = g.fail("", g.at-8, "an array of %d numbers in %d bytes", n, g.left)
			return nil
		}
		return ggufNumbers{kind, g.bytes(n * width)}
	}
	if kind != ggufString {
		g.err = g.fail("", g.at-12, "an array of type %d, want numbers or strings", kind)
		return nil
	}
	if n > uint64(g.left)/8 {
		g.err = g.fail("", g.at-8, "an array of %d strings in %d bytes", n, g.left)
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		list = append(list, g.string())
		if g.err != nil {
			return nil
		}
	}
	return list
}

// readGGUF reads a header and checks that the tensors lie in the file one
// after another.
func readGGUF(r io.ReaderAt, size int64, fail failure) (*ggufFile, error) {
	g := &ggufReader{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<16), left: min(size, maxGGUFHeader), fail: fail}
	if magic := g.bytes(4); g.err == nil && string(magic) != ggufMagic {
		return nil, fail("", 0, "it begins with %q, not %q", magic, ggufMagic)
	}
	version := g.u32()
	if g.err == nil && version != 2 && version != ggufVersion {
		return nil, fail("", 4, "version %d, want 2 or 3 (little-endian)", version)
	}
	tensors, keys := g.u64(), g.u64()
	f := &ggufFile{meta: map[string]any{}}
	for range keys {
		key := g.string()
		kind := g.u32()
		v := g.value(kind)
		if g.err != nil {
			return nil, g.err
		}
		if _, twice := f.meta[key]; twice {
			return nil, fail("", g.at, "key %s is there twice", quoted(key))
		}
		f.meta[key] = v
	}
	for range tensors {
		t, err := g.tensor()
		if err != nil {
			return nil, err
		}
		f.tensors = append(f.tensors, t)
	}
	if g.err != nil {
		return nil, g.err
	}
	align := uint64(32)
	if v, ok := f.meta["general.alignment"]; ok {
		if align, ok = v.(uint64); !ok || align == 0 || align > maxGGUFAlign {
			return nil, fail("", -1, "general.alignment = %s", shown(v))
		}
	}
	f.data = (g.at + int64(align) - 1) / int64(align) * int64(align)
	if err := f.place(r, size, align, fail); err != nil {
		return nil, err
	}
	return f, zeros(r, g.at, min(size, f.data), fail)
}

// tensor reads an entry of the table.
func (g *ggufReader) tensor() (t ggufTensor, err error) {
	t.name = g.string()
	dims := g.u32()
	if g.err == nil && (dims < 1 || dims > maxGGUFDims) {
		return t, g.fail(t.name, g.at-4, "%d dimensions, want 1 to %d", dims, maxGGUFDims)
	}
	t.count = 1
	for range dims {
		d := g.u64()
		if g.err == nil && (d < 1 || d > math.MaxInt32 || t.count > math.MaxInt64/64/int64(d)) {
			return t, g.fail(t.name, g.at-8, "a dimension of %d", d)
		}
		t.shape = append(t.shape, int(d))
		t.count *= int64(d)
	}
	kind := g.u32()
	t.offset = g.u64()
	if g.err != nil {
		return t, g.err
	}
	if t.kind = ggufTypeByID(kind); t.kind == nil {
		return t, g.fail(t.name, g.at-12, "data of ggml's type %d; known are f32, f16, bf16, q8_0, q4_0, q6_k, tq1_0 and tq2_0", kind)
	}
	if t.shape[0]%t.kind.values != 0 {
		return t, g.fail(t.name, -1, "rows of %d values, no multiple of %s's %d", t.shape[0], t.kind.name, t.kind.values)
	}
	slices.Reverse(t.shape)
	return t, nil
}

func (t *ggufTensor) bytes() int64 { return t.count / int64(t.kind.values) * int64(t.kind.bytes) }

// zeros checks the padding between two places of a file.
func zeros(r io.ReaderAt, from, to int64, fail failure) error {
	if from >= to {
		return nil
	}
	b := make([]byte, to-from)
	if _, err := r.ReadAt(b, from); err != nil {
		return fail("", from, "%v", err)
	}
	for i, v := range b {
		if v != 0 {
			return fail("", from+int64(i), "a byte of padding is %d, must be 0", v)
		}
	}
	return nil
}

// place checks that the tensors fill the rest of the file, each at a multiple
// of align, without overlap, and with zeros in between.
func (f *ggufFile) place(r io.ReaderAt, size int64, align uint64, fail failure) error {
	order := make([]*ggufTensor, len(f.tensors))
	for i := range f.tensors {
		order[i] = &f.tensors[i]
	}
	slices.SortStableFunc(order, func(a, b *ggufTensor) int {
		switch {
		case a.offset < b.offset:
			return -1
		case a.offset > b.offset:
			return 1
		}
		return 0
	})
	room := uint64(max(0, size-f.data))
	end := uint64(0)
	for _, t := range order {
		switch {
		case t.offset%align != 0:
			return fail(t.name, -1, "its data is at %d, no multiple of %d", t.offset, align)
		case t.offset < end:
			return fail(t.name, f.data+int64(t.offset), "its data overlaps the tensor before it")
		case t.offset-end >= align:
			return fail(t.name, f.data+int64(end), "%d bytes before its data belong to no tensor", t.offset-end)
		case t.offset > room || uint64(t.bytes()) > room-t.offset:
			return fail(t.name, size, "its %d bytes of data begin at byte %d of a file of %d; truncated", t.bytes(), uint64(f.data)+t.offset, size)
		}
		if err := zeros(r, f.data+int64(end), f.data+int64(t.offset), fail); err != nil {
			return err
		}
		end = t.offset + uint64(t.bytes())
	}
	if last := (end + align - 1) / align * align; room > last {
		return fail("", f.data+int64(last), "%d bytes after the last tensor", room-last)
	}
	return zeros(r, f.data+int64(end), size, fail)
}

// ggufNames are llama.cpp's names of our parameters, within a layer and
// outside.
var ggufNames = map[string]string{
	"token_embd": "tok_embeddings", "output_norm": "norm", "output": "output",
	"attn_norm": "attention_norm", "attn_q": "attention.wq", "attn_k": "attention.wk", "attn_v": "attention.wv", "attn_output": "attention.wo",
	"ffn_norm": "ffn_norm", "ffn_gate": "feed_forward.gate_proj", "ffn_up": "feed_forward.up_proj", "ffn_down": "feed_forward.down_proj",
}

// ggufName gives our name of a tensor, or "".
func ggufName(name string) string {
	prefix := ""
	if rest, ok := strings.CutPrefix(name, "blk."); ok {
		layer, inner, ok := strings.Cut(rest, ".")
		if !ok {
			return ""
		}
		prefix, name = "layers."+layer+".", inner
	}
	base, ok := strings.CutSuffix(name, ".weight")
	if ours := ggufNames[base]; ok && ours != "" {
		return prefix + ours + ".weight"
	}
	return ""
}

// openGGUF opens a file of the llama architecture. Its query and key rows are
// in the order of adjacent pairs, which is ours.
func (l *Latents) openGGUF(o Options) error {
	f, err := readGGUF(l.file, l.Size, l.fail)
	if err != nil {
		return err
	}
	f.dropExtra()
	if err := l.ggufConfig(f); err != nil {
		return err
	}
	own, err := f.tokenizer(l.fail)
	if err != nil {
		return err
	}
	if l.Tokenizer, err = o.tokenizer(l.File, l.Config.VocabSize, own, nil); err != nil {
		return err
	}
	if name, ok := f.meta["general.name"].(string); ok {
		l.Meta["name"] = name
	}
	for _, t := range f.tensors {
		name := ggufName(t.name)
		switch {
		case t.name == "rope_freqs.weight":
			return l.fail(t.name, -1, "scaled rotations are not supported")
		case name == "":
			return l.fail(t.name, -1, "does not belong to a llama model")
		case name == arch.OutputName:
			l.Config.UntiedOutput = true
		}
		at := f.data + int64(t.offset)
		l.Tensors = append(l.Tensors, Stored{Name: name, Source: t.name, Type: strings.ToUpper(t.kind.name), Shape: t.shape, Offset: at, Bytes: t.bytes(),
			read: func(dst []float32) error { return t.kind.read(dst, l.file, at) }})
	}
	return l.tie()
}

// ggufConfig reads the configuration.
func (l *Latents) ggufConfig(f *ggufFile) error {
	if a := f.meta["general.architecture"]; a != "llama" {
		return l.fail("", -1, "general.architecture = %s, want llama", shown(a))
	}
	integer := func(key string, fallback int) (int, error) {
		v, ok := f.meta["llama."+key]
		if !ok && fallback > 0 {
			return fallback, nil
		}
		switch n := v.(type) {
		case uint64:
			if n <= math.MaxInt32 {
				return int(n), nil
			}
		case int64:
			if n >= 0 && n <= math.MaxInt32 {
				return int(n), nil
			}
		}
		if !ok {
			return 0, l.fail("", -1, "llama.%s is missing", key)
		}
		return 0, l.fail("", -1, "llama.%s is not one number", key)
	}
	c := arch.Config{Algebra: "real", Quantizer: arch.None, NormEps: 1e-5, RopeTheta: arch.RopeTheta}
	for _, k := range []struct {
		key  string
		into *int
	}{
		{"block_count", &c.NLayer}, {"attention.head_count", &c.NHead}, {"embedding_length", &c.NEmbd},
		{"feed_forward_length", &c.HiddenDim}, {"context_length", &c.BlockSize},
	} {
		var err error
		if *k.into, err = integer(k.key, 0); err != nil {
			return err
		}
	}
	var err error
	if c.NKVHead, err = integer("attention.head_count_kv", max(1, c.NHead)); err != nil {
		return err
	}
	for _, k := range []struct {
		key  string
		into *float64
	}{{"attention.layer_norm_rms_epsilon", &c.NormEps}, {"rope.freq_base", &c.RopeTheta}} {
		if v, ok := f.meta["llama."+k.key]; ok {
			if *k.into, ok = v.(float64); !ok {
				return l.fail("", -1, "llama.%s is no float", k.key)
			}
		}
	}
	for _, t := range f.tensors { // its rows are the vocabulary
		if t.name == "token_embd.weight" {
			c.VocabSize = t.shape[0]
		}
	}
	if c.VocabSize == 0 {
		return l.fail("token_embd.weight", -1, "missing")
	}
	if c.NKVHead == 0 || c.HiddenDim == 0 {
		return l.fail("", -1, "a head count or feed-forward length of 0")
	}
	l.Config = c.WithDefaults()
	if err := l.Config.Validate(); err != nil {
		return l.fail("", -1, "%v", err)
	}
	for key, want := range map[string]any{
		"llama.rope.dimension_count": uint64(c.HeadDim()), "llama.rope.scaling.type": "none",
		"llama.attention.key_length": uint64(c.HeadDim()), "llama.attention.value_length": uint64(c.HeadDim()),
		"llama.expert_count": uint64(0),
	} {
		if v, ok := f.meta[key]; ok && v != want {
			return l.fail("", -1, "%s = %s; only %s is supported", key, shown(v), shown(want))
		}
	}
	return nil
}
