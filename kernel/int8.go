package kernel

import "unsafe"

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

// MatMulInt8 is MatVecInt8 for several x [tokens, cols]: y[t·ldy + r] is the
// product of row r with x[t]. A block of rows at a time is laid out for the
// tiles and stays in the cache while all tokens are multiplied by it.
func MatMulInt8(y []int32, ldy int, w, x []int8, rows, cols, tokens int) {
	s := int8Tiles()
	if rows == 0 || tokens == 0 {
		return
	}
	w, x, y = w[:rows*cols], x[:tokens*cols], y[:(tokens-1)*ldy+rows]
	if s.pack == nil || cols < 16 || tokens == 1 {
		const block = 16
		for lo := 0; lo < rows; lo += block {
			n := min(block, rows-lo)
			for i := range tokens {
				MatVecInt8(y[i*ldy+lo:], w[lo*cols:], x[i*cols:], n, cols)
			}
		}
		return
	}
	width, k4 := 2*s.lanes, (cols+3)/4
	start := make([]int32, tokens)
	for i := range start {
		start[i] = -128 * s.sum(x[i*cols:(i+1)*cols])
	}
	if cols%4 != 0 { // room for whole steps
		padded := make([]int8, tokens*4*k4)
		for i := range tokens {
			copy(padded[i*4*k4:], x[i*cols:(i+1)*cols])
		}
		x = padded
	}
	panel, edge := make([]uint8, 4*k4*width), []int32(nil)
	for lo := 0; lo < rows; lo += width {
		n := min(width, rows-lo)
		t := int8TileArgs{a: unsafe.Pointer(&x[0]), lda: 4 * k4, k4: k4, b: unsafe.Pointer(&panel[0]),
			c: unsafe.Pointer(&y[lo]), ldc: 4 * ldy, start: unsafe.Pointer(&start[0])}
		if n < width {
			edge = make([]int32, tokens*width)
			t.c, t.ldc = unsafe.Pointer(&edge[0]), 4*width
		}
		packInt8(s, panel, w[lo*cols:(lo+n)*cols], n, cols)
		t.do(s.wide, tokens, uintptr(unsafe.Pointer(&w[lo*cols]))+uintptr(width*cols))
		for i := 0; i < len(edge); i += width {
			copy(y[i/width*ldy+lo:], edge[i:i+n])
		}
	}
}

// packInt8 writes n rows of w, plus 128, as a panel of B.
func packInt8(s *int8TileSet, panel []uint8, w []int8, n, cols int) {
	done := 0 // columns of all rows
	if n == 2*s.lanes {
		for half := range 2 {
			s.pack(panel[half*s.lanes*4:], w[half*s.lanes*cols:], cols, cols/16)
		}
		done = cols / 16 * 16
	}
	for r := range n {
		for c, v := range w[r*cols+done : (r+1)*cols] {
			c += done
			panel[c/4*4*2*s.lanes+4*r+c%4] = uint8(v) ^ 128
		}
	}
}
