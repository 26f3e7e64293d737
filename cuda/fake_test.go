//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"

	"spinnet/algebra"
	"spinnet/tensor"
	"spinnet/train"
)

// fake is a driver for tests where there is none, or where one cannot be made
// to fail: its memory is the host's and its kernels do nothing.
type fake struct {
	version, major int
	multi          int    // multiprocessors
	none           bool   // no GPU
	memory, others uint64 // of the GPU, and what others have of it
	missing        string // a function that it lacks
	// fail gives the result of a call: 0 lets it happen.
	fail func(f function) int

	used   uint64
	blocks map[uintptr][]byte
	calls  []function // since the last forget
	launch []string   // kernels, as calls
	names  []string   // of the kernels' handles
	last   string     // the kernel of a launch that is under way
	graph  bool       // being captured
	made   uintptr    // streams and events
	waits  [][2]uintptr
}

// The callbacks that stand for the driver's functions; there is room for few
// in a process.
var callbacks = sync.OnceValue(func() (all [functions]uintptr) {
	for f := range all {
		all[f] = purego.NewCallback(func(a, b, c, d, e uintptr) uintptr { return uintptr(theFake.call(function(f), a, b, c)) })
	}
	return all
})

var theFake *fake

// useFake puts a driver in the place of the machine's while a test runs.
func useFake(t *testing.T, f *fake) *fake {
	t.Helper()
	_ = loadDriver() // once; not again later
	addr, version, err := driver.addr, driver.version, driver.err
	_ = loadCuBLAS() // it would use the true GPU
	blasErr := cuBLASLt.err
	cuBLASLt.err = errors.New("cuda: a fake GPU has no cuBLASLt")
	t.Cleanup(func() { driver.addr, driver.version, driver.err, cuBLASLt.err = addr, version, err, blasErr })
	if f.version == 0 {
		f.version = 13000
	}
	if f.major == 0 {
		f.major = 9
	}
	if f.multi == 0 {
		f.multi = 4
	}
	if f.memory == 0 {
		f.memory = 1 << 30
	}
	f.blocks = map[uintptr][]byte{}
	theFake = f
	driver.addr = [functions]uintptr{}
	driver.err = bindDriver(func(name string) uintptr {
		if name == f.missing {
			return 0
		}
		return callbacks()[slices.Index(symbols[:], name)]
	})
	return f
}

// Names of results, as C strings.
var resultNames = map[int][]byte{
	resultOutOfMemory: []byte("CUDA_ERROR_OUT_OF_MEMORY\x00"), resultNoDevice: []byte("CUDA_ERROR_NO_DEVICE\x00"),
	resultDeviceUnavailable: []byte("CUDA_ERROR_DEVICE_UNAVAILABLE\x00"), 700: []byte("CUDA_ERROR_ILLEGAL_ADDRESS\x00"),
}

func at[T any](addr uintptr) *T { return (*T)(pointer(addr)) }

// take gives memory at a multiple of 256.
func (f *fake) take(n uintptr) uintptr {
	b := make([]byte, n+256)
	p := (uintptr(unsafe.Pointer(&b[0])) + 255) &^ 255
	f.blocks[p] = b
	return p
}

func (f *fake) call(fn function, a, b, c uintptr) int {
	f.calls = append(f.calls, fn)
	if fn == cuLaunchKernelEx {
		f.last = f.names[b-1]
	}
	if f.fail != nil {
		if r := f.fail(fn); r != 0 {
			return r
		}
	}
	switch fn {
	case cuDriverGetVersion:
		*at[int32](a) = int32(f.version)
	case cuGetErrorName:
		*at[uintptr](b) = 0
		if s := resultNames[int(a)]; s != nil {
			*at[uintptr](b) = uintptr(unsafe.Pointer(&s[0]))
		}
	case cuDeviceGetCount:
		*at[int32](a) = 1
		if f.none {
			*at[int32](a) = 0
		}
	case cuDeviceGetName:
		copy(unsafe.Slice(at[byte](a), b), "Fake\x00")
	case cuDeviceTotalMem:
		*at[uint64](a) = f.memory
	case cuDeviceGetAttribute:
		*at[int32](a) = map[uintptr]int32{attributeMajor: int32(f.major), attributeMultiprocs: int32(f.multi), attributeMostShared: 227 << 10}[b]
	case cuMemGetInfo:
		*at[uint64](a), *at[uint64](b) = f.memory-f.used-f.others, f.memory
	case cuMemAlloc:
		if f.used+uint64(b) > f.memory-f.others {
			return resultOutOfMemory
		}
		f.used += uint64(b)
		*at[uintptr](a) = f.take(b)
	case cuMemAllocHost:
		*at[uintptr](a) = f.take(b)
	case cuMemFree:
		f.used -= uint64(len(f.blocks[a]) - 256)
		delete(f.blocks, a)
	case cuMemFreeHost:
		delete(f.blocks, a)
	case cuMemcpyHtoDAsync, cuMemcpyDtoHAsync:
		if !f.graph {
			copy(unsafe.Slice(at[byte](a), c), unsafe.Slice(at[byte](b), c))
		}
	case cuMemsetD8Async:
		for i := range unsafe.Slice(at[byte](a), c) {
			*at[byte](a + uintptr(i)) = byte(b)
		}
	case cuStreamBeginCapture:
		f.graph = true
	case cuStreamEndCapture:
		f.graph = false
		*at[uintptr](b) = 1
	case cuModuleGetFunction:
		f.names = append(f.names, goString(c))
		*at[uintptr](a) = uintptr(len(f.names))
	case cuLaunchKernelEx:
		f.launch = append(f.launch, f.last)
	case cuStreamCreate, cuEventCreate:
		f.made++
		*at[uintptr](a) = f.made
	case cuStreamWaitEvent:
		f.waits = append(f.waits, [2]uintptr{a, b})
	case cuDevicePrimaryCtxRetain, cuModuleLoadData, cuGraphInstantiate:
		*at[uintptr](a) = 1
	}
	return 0
}

func (f *fake) forget() { f.calls, f.launch, f.waits = nil, nil, nil }

// openFake gives a device on a driver as useFake has it, closed when the test ends.
func openFake(t *testing.T, f *fake) *Device {
	t.Helper()
	useFake(t, f)
	d, err := Open(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d.(*Device)
}

// oneLine checks an error's text.
func oneLine(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q has more than one line", err)
	}
	t.Log(err)
}

// TestUnusableGPUs: what cannot be used is said in one line.
func TestUnusableGPUs(t *testing.T) {
	failing := func(f function, code int) *fake {
		return &fake{fail: func(g function) int {
			if f == g {
				return code
			}
			return 0
		}}
	}
	for _, c := range []struct {
		what string
		fake *fake
		want []string
	}{
		{"an old driver", &fake{version: 12040}, []string{"driver is too old", "CUDA 12.4", "580"}},
		{"a driver without a function", &fake{missing: "cuLaunchKernelEx"}, []string{"driver is too old", "cuLaunchKernelEx", "580"}},
		{"an old GPU", &fake{major: 7}, []string{"cuda:0 Fake", "sm_70", "too old", "8.0"}},
		{"no GPU", &fake{none: true}, []string{"sees no GPU", "CUDA_VISIBLE_DEVICES"}},
		{"no GPU that the driver sees", failing(cuInit, resultNoDevice), []string{"cuInit", "NO_DEVICE", "CUDA_VISIBLE_DEVICES"}},
		{"a stub", failing(cuInit, resultStub), []string{"cuInit", "(34)", "stub", "LD_LIBRARY_PATH"}},
		{"a driver that is not all there", failing(cuInit, resultUnknown), []string{"cuInit", "(999)", "nvidia-smi"}},
		{"a GPU that fails without a kernel", failing(cuStreamCreate, 101), []string{"cuda:0 Fake: cuStreamCreate: unknown error (101)"}},
		{"a GPU that another process has", failing(cuDevicePrimaryCtxRetain, resultDeviceUnavailable), []string{"cuda:0 Fake", "another process", "exclusive"}},
		{"a GPU that is full", failing(cuDevicePrimaryCtxRetain, resultOutOfMemory), []string{"cuda:0 Fake", "OUT_OF_MEMORY", "another program"}},
		{"a GPU that a container may not use", failing(cuInit, resultSystem), []string{"cuInit", "(304)", "nvidia-smi", "container"}},
		{"a GPU that is lost", failing(cuDevicePrimaryCtxRetain, resultUnknown), []string{"cuda:0 Fake", "(999)", "nvidia-smi"}},
		{"memory at fault", failing(cuStreamSynchronize, resultMemoryFault), []string{"cuda:0 Fake", "(214)", "fault", "nvidia-smi"}},
		{"kernels for others", failing(cuModuleLoadData, resultNoBinaryForGPU), []string{"cuda:0 Fake", "cannot use these kernels", "kernels "}},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := useFake(t, c.fake)
			d, err := Open(0)
			if err == nil {
				d.Close()
			}
			oneLine(t, err, c.want...)
			if strings.Contains(err.Error(), "a kernel failed") {
				t.Errorf("%q blames a kernel", err)
			}
			if gpus, _, _ := Devices(); f.version < minDriver && len(gpus) == 1 || f.major < minMajor {
				if "cuda: "+gpus[0].Unusable != err.Error() { // spinnet version says it, too
					t.Errorf("listed as unusable with %q, opened with %q", gpus[0].Unusable, err)
				}
			}
			if len(f.blocks) != 0 {
				t.Errorf("%d blocks of memory were not given back", len(f.blocks))
			}
		})
	}
}

// TestTrainingOutOfMemory: too little for the model, for what the first step takes
// as well, and for what the driver takes itself.
func TestTrainingOutOfMemory(t *testing.T) {
	useFake(t, new(fake))
	need, _, err := measure(fullRecipe(t), verses(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what         string
		free, others uint64
		want         []string
	}{
		{"model", 1 << 20, 0, []string{"kB more needed beside the ", "kB of 1.0 MB free; lower"}},
		{"first step", need - 4096, 5e9, []string{"after step 0", " more needed beside the ", "5.00 GB taken by others; lower", "no checkpoint was saved"}},
		{"graph", need, 0, []string{"after step 0", "another program", "no checkpoint was saved"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := useFake(t, &fake{memory: c.free + c.others, others: c.others, fail: func(fn function) int {
				if c.what == "graph" && fn == cuGraphInstantiate {
					return resultOutOfMemory
				}
				return 0
			}})
			err := trainFake(t, fullRecipe(t), train.Observer{}, context.Background())
			oneLine(t, err, append(c.want, "cuda:0 Fake", "OUT_OF_MEMORY", "lower batch_size", "gradient_accumulation_steps", "recompute = true")...)
			if e, ok := errors.AsType[*Error](err); !ok || !e.OutOfMemory() {
				t.Errorf("%v is not said to be of memory", err)
			}
			if f.used != 0 || len(f.blocks) != 0 {
				t.Errorf("%d bytes and %d blocks were not given back", f.used, len(f.blocks))
			}
		})
	}
}

// trainFake trains on the fake driver until an error.
func trainFake(t *testing.T, c train.Config, o train.Observer, ctx context.Context) error {
	t.Helper()
	d, err := Open(0)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := train.New(c, verses(t), train.Options{Threads: 1, Device: d})
	if err != nil {
		return err
	}
	defer tr.Close()
	return tr.Run(ctx, o)
}

// TestFaultInARun: a kernel that fails at step 14 ends the run with one line;
// the checkpoint of step 10 goes on elsewhere.
func TestFaultInARun(t *testing.T) {
	for _, careful := range []bool{false, true} {
		c, broken := fullRecipe(t), false
		want := []string{"after step 13", "cuda:0 Fake", "ILLEGAL_ADDRESS (700)", "the checkpoint of step 10 in " + filepath.Join(c.OutDir, "checkpoints")}
		if careful {
			t.Setenv("SPINNET_CUDA_SYNC", "1")
			want = append(want, "in kernel swiglu_backward")
		} else {
			want = append(want, "at the latest in the recorded pass from finish_gradient to", "SPINNET_CUDA_SYNC=1")
		}
		f := useFake(t, new(fake))
		f.fail = func(fn function) int {
			n := len(f.launch)
			if broken && fn == cuStreamSynchronize && (!careful || n > 0 && f.launch[n-1] == "swiglu_backward") {
				return 700
			}
			return 0
		}
		err := trainFake(t, c, train.Observer{Step: func(s train.StepInfo) {
			f.forget()
			broken = s.Step == 13
		}}, context.Background())
		oneLine(t, err, want...)
		var e *Error
		if !errors.As(err, &e) || e.Code != 700 || e.Device != "cuda:0 Fake" {
			t.Errorf("got %+v", e)
		}
		if len(f.blocks) != 0 {
			t.Errorf("%d blocks were not given back", len(f.blocks))
		}
		tr, err := train.New(c, verses(t), train.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.Resume(); err != nil || tr.Step() != 10 {
			t.Errorf("resumed at step %d with error %v, want 10", tr.Step(), err)
		}
		if _, _, err := tr.TrainStep(context.Background()); err != nil {
			t.Error(err)
		}
		tr.Close()
	}
}

// TestFaultWhileSaving: a GPU that fails while a checkpoint is read from it leaves
// the one before, and says so.
func TestFaultWhileSaving(t *testing.T) {
	c, broken, reads := fullRecipe(t, "sample_tokens=0"), false, 0
	useFake(t, &fake{fail: func(fn function) int {
		if broken && fn == cuMemcpyDtoHAsync {
			if reads++; reads > 5 { // the first are of Sync, and of a look at the weights
				return 700
			}
		}
		return 0
	}})
	err := trainFake(t, c, train.Observer{Eval: func(e train.EvalInfo) { broken = e.Step == 20 }}, context.Background())
	oneLine(t, err, "checkpoint of step 20 not written", "cuda:0 Fake", "(700)", "the checkpoint of step 10 in "+filepath.Join(c.OutDir, "checkpoints"), "is good")
	tr, err := train.New(c, verses(t), train.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if err := tr.Resume(); err != nil || tr.Step() != 10 {
		t.Errorf("resumed at step %d with error %v, want 10", tr.Step(), err)
	}
}

// TestInterrupt: Ctrl-C saves the step that was under way.
func TestInterrupt(t *testing.T) {
	useFake(t, &fake{})
	c := fullRecipe(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := trainFake(t, c, train.Observer{Step: func(s train.StepInfo) {
		if s.Step == 17 {
			cancel()
		}
	}}, ctx)
	if !errors.Is(err, train.ErrInterrupted) {
		t.Fatalf("got %v", err)
	}
	tr, err := train.New(c, verses(t), train.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if err := tr.Resume(); err != nil || tr.Step() != 17 {
		t.Errorf("resumed at step %d with error %v, want 17", tr.Step(), err)
	}
}

// TestStepIsGraphs: from the third step on a step takes no memory, launches its
// parts as graphs, and queues the next step's batch before it waits.
func TestStepIsGraphs(t *testing.T) {
	f := useFake(t, &fake{})
	d, err := Open(0)
	if err != nil {
		t.Fatal(err)
	}
	c := fullRecipe(t)
	tr, err := train.New(c, verses(t), train.Options{Threads: 1, Device: d})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	count := func(fn function) (n int) {
		for _, g := range f.calls {
			if g == fn {
				n++
			}
		}
		return n
	}
	for step := range 4 {
		f.forget()
		if _, _, err := tr.TrainStep(context.Background()); err != nil {
			t.Fatal(err)
		}
		memory := count(cuMemAlloc) + count(cuMemAllocHost)
		if step > 0 && memory != 0 {
			t.Errorf("step %d took memory %d times", step, memory)
		}
		if step < 2 {
			continue
		}
		if len(f.launch) != 0 {
			t.Errorf("step %d launched %v beside graphs", step, f.launch)
		}
		if got, want := count(cuGraphLaunch), 2+c.GradAccum; got != want { // the beginning, passes, the update
			t.Errorf("step %d launched %d graphs, want %d", step, got, want)
		}
		if got := count(cuStreamSynchronize); got != 1 {
			t.Errorf("step %d waited %d times", step, got)
		}
		after := f.calls[lastIndex(f.calls, cuGraphLaunch):]
		copies, wait := slices.Index(after, cuMemcpyHtoDAsync), slices.Index(after, cuStreamSynchronize)
		if copies < 0 || copies > wait {
			t.Errorf("step %d: the next batch was not on its way before the wait: %v", step, after)
		}
	}
}

func lastIndex(calls []function, f function) int {
	for i := len(calls) - 1; i >= 0; i-- {
		if calls[i] == f {
			return i
		}
	}
	return 0
}

// TestNoDriver in a process whose loader finds none.
func TestNoDriver(t *testing.T) {
	names := driverNames
	defer func() { driverNames = names }()
	driverNames = []string{filepath.Join(t.TempDir(), "libcuda.so.1")}
	err := openDriver()
	oneLine(t, err, "no NVIDIA driver")
	if !errors.Is(err, ErrNoDriver) {
		t.Errorf("got %v, want ErrNoDriver", err)
	}
	// A library that is no driver.
	bad := filepath.Join(t.TempDir(), "libcuda.so.1")
	if err := os.WriteFile(bad, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	driverNames = []string{bad}
	oneLine(t, openDriver(), "no NVIDIA driver")
}

// TestOrder: the counting sort is stable and complete.
func TestOrder(t *testing.T) {
	r := tensor.MakeRandom(tensor.Key{Seed: testSeed})
	o := new(order)
	for _, n := range []int{1, 7, 1000, 50} {
		o.ids = make([]int32, n)
		for i := range o.ids {
			o.ids[i] = int32(r.Below(40))
		}
		o.sort()
		want := make([]int32, n)
		for i := range want {
			want[i] = int32(i)
		}
		slices.SortStableFunc(want, func(a, b int32) int { return int(o.ids[a] - o.ids[b]) })
		if got := o.both[:n]; !slices.Equal(got, want) {
			t.Errorf("%d ids: order %v, want %v", n, got, want)
		}
		for i, token := range want {
			if o.both[n+i] != o.ids[token] {
				t.Errorf("%d ids: id %d is %d, want %d", n, i, o.both[n+i], o.ids[token])
			}
		}
	}
}

// TestAside: the first stream goes on beside what went aside for one operation,
// not for two, and nothing else begins before all of it has ended.
func TestAside(t *testing.T) {
	f := new(fake)
	d := openFake(t, f)
	first, second := d.stream, d.side.stream
	if first == second {
		t.Fatal("one stream")
	}
	aside := func() uintptr {
		d.fork()
		d.aside(func() {
			if d.stream != second {
				t.Error("not on the second stream")
			}
		})
		return d.side.newer
	}
	expect := func(what string, want ...[2]uintptr) {
		t.Helper()
		if d.stream != first {
			t.Errorf("%s: not on the first stream", what)
		}
		if !slices.Equal(f.waits, want) {
			t.Errorf("%s: waits %v, want %v", what, f.waits, want)
		}
		f.forget()
	}
	forked := d.side.forked
	f.forget()
	a := aside()
	expect("aside", [2]uintptr{second, forked})
	d.proceed()
	expect("the next operation")
	b := aside()
	expect("aside of the next operation", [2]uintptr{second, forked})
	d.proceed()
	expect("the one after", [2]uintptr{first, a})
	d.proceed()
	expect("and the one after that", [2]uintptr{first, b})
	d.proceed()
	expect("nothing left")
	aside()
	last := aside() // of the same operation
	f.forget()
	d.flush()
	expect("an operation that must not run beside", [2]uintptr{first, last})
	a = aside()
	d.proceed()
	f.forget()
	d.flush()
	expect("the same, one operation later", [2]uintptr{first, a})
	d.flush()
	expect("again")
}

// TestLossFitsEveryGPU: a block has at most 99 KB of shared memory on 8.6 and 8.9,
// 256 bytes of which are not dynamic.
func TestLossFitsEveryGPU(t *testing.T) {
	f := &fake{major: 8}
	d := openFake(t, f)
	for _, vocab := range []int{2000, 50304, 70000} {
		h, e := d.Slice(d.Alloc(64), 0, tensor.BFloat16, 8, 16), d.Alloc(vocab, 16)
		f.forget()
		d.CrossEntropy(d.Alloc(8), h, e, d.AllocInts(8))
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		if last := f.launch[len(f.launch)-1]; last != "cross_entropy_bf16" || d.config.shared > 99<<10-256 || int(d.config.shared) < min(2*vocab, 98<<10) {
			t.Errorf("vocabulary %d: %s has %d bytes of shared memory", vocab, last, d.config.shared)
		}
	}
}

// TestTooLargeForKernels: numbers that a kernel cannot take are an error that says
// what to lower, and nothing is launched with them.
func TestTooLargeForKernels(t *testing.T) {
	layer := func(name string, in int) *tensor.Weight {
		alg, err := algebra.ByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return &tensor.Weight{Algebra: alg, Quantizer: "none", Out: in, In: in, W: new(tensor.Tensor), DW: new(tensor.Tensor), Zeros: new(tensor.Scalar)}
	}
	const apart = 1 << 33 // bytes between results
	for _, c := range []struct {
		what, kernel string
		run          func(d *Device)
		want         []string
	}{
		{"attention's rows of bits", "attention_mask", func(d *Device) {
			d.RotaryAttention(new(tensor.Tensor), new(tensor.Tensor), new(tensor.Tensor), new(tensor.Tensor), new(tensor.Tensor),
				&tensor.Rotation{Cos: new(tensor.Tensor), Sin: new(tensor.Tensor)},
				tensor.Attention{Batch: 8192, T: 2, Heads: 16, KVHeads: 16, HeadDim: 2, Dropout: 0.5})
		}, []string{"attention_mask", "131072", "65535"}},
		{"Walsh layers of many tokens", "walsh90_nt", func(d *Device) {
			ws := []*tensor.Weight{layer("walsh", 8), layer("walsh", 8)}
			d.derive(ws, true)
			d.walshLinear([]uintptr{256, 256 + apart}, 512, ws, 8)
		}, []string{"4294967296"}},
		{"wide octonion layers", "fold_walsh", func(d *Device) {
			w := layer("octonion", 12000)
			w.State = &weight{n: 8, out: w.Out, in: w.In, form: corrected}
			d.foldWalsh(w, 256, 2)
		}, []string{"2304000000"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := new(fake)
			d := openFake(t, f)
			c.run(d)
			oneLine(t, d.Sync(), append(c.want, "lower batch_size")...)
			if slices.Contains(f.launch, c.kernel) {
				t.Errorf("launched %v", f.launch)
			}
		})
	}
}

// TestScalarsOfTheDeepest: there are scalars for the zeros of as many layers as a
// recipe may have.
func TestScalarsOfTheDeepest(t *testing.T) {
	d := openFake(t, new(fake))
	for range 8*4096 + 2 { // weights, the loss, and the gradient's norm
		d.AllocScalar()
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
}

func TestDriverRelease(t *testing.T) {
	for text, want := range map[string]string{
		"NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:  gcc version 12.3.0\n":                   "535.104.05",
		"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs-builder@U22)  Mon 1 Jan\nGCC version:  gcc version 13": "580.159.04",
		"NVRM version: none": "",
		"":                   "",
	} {
		if got := driverRelease(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
