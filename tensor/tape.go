package tensor

// Var is one activation on a tape: a value, and in training its gradient.
// Both live in arena memory that other variables may share when their
// lifetimes do not meet.
type Var struct {
	Name  string
	Shape []int
	Role  Role

	value  *Tensor // bound while a pass runs
	grad   *gradient
	bundle *bundle // that its value lies in; may be nil
}

// Value is the variable's tensor, valid during the pass that wrote it.
func (v *Var) Value() *Tensor { return v.value }

// gradient is the memory of a variable's gradient. Variables joined by a
// residual addition share one: the gradient of a sum is that of its terms.
type gradient struct {
	shape []int
	role  Role
	t     *Tensor

	bundle *bundle
}

// bundle is values, or gradients, that lie side by side in memory: they live
// from the first's definition to the last use of any.
type bundle struct {
	offsets map[any]int // of each *Var or *gradient, in bytes
	bytes   int
}

func (b *bundle) add(key any, bytes int) {
	if b.offsets == nil {
		b.offsets = map[any]int{}
	}
	b.offsets[key] = b.bytes
	b.bytes += (bytes + align - 1) / align * align
}

// align is where variables begin in an arena: at cache lines of all devices.
const align = 128

// bytes is the size of a variable on the tape's device.
func (t *Tape) bytes(r Role, shape []int) int {
	n := t.dev.TypeOf(r).Size()
	for _, d := range shape {
		n *= d
	}
	return n
}

// node is one recorded operation.
type node struct {
	outs    []*Var
	ins     []*Var      // values read by forward
	saved   []*Var      // values read by backward
	dOuts   []*gradient // gradients read by backward
	dIns    []*gradient // gradients written by backward
	early   []*gradient // gradients written by forward already (the loss)
	late    bool        // a device may read what backward reads during the next backward too
	forward func()
	// backward gets, for each of dIns, whether to add to it.
	backward func(acc []bool)
	acc      []bool
	segment  int
}

// Tape is a recorded computation: record it once, Plan its memory, then
// replay it with Forward and Backward as often as the shapes stay the same.
// Replays allocate nothing.
type Tape struct {
	dev       Device
	train     bool
	recompute bool
	nodes     []*node
	segment   int

	forward, backward []step
	arena             *Tensor
}

// step is a node's forward or backward in the planned order.
type step struct {
	binds []bind
	run   func()
	node  *node
}

// bind gives a variable or a gradient its memory from this step on.
type bind struct {
	v *Var
	g *gradient
	t *Tensor
}

// NewTape starts an empty tape. train says whether gradients will be asked
// for. With recompute, values inside a segment (see Segment) are not kept for
// the backward pass but computed again there, with the same bits.
func NewTape(dev Device, train, recompute bool) *Tape {
	return &Tape{dev: dev, train: train, recompute: recompute}
}

// Segment begins a new stretch of the computation. With recompute, only the
// values that cross from one segment to another are kept.
func (t *Tape) Segment() { t.segment++ }

func (t *Tape) newVar(name string, role Role, shape ...int) *Var {
	return &Var{Name: name, Shape: shape, Role: role, grad: &gradient{shape: shape, role: role}}
}

func (t *Tape) add(n *node) {
	n.segment = t.segment
	n.acc = make([]bool, len(n.dIns))
	t.nodes = append(t.nodes, n)
}

// Forward replays the recorded operations.
func (t *Tape) Forward() { replay(t.forward) }

// Backward replays the gradients, after Forward.
func (t *Tape) Backward() { replay(t.backward) }

func replay(steps []step) {
	for i := range steps {
		s := &steps[i]
		for _, b := range s.binds {
			b.apply()
		}
		s.run()
	}
}

func (b bind) apply() {
	if b.v != nil {
		b.v.value = b.t
	} else {
		b.g.t = b.t
	}
}

// FirstBad replays the forward pass and returns the name of the first
// variable for which bad is true, or "".
func (t *Tape) FirstBad(bad func(*Tensor) bool) string {
	for i := range t.forward {
		replay(t.forward[i : i+1])
		for _, v := range t.forward[i].node.outs {
			if bad(v.value) {
				return v.Name
			}
		}
	}
	return ""
}
