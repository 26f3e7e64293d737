package kernel

// The three products of a linear layer. The plain definitions are refGemmNT,
// refGemmNN and refGemmTN; GemmNT, GemmNN and GemmTN compute the same in
// tiles, in an order that depends on the shapes only.

// refGemmNT: C[m,n] = A[m,k]·B[n,k]ᵀ (+ C when acc).
func refGemmNT(c, a, b []float32, m, n, k int, acc bool) {
	for i := range m {
		for j := range n {
			var s float32
			if acc {
				s = c[i*n+j]
			}
			for q := range k {
				s += a[i*k+q] * b[j*k+q]
			}
			c[i*n+j] = s
		}
	}
}

// refGemmNN: C[m,n] = A[m,k]·B[k,n] (+ C when acc).
func refGemmNN(c, a, b []float32, m, n, k int, acc bool) {
	for i := range m {
		row := c[i*n : i*n+n]
		if !acc {
			clear(row)
		}
		for q := range k {
			s := a[i*k+q]
			for j, v := range b[q*n : q*n+n] {
				row[j] += s * v
			}
		}
	}
}

// refGemmTN: C[m,n] = A[k,m]ᵀ·B[k,n] (+ C when acc).
func refGemmTN(c, a, b []float32, m, n, k int, acc bool) {
	for i := range m {
		row := c[i*n : i*n+n]
		if !acc {
			clear(row)
		}
		for q := range k {
			s := a[q*m+i]
			for j, v := range b[q*n : q*n+n] {
				row[j] += s * v
			}
		}
	}
}

// gemmTask is one GEMM in progress.
type gemmTask struct {
	kind    byte // 'N','T' of B for NT and NN; 't' for TN
	c, a, b []float32
	m, n, k int
	acc     bool
}

// Do computes 16 rows of C.
func (t *gemmTask) Do(i, _ int) {
	i0, i1 := i*16, min(t.m, i*16+16)
	c := t.c[i0*t.n : i1*t.n]
	switch t.kind {
	case 'T':
		refGemmNT(c, t.a[i0*t.k:], t.b, i1-i0, t.n, t.k, t.acc)
	case 'N':
		refGemmNN(c, t.a[i0*t.k:], t.b, i1-i0, t.n, t.k, t.acc)
	default:
		for r := i0; r < i1; r++ {
			row := t.c[r*t.n : r*t.n+t.n]
			if !t.acc {
				clear(row)
			}
			for q := range t.k {
				s := t.a[q*t.m+r]
				for j, v := range t.b[q*t.n : q*t.n+t.n] {
					row[j] += s * v
				}
			}
		}
	}
}

func (p *Pool) runGemm(kind byte, c, a, b []float32, m, n, k int, acc bool) {
	p.gemm = gemmTask{kind, c[:m*n], a[:m*k], b[:n*k], m, n, k, acc}
	p.Run((m+15)/16, &p.gemm)
	p.gemm = gemmTask{}
}

// GemmNT computes C[m,n] = A[m,k]·B[n,k]ᵀ, added to C when acc.
func GemmNT(p *Pool, c, a, b []float32, m, n, k int, acc bool) {
	p.runGemm('T', c, a, b, m, n, k, acc)
}

// GemmNN computes C[m,n] = A[m,k]·B[k,n], added to C when acc.
func GemmNN(p *Pool, c, a, b []float32, m, n, k int, acc bool) {
	p.runGemm('N', c, a, b, m, n, k, acc)
}

// GemmTN computes C[m,n] = A[k,m]ᵀ·B[k,n], added to C when acc.
func GemmTN(p *Pool, c, a, b []float32, m, n, k int, acc bool) {
	p.runGemm('t', c, a, b, m, n, k, acc)
}
