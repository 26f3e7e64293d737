//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unsafe"

	"spinnet/arch"
	"spinnet/engine"
	"spinnet/spinfile"
)

// Session is a model on a GPU with one text in progress: an engine.Text. A
// single token goes through one CUDA graph: where it is and what it is goes to
// the device, all layers are one launch (decode.cu) where the GPU has clusters of
// blocks, the logits come back, all through pinned memory. Several tokens go
// through the layers step by step (prefill.cu).
//
// With int8 numerics all results have the bits of engine's on the CPU.
type Session struct {
	*gpu
	config    arch.Config
	numeric   string
	rotations engine.Rotations
	p         *packed
	pos       int
	chunk     int // most tokens at once
	ring      int // positions of the cache
	weights   uint64
	cache     uint64

	host  []byte    // pinned: what the device is told, as state
	state uintptr   // token, position, what summary is wanted; rotations [chunk][hd]; ids [chunk]
	last  []float32 // pinned [vocab]: the logits given out, which the GPU writes there
	draw  drawing
	ahead struct { // the rotary angles of a position
		pos      int
		rotation []float32 // [hd]
	}
	model decodeModel
	buf   buffers
	step  func()
	many  manyLogits // of Score

	fast            bool // single tokens in one launch
	int8Cache       bool
	decodeShared    int // dynamic shared memory of layers
	layers          kernel
	output, weigh   kernel
	embed, input    kernel
	store, attend   kernel
	linears         map[linearKind]kernel
	layersAt, minus uintptr // on the device: the layers, and the signs of the mixer
}

// drawing is what the GPU does for the choice of the next token.
type drawing struct {
	wanted, made summaryKind    // from the next single token on; of what summary is
	summary      engine.Summary // pinned, as many blocks as the vocabulary has
	logits, tops uintptr        // on the device, for it
}

// summaryKind is what engine.Sampler.Summarized says; no logits: no summary.
type summaryKind struct {
	vocab int
	inv   float32
}

// linearKind tells prefill.cu's linear kernels apart.
type linearKind struct {
	n     int // dimension of the algebra
	mixer bool
}

// buffers are the activations of chunk tokens.
type buffers struct {
	h, q, k, v, o, m, gate, up, t uintptr
	x, scale                      uintptr
}

// manyLogits is memory for the logits of several rows.
type manyLogits struct {
	rows   int
	device uintptr
	host   []float32
}

const (
	prefillChunk  = 128 // tokens at once
	decodeBlocks  = 16  // of a cluster, as decode.cu is compiled
	decodeThreads = 512
	mostHeadDim   = 512
	mostInt8      = 1 << 16 // columns, as kernel.MaxInt8Columns
)

// NewSession puts a model on GPU number i, from 0. Of the options, threads mean
// nothing here. The errors are those of Open, too little memory, and heads or a
// context that are too large for the GPU; they say what to do.
func NewSession(i int, m *spinfile.Model, o engine.Options) (*Session, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	c := m.Config
	s := &Session{config: c, numeric: o.NumericOf(m), rotations: engine.NewRotations(c), chunk: min(prefillChunk, c.BlockSize), int8Cache: o.Int8Cache}
	s.ring = c.BlockSize + s.chunk - 1
	if err := s.check(o); err != nil {
		return nil, err
	}
	s.ahead.rotation = make([]float32, c.HeadDim())
	s.lookAhead(0)
	var err error
	if s.p, err = pack(m, s.numeric); err != nil {
		return nil, err
	}
	if s.gpu, err = openGPU(i); err != nil {
		return nil, err
	}
	if s.lower = "use --device cpu"; s.numeric == engine.Int8 && !o.Int8Cache {
		s.lower = "set --kv-cache int8 for a smaller cache, or --device cpu"
	}
	s.load()
	s.allocate()
	s.tryCluster()
	s.sync()
	if s.err != nil {
		err := s.err
		s.close()
		return nil, err
	}
	s.step = s.record(s.token)
	return s, nil
}

// check refuses what the kernels cannot do.
func (s *Session) check(o engine.Options) error {
	c := &s.config
	switch {
	case s.numeric != engine.Int8 && s.numeric != engine.Float:
		return errors.New("cuda: unknown numeric " + strconv.Quote(s.numeric) + ", want float or int8")
	case o.Int8Cache && s.numeric != engine.Int8:
		return errors.New("cuda: an int8 cache needs int8 numerics, this is " + s.numeric)
	case c.HeadDim() > mostHeadDim:
		return fmt.Errorf("cuda: heads of width %d: the GPU's attention takes up to %d; use --device cpu", c.HeadDim(), mostHeadDim)
	case s.numeric == engine.Int8 && max(c.NEmbd, c.HiddenDim) > mostInt8:
		return fmt.Errorf("cuda: width %d: int8 numerics add up at most %d products; run the model in float", max(c.NEmbd, c.HiddenDim), mostInt8)
	}
	return nil
}

// Name is the number and the name of the GPU.
func (s *Session) Name() string { return s.name() }

// Numeric is the arithmetic in use, engine.Float or engine.Int8.
func (s *Session) Numeric() string { return s.numeric }

// Memory is the bytes of device memory taken: by weights, by keys and values,
// and in all.
func (s *Session) Memory() (weights, cache, all uint64) { return s.weights, s.cache, s.used }

// Config is the model's configuration.
func (s *Session) Config() arch.Config { return s.config }

// Pos is the number of tokens read.
func (s *Session) Pos() int { return s.pos }

// Reset empties the session.
func (s *Session) Reset() { s.pos = 0 }

// Close gives back all memory.
func (s *Session) Close() { s.close() }

// load finds the kernels.
func (s *Session) load() {
	decode, prefill := s.loadStem("decode"), s.loadStem("prefill")
	suffix, form, mixer := "", [...]string{formTernary: "", formBytes: "_bytes", formFloats: "_floats"}[s.p.form], "_bytes"
	if s.numeric == engine.Float {
		if suffix, mixer = "_float", "_floats"; s.p.form == formTernary {
			form = suffix
		}
	}
	find := func(module uintptr, name string) kernel { return kernel{name, s.function(module, name)} }
	s.embed, s.input = find(prefill, "prefill_embed"), find(prefill, "prefill_input"+suffix)
	s.store, s.attend = find(prefill, "prefill_store"), find(prefill, "prefill_attend")
	s.output, s.weigh = find(decode, "decode_logits"+suffix), find(decode, "decode_weigh")
	s.linears = map[linearKind]kernel{}
	for _, n := range s.p.dims {
		s.linears[linearKind{n, false}] = find(prefill, fmt.Sprintf("prefill_linear_%d%s", n, form))
	}
	mixerN := 0
	if s.config.OctonionAttention {
		mixerN = arch.AlgebraDim(s.config.MixerAlgebra)
		s.linears[linearKind{mixerN, true}] = find(prefill, fmt.Sprintf("prefill_linear_%d%s", mixerN, mixer))
	}
	// A cluster's kernel is for ternary weights of one dimension, and mixers of 8.
	n := s.p.dims[0]
	for _, other := range s.p.dims {
		if other != n {
			n = 0
		}
	}
	if n == 0 || n > 8 || s.info.Major != 9 || s.p.form != formTernary || mixerN != 0 && mixerN != 8 || !s.divideShared(n) {
		return
	}
	s.fast = true
	s.layers = find(decode, fmt.Sprintf("decode_layers_%d%s", n, suffix))
	s.do(cuFuncSetAttribute, s.layers.f, funcWideClusters, 1)
	s.allow(s.layers, s.decodeShared)
}

// tryCluster launches the layers once: a part of a GPU may have no room for the
// cluster, which the launch says. Single tokens then go the way of several.
func (s *Session) tryCluster() {
	if s.fast && s.err == nil {
		s.tell([]int32{0})
		if s.startLayers(); s.err != nil {
			s.fast, s.err = false, nil
		}
	}
}

// mostShared is how much dynamic shared memory a block can have.
func (g *gpu) mostShared() int {
	g.do(cuDeviceGetAttribute, g.result(), attributeMostShared, uintptr(g.handle))
	return int(int32(g.out[0])) //nolint:gosec // the driver wrote 32 bits
}

// allow lets a kernel have that much dynamic shared memory.
func (g *gpu) allow(k kernel, shared int) {
	if shared > 48<<10 {
		g.do(cuFuncSetAttribute, k.f, funcMaxDynamicShared, uintptr(shared))
	}
}

// divideShared sets the shared memory of decode_layers, as arrange in decode.cu has
// it, and reports whether a block can have so much.
func (s *Session) divideShared(n int) bool {
	c := &s.config
	up := func(b int) int { return (b + 15) / 16 * 16 }
	rows := func(n int) int { return per(n, decodeBlocks) }
	whole4 := func(n int) int { return (n + 3) / 4 * 4 }
	padded := func(parts, k int) int { return up(s.inputSize() * parts * 16 * words(k)) }
	chunk := func(n, outputs int) int { return n * whole4(rows(outputs)) }
	hd := c.HeadDim()
	splits := max(1, min(decodeBlocks/c.NHead, hd))
	d, act := chunk(n, c.NEmbd/n), chunk(n, c.HiddenDim/n)
	qkv := d + 2*chunk(n, c.KVDim()/n)
	o, mixed := rows(c.NHead*splits)*whole4(per(hd, splits)), 0
	if c.OctonionAttention {
		n := arch.AlgebraDim(c.MixerAlgebra)
		mixed = chunk(n, c.NHead/n*hd)
	}
	fixed := 1152 + up(2*int(unsafe.Sizeof(decodeLayer{}))) + 256 + up(4*c.NEmbd) + up(4*max(c.NEmbd, c.HiddenDim)) +
		padded(n, c.NEmbd/n) + padded(n, c.HiddenDim/n) + padded(c.NHead, hd) + squares(c.NEmbd) +
		3*up(4*hd) + 7*whole64(hd) + up(4*c.BlockSize+16) + up(6*hd) +
		4*decodeBlocks*(qkv+o+mixed+2*d+act) + up(4*max(qkv, o, mixed, act)) + 3*up(2*c.NEmbd) + up(2*c.HiddenDim)

	// Keys of the positions that are a block's, and its share of all values, as far
	// as there is room: at odd pitches, and beginning anywhere in a row.
	each := 4 // values in a row of 16 bytes
	if s.int8Cache {
		each = 16
	}
	keyRows := 16 * words(hd) / each
	valueRows := min(keyRows, per(per(hd, splits), each)+1)
	if per(hd, splits)%each == 0 && hd%splits == 0 {
		valueRows--
	}
	room := s.mostShared() - fixed
	keys, values := 16*keyRows*(whole4(per(c.BlockSize, splits))+4), 16*valueRows*(whole4(c.BlockSize)+4)
	keys = min(keys, max(room/4*3, room-values)/16*16)
	values = min(values, (room-keys)/16*16)
	s.model.area = [2]int32{int32(keys), int32(values)}
	s.decodeShared = fixed + keys + values
	return keys >= 16*8*keyRows && values >= 16*8*valueRows
}

// whole64 rounds up to a multiple of 64.
func whole64(n int) int { return (n + 63) / 64 * 64 }

// squares is what a norm of a width needs.
func squares(d int) int { return 64 * (whole64(d)/16 + 4) }

// stageBytes is what prefill_attend's products need.
func stageBytes(hd int) int { return 8*4096 + 32*16*words(hd) }

// attendShared is the shared memory of prefill_attend, inputShared of
// prefill_input.
func (s *Session) attendShared() int {
	hd := s.config.HeadDim()
	return 256 + stageBytes(hd) + 8*whole64(hd) + 4*s.config.BlockSize + 16
}

func (s *Session) inputShared(width int) int { return (width+3)/4*16 + squares(width) }

// inputSize is the size of a value that linear layers read.
func (s *Session) inputSize() int {
	if s.numeric == engine.Int8 {
		return 1
	}
	return 4
}

// allocate takes all memory but that of Score.
func (s *Session) allocate() {
	c, rows := &s.config, s.chunk
	if most := s.mostShared(); s.err == nil && (s.attendShared() > most || s.inputShared(max(c.NEmbd, c.HiddenDim)) > most) {
		s.err = fmt.Errorf("cuda: block_size = %d and width %d need more shared memory than the %d KB of %s; use --device cpu",
			c.BlockSize, max(c.NEmbd, c.HiddenDim), most>>10, s.name())
		return
	}
	s.allow(s.attend, s.attendShared())
	s.allow(s.input, s.inputShared(max(c.NEmbd, c.HiddenDim)))
	base := s.malloc(len(s.p.bytes))
	s.upload(base, unsafe.Pointer(&s.p.bytes[0]), len(s.p.bytes))
	s.p.place(base)
	s.p.bytes = nil
	s.weights = s.used

	// The cache, in one piece.
	hd, kv := c.HeadDim(), c.NKVHead*s.ring
	half, scales := 4*kv*16*words(hd), 0 // half: keys or values
	if s.int8Cache {
		half, scales = kv*16*words(hd), 4*kv
	}
	up := func(b int) int { return (b + 255) / 256 * 256 }
	layer := 2*up(half) + 2*up(scales)
	at := uint64(s.malloc(layer * c.NLayer))
	s.cache = s.used - s.weights
	for i := range s.p.layers {
		k := &s.p.layers[i].cache
		k.keys, k.values = at, at+uint64(up(half))
		if s.int8Cache {
			k.keyScale = k.values + uint64(up(half))
			k.valueScale = k.keyScale + uint64(up(scales))
		}
		at += uint64(layer)
	}

	b := &s.buf
	width := max(c.NEmbd, c.HiddenDim, 16)
	for _, a := range []struct {
		to    *uintptr
		width int
	}{
		{&b.h, c.NEmbd}, {&b.q, c.NEmbd}, {&b.k, c.KVDim()}, {&b.v, c.KVDim()}, {&b.o, c.NEmbd}, {&b.m, c.NEmbd},
		{&b.gate, c.HiddenDim}, {&b.up, c.HiddenDim}, {&b.t, c.NEmbd}, {&b.scale, 1},
	} {
		*a.to = s.malloc(4 * rows * a.width)
	}
	b.x = s.malloc(rows * s.inputSize() * (width + 16*max(c.NHead, 16))) // with every part's padding
	s.state = s.malloc(s.stateSize(rows))
	s.host = s.pin(s.stateSize(rows))
	s.last = floatsOf(s.pin(4 * c.VocabSize))
	blocks := per(c.VocabSize, engine.SummaryBlock)
	s.draw.summary = engine.Summary{Maxima: floatsOf(s.pin(4 * blocks)), Sums: floatsOf(s.pin(4 * blocks))}
	s.draw.logits, s.draw.tops = s.malloc(4*c.VocabSize), s.malloc(4*per(c.VocabSize, 32))

	s.layersAt, s.minus = s.constant(bytesOf(s.p.layers)), s.constant(bytesOf(s.p.minus[:]))
	m := &s.model
	*m = decodeModel{layers: uint64(s.layersAt), norm: s.p.norm, embedding: s.p.embedding, x: uint64(b.x), scale: uint64(b.scale),
		state: uint64(uintptr(unsafe.Pointer(&s.host[0]))), minus: s.p.minus, area: m.area,
		nLayer: int32(c.NLayer), d: int32(c.NEmbd), hidden: int32(c.HiddenDim), eps: float32(c.NormEps),
		heads: decodeHeads{int32(c.NHead), int32(c.NKVHead), int32(hd), int32(s.ring), int32(c.BlockSize), float32(1 / math.Sqrt(float64(hd)))}}
	if c.OctonionAttention {
		m.mixerN = int32(arch.AlgebraDim(c.MixerAlgebra))
	}
	if s.numeric == engine.Float && c.ActBits == 8 {
		m.fake8 = 1
	}
}

// floatsOf is memory as float32 values.
func floatsOf(b []byte) []float32 { return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(b)/4) }

// stateSize is the size of state for a number of rows.
func (s *Session) stateSize(rows int) int { return 16 + 4*rows*(s.config.HeadDim()+1) }

// idsAt is the offset of the ids in state.
func (s *Session) idsAt() int { return 16 + 4*s.chunk*s.config.HeadDim() }

// tell writes what the device is to know of the next ids.
func (s *Session) tell(ids []int32) {
	hd := s.config.HeadDim()
	head := unsafe.Slice((*int32)(unsafe.Pointer(&s.host[0])), 4)
	head[0], head[1] = ids[0], int32(s.pos)
	head[2], head[3] = int32(s.draw.wanted.vocab), int32(math.Float32bits(s.draw.wanted.inv))
	rot := floatsOf(s.host[16:])
	for i := range ids {
		r := rot[i*hd : (i+1)*hd]
		if i == 0 && s.pos == s.ahead.pos {
			copy(r, s.ahead.rotation)
			continue
		}
		s.rotations.At(r[:hd/2], r[hd/2:], s.pos+i)
	}
	copy(unsafe.Slice((*int32)(unsafe.Pointer(&s.host[s.idsAt()])), s.chunk), ids)
}

// lookAhead finds the angles of the next position while the GPU works.
func (s *Session) lookAhead(pos int) {
	r := s.ahead.rotation
	s.rotations.At(r[:len(r)/2], r[len(r)/2:], pos)
	s.ahead.pos = pos
}

// Prefill reads ids and returns the logits [vocab] of the token after them, valid
// until the next call. No ids, or one outside the vocabulary, is an error, and
// then nothing is read; after a failure of the GPU every call fails.
func (s *Session) Prefill(ids []int32) ([]float32, error) {
	if len(ids) == 0 {
		return nil, errors.New("cuda: nothing to read: no token ids")
	}
	if err := engine.CheckIDs(ids, s.config.VocabSize); err != nil {
		return nil, err
	}
	if s.err != nil { // closed, too: host is not ours any more
		return nil, s.err
	}
	for len(ids) > 0 {
		n := min(len(ids), s.chunk)
		s.tell(ids[:n])
		s.draw.made = summaryKind{}
		if n == 1 {
			s.step()
			s.draw.made = s.draw.wanted
		} else {
			s.forward(n)
			if n == len(ids) {
				s.logitRows(n-1, 1, s.lastAt())
			}
		}
		s.lookAhead(s.pos + n)
		if s.sync(); s.err != nil { // host is free again
			return nil, s.err
		}
		s.pos += n
		ids = ids[n:]
	}
	return s.last, nil
}

// Draw draws the next token from the logits that the last call has given, with the
// summary that the GPU has made of them from the second token on.
func (s *Session) Draw(from *engine.Sampler) int32 {
	vocab, inv := from.Summarized()
	s.draw.wanted = summaryKind{vocab, inv}
	if s.draw.made != s.draw.wanted {
		return from.Next(s.last)
	}
	blocks, m := per(vocab, engine.SummaryBlock), s.draw.summary
	return from.NextOf(s.last, engine.Summary{Maxima: m.Maxima[:blocks], Sums: m.Sums[:blocks]})
}

// lastAt is where the GPU writes the logits: host memory, which it can address.
func (s *Session) lastAt() uintptr { return uintptr(unsafe.Pointer(&s.last[0])) }

// token is one token's way from state to the logits and their summary.
func (s *Session) token() {
	c, d := &s.config, &s.draw
	if s.fast {
		s.startLayers()
		s.outputs(s.buf.x, s.buf.scale, c.NEmbd, 1, s.lastAt(), true)
	} else {
		s.forward(1)
		s.logitRows(0, 1, s.lastAt())
	}
	at := func(v []float32) uintptr { return uintptr(unsafe.Pointer(&v[0])) }
	s.start(s.weigh, grid{x: per(len(d.summary.Sums), 32), threads: 256}, true, word(at(d.summary.Maxima)), word(at(d.summary.Sums)), word(d.logits), word(d.tops),
		word(uintptr(unsafe.Pointer(&s.host[0]))))
}

// startLayers launches the layers for the token of state.
func (s *Session) startLayers() {
	s.start(s.layers, grid{x: decodeBlocks, threads: decodeThreads, shared: s.decodeShared}, false, wordsOf(&s.model))
}

// outputs computes rows of logits from inputs stride apart, and what their summary
// needs if they are the ones given out; early while the layers' launch is still
// under way.
func (s *Session) outputs(x, scale uintptr, stride, rows int, y uintptr, early bool) {
	c, d := &s.config, drawing{}
	if y == s.lastAt() {
		d = s.draw
	}
	s.start(s.output, grid{x: per(c.VocabSize, 32), y: rows, threads: 256}, early, word(y), word(d.logits), word(d.tops), wordsOf(&s.p.output), word(x), word(scale),
		word(c.VocabSize), word(c.NEmbd), word(stride))
}

// logitRows computes the logits of rows of the last forward.
func (s *Session) logitRows(from, rows int, y uintptr) {
	d := s.config.NEmbd
	at := uintptr(4 * from * d)
	s.norm(s.buf.h+at, s.buf.t+at, s.p.norm, rows, d, d, 0)
	s.outputs(s.buf.x, s.buf.scale, 16*words(d), rows, y, false)
}

// Kinds of prefill_input.
const (
	inputPlain = iota
	inputNorm
	inputSwiGLU
)

// norm is a norm of h + t as the input of parts of a width.
func (s *Session) norm(h, t uintptr, weight uint64, rows, d, part int, fake8 int32) {
	s.start(s.input, grid{x: rows, threads: 256, shared: s.inputShared(d)}, false, word(s.buf.x), word(s.buf.scale), word(inputNorm), word(h), word(t),
		[]uint64{weight}, word(d), word(part), []uint64{f32(float32(s.config.NormEps))}, word(fake8))
}

// forward takes rows tokens, of which state tells, through the layers. The last
// residual is left in t.
func (s *Session) forward(rows int) {
	c, b, w := &s.config, &s.buf, &s.model.heads
	d, hidden, fake8 := c.NEmbd, c.HiddenDim, s.model.fake8
	ids, size := s.state, 16+4*c.HeadDim()
	if rows > 1 {
		ids, size = s.state+uintptr(s.idsAt()), s.stateSize(s.chunk)
	}
	s.do(cuMemcpyHtoDAsync, s.state, uintptr(unsafe.Pointer(&s.host[0])), uintptr(size), s.stream)
	plain := func(kind int, a, second uintptr, width, part int, fake8 int32) {
		s.start(s.input, grid{x: rows, threads: 256, shared: s.inputShared(width)}, false, word(b.x), word(b.scale), word(kind), word(a), word(second),
			word(0), word(width), word(part), word(0), word(fake8))
	}
	s.start(s.embed, grid{x: per(d, 256), y: rows, threads: 256}, false, word(b.h), wordsOf(&s.p.embedding), word(ids), word(d))
	t := uintptr(0)
	for i := range s.p.layers {
		l, n := &s.p.layers[i], s.p.dims[i]
		minus := s.layersAt + uintptr(i)*unsafe.Sizeof(*l) + unsafe.Offsetof(l.minus)
		linear := func(y uintptr, w *decodeLinear) { s.linear(linearKind{n, false}, y, w, minus, rows, 1) }
		s.norm(b.h, t, l.attentionNorm, rows, d, d/n, fake8)
		linear(b.q, &l.q)
		linear(b.k, &l.k)
		linear(b.v, &l.v)
		s.start(s.store, grid{x: c.NHead, y: rows, threads: 32, shared: 4 * c.HeadDim()}, false, word(b.q), word(b.k), word(b.v), word(s.state+16), word(s.state),
			wordsOf(&l.cache), wordsOf(w))
		s.start(s.attend, grid{x: c.NHead, y: rows, threads: decodeThreads, shared: s.attendShared()}, false, word(b.o), word(b.q), word(s.state), wordsOf(&l.cache), wordsOf(w))
		o := b.o
		if c.OctonionAttention {
			plain(inputPlain, b.o, 0, d, c.HeadDim(), 0)
			n := int(s.model.mixerN)
			groups := c.NHead / n
			s.linear(linearKind{n, true}, b.m, &l.mixer, s.minus, rows*groups, groups)
			o = b.m
		}
		plain(inputPlain, o, 0, d, d/n, fake8)
		linear(b.t, &l.o)
		s.norm(b.h, b.t, l.ffnNorm, rows, d, d/n, fake8)
		linear(b.gate, &l.gate)
		linear(b.up, &l.up)
		plain(inputSwiGLU, b.gate, b.up, hidden, hidden/n, fake8)
		linear(b.t, &l.down)
		t = b.t
	}
}

// linear computes rows of the outputs of a layer, or of a mixer groups a token,
// from the input that is there.
func (s *Session) linear(kind linearKind, y uintptr, w *decodeLinear, minus uintptr, rows, groups int) {
	s.start(s.linears[kind], grid{x: per(int(w.n), 8), y: per(rows, 16), threads: 256}, false, word(y), wordsOf(w), word(s.buf.x), word(s.buf.scale),
		word(minus), word(rows), word(groups))
}

// scoreRows is how many rows' logits Score holds at a time.
const scoreRows = 32

// Score reads ids, writes to logProbs the logarithms (natural) of the
// probabilities of targets, each after the id of its place, and returns the logits
// [vocab] after the last. The three have one length.
func (s *Session) Score(logProbs []float32, ids, targets []int32) ([]float32, error) {
	for _, list := range [][]int32{ids, targets} {
		if err := engine.CheckIDs(list, s.config.VocabSize); err != nil {
			return nil, err
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	vocab := s.config.VocabSize
	if s.many.device == 0 {
		rows := min(s.chunk, scoreRows)
		s.many.rows, s.many.device = rows, s.malloc(4*rows*vocab)
		s.many.host = floatsOf(s.pin(4 * rows * vocab))
	}
	s.draw.made = summaryKind{}
	for len(ids) > 0 {
		n := min(len(ids), s.chunk)
		s.tell(ids[:n])
		s.forward(n)
		for lo := 0; lo < n; lo += s.many.rows {
			rows := min(s.many.rows, n-lo)
			s.logitRows(lo, rows, s.many.device)
			s.do(cuMemcpyDtoHAsync, uintptr(unsafe.Pointer(&s.many.host[0])), s.many.device, uintptr(4*rows*vocab), s.stream)
			if s.sync(); s.err != nil {
				return nil, s.err
			}
			for i := range rows {
				logProbs[lo+i] = engine.LogProb(s.many.host[i*vocab:(i+1)*vocab], targets[lo+i])
			}
			copy(s.last, s.many.host[(rows-1)*vocab:rows*vocab])
		}
		s.pos += n
		logProbs, ids, targets = logProbs[n:], ids[n:], targets[n:]
	}
	return s.last, nil
}
