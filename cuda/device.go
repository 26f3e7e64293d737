//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"unsafe"

	"spinnet/tensor"
)

// Device is one GPU as a tensor.Device. Activations are bf16; the residual
// stream, its gradient, statistics, parameters and their gradients float32.
//
// It is used from one goroutine, like any Device. Operations are queued on a
// stream; the host waits in Read and Sync alone.
type Device struct {
	*gpu
	results results
	numbers uintptr // of this step, see the offsets below
	maps    map[mapKey]*tensorMap
	scratch [scratchSlots]scratch
	tables  []*table // bf16 copies of the output embeddings
	layers  *layerTable
	lists   []*tensorList
	orders  map[*tensor.Ints]*order
	signs   map[string]uintptr // of each algebra
	rank1   uintptr            // one word without signs, for n = 1
	blas    *blas              // nil: without cuBLASLt
	forced  variant            // of all products on Hopper that it can do; variants: choose

	fusedMost, octonionFrom int // see form.go; others in tests

	// What one operation leaves for the next (see flush and copyOf).
	pending pending
	shadow  shadow

	addrs []uintptr // of one operation
}

// Offsets in numbers: the step for dropout, and what AdamW reads.
const (
	numberStep  = 0
	numberAdamW = 64
	numberClip  = 128 // three float64
	numbersSize = 256
)

// Open returns GPU number, from 0, as a device. That there is no driver, no such
// GPU, or one that is too old or taken is an error; ErrNoDriver, ErrNoKernels and
// ErrLeftOut can be told apart.
func Open(number int) (tensor.Device, error) {
	g, err := openGPU(number)
	if err != nil {
		return nil, err
	}
	d := newDevice(g)
	if name := os.Getenv("SPINNET_CUDA_PRODUCT"); name != "" {
		if d.forced = variant(slices.Index(variantNames[:], name)); d.forced < 0 {
			g.close()
			return nil, fmt.Errorf("cuda: SPINNET_CUDA_PRODUCT is %q, not one of %s", name, strings.Join(variantNames[:], ", "))
		}
	}
	g.loadKernels()
	if d.begin(); g.err != nil {
		err := g.err
		d.Close()
		return nil, err
	}
	return d, nil
}

func newDevice(g *gpu) *Device {
	return &Device{gpu: g, maps: map[mapKey]*tensorMap{}, orders: map[*tensor.Ints]*order{}, signs: map[string]uintptr{}, forced: variants, fusedMost: fusedMost, octonionFrom: octonionFrom}
}

// begin takes what every device needs.
func (d *Device) begin() {
	d.blas = d.openBLAS()
	d.numbers = d.malloc(numbersSize)
	d.rank1 = d.malloc(64)
	d.results.device = d.malloc(8 * resultsMost)
	d.results.host = d.pin(8 * resultsMost)
	d.sync()
}

// Name is the number and the name of the GPU.
func (d *Device) Name() string { return d.name() }

// Memory is the bytes of device memory taken.
func (d *Device) Memory() uint64 { return d.used }

// Close gives back all memory.
func (d *Device) Close() {
	d.closeBLAS()
	d.close()
}

// Alloc returns zeroed memory for float32 values.
func (d *Device) Alloc(shape ...int) *tensor.Tensor {
	t := &tensor.Tensor{Shape: shape}
	t.Addr = d.malloc(4 * t.Len())
	return t
}

// AllocInts returns space for n token ids.
func (d *Device) AllocInts(n int) *tensor.Ints {
	return &tensor.Ints{N: n, Addr: d.malloc(4 * n)}
}

// TypeOf is bf16 for activations, float32 for the rest.
func (d *Device) TypeOf(r tensor.Role) tensor.Type {
	if r == tensor.Activation {
		return tensor.BFloat16
	}
	return tensor.Float32
}

// Slice is a part of a block.
func (d *Device) Slice(block *tensor.Tensor, offset int, typ tensor.Type, shape ...int) *tensor.Tensor {
	return &tensor.Tensor{Shape: shape, Type: typ, Addr: block.Addr + uintptr(offset)}
}

// Write copies values to the device, rounded to nearest even where it holds
// bf16.
func (d *Device) Write(dst *tensor.Tensor, src []float32) {
	d.flush()
	d.forgetShadow()
	n := min(dst.Len(), len(src))
	if n == 0 {
		return
	}
	if dst.Type == tensor.BFloat16 {
		b := make([]uint16, n)
		for i, v := range src[:n] {
			b[i] = bf16(v)
		}
		d.upload(dst.Addr, unsafe.Pointer(&b[0]), 2*n)
		return
	}
	d.upload(dst.Addr, unsafe.Pointer(&src[0]), 4*n)
	d.tableChanged(dst)
}

// bf16 rounds to nearest even.
func bf16(v float32) uint16 {
	u := math.Float32bits(v)
	if v != v {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// Read copies values from the device.
func (d *Device) Read(dst []float32, src *tensor.Tensor) {
	d.flush()
	n := min(src.Len(), len(dst))
	if n == 0 {
		return
	}
	if src.Type == tensor.BFloat16 {
		b := make([]uint16, n)
		d.download(unsafe.Pointer(&b[0]), src.Addr, 2*n)
		for i, v := range b {
			dst[i] = math.Float32frombits(uint32(v) << 16)
		}
		return
	}
	d.download(unsafe.Pointer(&dst[0]), src.Addr, 4*n)
}

// WriteInts copies token ids to the device in the order of its operations, and
// with them their order where EmbeddingBackward wants it.
func (d *Device) WriteInts(dst *tensor.Ints, src []int32) {
	d.flush()
	src = src[:dst.N]
	d.stage(dst.Addr, bytesOf(src))
	o := d.orders[dst]
	if o == nil {
		o = new(order)
		d.orders[dst] = o
	}
	if o.ids = append(o.ids[:0], src...); o.addr != 0 {
		d.stageOrder(o)
	}
}

// Zero clears tensors, all in one launch.
func (d *Device) Zero(ts ...*tensor.Tensor) {
	d.flush()
	d.forgetShadow()
	if len(ts) == 1 {
		d.clear(ts[0].Addr, ts[0].Len()*ts[0].Type.Size())
	} else if len(ts) > 1 {
		l := d.list(ts)
		d.launch(zeroTensors, grid{x: l.chunks, threads: 256}, uint64(l.addrs), uint64(l.sizes), uint64(l.chunk))
	}
}

// Record returns a function that does what f does, from its third call on by
// launching a graph. What came before is done first: it is no part of the graph.
func (d *Device) Record(f func()) func() {
	run := d.record(func() {
		f()
		d.flush()
	})
	return func() {
		d.flush()
		d.shadow = shadow{} // every call uses the slots in the same turns
		run()
	}
}

// Late is true: weights' gradients are computed aside.
func (d *Device) Late() bool { return true }

// SetStep sets the step of dropout.
func (d *Device) SetStep(step uint64) {
	d.flush()
	number := [1]uint64{step}
	d.stage(d.numbers+numberStep, bytesOf(number[:]))
}

// results are the scalars: 8 bytes each, copied to the host at once.
type results struct {
	device uintptr
	host   []byte
	all    []*tensor.Scalar
	counts map[*tensor.Scalar]bool // those that hold an int32, not a float64
}

const resultsMost = 1 << 16 // 8 a layer and a few are fewer for the most layers of a recipe, 4096

// AllocScalar returns a zero.
func (d *Device) AllocScalar() *tensor.Scalar {
	r := &d.results
	s := new(tensor.Scalar)
	if len(r.all) == resultsMost {
		if d.err == nil {
			d.err = fmt.Errorf("cuda: more than %d scalars", resultsMost)
		}
		return s
	}
	s.Addr = r.device + uintptr(8*len(r.all))
	r.all = append(r.all, s)
	return s
}

// ZeroScalar sets a scalar to 0.
func (d *Device) ZeroScalar(s *tensor.Scalar) {
	d.flush()
	d.clear(s.Addr, 8)
}

// Sync waits, and reads the scalars.
func (d *Device) Sync() error {
	d.flush()
	r := &d.results
	if n := 8 * len(r.all); n > 0 {
		d.do(cuMemcpyDtoHAsync, uintptr(unsafe.Pointer(&r.host[0])), r.device, uintptr(n), d.stream)
	}
	d.sync()
	if d.err != nil {
		return d.err
	}
	for i, s := range r.all {
		p := unsafe.Pointer(&r.host[8*i])
		if r.counts[s] {
			s.Value = float64(*(*int32)(p))
		} else {
			s.Value = *(*float64)(p)
		}
	}
	return nil
}

// scratch is memory that an operation needs only while it runs. It grows on
// the first run of what is recorded; graphs keep what they were captured with.
type scratch struct {
	addr  uintptr
	bytes int
}

// Slots of scratch memory: those that one operation uses together differ.
const (
	scratchParts  = iota // parts of sums
	scratchMask          // bits of dropout
	scratchDelta         // of attention's backward
	scratchShadow        // bf16 copy of a gradient, and the next slot the one before
	scratchShadow2
	scratchNorm     // parts of a norm's dw
	scratchGradient // parts of weights' gradients, aside
	scratchLogits
	scratchDLogits
	scratchWalshX
	scratchWalshY
	scratchWalshDY
	scratchCounters // zeros between launches
	scratchSums
	scratchGroups
	scratchSlots // how many there are
)

// need gives scratch memory of at least that many bytes.
func (d *Device) need(slot, bytes int) uintptr {
	s := &d.scratch[slot]
	if s.bytes < bytes {
		if d.capturing {
			panic("cuda: an operation needs more memory the second time")
		}
		*s = scratch{d.malloc(bytes), bytes}
	}
	return s.addr
}

// tensorList is a table of tensors in device memory, for kernels that do all
// of them: addresses, sizes, and a list of chunks {tensor, number}.
type tensorList struct {
	first               **tensor.Tensor // of the slice it was made for
	n, chunks           int
	addrs, sizes, chunk uintptr
}

const listChunk = 8192 // values, as in elementwise.cu

// list gives the table of a slice, which must keep its tensors.
func (d *Device) list(ts []*tensor.Tensor) *tensorList {
	for _, l := range d.lists {
		if l.first == &ts[0] && l.n == len(ts) {
			return l
		}
	}
	if d.counting {
		return d.countList(ts)
	}
	addrs, sizes := make([]uint64, len(ts)), make([]uint64, len(ts))
	var chunks []int32
	for i, t := range ts {
		addrs[i], sizes[i] = uint64(t.Addr), uint64(t.Len())
		for c := 0; c < t.Len(); c += listChunk {
			chunks = append(chunks, int32(i), int32(c/listChunk))
		}
	}
	l := &tensorList{first: &ts[0], n: len(ts), chunks: len(chunks) / 2,
		addrs: d.constant(bytesOf(addrs)), sizes: d.constant(bytesOf(sizes)), chunk: d.constant(bytesOf(chunks))}
	d.lists = append(d.lists, l)
	return l
}

// per is the number of blocks for n elements at size each.
func per(n, size int) int { return (n + size - 1) / size }
