//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"unsafe"
)

// profile is the time of each kernel between two events around every launch,
// for SPINNET_CUDA_PROFILE. The first launches of each, which load code, are
// left out.
type profile struct {
	events []uintptr // begin and end of each launch, in turns
	names  []string
	kernel map[string]*kernelTime
}

type kernelTime struct {
	launches     int
	milliseconds float64
}

// markProfile records an event before and after a launch.
func (g *gpu) markProfile() {
	p := g.profile
	if p == nil {
		return
	}
	g.do(cuEventCreate, g.result(), 0)
	e := uintptr(g.out[0])
	g.do(cuEventRecord, e, g.stream)
	p.events = append(p.events, e)
	if len(p.events)%2 == 0 {
		p.names = append(p.names, g.last)
	}
	if len(p.events) >= 4096 && len(p.events)%2 == 0 {
		g.gatherProfile()
	}
}

// gatherProfile adds up what the events say.
func (g *gpu) gatherProfile() {
	p := g.profile
	g.sync()
	if p.kernel == nil {
		p.kernel = map[string]*kernelTime{}
	}
	for i, name := range p.names {
		k := p.kernel[name]
		if k == nil {
			k = &kernelTime{launches: -1}
			p.kernel[name] = k
		}
		g.do(cuEventElapsedTime, g.result(), p.events[2*i], p.events[2*i+1])
		if k.launches++; k.launches > 0 {
			k.milliseconds += float64(*(*float32)(unsafe.Pointer(&g.out[0])))
		}
	}
	for _, e := range p.events {
		g.do(cuEventDestroy, e)
	}
	p.events, p.names = p.events[:0], p.names[:0]
}

// printProfile prints the kernels, the longest first.
func (g *gpu) printProfile() {
	p := g.profile
	if p == nil {
		return
	}
	g.gatherProfile()
	var total float64
	for _, k := range p.kernel {
		total += k.milliseconds
	}
	for _, name := range slices.SortedFunc(maps.Keys(p.kernel), func(a, b string) int {
		return cmp.Compare(p.kernel[b].milliseconds, p.kernel[a].milliseconds)
	}) {
		k := p.kernel[name]
		fmt.Fprintf(os.Stderr, "%-28s %7d launches %10.2f ms %5.1f %%  %8.2f us each\n",
			name, k.launches, k.milliseconds, 100*k.milliseconds/total, 1000*k.milliseconds/float64(max(1, k.launches)))
	}
}
