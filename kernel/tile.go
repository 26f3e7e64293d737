package kernel

import (
	"math/bits"
	"unsafe"
)

// A tile is the one inner loop of every matrix product here:
//
//	C[mr, nv vectors] = from + Σ over segments of A[mr,k]·B[k, nv vectors]
//
// with every operand strided, so the same loop serves A·B, A·Bᵀ (B packed),
// Aᵀ·B and sums of several products. C is kept in registers throughout.
type tileArgs struct {
	seg  [8]tileSeg
	nseg int // at least 1
	k    int // at least 1
	// Strides in bytes: A between rows and between steps of k, one of them 4;
	// B between steps of k. B is read in whole vectors.
	ars, acs, bks int
	c             unsafe.Pointer
	crs           int
	from          unsafe.Pointer // start value, nil for 0; may be c
	frs           int
	mask          uint64         // lanes of each row's last vector that exist
	maskY         unsafe.Pointer // the same as a vector, for AVX2
	// The whole is repeated reps times; each time A and B of the first
	// segment and c move on.
	reps             int
	arep, brep, crep int
	// mr rows of memory, prerow bytes apart, that will be written soon: asked
	// for at the start. nil for none.
	pre            unsafe.Pointer
	prerow, prerep int
}

type tileSeg struct{ a, b unsafe.Pointer }

// tileSet is one implementation of the tiles.
type tileSet struct {
	lanes int // floats in a vector
	rows  int // the largest mr
	wht   *whtSet
	pack  func(dst, src, index *byte, dstRow, k int, mask uint64, maskY *byte)
	run   tileTable
}

// tileTable holds the tiles as [column-major A][nv−1][mr], t a *tileArgs.
type tileTable [2][2][]func(t *byte)

// panel is the width of a packed B panel: two vectors.
func (s *tileSet) panel() int { return 2 * s.lanes }

// tiles is the implementation of the active set.
func tiles() *tileSet { return tileSets[active] }

// do runs one tile of mr rows and nv vectors, cols (of at most nv vectors)
// columns of which exist.
func (s *tileSet) do(t *tileArgs, mr, cols int) {
	nv := (cols + s.lanes - 1) / s.lanes
	t.mask, t.maskY = s.lastLanes(cols)
	col := 0
	if t.acs != 4 {
		col = 1
	}
	s.run[col][nv-1][mr]((*byte)(unsafe.Pointer(t)))
}

// lastLanes masks the lanes that exist in the last vector of cols columns,
// as bits and as a vector of 8.
func (s *tileSet) lastLanes(cols int) (uint64, unsafe.Pointer) {
	last := (cols-1)%s.lanes + 1
	return 1<<last - 1, unsafe.Pointer(&laneMasks[max(0, 8-last)])
}

// laneMasks[8−n:] selects the first n of 8 lanes.
var laneMasks = [16]int32{-1, -1, -1, -1, -1, -1, -1, -1}

// refTiles is the definition, and the set for machines without assembly.
var refTiles = &tileSet{lanes: refLanes, rows: 4, wht: refWHT, pack: refGatherPack, run: tileTable{refTileRow, refTileRow}}

var refTileRow = [2][]func(t *byte){
	{nil, refTile(1, 1), refTile(2, 1), refTile(3, 1), refTile(4, 1)},
	{nil, refTile(1, 2), refTile(2, 2), refTile(3, 2), refTile(4, 2)},
}

// at reads the float off bytes behind p.
func at(p unsafe.Pointer, off int) *float32 { return (*float32)(unsafe.Add(p, off)) }

// refTile is a tile of mr rows and nv vectors of 8.
func refTile(mr, nv int) func(*byte) {
	return func(p *byte) {
		t := (*tileArgs)(unsafe.Pointer(p))
		cols := (nv-1)*8 + bits.OnesCount64(t.mask)
		for ; t.reps > 0; t.reps-- {
			for r := range mr {
				var sum [16]float32
				if t.from != nil {
					for j := range cols {
						sum[j] = *at(t.from, r*t.frs+4*j)
					}
				}
				for _, s := range t.seg[:t.nseg] {
					for q := range t.k {
						a := *at(s.a, r*t.ars+q*t.acs)
						b := (*[8]float32)(unsafe.Add(s.b, q*t.bks))
						for j := range 8 {
							sum[j] += a * b[j]
						}
						if nv == 2 {
							b = (*[8]float32)(unsafe.Add(s.b, q*t.bks+32))
							for j := range 8 {
								sum[8+j] += a * b[j]
							}
						}
					}
				}
				for j := range cols {
					*at(t.c, r*t.crs+4*j) = sum[j]
				}
			}
			if t.reps > 1 { // else they might point outside of their memory
				t.seg[0].a = unsafe.Add(t.seg[0].a, t.arep)
				t.seg[0].b = unsafe.Add(t.seg[0].b, t.brep)
				t.c = unsafe.Add(t.c, t.crep)
			}
		}
	}
}

// refGatherPack writes k rows of one vector, dstRow bytes apart: lane l of
// row q is src[index[l] + q], 0 where the mask has no lane.
func refGatherPack(dst, src, index *byte, dstRow, k int, mask uint64, _ *byte) {
	for q := range k {
		for l := range refLanes {
			var v float32
			if mask>>l&1 == 1 {
				v = *at(unsafe.Pointer(src), 4*q+4*int(*(*int32)(unsafe.Add(unsafe.Pointer(index), 4*l))))
			}
			*at(unsafe.Pointer(dst), q*dstRow+4*l) = v
		}
	}
}
