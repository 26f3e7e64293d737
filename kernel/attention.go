package kernel

import (
	"math"
	"strconv"
	"unsafe"
)

// AttentionShape is one causal attention. KVHeads divides Heads; head h reads
// key and value head h/(Heads/KVHeads). Dropout drops weights with that
// probability, by the stream {Seed, Step, Layer, SiteDropout}.
type AttentionShape struct {
	Batch, T, Heads, KVHeads, HeadDim int
	Dropout                           float32
	Seed, Step                        uint64
	Layer                             int
}

// check returns the lengths of q and of k.
func (s *AttentionShape) check() (nq, nk int) {
	if s.Batch < 0 || s.T < 1 || s.HeadDim < 1 || s.KVHeads < 1 || s.Heads%s.KVHeads != 0 {
		panic("kernel: attention of " + strconv.Itoa(s.Heads) + " heads over " + strconv.Itoa(s.KVHeads) +
			" key heads of " + strconv.Itoa(s.HeadDim) + ", " + strconv.Itoa(s.T) + " positions")
	}
	return s.Batch * s.T * s.Heads * s.HeadDim, s.Batch * s.T * s.KVHeads * s.HeadDim
}

func (s *AttentionShape) key() Key {
	return Key{Seed: s.Seed, Step: s.Step, Layer: uint32(s.Layer), Site: SiteDropout}
}

// dropThreshold is the number below which a 32-bit draw drops a weight.
func (s *AttentionShape) dropThreshold() uint32 {
	return uint32(min(max(float64(s.Dropout), 0)*(1<<32), 1<<32-1))
}

// attentionTask is one attention in progress. An item is one key and value
// head of one sequence with the heads that read it, so that their sums have
// one order.
type attentionTask struct {
	p                               *Pool
	dq, dk, dv, do, o, lse, q, k, v []float32
	s                               AttentionShape
	backward                        bool
}

// AttentionForward is causal attention, o_i = Σ_{j≤i} softmax_j(q_i·k_j/√hd) v_j
// for q, o [B·T, Heads·hd] and k, v [B·T, KVHeads·hd]; lse [B, Heads, T]
// receives log Σ exp for the backward.
func AttentionForward(p *Pool, o, lse, q, k, v []float32, s AttentionShape) {
	nq, nk := s.check()
	o, lse, q, k, v = o[:nq], lse[:s.Batch*s.Heads*s.T], q[:nq], k[:nk], v[:nk]
	p.tasks().attention = attentionTask{p: p, o: o, lse: lse, q: q, k: k, v: v, s: s}
	p.Run(s.Batch*s.KVHeads, &p.tasks().attention)
	p.tasks().attention = attentionTask{}
}

// AttentionBackward is the gradient of AttentionForward, from do and what the
// forward read and wrote; dq, dk and dv are overwritten.
func AttentionBackward(p *Pool, dq, dk, dv, do, o, lse, q, k, v []float32, s AttentionShape) {
	nq, nk := s.check()
	dq, dk, dv, do, o = dq[:nq], dk[:nk], dv[:nk], do[:nq], o[:nq]
	lse, q, k, v = lse[:s.Batch*s.Heads*s.T], q[:nq], k[:nk], v[:nk]
	p.tasks().attention = attentionTask{p: p, dq: dq, dk: dk, dv: dv, do: do, o: o, lse: lse, q: q, k: k, v: v, s: s, backward: true}
	p.Run(s.Batch*s.KVHeads, &p.tasks().attention)
	p.tasks().attention = attentionTask{}
}

// attentionRows is about the number of query rows whose weights the backward
// holds at a time.
const attentionRows = 64

// attentionHead is what the loops over one head share.
type attentionHead struct {
	pool           *Pool
	worker         int
	set            *tileSet
	tile           *tileArgs
	t, hd, hdp     int // hdp: hd in whole vectors
	panel          int // width of a packed panel
	ld             int // of the weights' rows
	block          int // rows of the backward at a time
	scale          float32
	drop           uint32 // threshold; 0: no dropout
	keep           float32
	key            Key
	first          uint64 // index of the head's first draw
	factors, p, ds []float32
	top, sum       []float32 // of a tile's rows
}

func (t *attentionTask) Do(i, worker int) {
	s := &t.s
	b, g := i/s.KVHeads, i%s.KVHeads
	set := tiles()
	h := attentionHead{
		pool: t.p, worker: worker, set: set, tile: &t.p.workers[worker].tile,
		t: s.T, hd: s.HeadDim, hdp: roundUp(s.HeadDim, set.lanes), panel: set.panel(),
		ld:    roundUp(s.T, set.panel()) + 16,
		scale: float32(1 / math.Sqrt(float64(s.HeadDim))),
		drop:  s.dropThreshold(), keep: 1 / (1 - s.Dropout), key: s.key(),
	}
	group := s.Heads / s.KVHeads
	qw, kw := s.Heads*h.hd, s.KVHeads*h.hd
	kv := b*s.T*kw + g*h.hd
	rows, transposed := s.T*h.hdp, roundUp(s.T, h.panel)*h.hd
	blocks := (s.T + attentionRows - 1) / attentionRows
	h.block = roundUp((s.T+blocks-1)/blocks, set.rows)
	weights := h.block * h.ld
	scratch := t.p.scratch(worker, slotAttention, 3*rows+2*transposed+2*weights+roundUp(s.T+3, dropGroup)+2*set.rows)
	take := func(n int) []float32 {
		part := scratch[:n]
		scratch = scratch[n:]
		return part
	}
	h.factors, h.p, h.top, h.sum = take(roundUp(s.T+3, dropGroup)), take(weights), take(set.rows), take(set.rows)
	kt := h.transpose(take(transposed), t.k[kv:], kw)
	bufQ := take(rows)
	if !t.backward {
		v := h.rows(take(rows), t.v[kv:], kw)
		for head := g * group; head < (g+1)*group; head++ {
			at := b*s.T*qw + head*h.hd
			h.first = uint64(b*s.Heads+head) * uint64(s.T) * uint64(s.T)
			h.forward(t.o[at:], qw, t.lse[(b*s.Heads+head)*s.T:][:s.T], h.rows(bufQ, t.q[at:], qw), kt, v)
		}
		return
	}
	h.ds = take(weights)
	vt := h.transpose(take(transposed), t.v[kv:], kw)
	k, bufO := h.rows(take(rows), t.k[kv:], kw), take(rows)
	for head := g * group; head < (g+1)*group; head++ {
		at := b*s.T*qw + head*h.hd
		h.first = uint64(b*s.Heads+head) * uint64(s.T) * uint64(s.T)
		q, do := h.rows(bufQ, t.q[at:], qw), h.rows(bufO, t.do[at:], qw)
		lse := t.lse[(b*s.Heads+head)*s.T:][:s.T]
		h.backward(t.dq[at:], qw, t.dk[kv:], t.dv[kv:], kw, head > g*group, t.o[at:], lse, do, q, k, kt, vt)
	}
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// matrix is an operand of multiply. A has element (i, j) at i·row + j·col; B,
// whose columns are contiguous within a panel, row i of panel j there.
type matrix struct {
	data     []float32
	row, col int
}

// from drops the first i rows.
func (m matrix) from(i int) matrix { return matrix{m.data[i*m.row:], m.row, m.col} }

// left is a matrix of rows as the left operand, without the first i rows.
func (m matrix) left(i int) matrix { return matrix{m.data[i*m.row:], m.row, 1} }

// rows is one head's rows, ld floats apart in src; copied to buf if they are
// not of whole vectors.
func (h *attentionHead) rows(buf, src []float32, ld int) matrix {
	if h.hd == h.hdp {
		return matrix{src, ld, h.panel}
	}
	for r := range h.t {
		copy(buf[r*h.hdp:r*h.hdp+h.hd], src[r*ld:])
	}
	return matrix{buf, h.hdp, h.panel}
}

// transpose packs one head's rows, transposed, into buf as panels
// [panel][hd][panel width].
func (h *attentionHead) transpose(buf, src []float32, ld int) matrix {
	for j := 0; j < h.t; j += h.panel {
		h.pool.packTransposed(h.worker, buf[j*h.hd:], src[j*ld:], ld, min(h.panel, h.t-j), h.hd, h.panel)
	}
	return matrix{buf, h.panel, h.hd * h.panel}
}

// multiply computes C[m,n] = A[m,k]·B[k,n], added to C when acc, for small
// operands; rows of C are ld floats apart.
func (h *attentionHead) multiply(c []float32, ld int, a, b matrix, m, n, k int, acc bool) {
	t := h.tile
	t.nseg, t.k = 1, k
	t.ars, t.acs, t.bks = 4*a.row, 4*a.col, 4*b.row
	t.crs, t.frs = 4*ld, 4*ld
	tilesDown := (m + h.set.rows - 1) / h.set.rows
	for q, row := 0, 0; q < tilesDown; q++ {
		mr := (m - row + tilesDown - q - 1) / (tilesDown - q)
		for j := 0; j < n; j += h.panel {
			t.seg[0] = tileSeg{unsafe.Pointer(&a.data[row*a.row]), unsafe.Pointer(&b.data[j/h.panel*b.col])}
			t.c = unsafe.Pointer(&c[row*ld+j])
			t.from = nil
			if acc {
				t.from = t.c
			}
			t.reps = 1
			h.set.do(t, mr, min(h.panel, n-j))
		}
		row += mr
	}
}

// forward computes the outputs of one head, a tile of rows at a time: logits
// against the keys up to the tile's last row, softmax, weighted values.
func (h *attentionHead) forward(o []float32, ldo int, lse []float32, q, kt, v matrix) {
	vec := vector()
	for i0 := 0; i0 < h.t; i0 += h.set.rows {
		i1 := min(i0+h.set.rows, h.t)
		rows := i1 - i0
		h.multiply(h.p, h.ld, q.left(i0), kt, rows, i1, h.hd, false)
		top, sum := h.top[:rows], h.sum[:rows]
		vec.softmaxRows(h.p, h.ld, i0+1, i1, h.scale, top, sum)
		if h.drop > 0 {
			for r := range rows {
				row := h.p[r*h.ld:][:i0+r+1]
				vec.mul(row, row, h.dropFactors(i0+r))
			}
		}
		h.multiply(o[i0*ldo:], ldo, matrix{h.p, h.ld, 1}, v, rows, h.hd, i1, false)
		for r, s := range sum {
			lse[i0+r] = top[r] + log32(s)
			vec.scale(o[(i0+r)*ldo:][:h.hd], 1/s)
		}
	}
}

// backward computes dq, dk and dv of one head, the latter two added to what
// they hold when acc; a block of rows at a time. See refAttentionBackward for
// the formulas.
func (h *attentionHead) backward(dq []float32, ldq int, dk, dv []float32, ldk int, acc bool, o, lse []float32, do, q, k, kt, vt matrix) {
	vec := vector()
	for i0 := 0; i0 < h.t; i0 += h.block {
		i1 := min(i0+h.block, h.t)
		for r0 := i0; r0 < i1; r0 += h.set.rows {
			r1 := min(r0+h.set.rows, i1)
			rows := r1 - r0
			p, ds := h.p[(r0-i0)*h.ld:], h.ds[(r0-i0)*h.ld:]
			h.multiply(p, h.ld, q.left(r0), kt, rows, r1, h.hd, false)
			h.multiply(ds, h.ld, do.left(r0), vt, rows, r1, h.hd, false)
			delta := h.sum[:rows]
			for r := range delta {
				delta[r] = vec.dot(do.data[(r0+r)*do.row:][:h.hd], o[(r0+r)*ldq:][:h.hd])
				if h.drop > 0 {
					row := ds[r*h.ld:][:r0+r+1]
					vec.mul(row, row, h.dropFactors(r0+r))
				}
			}
			vec.softmaxRowsBackward(p, ds, h.ld, r0+1, i1, h.scale, lse[r0:r1], delta)
			if h.drop > 0 {
				for r := range rows {
					row := p[r*h.ld:][:r0+r+1]
					vec.mul(row, row, h.dropFactors(r0+r))
				}
			}
			h.multiply(dq[r0*ldq:], ldq, matrix{ds, h.ld, 1}, k, rows, h.hd, r1, false)
		}
		// A key is read by the rows from its own on; those of this block are
		// its first if it is of the block itself.
		for j0 := 0; j0 < i1; j0 += h.set.rows {
			j1, r0 := min(j0+h.set.rows, i1), max(i0, j0)
			at, more := (r0-i0)*h.ld+j0, acc || j0 < i0
			h.multiply(dv[j0*ldk:], ldk, matrix{h.p[at:], 1, h.ld}, do.from(r0), j1-j0, h.hd, i1-r0, more)
			h.multiply(dk[j0*ldk:], ldk, matrix{h.ds[at:], 1, h.ld}, q.from(r0), j1-j0, h.hd, i1-r0, more)
		}
	}
}

// dropFactors are the dropout factors of row i's weights: 0 or 1/(1−p).
func (h *attentionHead) dropFactors(i int) []float32 {
	return dropFactors(h.factors, h.key, h.first+uint64(i)*uint64(h.t), i+1, h.drop, h.keep)
}
