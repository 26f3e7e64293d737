//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import "fmt"

// record returns a function that does what f does on the stream. The first
// call runs f, so that all memory is taken; the second captures its launches
// in a graph; from then on that graph is launched.
func (g *gpu) record(f func()) func() {
	calls := 0
	var exec uintptr
	var kernels string
	return func() {
		if g.err != nil {
			return
		}
		if calls++; calls == 1 || g.careful || g.profile != nil || g.capturing {
			f()
			return
		}
		if exec == 0 {
			g.first = ""
			if exec = g.capture(f); g.err != nil {
				return
			}
			g.graphs = append(g.graphs, exec)
			kernels = fmt.Sprintf("the recorded pass from %s to %s", g.first, g.last)
		}
		g.recorded = kernels
		g.do(cuGraphLaunch, exec, g.stream)
	}
}

// capture makes a graph of what f launches.
func (g *gpu) capture(f func()) (exec uintptr) {
	g.do(cuStreamBeginCapture, g.stream, captureRelaxed)
	g.capturing = true
	f()
	g.capturing = false
	fault := g.err
	g.err = nil // end the capture in any case
	g.do(cuStreamEndCapture, g.stream, g.result())
	graph := uintptr(g.out[0])
	if fault != nil {
		g.err = fault
	}
	g.do(cuGraphInstantiate, g.result(), graph, 0)
	exec = uintptr(g.out[0])
	if graph != 0 {
		g.try(cuGraphDestroy, graph)
	}
	return exec
}
