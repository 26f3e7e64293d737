//go:build arm64 || wasm

package kernel

// The assembly of these machines takes whole vectors of four, of which there
// are as many as fit; the last elements are done here.

// whole is the number of elements of x in vectors of four.
func whole[T any](x []T) int { return len(x) &^ 3 }

func exactQuantize8Whole(q []int8, x []float32, inv float32) {
	n := whole(x)
	exactQuantize8V4(q[:n], x, inv)
	refExactQuantize8(q[n:], x[n:], inv)
}

func exactRotateWhole(x, cos, sin []float32) {
	n := whole(cos)
	for ; len(x) > 0; x = x[2*len(cos):] {
		exactRotateV4(cos[:n], sin, x)
		refExactRotate(x[2*n:2*len(cos)], cos[n:], sin[n:])
	}
}

func exactSwiGLUWhole(y, gate, up []float32) {
	n := whole(y)
	exactSwiGLUV4(y[:n], gate, up)
	refSwiGLU(y[n:], gate[n:], up[n:])
}

func exactExpWhole(y, x []float32) {
	n := whole(y)
	exactExpV4(y[:n], x)
	refExp(y[n:], x[n:])
}

func exactEmbedding8Whole(y []float32, q []int8, s float32) {
	n := whole(q)
	exactEmbedding8V4(y[:n], q, s)
	refExactEmbedding8(y[n:], q[n:], s)
}

func addWhole(y, a, b []float32) {
	n := whole(y)
	addV4(y[:n], a, b)
	refAdd(y[n:], a[n:], b[n:])
}

func mulWhole(y, a, b []float32) {
	n := whole(y)
	mulV4(y[:n], a, b)
	refMul(y[n:], a[n:], b[n:])
}

func scaleWhole(y []float32, s float32) {
	n := whole(y)
	scaleV4(y[:n], s)
	refScale(y[n:], s)
}

func scaleMulWhole(y, x, w []float32, s float32) {
	n := whole(y)
	scaleMulV4(y[:n], x, w, s)
	refScaleMul(y[n:], x[n:], w[n:], s)
}

func maxAbsWhole(x []float32) float32 {
	n := whole(x)
	return max(maxAbsV4(x[:n]), refMaxAbs(x[n:]))
}

func maxOfWhole(x []float32) float32 {
	n := whole(x)
	return max(maxOfV4(x[:n]), refMaxOf(x[n:]))
}

func indexOfWhole(x []float32, v float32) int {
	from := indexOfV4(x[:len(x)&^15], v)
	if i := refIndexOf(x[from:], v); i >= 0 {
		return from + i
	}
	return -1
}
