package spinfile

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"spinnet/arch"
)

// Versions 3 and 4 are the original's format (SPEC §5, docs/format.md): a
// JSON header and records, each a marker, a name and a payload.

const (
	magic = "SPIN"
	end4  = "END!"

	rope4 = "freqs_cis"

	int8Type    = 0
	float16Type = 2
	float32Type = 3
)

// shakespeare is the character vocabulary of the original's only character
// model; its files carry no tokenizer.
const shakespeare = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// GuessTokenizer is the tokenizer of a file of the original program, which
// carries none, by the number of its ids (SPEC §5): GPT-2 where it fits,
// TinyShakespeare's characters for 65, unknown for others.
func GuessTokenizer(vocab int) TokenizerInfo {
	switch {
	case vocab >= gpt2Vocab:
		return TokenizerInfo{Kind: "gpt2"}
	case vocab == len(shakespeare):
		return TokenizerInfo{Kind: "chars", Chars: shakespeare}
	}
	return TokenizerInfo{}
}

// minRecord4 is less than the shortest record of a layer.
const minRecord4 = 16

// decode4 reads a version 3 or 4 file behind its version.
func decode4(data []byte) (*Model, error) {
	c := cursor{data: data, at: 6, end: len(data), section: "header"}
	length := c.u32()
	if c.err == nil && length > maxHeader4 {
		c.at -= 4
		c.fail("a JSON header of " + strconv.FormatUint(uint64(length), 10) + " bytes, want at most " + strconv.Itoa(maxHeader4))
	}
	at := c.at
	if c.bytes(int(length)); c.err != nil {
		return nil, c.err
	}
	config, err := header4(data, at, int(length))
	if err != nil {
		return nil, err
	}
	// Nothing is allocated for layers that the file cannot hold.
	if config.NLayer > len(data)/(9*minRecord4) {
		return nil, corrupt("header", at, "n_layer = "+strconv.Itoa(config.NLayer)+" is more than the file has room for")
	}
	records := map[string]record4{}
	for {
		if c.section = "records"; c.end-c.at >= 4 && string(data[c.at:c.at+4]) == end4 {
			c.at += 4
			break
		}
		r := c.record4()
		if c.err == nil {
			if _, twice := records[r.name]; twice {
				c.at = r.at
				c.fail("a second record of this name")
			}
			records[r.name] = r
		}
		if c.err != nil {
			return nil, c.err
		}
	}
	if c.at != c.end {
		return nil, corrupt("records", c.at, strconv.Itoa(c.end-c.at)+" bytes after the end")
	}
	_, config.UntiedOutput = records[arch.OutputName]
	m := &Model{Config: config, Tokenizer: GuessTokenizer(config.VocabSize), Meta: map[string]string{}}
	take := func(name string, marker byte, shape []int) (r record4, err error) {
		r, ok := records[name]
		switch delete(records, name); {
		case !ok:
			return r, corrupt(name, len(data), "the record is missing")
		case r.marker != marker:
			return r, corrupt(name, r.at, "a record "+strconv.QuoteRune(rune(r.marker))+", want "+strconv.QuoteRune(rune(marker)))
		case !slices.Equal(r.shape, shape):
			return r, corrupt(name, r.at, "shape "+shapeString(r.shape)+", the header wants "+shapeString(shape))
		}
		return r, nil
	}
	for _, p := range arch.Params(config) {
		r, err := take(p.Name, marker4(p.Kind), p.Shape)
		if err != nil {
			return nil, err
		}
		switch p.Kind {
		case arch.Beta: // right behind its weight
			t := &m.Tensors[len(m.Tensors)-1]
			t.Scale, err = r.floats(p.Len())
		case arch.Ternary:
			t := Tensor{Param: p, Trits: make([]int8, p.Len())}
			if err := readBitmask(t.Trits, r.data, r.signs, r.nonzeros); err != nil {
				return nil, corrupt(p.Name, r.at, err.Error())
			}
			m.Tensors = append(m.Tensors, t)
		case arch.Embedding:
			t := Tensor{Param: p, Int8: asInt8(r.data), Scale: make([]float32, p.Shape[0])}
			for i := range t.Scale {
				t.Scale[i] = r.scale
			}
			if i := indexMinus128(r.data); i >= 0 {
				return nil, corrupt(p.Name, r.at, "the value −128 at "+strconv.Itoa(i))
			}
			m.Tensors = append(m.Tensors, t)
		default:
			t := Tensor{Param: p}
			t.Data, err = r.floats(p.Len())
			m.Tensors = append(m.Tensors, t)
		}
		if err != nil {
			return nil, err
		}
	}
	if _, ok := records[rope4]; ok { // needed by the original only
		r, err := take(rope4, 'R', []int{2 * config.BlockSize, config.HeadDim() / 2, 2})
		if err == nil {
			err = r.checkRope(config)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(records) > 0 {
		first := record4{at: len(data)}
		for _, r := range records {
			if r.at < first.at {
				first = r
			}
		}
		return nil, corrupt(first.name, first.at, "the record does not belong to the model of the header")
	}
	return m, nil
}

// marker4 is the marker of a parameter's record.
func marker4(k arch.Kind) byte {
	return [...]byte{arch.Embedding: 'E', arch.Ternary: 'B', arch.Beta: 'S', arch.MixerWeight: 'H', arch.MixerBeta: 'h', arch.Norm: 'N'}[k]
}

// record4 is a record that has been read: its array, not yet converted.
type record4 struct {
	at       int // of its marker
	marker   byte
	name     string
	shape    []int
	data     []byte // the array's values, or the mask of a bitmask
	scale    float32
	nonzeros int
	signs    []byte
}

// record4 reads a record. It checks lengths against the file, not the shape
// against the model.
func (c *cursor) record4() (r record4) {
	r.at = c.at
	r.marker = byte(c.u8())
	if c.err == nil && strings.IndexByte("EBSNHhR", r.marker) < 0 {
		c.at--
		c.fail("unknown marker " + strconv.QuoteRuneToASCII(rune(r.marker)))
		return r
	}
	r.name = string(c.bytes(c.u16()))
	if c.err != nil {
		return r
	}
	c.section = printable(r.name)
	dtype, size := float16Type, 2
	switch r.marker {
	case 'B':
		r.shape = c.dims()
		n := product(r.shape)
		nonzeros := c.u32()
		maskLen := c.u32()
		if c.err == nil && (uint64(nonzeros) > uint64(n) || uint64(maskLen) != uint64((n+7)/8)) {
			c.fail(strconv.FormatUint(uint64(nonzeros), 10) + " nonzeros and a mask of " + strconv.FormatUint(uint64(maskLen), 10) + " bytes for " + strconv.Itoa(n) + " weights")
		}
		r.data = c.bytes(int(maskLen))
		if c.err == nil {
			got, err := countMask(r.data, n)
			if err != nil {
				c.fail(err.Error())
			} else if got != int(nonzeros) {
				c.fail("the mask has " + strconv.Itoa(got) + " bits set, the record says " + strconv.Itoa(int(nonzeros)))
			}
		}
		r.nonzeros = int(nonzeros)
		signsLen := c.u32()
		if c.err == nil && uint64(signsLen) != uint64((r.nonzeros+7)/8) {
			c.fail(strconv.FormatUint(uint64(signsLen), 10) + " bytes of signs for " + strconv.Itoa(r.nonzeros) + " weights")
		}
		r.signs = c.bytes(int(signsLen))
		return r
	case 'E':
		dtype, size = int8Type, 1
		r.scale = math.Float32frombits(c.u32())
		if c.err == nil && !(r.scale > 0 && r.scale <= math.MaxFloat32) {
			c.at -= 4
			c.fail("the scale is not a positive number")
		}
	case 'R':
		dtype, size = float32Type, 4
	}
	if got := c.u8(); c.err == nil && got != dtype {
		c.at--
		c.fail("the array has type " + strconv.Itoa(got) + ", want " + strconv.Itoa(dtype))
	}
	r.shape = c.dims()
	r.data = c.bytes(size * product(r.shape))
	return r
}

// maxElements bounds a shape of a record, so that sizes do not overflow.
const maxElements = math.MaxInt32 / 4

// dims reads u8 ndim and the dimensions of an array.
func (c *cursor) dims() []int {
	n := c.u8()
	if c.err == nil && (n < 1 || n > 3) {
		c.at--
		c.fail(strconv.Itoa(n) + " dimensions, want 1 to 3")
		return nil
	}
	shape := make([]int, n)
	all := 1
	for i := range shape {
		d := c.u32()
		if c.err != nil {
			return nil
		}
		if d == 0 || uint64(d)*uint64(all) > maxElements {
			c.at -= 4
			c.fail("a dimension of " + strconv.FormatUint(uint64(d), 10) + " makes an array of no size or too large")
			return nil
		}
		shape[i] = int(d)
		all *= int(d)
	}
	return shape
}

// product is the number of values of a shape; 0 for none at all.
func product(shape []int) int {
	if len(shape) == 0 {
		return 0
	}
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// floats converts the float16 array of a record.
func (r *record4) floats(n int) ([]float32, error) {
	w := make([]float32, n)
	if bad := readFloat16(w, r.data); bad >= 0 {
		return nil, corrupt(r.name, r.at, "the value at "+strconv.Itoa(bad)+" is not finite")
	}
	return w, nil
}

// checkRope compares a table of rotations with our own.
func (r *record4) checkRope(c arch.Config) error {
	w := ropeTable(c)
	bound := 1e-7 * float64(2*c.BlockSize)
	for i, want := range w {
		got := math.Float32frombits(le.Uint32(r.data[4*i:]))
		if !(math.Abs(float64(got)-float64(want)) <= bound) {
			return corrupt(r.name, r.at, "the value at "+strconv.Itoa(i)+" is "+strconv.FormatFloat(float64(got), 'g', -1, 32)+", want "+strconv.FormatFloat(float64(want), 'g', -1, 32))
		}
	}
	return nil
}

// asInt8 gives the same memory as int8.
func asInt8(b []byte) []int8 {
	return unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(b))), len(b))
}

// indexMinus128 is the place of the first byte 0x80, or −1.
func indexMinus128(b []byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; len(b)-i >= 32; i += 32 {
		p := b[i : i+32]
		var found uint64
		for j := 0; j < 32; j += 8 {
			v := le.Uint64(p[j:]) ^ tops
			found |= (v - ones) & ^v & tops // a zero byte, and perhaps a one above it
		}
		if found != 0 {
			break
		}
	}
	for ; i < len(b); i++ {
		if b[i] == 0x80 {
			return i
		}
	}
	return -1
}

// Encode4 writes a model as version 4, byte for byte as the original's
// compress does, for its tools. Embeddings become int8 with one scale, mixers
// and scales float16. A model that version 4 cannot hold is refused by the
// name of what it has no place for. The tokenizer and Meta have none either,
// but readers guess the one and need no other.
func Encode4(m *Model) ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if err := fits4(m); err != nil {
		return nil, err
	}
	c := m.Config
	out := append([]byte(magic), 4, 0, 0, 0, 0, 0)
	out = appendHeader4(out, c)
	le.PutUint32(out[6:], uint32(len(out)-10))
	start := func(marker byte, name string) {
		out = append(out, marker)
		out = le.AppendUint16(out, uint16(len(name)))
		out = append(out, name...)
	}
	dims := func(shape []int) {
		out = append(out, byte(len(shape)))
		for _, d := range shape {
			out = le.AppendUint32(out, uint32(d))
		}
	}
	half := func(marker byte, name string, shape []int, w []float32) error {
		if !fitsFloat16(w) {
			return errors.New("spinfile: tensor " + name + " has values beyond float16, which version 4 stores")
		}
		start(marker, name)
		out = append(out, float16Type)
		dims(shape)
		out = appendFloat16(out, w)
		return nil
	}
	start('R', rope4)
	out = append(out, float32Type)
	dims([]int{2 * c.BlockSize, c.HeadDim() / 2, 2})
	out = appendFloat32(out, ropeTable(c))
	for i := range m.Tensors {
		t := &m.Tensors[i]
		switch t.Kind {
		case arch.Embedding:
			q, scale := oneScale(t)
			start('E', t.Name)
			out = le.AppendUint32(out, math.Float32bits(scale))
			out = append(out, int8Type)
			dims(t.Shape)
			out = append(out, asBytes(q)...)
		case arch.Ternary:
			start('B', t.Name)
			dims(t.Shape)
			nonzeros := len(t.Trits) - t.Zeros()
			mask, signs := bitmaskLen(len(t.Trits), nonzeros)
			out = le.AppendUint32(out, uint32(nonzeros))
			out = le.AppendUint32(out, uint32(mask))
			out = appendMask(out, t.Trits)
			out = le.AppendUint32(out, uint32(signs))
			out = appendSigns(out, t.Trits)
			beta := strings.TrimSuffix(t.Name, "weight") + "beta"
			if err := half('S', beta, t.Shape[1:2], t.Scale); err != nil {
				return nil, err
			}
		default:
			if err := half(marker4(t.Kind), t.Name, t.Shape, t.Floats()); err != nil {
				return nil, err
			}
		}
	}
	return append(out, end4...), nil
}

// asBytes gives the same memory as bytes.
func asBytes(q []int8) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(q))), len(q))
}

// fits4 refuses what version 4 cannot hold.
func fits4(m *Model) error {
	c := m.Config
	no := func(what string) error {
		return errors.New("spinfile: version 4 cannot hold " + what)
	}
	for i := range c.NLayer {
		if a := c.LayerAlgebra(i); a != "octonion" {
			return no("algebra = " + strconv.Quote(c.Algebra) + ": it knows octonion only")
		}
	}
	switch {
	case c.NKVHead != c.NHead:
		return no("n_kv_head = " + strconv.Itoa(c.NKVHead) + ": it knows n_head key and value heads only")
	case c.Quantizer == arch.None:
		return no("quantizer = none: its linear layers are ternary")
	case c.HiddenDim != arch.ClassicHidden(c.NEmbd):
		return no("hidden_dim = " + strconv.Itoa(c.HiddenDim) + ": it has a fixed rule, which gives " + strconv.Itoa(arch.ClassicHidden(c.NEmbd)))
	case c.ActBits != 0:
		return no("act_bits = " + strconv.Itoa(c.ActBits))
	case c.OctonionAttention && c.MixerAlgebra != "octonion":
		return no("mixer_algebra = " + strconv.Quote(c.MixerAlgebra) + ": it knows octonion only")
	case c.NormEps != arch.NormEps:
		return no("norm_eps = " + strconv.FormatFloat(c.NormEps, 'g', -1, 64) + ": it has a fixed 1e-6")
	case c.RopeTheta != arch.RopeTheta:
		return no("rope_theta = " + strconv.FormatFloat(c.RopeTheta, 'g', -1, 64) + ": it has a fixed 10000")
	case m.Tokenizer.Keep != nil:
		return no("a trimmed vocabulary: it has no place for the map of tokens")
	case m.Tokenizer.Kind == "llama":
		return no("a llama tokenizer: its readers take a vocabulary over 256 for GPT-2's")
	}
	return nil
}

// oneScale gives an embedding as int8 with one scale: as it is where that is
// so already, else quantised anew as SPEC §5 says.
func oneScale(t *Tensor) ([]int8, float32) {
	if q := t.Expanded(); q != nil && allEqual(t.Scale) {
		return q, t.Scale[0]
	}
	w := t.Floats()
	q := make([]int8, len(w))
	scale := scale8(w)
	round8(q, w, scale)
	return q, scale
}

// allEqual reports whether all values are the same, bit for bit.
func allEqual(w []float32) bool {
	for _, v := range w {
		if math.Float32bits(v) != math.Float32bits(w[0]) {
			return false
		}
	}
	return true
}
