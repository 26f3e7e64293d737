//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	_ "embed"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"spinnet/algebra"
	"spinnet/tensor"
)

//go:embed testdata/products.txt
var productList string

// modelProducts are the products of products.txt, by name.
func modelProducts(t testing.TB) (names []string, ps []product) {
	for line := range strings.Lines(productList) {
		if line[0] == '#' {
			continue
		}
		var name, kindName, shared, result string
		p := product{splits: 1}
		if _, err := fmt.Sscan(line, &name, &kindName, &p.m, &p.n, &p.k, &p.batch, &p.chain, &shared, &result); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		p.kind = kind(slices.Index([]string{"nt", "nn", "tn"}, kindName))
		p.float = result == "f32"
		p.lda, p.ldb, p.ldc = p.k, p.n, p.n
		if p.kind == tn {
			p.lda = p.m
		}
		if p.kind == nt {
			p.ldb = p.k
		}
		if p.batch*p.chain > 1 {
			p.strideA, p.strideB, p.strideC = p.m*p.k, p.n*p.k, p.m*p.n
		}
		switch shared {
		case "A":
			p.strideA = 0
		case "B":
			p.strideB = 0
		}
		names, ps = append(names, name), append(ps, p)
	}
	return names, ps
}

//go:embed testdata/products_h100.txt
var measuredProducts string

// TestVariants: of our variants the one chosen took at most 15 % longer than the
// quickest when they were measured, and all choices together 3 %.
func TestVariants(t *testing.T) {
	measured := map[string]map[string]float64{}
	for line := range strings.Lines(measuredProducts) {
		if f := strings.Fields(line); f[0] != "#" {
			times := map[string]float64{}
			for _, pair := range f[1:] {
				variant, us, _ := strings.Cut(pair, "=")
				var err error
				if times[variant], err = strconv.ParseFloat(us, 64); err != nil {
					t.Fatal(err)
				}
			}
			measured[f[0]] = times
		}
	}
	d := &Device{gpu: &gpu{multi: 132}, forced: variants}
	names, ps := modelProducts(t)
	var all, least float64
	for i, p := range ps {
		if p.kind == tn {
			d.split(&p)
		}
		v := d.variantOf(p)
		took, best, which := 0.0, math.Inf(1), ""
		for key, us := range measured[names[i]] {
			if key == fmt.Sprintf("%s/%d", variantNames[v], p.splits) {
				took = us
			}
			if us < best && !strings.HasPrefix(key, variantNames[library]) {
				best, which = us, key
			}
		}
		if took == 0 {
			t.Logf("%s: %s/%d was not measured, %s took %.1f", names[i], variantNames[v], p.splits, which, best)
			continue
		}
		if all, least = all+took, least+best; took > 1.15*best {
			t.Errorf("%s: %s/%d took %.1f microseconds, %s %.1f (model: %.1f)", names[i], variantNames[v], p.splits, took, which, best, d.cost(p, v))
		}
	}
	if all > 1.03*least {
		t.Errorf("%.1f microseconds together, at best %.1f", all, least)
	}
}

// TestProducts: every variant gives the product, and the same bits twice.
func TestProducts(t *testing.T) {
	d := needDevice(t)
	r := tensor.MakeRandom(tensor.Key{Seed: testSeed})
	random := func(n int) (uintptr, []float32) {
		x, bits := make([]float32, n), make([]uint16, n)
		for i := range x {
			bits[i] = bf16(float32(r.Normal()))
			x[i] = math.Float32frombits(uint32(bits[i]) << 16)
		}
		return d.constant(bytesOf(bits)), x
	}
	for _, c := range []struct {
		kind                        kind
		float                       bool
		m, n, k, batch, chain, cuts int
		add                         bool
	}{
		{nt, false, 130, 200, 72, 1, 1, 1, false}, {nt, true, 33, 168, 512, 2, 1, 1, true}, {nt, false, 300, 320, 136, 3, 1, 1, true},
		{nn, false, 130, 328, 256, 1, 1, 1, true}, {nn, true, 65, 72, 520, 1, 1, 1, false}, {nn, false, 129, 160, 128, 1, 3, 1, true},
		{tn, true, 200, 168, 300, 1, 1, 1, false}, {tn, true, 72, 136, 1000, 3, 1, 4, false}, {tn, true, 136, 264, 77, 1, 1, 1, true},
	} {
		p := product{kind: c.kind, float: c.float, m: c.m, n: c.n, k: c.k, lda: c.k, ldb: c.n, ldc: c.n, batch: c.batch, chain: c.chain, splits: c.cuts, add: c.add}
		if p.kind == tn {
			p.lda = p.m
		}
		if p.kind == nt {
			p.ldb = p.k
		}
		many := p.batch * p.chain
		p.strideA, p.strideB, p.strideC = p.m*p.k, p.n*p.k, p.m*p.n
		var a, b, old []float32
		p.a, a = random(many * p.strideA)
		p.b, b = random(many * p.strideB)
		_, old = random(p.batch * p.strideC)
		want, size := make([]float32, p.batch*p.strideC), 2
		if p.float {
			size = 4
		}
		for i := range want {
			z, row, col, sum := i/p.strideC, i/p.n%p.m, i%p.n, 0.0
			for q := z * p.chain; q < (z+1)*p.chain; q++ {
				for k := range p.k {
					x, y := q*p.strideA+row*p.k+k, q*p.strideB+k*p.n+col
					if p.kind == tn {
						x = q*p.strideA + k*p.m + row
					}
					if p.kind == nt {
						y = q*p.strideB + col*p.k + k
					}
					sum += float64(a[x]) * float64(b[y])
				}
			}
			if want[i] = float32(sum); p.add {
				want[i] += old[i]
			}
		}
		typ := tensor.BFloat16
		if p.float {
			typ = tensor.Float32
		}
		out := d.Slice(d.Alloc(p.splits*len(want)), 0, typ, p.splits*len(want))
		p.c = out.Addr
		for v := range variants {
			if !d.can(v, p) {
				continue
			}
			d.forced = v
			var runs [2][]float32
			for i := range runs {
				if p.add {
					d.Write(out, old)
				} else {
					d.do(cuMemsetD8Async, out.Addr, 0xff, uintptr(size*out.Len()), d.stream)
				}
				d.gemm(p)
				runs[i] = make([]float32, out.Len())
				d.Read(runs[i], out)
			}
			if err := d.Sync(); err != nil {
				t.Fatalf("%v %s: %v", c, variantNames[v], err)
			}
			if !slices.Equal(runs[0], runs[1]) {
				t.Errorf("%v %s: two runs differ", c, variantNames[v])
			}
			got := runs[0][:len(want)]
			for i := len(want); i < out.Len(); i++ {
				got[i%len(want)] += runs[0][i]
			}
			if e := distance(got, want); !(e <= rounded) {
				t.Errorf("%v %s: relative distance %.3g, want at most %.3g", c, variantNames[v], e, rounded)
			}
		}
		d.forced = variants
	}
	if d.blas == nil {
		t.Log(loadCuBLAS())
	}
}

// BenchmarkProducts times every variant of the products that the models of
// docs/benchmarks-gpu.md need, those of weights' gradients with several splits and
// with the fold after them: microseconds, in medians of graphs that go round
// operands larger than the L2 cache. The variant that is chosen comes first.
func BenchmarkProducts(b *testing.B) {
	d := needDevice(b)
	const size = 1600 << 20
	pool, random := d.malloc(size), make([]uint16, 1<<20)
	r := tensor.MakeRandom(tensor.Key{Seed: testSeed})
	for i := range random {
		random[i] = bf16(float32(r.Normal()))
	}
	for at := 0; at < size; at += 2 << 20 {
		d.upload(pool+uintptr(at), unsafe.Pointer(&random[0]), 2<<20)
	}
	octonion, err := algebra.ByName("octonion")
	if err != nil {
		b.Fatal(err)
	}
	signs := d.signsOf(&tensor.Weight{Algebra: octonion})
	const results = 700 << 20
	out, gradient := d.malloc(results), d.malloc(4*50304*1280)
	names, ps := modelProducts(b)
	for i, p := range ps {
		chosen := p
		if p.kind == tn {
			d.split(&chosen)
		}
		b.Run(names[i], func(b *testing.B) {
			time := func(v variant, splits int) float64 {
				p := p
				p.splits = splits
				if !d.can(v, p) {
					return 0
				}
				d.forced = v
				defer func() { d.forced = variants }()
				a := per(2*p.m*p.k*max(1, flagInt(p.strideA != 0)*p.batch*p.chain), 256) * 256
				c := per(2*p.n*p.k*max(1, flagInt(p.strideB != 0)*p.batch*p.chain), 256) * 256
				sets := max(1, min(6, size/(a+c), 1+200<<20/(a+c)))
				n := 0
				each := func() {
					at := pool + uintptr(n%sets*(a+c))
					n++
					q := p
					q.a, q.b, q.c = at, at+uintptr(a), out
					head := strings.Contains(names[i], "head")
					q.add = head && p.kind == tn && splits == 1
					q.strideC = p.m * p.n
					d.gemm(q)
					switch {
					case p.kind != tn || q.add:
					case head:
						d.fold([foldedMost]uint64{uint64(gradient)}, 1, out, d.rank1, 1, p.m, p.n, splits, q.strideC, false)
					default:
						g := uint64(gradient)
						d.fold([foldedMost]uint64{g, g + 1<<26, g + 2<<26}, p.batch, out, signs, 8, p.m/8, p.n/8, splits, p.batch*q.strideC, false)
					}
				}
				return d.microseconds(b, each)
			}
			report := func(v variant, splits int) {
				if p.splits = splits; d.can(v, p) {
					b.ReportMetric(time(v, splits), fmt.Sprintf("%s/%d", variantNames[v], splits))
				}
			}
			b.ReportMetric(0, "ns/op")
			for b.Loop() {
			}
			fastest := d.variantOf(chosen)
			b.ReportMetric(time(fastest, max(1, chosen.splits)), fmt.Sprintf("chosen-%s/%d", variantNames[fastest], chosen.splits))
			for v := range variants {
				if p.kind != tn {
					report(v, 1)
					continue
				}
				for _, splits := range []int{1, 2, 3, 4, 5, 8} {
					if 4*splits*p.m*p.n*p.batch <= results && p.m*p.n*splits <= 1<<27 {
						report(v, splits)
					}
				}
			}
		})
	}
}

func flagInt(b bool) int { return int(flag(b)) }

// microseconds is the time of f, which launches: medians of nine runs of a graph of
// eight.
func (d *Device) microseconds(b *testing.B, f func()) float64 {
	f()
	d.join() // a graph cannot wait for what came before it
	graph := d.capture(func() {
		for range 8 {
			f()
		}
		d.join()
	})
	d.do(cuEventCreate, d.result(), 0)
	start := uintptr(d.out[0])
	d.do(cuEventCreate, d.result(), 0)
	stop := uintptr(d.out[0])
	var all []float64
	for range 10 {
		d.do(cuEventRecord, start, d.stream)
		d.do(cuGraphLaunch, graph, d.stream)
		d.do(cuEventRecord, stop, d.stream)
		d.do(cuEventSynchronize, stop)
		d.do(cuEventElapsedTime, d.result(), start, stop)
		all = append(all, 1000*float64(*(*float32)(unsafe.Pointer(&d.out[0])))/8)
	}
	d.do(cuEventDestroy, start)
	d.do(cuEventDestroy, stop)
	d.do(cuGraphExecDestroy, graph)
	if d.err != nil {
		b.Fatal(d.err)
	}
	slices.Sort(all[1:])
	return all[5]
}

// BenchmarkLayers times whole layers in microseconds: quantising and expanding
// the weight, forward, the two together (inference: without the matrices of the
// backward), backward, and all of a training step's work but the optimiser's.
// Inputs and outputs go round three sets.
func BenchmarkLayers(b *testing.B) {
	normals, r := make([]float32, 1_000_003), tensor.MakeRandom(tensor.Key{Seed: testSeed})
	for i := range normals {
		normals[i] = float32(r.Normal())
	}
	for _, c := range []struct {
		alg             string
		tokens, in, out int
		other           bool // the form that is not chosen
	}{
		{"octonion", 16384, 512, 512, false}, {"octonion", 16384, 512, 1408, false}, {"octonion", 16384, 1408, 512, false},
		{"octonion", 8192, 1280, 1280, false}, {"octonion", 8192, 1280, 1280, true}, {"octonion", 8192, 2048, 2048, false}, {"octonion", 8192, 2048, 2048, true},
		{"octonion", 8192, 4096, 4096, false}, {"octonion", 8192, 4096, 4096, true},
		{"walsh", 16384, 512, 512, false}, {"walsh", 16384, 512, 512, true}, {"walsh", 16384, 512, 1408, false}, {"walsh", 16384, 512, 1408, true},
		{"walsh", 16384, 1408, 512, false}, {"walsh", 16384, 1408, 512, true}, {"walsh", 8192, 1280, 1280, false}, {"walsh", 8192, 1280, 1280, true},
		{"walsh", 8192, 4096, 4096, false},
	} {
		name := fmt.Sprintf("%s %d×%d→%d", c.alg, c.tokens, c.in, c.out)
		if c.other {
			name += " other"
		}
		b.Run(name, func(b *testing.B) {
			d := needDevice(b)
			if c.other {
				if d.fusedMost = 0; d.octonionFrom <= c.in {
					d.octonionFrom = 1 << 20
				} else {
					d.octonionFrom = 0
				}
			}
			random := func(t *tensor.Tensor) *tensor.Tensor {
				x := make([]float32, t.Len())
				for i := 0; i < len(x); i += copy(x[i:], normals) {
				}
				d.Write(t, x)
				return t
			}
			table, err := algebra.ByName(c.alg)
			if err != nil {
				b.Fatal(err)
			}
			w := tensor.NewWeight(d, table, "absmean", c.out/8, c.in/8, false, true)
			random(w.W)
			random(w.Beta)
			ws := []*tensor.Weight{w}
			var x, y, dx, dy [3]*tensor.Tensor
			for i := range x {
				half := func(width int) *tensor.Tensor {
					return random(d.Slice(d.Alloc(c.tokens*width/2), 0, tensor.BFloat16, c.tokens, width))
				}
				x[i], y[i], dx[i], dy[i] = half(c.in), half(c.out), half(c.in), half(c.out)
			}
			n := 0
			refresh := func() { d.Refresh(ws, true) }
			forward := func() { n++; d.Linear(y[n%3:n%3+1], x[n%3], ws) }
			d.Refresh(ws, false) // what the forward needs alone
			inference := d.microseconds(b, func() { d.Refresh(ws, false); forward() })
			backward := func() { d.LinearBackward(dx[n%3], false, dy[n%3:n%3+1], x[n%3], ws) }
			refresh()
			for b.Loop() {
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(inference, "inference")
			b.ReportMetric(d.microseconds(b, refresh), "refresh")
			b.ReportMetric(d.microseconds(b, forward), "forward")
			b.ReportMetric(d.microseconds(b, func() { refresh(); forward() }), "refresh+forward")
			b.ReportMetric(d.microseconds(b, func() { n++; backward() }), "backward")
			b.ReportMetric(d.microseconds(b, func() { refresh(); forward(); backward(); d.FinishGradients(ws) }), "all")
		})
	}
}
