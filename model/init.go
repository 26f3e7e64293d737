package model

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"spinnet/arch"
	"spinnet/tensor"
)

// Initialisations of a new model.
const (
	// InitClassic is the original's: linear latents U(−1, 1), beta 0.1, mixer
	// N(0, 0.02) with beta 0.1.
	InitClassic = "classic"
	// InitScaled keeps the variance of activations: linear latents and mixer
	// N(0, 1/√fan_in) with fan_in = n·K, betas 1.
	InitScaled = "scaled"
)

// Init fills the parameters from a seed, by InitClassic or InitScaled; another
// scheme is an error. Both draw the embedding from N(0, 0.02) and set norms to
// 1. The values do not depend on the device.
func (m *Model) Init(scheme string, seed uint64) error {
	if scheme != InitClassic && scheme != InitScaled {
		return fmt.Errorf("model: unknown initialisation %q, want classic or scaled", scheme)
	}
	for site, p := range m.Params {
		x := make([]float32, p.Len())
		key := tensor.Key{Seed: seed, Site: tensor.SiteInit, Layer: uint32(site)}
		fanIn := 1
		for i, d := range p.Shape {
			if i != outputAxis(p.Kind) {
				fanIn *= d
			}
		}
		switch {
		case p.Kind == arch.Norm:
			fill(x, key, func(*tensor.Random) float64 { return 1 })
		case p.Kind == arch.Embedding:
			fill(x, key, func(r *tensor.Random) float64 { return 0.02 * r.Normal() })
		case p.Kind == arch.Beta || p.Kind == arch.MixerBeta:
			beta := 1.0
			if scheme == InitClassic {
				beta = 0.1
			}
			fill(x, key, func(*tensor.Random) float64 { return beta })
		case p.Kind == arch.MixerWeight && scheme == InitClassic:
			fill(x, key, func(r *tensor.Random) float64 { return 0.02 * r.Normal() })
		case scheme == InitClassic:
			fill(x, key, func(r *tensor.Random) float64 { return 2*r.Uniform() - 1 })
		default:
			std := 1 / math.Sqrt(float64(fanIn))
			fill(x, key, func(r *tensor.Random) float64 { return std * r.Normal() })
		}
		m.Device.Write(p.Value, x)
	}
	return nil
}

// outputAxis is the axis of a weight's shape that fan-in leaves out.
func outputAxis(k arch.Kind) int {
	if k == arch.MixerWeight {
		return 2
	}
	return 1
}

// fill sets x to a function of the numbers of a stream, one for each value, on
// all CPUs: a hundred million normal numbers take one of them half a minute.
func fill(x []float32, key tensor.Key, value func(*tensor.Random) float64) {
	const share = 1 << 16
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (len(x)+share-1)/share) {
		all.Go(func() {
			for {
				from := int(next.Add(share)) - share
				if from >= len(x) {
					return
				}
				r := tensor.MakeRandom(key)
				r.Skip(uint64(from))
				for i := range x[from:min(from+share, len(x))] {
					x[from+i] = float32(value(&r))
				}
			}
		})
	}
	all.Wait()
}
