package kernel

import (
	"math"
	"strconv"
)

// The float32 steps of int8 inference (SPEC §7). Every machine and kernel set
// gives the same bits: no fused multiply–add (a product that is added to
// something is rounded first), and sums have a fixed order, that of sixteen
// accumulators: element i goes to accumulator i mod 16 in ascending order of
// i, and then the upper half is added to the lower, 8, 4, 2, 1. Square roots
// and divisions are those of IEEE 754.

// exactLanes is the number of accumulators of an exact sum.
const exactLanes = 16

// exactKernels is one set's implementations; each has the signature and the
// meaning of its plain definition, refExact…. What needs neither a sum nor an
// exponential is exact in vectorKernels already.
type exactKernels struct {
	sumSquares func(x []float32) float32
	quantize8  func(q []int8, x []float32, inv float32)
	scaleInt32 func(y []float32, ldy int, acc []int32, ldacc, rows int, s float32, g []float32)
	rotate     func(x, cos, sin []float32)
	scores     func(scores, q, keys []float32, scale float32)
	values     func(o, w, values []float32)
	values8    func(o, w []float32, values []int8)
	swiglu     func(y, gate, up []float32)
	exp        func(y, x []float32)
	expScaled  func(y, x []float32, top, inv float32) float32
	embedding8 func(y []float32, q []int8, s float32)
}

var refExact = exactKernels{
	sumSquares: refExactSumSquares, quantize8: refExactQuantize8, scaleInt32: refExactScaleInt32,
	rotate: refExactRotate, scores: refExactScores, values: refExactValues, values8: refExactValues8,
	swiglu: refSwiGLU, exp: refExp, expScaled: refExactExpScaled, embedding8: refExactEmbedding8,
}

// exact returns the implementations in use.
func exact() *exactKernels { return &exactSets[active] }

// fold16 adds up sixteen accumulators.
func fold16(s *[exactLanes]float32) float32 {
	for w := exactLanes / 2; w > 0; w /= 2 {
		for i := range w {
			s[i] += s[i+w]
		}
	}
	return s[0]
}

func refExactSumSquares(x []float32) float32 {
	var s [exactLanes]float32
	for i, v := range x {
		s[i%exactLanes] += float32(v * v)
	}
	return fold16(&s)
}

// ExactRMSNorm is y = x·r ∘ w for one row, r = 1/√(mean(x²) + eps).
func ExactRMSNorm(y, x, w []float32, eps float32) {
	mean := exact().sumSquares(x) / float32(len(x))
	r := 1 / float32(math.Sqrt(float64(mean+eps)))
	vector().scaleMul(y, x[:len(y)], w[:len(y)], r)
}

// ExactQuantize8 rounds x to int8: with a = max|x|, q = clamp(roundeven(
// x·(127/a)), ±127), and the scale a/127 is returned; all zero for a = 0.
// The values that training computes with (FakeQuant8) are q times the scale.
func ExactQuantize8(q []int8, x []float32) (scale float32) {
	x = x[:len(q)]
	a := MaxAbs(x)
	if a < smallest8 {
		clear(q)
		return 0
	}
	exact().quantize8(q, x, 127/a)
	return a / 127
}

// refExactQuantize8 is q = clamp(roundeven(x·inv), ±127).
func refExactQuantize8(q []int8, x []float32, inv float32) {
	for i, v := range x {
		q[i] = int8(roundEven(max(-127, min(127, v*inv))))
	}
}

// ExactScaleInt32 is y = float32(acc)·(s·g) for rows of len(g) elements, ldy
// apart in y and ldacc in acc.
func ExactScaleInt32(y []float32, ldy int, acc []int32, ldacc, rows int, s float32, g []float32) {
	if rows == 0 || len(g) == 0 {
		return
	}
	_, _ = y[(rows-1)*ldy+len(g)-1], acc[(rows-1)*ldacc+len(g)-1]
	exact().scaleInt32(y, ldy, acc, ldacc, rows, s, g)
}

func refExactScaleInt32(y []float32, ldy int, acc []int32, ldacc, rows int, s float32, g []float32) {
	for r := range rows {
		for i, v := range acc[r*ldacc:][:len(g)] {
			y[r*ldy+i] = float32(v) * float32(s*g[i])
		}
	}
}

// ExactEmbedding8 is y = s·q, a row of an int8 embedding.
func ExactEmbedding8(y []float32, q []int8, s float32) { exact().embedding8(y, q[:len(y)], s) }

func refExactEmbedding8(y []float32, q []int8, s float32) {
	for i, v := range q {
		y[i] = s * float32(v)
	}
}

// ExactRotate is RoPE: of every head of x, each 2·len(cos) wide, the adjacent
// pairs as complex numbers times cos + i·sin.
func ExactRotate(x, cos, sin []float32) { exact().rotate(x, cos, sin[:len(cos)]) }

func refExactRotate(x, cos, sin []float32) {
	for ; len(x) > 0; x = x[2*len(cos):] {
		for m, c := range cos {
			s, a, b := sin[m], x[2*m], x[2*m+1]
			x[2*m], x[2*m+1] = float32(a*c)-float32(b*s), float32(b*c)+float32(a*s)
		}
	}
}

// ExactBlock is the number of positions that keys are stored together for.
const ExactBlock = 16

// ExactScores is scores[p] = scale·Σ_i q[i]·k_p[i], one query against keys that
// are stored transposed in blocks of ExactBlock positions: keys
// [len(scores)/16][len(q)][16]. len(scores) is a multiple of ExactBlock.
func ExactScores(scores, q, keys []float32, scale float32) {
	if len(scores)%ExactBlock != 0 {
		panic("kernel: " + strconv.Itoa(len(scores)) + " scores are not whole blocks of " + strconv.Itoa(ExactBlock))
	}
	exact().scores(scores, q, keys[:len(scores)*len(q)], scale)
}

func refExactScores(scores, q, keys []float32, scale float32) {
	for p := range scores {
		block := keys[p/ExactBlock*len(q)*ExactBlock:]
		var s [exactLanes]float32
		for i, v := range q {
			s[i%exactLanes] += float32(v * block[i*ExactBlock+p%ExactBlock])
		}
		scores[p] = scale * fold16(&s)
	}
}

// ExactSoftmax replaces x by exp(x−max)·(1/Σ exp(x−max)).
func ExactSoftmax(x []float32) {
	if len(x) > 0 {
		Scale(x, 1/ExactExpScaled(x, x, vector().maxOf(x), 1))
	}
}

// refExactExpScaled is y = exp((x−top)·inv), and returns the sum.
func refExactExpScaled(y, x []float32, top, inv float32) float32 {
	var s [exactLanes]float32
	for i, v := range x {
		e := exp32(float32((v - top) * inv))
		y[i] = e
		s[i%exactLanes] += e
	}
	return fold16(&s)
}

// ExactExpScaled is y = exp((x−top)·inv); it returns the sum of y.
func ExactExpScaled(y, x []float32, top, inv float32) float32 {
	return exact().expScaled(y, x[:len(y)], top, inv)
}

// ExactValues is o += Σ_p w[p]·values[p], in ascending p, with values
// [len(w), len(o)].
func ExactValues(o, w, values []float32) {
	exact().values(o, w, values[:len(w)*len(o)])
}

func refExactValues(o, w, values []float32) {
	for p, a := range w {
		for c, v := range values[p*len(o) : (p+1)*len(o)] {
			o[c] += float32(a * v)
		}
	}
}

// ExactValues8 is ExactValues for values in int8, whose scales w has in it.
func ExactValues8(o, w []float32, values []int8) {
	exact().values8(o, w, values[:len(w)*len(o)])
}

func refExactValues8(o, w []float32, values []int8) {
	for p, a := range w {
		for c, v := range values[p*len(o) : (p+1)*len(o)] {
			o[c] += float32(a * float32(v))
		}
	}
}

// ExactSwiGLU is y = silu(gate) ∘ up, silu(g) = g/(1+e⁻ᵍ).
func ExactSwiGLU(y, gate, up []float32) { exact().swiglu(y, gate[:len(y)], up[:len(y)]) }

// ExactExp is Exp with the same bits on every machine.
func ExactExp(y, x []float32) { exact().exp(y, x[:len(y)]) }

// ExactLogProb is the logarithm of softmax(x)[i]: x_i − max − ln Σ exp(x−max).
func ExactLogProb(x []float32, i int) float32 {
	top := vector().maxOf(x)
	var s float32
	var e [512]float32
	for at := 0; at < len(x); at += len(e) { // in fixed pieces, one after another
		n := min(len(e), len(x)-at)
		s += exact().expScaled(e[:n], x[at:at+n], top, 1)
	}
	return x[i] - top - float32(log64(float64(max(1, s))))
}
