//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"spinnet/algebra"
	"spinnet/tensor"
)

// needDevice opens the first GPU, or skips the test.
func needDevice(t testing.TB) *Device {
	t.Helper()
	d, err := Open(0)
	if err != nil {
		if os.Getenv("SPINNET_REQUIRE_GPU") != "" {
			t.Fatal(err)
		}
		t.Skip("no GPU to test with:", err)
	}
	t.Cleanup(d.Close)
	if older {
		d.(*Device).info.Major = 8
		d.(*Device).closeBLAS()
	}
	return d.(*Device)
}

// older makes a Hopper GPU compute as those before and after it do, by the
// kernels that are for all, ours alone.
var older bool

// TestAsOlderGPU: the kernels that a Hopper GPU has better ones for.
func TestAsOlderGPU(t *testing.T) {
	d := needDevice(t) // open meanwhile: to open it takes longer than most tests
	switch {
	case d.info.Major != 9:
		t.Skip("no other kernels are for this GPU:", d.info)
	case testing.Short():
		t.Skip("long")
	}
	older = true
	defer func() { older = false }()
	t.Run("linear", TestLinear)
	t.Run("layers of one input", TestLayersOfOneInput)
	t.Run("attention", TestAttention)
	t.Run("gradients", TestGradientsOfTheOriginal)
}

func TestOpenWithoutGPU(t *testing.T) {
	t.Setenv("SPINNET_CUDA_KERNELS", t.TempDir())
	d, err := Open(0)
	if err == nil {
		d.Close()
		t.Fatal("opened without kernels")
	}
	if !strings.HasPrefix(err.Error(), "cuda: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q, want one line of package cuda", err)
	}
	if !errors.Is(err, ErrNoDriver) && !errors.Is(err, ErrNoKernels) {
		t.Log(err) // a driver, but no GPU, or one too old
	}
	useFake(t, new(fake))
	if _, err := Open(0); !errors.Is(err, ErrNoKernels) || !strings.Contains(err.Error(), os.Getenv(kernelFolder)) {
		t.Errorf("a folder without kernels: got %v", err)
	}
}

// both runs operations on the CPU and on a GPU with the same numbers.
type both struct {
	*testing.T
	gpu *Device
	cpu *tensor.CPU
	rnd tensor.Random
}

func newBoth(t *testing.T) *both {
	b := &both{T: t, gpu: needDevice(t), cpu: tensor.NewCPU(2), rnd: tensor.MakeRandom(tensor.Key{Seed: testSeed})}
	t.Cleanup(b.cpu.Close)
	return b
}

// testSeed is another one in every run, and printed, so that no test fits to
// one set of numbers.
var testSeed = func() uint64 {
	seed := uint64(os.Getpid())
	fmt.Fprintln(os.Stderr, "cuda: tests draw from seed", seed)
	return seed
}()

// pair is one tensor on both devices.
type pair struct{ gpu, cpu *tensor.Tensor }

// make gives a tensor of random numbers of a role, the same on both.
func (b *both) make(r tensor.Role, shape ...int) pair {
	n := 1
	for _, d := range shape {
		n *= d
	}
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(b.rnd.Normal())
	}
	return b.of(r, x, shape...)
}

func (b *both) of(r tensor.Role, x []float32, shape ...int) pair {
	typ := b.gpu.TypeOf(r)
	if typ == tensor.BFloat16 {
		for i, v := range x {
			x[i] = math.Float32frombits(uint32(bf16(v)) << 16)
		}
	}
	block := b.gpu.Alloc((len(x)*typ.Size() + 3) / 4)
	p := pair{b.gpu.Slice(block, 0, typ, shape...), b.cpu.Alloc(shape...)}
	b.gpu.Write(p.gpu, x)
	b.cpu.Write(p.cpu, x)
	return p
}

// poisoned is an output that holds NaN until it is written.
func (b *both) poisoned(r tensor.Role, shape ...int) pair {
	p := b.make(r, shape...)
	x := make([]float32, p.cpu.Len())
	for i := range x {
		x[i] = float32(math.NaN())
	}
	b.gpu.Write(p.gpu, x)
	return p
}

// check compares a result by ‖gpu − cpu‖ / ‖cpu‖.
func (b *both) check(what string, p pair, most float64) {
	b.Helper()
	got := make([]float32, p.cpu.Len())
	if most >= rounded && len(got) < 16 {
		most *= 1.4 // a single value may be off by 2⁻⁸; roundings of many are less in the norm
	}
	b.gpu.Read(got, p.gpu)
	if err := b.gpu.Sync(); err != nil {
		b.Fatalf("%s: %v", what, err)
	}
	if d := distance(got, p.cpu.Data); !(d <= most) {
		b.Errorf("%s: relative distance %.3g, want at most %.3g (%v)", what, d, most, p.cpu.Shape)
	} else if testing.Verbose() {
		b.Logf("%s: %.2g", what, d)
	}
}

// distance is ‖got − want‖ / ‖want‖; not a number when any number is not.
func distance(got, want []float32) float64 {
	var d, n float64
	for i, w := range want {
		e := float64(got[i]) - float64(w)
		d += e * e
		n += float64(w) * float64(w)
	}
	if n == 0 {
		n = 1
	}
	return math.Sqrt(d / n)
}

// Bounds: an operation in float32, one whose result is rounded to bf16, and
// one that rounds operands or several times.
const (
	exact   = 2e-5
	rounded = 3e-3
	twice   = 8e-3
)

func (b *both) weight(alg, quantizer string, out, in int, transposed, beta bool) (gpu, cpu *tensor.Weight) {
	b.Helper()
	a, err := algebra.ByName(alg)
	if err != nil {
		b.Fatal(err)
	}
	gpu = tensor.NewWeight(b.gpu, a, quantizer, out, in, transposed, beta)
	cpu = tensor.NewWeight(b.cpu, a, quantizer, out, in, transposed, beta)
	fill := func(g, c *tensor.Tensor) {
		for i := range c.Data {
			c.Data[i] = float32(b.rnd.Normal())
		}
		b.gpu.Write(g, c.Data)
	}
	fill(gpu.W, cpu.W)
	if beta {
		fill(gpu.Beta, cpu.Beta)
	}
	return gpu, cpu
}

func TestLinear(t *testing.T) {
	for _, c := range []struct {
		alg, quantizer   string
		rows, out, in    int
		transposed, beta bool
	}{
		{"octonion", "absmean", 130, 64, 64, false, false},
		{"octonion", "absmean", 7, 22, 8, false, true},
		{"octonion", "classic", 33, 171, 64, false, true},
		{"octonion", "none", 65, 8, 171, false, true},
		{"octonion", "none", 96, 16, 16, true, true},
		{"octonion", "none", 33, 8, 8, true, true},
		{"walsh", "absmean", 130, 22, 40, false, false},
		{"walsh", "absmean", 130, 264, 256, false, true},
		{"walsh", "classic", 7, 256, 260, false, true},
		{"walsh", "none", 64, 64, 64, true, true},
		{"walsh", "absmean", 130, 64, 64, false, true},
		{"walsh", "absmean", 1000, 176, 64, false, false},
		{"walsh", "classic", 65, 40, 136, false, true},
		{"walsh", "absmean", 300, 456, 464, false, true},
		{"quaternion", "absmean", 257, 48, 16, false, false},
		{"complex", "classic", 33, 24, 22, false, true},
		{"real", "absmean", 33, 130, 70, false, true},
		{"sedenion", "absmean", 33, 8, 24, false, false},
		{"random:3", "absmean", 1000, 24, 32, false, true},
		{"octonion", "absmean", 2048, 64, 176, false, false},
		{"octonion", "absmean", 4200, 72, 80, false, true},
		{"octonion", "classic", 1, 264, 72, false, false},
	} {
		name := fmt.Sprintf("%s %s %d×%d→%d", c.alg, c.quantizer, c.rows, c.in, c.out)
		if c.transposed {
			name += " mixer"
		}
		t.Run(name, func(t *testing.T) {
			if testing.Short() && c.rows*c.out*c.in > 2e6 {
				t.Skip("large")
			}
			b := newBoth(t)
			b.gpu.octonionFrom = 576 // what wide layers do, on narrower
			g, w := b.weight(c.alg, c.quantizer, c.out, c.in, c.transposed, c.beta)
			n := w.Algebra.N
			b.gpu.Refresh([]*tensor.Weight{g}, true)
			b.cpu.Refresh([]*tensor.Weight{w}, true)
			x, y := b.make(tensor.Activation, c.rows, n*c.in), b.poisoned(tensor.Activation, c.rows, n*c.out)
			b.gpu.Linear([]*tensor.Tensor{y.gpu}, x.gpu, []*tensor.Weight{g})
			b.cpu.Linear([]*tensor.Tensor{y.cpu}, x.cpu, []*tensor.Weight{w})
			b.check("y", y, twice)
			if g.Zeros.Value != w.Zeros.Value {
				t.Errorf("%v zeros, want %v", g.Zeros.Value, w.Zeros.Value)
			}
			for i, role := range []tensor.Role{tensor.Activation, tensor.Stream} {
				dy, dx := b.make(role, c.rows, n*c.out), b.poisoned(tensor.Activation, c.rows, n*c.in)
				if i == 1 {
					dx = b.make(tensor.Activation, c.rows, n*c.in) // added to
				}
				b.gpu.LinearBackward(dx.gpu, i == 1, []*tensor.Tensor{dy.gpu}, x.gpu, []*tensor.Weight{g})
				b.cpu.LinearBackward(dx.cpu, i == 1, []*tensor.Tensor{dy.cpu}, x.cpu, []*tensor.Weight{w})
				b.check(fmt.Sprint("dx of dy ", i), dx, twice)
			}
			b.check("G", pair{g.DW, w.DW}, twice)
			b.gpu.FinishGradients([]*tensor.Weight{g})
			b.cpu.FinishGradients([]*tensor.Weight{w})
			b.check("dW", pair{g.DW, w.DW}, twice)
			if c.beta {
				b.check("dbeta", pair{g.DBeta, w.DBeta}, twice)
			}
		})
	}
}

// TestLayersOfOneInput: several at once, those alike in one launch.
func TestLayersOfOneInput(t *testing.T) {
	for _, c := range []struct {
		alg       string
		rows, in  int
		out       []int
		mustGroup int
	}{
		{"octonion", 130, 64, []int{64, 64, 64}, 3},
		{"octonion", 64, 64, []int{64, 16, 16}, 1},
		{"octonion", 33, 22, []int{40, 40}, 2},
		{"walsh", 65, 256, []int{256, 256}, 2},
		{"walsh", 512, 64, []int{176, 176}, 2},
		{"walsh", 96, 64, []int{64, 64, 64}, 3},
	} {
		b := newBoth(t)
		var g, w []*tensor.Weight
		for _, out := range c.out {
			x, y := b.weight(c.alg, "absmean", out, c.in, false, false)
			g, w = append(g, x), append(w, y)
		}
		b.gpu.Refresh(g, true)
		b.cpu.Refresh(w, true)
		// Side by side, as a tape lays them out.
		side := func() (all []pair, gpu, cpu []*tensor.Tensor) {
			total := 0
			for _, out := range c.out {
				total += round(2 * c.rows * 8 * out)
			}
			block, at := b.gpu.Alloc(total/4), 0
			for _, out := range c.out {
				p := b.make(tensor.Activation, c.rows, 8*out)
				p.gpu = b.gpu.Slice(block, at, tensor.BFloat16, c.rows, 8*out)
				b.gpu.Write(p.gpu, p.cpu.Data)
				at += round(2 * c.rows * 8 * out)
				all, gpu, cpu = append(all, p), append(gpu, p.gpu), append(cpu, p.cpu)
			}
			return all, gpu, cpu
		}
		ys, gy, cy := side()
		if got := alike(b.gpu.addresses(gy), g); got != c.mustGroup {
			t.Errorf("%v: %d in one launch, want %d", c, got, c.mustGroup)
		}
		x := b.make(tensor.Activation, c.rows, 8*c.in)
		b.gpu.Linear(gy, x.gpu, g)
		b.cpu.Linear(cy, x.cpu, w)
		for i, y := range ys {
			b.check(fmt.Sprintf("%v: y %d", c, i), y, twice)
		}
		_, gdy, cdy := side()
		dx := b.poisoned(tensor.Activation, c.rows, 8*c.in)
		for _, acc := range []bool{false, true} {
			b.gpu.LinearBackward(dx.gpu, acc, gdy, x.gpu, g)
			b.cpu.LinearBackward(dx.cpu, acc, cdy, x.cpu, w)
			b.check(fmt.Sprintf("%v: dx", c), dx, 2*twice)
		}
		for i := range w {
			b.check(fmt.Sprintf("%v: dW %d", c, i), pair{g[i].DW, w[i].DW}, twice)
		}
	}
}

func TestNormAndResidual(t *testing.T) {
	for _, c := range [][2]int{{130, 512}, {7, 64}, {33, 1280}, {65, 70}, {300, 2048}, {3, 1024}, {9, 24}} {
		b := newBoth(t)
		rows, d := c[0], c[1]
		w, dw := b.make(tensor.Stream, d), b.make(tensor.Stream, d)
		h, f, sum := b.make(tensor.Stream, rows, d), b.make(tensor.Activation, rows, d), b.poisoned(tensor.Stream, rows, d)
		z, z2 := b.poisoned(tensor.Activation, rows, d), b.poisoned(tensor.Activation, rows, d)
		for _, dev := range []struct {
			tensor.Device
			of func(pair) *tensor.Tensor
		}{{b.gpu, func(p pair) *tensor.Tensor { return p.gpu }}, {b.cpu, func(p pair) *tensor.Tensor { return p.cpu }}} {
			dev.RMSNorm(dev.of(z2), dev.of(h), dev.of(w))
			dev.Add(dev.of(sum), dev.of(h), dev.of(f))
			dev.RMSNorm(dev.of(z), dev.of(sum), dev.of(w))
		}
		b.check("norm", z2, rounded)
		// One launch for a sum, its norm and the rounding of that.
		q, sum2, q2 := b.poisoned(tensor.Activation, rows, d), b.poisoned(tensor.Stream, rows, d), b.poisoned(tensor.Activation, rows, d)
		for _, dev := range []struct {
			tensor.Device
			of func(pair) *tensor.Tensor
		}{{b.gpu, func(p pair) *tensor.Tensor { return p.gpu }}, {b.cpu, func(p pair) *tensor.Tensor { return p.cpu }}} {
			dev.RMSNorm(dev.of(z2), dev.of(h), dev.of(w))
			dev.FakeQuant8(dev.of(q), dev.of(z2))
			dev.Add(dev.of(sum2), dev.of(h), dev.of(f))
			dev.RMSNorm(dev.of(z2), dev.of(sum2), dev.of(w))
			dev.FakeQuant8(dev.of(q2), dev.of(z2))
		}
		b.check("norm in int8", q, twice)
		b.check("sum", sum2, exact)
		b.check("norm of sum in int8", q2, twice)
		b.check("sum", sum, exact)
		b.check("norm of sum", z, rounded)
		dz, dx := b.make(tensor.Activation, rows, d), b.poisoned(tensor.Stream, rows, d)
		for _, acc := range []bool{false, true} {
			b.gpu.RMSNormBackward(dx.gpu, acc, dw.gpu, dz.gpu, sum.gpu, w.gpu)
			b.cpu.RMSNormBackward(dx.cpu, acc, dw.cpu, dz.cpu, sum.cpu, w.cpu)
			b.check("dx", dx, exact)
			copied := b.gpu.half(dx.gpu)
			b.check("dx in bf16", pair{&tensor.Tensor{Shape: dx.cpu.Shape, Type: tensor.BFloat16, Addr: copied}, dx.cpu}, rounded)
		}
		b.check("dw", dw, exact)
		a, s := b.make(tensor.Stream, rows, d), b.poisoned(tensor.Stream, rows, d)
		b.gpu.Add(s.gpu, a.gpu, h.gpu)
		b.cpu.Add(s.cpu, a.cpu, h.cpu)
		b.check("sum of float32", s, exact)
	}
}

func TestAttention(t *testing.T) {
	for _, a := range []tensor.Attention{
		{Batch: 2, T: 64, Heads: 8, KVHeads: 8, HeadDim: 64},
		{Batch: 1, T: 33, Heads: 8, KVHeads: 2, HeadDim: 8},
		{Batch: 3, T: 7, Heads: 4, KVHeads: 4, HeadDim: 16, Dropout: 0.1, Layer: 3},
		{Batch: 2, T: 130, Heads: 4, KVHeads: 2, HeadDim: 32, Dropout: 0.5, Layer: 1},
		{Batch: 2, T: 256, Heads: 8, KVHeads: 8, HeadDim: 64, Dropout: 0.1, Layer: 2},
		{Batch: 1, T: 200, Heads: 2, KVHeads: 1, HeadDim: 96},
		{Batch: 1, T: 130, Heads: 2, KVHeads: 2, HeadDim: 128, Dropout: 0.2},
		{Batch: 1, T: 65, Heads: 3, KVHeads: 3, HeadDim: 10},
		{Batch: 2, T: 1, Heads: 2, KVHeads: 2, HeadDim: 64},
	} {
		t.Run(fmt.Sprint(a.Batch, a.T, a.Heads, a.KVHeads, a.HeadDim, a.Dropout), func(t *testing.T) {
			if testing.Short() && a.Batch*a.T*a.Heads > 2000 {
				t.Skip("large")
			}
			b := newBoth(t)
			a.Seed = 77 << 33
			const step = 1<<33 + 5
			b.gpu.SetStep(step)
			b.cpu.SetStep(step)
			rows, wide, narrow := a.Batch*a.T, a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
			rg, rc := tensor.NewRotation(b.gpu, a.T+3, a.HeadDim), tensor.NewRotation(b.cpu, a.T+3, a.HeadDim)
			q, k, v := b.make(tensor.Activation, rows, wide), b.make(tensor.Activation, rows, narrow), b.make(tensor.Activation, rows, narrow)
			o, lse := b.poisoned(tensor.Activation, rows, wide), b.poisoned(tensor.Statistic, a.Batch, a.Heads, a.T)
			b.gpu.RotaryAttention(o.gpu, lse.gpu, q.gpu, k.gpu, v.gpu, rg, a)
			b.cpu.RotaryAttention(o.cpu, lse.cpu, q.cpu, k.cpu, v.cpu, rc, a)
			b.check("o", o, twice)
			b.check("lse", lse, twice)
			do := b.make(tensor.Activation, rows, wide)
			dq, dk, dv := b.poisoned(tensor.Activation, rows, wide), b.poisoned(tensor.Activation, rows, narrow), b.poisoned(tensor.Activation, rows, narrow)
			b.gpu.RotaryAttentionBackward(dq.gpu, dk.gpu, dv.gpu, do.gpu, o.gpu, lse.gpu, q.gpu, k.gpu, v.gpu, rg, a)
			b.cpu.RotaryAttentionBackward(dq.cpu, dk.cpu, dv.cpu, do.cpu, o.cpu, lse.cpu, q.cpu, k.cpu, v.cpu, rc, a)
			b.check("dv", dv, 2*twice)
			if a.T > 1 { // else the gradients are rounding alone
				b.check("dq", dq, 2*twice)
				b.check("dk", dk, 2*twice)
			}
		})
	}
	d := needDevice(t)
	d.attentionOf(160)
	if err := d.Sync(); err == nil || !strings.Contains(err.Error(), "160") {
		t.Errorf("heads of 160: got %v", err)
	}
}

// TestRotatedByLayers: layers whose first two results the attention rotates.
func TestRotatedByLayers(t *testing.T) {
	for _, c := range []struct {
		alg         string
		T, heads    int
		kvHeads, hd int
	}{{"octonion", 65, 8, 8, 64}, {"octonion", 40, 8, 2, 64}, {"octonion", 33, 8, 8, 32}, {"walsh", 64, 8, 8, 64}} {
		b := newBoth(t)
		a := tensor.Attention{Batch: 3, T: c.T, Heads: c.heads, KVHeads: c.kvHeads, HeadDim: c.hd}
		rows, in := a.Batch*a.T, 64
		x := b.make(tensor.Activation, rows, 8*in)
		rg, rc := tensor.NewRotation(b.gpu, a.T+3, a.HeadDim), tensor.NewRotation(b.cpu, a.T+3, a.HeadDim)
		var g, w []*tensor.Weight
		var ys []pair
		var gy, cy []*tensor.Tensor
		for _, heads := range []int{c.heads, c.kvHeads, c.kvHeads} {
			wide := heads * c.hd
			gw, cw := b.weight(c.alg, "absmean", wide/8, in, false, true)
			y := b.poisoned(tensor.Activation, rows, wide)
			g, w, ys, gy, cy = append(g, gw), append(w, cw), append(ys, y), append(gy, y.gpu), append(cy, y.cpu)
		}
		b.gpu.Refresh(g, true)
		b.cpu.Refresh(w, true)
		o, lse := b.poisoned(tensor.Activation, rows, c.heads*c.hd), b.poisoned(tensor.Statistic, a.Batch, a.Heads, a.T)
		b.gpu.Linear(gy, x.gpu, g)
		b.gpu.RotaryAttention(o.gpu, lse.gpu, gy[0], gy[1], gy[2], rg, a)
		b.cpu.Linear(cy, x.cpu, w)
		b.cpu.RotaryAttention(o.cpu, lse.cpu, cy[0], cy[1], cy[2], rc, a)
		for i, y := range ys {
			b.check(fmt.Sprintf("%v: y %d", c, i), y, twice)
		}
	}
}

// TestGatedByLayers: two layers with the SwiGLU of their results, and its rounding.
func TestGatedByLayers(t *testing.T) {
	for _, alg := range []string{"octonion", "walsh"} {
		for _, c := range [][3]int{{300, 64, 40}, {130, 64, 176}, {65, 22, 9}} {
			b := newBoth(t)
			rows, in, out := c[0], c[1], c[2]
			var g, w []*tensor.Weight
			var gy, cy []*tensor.Tensor
			var ys []pair
			for range 2 {
				gw, cw := b.weight(alg, "absmean", out, in, false, true)
				y := b.poisoned(tensor.Activation, rows, 8*out)
				g, w, ys, gy, cy = append(g, gw), append(w, cw), append(ys, y), append(gy, y.gpu), append(cy, y.cpu)
			}
			b.gpu.Refresh(g, true)
			b.cpu.Refresh(w, true)
			x := b.make(tensor.Activation, rows, 8*in)
			y, q := b.poisoned(tensor.Activation, rows, 8*out), b.poisoned(tensor.Activation, rows, 8*out)
			b.gpu.Linear(gy, x.gpu, g)
			b.gpu.SwiGLU(y.gpu, gy[0], gy[1])
			b.cpu.Linear(cy, x.cpu, w)
			b.cpu.SwiGLU(y.cpu, cy[0], cy[1])
			b.check(fmt.Sprint(alg, c, " y"), y, 2*twice)
			b.check(fmt.Sprint(alg, c, " gate"), ys[0], twice)
			b.check(fmt.Sprint(alg, c, " up"), ys[1], twice)
			b.gpu.Linear(gy, x.gpu, g)
			b.gpu.SwiGLU(y.gpu, gy[0], gy[1])
			b.gpu.FakeQuant8(q.gpu, y.gpu)
			b.cpu.FakeQuant8(q.cpu, y.cpu)
			b.check(fmt.Sprint(alg, c, " in int8"), q, 4*twice)
		}
	}
}

func TestElementwise(t *testing.T) {
	for _, c := range [][2]int{{130, 1408}, {7, 22}, {33, 171}, {1, 1}, {9, 3456}, {3, 4608}} {
		b := newBoth(t)
		rows, d := c[0], c[1]
		gate, up, dy := b.make(tensor.Activation, rows, d), b.make(tensor.Activation, rows, d), b.make(tensor.Activation, rows, d)
		y, dgate, dup := b.poisoned(tensor.Activation, rows, d), b.poisoned(tensor.Activation, rows, d), b.poisoned(tensor.Activation, rows, d)
		b.gpu.SwiGLU(y.gpu, gate.gpu, up.gpu)
		b.cpu.SwiGLU(y.cpu, gate.cpu, up.cpu)
		b.check("swiglu", y, rounded)
		b.gpu.SwiGLUBackward(dgate.gpu, dup.gpu, dy.gpu, gate.gpu, up.gpu)
		b.cpu.SwiGLUBackward(dgate.cpu, dup.cpu, dy.cpu, gate.cpu, up.cpu)
		b.check("dgate", dgate, rounded)
		b.check("dup", dup, rounded)
		b.gpu.FakeQuant8(y.gpu, gate.gpu)
		b.cpu.FakeQuant8(y.cpu, gate.cpu)
		b.check("int8", y, rounded)
		q := b.poisoned(tensor.Activation, rows, d)
		b.gpu.SwiGLU(y.gpu, gate.gpu, up.gpu)
		b.gpu.FakeQuant8(q.gpu, y.gpu)
		b.cpu.SwiGLU(y.cpu, gate.cpu, up.cpu)
		b.cpu.FakeQuant8(q.cpu, y.cpu)
		b.check("swiglu in int8", q, twice)
	}
}

func TestEmbedding(t *testing.T) {
	for _, c := range [][3]int{{65, 512, 3000}, {50, 70, 130}, {1000, 64, 7}, {2, 1284, 200}} {
		b := newBoth(t)
		vocab, d, n := c[0], c[1], c[2]
		table, dtable := b.make(tensor.Stream, vocab, d), b.make(tensor.Stream, vocab, d)
		g, h := b.gpu.AllocInts(n), b.cpu.AllocInts(n)
		for i := range h.Data {
			h.Data[i] = int32(b.rnd.Below(int64(vocab)))
		}
		b.gpu.WriteInts(g, h.Data)
		y, dy := b.poisoned(tensor.Stream, n, d), b.make(tensor.Stream, n, d)
		b.gpu.Embedding(y.gpu, table.gpu, g)
		b.cpu.Embedding(y.cpu, table.cpu, h)
		b.check("rows", y, 0)
		b.gpu.EmbeddingBackward(dtable.gpu, dy.gpu, g)
		b.cpu.EmbeddingBackward(dtable.cpu, dy.cpu, h)
		b.check("dtable", dtable, exact)
	}
}

func TestCrossEntropy(t *testing.T) {
	for _, c := range [][3]int{{65, 512, 3000}, {31, 64, 33}, {1000, 128, 130}, {5003, 64, 257}, {50304, 512, 300}, {50257, 72, 3001}} {
		vocab, d, n := c[0], c[1], c[2]
		if testing.Short() && vocab*n > 2e6 {
			continue
		}
		b := newBoth(t)
		h, dh, losses := b.make(tensor.Activation, n, d), b.poisoned(tensor.Activation, n, d), b.poisoned(tensor.Statistic, n)
		x := make([]float32, vocab*d)
		for i := range x {
			x[i] = float32(b.rnd.Normal()) * 0.1
		}
		table, dtable := b.of(tensor.Stream, x, vocab, d), b.make(tensor.Stream, vocab, d)
		b.gpu.Zero(dtable.gpu)
		b.cpu.Zero(dtable.cpu)
		g, e := b.gpu.AllocInts(n), b.cpu.AllocInts(n)
		for i := range e.Data {
			e.Data[i] = int32(b.rnd.Below(int64(vocab)+1)) - 1
		}
		b.gpu.WriteInts(g, e.Data)
		b.gpu.CrossEntropy(losses.gpu, h.gpu, table.gpu, g)
		b.cpu.CrossEntropy(losses.cpu, h.cpu, table.cpu, e)
		b.check("losses", losses, rounded)
		b.gpu.CrossEntropyBackward(losses.gpu, dh.gpu, dtable.gpu, h.gpu, table.gpu, g, 1/float32(n))
		b.cpu.CrossEntropyBackward(losses.cpu, dh.cpu, dtable.cpu, h.cpu, table.cpu, e, 1/float32(n))
		b.check("losses again", losses, rounded)
		b.check("dh", dh, 2*twice)
		b.check("dtable", dtable, 2*twice)
		s, r := b.gpu.AllocScalar(), b.cpu.AllocScalar()
		for range 2 {
			b.gpu.AddSum(s, losses.gpu)
			b.cpu.AddSum(r, losses.cpu)
		}
		if err := b.gpu.Sync(); err != nil || math.Abs(s.Value/r.Value-1) > 1e-3 {
			t.Errorf("sum %v, want %v (%v)", s.Value, r.Value, err)
		}
	}
}

func TestUpdate(t *testing.T) {
	b := newBoth(t)
	gpu, cpu := &tensor.AdamW{}, &tensor.AdamW{}
	var all []pair
	for _, n := range []int{1, 7, 8192, 8193, 100_000, 64} {
		w, g, m, v := b.make(tensor.Stream, n), b.make(tensor.Stream, n), b.make(tensor.Stream, n), b.make(tensor.Stream, n)
		for i := range v.cpu.Data {
			v.cpu.Data[i] *= v.cpu.Data[i]
		}
		b.gpu.Write(v.gpu, v.cpu.Data)
		all = append(all, w, m, v)
		gpu.W, gpu.G, gpu.M, gpu.V = append(gpu.W, w.gpu), append(gpu.G, g.gpu), append(gpu.M, m.gpu), append(gpu.V, v.gpu)
		cpu.W, cpu.G, cpu.M, cpu.V = append(cpu.W, w.cpu), append(cpu.G, g.cpu), append(cpu.M, m.cpu), append(cpu.V, v.cpu)
	}
	step := func(dev tensor.Device, o *tensor.AdamW) {
		o.Beta1, o.Beta2, o.Eps, o.Clip = 0.9, 0.95, 1e-8, 1
		if o.Loss == nil {
			o.Loss, o.Squares = dev.AllocScalar(), dev.AllocScalar()
		}
		o.Groups = o.Groups[:0]
		for i := range o.W {
			o.Groups = append(o.Groups, tensor.AdamWGroup{LR: 0.01 * float32(i+1), WeightDecay: 0.1 * float32(i%2)})
		}
		o.Step++
		dev.SetUpdate(o)
		dev.Update(o)
	}
	for range 3 {
		step(b.gpu, gpu)
		step(b.cpu, cpu)
	}
	for i, p := range all {
		b.check(fmt.Sprint("tensor ", i), p, exact)
	}
	if math.Abs(gpu.Squares.Value/cpu.Squares.Value-1) > 1e-6 {
		t.Errorf("sum of squares %v, want %v", gpu.Squares.Value, cpu.Squares.Value)
	}
	// Nothing changes where the loss or a gradient is not finite.
	bad := b.of(tensor.Stream, []float32{float32(math.Inf(1))}, 1)
	b.gpu.AddSum(gpu.Loss, bad.gpu)
	step(b.gpu, gpu)
	for i, p := range all {
		b.check(fmt.Sprint("tensor after a bad loss ", i), p, exact)
	}
	b.gpu.ZeroScalar(gpu.Loss)
	nan := make([]float32, 7)
	nan[3] = float32(math.NaN())
	b.gpu.Write(gpu.G[1], nan)
	step(b.gpu, gpu)
	for i, p := range all {
		b.check(fmt.Sprint("tensor after a bad gradient ", i), p, exact)
	}
	b.gpu.Zero(gpu.G...)
	b.cpu.Zero(cpu.G...)
	for i := range gpu.G {
		b.check("zeroed", pair{gpu.G[i], cpu.G[i]}, 0)
	}
}
