package tensor

import "slices"

// Plan orders the recorded operations, decides which gradients are written
// first and which added to, and lays all values and gradients out in one
// arena so that memory whose lifetimes do not meet is shared.
func (t *Tape) Plan() {
	p := planner{tape: t, idx: map[any]int{}}
	for _, n := range t.nodes {
		t.forward = append(t.forward, p.forwardStep(n))
	}
	if t.train {
		p.backwardPass()
	}
	p.layout()
	for i := range p.defs {
		d := &p.defs[i]
		for _, m := range d.members {
			s, at := t.forward, m.at
			if at >= len(s) {
				s, at = t.backward, at-len(s)
			}
			b := bind{t: t.dev.Slice(t.arena, d.offset+m.offset, t.dev.TypeOf(m.role), m.shape...)}
			switch k := m.key.(type) {
			case *Var:
				b.v = k
			case *gradient:
				b.g = k
			}
			s[at].binds = append(s[at].binds, b)
		}
	}
}

// lifetime is one block of memory, from the step that defines it to the last
// that uses it: a value or a gradient, or a bundle of some.
type lifetime struct {
	members  []member
	size     int // bytes
	at, last int // step numbers; the backward's follow the forward's
	offset   int // bytes
}

// member is what a block of memory holds from a step on.
type member struct {
	key    any // *Var or *gradient
	shape  []int
	role   Role
	at     int // step
	offset int // in the block
}

type planner struct {
	tape *Tape
	now  int
	defs []lifetime
	idx  map[any]int // of a Var or gradient or bundle, its current definition in defs
	late []int       // definitions that the backward before may still read
	// Definitions that the two forwards before read: a late device may do them in
	// one launch with the next, which then writes while they are read.
	recent [2][]int
}

// define gives a value or gradient memory from now on; one of a bundle gets
// its place in the bundle's, if that does not hold an older one of it.
func (p *planner) define(key any, b *bundle, role Role, shape []int) {
	m := member{key: key, shape: shape, role: role, at: p.now}
	size := p.tape.bytes(role, shape)
	if b != nil {
		size, m.offset = b.bytes, b.offsets[key]
		if i, ok := p.idx[b]; ok && !slices.ContainsFunc(p.defs[i].members, func(o member) bool { return o.key == key }) {
			d := &p.defs[i]
			d.members, d.last = append(d.members, m), p.now
			p.idx[key] = i
			return
		}
		p.idx[b] = len(p.defs)
	}
	p.idx[key] = len(p.defs)
	p.defs = append(p.defs, lifetime{members: []member{m}, size: size, at: p.now, last: p.now})
}

func (p *planner) use(key any) {
	p.defs[p.idx[key]].last = p.now
}

// keepLate keeps what the backward before may still read.
func (p *planner) keepLate() {
	for _, i := range p.late {
		p.defs[i].last = p.now
	}
}

func (p *planner) forwardStep(n *node) step {
	p.keepLate()
	if p.tape.dev.Late() {
		var reads []int
		for _, v := range n.ins {
			reads = append(reads, p.idx[v])
		}
		for _, i := range slices.Concat(p.recent[:]...) {
			p.defs[i].last = p.now
		}
		p.recent = [2][]int{p.recent[1], reads}
	}
	for _, v := range n.ins {
		p.use(v)
	}
	for _, v := range n.outs {
		p.define(v, v.bundle, v.Role, v.Shape)
	}
	if p.tape.train {
		for _, g := range n.early {
			p.define(g, g.bundle, g.role, g.shape)
		}
	}
	p.now++
	return step{run: n.forward, node: n}
}

// backwardPass appends the steps of the backward, segment by segment from
// the last; with recompute each segment's forward runs again first.
func (p *planner) backwardPass() {
	t := p.tape
	for end := len(t.nodes); end > 0; {
		begin := end
		for begin > 0 && t.nodes[begin-1].segment == t.nodes[end-1].segment {
			begin--
		}
		// The last segment's values are still there.
		if t.recompute && end < len(t.nodes) {
			for _, n := range t.nodes[begin:end] {
				// What leaves the segment was kept; computing it into
				// scratch again would be wasted unless something inside
				// needs it.
				if !p.neededInside(n, begin, end) {
					continue
				}
				t.backward = append(t.backward, p.forwardStep(n))
			}
		}
		for i := end - 1; i >= begin; i-- {
			p.backwardStep(t.nodes[i])
		}
		end = begin
	}
}

// neededInside reports whether a backward of the segment nodes[begin:end]
// depends, directly or through other forwards, on what n computes.
func (p *planner) neededInside(n *node, begin, end int) bool {
	for _, m := range p.tape.nodes[begin:end] {
		for _, v := range n.outs {
			if slices.Contains(m.saved, v) {
				return true
			}
			if m != n && slices.Contains(m.ins, v) && p.neededInside(m, begin, end) {
				return true
			}
		}
	}
	return false
}

func (p *planner) backwardStep(n *node) {
	if n.backward == nil {
		return
	}
	p.keepLate()
	p.late = nil
	p.recent = [2][]int{} // a backward begins with what waits
	for _, v := range n.saved {
		p.use(v)
		if n.late {
			p.late = append(p.late, p.idx[v])
		}
	}
	for _, g := range n.dOuts {
		p.use(g)
		if n.late {
			p.late = append(p.late, p.idx[g])
		}
	}
	for i, g := range n.dIns {
		if _, live := p.idx[g]; live {
			n.acc[i] = true
			p.use(g)
		} else {
			p.define(g, g.bundle, g.role, g.shape)
		}
	}
	p.now++
	p.tape.backward = append(p.tape.backward, step{run: func() { n.backward(n.acc) }, node: n})
}

// layout places the lifetimes, largest first, each at the lowest offset
// where it meets no other that is alive at the same time.
func (p *planner) layout() {
	t := p.tape
	order := make([]int, len(p.defs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return p.defs[b].size - p.defs[a].size })
	total := 0
	var placed []int
	for _, i := range order {
		d := &p.defs[i]
		var busy []*lifetime
		for _, j := range placed {
			if o := &p.defs[j]; o.at <= d.last && d.at <= o.last {
				busy = append(busy, o)
			}
		}
		slices.SortFunc(busy, func(a, b *lifetime) int { return a.offset - b.offset })
		off := 0
		for _, o := range busy {
			if off+d.size <= o.offset {
				break
			}
			off = max(off, (o.offset+o.size+align-1)/align*align)
		}
		d.offset = off
		total = max(total, off+d.size)
		placed = append(placed, i)
	}
	t.arena = t.dev.Alloc((total + 3) / 4)
}
