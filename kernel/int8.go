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
func MatMulInt8(m *Int8Scratch, y []int32, ldy int, w, x []int8, rows, cols, tokens int) {
	s := int8Tiles()
	if rows == 0 || tokens == 0 {
		return
	}
	w, x, y = w[:rows*cols], x[:tokens*cols], y[:(tokens-1)*ldy+rows]
	if s.pack == nil || cols < 16 || tokens == 1 {
		block := 16
		if tokens == 1 {
			block = rows
		}
		for lo := 0; lo < rows; lo += block {
			n := min(block, rows-lo)
			for i := range tokens {
				MatVecInt8(y[i*ldy+lo:], w[lo*cols:], x[i*cols:], n, cols)
			}
		}
		return
	}
	matMulInt8(m, y, ldy, w, nil, 0, x, rows, cols, tokens)
}

// matMulInt8 does rows of w or, where there is none, of g from row on.
func matMulInt8(m *Int8Scratch, y []int32, ldy int, w []int8, g *Grouped, row int, x []int8, rows, cols, tokens int) {
	s := int8Tiles()
	width, k4 := 2*s.lanes, (cols+3)/4
	m.panel, m.start = resized(m.panel, 4*k4*width), resized(m.start, tokens)
	for i := range m.start {
		m.start[i] = -s.bias * s.sum(x[i*cols:(i+1)*cols])
	}
	if cols%4 != 0 { // room for whole steps, in which what B holds does not matter
		m.padded = resized(m.padded, tokens*4*k4)
		clear(m.padded)
		for i := range tokens {
			copy(m.padded[i*4*k4:], x[i*cols:(i+1)*cols])
		}
		x = m.padded
	}
	t := &m.tile
	*t = int8TileArgs{lda: 4 * k4, k4: k4, b: unsafe.Pointer(&m.panel[0]), ldc: 4 * ldy}
	for lo := 0; lo < rows; lo += width {
		n := min(width, rows-lo)
		t.a, t.start, t.c = unsafe.Pointer(&x[0]), unsafe.Pointer(&m.start[0]), unsafe.Pointer(&y[lo])
		if n < width {
			m.edge = resized(m.edge, tokens*width)
			t.c, t.ldc = unsafe.Pointer(&m.edge[0]), 4*width
		}
		var next uintptr
		if g != nil {
			m.rows = resized(m.rows, n*cols)
			g.Expand(m.rows, row+lo)
			packInt8(s, m.panel, m.rows, n, cols)
			low, _, _ := g.rows(row+lo, n)
			next = uintptr(unsafe.Pointer(&low[0])) + uintptr(len(low))
		} else {
			block := w[lo*cols : (lo+n)*cols]
			packInt8(s, m.panel, block, n, cols)
			next = uintptr(unsafe.Pointer(&block[0])) + uintptr(len(block))
		}
		t.do(s.wide, tokens, next, 64*k4)
		if n < width {
			for i := range tokens {
				copy(y[i*ldy+lo:], m.edge[i*width:i*width+n])
			}
		}
	}
}

// resized is x or a new slice, of n elements of any value.
func resized[T any](x []T, n int) []T {
	if cap(x) < n {
		return make([]T, n)
	}
	return x[:n]
}

// packInt8 writes n rows of w, plus the set's bias, as a panel of B.
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
			panel[c/4*4*2*s.lanes+4*r+c%4] = uint8(int32(v) + s.bias)
		}
	}
}
