package interop

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"spinnet/arch"
	"spinnet/spinfile"
)

// GGUFOptions say how WriteGGUF encodes the tensors. Types are f32, f16,
// q8_0, q4_0, q6_k and, for linear layers, tq1_0 and tq2_0; "" is f16. Norms
// are always f32.
type GGUFOptions struct {
	Linear    string // of the linear layers
	Embedding string // of the embedding, and of the output where it is untied
	Name      string // of the model; "" is "spinnet"

	// Report, if not nil, is told each tensor's encoding before anything is
	// written. A tensor that the wanted type cannot hold is written in
	// another, with the reason.
	Report func(GGUFTensor)
}

// Validate reports a type that is not known, or cannot be the embedding's.
func (o GGUFOptions) Validate() error {
	if _, err := ggufTypeByName(o.Linear); err != nil {
		return err
	}
	embedding, err := ggufTypeByName(o.Embedding)
	if err != nil {
		return err
	}
	if embedding.ternary {
		return fmt.Errorf("interop: GGUF type %s holds ternary weights only, the embedding is not ternary; use f16, q8_0 or q6_k for it", embedding.name)
	}
	return nil
}

// GGUFTensor is the encoding of one tensor of a GGUF file.
type GGUFTensor struct {
	Name   string // as in the file
	Rows   int
	Width  int
	Type   string // as written
	Bytes  int64
	Reason string // why Type is not what was asked for, or ""
}

// ggufAlign is the alignment of tensors in a file: the format's default.
const ggufAlign = 32

// ggufEntry is a tensor to be written.
type ggufEntry struct {
	GGUFTensor
	matrix *matrix
	kind   *ggufType
}

// WriteGGUF writes the model as a GGUF file of the llama architecture, which
// llama.cpp and what is built on it run. Hypercomplex linear layers are
// written out as the dense matrices they stand for, signs and all, the head
// mixer is multiplied into the output projection that follows it, and the
// tokenizer goes along as metadata. The same model and options give the same
// bytes.
//
// Ternary layers keep their trits in every type. Their factor becomes a
// float16, rounded by at most one part in 2048. tq1_0 and tq2_0 need rows of a
// multiple of 256 values and hold nothing but trits; other tensors fall back to
// q8_0, and to f16 where a row is not a multiple of 32.
//
// A model whose tokenizer is unknown is refused, and so is one with a value
// that the float16 factors of an encoding cannot hold.
func WriteGGUF(w io.Writer, m *spinfile.Model, o GGUFOptions) error {
	if err := m.Validate(); err != nil {
		return fmt.Errorf("interop: GGUF export: %w", err)
	}
	vocab, err := ggufVocabulary(m)
	if err != nil {
		return err
	}
	tensors, err := ggufTensors(m, o, vocab)
	if err != nil {
		return err
	}
	if o.Report != nil {
		for _, t := range tensors {
			o.Report(t.GGUFTensor)
		}
	}
	b := bufio.NewWriterSize(w, 1<<16)
	at := 0
	put := func(p []byte) error {
		at += len(p)
		_, err := b.Write(p)
		return err
	}
	pad := func() error { return put(make([]byte, -at&(ggufAlign-1))) }
	if err := errors.Join(put(ggufHeader(m, o, tensors, vocab)), pad()); err != nil {
		return fmt.Errorf("interop: writing GGUF: %w", err)
	}
	for _, t := range tensors {
		if err := t.write(put); err != nil {
			return fmt.Errorf("interop: writing GGUF tensor %q: %w", t.Name, err)
		}
		if err := pad(); err != nil {
			return fmt.Errorf("interop: writing GGUF: %w", err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("interop: writing GGUF: %w", err)
	}
	return nil
}

// ggufTensors lists what the file holds, in its order.
func ggufTensors(m *spinfile.Model, o GGUFOptions, vocab *ggufVocab) ([]ggufEntry, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	linear, _ := ggufTypeByName(o.Linear)
	embedding, _ := ggufTypeByName(o.Embedding)
	f32, _ := ggufTypeByName("f32")
	var tensors []ggufEntry
	for i := range m.Tensors {
		t := &m.Tensors[i]
		name := t.Name
		if t.Layer >= 0 {
			name = strings.TrimPrefix(name, fmt.Sprintf("layers.%d.", t.Layer))
		}
		var x *matrix
		var err error
		want := linear
		switch t.Kind {
		case arch.MixerWeight, arch.MixerBeta:
			continue // with wo
		case arch.Norm:
			x, want = normMatrix(t), f32
		case arch.Embedding:
			x, want = vocab.extend(tableMatrix(t)), embedding
		case arch.Ternary:
			x, err = linearMatrix(t)
			if err == nil && name == "attention.wo.weight" && m.Config.OctonionAttention {
				mixer := fmt.Sprintf("layers.%d.attention.head_mixer.", t.Layer)
				x, err = mixedMatrix(x, m.Tensor(mixer+"W"), m.Tensor(mixer+"beta"))
			}
		}
		if err != nil {
			return nil, fmt.Errorf("interop: GGUF export: %s: %w", t.Name, err)
		}
		out := GGUFTensor{Name: llamaNames[name], Rows: x.rows, Width: x.width}
		if t.Layer >= 0 {
			out.Name = fmt.Sprintf("blk.%d.%s", t.Layer, out.Name)
		}
		kind, reason := fallBack(want, x, m.Config.Quantizer)
		out.Type, out.Reason = kind.name, reason
		out.Bytes = int64(x.rows) * int64(kind.rowBytes(x.width))
		tensors = append(tensors, ggufEntry{out, x, kind})
	}
	return tensors, nil
}

// fallBack gives the type for a matrix of which want is wanted, and why it is
// another.
func fallBack(want *ggufType, x *matrix, quantizer string) (t *ggufType, reason string) {
	t = want
	for _, next := range []string{"q8_0", "f16", "f16"} {
		switch {
		case t.ternary && x.scale == nil && quantizer != arch.None:
			reason = "the head mixer is folded into it, so it is not ternary"
		case t.ternary && x.scale == nil:
			reason = "the model is not ternary"
		case x.width%t.values != 0:
			reason = fmt.Sprintf("%s needs rows of a multiple of %d values, these have %d", t.name, t.values, x.width)
		default:
			return t, reason
		}
		t, _ = ggufTypeByName(next)
	}
	return t, reason
}

// write gives the tensor's data to put, row by row.
func (t *ggufEntry) write(put func([]byte) error) error {
	x := t.matrix
	row := make([]float32, x.width)
	buf := make([]byte, 0, t.kind.rowBytes(x.width))
	for r := range x.rows {
		buf = buf[:0]
		var q []int8
		var scale float32
		if x.int8s != nil && t.kind.id == ggmlQ8_0 {
			q, scale = x.int8s(r)
		}
		if q != nil {
			if most := maxAbs([]float32{scale}); most > maxHalf {
				return tooLarge(most, t.kind)
			}
			if scale != 0 && spinfile.FromFloat16(spinfile.ToFloat16(scale)) == 0 {
				return tooSmall(scale, t.kind)
			}
			for ; len(q) > 0; q = q[t.kind.values:] {
				buf = appendHalf(buf, scale)
				for _, v := range q[:t.kind.values] {
					buf = append(buf, byte(v))
				}
			}
		} else {
			x.row(row, r)
			if most := maxAbs(row); most > maxHalf && t.kind.id != ggmlF32 {
				return tooLarge(most, t.kind)
			}
			if x.scale != nil {
				scale = x.scale(r)
			}
			buf = t.kind.appendRow(buf, row, scale)
			if most := maxAbs(row); most > 0 && most < tiny && t.kind.zero(row, buf) {
				return tooSmall(most, t.kind)
			}
		}
		if err := put(buf); err != nil {
			return err
		}
	}
	return nil
}

func tooLarge(v float32, t *ggufType) error {
	return fmt.Errorf("the value %g is too large for the float16 factors of %s (at most %d); write f32", v, t.name, maxHalf)
}

// tiny is above every value whose row an encoding could turn into zeros.
const tiny = 1e-3

func tooSmall(v float32, t *ggufType) error {
	return fmt.Errorf("a row with values of %g at most becomes 0 in the float16 factors of %s; write f32", v, t.name)
}

// ggufHeader is everything before the data: metadata and tensor list.
func ggufHeader(m *spinfile.Model, o GGUFOptions, tensors []ggufEntry, vocab *ggufVocab) []byte {
	c := &m.Config
	linear, _ := ggufTypeByName(o.Linear)
	name := o.Name
	if name == "" {
		name = "spinnet"
	}
	var kv ggufMeta
	kv.string("general.architecture", "llama")
	kv.string("general.name", name)
	kv.uint32("general.alignment", ggufAlign)
	kv.uint32("general.file_type", int(linear.fileType))
	kv.uint32("general.quantization_version", 2)
	kv.uint32("llama.block_count", c.NLayer)
	kv.uint32("llama.context_length", c.BlockSize)
	kv.uint32("llama.embedding_length", c.NEmbd)
	kv.uint32("llama.feed_forward_length", c.HiddenDim)
	kv.uint32("llama.attention.head_count", c.NHead)
	kv.uint32("llama.attention.head_count_kv", c.NKVHead)
	kv.float32("llama.attention.layer_norm_rms_epsilon", float32(c.NormEps))
	kv.uint32("llama.rope.dimension_count", c.HeadDim()) // pairs are adjacent here and there
	kv.float32("llama.rope.freq_base", float32(c.RopeTheta))
	kv.uint32("llama.vocab_size", len(vocab.tokens))
	vocab.write(&kv)

	b := append([]byte(nil), ggufMagic...)
	b = binary.LittleEndian.AppendUint32(b, ggufVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(tensors)))
	b = binary.LittleEndian.AppendUint64(b, uint64(kv.count))
	b = append(b, kv.bytes...)
	var offset uint64
	for _, t := range tensors {
		b = appendGGUFString(b, t.Name)
		shape := []int{t.Width, t.Rows} // the fastest first
		if t.matrix.vector {
			shape = shape[:1]
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(shape)))
		for _, n := range shape {
			b = binary.LittleEndian.AppendUint64(b, uint64(n))
		}
		b = binary.LittleEndian.AppendUint32(b, t.kind.id)
		b = binary.LittleEndian.AppendUint64(b, offset)
		offset += (uint64(t.Bytes) + ggufAlign - 1) / ggufAlign * ggufAlign
	}
	return b
}

// ggufMeta collects metadata.
type ggufMeta struct {
	bytes []byte
	count int
}

func (kv *ggufMeta) key(name string, kind uint32) {
	kv.count++
	kv.bytes = appendGGUFString(kv.bytes, name)
	kv.bytes = binary.LittleEndian.AppendUint32(kv.bytes, kind)
}

func (kv *ggufMeta) uint32(name string, v int) {
	kv.key(name, ggufUint32)
	kv.bytes = binary.LittleEndian.AppendUint32(kv.bytes, uint32(v))
}

func (kv *ggufMeta) float32(name string, v float32) {
	kv.key(name, ggufFloat32)
	kv.bytes = binary.LittleEndian.AppendUint32(kv.bytes, math.Float32bits(v))
}

func (kv *ggufMeta) bool(name string, v bool) {
	kv.key(name, ggufBool)
	var b byte
	if v {
		b = 1
	}
	kv.bytes = append(kv.bytes, b)
}

func (kv *ggufMeta) string(name, v string) {
	kv.key(name, ggufString)
	kv.bytes = appendGGUFString(kv.bytes, v)
}

// array begins an array of n values of a kind, which the caller appends.
func (kv *ggufMeta) array(name string, kind uint32, n int) {
	kv.key(name, ggufArray)
	kv.bytes = binary.LittleEndian.AppendUint32(kv.bytes, kind)
	kv.bytes = binary.LittleEndian.AppendUint64(kv.bytes, uint64(n))
}

func (kv *ggufMeta) strings(name string, v []string) {
	kv.array(name, ggufString, len(v))
	for _, s := range v {
		kv.bytes = appendGGUFString(kv.bytes, s)
	}
}

func (kv *ggufMeta) int32s(name string, v []int32) {
	kv.array(name, ggufInt32, len(v))
	for _, x := range v {
		kv.bytes = binary.LittleEndian.AppendUint32(kv.bytes, uint32(x))
	}
}

func (kv *ggufMeta) float32s(name string, v []float32) {
	kv.array(name, ggufFloat32, len(v))
	for _, x := range v {
		kv.bytes = binary.LittleEndian.AppendUint32(kv.bytes, math.Float32bits(x))
	}
}

func appendGGUFString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}
