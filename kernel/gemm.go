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
	gemmK    = 512  // k steps of B packed at a time
	gemmN    = 2048 // columns of B packed at a time, a multiple of every panel
	gemmRows = 112  // rows of A a pass, about
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
	own      []float32 // memory for packed
	k0, kc   int
	n0, nc   int
	rowBlock int
	colBlock int // columns an item computes, a multiple of the panel
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
	p.tasks().gemm.b = b[:n*k]
	p.runPacked(kind, c, a, nil, m, n, k, acc)
}

// runPacked is runGemm with B already packed by packB, or when packed is nil
// with the b of the pool's gemmTask.
func (p *Pool) runPacked(kind gemmKind, c, a, packed []float32, m, n, k int, acc bool) {
	c, a = c[:m*n], a[:m*k]
	if m == 0 || n == 0 {
		return
	}
	if k == 0 {
		if !acc {
			clear(c)
		}
		return
	}
	g := &p.tasks().gemm
	*g = gemmTask{p: p, kind: kind, c: c, a: a, b: g.b, m: m, n: n, k: k, acc: acc, own: g.own}
	width := tiles().panel()
	blocks := splitRows(m, gemmRows, p.Threads())
	g.rowBlock = (m + blocks - 1) / blocks
	blocks = (m + g.rowBlock - 1) / g.rowBlock
	for g.n0 = 0; g.n0 < n; g.n0 += gemmN {
		g.nc = min(gemmN, n-g.n0)
		panels := (g.nc + width - 1) / width
		share := splitPanels(panels, blocks, p.Threads())
		g.colBlock = share * width
		for g.k0 = 0; g.k0 < k; g.k0 += gemmK {
			g.kc = min(gemmK, k-g.k0)
			size := panels * width * g.kc
			if packed != nil {
				g.packed, packed = packed[:size], packed[size:]
			} else {
				g.packed = grow(&g.own, size)
				g.packing = true
				p.Run(g.packItems(), g)
				g.packing = false
			}
			p.Run(blocks*((panels+share-1)/share), g)
		}
	}
	*g = gemmTask{own: g.own}
}

// packB packs B of GemmNT or GemmNN once for many products.
func (p *Pool) packB(buf *[]float32, kind gemmKind, b []float32, n, k int) {
	g := &p.tasks().gemm
	*g = gemmTask{p: p, kind: kind, b: b[:n*k], n: n, k: k, own: g.own, packing: true}
	width := tiles().panel()
	to := grow(buf, (n+width-1)/width*width*k)
	for g.n0 = 0; g.n0 < n; g.n0 += gemmN {
		g.nc = min(gemmN, n-g.n0)
		for g.k0 = 0; g.k0 < k; g.k0 += gemmK {
			g.kc = min(gemmK, k-g.k0)
			size := (g.nc + width - 1) / width * width * g.kc
			g.packed, to = to[:size], to[size:]
			p.Run(g.packItems(), g)
		}
	}
	*g = gemmTask{own: g.own}
}

// splitRows is the number of blocks of about size rows, such that threads
// get equally many.
func splitRows(rows, size, threads int) int {
	blocks := (rows + size - 1) / size
	blocks = (blocks + threads - 1) / threads * threads
	return max(1, min(blocks, (rows+13)/14))
}

// splitPanels is the number of column panels an item takes: all, unless there
// are fewer blocks of rows than threads.
func splitPanels(panels, blocks, threads int) int {
	parts := (threads + blocks - 1) / blocks
	return max(1, (panels+parts-1)/parts)
}

// Do packs one panel of B or computes one block of rows.
func (g *gemmTask) Do(i, worker int) {
	if g.packing {
		g.pack(i, worker)
		return
	}
	s := tiles()
	width := s.panel()
	t := &g.p.workers[worker].tile
	shares := (g.nc + g.colBlock - 1) / g.colBlock
	n0 := i % shares * g.colBlock
	n1 := min(g.nc, n0+g.colBlock)
	i /= shares
	r0, r1 := i*g.rowBlock, min(g.m, (i+1)*g.rowBlock)
	rows := r1 - r0
	count := (rows + s.rows - 1) / s.rows // of row tiles, as equal as can be
	t.nseg, t.k, t.bks, t.crs, t.frs = 1, g.kc, 4*width, 4*g.n, 4*g.n
	a := g.packA(worker, r0, r1, t)
	start := g.acc || g.k0 > 0
	next := g.ahead(r0, r1, count*((n1-n0+width-1)/width))
	for j := n0; j < n1; j += width {
		panel := unsafe.Pointer(&g.packed[j*g.kc])
		for q, row := 0, 0; q < count; q++ {
			mr := (rows - row + count - q - 1) / (count - q)
			t.seg[0] = tileSeg{unsafe.Add(a, row*t.ars), panel}
			t.c = unsafe.Pointer(&g.c[(r0+row)*g.n+g.n0+j])
			t.from, t.pre, t.prerow = nil, t.c, t.crs
			if start {
				t.from, t.pre = t.c, nil
			}
			t.reps = 1
			next.step()
			s.do(t, mr, min(width, g.nc-j))
			row += mr
		}
	}
}

// ahead is the part of A a worker probably packs next, brought nearer while
// it computes.
type ahead struct {
	p                   unsafe.Pointer
	bytes, stride, rows int
	each                int // rows a step
}

// ahead of rows r0…r1, to be taken in steps.
func (g *gemmTask) ahead(r0, r1, steps int) ahead {
	n := ahead{}
	if g.kind == gemmTN {
		if k := g.k0 + g.kc; k < g.k {
			n = ahead{unsafe.Pointer(&g.a[k*g.m+r0]), 4 * (r1 - r0), 4 * g.m, min(gemmK, g.k-k), 0}
		}
	} else if r := r1; r < g.m {
		n = ahead{unsafe.Pointer(&g.a[r*g.k+g.k0]), 4 * g.kc, 4 * g.k, min(r1-r0, g.m-r), 0}
	}
	n.spread(steps)
	return n
}

// spread takes the rows in so many steps.
func (n *ahead) spread(steps int) { n.each = (n.rows + steps - 1) / steps }

func (n *ahead) step() {
	for i := 0; i < n.each && n.rows > 0; i++ {
		prefetchLines((*byte)(n.p), n.bytes)
		n.rows--
		if n.rows > 0 {
			n.p = unsafe.Add(n.p, n.stride)
		}
	}
}

// packA copies rows r0…r1 of A to where neither caches nor address
// translation suffer from the stride, and sets A's strides.
func (g *gemmTask) packA(worker, r0, r1 int, t *tileArgs) unsafe.Pointer {
	rows := r1 - r0
	if g.kind == gemmTN {
		ld := (rows+15)/16*16 | 16 // an odd number of cache lines
		buf := g.p.scratch(worker, slotGemmA, ld*g.kc)
		for q := range g.kc {
			copy(buf[q*ld:q*ld+rows], g.a[(g.k0+q)*g.m+r0:])
		}
		t.ars, t.acs = 4, 4*ld
		return unsafe.Pointer(&buf[0])
	}
	ld := g.kc + 16
	buf := g.p.scratch(worker, slotGemmA, ld*rows)
	for r := range rows {
		copy(buf[r*ld:r*ld+g.kc], g.a[(r0+r)*g.k+g.k0:])
	}
	t.ars, t.acs = 4*ld, 4
	return unsafe.Pointer(&buf[0])
}

// packItems is the number of items packing takes: panels of B where it has
// to be transposed, else blocks of its rows.
func (g *gemmTask) packItems() int {
	if g.kind == gemmNT {
		width := tiles().panel()
		return (g.nc + width - 1) / width
	}
	return (g.kc + gemmPackRows - 1) / gemmPackRows
}

const gemmPackRows = 32

// pack packs an item of B into panels: the panel's columns side by side for
// each k. Beyond the last column the contents do not matter.
func (g *gemmTask) pack(i, worker int) {
	width := tiles().panel()
	if g.kind == gemmNT {
		j := g.n0 + i*width
		dst := g.packed[i*width*g.kc : (i+1)*width*g.kc]
		g.p.packTransposed(worker, dst, g.b[j*g.k+g.k0:], g.k, min(width, g.n0+g.nc-j), g.kc, width)
		return
	}
	for q := i * gemmPackRows; q < min(g.kc, (i+1)*gemmPackRows); q++ {
		row := g.b[(g.k0+q)*g.n+g.n0:][:g.nc]
		for j := 0; j < len(row); j += width {
			copy(g.packed[j*g.kc+q*width:][:width], row[j:])
		}
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
