//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"context"
	"errors"
	"slices"
	"testing"

	"spinnet/engine"
	"spinnet/train"
)

// TestCloseGivesBackAll: what a run took of the driver goes back, after a fault
// that makes every call fail, too.
func TestCloseGivesBackAll(t *testing.T) {
	for _, lost := range []bool{false, true} {
		f, broken := useFake(t, new(fake)), false
		f.fail = func(fn function) int {
			if broken && fn != cuGetErrorName && fn != cuCtxSetCurrent {
				return 700
			}
			return 0
		}
		d, err := Open(0)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := train.New(fullRecipe(t), verses(t), train.Options{Threads: 1, Device: d})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, _, err := tr.TrainStep(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if broken = lost; lost {
			if _, _, err := tr.TrainStep(context.Background()); err == nil {
				t.Error("no error of a lost GPU")
			}
		}
		tr.Close()
		d.Close() // again does nothing
		count := map[function]int{}
		for _, fn := range f.calls {
			count[fn]++
		}
		for take, give := range map[function]function{cuMemAlloc: cuMemFree, cuMemAllocHost: cuMemFreeHost, cuStreamCreate: cuStreamDestroy,
			cuEventCreate: cuEventDestroy, cuModuleLoadData: cuModuleUnload, cuGraphInstantiate: cuGraphExecDestroy,
			cuStreamEndCapture: cuGraphDestroy, cuDevicePrimaryCtxRetain: cuDevicePrimaryCtxRelease} {
			if count[take] == 0 || count[take] != count[give] {
				t.Errorf("lost %v: %d calls of %s, %d of %s", lost, count[take], symbols[take], count[give], symbols[give])
			}
		}
	}
}

// TestCloseWaits: what is queued may read pinned memory, so Close waits for both
// streams before it gives that back, also after an error that the GPU knows nothing of.
func TestCloseWaits(t *testing.T) {
	for _, full := range []bool{false, true} {
		f := new(fake)
		d := openFake(t, f)
		d.WriteInts(d.AllocInts(4), []int32{1, 2, 3, 4})
		if full {
			d.Alloc(1 << 30)
		}
		f.forget()
		d.Close()
		waits := 0
		for _, fn := range f.calls[:slices.IndexFunc(f.calls, func(fn function) bool { return fn == cuMemFree || fn == cuMemFreeHost })] {
			if fn == cuStreamSynchronize {
				waits++
			}
		}
		if waits != 2 {
			t.Errorf("out of memory %v: Close waits for %d streams, want 2", full, waits)
		}
	}
}

// TestFaultSeenLater: a kernel's fault that something else brings to light is said to
// be one.
func TestFaultSeenLater(t *testing.T) {
	for seen, do := range map[function]func(d *Device){
		cuMemAlloc:          func(d *Device) { d.Alloc(8) },
		cuStreamSynchronize: func(d *Device) { d.failLibrary(13) },
	} {
		f := new(fake)
		d := openFake(t, f)
		f.fail = func(fn function) int {
			if fn == seen {
				return 700
			}
			return 0
		}
		do(d)
		oneLine(t, d.Sync(), symbols[seen], "ILLEGAL_ADDRESS (700)", "a kernel failed", "SPINNET_CUDA_SYNC=1")
		d.Close()
	}
}

// TestSessionAfterClose: the memory that it talks to the GPU through is gone.
func TestSessionAfterClose(t *testing.T) {
	s, err := fakeSession(t, new(fake), sessionModels()["mixer"], engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	if _, err := s.Prefill([]int32{1, 2}); err == nil {
		t.Error("read ids after Close")
	}
	if _, err := s.Score(make([]float32, 1), []int32{1}, []int32{2}); err == nil {
		t.Error("scored ids after Close")
	}
}

// TestVariablesTurnedOff: 0 is no, as SPINNET_CUDA_CUBLAS has it.
func TestVariablesTurnedOff(t *testing.T) {
	t.Setenv("SPINNET_CUDA_SYNC", "0")
	t.Setenv("SPINNET_CUDA_PROFILE", "0")
	useFake(t, new(fake))
	g, err := openGPU(0)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if g.careful || g.profile != nil {
		t.Errorf("careful %v, profile %v, want neither", g.careful, g.profile != nil)
	}
}

// TestPinnedOutOfMemory: it is the host's memory that ran out.
func TestPinnedOutOfMemory(t *testing.T) {
	useFake(t, &fake{fail: func(fn function) int {
		if fn == cuMemAllocHost {
			return resultOutOfMemory
		}
		return 0
	}})
	_, err := Open(0)
	oneLine(t, err, "cuda:0 Fake", "cuMemAllocHost", "OUT_OF_MEMORY", "the machine's own memory")
	var e *Error
	if !errors.As(err, &e) || e.OutOfMemory() {
		t.Errorf("%v is said to be of the GPU's memory", err)
	}
}
