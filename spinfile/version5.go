package spinfile

import (
	"hash/crc32"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"spinnet/arch"
)

// Version 5, byte by byte in docs/format.md: a header of 64 bytes, a table of
// sections, their names, and the sections, each from a multiple of 64 on:
// the configuration, the tokenizer, the metadata, and every tensor in the
// order of arch.Params.

const (
	headerLen  = 64
	entryLen   = 24
	align      = 64
	maxName    = 255
	maxString  = 1<<16 - 1
	maxMetaLen = 1 << 24
)

// Kinds of sections.
const (
	sectionConfig = iota + 1
	sectionTokenizer
	sectionMetadata
	sectionTensor
)

// sectionNames are the names of the first sections; others are tensors.
var sectionNames = [...]string{"config", "tokenizer", "metadata"}

// Encoding is the form of a tensor in a version 5 file.
type Encoding uint8

// Encodings of tensors.
const (
	EncodingNone    Encoding = iota // of the sections that are no tensors
	EncodingFloat32                 // values
	EncodingFloat16                 // values, rounded
	EncodingInt8                    // a byte a value, and a scale a row
	EncodingQ6                      // groups of 6 bits a value, their factors, and a scale a row
	EncodingQ4                      // groups of 4 bits a value, their factors, and a scale a row
	EncodingBase3                   // five trits a byte, and a scale a row
	EncodingBitmask                 // a bit a trit and one more for each that is not zero, and a scale a row
	EncodingEntropy                 // base-3 bytes by rANS, and a scale a row
)

// String is the encoding's name in reports.
func (e Encoding) String() string {
	if e > EncodingEntropy {
		return "encoding " + strconv.Itoa(int(e))
	}
	return [...]string{"none", "float32", "float16", "int8", "q6", "q4", "base3", "bitmask", "entropy"}[e]
}

// Forms of the scales behind a tensor's values.
const (
	scalesNone = iota
	scalesOne  // one float32 for all rows
	scalesRows // a float32 a row
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// section is an entry of the table.
type section struct {
	kind     int
	encoding Encoding
	scales   int
	name     string
	crc      uint32
	offset   int
	length   int
}

// roundUp is the least multiple of to that is at least n.
func roundUp(n, to int) int { return (n + to - 1) / to * to }

// decode5 reads a version 5 file.
func decode5(data []byte) (*Model, error) {
	sections, err := readTable(data, true)
	if err != nil {
		return nil, err
	}
	m := &Model{}
	config := sections[0].offset
	for i, s := range sections {
		c := cursor{data: data, at: s.offset, end: s.offset + s.length, section: s.name}
		switch s.kind {
		case sectionConfig:
			m.Config = c.config()
		case sectionTokenizer:
			m.Tokenizer = c.tokenizer(m.Config.VocabSize)
		case sectionMetadata:
			m.Meta = c.metadata()
		}
		if c.err == nil && s.kind != sectionTensor && c.at != c.end {
			c.fail(strconv.Itoa(c.end-c.at) + " bytes after the end of the section")
		}
		if c.err != nil {
			return nil, c.err
		}
		if s.kind == sectionTensor {
			sections = sections[i:]
			break
		}
	}
	// Nothing is allocated for layers that have no sections.
	if m.Config.NLayer > len(sections)/9 {
		return nil, corrupt("config", config, "n_layer = "+strconv.Itoa(m.Config.NLayer)+", but "+strconv.Itoa(len(sections))+" tensors")
	}
	for _, p := range arch.Params(m.Config) {
		if p.Kind == arch.Beta {
			continue
		}
		if len(m.Tensors) == len(sections) {
			return nil, corrupt("table", headerLen, "the tensor "+p.Name+" is missing")
		}
		s := &sections[len(m.Tensors)]
		if s.name != p.Name {
			return nil, corrupt("table", headerLen, "the tensor "+s.name+" stands where "+p.Name+" should")
		}
		t := Tensor{Param: p}
		if err := t.decode(data, s, m.Config.Quantizer); err != nil {
			return nil, err
		}
		m.Tensors = append(m.Tensors, t)
	}
	if len(m.Tensors) != len(sections) {
		return nil, corrupt("table", headerLen, "the tensor "+sections[len(m.Tensors)].name+" does not belong to the model")
	}
	return m, nil
}

// readTable reads the header and the table and checks both, the place of
// every section, and, with sums, every byte of the file against its checksum.
func readTable(data []byte, sums bool) ([]section, error) {
	c := cursor{data: data, end: len(data), section: "header"}
	h := c.bytes(headerLen)
	if c.err != nil {
		return nil, c.err
	}
	size, count, names := le.Uint64(h[8:]), le.Uint32(h[16:]), le.Uint32(h[20:])
	switch {
	case le.Uint16(h[6:]) != 0:
		return nil, corrupt("header", 6, "unknown flags "+strconv.Itoa(int(le.Uint16(h[6:]))))
	case size > uint64(len(data)):
		return nil, corrupt("header", 8, "truncated: the file has "+strconv.Itoa(len(data))+" bytes of "+strconv.FormatUint(size, 10))
	case size < uint64(len(data)):
		return nil, corrupt("header", 8, strconv.FormatUint(uint64(len(data))-size, 10)+" bytes after the end")
	case uint64(count)*entryLen+uint64(names) > size-headerLen:
		return nil, corrupt("header", 16, "a table of "+strconv.FormatUint(uint64(count), 10)+" sections with names of "+strconv.FormatUint(uint64(names), 10)+" bytes in a file of "+strconv.FormatUint(size, 10))
	}
	tableEnd := headerLen + int(count)*entryLen + int(names)
	sum := crc32.Update(crc32.Checksum(h[:headerLen-4], castagnoli), castagnoli, data[headerLen:tableEnd])
	if want := le.Uint32(h[headerLen-4:]); sum != want {
		return nil, corrupt("header", headerLen-4, "the checksum of header and table is "+hex32(sum)+", the file says "+hex32(want))
	}
	for i, b := range h[24 : headerLen-4] {
		if b != 0 {
			return nil, corrupt("header", 24+i, "a byte that must be 0")
		}
	}
	if count <= sectionTensor {
		return nil, corrupt("header", 16, strconv.Itoa(int(count))+" sections, want config, tokenizer, metadata and tensors")
	}
	sections := make([]section, count)
	name, end := headerLen+int(count)*entryLen, tableEnd
	for i := range sections {
		at := headerLen + i*entryLen
		e := data[at : at+entryLen]
		s := section{kind: int(e[0]), encoding: Encoding(e[1]), scales: int(e[2]), crc: le.Uint32(e[4:])}
		if int(e[3]) > tableEnd-name {
			return nil, corrupt("table", at, "the name is longer than the names")
		}
		s.name = string(data[name : name+int(e[3])])
		name += int(e[3])
		offset, length := le.Uint64(e[8:]), le.Uint64(e[16:])
		s.offset = roundUp(end, align)
		if offset != uint64(s.offset) || length > size || uint64(s.offset)+length > size {
			return nil, corrupt("table", at, "a section of "+strconv.FormatUint(length, 10)+" bytes at "+strconv.FormatUint(offset, 10)+", want one in the file at "+strconv.Itoa(s.offset))
		}
		s.length = int(length)
		if i < len(sectionNames) {
			if s.kind != i+1 || s.name != sectionNames[i] || s.encoding != 0 || s.scales != 0 {
				return nil, corrupt("table", at, "section "+strconv.Itoa(i)+" is not "+sectionNames[i])
			}
		} else if s.kind != sectionTensor {
			return nil, corrupt("table", at, "section "+strconv.Itoa(i)+" is of kind "+strconv.Itoa(s.kind)+", want a tensor")
		}
		for j, b := range data[end:s.offset] {
			if b != 0 {
				return nil, corrupt("table", end+j, "a byte between sections that must be 0")
			}
		}
		end = s.offset + s.length
		if sums {
			if sum := crc32.Checksum(data[s.offset:end], castagnoli); sum != s.crc {
				return nil, corrupt(printable(s.name), s.offset, "the checksum is "+hex32(sum)+", the table says "+hex32(s.crc))
			}
		}
		sections[i] = s
	}
	if name != tableEnd {
		return nil, corrupt("table", name, "more names than sections")
	}
	if end != len(data) {
		return nil, corrupt("table", end, strconv.Itoa(len(data)-end)+" bytes after the last section")
	}
	return sections, nil
}

func hex32(v uint32) string {
	s := strconv.FormatUint(uint64(v), 16)
	return "00000000"[len(s):] + s
}

// Codes of quantizers.
var quantizers = [...]string{arch.None, arch.Classic, arch.AbsMean}

// Bits of the configuration's flags.
const (
	flagMixer  = 1 << 0
	flagUntied = 1 << 1
)

// config reads the configuration and checks it.
func (c *cursor) config() (a arch.Config) {
	start := c.at
	for _, p := range []*int{&a.NLayer, &a.NHead, &a.NKVHead, &a.NEmbd, &a.HiddenDim, &a.BlockSize, &a.VocabSize} {
		v := c.u32()
		if v > math.MaxInt32 {
			c.at -= 4
			c.fail("the number " + strconv.FormatUint(uint64(v), 10) + " is too large")
		}
		*p = int(v)
	}
	quantizer, actBits, flags, zero := c.u8(), c.u8(), c.u8(), c.u8()
	if quantizer >= len(quantizers) || flags&^(flagMixer|flagUntied) != 0 || zero != 0 {
		c.at -= 4
		c.fail("quantizer " + strconv.Itoa(quantizer) + ", flags " + strconv.Itoa(flags) + ", zero " + strconv.Itoa(zero) + ": unknown")
		return a
	}
	a.Quantizer, a.ActBits = quantizers[quantizer], actBits
	a.OctonionAttention, a.UntiedOutput = flags&flagMixer != 0, flags&flagUntied != 0
	a.Dropout = math.Float64frombits(c.u64())
	a.NormEps = math.Float64frombits(c.u64())
	a.RopeTheta = math.Float64frombits(c.u64())
	a.Algebra = c.text(c.u16())
	a.MixerAlgebra = c.text(c.u16())
	if c.err == nil {
		if err := a.Validate(); err != nil {
			c.err = corrupt(c.section, start, strings.TrimPrefix(err.Error(), "arch: "))
		}
	}
	return a
}

// text reads UTF-8.
func (c *cursor) text(n int) string {
	s := string(c.bytes(n))
	if !utf8.ValidString(s) {
		c.at -= n
		c.fail("text that is not UTF-8")
		return ""
	}
	return s
}

// Codes of tokenizers.
var tokenizerKinds = [...]string{"", "chars", "bytes", "gpt2", "llama"}

// GPT2VocabularyHash is the SHA-256 of GPT-2's vocabulary as version 5 files
// name it: of the length, one byte, and the bytes of every token in the order
// of ids, the last of which is <|endoftext|>.
var GPT2VocabularyHash = [32]byte{
	0xa6, 0x22, 0x70, 0x0e, 0x32, 0x55, 0xb4, 0xa6, 0x18, 0x6e, 0x05, 0x2c, 0x4c, 0x71, 0x5c, 0x1d,
	0x05, 0x63, 0x4c, 0xb6, 0x04, 0x1c, 0x12, 0xab, 0x6c, 0x95, 0xc9, 0xee, 0x0a, 0x2c, 0x97, 0x72,
}

// keepLen is the length of the set of GPT-2 tokens that a trimmed vocabulary
// keeps, a bit for each.
const keepLen = (gpt2Vocab + 7) / 8

// tokenizer reads a tokenizer for a vocabulary of that size.
func (c *cursor) tokenizer(vocab int) (t TokenizerInfo) {
	start := c.at
	kind := c.u8()
	if kind >= len(tokenizerKinds) {
		c.at = start
		c.fail("unknown tokenizer " + strconv.Itoa(kind))
		return t
	}
	t.Kind = tokenizerKinds[kind]
	switch t.Kind {
	case "chars":
		t.Chars = c.text(c.end - c.at)
	case "gpt2":
		if hash := c.bytes(len(GPT2VocabularyHash)); c.err == nil && [32]byte(hash) != GPT2VocabularyHash {
			c.at = start + 1
			c.fail("the vocabulary is not GPT-2's: its hash differs")
		}
		switch trimmed := c.u8(); {
		case trimmed == 1:
			t.Keep = c.keep()
		case trimmed != 0:
			c.at--
			c.fail("want 0 for the whole vocabulary or 1 for a part of it")
		}
	case "llama":
		n := c.u32()
		if c.err == nil && int64(n) > int64(c.end-c.at)/6 {
			c.at -= 4
			c.fail(strconv.FormatUint(uint64(n), 10) + " pieces in " + strconv.Itoa(c.end-c.at) + " bytes")
		}
		if c.err != nil {
			return t
		}
		t.Pieces, t.Scores = make([]string, n), make([]float32, n)
		for i := range t.Pieces {
			t.Scores[i] = math.Float32frombits(c.u32())
			t.Pieces[i] = string(c.bytes(c.u16()))
		}
	}
	if c.err == nil {
		if err := t.check(vocab); err != nil {
			c.err = corrupt(c.section, start, strings.TrimPrefix(err.Error(), "spinfile: "))
		}
	}
	return t
}

// keep reads a set of GPT-2 tokens.
func (c *cursor) keep() []int32 {
	var keep []int32
	for i, b := range c.bytes(keepLen) {
		for j := range 8 {
			if b>>j&1 != 0 {
				keep = append(keep, int32(8*i+j))
			}
		}
	}
	if c.err == nil && len(keep) == 0 { // which would mean all
		c.fail("a vocabulary of no tokens")
	}
	return keep
}

// metadata reads names and values.
func (c *cursor) metadata() map[string]string {
	meta := map[string]string{}
	last := ""
	for n := c.u32(); n > 0 && c.err == nil; n-- {
		at := c.at
		key := c.text(c.u16())
		if c.err == nil && (key == "" || key <= last) {
			c.at = at
			c.fail("the key " + strconv.Quote(key[:min(len(key), 80)]) + " is empty or out of order")
		}
		last = key
		length := c.u32()
		if c.err == nil && uint64(length) > uint64(c.end-c.at) {
			c.fail("truncated: a value of " + strconv.FormatUint(uint64(length), 10) + " bytes")
			break
		}
		meta[key] = c.text(int(length))
	}
	return meta
}

// decode reads the values of a tensor from its section.
func (t *Tensor) decode(data []byte, s *section, quantizer string) error {
	p := data[s.offset : s.offset+s.length]
	// No encoding has more values for its bytes than this.
	all := uint64(1)
	for _, d := range t.Shape {
		all *= uint64(d) // no overflow: arch.Config.Validate bounds each
	}
	if all > entropyMost*uint64(len(p)) {
		return corrupt(s.name, s.offset, "a section of "+strconv.Itoa(len(p))+" bytes for "+strconv.FormatUint(all, 10)+" values in encoding "+s.encoding.String())
	}
	n, rows := int(all), t.rows()
	values, ternary := 0, t.Kind == arch.Ternary && quantizer != arch.None
	switch table := t.Kind == arch.Embedding; {
	case !ternary && s.encoding == EncodingFloat32:
		values = 4 * n
	case !ternary && s.encoding == EncodingFloat16:
		values = 2 * n
	case (table || t.Kind == arch.MixerWeight) && s.encoding == EncodingInt8:
		values = n
	case table && (s.encoding == EncodingQ6 || s.encoding == EncodingQ4):
		t.Bits = 6
		if s.encoding == EncodingQ4 {
			t.Bits = 4
		}
		groups := t.Shape[0] * groupsOf(t.Shape[1])
		values = groups*groupLen(t.Bits) + groups
	case ternary && s.encoding == EncodingBase3:
		values = base3Len(n)
	case ternary && (s.encoding == EncodingBitmask || s.encoding == EncodingEntropy):
		values = -1 // known from the values only
	default:
		return corrupt(s.name, s.offset, "encoding "+s.encoding.String()+" of a tensor of kind "+t.Kind.String())
	}
	scales := 0
	switch scaled := s.encoding != EncodingFloat32 && s.encoding != EncodingFloat16; {
	case !scaled && s.scales == scalesNone:
	case scaled && s.scales == scalesOne:
		scales = 4
	case scaled && s.scales == scalesRows:
		scales = 4 * rows
	default:
		return corrupt(s.name, s.offset, "form "+strconv.Itoa(s.scales)+" of scales with encoding "+s.encoding.String())
	}
	// Values, zeros up to a multiple of four bytes, scales.
	space := len(p) - scales
	if space < 0 || values >= 0 && roundUp(values, 4) != space {
		return corrupt(s.name, s.offset, "a section of "+strconv.Itoa(len(p))+" bytes for "+strconv.Itoa(n)+" values in encoding "+s.encoding.String())
	}
	if scales > 0 {
		t.Scale = make([]float32, rows)
		if s.scales == scalesOne {
			v := math.Float32frombits(le.Uint32(p[space:]))
			for i := range t.Scale {
				t.Scale[i] = v
			}
			if v-v != 0 {
				return corrupt(s.name, s.offset+space, "the scale is not finite")
			}
		} else if i := readFloat32(t.Scale, p[space:]); i >= 0 {
			return corrupt(s.name, s.offset+space+4*i, "a scale that is not finite")
		}
	}
	p = p[:space]
	bad := func(at int, reason string) error { return corrupt(s.name, s.offset+at, reason) }
	switch s.encoding {
	case EncodingFloat32:
		t.Data = make([]float32, n)
		if i := readFloat32(t.Data, p); i >= 0 {
			return bad(4*i, "a value that is not finite")
		}
	case EncodingFloat16:
		t.Data = make([]float32, n)
		if i := readFloat16(t.Data, p); i >= 0 {
			return bad(2*i, "a value that is not finite")
		}
	case EncodingInt8:
		if i := indexMinus128(p[:values]); i >= 0 {
			return bad(i, "the value −128")
		}
		t.Int8 = asInt8(p[:values])
	case EncodingQ6, EncodingQ4:
		groups := t.Shape[0] * groupsOf(t.Shape[1])
		packed := groups * groupLen(t.Bits)
		t.Packed, t.Groups = p[:packed:packed], p[packed:packed+groups:packed+groups]
		low, high := t.Planes()
		if g := readGroups(nil, low, high, t.Groups, t.Shape[1], t.Bits); g >= 0 {
			return bad(g*lowLen, "a group with values beyond ±127 or after the row's end")
		}
	case EncodingBase3:
		t.Trits = make([]int8, n)
		if i := readBase3(t.Trits, p[:values]); i >= 0 {
			return bad(i, "a byte that is not five trits")
		}
	case EncodingBitmask:
		mask := (n + 7) / 8
		if mask > len(p) {
			return bad(0, "truncated: "+strconv.Itoa(len(p))+" bytes for "+strconv.Itoa(n)+" trits")
		}
		nonzeros, err := countMask(p[:mask], n)
		if err != nil {
			return bad(mask-1, err.Error())
		}
		_, signs := bitmaskLen(n, nonzeros)
		if values = mask + signs; roundUp(values, 4) != len(p) {
			return bad(mask, strconv.Itoa(len(p)-mask)+" bytes for "+strconv.Itoa(nonzeros)+" signs")
		}
		t.Trits = make([]int8, n)
		if err := readBitmask(t.Trits, p[:mask], p[mask:values], nonzeros); err != nil {
			return bad(values-1, err.Error())
		}
	case EncodingEntropy:
		if len(p) < entropyHead || n > entropyMost*len(p) { // without the scales
			return bad(0, strconv.Itoa(len(p))+" bytes for "+strconv.Itoa(n)+" trits")
		}
		t.Trits = make([]int8, n)
		used, err := readEntropy(t.Trits, p)
		if err != nil {
			return bad(0, err.Error())
		}
		if values = used; roundUp(values, 4) != len(p) {
			return bad(used, strconv.Itoa(len(p)-used)+" bytes after the last word")
		}
	}
	for i := max(0, values); i < len(p); i++ {
		if p[i] != 0 {
			return bad(i, "a byte before the scales that must be 0")
		}
	}
	return nil
}
