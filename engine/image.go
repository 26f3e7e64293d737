package engine

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"strconv"
	"unsafe"

	"spinnet/algebra"
	"spinnet/arch"
	"spinnet/kernel"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// An image is a model for int8 arithmetic as WebAssembly computes with it:
// nothing in it has to be unpacked, so it runs where it lies. Little-endian:
//
//	0   "SPNI"
//	4   version, 4 bytes
//	8   length of the image, 8 bytes
//	16  flags, 4 bytes: 1 keeps keys and values in int8
//	20  length of the head, 4 bytes
//	24  CRC-32C of bytes 0 … 23 and of the head, 4 bytes
//	28  0, 4 bytes
//	32  the head: spinfile.Model.AppendHead
//
// and then, each from the next multiple of 16 bytes on: the embedding in
// kernel.LayoutSIMD128 and its scales; the same of the output where it has a
// table of its own; the last norm; and for each layer the two norms, and the
// weights in LayoutSIMD128 and the factors of wq with wk and wv, of the head
// mixer if there is one, of wo, gate, up and down. Scales, norms and factors
// are float32.
//
// The arrays have no checksum: an image is a part of a module or comes with a
// hash. Wrong bytes there give wrong text, nothing else.
const (
	imageMagic   = "SPNI"
	imageVersion = 1
	imageHeader  = 32
	imageAlign   = 16
	imageCache8  = 1 // flag
)

// IsImage reports whether b begins like an image.
func IsImage(b []byte) bool { return len(b) >= 4 && string(b[:4]) == imageMagic }

// WriteImage writes the image of a model. Of the options it holds Int8Cache.
func WriteImage(w io.Writer, m *spinfile.Model, o Options) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if o.Numeric != "" && o.Numeric != Int8 {
		return errors.New("engine: an image computes in int8, not in " + o.Numeric)
	}
	q, err := newInt8Model(m, kernel.LayoutSIMD128)
	if err != nil {
		return err
	}
	head, err := m.AppendHead(nil)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	b := make([]byte, imageHeader, imageHeader+len(head))
	copy(b, imageMagic)
	le.PutUint32(b[4:], imageVersion)
	if o.Int8Cache {
		le.PutUint32(b[16:], imageCache8)
	}
	le.PutUint32(b[20:], uint32(len(head)))
	parts := imageParts{put: func(p []byte) {
		b = append(b, make([]byte, -len(b)&(imageAlign-1))...)
		b = append(b, p...)
	}}
	b = append(b, head...)
	if err := parts.model(&m.Config, q); err != nil {
		return err
	}
	le.PutUint64(b[8:], uint64(len(b)))
	le.PutUint32(b[24:], imageSum(b[:imageHeader], head))
	_, err = w.Write(b)
	return err
}

func imageSum(header, head []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(header[:24], table), table, head)
}

// FromImage makes an engine of an image, in which its weights stay: b must not
// change as long as the engine is used. No bytes make it panic, and it
// allocates no more than a small multiple of them.
func FromImage(b []byte) (*Engine, tokenizer.Tokenizer, error) {
	bad := func(what string) (*Engine, tokenizer.Tokenizer, error) {
		return nil, nil, errors.New("engine: " + what)
	}
	if !IsImage(b) || len(b) < imageHeader {
		return bad("not a model's image: it does not begin with " + strconv.Quote(imageMagic))
	}
	le := binary.LittleEndian
	if v := le.Uint32(b[4:]); v != imageVersion {
		return bad("an image of version " + strconv.FormatUint(uint64(v), 10) + ", want " + itoa(imageVersion) + ": build it again")
	}
	if n := le.Uint64(b[8:]); n != uint64(len(b)) {
		return bad("an image of " + itoa(len(b)) + " bytes that says it has " + strconv.FormatUint(n, 10))
	}
	flags, n := le.Uint32(b[16:]), le.Uint32(b[20:])
	if uint64(n) > uint64(len(b)-imageHeader) || flags&^imageCache8 != 0 || le.Uint32(b[28:]) != 0 {
		return bad("the image's header is damaged")
	}
	head := b[imageHeader : imageHeader+int(n)]
	if imageSum(b[:imageHeader], head) != le.Uint32(b[24:]) {
		return bad("the image's head does not match its checksum")
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(b)))%4 != 0 {
		return bad("the image does not lie at a multiple of 4 bytes")
	}
	m, err := spinfile.DecodeHead(head)
	if err != nil {
		return nil, nil, err
	}
	c := &m.Config
	if err := checkInt8(c); err != nil {
		return nil, nil, err
	}
	if c.NLayer > len(b)/(2*imageAlign) { // before anything is made for them
		return bad("an image of " + itoa(len(b)) + " bytes for " + itoa(c.NLayer) + " layers")
	}
	tok, err := NewTokenizer(m.Tokenizer)
	if err != nil {
		return nil, nil, err
	}
	q := &int8Model{layers: make([]int8Layer, c.NLayer)}
	parts := imageParts{b: b, at: imageHeader + int(n)}
	if err := parts.model(c, q); err != nil {
		return nil, nil, err
	}
	if parts.at != len(b) {
		return bad(itoa(len(b)-parts.at) + " bytes too many in the image")
	}
	return &Engine{config: *c, numeric: Int8, int8Cache: flags&imageCache8 != 0, pool: kernel.NewPool(1),
		frequencies: kernel.RoPEFrequencies(c.RopeTheta, c.HeadDim()), newRun: func(s *Session) run { return newInt8Run(s, q) }}, tok, nil
}

// imageParts goes through the arrays of an image in their order, to write them
// with put, or without it to find them in b.
type imageParts struct {
	put func(p []byte)
	b   []byte
	at  int
	err error
}

// bytes is an array of n bytes.
func (p *imageParts) bytes(x *[]byte, n int) {
	switch {
	case p.err != nil:
	case p.put != nil:
		p.put(*x)
	default:
		at := (p.at + imageAlign - 1) &^ (imageAlign - 1)
		if at > len(p.b) || n > len(p.b)-at {
			p.err = errors.New("engine: the image is cut short")
			return
		}
		p.at = at + n
		*x = p.b[at : at+n : at+n]
	}
}

// floats is an array of n float32.
func (p *imageParts) floats(x *[]float32, n int) {
	if p.put != nil {
		b := make([]byte, 4*len(*x))
		for i, v := range *x {
			binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(v))
		}
		p.put(b)
		return
	}
	var b []byte
	p.bytes(&b, 4*n)
	if p.err == nil {
		*x = unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n)
	}
}

// table is a table of a vocabulary.
func (p *imageParts) table(t **int8Table, c *arch.Config) {
	vocab, d := c.VocabSize, c.NEmbd
	if p.put != nil {
		packed := (*t).packed.(*kernel.Int8Table).Packed()
		p.bytes(&packed, 0)
		p.floats(&(*t).scale, vocab)
		return
	}
	q := &int8Table{vocab: vocab, d: d}
	var packed []byte
	p.bytes(&packed, kernel.Int8TableSize(vocab, d))
	p.floats(&q.scale, vocab)
	if p.err == nil {
		q.packed, p.err = kernel.Int8TableOf(packed, vocab, d)
		*t = q
	}
}

// linear is layers of outputs of widths outs that share an input of width in,
// over an algebra.
func (p *imageParts) linear(l **kernel.Int8Linear, name string, ternary bool, in int, outs ...int) {
	if p.put != nil {
		packed, gain := (*l).Packed(), (*l).Gain()
		p.bytes(&packed, 0)
		p.floats(&gain, 0)
		return
	}
	alg, err := algebra.ByName(name)
	if err != nil {
		p.err = err
	}
	if p.err != nil {
		return
	}
	rows := 0
	for i := range outs {
		outs[i] /= alg.N
		rows += outs[i]
	}
	var packed []byte
	var gain []float32
	p.bytes(&packed, kernel.Int8LinearSize(alg, in/alg.N, ternary, outs))
	p.floats(&gain, rows)
	if p.err == nil {
		*l, p.err = kernel.Int8LinearOf(packed, alg, in/alg.N, ternary, outs, gain)
	}
}

// model is all arrays.
func (p *imageParts) model(c *arch.Config, q *int8Model) error {
	p.table(&q.embedding, c)
	if c.UntiedOutput {
		p.table(&q.output, c)
	} else {
		q.output = q.embedding
	}
	d, ternary := c.NEmbd, c.Quantizer != arch.None
	p.floats(&q.norm, d)
	for i := range q.layers {
		l, name := &q.layers[i], c.LayerAlgebra(i)
		p.floats(&l.attentionNorm, d)
		p.floats(&l.ffnNorm, d)
		p.linear(&l.qkv, name, ternary, d, d, c.KVDim(), c.KVDim())
		if c.OctonionAttention {
			n := arch.AlgebraDim(c.MixerAlgebra) * c.HeadDim()
			p.linear(&l.mixer, c.MixerAlgebra, false, n, n)
		}
		p.linear(&l.wo, name, ternary, d, d)
		p.linear(&l.gate, name, ternary, d, c.HiddenDim)
		p.linear(&l.up, name, ternary, d, c.HiddenDim)
		p.linear(&l.down, name, ternary, c.HiddenDim, d)
	}
	return p.err
}
