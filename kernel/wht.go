package kernel

import "unsafe"

// whtArgs describes one 8-point Walsh–Hadamard transform over parts of rows.
// Each of src, dst and raw is addressed as base + part·Part + row, in bytes;
// the Row steps are taken after the vectors of a row and so exclude them.
type whtArgs struct {
	src              unsafe.Pointer
	srcPart, srcRow  int
	dst              unsafe.Pointer
	dstPart, dstRow  int
	raw              unsafe.Pointer
	rawPart, rawRow  int
	rows, vecs       int
	mask             uint64         // lanes that exist in a row's last vector
	maskY            unsafe.Pointer // the same as a vector
	scale            [8]float32
	rawScale, unused float32
	index            unsafe.Pointer // of the gathering forms: lane offsets, int32 floats
}

// whtSet is one implementation of the transforms.
//
//	in:     dst_a = Σ_b H[a][b]·scale_b·src_b
//	inRaw:  and raw_b = rawScale·src_b
//	gather: as in, lane l of row q read from src[index[l] + q]
//	out:    dst_a = scale_a·Σ_b H[a][b]·src_b
//	outAcc: added to dst
//
// The first four read existing lanes only and write whole vectors, 0 where
// there is no lane; the last two read whole vectors and write existing lanes.
type whtSet struct {
	in, inRaw, gather, gatherRaw, out, outAcc func(t *byte)
}

func (t *whtArgs) do(f func(*byte)) { f((*byte)(unsafe.Pointer(t))) }

// columns says how many columns a row has, in vectors of the set.
func (t *whtArgs) columns(s *tileSet, cols int) {
	t.vecs = (cols + s.lanes - 1) / s.lanes
	t.mask, t.maskY = s.lastLanes(cols)
}

var refWHT = &whtSet{
	in:        func(p *byte) { refWHTIn(p, false, false) },
	inRaw:     func(p *byte) { refWHTIn(p, true, false) },
	gather:    func(p *byte) { refWHTIn(p, false, true) },
	gatherRaw: func(p *byte) { refWHTIn(p, true, true) },
	out:       func(p *byte) { refWHTOut(p, false) },
	outAcc:    func(p *byte) { refWHTOut(p, true) },
}

// hadamard8 is y = H·x in 24 additions.
func hadamard8(x *[8]float32) {
	for h := 1; h < 8; h *= 2 {
		for i := range x {
			if i&h == 0 {
				x[i], x[i+h] = x[i]+x[i+h], x[i]-x[i+h]
			}
		}
	}
}

const refLanes = 8

func refWHTIn(p *byte, raw, gather bool) {
	t := (*whtArgs)(unsafe.Pointer(p))
	step := 4 * refLanes * t.vecs
	for r := range t.rows {
		for l := range refLanes * t.vecs {
			exists := l < refLanes*(t.vecs-1) || t.mask>>(l%refLanes)&1 == 1
			var x [8]float32
			for b := range x {
				if exists {
					off := r*(t.srcRow+step) + 4*l
					if gather {
						off = r*t.srcRow + 4*int(*(*int32)(unsafe.Add(t.index, 4*l)))
					}
					x[b] = *at(t.src, b*t.srcPart+off)
				}
				if raw {
					*at(t.raw, b*t.rawPart+r*(t.rawRow+step)+4*l) = t.rawScale * x[b]
				}
				x[b] *= t.scale[b]
			}
			hadamard8(&x)
			for a, v := range x {
				*at(t.dst, a*t.dstPart+r*(t.dstRow+step)+4*l) = v
			}
		}
	}
}

func refWHTOut(p *byte, acc bool) {
	t := (*whtArgs)(unsafe.Pointer(p))
	step := 4 * refLanes * t.vecs
	for r := range t.rows {
		for l := range refLanes * t.vecs {
			if l >= refLanes*(t.vecs-1) && t.mask>>(l%refLanes)&1 == 0 {
				continue
			}
			var x [8]float32
			for b := range x {
				x[b] = *at(t.src, b*t.srcPart+r*(t.srcRow+step)+4*l)
			}
			hadamard8(&x)
			for a, v := range x {
				d := at(t.dst, a*t.dstPart+r*(t.dstRow+step)+4*l)
				if acc {
					*d += t.scale[a] * v
				} else {
					*d = t.scale[a] * v
				}
			}
		}
	}
}
