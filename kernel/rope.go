package kernel

import "strconv"

// ropeTheta is the base of the rotation frequencies.
const ropeTheta = 10000

// RoPETable returns cos and sin of position·10000^(−2m/headDim), each
// [positions, headDim/2].
func RoPETable(positions, headDim int) (cos, sin []float32) {
	half := headDim / 2
	cos, sin = make([]float32, positions*half), make([]float32, positions*half)
	f := RoPEFrequencies(ropeTheta, headDim)
	for p := range positions {
		RoPEAngles(cos[p*half:(p+1)*half], sin[p*half:(p+1)*half], p, f)
	}
	return cos, sin
}

// RoPE rotates x [rows, heads·headDim] in place: of every head, the adjacent
// pair (2m, 2m+1) as a complex number by the angle of its row's position,
// pos0 + row mod period. cos and sin are a RoPETable of headDim. inverse
// rotates back, which is also the gradient.
func RoPE(x []float32, rows, heads, headDim, pos0, period int, cos, sin []float32, inverse bool) {
	if headDim%2 != 0 {
		panic("kernel: rotation of pairs of an odd head width, " + strconv.Itoa(headDim))
	}
	half := headDim / 2
	rotate := vector().rotate
	if inverse {
		rotate = vector().rotateBack
	}
	for r := range rows {
		p := (pos0 + r%period) * half
		c, s := cos[p:p+half], sin[p:p+half]
		rotate(x[r*heads*headDim:(r+1)*heads*headDim], c, s)
	}
}

// refRotate multiplies the complex numbers x by cos + i·sin, which repeat for
// every head.
func refRotate(x, cos, sin []float32) {
	for ; len(x) > 0; x = x[2*len(cos):] {
		for m, c := range cos {
			s, a, b := sin[m], x[2*m], x[2*m+1]
			x[2*m], x[2*m+1] = a*c-b*s, b*c+a*s
		}
	}
}

// refRotateBack multiplies by cos − i·sin.
func refRotateBack(x, cos, sin []float32) {
	for ; len(x) > 0; x = x[2*len(cos):] {
		for m, c := range cos {
			s, a, b := sin[m], x[2*m], x[2*m+1]
			x[2*m], x[2*m+1] = a*c+b*s, b*c-a*s
		}
	}
}
