package engine

import "spinnet/kernel"

// int8FewTask is forward for few tokens, as decoding has them. All workers go
// through all layers together: what is short each computes for itself, the
// products are divided by columns and attention by heads, and the workers meet
// where one needs what another has computed. Handing an item from one core to
// another takes longer than most items do; so does fetching more than a
// kilobyte or two from another core's cache.
type int8FewTask struct {
	r    *int8Run
	ids  []int32
	meet *kernel.Barrier
}

// Do is one worker's way through the layers.
func (t *int8FewTask) Do(worker, _ int) {
	r, w, n := t.r, &t.r.scratch[worker], len(t.ids)
	finished := false
	defer func() {
		if !finished {
			t.meet.Break()
		}
	}()
	r.embed(w, t.ids)
	for i := range r.m.layers {
		l := &r.m.layers[i]
		r.loadNorm(w, l.qkv, l.attentionNorm, w.h, 0, n)
		t.part(worker, l.qkv, r.q, r.k, r.v)
		t.meet.Wait(worker)
		t.attend(worker, i)
		t.meet.Wait(worker)
		o := r.o
		if l.mixer != nil {
			o = w.mixed
			r.mix(w, l, o, 0, n)
		}
		r.load(w, l.wo, o, 0, n)
		t.part(worker, l.wo, r.t)
		t.meet.Wait(worker)
		r.residual(w.h, 0, n)
		r.loadNorm(w, l.gate, l.ffnNorm, w.h, 0, n)
		t.part(worker, l.gate, r.gate)
		t.part(worker, l.up, r.up)
		t.activate(worker, l.gate)
		t.meet.Wait(worker)
		r.load(w, l.down, r.gate, 0, n)
		t.part(worker, l.down, r.t)
		t.meet.Wait(worker)
		r.residual(w.h, 0, n)
	}
	finished = true
}

// panels is the range of a worker's panels.
func (t *int8FewTask) panels(worker int, l *kernel.Int8Linear) (lo, hi int) {
	threads := len(t.r.scratch)
	return l.Panels() * worker / threads, l.Panels() * (worker + 1) / threads
}

// part computes a worker's columns of the outputs of l from its loaded input.
func (t *int8FewTask) part(worker int, l *kernel.Int8Linear, y ...[]float32) {
	w, n := &t.r.scratch[worker], len(t.ids)
	lo, hi := t.panels(worker, l)
	l.Multiply(&w.tile, w.c, w.a, w.start, l.Rows(n), lo, hi)
	var out [3][]float32
	copy(out[:], y)
	for i := range n {
		t.r.scale(w, l, &out, i, i, lo, hi)
	}
}

// attend is the attention of a worker's key-value heads.
func (t *int8FewTask) attend(worker, layer int) {
	heads, threads := t.r.s.e.config.NKVHead, len(t.r.scratch)
	for g := heads * worker / threads; g < heads*(worker+1)/threads; g++ {
		for row := range t.ids {
			t.r.store(&t.r.scratch[worker], layer, row, g)
		}
		for row := range t.ids {
			t.r.attend(&t.r.scratch[worker], layer, row, g)
		}
	}
}

// activate is gate = silu(gate)∘up in a worker's columns.
func (t *int8FewTask) activate(worker int, l *kernel.Int8Linear) {
	lo, hi := l.Columns(t.panels(worker, l))
	width := t.r.s.e.config.HiddenDim
	for part := range l.Rows(len(t.ids)) { // of a token's hidden row
		at := part*(width/l.Rows(1)) + lo
		g := t.r.gate[at : at+hi-lo]
		kernel.ExactSwiGLU(g, g, t.r.up[at:at+hi-lo])
	}
}
