//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

// side is a second stream. On it the gradients of weights are computed while the
// first stream goes on with the backward: products are bound by arithmetic,
// what comes after them mostly by memory, and both fit on a multiprocessor.
//
// The order of what adds to one place stays that of the calls, so results keep
// their bits. What the second stream reads must stay as it is meanwhile: until
// the end of the operation after the one that went aside (tensor.Device.Late,
// and two slots of scratchShadow).
type side struct {
	stream       uintptr
	forked       uintptr    // event: what aside follows
	done         [2]uintptr // events in turns
	turn         int
	older, newer uintptr // events that the first stream has not waited for: of operations before the last, of the last
}

// openSide makes the second stream.
func (g *gpu) openSide() {
	g.do(cuStreamCreate, g.result(), streamNonBlocking)
	g.side.stream = uintptr(g.out[0])
	for _, e := range []*uintptr{&g.side.forked, &g.side.done[0], &g.side.done[1]} {
		g.do(cuEventCreate, g.result(), eventDisableTiming)
		*e = uintptr(g.out[0])
	}
}

func (g *gpu) closeSide() {
	for _, e := range []uintptr{g.side.forked, g.side.done[0], g.side.done[1]} {
		if e != 0 {
			g.try(cuEventDestroy, e)
		}
	}
	if g.side.stream != 0 {
		g.try(cuStreamDestroy, g.side.stream)
	}
}

// alone tells whether all goes to one stream: to time kernels, or to name the
// one that fails.
func (g *gpu) alone() bool { return g.careful || g.profile != nil || g.side.stream == 0 }

// fork marks what the next aside follows.
func (g *gpu) fork() {
	if !g.alone() {
		g.do(cuEventRecord, g.side.forked, g.stream)
	}
}

// aside sends what f launches to the second stream, to follow all that the first
// had been given at fork.
func (g *gpu) aside(f func()) {
	if g.alone() {
		f()
		return
	}
	s, first, plain := &g.side, g.stream, g.plain
	g.do(cuStreamWaitEvent, s.stream, s.forked, 0)
	g.stream, g.plain = s.stream, true
	f()
	g.stream, g.plain = first, plain
	s.newer = s.done[s.turn]
	s.turn ^= 1
	g.do(cuEventRecord, s.newer, s.stream)
}

// follow begins an operation on the first stream that may run beside what the
// operation before it sent aside, not beside what those before that did.
func (g *gpu) follow() {
	g.wait(g.side.older)
	g.side.older, g.side.newer = g.side.newer, 0
}

// join waits on the first stream for all that went aside.
func (g *gpu) join() {
	if g.side.newer != 0 {
		g.wait(g.side.newer) // the older came before it
	} else {
		g.wait(g.side.older)
	}
	g.side.older, g.side.newer = 0, 0
}

func (g *gpu) wait(event uintptr) {
	if event != 0 {
		g.do(cuStreamWaitEvent, g.stream, event, 0)
		g.plain = true
	}
}
