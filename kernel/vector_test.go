package kernel

import (
	"fmt"
	"math"
	"reflect"
	"testing"
)

// vectorLengths reach every whole and partial vector and unrolled group.
func vectorLengths() []int {
	var n []int
	for i := range 71 {
		n = append(n, i)
	}
	return append(n, 127, 128, 129, 255, 1000, 4099)
}

// vectorCase runs one kernel of a set: the slices of x are its inputs, those
// of y its outputs (which hold values it may read), all of the same length.
// It returns a scalar result or 0.
type vectorCase struct {
	name    string
	in, out int
	run     func(v *vectorKernels, y, x [][]float32) float64
	tol     float64 // allowed error of an output relative to its scale
	sum     float64 // allowed error of the result relative to Σ|terms|, by terms
	terms   func(x [][]float32) float64
}

func absTerms(x [][]float32) float64 {
	var s float64
	for i := range x[0] {
		p := 1.0
		for _, v := range x {
			p *= math.Abs(float64(v[i]))
		}
		s += p
	}
	return s
}

const eps32 = 1.0 / (1 << 23)

var vectorCases = []vectorCase{
	{name: "add", in: 2, out: 1, run: func(v *vectorKernels, y, x [][]float32) float64 { v.add(y[0], x[0], x[1]); return 0 }},
	{name: "mul", in: 2, out: 1, run: func(v *vectorKernels, y, x [][]float32) float64 { v.mul(y[0], x[0], x[1]); return 0 }},
	{name: "axpy", in: 1, out: 1, tol: eps32, run: func(v *vectorKernels, y, x [][]float32) float64 { v.axpy(y[0], 0.7, x[0]); return 0 }},
	{name: "scale", out: 1, run: func(v *vectorKernels, y, x [][]float32) float64 { v.scale(y[0], 0.7); return 0 }},
	{name: "scaleMul", in: 2, out: 1, run: func(v *vectorKernels, y, x [][]float32) float64 { v.scaleMul(y[0], x[0], x[1], 0.7); return 0 }},
	{name: "sumSquares", in: 1, sum: 1e-14, run: func(v *vectorKernels, y, x [][]float32) float64 { return v.sumSquares(x[0]) },
		terms: func(x [][]float32) float64 { return absTerms([][]float32{x[0], x[0]}) }},
	{name: "absSum", in: 1, sum: 1e-14, run: func(v *vectorKernels, y, x [][]float32) float64 { return v.absSum(x[0]) }, terms: absTerms},
	{name: "sumSquares32", in: 1, sum: 20 * eps32, run: func(v *vectorKernels, y, x [][]float32) float64 { return float64(v.sumSquares32(x[0])) },
		terms: func(x [][]float32) float64 { return absTerms([][]float32{x[0], x[0]}) }},
	{name: "dot", in: 2, sum: 20 * eps32, run: func(v *vectorKernels, y, x [][]float32) float64 { return float64(v.dot(x[0], x[1])) }, terms: absTerms},
	{name: "dot3", in: 3, sum: 20 * eps32, run: func(v *vectorKernels, y, x [][]float32) float64 { return float64(v.dot3(x[0], x[1], x[2])) }, terms: absTerms},
	{name: "maxAbs", in: 1, run: func(v *vectorKernels, y, x [][]float32) float64 { return float64(v.maxAbs(x[0])) }},
	{name: "maxOf", in: 1, run: func(v *vectorKernels, y, x [][]float32) float64 { return float64(v.maxOf(x[0])) }},
	{name: "exp", in: 1, out: 1, tol: 2 * eps32, run: func(v *vectorKernels, y, x [][]float32) float64 { v.exp(y[0], x[0]); return 0 }},
	{name: "expAffine", in: 1, out: 1, tol: 8 * eps32, sum: 20 * eps32, run: func(v *vectorKernels, y, x [][]float32) float64 { return float64(v.expAffine(y[0], x[0], 0.7, -1)) },
		terms: func(x [][]float32) float64 {
			var s float64
			for _, v := range x[0] {
				s += math.Exp(0.7*float64(v) - 1)
			}
			return s
		}},
	{name: "swiglu", in: 2, out: 1, tol: 8 * eps32, run: func(v *vectorKernels, y, x [][]float32) float64 { v.swiglu(y[0], x[0], x[1]); return 0 }},
	{name: "swigluBackward", in: 3, out: 2, tol: 8 * eps32, run: func(v *vectorKernels, y, x [][]float32) float64 {
		v.swigluBackward(y[0], y[1], x[0], x[1], x[2])
		return 0
	}},
	{name: "quantizeClassic", in: 1, out: 1, run: func(v *vectorKernels, y, x [][]float32) float64 { v.quantizeClassic(y[0], x[0]); return 0 }},
	{name: "quantizeAbsMean", in: 1, out: 1, run: func(v *vectorKernels, y, x [][]float32) float64 { v.quantizeAbsMean(y[0], x[0], 0.7); return 0 }},
	{name: "classicMask", in: 1, out: 1, run: func(v *vectorKernels, y, x [][]float32) float64 { v.classicMask(y[0], x[0]); return 0 }},
	{name: "roundScaled", in: 1, out: 1, run: func(v *vectorKernels, y, x [][]float32) float64 { v.roundScaled(y[0], x[0], 50, 0.02); return 0 }},
	{name: "countZeros", out: 1, run: func(v *vectorKernels, y, x [][]float32) float64 {
		for i := range y[0] {
			y[0][i] = float32(i * i % 3)
		}
		return float64(v.countZeros(y[0]))
	}},
	{name: "rmsNormRow", in: 3, out: 2, tol: 4 * eps32, run: func(v *vectorKernels, y, x [][]float32) float64 {
		v.rmsNormRow(y[0], y[1], x[0], x[1], x[2], 0.7, 0.2)
		return 0
	}},
	{name: "rmsNormRowAcc", in: 3, out: 2, tol: 4 * eps32, run: func(v *vectorKernels, y, x [][]float32) float64 {
		v.rmsNormRowAcc(y[0], y[1], x[0], x[1], x[2], 0.7, 0.2)
		return 0
	}},
	{name: "adamW", in: 1, out: 3, tol: 8 * eps32, run: func(v *vectorKernels, y, x [][]float32) float64 {
		for i, s := range y[2] {
			y[2][i] = s * s
		}
		v.adamW(y[0], x[0], y[1], y[2], 0.9, 0.9, 0.1, 0.95, 0.05, 0.01, 1.5, 1e-8, 0.999)
		return 0
	}},
}

// TestVectorKernels compares every kernel of every set with its definition,
// at every kind of length and alignment, and for NaN and infinities.
func TestVectorKernels(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		for _, c := range vectorCases {
			for _, n := range vectorLengths() {
				for _, special := range []bool{false, true} {
					if special && c.name == "maxAbs" || special && c.name == "maxOf" {
						continue // TestMaxSkipsNaN
					}
					c.check(t, n, special)
				}
			}
		}
	})
}

func (c vectorCase) check(t *testing.T, n int, special bool) {
	t.Helper()
	fill := func(seed int) []float32 {
		x := randomFloats(n, uint64(seed))
		for i := range x {
			switch {
			case special && i%7 == 3:
				x[i] = float32([]float64{math.Inf(1), math.Inf(-1), math.NaN(), 0, -100, 100, 1e-40}[(i/7+seed)%7])
			case i%5 == 1:
				x[i] = 0.5 * float32(i%7-3) // ties and the mask's edge
			}
		}
		return x
	}
	var x, got, want [][]float32
	var checks []func()
	for i := range c.in {
		in, _ := guarded(t, n+1+i)
		in = in[1+i:] // unaligned
		copy(in, fill(10+i))
		x = append(x, in)
	}
	for i := range c.out {
		y, check := guarded(t, n)
		copy(y, fill(20+i))
		got, want = append(got, y), append(want, append([]float32(nil), y...))
		checks = append(checks, check)
	}
	name := fmt.Sprintf("%s of %d (special %v)", c.name, n, special)
	g, w := c.run(vector(), got, x), c.run(&refVector, want, x)
	for _, check := range checks {
		check()
	}
	bound := 0.0
	if c.terms != nil {
		bound = c.sum * c.terms(x)
	}
	if !special && math.Abs(g-w) > bound {
		t.Errorf("%s: result %v, want %v", name, g, w)
	}
	if special && finite(g) && finite(w) && n > 60 && c.terms != nil {
		t.Errorf("%s: result %v (definition %v) hides a NaN", name, g, w)
	}
	for k := range want {
		for i, wv := range want[k] {
			gv := got[k][i]
			scale := math.Abs(float64(wv))
			if c.tol > 0 {
				scale = max(scale, 1)
				if c.name == "exp" {
					scale = math.Abs(float64(wv))
				}
			}
			same := math.Abs(float64(gv)-float64(wv)) <= c.tol*scale
			if !finite(float64(wv)) || !finite(float64(gv)) {
				same = gv == wv || gv != gv && wv != wv
			}
			if !same {
				t.Fatalf("%s: output %d element %d: got %v, want %v", name, k, i, gv, wv)
			}
		}
	}
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func TestMaxSkipsNaN(t *testing.T) {
	nan := float32(math.NaN())
	eachSet(t, func(t *testing.T) {
		for n := 1; n < 70; n++ {
			x := make([]float32, n)
			for i := range x {
				x[i] = nan
			}
			x[n/2] = -3
			if got := MaxAbs(x); got != 3 {
				t.Errorf("MaxAbs of %d: got %v, want 3", n, got)
			}
			if got := vector().maxOf(x); got != -3 {
				t.Errorf("maxOf %d: got %v, want −3", n, got)
			}
		}
	})
}

func TestArgMax(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	eachSet(t, func(t *testing.T) {
		for n := range 150 {
			x := randomFloats(n+1, uint64(n))[1:]
			want := 0
			for i, v := range x {
				if v > x[want] {
					want = i
				}
			}
			if got := ArgMax(x); got != want {
				t.Fatalf("%d values: got %d, want %d", n, got, want)
			}
			for i := range x {
				x[i] = -inf
				if i%3 == 0 {
					x[i] = nan
				}
			}
			if got, want := ArgMax(x), min(1, max(0, n-1)); got != want {
				t.Fatalf("%d NaN and −Inf: got %d, want %d", n, got, want)
			}
			for _, top := range []float32{0, float32(math.Copysign(0, -1)), 1e-45, -3, inf} {
				for i := range x {
					for j := range x {
						x[j] = []float32{nan, -5}[j%2]
						if j >= i {
							x[j] = top // the lowest of several
						}
					}
					if got := ArgMax(x); got != i {
						t.Fatalf("%d values, greatest %v at %d: got %d", n, top, i, got)
					}
				}
			}
			for i := range x {
				x[i] = nan
			}
			if got := ArgMax(x); got != 0 {
				t.Fatalf("%d NaN: got %d, want 0", n, got)
			}
			if got := vector().indexOf(x, 0); got != -1 {
				t.Fatalf("zero among %d NaN: got %d, want −1", n, got)
			}
		}
	})
}

// TestRotate compares the rotations, which take heads of several widths.
func TestRotate(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		for half := 1; half < 70; half++ {
			for _, heads := range []int{1, 3} {
				n := 2 * half * heads
				cos, sin := randomFloats(half, 1), randomFloats(half, 2)
				for i, pair := range [][2]func(x, cos, sin []float32){{vector().rotate, refRotate}, {vector().rotateBack, refRotateBack}} {
					got, check := guarded(t, n)
					copy(got, randomFloats(n, 3))
					want := append([]float32(nil), got...)
					pair[0](got, cos, sin)
					pair[1](want, cos, sin)
					check()
					if e := relL2(got, want); e > 2*eps32 {
						t.Errorf("way %d, %d pairs, %d heads: relative error %.2g", i, half, heads, e)
					}
				}
			}
		}
	})
}

// TestSoftmaxRows compares the softmax of triangles and its backward.
func TestSoftmaxRows(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		for valid := 1; valid < 70; valid++ {
			const rows, ld = 5, 96
			width := valid + rows + 7
			run := func(v *vectorKernels) [][]float32 {
				p, check := guarded(t, rows*ld)
				ds, check2 := guarded(t, rows*ld)
				copy(p, randomFloats(rows*ld, 1))
				copy(ds, randomFloats(rows*ld, 2))
				weights := append([]float32(nil), p...)
				top, sum, delta := make([]float32, rows), make([]float32, rows), randomFloats(rows, 3)
				v.softmaxRows(weights, ld, valid, width, 0.7, top, sum)
				v.softmaxRowsBackward(p, ds, ld, valid, width, 0.7, top, delta)
				check()
				check2()
				out := [][]float32{top, sum}
				for r := range rows {
					for _, x := range [][]float32{weights, p, ds} {
						out = append(out, x[r*ld:r*ld+width])
					}
				}
				return out
			}
			got, want := run(vector()), run(&refVector)
			for i, w := range want {
				if e := relL2(got[i], w); e > 8*eps32 {
					t.Errorf("valid %d, slice %d: relative error %.2g", valid, i, e)
				}
				if i > 1 {
					for j := valid + (i-2)/3; j < width; j++ {
						if got[i][j] != 0 {
							t.Fatalf("valid %d, slice %d: element %d is %v, want 0", valid, i, j, got[i][j])
						}
					}
				}
			}
		}
	})
}

// Every set must be complete, and every kernel have a test.
func TestVectorSetsComplete(t *testing.T) {
	tested := map[string]bool{"rotate": true, "rotateBack": true, "softmaxRows": true, "softmaxRowsBackward": true, "matVecInt8": true, "indexOf": true, "dropBlocks": true}
	for _, c := range vectorCases {
		tested[c.name] = true
	}
	for _, s := range machineSets() {
		v := reflect.ValueOf(vectorSets[s])
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if v.Field(i).IsNil() {
				t.Errorf("set %s has no %s", setNames[s], name)
			}
			if !tested[name] {
				t.Errorf("%s has no test", name)
			}
		}
	}
}

func TestQuantize(t *testing.T) {
	w := []float32{-1.6, -1.5, -1.2, -.5, .5, .49, 1.5, 1.5001, 2.5}
	eachSet(t, func(t *testing.T) {
		q, mask := make([]float32, len(w)), []float32{1, 1, 1, 1, 1, 1, 1, 1, 1}
		QuantizeClassic(q, w)
		ClassicMask(mask, w)
		for i, want := range []float32{-1, -1, -1, 0, 0, 0, 1, 1, 1} {
			if q[i] != want {
				t.Errorf("classic %v: got %v, want %v", w[i], q[i], want)
			}
		}
		for i, want := range []float32{0, 1, 1, 1, 1, 1, 1, 0, 0} {
			if mask[i] != want {
				t.Errorf("mask %v: got %v, want %v", w[i], mask[i], want)
			}
		}
		QuantizeAbsMean(q, []float32{0.1, 0.25, 0.26, -0.75, -9, 0.5, -0.24, 0, 1}, 0.5)
		for i, want := range []float32{0, 0, 1, -1, -1, 1, 0, 0, 1} {
			if q[i] != want {
				t.Errorf("absmean %d: got %v, want %v", i, q[i], want)
			}
		}
		if got := CountZeros(q); got != 4 {
			t.Errorf("got %d zeros, want 4", got)
		}
	})
}

func TestFakeQuant8(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		x := []float32{0, 0, 0, 127, -63.5, 62.5, 0.1, 12.7, -12.7, 1e-40, 0, 1e-41}
		y := make([]float32, len(x))
		FakeQuant8(y, x, 4, 3)
		for i, want := range []float32{0, 0, 0, 127, -64, 62, 0.1, 12.7, -12.7, 0, 0, 0} {
			if math.Abs(float64(y[i]-want)) > 1e-6*math.Abs(float64(want)) && i != 6 {
				t.Errorf("%v: got %v, want %v", x[i], y[i], want)
			}
		}
	})
}

func BenchmarkVector(b *testing.B) {
	const n = 1 << 15
	for _, c := range vectorCases {
		b.Run(c.name, func(b *testing.B) {
			var x, y [][]float32
			for i := range c.in {
				x = append(x, randomFloats(n, uint64(i)))
			}
			for i := range c.out {
				y = append(y, randomFloats(n, uint64(9+i)))
			}
			b.SetBytes(int64(4 * n * (c.in + c.out)))
			for b.Loop() {
				c.run(vector(), y, x)
			}
		})
	}
}
