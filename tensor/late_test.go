package tensor

import (
	"math"
	"slices"
	"testing"

	"spinnet/algebra"
)

// lagging does what a Device that is late may do, at the worst time: operations of
// one launch spoil what they write before they read, and the weights' gradients of
// a layer are computed at the end of the backward after it.
type lagging struct {
	*CPU
	todo  []lagged
	kind  string // of todo, a letter each
	aside func()
	// Layers whose dy has the type of activations, which is not copied.
	mixers map[*Weight]bool
}

type lagged struct {
	run  func()
	outs []*Tensor
}

func (l *lagging) Late() bool { return true }

// work does what waits.
func (l *lagging) work() {
	todo := l.todo
	l.todo, l.kind = nil, ""
	for _, o := range todo {
		for _, y := range o.outs {
			for i := range y.Data {
				y.Data[i] = float32(math.NaN())
			}
		}
	}
	for _, o := range todo {
		o.run()
	}
}

// after ends a backward that may leave something for the end of the next.
func (l *lagging) after(next func()) {
	old := l.aside
	if l.aside = next; old != nil {
		old()
	}
}

func (l *lagging) flush() {
	l.after(nil)
	l.work()
}

func (l *lagging) wait(kind string, run func(), outs ...*Tensor) {
	l.kind += kind
	l.todo = append(l.todo, lagged{run, outs})
}

func (l *lagging) Linear(ys []*Tensor, x *Tensor, ws []*Weight) {
	l.flush()
	if len(ys) > 1 {
		l.wait("L", func() { l.CPU.Linear(ys, x, ws) }, ys...)
		return
	}
	l.CPU.Linear(ys, x, ws)
}
func (l *lagging) SwiGLU(y, g, u *Tensor) {
	if l.kind != "L" {
		l.flush()
	}
	l.wait("G", func() { l.CPU.SwiGLU(y, g, u) }, y)
}
func (l *lagging) Add(y, a, b *Tensor) {
	l.flush()
	l.wait("A", func() { l.CPU.Add(y, a, b) }, y)
}
func (l *lagging) RMSNorm(y, x, w *Tensor) {
	if l.kind != "A" {
		l.flush()
	}
	l.wait("N", func() { l.CPU.RMSNorm(y, x, w) }, y)
}
func (l *lagging) FakeQuant8(y, x *Tensor) {
	l.wait("F", func() { l.CPU.FakeQuant8(y, x) }, y)
	l.work()
}
func (l *lagging) RotaryAttention(o, lse, q, k, v *Tensor, rot *Rotation, a Attention) {
	l.wait("R", func() { l.CPU.RotaryAttention(o, lse, q, k, v, rot, a) }, o, lse)
	l.work()
}
func (l *lagging) Embedding(y, t *Tensor, ids *Ints) { l.flush(); l.CPU.Embedding(y, t, ids) }
func (l *lagging) EmbeddingBackward(d, dy *Tensor, ids *Ints) {
	l.flush()
	l.CPU.EmbeddingBackward(d, dy, ids)
}
func (l *lagging) LinearBackward(dx *Tensor, acc bool, dys []*Tensor, x *Tensor, ws []*Weight) {
	l.work()
	var keep [][]float32
	for _, w := range ws {
		keep = append(keep, append([]float32(nil), w.DW.Data...))
	}
	l.CPU.LinearBackward(dx, acc, dys, x, ws)
	for i, w := range ws {
		copy(w.DW.Data, keep[i])
	}
	from := append([]*Tensor(nil), dys...)
	if len(dys) == 1 && !l.mixers[ws[0]] { // the copy in bf16
		from[0] = &Tensor{Shape: dys[0].Shape, Data: append([]float32(nil), dys[0].Data...)}
	}
	l.after(func() { l.CPU.LinearBackward(l.CPU.Alloc(dx.Shape...), false, from, x, ws) })
}
func (l *lagging) RMSNormBackward(dx *Tensor, acc bool, dw, dy, x, w *Tensor) {
	l.work()
	l.CPU.RMSNormBackward(dx, acc, dw, dy, x, w)
	l.after(nil)
}
func (l *lagging) RotaryAttentionBackward(dq, dk, dv, do, o, lse, q, k, v *Tensor, rot *Rotation, a Attention) {
	l.work()
	l.CPU.RotaryAttentionBackward(dq, dk, dv, do, o, lse, q, k, v, rot, a)
	l.after(nil)
}
func (l *lagging) SwiGLUBackward(a, b, c, d, e *Tensor) {
	l.work()
	l.CPU.SwiGLUBackward(a, b, c, d, e)
	l.after(nil)
}
func (l *lagging) CrossEntropy(a, b, c *Tensor, i *Ints) { l.flush(); l.CPU.CrossEntropy(a, b, c, i) }
func (l *lagging) CrossEntropyBackward(a, b, c, d, e *Tensor, i *Ints, s float32) {
	l.flush()
	l.CPU.CrossEntropyBackward(a, b, c, d, e, i, s)
}
func (l *lagging) Zero(ts ...*Tensor) { l.work(); l.CPU.Zero(ts...) }

// layers records a model of three layers; it gives what a pass adds to and writes.
func layers(dev Device, alg *algebra.Table, train, recompute, quant, mixer bool, kv int) (*Tape, []*Tensor) {
	const B, T, heads, hd, hidden, vocab = 2, 5, 8, 2, 24, 11
	const d, rows = heads * hd, B * T
	r := MakeRandom(Key{Seed: 9})
	random := func(shape ...int) *Tensor {
		x := dev.Alloc(shape...)
		for i := range x.Data {
			x.Data[i] = float32(r.Normal())
		}
		return x
	}
	ids, targets := dev.AllocInts(rows), dev.AllocInts(rows)
	for i := range rows {
		ids.Data[i], targets.Data[i] = int32(i*5%vocab), int32(i*7%vocab)
	}
	var grads []*Tensor
	g := func(shape ...int) *Tensor { x := dev.Alloc(shape...); grads = append(grads, x); return x }
	rot := NewRotation(dev, T, hd)
	table, dtable := random(vocab, d), g(vocab, d)
	var all []*Weight
	weight := func(out, in int) *Weight {
		w := NewWeight(dev, alg, "none", out/8, in/8, false, false)
		for i := range w.W.Data {
			w.W.Data[i] = float32(r.Normal()) / 4
		}
		grads = append(grads, w.DW)
		all = append(all, w)
		return w
	}
	tape := NewTape(dev, train, recompute)
	q := func(x *Var) *Var {
		if quant {
			return tape.FakeQuant8("q", x)
		}
		return x
	}
	h := tape.Embedding("e", table, dtable, ids)
	for i := range 3 {
		tape.Segment()
		z := q(tape.RMSNorm("n", h, random(d), g(d)))
		qkv := tape.Linears([]string{"q", "k", "v"}, z, []*Weight{weight(d, d), weight(kv*hd, d), weight(kv*hd, d)}, d)
		a := tape.RotaryAttention("a", qkv[0], qkv[1], qkv[2], rot, Attention{Batch: B, T: T, Heads: heads, KVHeads: kv, HeadDim: hd, Layer: i})
		if mixer {
			mw := weight(d, d)
			if l, ok := dev.(*lagging); ok {
				l.mixers[mw] = true
			}
			a = tape.Linear("m", a, mw, d)
		}
		a = tape.Linear("o", q(a), weight(d, d), d)
		h = tape.Residual("r", h, a)
		z = q(tape.RMSNorm("n", h, random(d), g(d)))
		gu := tape.Linears([]string{"g", "u"}, z, []*Weight{weight(hidden, d), weight(hidden, d)}, hidden)
		f := tape.Linear("d", q(tape.SwiGLU("s", gu[0], gu[1])), weight(d, hidden), d)
		h = tape.Residual("r", h, f)
	}
	tape.Segment()
	h = tape.RMSNorm("n", h, random(d), g(d))
	losses := dev.Alloc(rows)
	tape.CrossEntropy(losses, h, table, dtable, targets, 1)
	tape.Plan()
	dev.Refresh(all, train)
	return tape, append(grads, losses)
}

// TestPlanForLateDevices: a device that is late gets the same bits, in training, with
// recompute, and in evaluation.
func TestPlanForLateDevices(t *testing.T) {
	alg, err := algebra.ByName("octonion")
	if err != nil {
		t.Fatal(err)
	}
	cpu := NewCPU(1)
	defer cpu.Close()
	for m := range 32 {
		is := func(bit int) bool { return m>>bit&1 > 0 }
		kv := 8
		if is(4) {
			kv = 4
		}
		run := func(dev Device) (all [][]float32) {
			tape, out := layers(dev, alg, is(0), is(1), is(2), is(3), kv)
			for range 2 {
				tape.Forward()
				tape.Backward()
			}
			for _, x := range out {
				all = append(all, x.Data)
			}
			return all
		}
		want, got := run(cpu), run(&lagging{CPU: cpu, mixers: map[*Weight]bool{}})
		for i := range want {
			if !slices.Equal(got[i], want[i]) {
				t.Fatalf("train %v, recompute %v, int8 %v, mixer %v, %d kv heads: result %d differs", is(0), is(1), is(2), is(3), kv, i)
			}
		}
	}
}
