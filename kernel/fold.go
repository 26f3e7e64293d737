package kernel

// FoldBeta turns the folded outer products G of a layer with an output scale
// into gradients (SPEC §1): dbeta_r += Σ_{k,c} G_k[r,c]·W_k[r,c], then
// G_k[r,c] *= beta_r. g and w are [n, N, K], or [n, K, N] when transposed,
// beta and dbeta [N], for N = out and K = in.
func FoldBeta(g, dbeta, w, beta []float32, out, in int, transposed bool) {
	if transposed {
		for lo := 0; lo < len(g); lo += out {
			for r, b := range beta {
				dbeta[r] += float32(g[lo+r] * w[lo+r])
				g[lo+r] *= b
			}
		}
		return
	}
	for lo := 0; lo < len(g); lo += in {
		r := lo / in % out
		var sum float32
		row, weight := g[lo:lo+in], w[lo:lo+in]
		for c := range row {
			sum += float32(row[c] * weight[c])
			row[c] *= beta[r]
		}
		dbeta[r] += sum
	}
}
