//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"
)

// testPTX: add(y, x, n, a, b): y_i += a·x_i + b[0]; wild(): writes where no memory is.
const testPTX = `.version 7.0
.target sm_80
.address_size 64
.visible .entry add(.param .u64 y, .param .u64 x, .param .u32 n, .param .f32 a, .param .u64 b) {
  .reg .pred %p; .reg .b32 %r<5>; .reg .b64 %d<7>; .reg .f32 %f<6>;
  mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;
  mad.lo.s32 %r1, %r1, %r2, %r3;
  ld.param.u32 %r4, [n]; setp.ge.s32 %p, %r1, %r4; @%p bra DONE;
  ld.param.u64 %d1, [y]; ld.param.u64 %d2, [x]; ld.param.u64 %d3, [b]; ld.param.f32 %f1, [a];
  mul.wide.s32 %d4, %r1, 4; add.s64 %d5, %d1, %d4; add.s64 %d6, %d2, %d4;
  ld.global.f32 %f2, [%d6]; ld.global.f32 %f3, [%d5]; ld.global.f32 %f4, [%d3];
  fma.rn.f32 %f5, %f1, %f2, %f3; add.f32 %f5, %f5, %f4; st.global.f32 [%d5], %f5;
DONE: ret;
}
.visible .entry wild() {
  .reg .b64 %d1; .reg .b32 %r1;
  mov.u64 %d1, 64; mov.u32 %r1, 7; st.global.u32 [%d1], %r1; ret;
}
`

// needGPU opens the first GPU, or skips the test.
func needGPU(t testing.TB) *gpu {
	t.Helper()
	g, err := openGPU(0)
	if err != nil {
		if os.Getenv("SPINNET_REQUIRE_GPU") != "" {
			t.Fatal(err)
		}
		t.Skip("no GPU to test with:", err)
	}
	t.Cleanup(g.close)
	return g
}

func TestDriver(t *testing.T) {
	g := needGPU(t)
	gpus, version, err := Devices()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("driver %s, %d multiprocessors", version, g.multi)
	for _, i := range gpus {
		t.Log(i)
	}
	const n = 100_003
	m := g.loadModule([]byte(testPTX))
	add := g.function(m, "add")
	x, y, b := g.malloc(4*n), g.malloc(4*n), g.malloc(4)
	hx, hy := make([]float32, n), make([]float32, n)
	for i := range hx {
		hx[i] = float32(i % 1000)
	}
	g.upload(x, unsafe.Pointer(&hx[0]), 4*n)
	if g.err != nil {
		t.Fatal(g.err)
	}
	step := func() {
		g.launchFunction(add, grid{x: (n + 255) / 256, threads: 256}, false, [4]*tensorMap{}, uint64(y), uint64(x), i32(n), f32(2), uint64(b))
	}
	check := func(what string, times int, bias float32) {
		t.Helper()
		g.download(unsafe.Pointer(&hy[0]), y, 4*n)
		if g.err != nil {
			t.Fatalf("%s: %v", what, g.err)
		}
		for i, got := range hy {
			if want := float32(2*times)*hx[i] + bias; got != want {
				t.Fatalf("%s: element %d is %v, want %v", what, i, got, want)
			}
		}
	}
	step()
	check("launch", 1, 0)

	// A graph reads what was staged for it, each time anew, although the host
	// is far ahead.
	replay := g.record(func() { step(); step() })
	one := make([]float32, 1)
	var bias float32
	for i := range 40 {
		one[0] = float32(i)
		bias += 2 * one[0]
		g.stage(b, bytesOf(one))
		replay()
	}
	check("graph", 81, bias)

	launches := 0
	if allocs := testing.AllocsPerRun(100, func() { step(); launches++ }); allocs != 0 {
		t.Errorf("%v allocations a launch", allocs)
	}
	if allocs := testing.AllocsPerRun(100, func() { g.stage(b, bytesOf(one)); replay() }); allocs != 0 {
		t.Errorf("%v allocations a replay", allocs)
	}
	g.sync()
	if g.err != nil {
		t.Fatal(g.err)
	}
}

func TestOutOfMemory(t *testing.T) {
	g := needGPU(t)
	if p := g.malloc(1 << 50); p != 0 {
		t.Error("a petabyte was given")
	}
	var e *Error
	if !errors.As(g.err, &e) || e.Name != "CUDA_ERROR_OUT_OF_MEMORY" || !strings.Contains(e.Error(), "batch_size") {
		t.Errorf("got %v", g.err)
	}
	t.Log(g.err)
	if g.malloc(100); g.used != 0 {
		t.Error("went on after a failure")
	}
}

func TestKernelFault(t *testing.T) {
	if os.Getenv("SPINNET_KERNEL_FAULT") == "" { // after it, a process has no more use of the GPU
		needGPU(t).close()
		out, err := child(t, "TestKernelFault", "SPINNET_KERNEL_FAULT=1").CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
		return
	}
	g := needGPU(t)
	wild := g.function(g.loadModule([]byte(testPTX)), "wild")
	g.last = "wild"
	g.launchFunction(wild, grid{x: 1, threads: 1}, false, [4]*tensorMap{})
	g.sync()
	if g.err == nil || !strings.Contains(g.err.Error(), "wild") || !strings.Contains(g.err.Error(), g.info.Name) {
		t.Errorf("got %v, want the kernel and the device", g.err)
	}
	t.Log(g.err)
}
