//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"embed"
	"fmt"
	"io/fs"
	"math"
	"os"
	"unsafe"
)

// compiled holds the kernels, one .fatbin a stem, each for several kinds of
// GPU, and kernels.json, which says from which sources they were made.
//
//go:embed kernels
var compiled embed.FS

// kernelFolder is the variable of the environment that names a folder of kernels
// to use instead.
const kernelFolder = "SPINNET_CUDA_KERNELS"

// kernelFiles is compiled, or the folder that kernelFolder names, to try kernels
// without building anew.
func kernelFiles() fs.FS {
	if dir := os.Getenv(kernelFolder); dir != "" {
		return os.DirFS(dir)
	}
	files, err := fs.Sub(compiled, "kernels")
	if err != nil {
		panic(err) // the path is constant
	}
	return files
}

// loadKernels loads all modules and finds the kernels in them.
func (g *gpu) loadKernels() {
	files := kernelFiles()
	names, err := fs.Glob(files, "*.fatbin")
	if err == nil && len(names) == 0 {
		if err = ErrNoKernels; os.Getenv(kernelFolder) != "" {
			err = fmt.Errorf("%w in %s (%s)", err, os.Getenv(kernelFolder), kernelFolder)
		}
	}
	if err != nil {
		g.err = err
		return
	}
	modules := map[string]uintptr{}
	for k, d := range kernelTable {
		m, ok := modules[d.stem]
		if !ok {
			m = g.loadStem(d.stem)
			modules[d.stem] = m
		}
		g.kernels[k] = g.function(m, d.name)
	}
}

// loadStem loads the compiled kernels of one source.
func (g *gpu) loadStem(stem string) uintptr {
	if g.err != nil {
		return 0
	}
	image, err := fs.ReadFile(kernelFiles(), stem+".fatbin")
	if err != nil {
		g.err = fmt.Errorf("%w: %s.fatbin is missing", ErrNoKernels, stem)
		return 0
	}
	m := g.loadModule(image)
	if g.err != nil {
		g.err = fmt.Errorf("%w (kernels %s.fatbin)", g.err, stem)
	}
	return m
}

// loadModule loads compiled code: a fatbin, a cubin, or PTX.
func (g *gpu) loadModule(image []byte) uintptr {
	if g.err != nil {
		return 0
	}
	image = append(image[:len(image):len(image)], 0) // PTX is a C string
	g.hold = unsafe.Pointer(&image[0])
	switch r := g.try(cuModuleLoadData, g.result(), uintptr(unsafe.Pointer(&image[0]))); r {
	case 0:
	case resultUnsupportedPTX, resultNoBinaryForGPU:
		g.fail(symbols[cuModuleLoadData], r, "the driver cannot use these kernels; version "+minDriverName+" or newer is needed")
	default:
		g.fail(symbols[cuModuleLoadData], r, g.hint(r))
	}
	m := uintptr(g.out[0])
	if g.err == nil {
		g.modules = append(g.modules, m)
	}
	return m
}

// function finds a kernel in a module.
func (g *gpu) function(module uintptr, name string) uintptr {
	if g.err != nil {
		return 0
	}
	cname := append([]byte(name), 0)
	g.hold = unsafe.Pointer(&cname[0])
	if r := g.try(cuModuleGetFunction, g.result(), module, uintptr(unsafe.Pointer(&cname[0]))); r != 0 {
		g.fail(symbols[cuModuleGetFunction]+" "+name, r, "the compiled kernels are of other sources")
	}
	return uintptr(g.out[0])
}

// grid is the shape of a launch: blocks, threads a block, and dynamic shared
// memory in bytes.
type grid struct {
	x, y, z, threads, shared int
}

// launch starts a kernel. Arguments are pointers, integers, and floats by
// their bits, in the order of the kernel's parameters.
func (g *gpu) launch(k kernelID, s grid, args ...uint64) {
	g.launchMaps(k, s, [4]*tensorMap{}, args...)
}

// launchMaps is launch for kernels whose first parameters are tensor maps.
func (g *gpu) launchMaps(k kernelID, s grid, maps [4]*tensorMap, args ...uint64) {
	if g.err != nil {
		return
	}
	if s.shared > 48<<10 && s.shared > g.shared[k] {
		g.do(cuFuncSetAttribute, g.kernels[k], funcMaxDynamicShared, uintptr(s.shared))
		g.shared[k] = s.shared
	}
	g.last = kernelTable[k].name
	g.launchFunction(g.kernels[k], s, startsEarly(k), maps, args...)
}

// launchConfig is CUlaunchConfig with the one attribute we use: that a kernel
// may start early.
type launchConfig struct {
	grid, block [3]uint32
	shared, _   uint32
	stream      uintptr
	attributes  unsafe.Pointer
	count, _    uint32
	id, _       uint32
	allowed     uint32
	_           [15]uint32
}

const attributeProgrammaticSerialization = 6

func (g *gpu) launchFunction(f uintptr, s grid, early bool, maps [4]*tensorMap, args ...uint64) {
	if s.x == 0 || g.err != nil {
		return
	}
	n := 0
	for ; n < len(maps) && maps[n] != nil; n++ {
		g.params[n] = uintptr(maps[n].address())
	}
	for i, a := range args {
		g.args[i] = a
		g.params[n+i] = uintptr(unsafe.Pointer(&g.args[i]))
	}
	g.enqueue(f, s, early)
}

// kernel is a kernel that is not in kernelTable.
type kernel struct {
	name string
	f    uintptr
}

// start starts a kernel whose parameters may be structs: each is given by its
// words. early: before what runs has ended; in Hopper's image the kernel itself
// waits for that.
func (g *gpu) start(k kernel, s grid, early bool, params ...[]uint64) {
	if s.x == 0 || g.err != nil {
		return
	}
	at := 0
	for i, p := range params {
		g.params[i] = uintptr(unsafe.Pointer(&g.args[at]))
		at += copy(g.args[at:], p)
	}
	g.last = k.name
	g.enqueue(k.f, s, early)
}

// word is a parameter of start: an address, or a number that is not negative.
func word[T int | int32 | uintptr](v T) []uint64 { return []uint64{uint64(v)} }

// mostBlocks is how many blocks a grid has at most in y and in z.
const mostBlocks = 1<<16 - 1

// enqueue launches a kernel with the parameters in g.params.
func (g *gpu) enqueue(f uintptr, s grid, early bool) {
	if n := max(s.y, s.z); n > mostBlocks {
		g.err = fmt.Errorf("cuda: kernel %s needs %d blocks in a row; a GPU takes %d; %s", g.last, n, mostBlocks, g.lower)
		return
	}
	if g.first == "" {
		g.first = g.last
	}
	g.recorded = ""
	g.markProfile()
	g.config = launchConfig{grid: [3]uint32{uint32(s.x), uint32(max(1, s.y)), uint32(max(1, s.z))}, block: [3]uint32{uint32(s.threads), 1, 1},
		shared: uint32(s.shared), stream: g.stream}
	if early && !g.plain && g.info.Major == 9 { // the image whose kernels wait themselves
		g.config.attributes, g.config.count = unsafe.Pointer(&g.config.id), 1
		g.config.id, g.config.allowed = attributeProgrammaticSerialization, 1
	}
	g.plain = false
	if r := g.try(cuLaunchKernelEx, uintptr(unsafe.Pointer(&g.config)), f, uintptr(unsafe.Pointer(&g.params[0])), 0); r != 0 {
		g.fail("kernel "+g.last, r, g.hint(r))
	}
	g.markProfile()
	if g.careful && !g.capturing {
		g.sync()
	}
}

// f32 is a float as an argument of launch.
func f32(x float32) uint64 { return uint64(math.Float32bits(x)) }

// i32 is an integer as an argument of launch.
func i32(n int) uint64 { return uint64(uint32(int32(n))) }
