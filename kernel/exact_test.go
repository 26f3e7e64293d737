package kernel

import (
	"encoding/binary"
	"hash"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

// exactOperands are n values of each kind that a step may meet: mixed sizes,
// signed zeros, subnormal and huge ones, both ends of the exponential. They
// are the same on every machine, which those of a normal distribution, made
// with logarithms, need not be.
func exactOperands(n int, seed uint64) []float32 {
	special := []float32{
		0, float32(math.Copysign(0, -1)), 1e-45, -1e-45, 1e-39, -1e-39, 1.1754944e-38, -1.1754944e-38,
		-87, -86.99999, -87.00001, -87.33, -88, 88, 88.37, 88.72, 88.73, 88.99, 89, 89.01, 3e38, -3e38, 1e30, -1e30,
		0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 127.5, 1, -1, 0.34657359, -0.34657359,
	}
	r := rand.New(rand.NewPCG(seed, 7))
	x := make([]float32, n)
	for i := range x {
		switch r.IntN(8) {
		case 0:
			x[i] = special[r.IntN(len(special))]
		case 1:
			x[i] = float32((r.Float64() - 0.5) * 200)
		default:
			x[i] = float32((r.Float64() - 0.5) * 4)
		}
	}
	return x
}

// exactCase runs one step of a set on inputs of n elements, whose values
// depend on seed, and returns all that it writes.
type exactCase struct {
	name string
	run  func(e *exactKernels, n int, seed uint64) []float32
}

func int32sOf(n int, seed uint64) []int32 {
	r := rand.New(rand.NewPCG(seed, 8))
	x := make([]int32, n)
	for i := range x {
		x[i] = int32(r.Uint32()) >> r.IntN(32)
	}
	return x
}

func int8sOf(n int, seed uint64) []int8 { return randomInt8(n, rand.New(rand.NewPCG(seed, 9))) }

func floatsOf(q []int8) []float32 {
	x := make([]float32, len(q))
	for i, v := range q {
		x[i] = float32(v)
	}
	return x
}

var exactCases = []exactCase{
	{"sumSquares", func(e *exactKernels, n int, seed uint64) []float32 {
		return []float32{e.sumSquares(clamped(exactOperands(n, seed)))}
	}},
	{"quantize8", func(e *exactKernels, n int, seed uint64) []float32 {
		q := make([]int8, n)
		e.quantize8(q, exactOperands(n, seed), []float32{1, 0.7, 127, 42.3}[seed%4])
		return floatsOf(q)
	}},
	{"scaleInt32", func(e *exactKernels, n int, seed uint64) []float32 {
		// Rows that lie apart; what is between them stays.
		rows, gap := int(seed%4), int(seed%3)
		y := make([]float32, (n+gap)*rows)
		e.scaleInt32(y, n+gap, int32sOf((n+2)*rows, seed), n+2, rows, 0.0123, exactOperands(n, seed+1))
		return y
	}},
	{"rotate", func(e *exactKernels, n int, seed uint64) []float32 {
		heads := 1 + int(seed%3)
		x := clamped(exactOperands(2*n*heads, seed))
		if n > 0 {
			e.rotate(x, clamped(exactOperands(n, seed+1)), clamped(exactOperands(n, seed+2)))
		}
		return x
	}},
	{"scores", func(e *exactKernels, n int, seed uint64) []float32 {
		width := []int{1, 2, 7, 15, 16, 17, 22, 31, 32, 33, 64, 86, 128}[seed%13]
		scores := make([]float32, (n+ExactBlock-1)/ExactBlock*ExactBlock)
		e.scores(scores, clamped(exactOperands(width, seed)), clamped(exactOperands(width*len(scores), seed+1)), 0.125)
		return scores
	}},
	{"values", func(e *exactKernels, n int, seed uint64) []float32 {
		rows := int(seed % 37)
		o := clamped(exactOperands(n, seed))
		e.values(o, clamped(exactOperands(rows, seed+1)), clamped(exactOperands(n*rows, seed+2)))
		return o
	}},
	{"values8", func(e *exactKernels, n int, seed uint64) []float32 {
		rows := int(seed % 37)
		o := clamped(exactOperands(n, seed))
		e.values8(o, clamped(exactOperands(rows, seed+1)), int8sOf(n*rows, seed+2))
		return o
	}},
	{"swiglu", func(e *exactKernels, n int, seed uint64) []float32 {
		y := make([]float32, n)
		e.swiglu(y, exactOperands(n, seed), clamped(exactOperands(n, seed+1)))
		return y
	}},
	{"exp", func(e *exactKernels, n int, seed uint64) []float32 {
		y := make([]float32, n)
		e.exp(y, exactOperands(n, seed))
		return y
	}},
	{"expScaled", func(e *exactKernels, n int, seed uint64) []float32 {
		x := clamped(exactOperands(n, seed))
		s := e.expScaled(x, x, max(0, refMaxOf(x)), []float32{1, 1.25, 0.7}[seed%3])
		return append(x, s)
	}},
	{"embedding8", func(e *exactKernels, n int, seed uint64) []float32 {
		y := make([]float32, n)
		e.embedding8(y, int8sOf(n, seed), 0.0371)
		return y
	}},
}

// clamped keeps products of two values and their sums finite.
func clamped(x []float32) []float32 {
	for i, v := range x {
		x[i] = max(-1e15, min(1e15, v))
	}
	return x
}

// TestExact compares the bits of every step of every set with its definition.
func TestExact(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		for _, c := range exactCases {
			for n := range 201 {
				for seed := uint64(n); seed < 100*uint64(n)+400; seed += 97 {
					got, want := c.run(exact(), n, seed), c.run(&refExact, n, seed)
					for i, w := range want {
						if math.Float32bits(got[i]) != math.Float32bits(w) {
							t.Fatalf("%s of %d, seed %d: element %d: got %v (%#x), want %v (%#x)", c.name, n, seed, i,
								got[i], math.Float32bits(got[i]), w, math.Float32bits(w))
						}
					}
					if n > 40 && seed > 400 {
						break
					}
				}
			}
		}
	})
}

// Every bit pattern of a finite argument in steps, and all near the ends.
func TestExactExpBits(t *testing.T) {
	var x []float32
	for b := uint32(0); b < 0x7f800000; b += 40961 {
		x = append(x, math.Float32frombits(b), -math.Float32frombits(b))
	}
	for _, around := range []float32{-87, 87, 88, 88.722839, 89, 0.34657359, -0.34657359, 1.0397208, -86.643394} {
		b := math.Float32bits(around)
		for i := range uint32(4000) {
			x = append(x, math.Float32frombits(b-2000+i))
		}
	}
	want := make([]float32, len(x))
	refExp(want, x)
	eachSet(t, func(t *testing.T) {
		y := make([]float32, len(x))
		ExactExp(y, x)
		for i, w := range want {
			if math.Float32bits(y[i]) != math.Float32bits(w) {
				t.Fatalf("exp(%v): got %v, want %v", x[i], y[i], w)
			}
		}
	})
}

// Every set must be complete, and every step have a case.
func TestExactSetsComplete(t *testing.T) {
	tested := map[string]bool{}
	for _, c := range exactCases {
		tested[c.name] = true
	}
	for _, s := range machineSets() {
		v := reflect.ValueOf(exactSets[s])
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

// exactGolden are hashes of what the steps write for fixed inputs, on every
// architecture and for every set.
var exactGolden = map[string]uint64{
	"embedding8": 0x6f34aad42c72305a,
	"exp":        0x8cb697662bf45115,
	"expScaled":  0xc87d26d845a7fb44,
	"norm":       0xa5513a753c590f2c,
	"quantize8":  0xd34861e9bb96889f,
	"quantized":  0x315409c9b33152a1,
	"rotate":     0xd4686688788f09a6,
	"scaleInt32": 0xf5117971a7c3976,
	"scores":     0xcb8d74068a8036cb,
	"softmax":    0x62d67230216f2f33,
	"sumSquares": 0x94add232a274e833,
	"swiglu":     0x9541cfe071289b3c,
	"values":     0xec3d508cbe32d94e,
	"values8":    0x76790cab2183007e,
}

func TestExactGolden(t *testing.T) {
	eachSet(t, func(t *testing.T) {
		hashes := map[string]hash.Hash64{}
		write := func(name string, x ...float32) {
			if hashes[name] == nil {
				hashes[name] = fnv.New64a()
			}
			for _, v := range x {
				var b [4]byte
				binary.LittleEndian.PutUint32(b[:], math.Float32bits(v))
				hashes[name].Write(b[:])
			}
		}
		for _, n := range []int{1, 8, 22, 64, 131, 512} {
			for seed := range uint64(5) {
				for _, c := range exactCases {
					write(c.name, c.run(exact(), n, seed+uint64(n))...)
				}
				x, w, y := clamped(exactOperands(n, seed)), clamped(exactOperands(n, seed+1)), make([]float32, n)
				ExactRMSNorm(y, x, w, 1e-6)
				write("norm", y...)
				q := make([]int8, n)
				write("quantized", ExactQuantize8(q, y))
				write("quantized", floatsOf(q)...)
				x = exactOperands(n, seed+2)
				for i, v := range x {
					x[i] = max(-100, min(100, v))
				}
				ExactSoftmax(x)
				write("softmax", x...)
			}
		}
		for name, h := range hashes {
			if got, want := h.Sum64(), exactGolden[name]; got != want {
				t.Errorf("%s: hash %#x, want %#x", name, got, want)
			}
		}
	})
}
