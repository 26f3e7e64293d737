package kernel

import "unsafe"

// The three products of a linear layer. The plain definitions are refGemmNT,
// refGemmNN and refGemmTN; GemmNT, GemmNN and GemmTN compute the same in
// tiles, in an order that depends on the shapes only.

// refGemmNT: C[m,n] = A[m,k]·B[n,k]ᵀ (+ C when acc).
func refGemmNT(c, a, b []float32, m, n, k int, acc bool) {
	for i := range m {
		for j := range n {
			var s float32
			if acc {
				s = c[i*n+j]
			}
			for q := range k {
				s += a[i*k+q] * b[j*k+q]
			}
			c[i*n+j] = s
		}
	}
}

// refGemmNN: C[m,n] = A[m,k]·B[k,n] (+ C when acc).
func refGemmNN(c, a, b []float32, m, n, k int, acc bool) {
	for i := range m {
		row := c[i*n : i*n+n]
		if !acc {
			clear(row)
		}
		for q := range k {
			s := a[i*k+q]
			for j, v := range b[q*n : q*n+n] {
				row[j] += s * v
			}
		}
	}
}

// refGemmTN: C[m,n] = A[k,m]ᵀ·B[k,n] (+ C when acc).
func refGemmTN(c, a, b []float32, m, n, k int, acc bool) {
	for i := range m {
		row := c[i*n : i*n+n]
		if !acc {
			clear(row)
		}
		for q := range k {
			s := a[q*m+i]
			for j, v := range b[q*n : q*n+n] {
				row[j] += s * v
			}
		}
	}
}

// Blocking. A block of k steps of one B panel should stay in the first-level
// cache while the row tiles pass over it, and a block of A in the second.
const (
	gemmKC    = 256  // k steps a pass
	gemmKPack = 1024 // k steps of B packed at a time, a multiple of gemmKC
	gemmNPack = 2048 // columns of B packed at a time, a multiple of every panel
	gemmRows  = 112  // rows of A a pass, about
)

// gemmTask is one GEMM in progress: B is packed into panels, then blocks of
// rows are computed, for each piece of k and n.
type gemmTask struct {
	p        *Pool
	kind     gemmKind
	c, a, b  []float32
	m, n, k  int
	acc      bool
	packing  bool
	packed   []float32 // [panel][kc][panel width]
	k0, kc   int
	n0, nc   int
	rowBlock int
}

type gemmKind uint8

const (
	gemmNT gemmKind = iota
	gemmNN
	gemmTN
)

// GemmNT computes C[m,n] = A[m,k]·B[n,k]ᵀ, added to C when acc.
func GemmNT(p *Pool, c, a, b []float32, m, n, k int, acc bool) {
	p.runGemm(gemmNT, c, a, b, m, n, k, acc)
}

// GemmNN computes C[m,n] = A[m,k]·B[k,n], added to C when acc.
func GemmNN(p *Pool, c, a, b []float32, m, n, k int, acc bool) {
	p.runGemm(gemmNN, c, a, b, m, n, k, acc)
}

// GemmTN computes C[m,n] = A[k,m]ᵀ·B[k,n], added to C when acc.
func GemmTN(p *Pool, c, a, b []float32, m, n, k int, acc bool) {
	p.runGemm(gemmTN, c, a, b, m, n, k, acc)
}

func (p *Pool) runGemm(kind gemmKind, c, a, b []float32, m, n, k int, acc bool) {
	c, a, b = c[:m*n], a[:m*k], b[:n*k]
	if m == 0 || n == 0 {
		return
	}
	if k == 0 {
		if !acc {
			clear(c)
		}
		return
	}
	g := &p.gemm
	*g = gemmTask{p: p, kind: kind, c: c, a: a, b: b, m: m, n: n, k: k, acc: acc, packed: g.packed}
	width := tiles().panel()
	blocks := splitRows(m, gemmRows, p.Threads())
	g.rowBlock = (m + blocks - 1) / blocks
	for g.n0 = 0; g.n0 < n; g.n0 += gemmNPack {
		g.nc = min(gemmNPack, n-g.n0)
		panels := (g.nc + width - 1) / width
		for g.k0 = 0; g.k0 < k; g.k0 += gemmKPack {
			g.kc = min(gemmKPack, k-g.k0)
			grow(&g.packed, panels*width*g.kc)
			g.packing = true
			p.Run(panels, g)
			g.packing = false
			p.Run((m+g.rowBlock-1)/g.rowBlock, g)
		}
	}
	*g = gemmTask{packed: g.packed}
}

// splitRows is the number of blocks of about size rows, such that threads
// get equally many.
func splitRows(rows, size, threads int) int {
	blocks := (rows + size - 1) / size
	blocks = (blocks + threads - 1) / threads * threads
	return max(1, min(blocks, (rows+13)/14))
}

// Do packs one panel of B or computes one block of rows.
func (g *gemmTask) Do(i, worker int) {
	if g.packing {
		g.packPanel(i, worker)
		return
	}
	s := tiles()
	width := s.panel()
	t := &g.p.workers[worker].tile
	r0, r1 := i*g.rowBlock, min(g.m, (i+1)*g.rowBlock)
	rows := r1 - r0
	count := (rows + s.rows - 1) / s.rows // of row tiles, as equal as can be
	for kk := 0; kk < g.kc; kk += gemmKC {
		kc := min(gemmKC, g.kc-kk)
		t.nseg, t.k, t.bks, t.crs, t.frs = 1, kc, 4*width, 4*g.n, 4*g.n
		a := g.packA(worker, r0, r1, g.k0+kk, kc, t)
		start := g.acc || g.k0+kk > 0
		for j := 0; j < g.nc; j += width {
			panel := unsafe.Pointer(&g.packed[j*g.kc+kk*width])
			for q, row := 0, 0; q < count; q++ {
				mr := (rows - row + count - q - 1) / (count - q)
				t.seg[0] = tileSeg{unsafe.Add(a, row*t.ars), panel}
				t.c = unsafe.Pointer(&g.c[(r0+row)*g.n+g.n0+j])
				t.from = nil
				if start {
					t.from = t.c
				}
				t.reps = 1
				s.do(t, mr, min(width, g.nc-j))
				row += mr
			}
		}
	}
}

// packA copies rows r0…r1 of A, k steps k0…k0+kc, to where neither caches
// nor address translation suffer from the stride, and sets A's strides.
func (g *gemmTask) packA(worker, r0, r1, k0, kc int, t *tileArgs) unsafe.Pointer {
	rows := r1 - r0
	if g.kind == gemmTN {
		ld := rows + 16
		buf := g.p.scratch(worker, slotGemmA, ld*kc)
		for q := range kc {
			copy(buf[q*ld:q*ld+rows], g.a[(k0+q)*g.m+r0:])
		}
		t.ars, t.acs = 4, 4*ld
		return unsafe.Pointer(&buf[0])
	}
	ld := kc + 16
	buf := g.p.scratch(worker, slotGemmA, ld*rows)
	for r := range rows {
		copy(buf[r*ld:r*ld+kc], g.a[(r0+r)*g.k+k0:])
	}
	t.ars, t.acs = 4*ld, 4
	return unsafe.Pointer(&buf[0])
}

// packPanel packs one panel of B: its columns side by side for each k,
// zeros where there are none.
func (g *gemmTask) packPanel(i, worker int) {
	width := tiles().panel()
	j := g.n0 + i*width
	cols := min(width, g.n-j)
	dst := g.packed[i*width*g.kc : (i+1)*width*g.kc]
	if g.kind == gemmNT {
		g.p.packTransposed(worker, dst, g.b[j*g.k+g.k0:], g.k, cols, g.kc, width)
		return
	}
	for q := range g.kc {
		row := dst[q*width : (q+1)*width]
		clear(row[copy(row, g.b[(g.k0+q)*g.n+j:][:cols]):])
	}
}

// packTransposed writes dst[k][width] from rows of src, ld floats apart:
// dst[q][j] = src[j][q] for j below cols, 0 beyond.
func (p *Pool) packTransposed(worker int, dst, src []float32, ld, cols, k, width int) {
	s := tiles()
	index := p.laneIndex(worker, ld)
	for j := 0; j < cols; j += s.lanes {
		mask, maskY := s.lastLanes(min(s.lanes, cols-j))
		s.pack((*byte)(unsafe.Pointer(&dst[j])), (*byte)(unsafe.Pointer(&src[j*ld])), (*byte)(index), 4*width, k, mask, (*byte)(maskY))
	}
}

// laneIndex makes lane l stand for row l of a matrix ld floats wide.
func (p *Pool) laneIndex(worker, ld int) unsafe.Pointer {
	index := &p.workers[worker].index
	for l := range index {
		index[l] = int32(l * ld)
	}
	return unsafe.Pointer(index)
}
