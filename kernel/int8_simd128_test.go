package kernel

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"spinnet/algebra"
)

// guardedInt32s are n values between others that must stay as they are.
func guardedInt32s(t *testing.T, n int, what string) (x []int32, check func()) {
	t.Helper()
	all := make([]int32, n+8)
	for i := range all {
		all[i] = 12345 + int32(i)
	}
	return all[4 : 4+n : 4+n], func() {
		t.Helper()
		for i, v := range all {
			if (i < 4 || i >= 4+n) && v != 12345+int32(i) {
				t.Fatalf("%s: wrote %d values outside of its result", what, max(4-i, i-4-n))
			}
		}
	}
}

// The octonions' terms are those of algebra.Fast, which has all of them added.
func TestSIMDOctonionTerms(t *testing.T) {
	alg, err := algebra.ByName("octonion")
	if err != nil {
		t.Fatal(err)
	}
	var want [8][][2]int
	fast := alg.Fast()
	for _, m := range fast.Terms {
		want[m.I] = append(want[m.I], [2]int{m.J, m.I ^ m.J})
		if alg.Sign[m.I][m.J] != 1 {
			t.Errorf("term %v is subtracted", m)
		}
	}
	for i := range want {
		if !slices.Equal(want[i], octonionTerms[i]) {
			t.Errorf("output %d: terms %v, want %v", i, octonionTerms[i], want[i])
		}
	}
	if !slices.Equal(fast.P, []int8{-1, 1, 1, 1, 1, 1, 1, 1}) {
		t.Errorf("signs of the input %v: only part 0 is negated", fast.P)
	}
}

// Each function of LayoutSIMD128 against its definition, for random operands
// and for the greatest.
func TestSIMDKernels(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	random := func(n, kind int) []int8 {
		x := make([]int8, n)
		for i := range x {
			if x[i] = int8(r.IntN(255) - 127); kind > 0 {
				x[i] = []int8{127, -127}[i%kind]
			}
		}
		return x
	}
	eachSet(t, func(t *testing.T) {
		s := simd()
		for kind := range 3 {
			for name, c := range map[string]struct {
				shape panelShape
				run   func(c []int32, w []uint8, x []int16)
			}{"linear": {linearPanels, s.linear}, "table": {tablePanels, s.table}, "keys": {keyPanels, s.keys}} {
				for panels := range 4 {
					for steps := range 5 {
						rows, cols := panels*c.shape.rows(), steps*c.shape.cols()
						x, w := make([]int16, cols), random(rows*cols, kind)
						for i := range x {
							if x[i] = int16(r.IntN(2033) - 1016); kind > 0 {
								x[i] = 1016
							}
						}
						packed := make([]uint8, len(w))
						for i, v := range w {
							packed[i] = uint8(v)
						}
						want := make([]int32, rows)
						c.shape.refPanels(want, packed, x)
						got, check := guardedInt32s(t, rows, name)
						c.run(got, packed, x)
						check()
						if !slices.Equal(got, want) {
							t.Fatalf("%s, %d × %d: %v, want %v", name, rows, cols, got, want)
						}
					}
				}
			}
			for _, cols := range []int{0, 4, 8, 20, 32} {
				ldc := cols + 3
				c, check := guardedInt32s(t, 8*ldc, "transform")
				for i := range c {
					c[i] = int32(r.Uint32()) >> 10 << 3
				}
				want := slices.Clone(c)
				refHadamardInt32(want, ldc, cols)
				s.hadamard(c, ldc, cols)
				check()
				if !slices.Equal(c, want) {
					t.Fatalf("transform of %d columns: %v, want %v", cols, c, want)
				}
			}
			for _, groups := range []int{0, 1, 3} {
				for chunks := 0; chunks <= termChunks; chunks += 1 + chunks/3 {
					for _, skip := range []int{0, termSize} {
						ldc := groups*8 + 4
						index, tables := make([]uint8, groups*(chunks*termSize+skip)), make([]int8, chunks*8*16)
						for i := range index {
							index[i] = refTermIndex([]int8{int8(r.IntN(3) - 1), 1, -1}[kind], i)
						}
						refTermTables(tables, random(8*8*chunks, kind), 8*chunks)
						c, check := guardedInt32s(t, 8*ldc, "terms")
						want := slices.Clone(c)
						refOctonionTerms(want, ldc, groups, index, tables, chunks, skip)
						s.terms(c, ldc, groups, index, tables, chunks, skip)
						check()
						if !slices.Equal(c, want) {
							t.Fatalf("terms of %d groups and %d chunks: %v, want %v", groups, chunks, c, want)
						}
					}
				}
			}
			for part := range 70 {
				q, width := random(8*part, kind), linearPanels.width(part)
				for _, minus := range []int{0, -1} {
					want, got := make([]int16, 8*width), make([]int16, 8*width+1)
					for i := range got {
						got[i] = 99
					}
					refTransformInt8(want, q, part, width, minus)
					s.transform(got[:8*width], q, part, width, minus)
					if !slices.Equal(got, append(want, 99)) {
						t.Fatalf("transform of parts of %d: %v, want %v", part, got, want)
					}
				}
				size := (part + 7) / 8 * 8 * 16
				want, got := make([]int8, size), append(random(size, 0), 99)
				refTermTables(want, q, part)
				s.tables(got[:size], q, part)
				if !slices.Equal(got, append(want, 99)) {
					t.Fatalf("tables of parts of %d: %v, want %v", part, got, want)
				}
				for _, minus := range []int{0, -1} {
					wide := append(make([]int16, len(q)), 99)
					s.widen(wide[:len(q)], q, minus)
					for i, v := range append(slices.Clone(q), 99) {
						want := int16(v)
						if minus != 0 && i < len(q) {
							want = -want
						}
						if wide[i] != want {
							t.Fatalf("widening %d values, %d: %v, want %v", len(q), minus, wide, q)
						}
					}
				}
			}
		}
	})
}

// A table gives the products and the rows of what it was made from.
func TestInt8Table(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	eachSet(t, func(t *testing.T) {
		for _, cols := range []int{0, 1, 15, 31, 32, 33, 64, 130} {
			for _, rows := range []int{0, 1, 63, 64, 65, 200} {
				w, x := randomInt8(rows*cols, r), randomInt8(3*cols, r)
				table, err := Int8TableOf(NewInt8Table(w, rows, cols).Packed(), rows, cols)
				if err != nil {
					t.Fatal(err)
				}
				row := rows / 2 / 64 * 64
				const ldy, tokens = 211, 3
				y, check := guardedInt32s(t, tokens*ldy, "table")
				table.MatMul(new(Int8Scratch), y, ldy, x, row, rows-row, tokens)
				check()
				want := make([]int32, rows-row)
				for i := range tokens {
					refMatVecInt8(want, w[row*cols:], x[i*cols:(i+1)*cols])
					if got := y[i*ldy:][:rows-row]; !slices.Equal(got, want) {
						t.Fatalf("%d × %d from %d: %v, want %v", rows, cols, row, got, want)
					}
				}
				got := make([]int8, rows*cols-row*cols)
				table.Expand(got, row)
				if !slices.Equal(got, w[row*cols:]) {
					t.Fatalf("%d × %d: rows %v, want %v", rows, cols, got, w)
				}
			}
		}
	})
	if _, err := Int8TableOf(make([]byte, 5), 1, 1); err == nil || !strings.Contains(err.Error(), "5 bytes, want 2048") {
		t.Errorf("a packed table of another shape: got %v", err)
	}
}

// Keys give their products with a query, from any row to any other, and stay
// what they were when there is more room.
func TestInt8Keys(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	eachSet(t, func(t *testing.T) {
		for _, width := range []int{1, 8, 15, 16, 17, 64, 70} {
			const rows, more = 48, 80
			k, x := randomInt8(rows*width, r), randomInt8(width, r)
			keys := make([]int8, Int8KeysLen(rows, width))
			for i := range rows {
				SetInt8Key(keys, i, k[i*width:(i+1)*width])
			}
			wider := make([]int8, Int8KeysLen(more, width))
			copy(wider, keys)
			query := make([]int8, Int8QueryLen(width))
			Int8Query(query, x)
			want := make([]int32, rows)
			refMatVecInt8(want, k, x)
			for row := range rows {
				for n := 0; row+n <= rows; n += 1 + n/3 {
					y, check := guardedInt32s(t, n+2*ExactBlock, "scores")
					got := Int8Scores(y, wider, query, width, row, n)
					check()
					if !slices.Equal(got, want[row:row+n]) {
						t.Fatalf("width %d, %d keys from %d: %v, want %v", width, n, row, got, want[row:row+n])
					}
				}
			}
		}
	})
}

// What is not a layer's own is an error.
func TestInt8LinearOf(t *testing.T) {
	alg, err := algebra.ByName("octonion")
	if err != nil {
		t.Fatal(err)
	}
	size := Int8LinearSize(alg, 16, true, []int{32})
	if want := 8*32*16 + 4*2*512; size != want {
		t.Errorf("32 rows of parts of 16 are %d bytes, want %d", size, want)
	}
	for _, bad := range []struct{ size, gain int }{{size - 1, 32}, {size, 31}, {0, 32}} {
		if _, err := Int8LinearOf(make([]byte, bad.size), alg, 16, true, []int{32}, make([]float32, bad.gain)); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}
