package kernel

import (
	"fmt"
	"runtime/debug"
	"syscall"
	"testing"
	"unsafe"
)

// fence hands out memory between pages that must not be touched: with atEnd
// its last byte is the last before one, else its first the first after one.
type fence struct {
	t     *testing.T
	atEnd bool
	maps  [][]byte
}

func (f *fence) bytes(n int) []byte {
	f.t.Helper()
	page := syscall.Getpagesize()
	inside := max(1, (n+page-1)/page) * page
	m, err := syscall.Mmap(-1, 0, inside+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		f.t.Skip(err)
	}
	f.maps = append(f.maps, m)
	for _, outside := range [][]byte{m[:page], m[page+inside:]} {
		if err := syscall.Mprotect(outside, syscall.PROT_NONE); err != nil {
			f.t.Skip(err)
		}
	}
	if f.atEnd {
		return m[page+inside-n : page+inside : page+inside]
	}
	return m[page : page+n : page+n]
}

// floats is a fenced slice of random values.
func (f *fence) floats(n int) []float32 {
	b := f.bytes(4 * n)
	if n == 0 {
		return []float32{}
	}
	x := unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), n)
	copy(x, randomFloats(n, uint64(len(f.maps))))
	return x
}

func (f *fence) int8s(n int) []int8 {
	return unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(f.bytes(n)))), n)
}

func (f *fence) int32s(n int) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(f.bytes(4*n)))), n)
}

// TestNothingOutside runs the kernels on operands that end where a page ends
// or begin where one begins, so that reading beyond them faults too.
func TestNothingOutside(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	p := testPool(t, 1) // the caller does all items, where a fault is a panic
	try := func(t *testing.T, name string, run func(f *fence)) {
		t.Helper()
		for _, atEnd := range []bool{false, true} {
			f := &fence{t: t, atEnd: atEnd}
			func() {
				defer func() {
					if e := recover(); e != nil {
						t.Errorf("%s, operands at the end of a page %v: %v", name, atEnd, e)
					}
				}()
				run(f)
			}()
			for _, m := range f.maps {
				syscall.Munmap(m)
			}
		}
	}
	eachSet(t, func(t *testing.T) {
		for _, c := range vectorCases {
			for _, n := range []int{1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 50, 64, 70, 127} {
				try(t, fmt.Sprintf("%s of %d", c.name, n), func(f *fence) {
					var x, y [][]float32
					for range c.in {
						x = append(x, f.floats(n))
					}
					for range c.out {
						y = append(y, f.floats(n))
					}
					c.run(vector(), y, x)
				})
			}
		}
		for half := 1; half < 20; half++ {
			try(t, fmt.Sprintf("rotation of %d pairs", half), func(f *fence) {
				x, cos, sin := f.floats(6*half), f.floats(half), f.floats(half)
				vector().rotate(x, cos, sin)
				vector().rotateBack(x, cos, sin)
			})
		}
		for cols := range 70 {
			try(t, fmt.Sprintf("int8 product of %d columns", cols), func(f *fence) {
				for rows := range 6 {
					MatVecInt8(f.int32s(rows), f.int8s(rows*cols), f.int8s(cols), rows, cols)
					MatMulInt8(new(Int8Scratch), f.int32s(32*rows*3), 32*rows, f.int8s(32*rows*cols), f.int8s(3*cols), 32*rows, cols, 3)
				}
			})
		}
		for groups := 1; groups < 18; groups++ {
			for kind, bits := range []int{4, 6} {
				try(t, fmt.Sprintf("%d groups of %d bits", groups, bits), func(f *fence) {
					for rows := 1; rows < 6; rows++ {
						low, high, factors := f.bytes(16*groups*rows), f.bytes(8*groups*rows), f.bytes(groups*rows)
						g := Grouped{Cols: 32*groups - groups%3, Bits: bits, Low: low, High: high, Factors: factors}
						input := f.int8s(g.InputLen())
						g.Input(input, f.int8s(g.Cols))
						g.MatVec(f.int32s(rows), input, 0)
						g.Expand(f.int8s(rows*g.Cols), 0)
						if blocks := groups * rows / 4; blocks > 0 {
							grouped().expand[kind](f.int8s(128*blocks), low, high, factors, blocks)
						}
					}
				})
			}
		}
		for n := range 70 {
			try(t, fmt.Sprintf("exact steps of %d", n), func(f *fence) {
				e, x, y, q := exact(), f.floats(n), f.floats(n), f.int8s(n)
				e.sumSquares(x)
				ArgMax(x)
				vector().indexOf(x, 1e9)
				e.quantize8(q, x, 3)
				e.scaleInt32(y, n, f.int32s(n), n, 1, 2, x)
				e.swiglu(y, x, f.floats(n))
				e.exp(y, x)
				e.expScaled(y, x, 3, 1)
				e.embedding8(y, q, 2)
				if n > 0 {
					e.rotate(f.floats(6*n), x, y)
					whole := (n + ExactBlock - 1) / ExactBlock * ExactBlock
					e.scores(f.floats(whole), f.floats(18), f.floats(18*whole), 1)
				}
				int8Tiles().sum(q)
				int8Tiles().expand(f.int8s(4*n), f.int8s(2*n), f.int8s(4), 2, n, 2*n)
				e.values(y, f.floats(3), f.floats(3*n))
				e.values8(y, f.floats(3), f.int8s(3*n))
			})
		}
		for mr := 1; mr <= 14; mr++ {
			for _, k4 := range []int{1, 2, 3, 4, 5, 7, 8, 64, 65} {
				try(t, fmt.Sprintf("int8 tile of %d rows, depth %d", mr, k4), func(f *fence) {
					tiles := int8Tiles()
					width := 2 * tiles.lanes
					for _, run := range [][]func(*byte){tiles.narrow, tiles.wide} {
						if mr < len(run) {
							run[mr]((*byte)(unsafe.Pointer(&int8TileArgs{
								a: unsafe.Pointer(&f.bytes(4 * k4 * mr)[0]), lda: 4 * k4, k4: k4, b: unsafe.Pointer(&f.bytes(4 * k4 * width)[0]),
								c: unsafe.Pointer(&f.bytes(4 * width * mr)[0]), ldc: 4 * width, start: unsafe.Pointer(&f.bytes(4 * mr)[0]),
							})))
						}
					}
					if k4%4 == 0 && mr < len(tiles.two) {
						tiles.two[mr]((*byte)(unsafe.Pointer(&int8TileArgs{
							a: unsafe.Pointer(&f.bytes(4 * k4 * mr)[0]), lda: 4 * k4, k4: k4, b: unsafe.Pointer(&f.bytes(k4 * width)[0]),
							c: unsafe.Pointer(&f.bytes(4 * width * mr)[0]), ldc: 4 * width, start: unsafe.Pointer(&f.bytes(4 * mr)[0]),
						})))
						tiles.unpack(f.bytes(4*k4*width), f.bytes(k4*width))
					}
				})
			}
		}
		for _, s := range [][3]int{{1, 1, 1}, {3, 5, 7}, {14, 32, 16}, {15, 33, 17}, {29, 47, 9}, {6, 16, 600}} {
			m, n, k := s[0], s[1], s[2]
			try(t, fmt.Sprintf("gemm %d×%d×%d", m, n, k), func(f *fence) {
				c, a, b := f.floats(m*n), f.floats(m*k), f.floats(n*k)
				for _, acc := range []bool{false, true} {
					GemmNT(p, c, a, b, m, n, k, acc)
					GemmNN(p, c, a, b, m, n, k, acc)
					GemmTN(p, c, a, b, m, n, k, acc)
				}
			})
		}
		for _, c := range linearCases {
			try(t, fmt.Sprintf("%+v", c), func(f *fence) {
				a := table(t, c.alg)
				w, scale := f.floats(a.N*c.N*c.K), f.floats(c.N)
				x, y := f.floats(c.m*a.N*c.K), f.floats(c.m*a.N*c.N)
				for _, scale := range [][]float32{nil, scale} {
					l := NewLinear(a, c.N, c.K, c.transposed)
					l.Pack(p, w, scale)
					l.PackBackward(p, w, scale)
					l.Forward(p, y, x, c.m)
					for _, acc := range []bool{false, true} {
						l.BackwardInput(p, x, y, c.m, acc)
						l.BackwardWeight(p, w, y, x, c.m, acc)
					}
				}
			})
		}
		for _, s := range attentionCases {
			try(t, fmt.Sprintf("%+v", s), func(f *fence) {
				d := newAttentionData(s)
				for _, x := range []*[]float32{&d.q, &d.k, &d.v, &d.do, &d.o, &d.lse, &d.dq, &d.dk, &d.dv} {
					*x = f.floats(len(*x))
				}
				d.run(p, s)
			})
		}
		for _, s := range [][3]int{{1, 1, 1}, {9, 65, 17}, {16, 33, 64}} {
			m, vocab, d := s[0], s[1], s[2]
			try(t, fmt.Sprintf("cross-entropy %d×%d×%d", m, vocab, d), func(f *fence) {
				CrossEntropyForwardBackward(p, f.floats(m), f.floats(m*d), f.floats(vocab*d), f.floats(m*d), f.floats(vocab*d),
					make([]int32, m), m, vocab, d, 1)
			})
		}
	})
}
