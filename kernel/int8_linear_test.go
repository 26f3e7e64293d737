package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"spinnet/algebra"
)

// TestInt8Linear compares the integer sums of every algebra with the sum
// over the dense signed matrix (SPEC §1), and the outputs with the formula.
func TestInt8Linear(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	eachSet(t, func(t *testing.T) {
		for _, name := range []string{"real", "complex", "quaternion", "octonion", "walsh", "sedenion"} {
			alg, err := algebra.ByName(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range []struct {
				layout  Layout
				ternary bool
			}{{LayoutTiles, true}, {LayoutTiles, false}, {LayoutSIMD128, true}, {LayoutSIMD128, false}} {
				layout, ternary := kind.layout, kind.ternary
				for _, shape := range [][3]int{{1, 1, 1}, {3, 5, 2}, {8, 16, 1}, {17, 21, 5}, {33, 64, 3}, {64, 171, 2}, {5, 9, 30}} {
					n, in, tokens := alg.N, shape[1], shape[2]
					outs := []int{shape[0], shape[0]/2 + 1}
					var ws []Int8Weight
					for _, out := range outs {
						w := Int8Weight{make([]int8, n*out*in), make([]float32, out)}
						for i := range w.W {
							w.W[i] = int8(r.IntN(255) - 127)
							if r.IntN(8) == 0 {
								w.W[i] = []int8{-127, 127}[r.IntN(2)]
							}
							if ternary {
								w.W[i] = int8(r.IntN(3) - 1)
							}
						}
						for i := range w.Gain {
							w.Gain[i] = float32(r.NormFloat64())
						}
						ws = append(ws, w)
					}
					l := PackInt8Linear(layout, alg, in, ternary, ws...)
					if layout == LayoutSIMD128 { // stored, and taken up again
						var err error
						if l, err = Int8LinearOf(l.Packed(), alg, in, ternary, outs, l.Gain()); err != nil {
							t.Fatal(err)
						}
					}
					rows := l.Rows(tokens)
					a, start := make([]int8, rows*l.Stride()), make([]int32, rows)
					q := make([]int8, tokens*n*in)
					for i := range q {
						q[i] = int8(r.IntN(255) - 127)
						if r.IntN(4) == 0 {
							q[i] = 127
						}
					}
					for i := range a {
						a[i] = 99 // Expand writes all of it
					}
					for tok := range tokens {
						l.Expand(a[l.Rows(tok)*l.Stride():l.Rows(tok+1)*l.Stride()], start[l.Rows(tok):], q[tok*n*in:(tok+1)*n*in])
					}
					c := make([]int32, rows*l.CStride()+1)
					for i := range c {
						c[i] = 12345
					}
					mid := l.Panels() / 2
					var w Int8Scratch
					l.Multiply(&w, c, a, start, rows, 0, mid)
					l.Multiply(&w, c, a, start, rows, mid, l.Panels())
					if c[len(c)-1] != 12345 {
						t.Fatal("wrote behind C")
					}
					for tok := range tokens {
						y := make([][]float32, len(outs))
						for o, out := range outs {
							y[o] = make([]float32, n*out)
						}
						s := float32(r.Float64())
						l.Scale(y, c[l.Rows(tok)*l.CStride():], s, 0, mid)
						l.Scale(y, c[l.Rows(tok)*l.CStride():], s, mid, l.Panels())
						for o, out := range outs {
							for i := range n {
								for row := range out {
									var sum int32
									for j := range n {
										for col := range in {
											sum += int32(alg.Sign[i][j]) * int32(ws[o].W[((i^j)*out+row)*in+col]) * int32(q[tok*n*in+j*in+col])
										}
									}
									want := float32(sum) * float32(s*ws[o].Gain[row])
									if got := y[o][i*out+row]; got != want {
										t.Fatalf("%s %v %+v, token %d output %d part %d row %d: %g, want %g", name, shape, kind, tok, o, i, row, got, want)
									}
								}
							}
						}
					}
				}
			}
		}
	})
}

// The assembly reads int8TileArgs by fixed offsets (_avo/int8_tile.go).
func TestInt8TileArgsLayout(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("layout is for 64 bits")
	}
	var a int8TileArgs
	for i, got := range []uintptr{
		unsafe.Offsetof(a.a), unsafe.Offsetof(a.lda), unsafe.Offsetof(a.k4), unsafe.Offsetof(a.b),
		unsafe.Offsetof(a.c), unsafe.Offsetof(a.ldc), unsafe.Offsetof(a.start), unsafe.Offsetof(a.next),
	} {
		if got != uintptr(8*i) {
			t.Errorf("field %d at %d, the assembly expects %d", i, got, 8*i)
		}
	}
}

// int8TileSum is one element of a tile by the definition.
func int8TileSum(a []int8, b []uint8, signed bool, start int32, width, j int) int32 {
	for k, v := range a {
		w := int32(b[k/4*4*width+4*j+k%4])
		if signed {
			w = int32(int8(w))
		}
		start += int32(v) * w
	}
	return start
}

// Every tile of every set that this machine runs, at all short depths and
// some long ones, for random operands and for the greatest of either sign.
func TestInt8Tiles(t *testing.T) {
	depths := []int{63, 64, 65, 127, 128, 129, 300, 1027}
	for k4 := 1; k4 <= 41; k4++ {
		depths = append(depths, k4)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for _, set := range machineSets() {
		tiles := int8TileSets[set]
		for most, runs := range map[int][]func(*byte){2: tiles.narrow, 255: tiles.wide} {
			t.Run(fmt.Sprintf("%s/%d", setNames[set], most), func(t *testing.T) {
				for mr := 1; mr < len(runs); mr++ {
					for _, k4 := range depths {
						for kind := range 4 {
							checkInt8Tile(t, r, runs[mr], tiles.bias == 0, mr, k4, 2*tiles.lanes, most, kind)
						}
					}
				}
			})
		}
	}
}

// twoBits packs B [k4][width][4], of values up to 3, four steps in a byte.
func twoBits(b []uint8, width int) []uint8 {
	packed := make([]uint8, len(b)/4)
	for i, u := range b {
		step, at := i/(4*width), i%(4*width)
		packed[step/4*4*width+at] |= u << (step % 4 * 2)
	}
	return packed
}

// Weights in two bits: taken apart, and by the tiles that do so themselves.
func TestInt8TwoBits(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, set := range machineSets() {
		tiles := int8TileSets[set]
		if tiles.unpack == nil {
			continue
		}
		width := 2 * tiles.lanes
		for k4 := 4; k4 <= 300; k4 += 4 + k4/32*8 {
			b := make([]uint8, 4*k4*width)
			for i := range b {
				b[i] = uint8(r.IntN(4))
			}
			packed := twoBits(b, width)
			got := make([]uint8, len(b)+1)
			got[len(b)] = 99
			tiles.unpack(got[:len(b)], packed)
			for i, want := range append(b, 99) {
				if got[i] != want {
					t.Fatalf("%s, depth %d: byte %d is %d, want %d", setNames[set], k4, i, got[i], want)
				}
			}
			for mr := 1; mr < len(tiles.two); mr++ {
				for kind := range 4 {
					checkInt8Tile(t, r, func(p *byte) {
						args := (*int8TileArgs)(unsafe.Pointer(p))
						packed := twoBits(unsafe.Slice((*uint8)(args.b), 4*k4*width), width)
						args.b = unsafe.Pointer(&packed[0])
						tiles.two[mr](p)
					}, false, mr, k4, width, 2, kind)
				}
			}
		}
	}
}

func checkInt8Tile(t *testing.T, r *rand.Rand, run func(*byte), signed bool, mr, k4, width, most, kind int) {
	t.Helper()
	lda, ldc := 4*k4+3, width+5
	a, b, c := make([]int8, mr*lda+1)[1:], make([]uint8, 4*k4*width+1)[1:], make([]int32, mr*ldc)
	start := make([]int32, mr)
	for i := range a {
		a[i] = []int8{int8(r.IntN(255) - 127), 127, -127, []int8{-127, 127}[r.IntN(2)]}[kind]
	}
	for i := range b {
		b[i] = uint8(r.IntN(most + 1))
		if kind > 0 {
			b[i] = uint8(most)
			if signed && most > 2 {
				b[i] = 128
			}
		}
	}
	for i := range start {
		start[i] = int32(r.IntN(1<<24) - 1<<23)
	}
	for i := range c {
		c[i] = 12345
	}
	run((*byte)(unsafe.Pointer(&int8TileArgs{
		a: unsafe.Pointer(&a[0]), lda: lda, k4: k4, b: unsafe.Pointer(&b[0]),
		c: unsafe.Pointer(&c[0]), ldc: 4 * ldc, start: unsafe.Pointer(&start[0]),
	})))
	for i, got := range c {
		want := int32(12345)
		if i%ldc < width {
			want = int8TileSum(a[i/ldc*lda:][:4*k4], b, signed, start[i/ldc], width, i%ldc)
		}
		if got != want {
			t.Fatalf("%d rows, depth %d, kind %d: element %d,%d is %d, want %d", mr, k4, kind, i/ldc, i%ldc, got, want)
		}
	}
}

// TestInt8Expand compares the expansion and the sums of every set with their
// definitions, at all widths, and that nothing but the parts is written.
func TestInt8Expand(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	eachSet(t, func(t *testing.T) {
		s := int8Tiles()
		for width := range 200 {
			x := randomInt8(width+1, r)[1:]
			if got, want := s.sum(x), refInt8Sum(x); got != want {
				t.Fatalf("sum of %d: got %d, want %d", width, got, want)
			}
			n := 1 << r.IntN(4)
			stride := n*width + r.IntN(4)
			q, minus := randomInt8(n*width, r), make([]int8, n*n)
			for i := range minus {
				minus[i] = -int8(r.IntN(2))
			}
			got := randomInt8(n*stride+9, r)
			want := append([]int8(nil), got...)
			s.expand(got[:n*stride], q, minus, n, width, stride)
			refInt8Expand(want[:n*stride], q, minus, n, width, stride)
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("%d parts of %d: byte %d is %d, want %d", n, width, i, got[i], want[i])
				}
			}
		}
	})
}
