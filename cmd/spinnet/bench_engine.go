package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"spinnet/arch"
	"spinnet/engine"
	"spinnet/interop"
	"spinnet/spinfile"
)

func init() {
	benches = append(benches, bench{"decode/d512", benchDecode}, bench{"prefill/d512", benchPrefill}, bench{"load", benchLoad})
}

// benchContextLength is the position at which decoding is measured, and the
// length of the prompt.
const benchContextLength = 256

// benchFiles are the models measured when none is named: 8 layers of width
// 512 with GPT-2's vocabulary, as compress writes them.
var benchFiles = []struct {
	algebra string
	bits    int // of the embedding
}{{"octonion", 8}, {"octonion", 4}, {"walsh", 8}}

// benchModelConfig is their shape.
func benchModelConfig(algebra string) arch.Config {
	return arch.Config{NLayer: 8, NHead: 8, NEmbd: 512, HiddenDim: 1536, BlockSize: 512, VocabSize: 50304,
		Algebra: algebra, Quantizer: arch.AbsMean, ActBits: 8}.WithDefaults()
}

// randomModel has normal latents, of which absmean makes 31 % zeros.
func randomModel(c arch.Config, tok spinfile.TokenizerInfo) (*spinfile.Model, error) {
	rng := rand.New(rand.NewPCG(1, 2))
	all := map[string][]float32{}
	for _, p := range arch.Params(c) {
		w := make([]float32, p.Len())
		std := 1 / math.Sqrt(float64(c.NEmbd))
		for i := range w {
			if w[i] = 1; p.Kind != arch.Norm {
				w[i] = float32(std * rng.NormFloat64())
			}
		}
		all[p.Name] = w
	}
	return spinfile.FromLatents(c, tok, func(name string) []float32 { return all[name] })
}

// eachModel runs a bench on the model named by --model, or in a process of
// its own for each of benchFiles, so that the memory measured is that of
// running them alone.
func eachModel(b *benchContext, run func(path string) error) error {
	if b.model != "" {
		return run(b.model)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "spinnet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, f := range benchFiles {
		m, err := randomModel(benchModelConfig(f.algebra), spinfile.TokenizerInfo{Kind: "gpt2"})
		if err != nil {
			return err
		}
		path := filepath.Join(dir, fmt.Sprintf("%s-q%d.spinnet", f.algebra, f.bits))
		data, _, err := spinfile.Encode(m.QuantizeEmbedding(f.bits))
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
		for _, threads := range b.Threads() {
			cmd := exec.Command(exe, "bench", b.name, "--json", "--model", path, "--threads", strconv.Itoa(threads))
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				return err
			}
			for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
				var r benchResult
				if err := json.Unmarshal(s.Bytes(), &r); err != nil {
					return err
				}
				if err := b.report(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// benchSession opens a model in a session.
func benchSession(path string, o engine.Options) (*engine.Engine, *engine.Session, error) {
	m, err := interop.Open(path)
	if err != nil {
		return nil, nil, err
	}
	e, err := engine.New(m, o)
	if err != nil {
		return nil, nil, err
	}
	return e, e.NewSession(), nil
}

// benchIDs are random ids of a model's own vocabulary.
func benchIDs(c arch.Config, n int) []int32 {
	rng := rand.New(rand.NewPCG(3, 4))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = rng.Int32N(int32(c.VocabSize))
	}
	return ids
}

// benchDecode is a token after benchContextLength others, drawn at the usual
// temperature, with a float cache and, in int8 numerics, with an int8 one.
func benchDecode(b *benchContext) error {
	return eachModel(b, func(path string) error {
		for _, threads := range b.Threads() {
			for _, rounded := range []bool{false, true} {
				e, s, err := benchSession(path, engine.Options{Threads: threads, Int8Cache: rounded})
				if rounded && err != nil {
					continue // a model of float numerics
				}
				if err != nil {
					return err
				}
				ms, err := decodeTime(s, benchContextLength-16)
				e.Close()
				if err != nil {
					return err
				}
				r := benchResult{Shape: filepath.Base(path) + " " + e.Numeric(), Threads: threads, Ms: ms, TokensPerS: 1e3 / ms, Context: benchContextLength}
				if rounded { // the process still has the first engine's memory
					r.Shape += " cache int8"
				} else {
					r.PeakMemoryMiB = float64(peakRSS()) / (1 << 20)
				}
				if err := b.Report(r); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// decodeTime is the median time of a token, drawn at the usual temperature, from
// position at on, in ms.
func decodeTime(s engine.Text, at int) (float64, error) {
	sampler, err := engine.NewSampler(engine.SampleOptions{Temperature: engine.DefaultTemperature}, s.Config().VocabSize)
	if err != nil {
		return 0, err
	}
	ids, one := benchIDs(s.Config(), at), make([]int32, 1)
	var times []float64
	for round := range 12 {
		s.Reset()
		if _, err := s.Prefill(ids); err != nil {
			return 0, err
		}
		for range 33 {
			start := time.Now()
			one[0] = s.Draw(sampler)
			if _, err := s.Prefill(one); err != nil {
				return 0, err
			}
			if round > 1 {
				times = append(times, time.Since(start).Seconds()*1e3)
			}
		}
	}
	return medianOf(times), nil
}

// benchPrefill is a prompt of benchContextLength tokens up to the logits
// after it.
func benchPrefill(b *benchContext) error {
	return eachModel(b, func(path string) error {
		for _, threads := range b.Threads() {
			e, s, err := benchSession(path, engine.Options{Threads: threads})
			if err != nil {
				return err
			}
			ids := benchIDs(e.Config(), benchContextLength)
			var failed error
			d, _ := b.Measure(func() {
				s.Reset()
				if _, err := s.Prefill(ids); err != nil {
					failed = err
				}
			})
			e.Close()
			if failed != nil {
				return failed
			}
			if err := b.Report(benchResult{Shape: filepath.Base(path) + " " + e.Numeric(), Threads: threads, Ms: d.Seconds() * 1e3,
				TokensPerS: benchContextLength / d.Seconds(), Context: benchContextLength, PeakMemoryMiB: float64(peakRSS()) / (1 << 20)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// benchLoad is opening and checking a file and packing its weights.
func benchLoad(b *benchContext) error {
	return eachModel(b, func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		for _, threads := range b.Threads() {
			var times []float64
			memory := 0 // after the first time: files stay mapped
			for range 15 {
				start := time.Now()
				e, _, err := benchSession(path, engine.Options{Threads: threads})
				if err != nil {
					return err
				}
				times = append(times, time.Since(start).Seconds()*1e3)
				e.Close()
				if memory == 0 {
					memory = peakRSS()
				}
			}
			slices.Sort(times)
			ms := times[len(times)/2]
			if err := b.Report(benchResult{Shape: filepath.Base(path), Threads: threads, Ms: ms,
				MBPerS: float64(info.Size()) / 1e3 / ms, PeakMemoryMiB: float64(memory) / (1 << 20)}); err != nil {
				return err
			}
		}
		return nil
	})
}
