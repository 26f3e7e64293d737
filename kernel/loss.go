package kernel

// Softmax cross-entropy over logits = h·Eᵀ, in chunks of rows: the logits of
// all rows are never in memory at once.

// logitsMax bounds a chunk's logits, in values (64 MB).
const logitsMax = 16 << 20

// lossTask is the softmax of a chunk's rows, lossRows rows an item.
type lossTask struct {
	losses, logits []float32
	targets        []int32
	vocab          int
	scale          float32
	gradient       bool
}

// lossRows is the number of rows a task does: a constant, and results are by
// row, so they do not depend on the threads.
const lossRows = 8

// Do turns rows of logits into losses and, for the gradient, into
// scale·(softmax − onehot(target)).
func (t *lossTask) Do(i, _ int) {
	v := vector()
	for r := i * lossRows; r < min(len(t.targets), (i+1)*lossRows); r++ {
		row := t.logits[r*t.vocab : (r+1)*t.vocab]
		target := t.targets[r]
		if target < 0 {
			t.losses[r] = 0
			if t.gradient {
				clear(row)
			}
			continue
		}
		m := v.maxOf(row)
		at := row[target]
		s := v.expAffine(row, row, 1, -m)
		t.losses[r] = m - at + log32(s)
		if t.gradient {
			v.scale(row, t.scale/s)
			row[target] -= t.scale
		}
	}
}

// CrossEntropyForward writes to losses [m] the cross-entropy in nats of the
// logits h·Eᵀ against targets [m], for h [m, d] and e [vocab, d]; 0 where the
// target is −1.
func CrossEntropyForward(p *Pool, losses, h, e []float32, targets []int32, m, vocab, d int) {
	crossEntropy(p, losses, nil, nil, h, e, targets, m, vocab, d, 0)
}

// CrossEntropyForwardBackward also computes the gradient of scale·Σ losses:
// dh [m, d] is overwritten, de [vocab, d] added to.
func CrossEntropyForwardBackward(p *Pool, losses, dh, de, h, e []float32, targets []int32, m, vocab, d int, scale float32) {
	crossEntropy(p, losses, dh[:m*d], de, h, e, targets, m, vocab, d, scale)
}

func crossEntropy(p *Pool, losses, dh, de, h, e []float32, targets []int32, m, vocab, d int, scale float32) {
	if m == 0 {
		return
	}
	chunk := max(lossRows, logitsMax/vocab/lossRows*lossRows)
	chunks := (m + chunk - 1) / chunk
	chunk = min(m, roundUp((m+chunks-1)/chunks, lossRows)) // of equal size
	logits := p.scratch(0, slotLoss, chunk*vocab)
	for i := 0; i < m; i += chunk {
		n := min(chunk, m-i)
		rows := h[i*d : (i+n)*d]
		GemmNT(p, logits[:n*vocab], rows, e, n, vocab, d, false)
		p.tasks().loss = lossTask{losses[i : i+n], logits, targets[i : i+n], vocab, scale, dh != nil}
		p.Run((n+lossRows-1)/lossRows, &p.tasks().loss)
		if dh != nil {
			GemmNN(p, dh[i*d:(i+n)*d], logits[:n*vocab], e, n, d, vocab, false)
			GemmTN(p, de, logits[:n*vocab], rows, vocab, d, n, true)
		}
	}
	p.tasks().loss = lossTask{}
}
