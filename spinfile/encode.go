package spinfile

import (
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"spinnet/arch"
)

// Report says what a version 5 file is made of, in bytes.
type Report struct {
	Total    int            // of the whole file
	Config   int            // of the configuration, the tokenizer and the metadata
	Overhead int            // of header, table and padding
	Tensors  []TensorReport // in the order of the file
}

// TensorReport says how one tensor is stored.
type TensorReport struct {
	Name     string
	Kind     arch.Kind
	Encoding Encoding
	Values   int              // how many
	Zeros    int              // among the trits of a ternary tensor
	Bytes    int              // stored, with scales
	Sizes    map[Encoding]int // bytes in each encoding that was tried; nil where there is no choice
}

// sourceKey names the file a model was read from. It is not written: the same
// model gives the same bytes, wherever it lies.
const sourceKey = "source"

// Encode writes a model as version 5. The same model gives the same bytes on
// every machine.
//
// Tensors are stored as the model has them: Int8, Packed and Trits exactly; Data as
// float16, rounded (as float32 where values exceed its range). Call
// QuantizeEmbedding and Quantize before, unless the embedding and the mixers
// are to stay floats. Meta is written but for the key "source".
func Encode(m *Model) ([]byte, Report, error) {
	if err := m.Validate(); err != nil {
		return nil, Report{}, err
	}
	var sections []section
	var payloads [][]byte
	add := func(s section, payload []byte) {
		s.crc, s.length = crc32.Checksum(payload, castagnoli), len(payload)
		sections, payloads = append(sections, s), append(payloads, payload)
	}
	add(section{kind: sectionConfig, name: sectionNames[0]}, appendConfig(nil, m.Config))
	tok, err := appendTokenizer(nil, m.Tokenizer)
	if err != nil {
		return nil, Report{}, err
	}
	add(section{kind: sectionTokenizer, name: sectionNames[1]}, tok)
	meta, err := appendMetadata(nil, m.Meta)
	if err != nil {
		return nil, Report{}, err
	}
	add(section{kind: sectionMetadata, name: sectionNames[2]}, meta)
	r := Report{Config: len(payloads[0]) + len(tok) + len(meta)}
	for i := range m.Tensors {
		t := &m.Tensors[i]
		tr := TensorReport{Name: t.Name, Kind: t.Kind, Values: t.Len()}
		payload, err := t.encode(&tr)
		if err != nil {
			return nil, Report{}, err
		}
		s := section{kind: sectionTensor, encoding: tr.Encoding, name: t.Name}
		if t.Scale != nil {
			payload = append(payload, make([]byte, roundUp(len(payload), 4)-len(payload))...)
			if s.scales = scalesRows; allEqual(t.Scale) {
				s.scales = scalesOne
				payload = appendFloat32(payload, t.Scale[:1])
			} else {
				payload = appendFloat32(payload, t.Scale)
			}
		}
		tr.Bytes = len(payload)
		r.Tensors = append(r.Tensors, tr)
		add(s, payload)
	}
	names, end := 0, 0
	for _, s := range sections {
		if len(s.name) > maxName {
			return nil, Report{}, errors.New("spinfile: the name " + s.name + " is too long")
		}
		names += len(s.name)
	}
	end = headerLen + len(sections)*entryLen + names
	for i := range sections {
		sections[i].offset = roundUp(end, align)
		end = sections[i].offset + sections[i].length
	}
	out := make([]byte, 0, end)
	out = append(out, magic...)
	out = le.AppendUint16(out, 5)
	out = le.AppendUint16(out, 0)
	out = le.AppendUint64(out, uint64(end))
	out = le.AppendUint32(out, uint32(len(sections)))
	out = le.AppendUint32(out, uint32(names))
	out = append(out, make([]byte, headerLen-len(out))...)
	for _, s := range sections {
		out = append(out, byte(s.kind), byte(s.encoding), byte(s.scales), byte(len(s.name)))
		out = le.AppendUint32(out, s.crc)
		out = le.AppendUint64(out, uint64(s.offset))
		out = le.AppendUint64(out, uint64(s.length))
	}
	for _, s := range sections {
		out = append(out, s.name...)
	}
	sum := crc32.Update(crc32.Checksum(out[:headerLen-4], castagnoli), castagnoli, out[headerLen:])
	le.PutUint32(out[headerLen-4:], sum)
	for i, p := range payloads {
		out = append(out, make([]byte, sections[i].offset-len(out))...)
		out = append(out, p...)
	}
	r.Total = len(out)
	r.Overhead = r.Total - r.Config
	for _, t := range r.Tensors {
		r.Overhead -= t.Bytes
	}
	return out, r, nil
}

// encode gives a tensor's values in the encoding that suits them, without the
// scales, and fills in its report.
func (t *Tensor) encode(r *TensorReport) ([]byte, error) {
	switch {
	case t.Trits != nil:
		r.Zeros = t.Zeros()
		mask, signs := bitmaskLen(len(t.Trits), len(t.Trits)-r.Zeros)
		r.Sizes = map[Encoding]int{EncodingBase3: base3Len(len(t.Trits)), EncodingBitmask: mask + signs}
		best := min(r.Sizes[EncodingBase3], r.Sizes[EncodingBitmask])
		if b := appendEntropy(nil, t.Trits); b != nil {
			if r.Sizes[EncodingEntropy] = len(b); worthEntropy(len(b), best) {
				r.Encoding = EncodingEntropy
				return b, nil
			}
		}
		if r.Sizes[EncodingBitmask] < r.Sizes[EncodingBase3] {
			r.Encoding = EncodingBitmask
			return appendSigns(appendMask(nil, t.Trits), t.Trits), nil
		}
		r.Encoding = EncodingBase3
		return appendBase3(nil, t.Trits), nil
	case t.Int8 != nil:
		r.Encoding = EncodingInt8
		return append([]byte(nil), asBytes(t.Int8)...), nil
	case t.Packed != nil:
		r.Encoding = EncodingQ6
		if t.Bits == 4 {
			r.Encoding = EncodingQ4
		}
		return slices.Concat(t.Packed, t.Groups), nil
	case fitsFloat16(t.Data):
		r.Encoding = EncodingFloat16
		return appendFloat16(nil, t.Data), nil
	}
	r.Encoding = EncodingFloat32
	return appendFloat32(nil, t.Data), nil
}

// appendConfig writes the configuration's section.
func appendConfig(dst []byte, c arch.Config) []byte {
	for _, v := range []int{c.NLayer, c.NHead, c.NKVHead, c.NEmbd, c.HiddenDim, c.BlockSize, c.VocabSize} {
		dst = le.AppendUint32(dst, uint32(v))
	}
	flags := byte(0)
	if c.OctonionAttention {
		flags |= flagMixer
	}
	if c.UntiedOutput {
		flags |= flagUntied
	}
	dst = append(dst, byte(slices.Index(quantizers[:], c.Quantizer)), byte(c.ActBits), flags, 0)
	for _, v := range []float64{c.Dropout, c.NormEps, c.RopeTheta} {
		dst = le.AppendUint64(dst, math.Float64bits(v))
	}
	for _, s := range []string{c.Algebra, c.MixerAlgebra} {
		dst = le.AppendUint16(dst, uint16(len(s)))
		dst = append(dst, s...)
	}
	return dst
}

// appendTokenizer writes the tokenizer's section.
func appendTokenizer(dst []byte, t TokenizerInfo) ([]byte, error) {
	dst = append(dst, byte(slices.Index(tokenizerKinds[:], t.Kind)))
	switch t.Kind {
	case "chars":
		dst = append(dst, t.Chars...)
	case "gpt2":
		dst = append(dst, GPT2VocabularyHash[:]...)
		if len(t.Keep) == 0 {
			return append(dst, 0), nil
		}
		var set [keepLen]byte
		for _, id := range t.Keep {
			set[id/8] |= 1 << (id % 8)
		}
		dst = append(append(dst, 1), set[:]...)
	case "llama":
		dst = le.AppendUint32(dst, uint32(len(t.Pieces)))
		for i, p := range t.Pieces {
			if len(p) > maxString {
				return nil, errors.New("spinfile: piece " + strconv.Itoa(i) + " of the tokenizer is too long")
			}
			dst = le.AppendUint32(dst, math.Float32bits(t.Scores[i]))
			dst = le.AppendUint16(dst, uint16(len(p)))
			dst = append(dst, p...)
		}
	}
	return dst, nil
}

// appendMetadata writes the metadata's section.
func appendMetadata(dst []byte, meta map[string]string) ([]byte, error) {
	var keys []string
	total := 0
	for k, v := range meta {
		if k == sourceKey {
			continue
		}
		if k == "" || len(k) > maxString || !utf8.ValidString(k) || !utf8.ValidString(v) {
			return nil, errors.New("spinfile: the metadata " + strconv.Quote(k) + " is not UTF-8 or has no name")
		}
		if total += len(k) + len(v); total > maxMetaLen {
			return nil, errors.New("spinfile: more than " + strconv.Itoa(maxMetaLen) + " bytes of metadata")
		}
		keys = append(keys, k)
	}
	slices.Sort(keys)
	dst = le.AppendUint32(dst, uint32(len(keys)))
	for _, k := range keys {
		dst = le.AppendUint16(dst, uint16(len(k)))
		dst = append(dst, k...)
		dst = le.AppendUint32(dst, uint32(len(meta[k])))
		dst = append(dst, meta[k]...)
	}
	return dst, nil
}
