//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import "spinnet/tensor"

// octonionChunk is how many rows of tiles of m rows of x make a chunk of
// octonion.cuh: the more the quicker on an H100 (docs/benchmarks-gpu.md), but some chunks
// there must be for the transforms of one to go on beside the products of another.
func octonionChunk(m int) int { return min(16, max(4, per(m, 4*128))) }

// octonionSplits is into how many parts the rows are cut for a weight's gradient,
// at most, so that there are tiles enough for all multiprocessors.
const octonionSplits = 2

// octonionForward is the forward of a wide octonion layer.
func (d *Device) octonionForward(y, x uintptr, s *weight, m int) {
	d.octonionProduct(octonion90NT, y, x, s.d, s.scale, s, m, s.out, s.in, false)
}

// octonionBackward gives dx, or adds it, and adds to the folded gradient. Both
// kernels need all multiprocessors, so neither goes aside.
func (d *Device) octonionBackward(dx uintptr, acc bool, dy, x uintptr, w *tensor.Weight, m int) {
	s := state(w)
	d.octonionProduct(octonion90NN, dx, dy, s.dg, 0, s, m, s.in, s.out, acc)

	xh, gh := d.need(scratchWalshX, 16*m*s.in), d.need(scratchWalshDY, 16*m*s.out)
	chunk := octonionChunk(m)
	chunks := per(m, 128*chunk)
	each := per(chunks, octonionSplits)
	splits := per(chunks, each)
	p := d.need(scratchParts, 4*16*splits*s.out*s.in)
	d.launchMaps(octonion90TN, grid{x: d.multi, threads: 384, shared: 197632},
		[4]*tensorMap{d.partsOf(x, m, s.in), d.partsOf(dy, m, s.out), d.partsOf(xh, m, s.in), d.partsOf(gh, m, s.out)},
		uint64(x), uint64(dy), uint64(xh), uint64(gh), uint64(p), uint64(d.octonionCounters(m)), i32(m), i32(s.out), i32(s.in),
		i32(chunk), i32(each), i32(splits))
	d.foldWalsh(w, p, splits)
}

// octonionProduct launches a kernel for y or dx: parts of y are n wide, of x k. The
// transforms of a few chunks are in scratch memory at a time.
func (d *Device) octonionProduct(kernel kernelID, y, x, w, scale uintptr, s *weight, m, n, k int, add bool) {
	const keepX, keepP = 3, 4 // as octonion.cuh has them
	chunk := octonionChunk(m)
	xh := d.need(scratchWalshX, 16*keepX*128*chunk*k)
	p := d.need(scratchWalshY, 16*keepP*128*chunk*n)
	d.launchMaps(kernel, grid{x: d.multi, threads: 384, shared: 197632},
		[4]*tensorMap{d.partsOf(x, m, k), d.partsOf(xh, keepX*128*chunk, k), d.mapOf(mapKey{w, s.out, s.in, s.in, 16, s.out * s.in, 64})},
		uint64(x), uint64(xh), uint64(p), uint64(y), uint64(scale), uint64(d.octonionCounters(m)), i32(m), i32(n), i32(k), i32(chunk), flag(add))
}

// octonionCounters are zeros, which the kernels leave as zeros.
func (d *Device) octonionCounters(m int) uintptr {
	return d.need(scratchCounters, 4*(2+3*per(m, 128*octonionChunk(m))))
}
