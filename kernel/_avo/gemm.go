package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets in kernel.tileArgs; TestTileArgsLayout holds the Go side to them.
const (
	tSeg  = 0 // {a, b} pairs
	tNSeg = 120 + 8*iota
	tK
	tARS
	tACS
	tBKS
	tC
	tCRS
	tFrom
	tFRS
	tMask
	tMaskY
	tReps
	tARep
	tBRep
	tCRep
	tPre
	tPreRow
	tPreRep
)

// isa is what the two vector sets differ in.
type isa struct {
	letter string // of the function names
	lanes  int
	rows   int // largest tile
	vec    func() VecVirtual
}

var (
	avx512 = isa{"Z", 16, 14, ZMM}
	avx2   = isa{"Y", 8, 6, YMM}
)

func (s isa) bytes() int { return 4 * s.lanes }

// zero: avo takes only this one not to read its operand.
func (s isa) zero(v VecVirtual) { VXORPS(v, v, v) }

// gemm writes the register tiles: C[mr × nv vectors] = from + Σ over
// segments of A[mr,k]·B[k, nv vectors].
func gemm() {
	peakFMA()
	prefetch()
	for _, s := range []isa{avx512, avx2} {
		for nv := 1; nv <= 2; nv++ {
			for mr := 1; mr <= s.rows; mr++ {
				tile(s, mr, nv, false)
				tile(s, mr, nv, true)
			}
		}
	}
}

func peakFMA() {
	for _, s := range []isa{avx512, avx2} {
		name := "peakFMA" + s.letter
		TEXT(name, NOSPLIT, "func(n int)")
		n := Load(Param("n"), GP64())
		acc := make([]VecVirtual, 12)
		for i := range acc {
			acc[i] = s.vec()
			s.zero(acc[i])
		}
		a, b := s.vec(), s.vec()
		s.zero(a)
		s.zero(b)
		Label("loop")
		for i := range acc {
			VFMADD231PS(a, b, acc[i])
		}
		DECQ(n)
		JNZ(LabelRef("loop"))
		VZEROUPPER()
		RET()
	}
}

// prefetch asks for a run of memory to come into the second-level cache.
func prefetch() {
	TEXT("prefetchLines", NOSPLIT, "func(p *byte, bytes int)")
	Pragma("noescape")
	p, n := Load(Param("p"), GP64()), Load(Param("bytes"), GP64())
	Label("loop")
	PREFETCHT1(Mem{Base: p})
	ADDQ(Imm(64), p)
	SUBQ(Imm(64), n)
	JGT(LabelRef("loop"))
	RET()
}

// tile writes one tile. A is row-major (steps of k are neighbours), or
// column-major (rows are neighbours). Scalar additions compete with the
// multiply-adds for two of the five integer ports, so the row-major loop,
// which needs a pointer for every third row, does four steps of k a round.
func tile(s isa, mr, nv int, columns bool) {
	name := fmt.Sprintf("tile%s%dx%d", s.letter, mr, nv)
	if columns {
		name += "T"
	}
	TEXT(name, NOSPLIT, "func(t *byte)")
	Pragma("noescape")
	t := Load(Param("t"), GP64())
	arg := func(off int) Mem { return Mem{Base: t, Disp: off} }

	c := make([][]VecVirtual, mr)
	for r := range c {
		c[r] = make([]VecVirtual, nv)
		for v := range c[r] {
			c[r][v] = s.vec()
		}
	}
	// Row-major: rows are reached from every third pointer, scales 0, 1, 2.
	bases := make([]GPVirtual, (mr+2)/3)
	if columns {
		bases = bases[:1]
	}
	for i := range bases {
		bases[i] = GP64()
	}
	stride, bks, bks3, b, k := GP64(), GP64(), GP64(), GP64(), GP64()
	seg, nseg := GP64(), GP64()
	if s.lanes == 16 {
		m := GP64()
		MOVQ(arg(tMask), m)
		KMOVW(m.As32(), K1)
	}
	if columns {
		MOVQ(arg(tACS), stride)
	} else {
		MOVQ(arg(tARS), stride)
	}
	MOVQ(arg(tBKS), bks)
	LEAQ(Mem{Base: bks, Index: bks, Scale: 2}, bks3)

	Label("rep")
	// Memory written only later: ask for it now.
	pre, preRow := b, k
	MOVQ(arg(tPre), pre)
	TESTQ(pre, pre)
	JZ(LabelRef("begin"))
	MOVQ(arg(tPreRow), preRow)
	for r := range c {
		for v := 0; v < nv*s.bytes(); v += 64 {
			PREFETCHT0(Mem{Base: pre, Disp: v})
		}
		if r < mr-1 {
			ADDQ(preRow, pre)
		}
	}
	Label("begin")
	from, frs := seg, nseg // not yet in use
	MOVQ(arg(tFrom), from)
	TESTQ(from, from)
	JZ(LabelRef("zero"))
	MOVQ(arg(tFRS), frs)
	mask := func() VecVirtual {
		m := s.vec()
		p := b
		MOVQ(arg(tMaskY), p)
		VMOVUPS(Mem{Base: p}, m)
		return m
	}
	var m VecVirtual
	if s.lanes == 8 {
		m = mask()
	}
	for r := range c {
		for v := range c[r] {
			at := Mem{Base: from, Disp: v * s.bytes()}
			switch {
			case v < nv-1:
				VMOVUPS(at, c[r][v])
			case s.lanes == 16:
				VMOVUPS_Z(at, K1, c[r][v])
			default:
				VMASKMOVPS(at, m, c[r][v])
			}
		}
		if r < mr-1 {
			ADDQ(frs, from)
		}
	}
	JMP(LabelRef("start"))
	Label("zero")
	for r := range c {
		for v := range c[r] {
			s.zero(c[r][v])
		}
	}

	Label("start")
	MOVQ(t, seg)
	MOVQ(arg(tNSeg), nseg)
	Label("seg")
	MOVQ(Mem{Base: seg}, bases[0])
	for i := 1; i < len(bases); i++ {
		LEAQ(Mem{Base: bases[i-1], Index: stride, Scale: 2}, bases[i])
		ADDQ(stride, bases[i])
	}
	MOVQ(Mem{Base: seg, Disp: 8}, b)
	MOVQ(arg(tK), k)
	bv := make([]VecVirtual, nv)
	for v := range bv {
		bv[v] = s.vec()
	}
	a := s.vec()
	// step does k step u of a round.
	step := func(u int) {
		for v := range bv {
			at := Mem{Base: b, Disp: v * s.bytes()}
			switch u {
			case 1, 2:
				at.Index, at.Scale = bks, uint8(u)
			case 3:
				at.Index, at.Scale = bks3, 1
			}
			VMOVUPS(at, bv[v])
		}
		for r := range c {
			at := Mem{Base: bases[0], Disp: 4 * r}
			if !columns {
				at = Mem{Base: bases[r/3], Disp: 4 * u}
				if r%3 > 0 {
					at.Index, at.Scale = stride, uint8(r%3)
				}
			}
			VBROADCASTSS(at, a)
			for v := range bv {
				VFMADD231PS(a, bv[v], c[r][v])
			}
		}
		if columns {
			ADDQ(stride, bases[0])
		}
	}
	advance := func(steps int) {
		if !columns {
			for _, p := range bases {
				ADDQ(Imm(uint64(4*steps)), p)
			}
		}
		if steps == 1 {
			ADDQ(bks, b)
		} else {
			LEAQ(Mem{Base: b, Index: bks, Scale: 4}, b)
		}
	}
	SUBQ(Imm(4), k)
	JLT(LabelRef("rest"))
	Label("loop")
	for u := range 4 {
		step(u)
	}
	advance(4)
	SUBQ(Imm(4), k)
	JGE(LabelRef("loop"))
	Label("rest")
	ADDQ(Imm(4), k)
	JZ(LabelRef("next"))
	Label("single")
	step(0)
	advance(1)
	DECQ(k)
	JNZ(LabelRef("single"))
	Label("next")
	ADDQ(Imm(16), seg)
	DECQ(nseg)
	JNZ(LabelRef("seg"))

	out, crs := seg, nseg
	MOVQ(arg(tC), out)
	MOVQ(arg(tCRS), crs)
	if s.lanes == 8 {
		m = mask()
	}
	for r := range c {
		for v := range c[r] {
			at := Mem{Base: out, Disp: v * s.bytes()}
			switch {
			case v < nv-1:
				VMOVUPS(c[r][v], at)
			case s.lanes == 16:
				VMOVUPS(c[r][v], K1, at)
			default:
				VMASKMOVPS(c[r][v], m, at)
			}
		}
		if r < mr-1 {
			ADDQ(crs, out)
		}
	}
	DECQ(arg(tReps))
	JZ(LabelRef("done"))
	for _, step := range [][2]int{{tARep, tSeg}, {tBRep, tSeg + 8}, {tCRep, tC}, {tPreRep, tPre}} {
		MOVQ(arg(step[0]), k)
		ADDQ(k, arg(step[1]))
	}
	JMP(LabelRef("rep"))
	Label("done")
	VZEROUPPER()
	RET()
}
