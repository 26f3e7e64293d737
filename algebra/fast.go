package algebra

// Term is one product x_J · w_{I xor J} of output part I.
type Term struct{ I, J int }

// Fast is the product through the Walsh–Hadamard transform H:
//
//	x̂ = H·(P∘x),  ŵ = H·(Q∘w)/n,  y = H·(x̂∘ŵ) + Σ 2·Sign[i][j]·x_j·w_{i xor j} over Terms
//
// Without terms it computes Σ_j P[j]·Q[i xor j]·x_j·w_{i xor j}: the algebra
// whose signs are P[j]·Q[i xor j]. Every place where the wanted sign differs
// costs one term of twice the product. The layer then takes n + len(Terms)
// products of blocks in place of n²: 30 in place of 64 for the octonions, 8
// for the Walsh algebra.
type Fast struct {
	P, Q  []int8
	Terms []Term // ascending by I, then J
}

// Fast finds the P and Q with the fewest terms by trying every P; the best Q
// for a given P is a majority vote for each of its signs. Among equals it
// prefers the fewest minus signs in P, then those at the lowest indices, so
// the result is the same everywhere.
func (t *Table) Fast() Fast {
	n := t.N
	best, bestMinus := n*n+1, 0
	var f Fast
	p, q := make([]int8, n), make([]int8, n)
	for mask := range 1 << n {
		minus := 0
		for j := range p {
			p[j] = 1
			if mask>>j&1 == 1 {
				p[j] = -1
				minus++
			}
		}
		terms := 0
		for k := range q {
			vote := 0
			for j := range p {
				vote += int(t.Sign[j^k][j] * p[j])
			}
			q[k] = 1
			if vote < 0 {
				q[k] = -1
			}
			terms += (n - max(vote, -vote)) / 2
		}
		if terms < best || terms == best && minus < bestMinus {
			best, bestMinus = terms, minus
			f.P, f.Q = append(f.P[:0], p...), append(f.Q[:0], q...)
		}
	}
	for i := range n {
		for j := range n {
			if t.Sign[i][j] != f.P[j]*f.Q[i^j] {
				f.Terms = append(f.Terms, Term{i, j})
			}
		}
	}
	return f
}
