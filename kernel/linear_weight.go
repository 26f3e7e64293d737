package kernel

import "unsafe"

// weightTask is BackwardWeight of the fast algebras. The rows are split into
// a number of ranges that depends on their count only; each range has its
// own sums, which are folded into g afterwards in order. So no result
// depends on the threads.
type weightTask struct {
	l       *Linear
	p       *Pool
	g       []float32
	a, b    []float32 // [m, 8·rows], [m, 8·cols]
	m       int
	acc     bool
	ranges  int
	sums    []float32 // [range][hat, terms][8][rows][colPad]
	rows    int       // of a gradient block
	cols    int
	folding bool
	swapped bool // a is the input, b the output gradient (transposed layers)
	chunk   int  // rows of data a pass
}

const weightFoldRows = 8

// weightRanges depends on m only.
func weightRanges(m int) int {
	n := 1
	for n < 4 && m/(2*n) >= 128 {
		n *= 2
	}
	return n
}

func (l *Linear) runWeight(p *Pool, g, dy, x []float32, m int, acc bool) {
	if m == 0 {
		if !acc {
			clear(g[:8*l.N*l.K])
		}
		return
	}
	s := tiles()
	k := &p.tasks().weight
	*k = weightTask{l: l, p: p, g: g[:8*l.N*l.K], a: dy[:m*8*l.N], b: x[:m*8*l.K], m: m, acc: acc, rows: l.N, cols: l.K, ranges: weightRanges(m), chunk: 128}
	if l.transposed {
		k.swapped = true
		k.a, k.b, k.rows, k.cols = k.b, k.a, k.cols, k.rows
	}
	k.sums = grow(&l.sums, k.ranges*16*k.rows*((k.cols+s.lanes-1)/s.lanes*s.lanes))
	p.Run(k.ranges, k)
	k.folding = true
	p.Run((k.rows+weightFoldRows-1)/weightFoldRows, k)
	*k = weightTask{}
}

// Do sums up one range of rows, or folds a few rows of all gradient blocks.
func (k *weightTask) Do(i, worker int) {
	if k.folding {
		k.fold(i*weightFoldRows, min(k.rows, (i+1)*weightFoldRows), worker)
		return
	}
	r0, r1 := k.m*i/k.ranges, k.m*(i+1)/k.ranges
	for r := r0; r < r1; r += k.chunk {
		k.add(i, r, min(r1, r+k.chunk), r == r0, worker)
	}
}

// slab is the floats of one part of n rows, pad wide each, in scratch. It is
// an odd number of cache lines, so that the 8 parts of a row do not fall into
// the same cache set.
func slab(n, pad int) int { return (n*pad+15)/16*16 | 16 }

// transform writes x̂ and, when there are terms, rawScale·x of rows r0…r1 of
// parts [8·width] to scratch as [part slab][row][pad].
func (k *weightTask) transform(x []float32, width, pad, r0, r1 int, scale [8]float32, rawScale float32, hat, raw []float32, worker int) {
	s := tiles()
	h := &k.p.workers[worker].wht
	h.scale, h.rawScale = scale, rawScale
	h.src, h.srcPart = unsafe.Pointer(&x[r0*8*width]), 4*width
	h.dst, h.dstPart = unsafe.Pointer(&hat[0]), 4*slab(r1-r0, pad)
	h.rows = r1 - r0
	h.columns(s, width)
	h.srcRow = 4 * (8*width - h.vecs*s.lanes)
	h.dstRow = 4 * (pad - h.vecs*s.lanes)
	if raw == nil {
		h.do(s.wht.in)
		return
	}
	h.raw, h.rawPart, h.rawRow = unsafe.Pointer(&raw[0]), h.dstPart, h.dstRow
	h.do(s.wht.inRaw)
}

// add adds the products of rows r0…r1 to the sums of a range.
func (k *weightTask) add(i, r0, r1 int, first bool, worker int) {
	s := tiles()
	f := k.l.fast
	n := r1 - r0
	aPad := (k.rows + s.lanes - 1) / s.lanes * s.lanes
	bPad := (k.cols + s.lanes - 1) / s.lanes * s.lanes
	slabA, slabB := slab(n, aPad), slab(n, bPad)
	sizeA, sizeB := 8*slabA, 8*slabB
	ones, p := eightOnes, f.p
	if k.swapped {
		ones, p = p, ones
	}
	buf := k.p.scratch(worker, slotLinear, 3*sizeA+2*sizeB)
	cut := func(n int) []float32 {
		part := buf[:n:n]
		buf = buf[n:]
		return part
	}
	aHat, bHat := cut(sizeA), cut(sizeB)
	var aPos, aNeg, bRaw []float32
	if f.any {
		aPos, bRaw = cut(sizeA), cut(sizeB)
	}
	if f.minus {
		aNeg = cut(sizeA)
		k.transform(k.a, k.rows, aPad, r0, r1, ones, -2, aHat, aNeg, worker)
	}
	k.transform(k.a, k.rows, aPad, r0, r1, ones, 2, aHat, aPos, worker)
	k.transform(k.b, k.cols, bPad, r0, r1, p, 1, bHat, bRaw, worker)

	t := &k.p.workers[worker].tile
	t.k, t.ars, t.acs, t.bks = n, 4, 4*aPad, 4*bPad
	t.crs, t.frs = 4*bPad, 4*bPad
	width := s.panel()
	count := (k.rows + s.rows - 1) / s.rows
	sums := k.sums[i*16*k.rows*bPad:]
	t.pre = nil
	for part := range 16 {
		block := part & 7
		if part >= 8 && len(f.byBlock[block]) == 0 {
			continue
		}
		for c := 0; c < bPad; c += width {
			for q, row := 0, 0; q < count; q++ {
				mr := (k.rows - row + count - q - 1) / (count - q)
				if part < 8 {
					t.nseg = 1
					t.seg[0] = tileSeg{unsafe.Pointer(&aHat[block*slabA+row]), unsafe.Pointer(&bHat[block*slabB+c])}
				} else {
					t.nseg = len(f.byBlock[block])
					for v, m := range f.byBlock[block] {
						a, ia, ib := aPos, m.src, m.k
						if m.minus {
							a = aNeg
						}
						if k.swapped {
							ia, ib = ib, ia
						}
						t.seg[v] = tileSeg{unsafe.Pointer(&a[ia*slabA+row]), unsafe.Pointer(&bRaw[ib*slabB+c])}
					}
				}
				t.reps = 1
				t.c = unsafe.Pointer(&sums[(part*k.rows+row)*bPad+c])
				t.from = t.c
				if first {
					t.from = nil
				}
				s.do(t, mr, min(width, bPad-c))
				row += mr
			}
		}
	}
}

// fold makes rows r0…r1 of the gradient blocks from the sums of all ranges.
func (k *weightTask) fold(r0, r1, worker int) {
	s := tiles()
	f := k.l.fast
	bPad := (k.cols + s.lanes - 1) / s.lanes * s.lanes
	h := &k.p.workers[worker].wht
	h.scale = f.q
	for i := range k.ranges {
		sums := k.sums[i*16*k.rows*bPad:]
		h.src, h.srcPart = unsafe.Pointer(&sums[r0*bPad]), 4*k.rows*bPad
		h.dst, h.dstPart = unsafe.Pointer(&k.g[r0*k.cols]), 4*k.rows*k.cols
		h.rows = r1 - r0
		h.columns(s, k.cols)
		h.srcRow = 4 * (bPad - h.vecs*s.lanes)
		h.dstRow = 4 * (k.cols - h.vecs*s.lanes)
		if i == 0 && !k.acc {
			h.do(s.wht.out)
		} else {
			h.do(s.wht.outAcc)
		}
		for block, terms := range f.byBlock {
			if len(terms) == 0 {
				continue
			}
			for r := r0; r < r1; r++ {
				g := k.g[(block*k.rows+r)*k.cols:][:k.cols]
				Add(g, g, sums[((8+block)*k.rows+r)*bPad:][:k.cols])
			}
		}
	}
}
