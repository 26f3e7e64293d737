package kernel

import (
	"unsafe"

	"spinnet/algebra"
)

// The fast product of the 8-dimensional algebras (algebra.Fast): with
// x̂ = H·(P∘x) and Ŵ = H·(Q∘W)/8,
//
//	y = H·(x̂_k Ŵ_kᵀ) + Σ over terms (i, j) of 2·Sign[i][j] · x_j W_{i xor j}ᵀ into y_i
//
// 30 block products for the octonions, 8 for the Walsh algebra, in place of
// 64. With Ĝ = H·dy the backward takes the same:
//
//	dx = P∘(H·(Ĝ_k Ŵ_k)) + Σ terms into dx_j,  dW = Q∘(H·(Ĝ_kᵀ x̂_k))/8 + Σ terms into dW_{i xor j}

// term is one product of parts: of source part src with weight block k in
// forward and backward input, of parts i and j in the weights' gradient.
type term struct {
	src, k int
	minus  bool
}

// fastTerms groups the terms by what they are added to.
type fastTerms struct {
	byOut   [8][]term // y_i: x_src · W_k
	byIn    [8][]term // dx_j: dy_src · W_k
	byBlock [8][]term // dW_k: src is i, k is j
	any     bool
	minus   bool // some term is subtracted
	p, q    [8]float32
}

func newFastTerms(t *algebra.Table) *fastTerms {
	f := t.Fast()
	var out fastTerms
	for i := range 8 {
		out.p[i], out.q[i] = float32(f.P[i]), float32(f.Q[i])/8
	}
	for _, m := range f.Terms {
		minus := t.Sign[m.I][m.J] < 0
		k := m.I ^ m.J
		out.byOut[m.I] = append(out.byOut[m.I], term{m.J, k, minus})
		out.byIn[m.J] = append(out.byIn[m.J], term{m.I, k, minus})
		out.byBlock[k] = append(out.byBlock[k], term{m.I, m.J, minus})
		out.any = true
		out.minus = out.minus || minus
	}
	return &out
}

var eightOnes = [8]float32{1, 1, 1, 1, 1, 1, 1, 1}

// panels are packed weight blocks: for each column panel the 8 blocks, each
// [in][panel width], columns being outputs. pos and neg are ±2 times the
// blocks themselves, for the terms.
type panels struct {
	in, out       int
	hat, pos, neg []float32
}

// packTask packs one column panel an item.
type packTask struct {
	scale      []float32 // scaling first: one block of w an item, into l.scaled
	l          *Linear
	p          *Pool
	w          []float32 // [8, rows, cols]
	to         *panels
	transposed bool // columns of the panel are rows of w
	minus      bool // write neg
}

func (l *Linear) packPanels(p *Pool, to *panels, w, scale []float32, in, out int, transposed bool) {
	if scale != nil {
		grow(&l.scaled, 8*in*out)
		p.tasks().pack = packTask{l: l, w: w, scale: scale}
		p.Run(8, &p.tasks().pack)
		w = l.scaled
	}
	width := tiles().panel()
	to.in, to.out = in, out
	size := (out + width - 1) / width * 8 * in * width
	grow(&to.hat, size)
	if l.fast.any {
		grow(&to.pos, size)
	}
	if l.fast.minus {
		grow(&to.neg, size)
	}
	p.tasks().pack = packTask{l: l, p: p, w: w[:8*in*out], to: to, transposed: transposed}
	p.Run((out+width-1)/width, &p.tasks().pack)
	if l.fast.minus {
		p.tasks().pack.minus = true
		p.Run((out+width-1)/width, &p.tasks().pack)
	}
	p.tasks().pack = packTask{}
}

// Do packs column panel i.
func (k *packTask) Do(i, worker int) {
	if k.scale != nil {
		n := k.l.N * k.l.K
		scaleBlock(k.l.scaled[i*n:(i+1)*n], k.w[i*n:(i+1)*n], k.scale, k.l.N, k.l.K, k.l.transposed)
		return
	}
	s := tiles()
	width, vec := s.panel(), 4*s.lanes
	in, out := k.to.in, k.to.out
	j, base := i*width, i*8*in*width
	t := &k.p.workers[worker].wht
	t.scale = k.l.fast.q
	t.srcPart, t.dstPart, t.rawPart = 4*in*out, 4*in*width, 4*in*width
	raw, f, gather := k.to.pos, s.wht.in, s.wht.gather
	t.rawScale = 2
	if k.minus {
		raw, t.rawScale = k.to.neg, -2
	}
	if raw != nil {
		f, gather = s.wht.inRaw, s.wht.gatherRaw
	}
	place := func(col int) {
		t.rows = in
		t.dst = unsafe.Pointer(&k.to.hat[base+col])
		if raw != nil {
			t.raw = unsafe.Pointer(&raw[base+col])
		}
	}
	cols := min(width, out-j)
	if !k.transposed {
		place(0)
		t.columns(s, cols)
		t.src, t.srcRow = unsafe.Pointer(&k.w[j]), 4*out-t.vecs*vec
		t.dstRow = 4*width - t.vecs*vec
		t.rawRow = t.dstRow
		t.do(f)
		return
	}
	t.index = k.p.laneIndex(worker, in)
	for c := 0; c < cols; c += s.lanes {
		place(c)
		t.columns(s, min(s.lanes, cols-c))
		t.src, t.srcRow = unsafe.Pointer(&k.w[(j+c)*in]), 4
		t.dstRow = 4*width - vec
		t.rawRow = t.dstRow
		t.do(gather)
	}
}

// fastRows is the number of rows a forward item takes, about.
const fastRows = 56

// fastTask is Forward, or with the roles of parts exchanged BackwardInput.
type fastTask struct {
	p                 *Pool
	out, in           []float32
	m, rowBlock       int
	share             int // column panels an item takes
	w                 *panels
	terms             *[8][]term
	any, acc          bool
	inScale, outScale [8]float32
}

func (l *Linear) runFast(p *Pool, out, in []float32, m int, w *panels, terms *[8][]term, inScale, outScale [8]float32, acc bool) {
	if w.out == 0 {
		panic("kernel: Linear used before it was packed")
	}
	if m == 0 {
		return
	}
	blocks := splitRows(m, fastRows, p.Threads())
	rowBlock := (m + blocks - 1) / blocks
	blocks = (m + rowBlock - 1) / rowBlock
	width := tiles().panel()
	panels := (w.out + width - 1) / width
	share := splitPanels(panels, blocks, p.Threads())
	p.tasks().fast = fastTask{p, out[:m*8*w.out], in[:m*8*w.in], m, rowBlock, share, w, terms, l.fast.any, acc, inScale, outScale}
	p.Run(blocks*((panels+share-1)/share), &p.tasks().fast)
	p.tasks().fast = fastTask{}
}

// Do computes one block of rows: transforms them, and for each column panel
// and row tile does the 8 products, transforms back into out and adds the
// terms there, while all of it is in the first-level cache.
func (k *fastTask) Do(i, worker int) {
	s := tiles()
	width, vec := s.panel(), 4*s.lanes
	in, out := k.w.in, k.w.out
	cols := k.share * width // of an item
	shares := (out + cols - 1) / cols
	c0 := i % shares * cols
	c1 := min(out, c0+cols)
	i /= shares
	r0, r1 := i*k.rowBlock, min(k.m, (i+1)*k.rowBlock)
	rows := r1 - r0
	inPad := (in + s.lanes - 1) / s.lanes * s.lanes
	ld := 8*inPad + 16 // off the powers of two, which share cache sets

	hat := k.p.scratch(worker, slotLinear, rows*ld)
	h := &k.p.workers[worker].wht
	h.scale, h.rawScale = k.inScale, 1
	h.src, h.srcPart = unsafe.Pointer(&k.in[r0*8*in]), 4*in
	h.dst, h.dstPart = unsafe.Pointer(&hat[0]), 4*inPad
	h.rows = rows
	h.columns(s, in)
	h.srcRow = 4*8*in - h.vecs*vec
	h.dstRow = 4*ld - h.vecs*vec
	raw, rawLd, rawPart := k.in[r0*8*in:], 8*in, in
	if k.any && 4*rawLd%4096 == 0 {
		// Rows a page apart would share a few cache sets: read a copy.
		raw, rawLd, rawPart = k.p.scratch(worker, slotLinear2, rows*ld), ld, inPad
		h.raw, h.rawPart, h.rawRow = unsafe.Pointer(&raw[0]), h.dstPart, h.dstRow
		h.do(s.wht.inRaw)
	} else {
		h.do(s.wht.in)
	}

	products := k.p.scratch(worker, slotLinear3, 8*s.rows*width)
	back := s.wht.out
	if k.acc {
		back = s.wht.outAcc
	}
	h.scale = k.outScale
	t := &k.p.workers[worker].tile
	t.k, t.acs, t.bks = in, 4, 4*width
	count := (rows + s.rows - 1) / s.rows
	block := in * width // of one packed weight block
	for j := c0; j < c1; j += width {
		cols := min(width, out-j)
		panel := j / width * 8 * block
		for q, row := 0, 0; q < count; q++ {
			mr := (rows - row + count - q - 1) / (count - q)

			y := unsafe.Pointer(&k.out[(r0+row)*8*out+j])
			t.nseg, t.reps, t.from, t.ars = 1, 8, nil, 4*ld
			t.pre, t.prerow, t.prerep = y, 4*8*out, 4*out
			t.seg[0] = tileSeg{unsafe.Pointer(&hat[row*ld]), unsafe.Pointer(&k.w.hat[panel])}
			t.c, t.crs = unsafe.Pointer(&products[0]), 4*width
			t.arep, t.brep, t.crep = 4*inPad, 4*block, 4*mr*width
			s.do(t, mr, (cols+s.lanes-1)/s.lanes*s.lanes)

			h.src, h.srcPart = unsafe.Pointer(&products[0]), 4*mr*width
			h.dst, h.dstPart = y, 4*out
			h.rows = mr
			h.columns(s, cols)
			h.srcRow = 4*width - h.vecs*vec
			h.dstRow = 4*8*out - h.vecs*vec
			h.do(back)

			if k.any {
				t.crs, t.frs, t.ars, t.pre = 4*8*out, 4*8*out, 4*rawLd, nil
				for part, terms := range k.terms {
					if len(terms) == 0 {
						continue
					}
					t.nseg, t.reps = len(terms), 1
					for n, m := range terms {
						from := k.w.pos
						if m.minus {
							from = k.w.neg
						}
						t.seg[n] = tileSeg{unsafe.Pointer(&raw[row*rawLd+m.src*rawPart]), unsafe.Pointer(&from[panel+m.k*block])}
					}
					t.c = unsafe.Add(y, part*4*out)
					t.from = t.c
					s.do(t, mr, cols)
				}
			}
			row += mr
		}
	}
}
