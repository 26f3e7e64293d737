package tensor

// The operations of a transformer, recorded on a tape. Each takes and gives
// variables whose rows are tokens.

// Embedding looks up the rows of table for ids: [len(ids), d].
func (t *Tape) Embedding(name string, table, dtable *Tensor, ids *Ints) *Var {
	y := t.newVar(name, Stream, ids.N, table.Shape[1])
	t.add(&node{
		outs:     []*Var{y},
		dOuts:    []*gradient{y.grad},
		forward:  func() { t.dev.Embedding(y.value, table, ids) },
		backward: func([]bool) { t.dev.EmbeddingBackward(dtable, y.grad.t, ids) },
	})
	return y
}

// Linear applies a hypercomplex linear layer (or head mixer) to x, whose rows
// are read as rows of n·K values; the output has width values a row of x's
// first dimension.
func (t *Tape) Linear(name string, x *Var, w *Weight, width int) *Var {
	return t.Linears([]string{name}, x, []*Weight{w}, width)[0]
}

// Linears applies several layers to the same x. Their outputs lie side by side
// in memory, and so do the gradients of these, so that a device can do all in
// one go. The width is of the first output; those of others are to it as their
// parts are.
func (t *Tape) Linears(names []string, x *Var, ws []*Weight, width int) []*Var {
	n := &node{ins: []*Var{x}, saved: []*Var{x}, dIns: []*gradient{x.grad}, late: t.dev.Late()}
	for i, name := range names {
		y := t.newVar(name, Activation, x.Shape[0], width/ws[0].Out*ws[i].Out)
		n.outs, n.dOuts = append(n.outs, y), append(n.dOuts, y.grad)
	}
	if len(ws) > 1 {
		values, grads := new(bundle), new(bundle)
		for _, y := range n.outs {
			values.add(y, t.bytes(y.Role, y.Shape))
			grads.add(y.grad, t.bytes(y.grad.role, y.grad.shape))
			y.bundle, y.grad.bundle = values, grads
		}
	}
	ys, dys := make([]*Tensor, len(ws)), make([]*Tensor, len(ws))
	n.forward = func() {
		for i, y := range n.outs {
			ys[i] = y.value
		}
		t.dev.Linear(ys, x.value, ws)
	}
	n.backward = func(acc []bool) {
		for i, g := range n.dOuts {
			dys[i] = g.t
		}
		t.dev.LinearBackward(n.dIns[0].t, acc[0], dys, x.value, ws)
	}
	t.add(n)
	return n.outs
}

// RMSNorm is x·rsqrt(mean(x²)+ε)·w by rows.
func (t *Tape) RMSNorm(name string, x *Var, w, dw *Tensor) *Var {
	y := t.newVar(name, Activation, x.Shape...)
	t.add(&node{
		outs: []*Var{y}, ins: []*Var{x}, saved: []*Var{x},
		dOuts: []*gradient{y.grad}, dIns: []*gradient{x.grad},
		forward:  func() { t.dev.RMSNorm(y.value, x.value, w) },
		backward: func(acc []bool) { t.dev.RMSNormBackward(x.grad.t, acc[0], dw, y.grad.t, x.value, w) },
	})
	return y
}

// RotaryAttention rotates q and k and attends causally. q and k hold the
// rotated values afterwards and may have no other reader.
func (t *Tape) RotaryAttention(name string, q, k, v *Var, rot *Rotation, a Attention) *Var {
	o := t.newVar(name, Activation, q.Shape...)
	lse := t.newVar(name+" logsumexp", Statistic, a.Batch, a.Heads, a.T)
	t.add(&node{
		outs: []*Var{o, lse}, ins: []*Var{q, k, v}, saved: []*Var{q, k, v, o, lse},
		dOuts: []*gradient{o.grad}, dIns: []*gradient{q.grad, k.grad, v.grad},
		forward: func() {
			t.dev.RotaryAttention(o.value, lse.value, q.value, k.value, v.value, rot, a)
		},
		backward: func([]bool) {
			t.dev.RotaryAttentionBackward(q.grad.t, k.grad.t, v.grad.t, o.grad.t, o.value, lse.value, q.value, k.value, v.value, rot, a)
		},
	})
	return o
}

// SwiGLU is silu(gate)∘up.
func (t *Tape) SwiGLU(name string, gate, up *Var) *Var {
	y := t.newVar(name, Activation, gate.Shape...)
	t.add(&node{
		outs: []*Var{y}, ins: []*Var{gate, up}, saved: []*Var{gate, up},
		dOuts: []*gradient{y.grad}, dIns: []*gradient{gate.grad, up.grad},
		forward: func() { t.dev.SwiGLU(y.value, gate.value, up.value) },
		backward: func([]bool) {
			t.dev.SwiGLUBackward(gate.grad.t, up.grad.t, y.grad.t, gate.value, up.value)
		},
	})
	return y
}

// Residual is h + f. The three share one gradient, which the backward of f's
// branch reads before the backward of what made h adds to it; so f may have
// no other reader, and h no earlier one outside the branch. The gradient has
// the type of the stream's also where f's values have another.
func (t *Tape) Residual(name string, h, f *Var) *Var {
	y := t.newVar(name, Stream, h.Shape...)
	y.grad = h.grad
	t.shareGradient(f.grad, h.grad)
	t.add(&node{
		outs: []*Var{y}, ins: []*Var{h, f},
		forward: func() { t.dev.Add(y.value, h.value, f.value) },
	})
	return y
}

// shareGradient makes all that was recorded with gradient old use g instead.
func (t *Tape) shareGradient(old, g *gradient) {
	for _, n := range t.nodes {
		for _, v := range n.outs {
			if v.grad == old {
				v.grad = g
			}
		}
		for _, list := range [][]*gradient{n.dOuts, n.dIns} {
			for i := range list {
				if list[i] == old {
					list[i] = g
				}
			}
		}
	}
}

// FakeQuant8 rounds each row to int8 levels (SPEC §7). The gradient passes
// straight through: x and the result share it.
func (t *Tape) FakeQuant8(name string, x *Var) *Var {
	y := t.newVar(name, Activation, x.Shape...)
	y.grad = x.grad
	t.add(&node{
		outs: []*Var{y}, ins: []*Var{x},
		forward: func() { t.dev.FakeQuant8(y.value, x.value) },
	})
	return y
}

// CrossEntropy writes to losses, one value a row of h, the cross-entropy in
// nats of the logits h·tableᵀ against targets (−1: ignored, loss 0). On a
// training tape it also computes the gradients of scale·Σ losses, at once:
// the logits exist only a chunk at a time.
func (t *Tape) CrossEntropy(losses *Tensor, h *Var, table, dtable *Tensor, targets *Ints, scale float32) {
	n := &node{ins: []*Var{h}}
	if t.train {
		n.early = []*gradient{h.grad}
		n.forward = func() {
			t.dev.CrossEntropyBackward(losses, h.grad.t, dtable, h.value, table, targets, scale)
		}
	} else {
		n.forward = func() { t.dev.CrossEntropy(losses, h.value, table, targets) }
	}
	t.add(n)
}
