package kernel

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"
)

// Task is work that splits into numbered items.
type Task interface {
	// Do does item i. worker, below Pool.Threads, names the calling worker,
	// for scratch memory. Do must not call Run on the same pool.
	Do(i, worker int)
}

// Pool runs tasks on workers that live as long as it does. It also keeps the
// scratch memory of the kernels that take a Pool, so that they allocate
// nothing once warm. A Pool serves one goroutine at a time.
//
// Each worker begins with the same fraction of the items in every Run, so
// rows stay in the cache of the core that last wrote them, and then helps
// the others.
type Pool struct {
	workers []poolWorker // [1:] are goroutines; 0 is the caller of Run
	task    Task
	n       int
	round   atomic.Int64 // counts calls: 2 for each of Run, to an odd number by Share
	_       [56]byte     // keep the counters on cache lines of their own
	done    atomic.Int64 // items finished
	_       [56]byte
	closed  atomic.Bool

	// owned is *poolTasks. It is not said here, because the linker keeps all
	// that a type said here can do: a program that only runs models would have
	// the code that trains them.
	owned any
}

// poolTasks are the tasks of the kernels that take a Pool.
type poolTasks struct {
	gemm   gemmTask
	fast   fastTask
	pack   packTask
	weight weightTask
	expand expandTask
	peak   peakTask

	attention attentionTask
	loss      lossTask
}

// tasks are made when the first is asked for.
func (p *Pool) tasks() *poolTasks {
	if p.owned == nil {
		p.owned = new(poolTasks)
	}
	return p.owned.(*poolTasks)
}

type poolWorker struct {
	left    atomic.Int64 // items of its share not yet claimed; ≤ 0 when there are none
	_       [56]byte
	shared  atomic.Int64 // the last round of Share that it has finished
	_       [56]byte
	parked  atomic.Bool
	wake    chan struct{}
	scratch [scratchSlots][]float32
	tile    tileArgs
	wht     whtArgs
	index   [16]int32
	_       [64]byte
}

// Scratch slots, so that kernels which call each other do not share one.
const (
	slotGemmA = iota
	slotLinear
	slotLinear2
	slotLinear3
	slotAttention
	slotLoss
	scratchSlots
)

// NewPool starts a pool of the given number of threads, counting the caller
// of Run; less than one means one per CPU.
func NewPool(threads int) *Pool {
	if threads < 1 {
		threads = runtime.GOMAXPROCS(0)
	}
	p := &Pool{workers: make([]poolWorker, threads)}
	for w := 1; w < threads; w++ {
		p.workers[w].wake = make(chan struct{}, 1)
		go p.serve(w)
	}
	return p
}

// Threads is the number of workers, the caller of Run included.
func (p *Pool) Threads() int { return len(p.workers) }

// Run calls t.Do once for each item 0 … n−1, in any order and on any worker,
// and returns when all have finished. A panic of Do on the caller's goroutine
// goes on after the others have stopped; on another it ends the process.
func (p *Pool) Run(n int, t Task) {
	if len(p.workers) == 1 || n <= 1 {
		for i := range n {
			t.Do(i, 0)
		}
		return
	}
	p.task, p.n = t, n
	p.done.Store(0)
	for w := range p.workers {
		lo, hi := p.share(w)
		p.workers[w].left.Store(int64(hi - lo)) // publishes task and n: only a claim above 0 reads them
	}
	p.round.Store(p.round.Load()&^1 + 2)
	p.wake(n)
	defer p.finish() // also when an item panics here, so that the pool stays sound
	p.work(0)
}

// wake wakes those of the first n workers that sleep.
func (p *Pool) wake(n int) {
	for w := 1; w < min(len(p.workers), n); w++ {
		if k := &p.workers[w]; k.parked.Load() && k.parked.CompareAndSwap(true, false) {
			k.wake <- struct{}{}
		}
	}
}

// Share calls t.Do(w, w) once on each worker w and returns when all have
// finished. It is for work of microseconds that t divides by itself: nothing
// is claimed and nobody helps, so a call costs less than half of Run's, and
// what a worker touches stays in the caches of its core. Panics are as in Run.
func (p *Pool) Share(t Task) {
	if len(p.workers) == 1 {
		t.Do(0, 0)
		return
	}
	p.task = t
	round := p.round.Load()&^1 + 3
	p.round.Store(round) // publishes task
	p.wake(len(p.workers))
	defer p.join(round)
	t.Do(0, 0)
}

// join waits until the other workers have finished a round of Share.
func (p *Pool) join(round int64) {
	for w := 1; w < len(p.workers); w++ {
		for spins := 0; p.workers[w].shared.Load() != round; spins++ {
			if spins > 1000 {
				runtime.Gosched()
			}
		}
	}
	p.task = nil
}

// Barrier is where the workers of a Share wait for each other.
type Barrier struct {
	workers []barrierWorker
	broken  atomic.Bool
}

type barrierWorker struct {
	met atomic.Int64 // how often it has come
	_   [56]byte
}

// NewBarrier returns a barrier for the given number of workers.
func NewBarrier(workers int) *Barrier { return &Barrier{workers: make([]barrierWorker, workers)} }

// Wait returns when all workers have called it as often as this one.
func (b *Barrier) Wait(worker int) {
	n := b.workers[worker].met.Load() + 1
	b.workers[worker].met.Store(n)
	for w := range b.workers {
		for spins := 0; b.workers[w].met.Load() < n; spins++ {
			if spins > 1000 {
				if b.broken.Load() {
					return
				}
				runtime.Gosched()
			}
		}
	}
}

// Break lets all workers pass from now on: the caller of Share may have
// panicked, and the others must not wait for it for ever.
func (b *Barrier) Break() { b.broken.Store(true) }

// finish waits for the items that workers have claimed and drops those that
// nobody has, of which there are none unless the caller's worker panicked.
func (p *Pool) finish() {
	for w := range p.workers {
		if left := &p.workers[w].left; left.Load() > 0 {
			p.done.Add(max(0, left.Swap(0)))
		}
	}
	for spins := 0; p.done.Load() < int64(p.n); spins++ {
		if spins > 1000 {
			runtime.Gosched()
		}
	}
	p.task = nil
}

// share is the range of items worker w begins with.
func (p *Pool) share(w int) (lo, hi int) {
	return p.n * w / len(p.workers), p.n * (w + 1) / len(p.workers)
}

// work claims items until none are left: a worker's own, then the others'.
func (p *Pool) work(worker int) {
	finished := int64(0)
	defer func() {
		if finished > 0 {
			p.done.Add(finished)
		}
	}()
	for i := range p.workers {
		w := (worker + i) % len(p.workers)
		left := &p.workers[w].left
		for left.Load() > 0 {
			v := left.Add(-1)
			if v < 0 {
				break
			}
			_, hi := p.share(w)
			finished++
			p.task.Do(hi-1-int(v), worker)
		}
	}
}

// An idle worker watches for work, now and then letting other goroutines run,
// and parks after spinTime: longer than the gaps between the kernels of a
// training step, too short to show as load.
const (
	busySpins = 1 << 13 // several µs
	spinTime  = 100 * time.Microsecond
)

func (p *Pool) serve(w int) {
	k := &p.workers[w]
	seen := int64(0)
	for !p.closed.Load() {
		start := time.Now()
		for p.round.Load() == seen {
			for spins := 0; spins < busySpins && p.round.Load() == seen; spins++ {
			}
			switch idle := time.Since(start); {
			case idle < spinTime:
				runtime.Gosched()
			default:
				k.parked.Store(true)
				// Work or Close may have come between the last look and here;
				// then either we take the mark back or a wake is on its way.
				if (p.round.Load() == seen && !p.closed.Load()) || !k.parked.CompareAndSwap(true, false) {
					<-k.wake
				}
				if p.closed.Load() {
					return
				}
				start = time.Now()
			}
		}
		seen = p.round.Load()
		if seen&1 == 0 {
			p.work(w)
			continue
		}
		p.task.Do(w, w) // nobody changes task before this worker has finished
		k.shared.Store(seen)
	}
}

// Close ends the workers. The pool must not be used afterwards.
func (p *Pool) Close() {
	p.closed.Store(true)
	for w := 1; w < len(p.workers); w++ {
		if k := &p.workers[w]; k.parked.CompareAndSwap(true, false) {
			k.wake <- struct{}{}
		}
	}
}

// scratch returns n floats of a worker's own memory, 64-byte aligned and not
// zeroed; the same memory for the same slot until a larger n is asked for.
func (p *Pool) scratch(worker, slot, n int) []float32 {
	return grow(&p.workers[worker].scratch[slot], n)
}

// grow makes *buf hold at least n floats, aligned to a cache line, and
// returns the first n. Contents are lost when it has to move.
func grow(buf *[]float32, n int) []float32 {
	if cap(*buf) < n {
		*buf = alignedFloats(n)
	}
	return (*buf)[:n]
}

// alignedFloats allocates n floats that begin on a cache line.
func alignedFloats(n int) []float32 {
	b := make([]float32, n+16)
	o := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & 63 / 4)
	return b[o : o+n : o+n]
}
