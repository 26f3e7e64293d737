package kernel

import "math"

// rsqrtMeanSquare is r = 1/√(mean(x²) + eps).
func rsqrtMeanSquare(x []float32, eps float32) float32 {
	return 1 / float32(math.Sqrt(float64(vector().sumSquares32(x)/float32(len(x))+eps)))
}

// RMSNorm is y = x·r ∘ w by rows of d, r = 1/√(mean(x²) + eps).
func RMSNorm(y, x, w []float32, rows, d int, eps float32) {
	v := vector()
	w = w[:d]
	for i := range rows {
		xi := x[i*d : i*d+d]
		v.scaleMul(y[i*d:i*d+d], xi, w, rsqrtMeanSquare(xi, eps))
	}
}

// RMSNormBackward is the gradient of RMSNorm:
//
//	dx_i  = r·(dy_i·w_i − x_i·r²·mean(dy∘w∘x)), added to dx when acc
//	dw_i += Σ over rows of dy_i·x_i·r
//
// r is computed again from x.
func RMSNormBackward(dx, dw, dy, x, w []float32, rows, d int, eps float32, acc bool) {
	v := vector()
	row := v.rmsNormRow
	if acc {
		row = v.rmsNormRowAcc
	}
	w, dw = w[:d], dw[:d]
	for i := range rows {
		xi, dyi := x[i*d:i*d+d], dy[i*d:i*d+d]
		r := rsqrtMeanSquare(xi, eps)
		c := r * r * r * v.dot3(dyi, w, xi) / float32(d)
		row(dx[i*d:i*d+d], dw, dyi, xi, w, r, c)
	}
}

// refRMSNormRow is dx = r·dy∘w − c·x and dw += r·dy∘x.
func refRMSNormRow(dx, dw, dy, x, w []float32, r, c float32) {
	for i := range dx {
		g := r * dy[i]
		dx[i] = g*w[i] - c*x[i]
		dw[i] += g * x[i]
	}
}

// refRMSNormRowAcc is refRMSNormRow with dx +=.
func refRMSNormRowAcc(dx, dw, dy, x, w []float32, r, c float32) {
	for i := range dx {
		g := r * dy[i]
		dx[i] += g*w[i] - c*x[i]
		dw[i] += g * x[i]
	}
}
