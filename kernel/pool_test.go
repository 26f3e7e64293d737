package kernel

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

type countTask struct {
	hits    []atomic.Int32
	workers int
	bad     atomic.Bool
}

func (c *countTask) Do(i, worker int) {
	c.hits[i].Add(1)
	if worker < 0 || worker >= c.workers {
		c.bad.Store(true)
	}
}

func TestPoolRunsEachItemOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		p := testPool(t, threads)
		for round := range 2000 {
			n := round % 37
			c := &countTask{hits: make([]atomic.Int32, n), workers: threads}
			p.Run(n, c)
			for i := range c.hits {
				if got := c.hits[i].Load(); got != 1 {
					t.Fatalf("%d threads, item %d of %d ran %d times", threads, i, n, got)
				}
			}
			if c.bad.Load() {
				t.Fatal("worker number out of range")
			}
			if round%500 == 499 {
				time.Sleep(300 * time.Microsecond) // let the workers park
			}
		}
	}
}

// shareTask counts how often each worker does its share.
type shareTask struct{ hits [8]int }

func (c *shareTask) Do(i, worker int) {
	if i == worker {
		c.hits[i]++
	}
}

func TestPoolShares(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		p := testPool(t, threads)
		s, c := &shareTask{}, &countTask{hits: make([]atomic.Int32, 5), workers: threads}
		for round := range 3000 {
			p.Share(s)
			if round%3 == 0 { // in turn with the other kind
				p.Run(5, c)
			}
			if round%500 == 499 {
				time.Sleep(300 * time.Microsecond) // let the workers park
			}
		}
		for w, n := range s.hits[:threads] {
			if n != 3000 {
				t.Fatalf("%d threads: worker %d did its share %d times of 3000", threads, w, n)
			}
		}
		for i := range c.hits {
			if n := c.hits[i].Load(); n != 1000 {
				t.Fatalf("%d threads: item %d ran %d times of 1000", threads, i, n)
			}
		}
	}
}

// panicTask panics on the caller's worker once another is in an item.
type panicTask struct{ running atomic.Int32 }

func (c *panicTask) Do(_, worker int) {
	if worker == 0 {
		for c.running.Load() == 0 {
			runtime.Gosched()
		}
		panic("expected")
	}
	c.running.Add(1)
	time.Sleep(time.Millisecond)
	c.running.Add(-1)
}

// A recovered panic must leave no item running into the next Run.
func TestPoolAfterPanic(t *testing.T) {
	p := testPool(t, 3)
	panics := 0
	for range 20 {
		c := &panicTask{}
		func() {
			defer func() {
				if recover() != nil {
					panics++
				}
			}()
			p.Run(30, c)
		}()
		if n := c.running.Load(); n != 0 {
			t.Fatalf("%d items still running", n)
		}
		d := &countTask{hits: make([]atomic.Int32, 10), workers: 3}
		p.Run(len(d.hits), d)
		for i := range d.hits {
			if got := d.hits[i].Load(); got != 1 {
				t.Fatalf("item %d ran %d times", i, got)
			}
		}
	}
	if panics == 0 {
		t.Error("no panic came through")
	}
}

func TestPoolDefaults(t *testing.T) {
	if got := testPool(t, 0).Threads(); got < 1 {
		t.Errorf("got %d threads", got)
	}
	if got := testPool(t, 3).Threads(); got != 3 {
		t.Errorf("got %d threads, want 3", got)
	}
}

func TestChooseSet(t *testing.T) {
	if got, err := chooseSet("ref"); got != setRef || err != nil {
		t.Errorf("ref: got %v, %v", got, err)
	}
	best := machineSets()[len(machineSets())-1]
	if got, err := chooseSet("quantum"); got != best || err == nil {
		t.Errorf("unknown set: got %v, %v", got, err)
	}
	if got, err := chooseSet(""); got != best || err != nil {
		t.Errorf("default: got %v, %v", got, err)
	}
}

func BenchmarkPoolRun(b *testing.B) {
	p := testPool(b, 2)
	c := &countTask{hits: make([]atomic.Int32, 2), workers: 2}
	b.ReportAllocs()
	for b.Loop() {
		p.Run(2, c)
	}
}
