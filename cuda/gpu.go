//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// gpu is one GPU with a context and a stream, on which everything runs in
// order. The first failure is kept in err and makes all that follows do
// nothing, so callers need not look after each call.
type gpu struct {
	info      Info
	handle    int32
	context   uintptr
	stream    uintptr
	err       error
	multi     int  // multiprocessors
	careful   bool // wait after every launch, to name the kernel at fault
	capturing bool
	counting  bool   // nothing is done but to count the memory (Measure)
	last      string // the kernel launched last
	first     string // the first of what is being captured
	recorded  string // what was launched as a graph; empty after other launches

	modules []uintptr
	graphs  []uintptr
	kernels [kernelCount]uintptr
	shared  [kernelCount]int // dynamic shared memory allowed so far

	blocks  []uintptr // device memory to give back
	pinned  []uintptr // host memory to give back
	used    uint64    // bytes of device memory taken
	lower   string    // how to need less of it
	staging staging
	side    side
	plain   bool     // the next launch may not start early: it waits for the other stream too
	profile *profile // with SPINNET_CUDA_PROFILE, else nil

	// What the driver reads or writes at a call: on the heap, which does not
	// move as stacks do.
	args   [maxArgs]uint64
	params [maxArgs]uintptr
	config launchConfig
	values [16]uintptr // of a call
	out    [2]uint64
	hold   unsafe.Pointer // what a call reads, so that it is on the heap
}

const maxArgs = 48

// findGPU gives GPU number i, without a context, if we can compute on it.
func findGPU(i int) (g *gpu, err error) {
	if err := loadDriver(); err != nil {
		return nil, err
	}
	gpus, _, err := Devices()
	if err != nil {
		return nil, err
	}
	switch {
	case len(gpus) == 0:
		return nil, errors.New("cuda: the NVIDIA driver sees no GPU; CUDA_VISIBLE_DEVICES may hide it")
	case i < 0 || i >= len(gpus):
		return nil, fmt.Errorf("cuda: there is no GPU number %d: this machine has %d, from 0 on", i, len(gpus))
	}
	g = &gpu{lower: "lower batch_size and raise gradient_accumulation_steps, or set recompute = true"}
	if g.info, g.handle, err = deviceInfo(i); err != nil {
		return nil, err
	}
	if g.info.Unusable = unusable(g.info); g.info.Unusable != "" {
		return nil, errors.New("cuda: " + g.info.Unusable)
	}
	return g, nil
}

// openGPU makes a context on GPU number i, without kernels.
func openGPU(i int) (*gpu, error) {
	g, err := findGPU(i)
	if err != nil {
		return nil, err
	}
	g.careful = turnedOn("SPINNET_CUDA_SYNC")
	if turnedOn("SPINNET_CUDA_PROFILE") {
		g.profile = new(profile)
	}
	if r := call(cuDevicePrimaryCtxRetain, uintptr(unsafe.Pointer(&g.out[0])), uintptr(g.handle)); r != 0 {
		g.fail(symbols[cuDevicePrimaryCtxRetain], r, g.hint(r))
		return nil, g.err
	}
	g.context = uintptr(g.out[0])
	g.do(cuStreamCreate, g.result(), streamNonBlocking)
	g.stream = uintptr(g.out[0])
	g.openSide()
	g.do(cuDeviceGetAttribute, g.result(), attributeMultiprocs, uintptr(g.handle))
	g.multi = int(int32(g.out[0])) //nolint:gosec // the driver wrote 32 bits
	if err := g.err; err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// turnedOn reads a variable of the environment that is unset, empty or 0 for no.
func turnedOn(name string) bool {
	v := os.Getenv(name)
	return v != "" && v != "0"
}

// close gives everything back.
func (g *gpu) close() {
	if g.context == 0 {
		return
	}
	// Closing goes on whatever fails, or failed before.
	for _, stream := range []uintptr{g.stream, g.side.stream} {
		if stream != 0 {
			g.try(cuStreamSynchronize, stream)
		}
	}
	g.printProfile()
	for _, e := range g.graphs {
		g.try(cuGraphExecDestroy, e)
	}
	for _, b := range g.blocks {
		g.try(cuMemFree, b)
	}
	for _, p := range g.pinned {
		g.try(cuMemFreeHost, p)
	}
	for _, e := range g.staging.events {
		if e != 0 {
			g.try(cuEventDestroy, e)
		}
	}
	for _, m := range g.modules {
		g.try(cuModuleUnload, m)
	}
	g.closeSide()
	if g.stream != 0 {
		g.try(cuStreamDestroy, g.stream)
	}
	call(cuDevicePrimaryCtxRelease, uintptr(g.handle))
	g.context = 0
	g.err = errors.New("cuda: the device is closed")
}

// name is the GPU in messages.
func (g *gpu) name() string { return fmt.Sprintf("cuda:%d %s", g.info.Index, g.info.Name) }

// fail keeps the first error.
func (g *gpu) fail(call string, code int, hint string) {
	if g.err == nil {
		g.err = &Error{Call: call, Device: g.name(), Name: resultName(code), Code: code, Hint: hint}
	}
}

// result clears and gives the place where a call leaves its result, g.out[0].
func (g *gpu) result() uintptr {
	g.out[0] = 0
	return uintptr(unsafe.Pointer(&g.out[0]))
}

// do calls the driver in the GPU's context. Contexts belong to threads, and
// goroutines move between those. It allocates nothing; what the arguments
// point to must be on the heap.
func (g *gpu) do(f function, args ...uintptr) {
	if g.err != nil {
		return
	}
	if r := g.try(f, args...); r != 0 {
		g.fail(symbols[f], r, g.hint(r))
	}
}

// try is do for calls whose failure is no fault.
func (g *gpu) try(f function, args ...uintptr) int { return g.tryAddress(driver.addr[f], args...) }

// tryAddress is try for the function of any library at that address.
func (g *gpu) tryAddress(f uintptr, args ...uintptr) int {
	if g.counting {
		return 0
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g.values[0] = g.context
	if r, _, _ := purego.SyscallN(driver.addr[cuCtxSetCurrent], g.values[:1]...); r != 0 {
		return int(int32(r)) //nolint:gosec // results have 32 bits
	}
	n := copy(g.values[:], args)
	r, _, _ := purego.SyscallN(f, g.values[:n]...)
	return int(int32(r)) //nolint:gosec // results have 32 bits
}

// hint says what a result of the driver is likely about.
func (g *gpu) hint(code int) string {
	switch {
	case code == resultOutOfMemory && g.context != 0:
		return hints[code] + "; if not, " + g.lower
	case code < resultFirstFault || code > resultLastFault:
		return hints[code]
	}
	// A kernel's fault, seen at a later call.
	if g.careful {
		return "in kernel " + g.last
	}
	latest := g.last
	if g.recorded != "" {
		latest = "in " + g.recorded
	}
	return "a kernel failed, at the latest " + latest + "; set SPINNET_CUDA_SYNC=1 to learn which"
}

// malloc takes device memory, zeroed. Its failure says how much was asked for.
func (g *gpu) malloc(bytes int) uintptr {
	if g.err != nil || bytes == 0 {
		return 0
	}
	if r := g.try(cuMemAlloc, g.result(), uintptr(bytes)); r != 0 {
		free := ""
		if g.try(cuMemGetInfo, uintptr(unsafe.Pointer(&g.out[0])), uintptr(unsafe.Pointer(&g.out[1]))) == 0 {
			free = fmt.Sprintf(", %s of %s free", bytesText(g.out[0]), bytesText(g.out[1]))
			if others := int64(g.out[1] - g.out[0] - g.used); others > 2e9 { // more than the driver takes for us
				free += ", " + bytesText(uint64(others)) + " taken by others"
			}
		}
		hint := g.hint(r)
		if r == resultOutOfMemory {
			hint = fmt.Sprintf("%s more needed beside the %s taken%s; %s",
				bytesText(uint64(bytes)), bytesText(g.used), free, g.lower)
		}
		g.fail(symbols[cuMemAlloc], r, hint)
		return 0
	}
	p := uintptr(g.out[0])
	if g.counting {
		p = 1<<40 + uintptr(g.used+255)&^255 // unlike any other
	} else {
		g.blocks = append(g.blocks, p)
	}
	g.used += uint64(bytes)
	g.do(cuMemsetD8Async, p, 0, uintptr(bytes), g.stream)
	return p
}

// bytesText is a size in the unit that suits it.
func bytesText(n uint64) string {
	switch f := float64(n); {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", f/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", f/1e6)
	}
	return fmt.Sprintf("%.1f kB", float64(n)/1e3)
}

// pin takes host memory that the GPU can read and write while the host goes on.
func (g *gpu) pin(bytes int) []byte {
	if g.err != nil || g.counting {
		return make([]byte, bytes)
	}
	if r := g.try(cuMemAllocHost, g.result(), uintptr(bytes)); r != 0 {
		hint := g.hint(r)
		if r == resultOutOfMemory {
			hint = bytesText(uint64(bytes)) + " of the machine's own memory, not to be swapped, are needed"
		}
		g.fail(symbols[cuMemAllocHost], r, hint)
		return make([]byte, bytes)
	}
	p := uintptr(g.out[0])
	g.pinned = append(g.pinned, p)
	return unsafe.Slice((*byte)(pointer(p)), bytes)
}

// sync waits for the stream.
func (g *gpu) sync() { g.do(cuStreamSynchronize, g.stream) }

// clear zeroes device memory.
func (g *gpu) clear(p uintptr, bytes int) {
	if bytes > 0 {
		g.do(cuMemsetD8Async, p, 0, uintptr(bytes), g.stream)
	}
}

// upload copies host memory to the device and waits.
func (g *gpu) upload(dst uintptr, src unsafe.Pointer, bytes int) {
	if bytes > 0 {
		g.hold = src
		g.do(cuMemcpyHtoDAsync, dst, uintptr(src), uintptr(bytes), g.stream)
		g.sync()
		g.hold = nil
	}
}

// constant puts bytes into device memory for good.
func (g *gpu) constant(b []byte) uintptr {
	p := g.malloc(len(b))
	g.upload(p, unsafe.Pointer(&b[0]), len(b))
	return p
}

// download copies device memory to the host and waits.
func (g *gpu) download(dst unsafe.Pointer, src uintptr, bytes int) {
	if bytes > 0 {
		g.hold = dst
		g.do(cuMemcpyDtoHAsync, uintptr(dst), src, uintptr(bytes), g.stream)
		g.sync()
		g.hold = nil
	}
}

// staging is a ring of pinned buffers, all of one size, through which small
// uploads go without the host waiting: for the GPU's copy out of a buffer it
// waits only when the ring comes round to it.
type staging struct {
	memory []byte
	size   int                   // of a buffer
	events [stagingSlots]uintptr // of each buffer's copy
	next   int
}

const stagingSlots = 16

// stage copies data to the device in stream order; the host may change data
// at once.
func (g *gpu) stage(dst uintptr, data []byte) {
	if len(data) == 0 {
		return
	}
	s := &g.staging
	if s.size < len(data) {
		g.growStaging(len(data))
	}
	if g.err != nil {
		return
	}
	event, buffer := s.events[s.next], s.memory[s.next*s.size:][:len(data)]
	s.next = (s.next + 1) % stagingSlots
	g.do(cuEventSynchronize, event) // done at once when never recorded
	copy(buffer, data)
	g.do(cuMemcpyHtoDAsync, dst, uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(data)), g.stream)
	g.do(cuEventRecord, event, g.stream)
}

// growStaging makes buffers of at least that size, at a run's first step.
func (g *gpu) growStaging(bytes int) {
	s := &g.staging
	for i, e := range s.events {
		if e == 0 {
			g.do(cuEventCreate, g.result(), eventDisableTiming)
			s.events[i] = uintptr(g.out[0])
		}
	}
	g.sync() // the copies out of the old buffers
	s.size = max(4096, (bytes+63)/64*64)
	s.memory = g.pin(stagingSlots * s.size)
}

// bytesOf is a slice's memory.
func bytesOf[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}
