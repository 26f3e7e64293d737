package kernel

import (
	"fmt"
	"testing"
	"unsafe"
)

// The assembly reads tileArgs by fixed offsets (_avo/gemm.go).
func TestTileArgsLayout(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("layout is for 64 bits")
	}
	var a tileArgs
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"nseg", unsafe.Offsetof(a.nseg), 128}, {"k", unsafe.Offsetof(a.k), 136}, {"ars", unsafe.Offsetof(a.ars), 144},
		{"acs", unsafe.Offsetof(a.acs), 152}, {"bks", unsafe.Offsetof(a.bks), 160}, {"c", unsafe.Offsetof(a.c), 168},
		{"crs", unsafe.Offsetof(a.crs), 176}, {"from", unsafe.Offsetof(a.from), 184}, {"frs", unsafe.Offsetof(a.frs), 192},
		{"mask", unsafe.Offsetof(a.mask), 200}, {"maskY", unsafe.Offsetof(a.maskY), 208}, {"reps", unsafe.Offsetof(a.reps), 216},
		{"arep", unsafe.Offsetof(a.arep), 224}, {"brep", unsafe.Offsetof(a.brep), 232}, {"crep", unsafe.Offsetof(a.crep), 240},
		{"pre", unsafe.Offsetof(a.pre), 248}, {"prerow", unsafe.Offsetof(a.prerow), 256}, {"prerep", unsafe.Offsetof(a.prerep), 264},
	} {
		if c.got != c.want {
			t.Errorf("%s at %d, the assembly expects %d", c.name, c.got, c.want)
		}
	}
}

// Every tile of every set, all widths, with and without start values, one
// and several segments, repeated, row-major and column-major A.
func TestTiles(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		s := tiles()
		const width, rows = 40, 16 // of C
		a, b := randomFloats(20000, 1), randomFloats(20000, 2)
		for mr := 1; mr <= s.rows; mr++ {
			for cols := 1; cols <= s.panel(); cols++ {
				for _, k := range []int{1, 2, 7} {
					for variant := range 6 {
						nseg, reps, useFrom, columns := 1, 1, variant&1 == 1, variant&2 == 2
						if variant >= 4 {
							nseg = 3
						} else if variant >= 2 {
							reps = 2
						}
						args := new(tileArgs)
						args.nseg, args.k, args.reps = nseg, k, reps
						args.ars, args.acs = 4*11, 4
						if columns {
							args.ars, args.acs = 4, 4*19
						}
						args.bks = 4 * s.panel()
						for i := range nseg {
							args.seg[i] = tileSeg{unsafe.Pointer(&a[1000*i]), unsafe.Pointer(&b[1000*i])}
						}
						args.arep, args.brep, args.crep = 4*7, 4*512, 4*width*rows
						got, check := guarded(t, reps*width*rows)
						start := randomFloats(len(got), 3)
						copy(got, start)
						want := append([]float32(nil), start...)
						args.c, args.crs = unsafe.Pointer(&got[0]), 4*width
						if useFrom && reps == 1 {
							args.from, args.frs = args.c, args.crs
						}
						for rep := range reps {
							for r := range mr {
								for j := range cols {
									var sum float64
									if args.from != nil {
										sum = float64(start[r*width+j])
									}
									for i := range nseg {
										for q := range k {
											sum += float64(a[1000*i+7*rep+(r*args.ars+q*args.acs)/4]) * float64(b[1000*i+512*rep+q*s.panel()+j])
										}
									}
									want[(rep*rows+r)*width+j] = float32(sum)
								}
							}
						}
						s.do(args, mr, cols)
						check()
						for i := range got {
							if d := got[i] - want[i]; d > 1e-4 || d < -1e-4 {
								t.Fatalf("tile %d×%d k=%d variant %d: element %d: got %v, want %v", mr, cols, k, variant, i, got[i], want[i])
							}
						}
					}
				}
			}
		}
	})
}

func BenchmarkTile(b *testing.B) {
	s := tiles()
	for _, k := range []int{16, 64, 256} {
		for _, mr := range []int{4, 8, 12, 13, 14} {
			for cols := s.lanes; cols <= s.panel(); cols += s.lanes {
				if mr > s.rows {
					continue
				}
				b.Run(fmt.Sprintf("k%d/%dx%d", k, mr, cols), func(b *testing.B) {
					a, w, c := alignedFloats(14*(k+16)), alignedFloats(k*32), alignedFloats(14*32)
					args := &tileArgs{nseg: 1, k: k, ars: 4 * (k + 16), acs: 4, bks: 4 * s.panel(), crs: 128}
					for b.Loop() {
						args.seg[0] = tileSeg{unsafe.Pointer(&a[0]), unsafe.Pointer(&w[0])}
						args.c, args.reps = unsafe.Pointer(&c[0]), 1
						s.do(args, mr, cols)
					}
					reportPeak(b, 2*float64(mr*cols*k), 1)
				})
			}
		}
	}
}
