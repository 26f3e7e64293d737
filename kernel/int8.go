package kernel

// MatVecInt8 is y = W·x exactly, for W [rows, cols] and x [cols] of int8;
// |Σ| must stay below 2³¹, which holds for cols < 2¹⁷.
func MatVecInt8(y []int32, w []int8, x []int8, rows, cols int) {
	vector().matVecInt8(y[:rows], w[:rows*cols], x[:cols])
}

func refMatVecInt8(y []int32, w, x []int8) {
	cols := len(x)
	for r := range y {
		var s int32
		for c, v := range w[r*cols : r*cols+cols] {
			s += int32(v) * int32(x[c])
		}
		y[r] = s
	}
}
