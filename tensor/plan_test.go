package tensor

import (
	"reflect"
	"slices"
	"testing"

	"spinnet/algebra"
)

// chain records a small network of residual branches on a tape.
func chain(t testing.TB, dev Device, train, recompute bool) (*Tape, *Tensor) {
	t.Helper()
	alg, err := algebra.ByName("octonion")
	if err != nil {
		t.Fatal(err)
	}
	const rows, d, vocab = 6, 16, 11
	r := MakeRandom(Key{Seed: 9})
	random := func(shape ...int) *Tensor {
		x := dev.Alloc(shape...)
		v := make([]float32, x.Len())
		for i := range v {
			v[i] = float32(r.Normal())
		}
		dev.Write(x, v)
		return x
	}
	ids, targets := dev.AllocInts(rows), dev.AllocInts(rows)
	for i := range rows {
		ids.Data[i], targets.Data[i] = int32(i*5%vocab), int32(i*7%vocab)
	}
	table, dtable := random(vocab, d), dev.Alloc(vocab, d)
	tape := NewTape(dev, train, recompute)
	h := tape.Embedding("embedding", table, dtable, ids)
	for range 4 {
		tape.Segment()
		norm, dnorm := random(d), dev.Alloc(d)
		z := tape.RMSNorm("norm", h, norm, dnorm)
		w := NewWeight(dev, alg, "none", d/8, d/8, false, false)
		dev.Write(w.W, random(w.W.Shape...).Data)
		dev.Refresh([]*Weight{w}, train)
		gated := tape.Linears([]string{"gate", "up"}, z, []*Weight{w, w}, d)
		h = tape.Residual("sum", h, tape.FakeQuant8("int8", tape.SwiGLU("swiglu", gated[0], gated[1])))
	}
	tape.Segment()
	losses := dev.Alloc(rows)
	tape.CrossEntropy(losses, h, table, dtable, targets, 1)
	tape.Plan()
	return tape, dtable
}

// TestPlanSharesNoLiveMemory checks every pair of lifetimes of a plan: those
// that meet in time must not meet in memory.
func TestPlanSharesNoLiveMemory(t *testing.T) {
	dev := NewCPU(1)
	defer dev.Close()
	for _, recompute := range []bool{false, true} {
		tape, _ := chain(t, dev, true, recompute)
		p := planner{tape: &Tape{dev: dev, train: true, recompute: recompute, nodes: tape.nodes}, idx: map[any]int{}}
		for _, n := range tape.nodes {
			p.tape.forward = append(p.tape.forward, p.forwardStep(n))
		}
		p.backwardPass()
		p.layout()
		for i, a := range p.defs {
			if a.offset+a.size > 4*len(p.tape.arena.Data) {
				t.Fatalf("recompute %v: block %d ends beyond the arena", recompute, i)
			}
			for j, b := range p.defs[:i] {
				inTime := a.at <= b.last && b.at <= a.last
				inSpace := a.offset < b.offset+b.size && b.offset < a.offset+a.size
				if inTime && inSpace {
					t.Errorf("recompute %v: blocks %d and %d are alive together at the same place", recompute, j, i)
				}
			}
		}
	}
}

// lateDevice reads what LinearBackward needs a step longer.
type lateDevice struct{ *CPU }

func (lateDevice) Late() bool { return true }

// TestPlanKeepsLateReads: what the backward of a layer reads lives on through
// the backward after it, and what a forward reads through the two after it.
func TestPlanKeepsLateReads(t *testing.T) {
	cpu := NewCPU(1)
	defer cpu.Close()
	tape, _ := chain(t, lateDevice{cpu}, true, false)
	p := planner{tape: &Tape{dev: lateDevice{cpu}, train: true, nodes: tape.nodes}, idx: map[any]int{}}
	for _, n := range tape.nodes {
		p.tape.forward = append(p.tape.forward, p.forwardStep(n))
	}
	kept := func(key any, at, now int) bool { // from before step at on through step now
		return slices.ContainsFunc(p.defs, func(d lifetime) bool {
			return d.at < at && d.last >= now && slices.ContainsFunc(d.members, func(m member) bool { return m.key == key })
		})
	}
	for i, n := range tape.nodes {
		for _, v := range n.ins {
			if now := min(i+2, len(tape.nodes)-1); !kept(v, i, now) {
				t.Errorf("what forward step %d reads is not kept through step %d", i, now)
			}
		}
	}
	p.backwardPass()
	late := 0
	for i, s := range p.tape.backward {
		if !s.node.late {
			continue
		}
		late++
		now := len(p.tape.forward) + i + 1
		for _, key := range append(anys(s.node.saved), anys(s.node.dOuts)...) {
			if !kept(key, now, now) {
				t.Errorf("what backward step %d reads is not kept through the next", i)
			}
		}
	}
	if late != 4 {
		t.Errorf("%d layers read late, want 4", late)
	}
}

// TestPlanForgetsReadsOfForwards: what recomputed forwards read is not kept for the
// forwards after the backward, which begins with all that waits.
func TestPlanForgetsReadsOfForwards(t *testing.T) {
	cpu := NewCPU(1)
	defer cpu.Close()
	tape, _ := chain(t, lateDevice{cpu}, true, true)
	p := planner{tape: &Tape{dev: lateDevice{cpu}, train: true, recompute: true, nodes: tape.nodes}, idx: map[any]int{}}
	for _, n := range tape.nodes {
		p.tape.forward = append(p.tape.forward, p.forwardStep(n))
	}
	p.backwardPass()
	found := 0
	for i, s := range p.tape.backward {
		if now := len(p.tape.forward) + i; len(s.node.saved) == 2 && !recomputes(s) { // SwiGLU's, the last that reads gate and up
			found++
			for _, d := range p.defs {
				if d.at < now && d.last > now && d.members[0].key == s.node.saved[0] {
					t.Errorf("gate and up of backward step %d are kept through step %d", now, d.last)
				}
			}
		}
	}
	if found != 4 {
		t.Errorf("%d backwards of SwiGLU, want 4", found)
	}
}

// recomputes tells whether a step of a backward pass is a forward.
func recomputes(s step) bool {
	return reflect.ValueOf(s.run).Pointer() == reflect.ValueOf(s.node.forward).Pointer()
}

func anys[T any](xs []T) (all []any) {
	for _, x := range xs {
		all = append(all, x)
	}
	return all
}

func TestRecomputeTakesLessMemoryAndGivesTheSameBits(t *testing.T) {
	dev := NewCPU(2)
	defer dev.Close()
	run := func(recompute bool) (int, []float32) {
		tape, dtable := chain(t, dev, true, recompute)
		for range 2 {
			dev.Zero(dtable)
			tape.Forward()
			tape.Backward()
		}
		return tape.arena.Len(), dtable.Data
	}
	kept, want := run(false)
	less, got := run(true)
	if less >= kept {
		t.Errorf("%d floats with recompute, %d without", less, kept)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("gradient %d is %v with recompute, %v without", i, got[i], want[i])
		}
	}
	if forward, _ := chain(t, dev, false, false); forward.arena.Len() >= less {
		t.Errorf("%d floats for a forward alone, %d for training", forward.arena.Len(), less)
	}
}

func TestFirstBadNamesTheVariable(t *testing.T) {
	dev := NewCPU(1)
	defer dev.Close()
	tape, _ := chain(t, dev, true, false)
	if got := tape.FirstBad(func(x *Tensor) bool { return false }); got != "" {
		t.Errorf("got %q without a fault", got)
	}
	n := 0
	got := tape.FirstBad(func(x *Tensor) bool { n++; return n == 3 })
	if got != "gate" {
		t.Errorf("got %q, want the third variable, gate", got)
	}
}

func TestRandomIsKeyed(t *testing.T) {
	draw := func(k Key) (x [8]float64) {
		r := MakeRandom(k)
		for i := range x {
			x[i] = r.Uniform()
		}
		return x
	}
	base := draw(Key{Seed: 1, Step: 2, Layer: 3, Site: SiteBatch})
	if base != draw(Key{Seed: 1, Step: 2, Layer: 3, Site: SiteBatch}) {
		t.Error("the same key gave other numbers")
	}
	for _, k := range []Key{{Seed: 2, Step: 2, Layer: 3, Site: SiteBatch}, {Seed: 1, Step: 3, Layer: 3, Site: SiteBatch},
		{Seed: 1, Step: 2, Layer: 4, Site: SiteBatch}, {Seed: 1, Step: 2, Layer: 3, Site: SiteEval}} {
		if draw(k) == base {
			t.Errorf("key %+v gave the same numbers", k)
		}
	}
	r := MakeRandom(Key{Seed: 5})
	seen := map[int64]bool{}
	for range 200 {
		n := r.Below(7)
		if n < 0 || n >= 7 {
			t.Fatalf("Below(7) gave %d", n)
		}
		seen[n] = true
	}
	if len(seen) != 7 {
		t.Errorf("200 draws below 7 gave %d values", len(seen))
	}
}
