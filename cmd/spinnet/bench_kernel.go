package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"spinnet/algebra"
	"spinnet/kernel"
)

func init() {
	benches = append(benches, bench{"gemm", benchGemm})
	for _, arm := range linearArms {
		for _, pass := range []string{"fwd", "fwdbwd"} {
			benches = append(benches, bench{"linear/" + arm + "/" + pass, func(b *benchContext) error {
				return benchLinear(b, arm, pass == "fwdbwd")
			}})
		}
	}
}

// normalFloats returns n normal values, the same every time.
func normalFloats(n int, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 0))
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// peakGFLOPS times the register-only loop for about a millisecond.
func peakGFLOPS(p *kernel.Pool) float64 {
	start := time.Now()
	flops := kernel.PeakFMA(p, 100_000)
	return flops / float64(time.Since(start).Nanoseconds())
}

func medianOf(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// inTurns times the calls one after another, round by round, with the peak
// loop between, so that all meet the same machine. It returns each call's
// median in milliseconds and mean number of allocations, and the median peak.
func inTurns(p *kernel.Pool, rounds int, calls []func()) (ms, allocs []float64, peak float64) {
	for _, f := range calls {
		f()
	}
	times := make([][]float64, len(calls))
	for i := range times {
		times[i] = make([]float64, 0, rounds)
	}
	peaks := make([]float64, 0, rounds)
	for range rounds {
		peaks = append(peaks, peakGFLOPS(p))
		for i, f := range calls {
			start := time.Now()
			f()
			times[i] = append(times[i], float64(time.Since(start).Nanoseconds())/1e6)
		}
	}
	for _, f := range calls {
		allocs = append(allocs, allocsOf(f))
	}
	for _, t := range times {
		ms = append(ms, medianOf(t))
	}
	return ms, allocs, medianOf(peaks)
}

// allocsOf is the mean number of heap allocations of a call. Counting takes
// time, so it is not done while timing.
func allocsOf(f func()) float64 {
	const calls = 3
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range calls {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / calls
}

func benchGemm(b *benchContext) error {
	const m, n, k = 4096, 512, 512
	a, w, c := normalFloats(m*k, 1), normalFloats(n*k, 2), make([]float32, m*n)
	for _, threads := range b.Threads() {
		p := kernel.NewPool(threads)
		ms, allocs, peak := inTurns(p, 51, []func(){func() { kernel.GemmNT(p, c, a, w, m, n, k, false) }})
		p.Close()
		if err := b.Report(benchResult{Shape: fmt.Sprintf("%d×%d×%d", m, n, k), Threads: threads, Ms: ms[0],
			GFLOPS: 2 * m * n * k / ms[0] / 1e6, PeakGFLOPS: peak, Allocs: &allocs[0]}); err != nil {
			return err
		}
	}
	return nil
}

// linearArms are the layers compared: one dense GEMM of the layer's outer
// shape, and the layers that replace it.
var linearArms = []string{"dense", "octonion", "walsh"}

const linearRows = 4096 // tokens

// linearMedians are the medians of one shape and thread count: for each arm
// the forward, and forward with backward, in milliseconds and allocations.
type linearMedians struct {
	fwd, fwdbwd map[string][2]float64
	peak        float64
}

// linearMeasured keeps them, for all arms are measured in turns at once.
var linearMeasured = map[[3]int]*linearMedians{}

func benchLinear(b *benchContext, arm string, backward bool) error {
	for _, shape := range [][2]int{{512, 512}, {512, 1408}} {
		for _, threads := range b.Threads() {
			key := [3]int{shape[0], shape[1], threads}
			med := linearMeasured[key]
			if med == nil {
				var err error
				if med, err = measureLinear(shape[0], shape[1], threads); err != nil {
					return err
				}
				linearMeasured[key] = med
			}
			call, products := med.fwd[arm], 1.0
			if backward {
				call, products = med.fwdbwd[arm], 3
			}
			ms, allocs := call[0], call[1]
			if err := b.Report(benchResult{Shape: fmt.Sprintf("%d rows, %d→%d", linearRows, shape[0], shape[1]), Threads: threads, Ms: ms,
				GFLOPS:     products * 2 * linearRows * float64(shape[0]*shape[1]) / ms / 1e6,
				TokensPerS: linearRows / ms * 1e3, PeakGFLOPS: med.peak, Allocs: &allocs}); err != nil {
				return err
			}
		}
	}
	return nil
}

// measureLinear times every arm. A layer's forward quantises and packs its
// weights each time; so does the dense GEMM pack its own.
func measureLinear(in, out, threads int) (*linearMedians, error) {
	p := kernel.NewPool(threads)
	defer p.Close()
	const m = linearRows
	x, dy := normalFloats(m*in, 1), normalFloats(m*out, 2)
	y, dx := make([]float32, m*out), make([]float32, m*in)
	var calls []func()
	for _, arm := range linearArms {
		if arm == "dense" {
			w, dw := normalFloats(out*in, 3), make([]float32, out*in)
			calls = append(calls,
				func() { kernel.GemmNT(p, y, x, w, m, out, in, false) },
				func() {
					kernel.GemmNT(p, y, x, w, m, out, in, false)
					kernel.GemmNN(p, dx, dy, w, m, in, out, false)
					kernel.GemmTN(p, dw, dy, x, out, in, m, false)
				})
			continue
		}
		t, err := algebra.ByName(arm)
		if err != nil {
			return nil, err
		}
		outPart, inPart := out/t.N, in/t.N
		w := normalFloats(t.N*outPart*inPart, 3)
		q, dw, scale := make([]float32, len(w)), make([]float32, len(w)), make([]float32, outPart)
		layer := kernel.NewLinear(t, outPart, inPart, false)
		forward := func() {
			gamma := max(float32(kernel.AbsSum(w)/float64(len(w))), 1e-8)
			kernel.QuantizeAbsMean(q, w, gamma)
			for i := range scale {
				scale[i] = gamma
			}
			layer.Pack(p, q, scale)
			layer.Forward(p, y, x, m)
		}
		calls = append(calls, forward, func() {
			forward()
			layer.PackBackward(p, q, scale)
			layer.BackwardInput(p, dx, dy, m, false)
			layer.BackwardWeight(p, dw, dy, x, m, false)
		})
	}
	ms, allocs, peak := inTurns(p, 15, calls)
	r := &linearMedians{map[string][2]float64{}, map[string][2]float64{}, peak}
	for i, arm := range linearArms {
		r.fwd[arm], r.fwdbwd[arm] = [2]float64{ms[2*i], allocs[2*i]}, [2]float64{ms[2*i+1], allocs[2*i+1]}
	}
	return r, nil
}
