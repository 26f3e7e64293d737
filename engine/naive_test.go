package engine

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"spinnet/algebra"
	"spinnet/arch"
	"spinnet/kernel"
	"spinnet/spinfile"
)

// randomModel makes a model of random latents.
func randomModel(t testing.TB, c arch.Config, seed uint64) *spinfile.Model {
	t.Helper()
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	all := map[string][]float32{}
	for _, p := range arch.Params(c) {
		w := make([]float32, p.Len())
		for i := range w {
			// Nearly normal, and the same on every machine.
			x := float32((rng.Float64() + rng.Float64() + rng.Float64() + rng.Float64() - 2) * 1.75)
			switch p.Kind {
			case arch.Embedding:
				w[i] = x
			case arch.Norm:
				w[i] = 1 + float32(0.1*x)
			case arch.Beta, arch.MixerBeta:
				w[i] = 0.3 * x
			default:
				w[i] = x / float32(math.Sqrt(float64(c.NEmbd)))
				if c.Quantizer == arch.Classic {
					w[i] = x
				}
			}
		}
		all[p.Name] = w
	}
	m, err := spinfile.FromLatents(c, spinfile.TokenizerInfo{}, func(n string) []float32 { return all[n] })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func randomIDs(n, vocab int, seed uint64) []int32 {
	rng := rand.New(rand.NewPCG(seed, 2))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = rng.Int32N(int32(vocab))
	}
	return ids
}

// naive computes the logits after each of ids from SPEC §1–3 in float64,
// without a cache: every token attends the last block_size tokens.
func naive(t testing.TB, m *spinfile.Model, ids []int32) [][]float32 {
	t.Helper()
	return naiveRounded(t, m, ids, false)
}

// naiveRounded is naive or, rounded, that with all the roundings of int8
// numerics (SPEC §7).
func naiveRounded(t testing.TB, m *spinfile.Model, ids []int32, rounded bool) [][]float32 {
	t.Helper()
	if rounded {
		q := *m.Quantize()
		q.Tensors = slices.Clone(q.Tensors)
		for i := range q.Tensors {
			if w := &q.Tensors[i]; w.Int8 != nil {
				w.Data, w.Int8 = w.Floats(), nil
			}
		}
		m = &q
	}
	// round8 rounds a row to int8 levels, where asked for.
	round8 := func(x []float64, asked bool) []float64 {
		if !asked {
			return x
		}
		x = slices.Clone(x)
		a := 0.0
		for _, v := range x {
			a = max(a, math.Abs(v))
		}
		for i, v := range x {
			if a > 0 {
				x[i] = a / 127 * math.RoundToEven(v*(127/a))
			}
		}
		return x
	}
	c := m.Config
	d, hd := c.NEmbd, c.HeadDim()
	get := func(name string) *spinfile.Tensor { return m.Tensor(name) }
	// apply computes a hypercomplex layer (transposed = false) or mixer.
	apply := func(w *spinfile.Tensor, scale []float32, x []float64, transposed bool) []float64 {
		alg, err := algebra.ByName(w.Algebra)
		if err != nil {
			t.Fatal(err)
		}
		n, rows, cols := w.Shape[0], w.Shape[1], w.Shape[2]
		out, in := rows, cols
		if transposed {
			out, in = cols, rows
		}
		var y []float64
		for len(x) > 0 {
			part := make([]float64, n*out)
			for i := range n {
				for j := range n {
					for r := range out {
						for k := range in {
							at := ((i^j)*rows+r)*cols + k
							if transposed {
								at = ((i^j)*rows+k)*cols + r
							}
							v := 0.0
							if w.Trits != nil {
								v = float64(w.Trits[at])
							} else {
								v = float64(w.Data[at])
							}
							part[i*out+r] += float64(alg.Sign[i][j]) * x[j*in+k] * v
						}
					}
				}
			}
			for i := range part {
				if scale != nil {
					part[i] *= float64(scale[i%out])
				}
			}
			y = append(y, part...)
			x = x[n*in:]
		}
		return y
	}
	linear := func(name string, x []float64) []float64 {
		w := get(name)
		x = round8(x, c.ActBits == 8 || rounded)
		return apply(w, w.Scale, x, false)
	}
	norm := func(x []float64, w []float32) []float64 {
		ms := 0.0
		for _, v := range x {
			ms += v * v
		}
		r := 1 / math.Sqrt(ms/float64(len(x))+arch.NormEps)
		y := make([]float64, len(x))
		for i := range x {
			y[i] = x[i] * r * float64(w[i])
		}
		return y
	}
	rotate := func(x []float64, p int) {
		for i := 0; i < len(x); i += 2 {
			a := float64(p) * math.Pow(arch.RopeTheta, -float64(i%hd)/float64(hd))
			s, co := math.Sincos(a)
			x[i], x[i+1] = x[i]*co-x[i+1]*s, x[i]*s+x[i+1]*co
		}
	}
	add := func(x, y []float64) {
		for i := range x {
			x[i] += y[i]
		}
	}
	emb := get("tok_embeddings.weight").Data
	h := make([][]float64, len(ids))
	for p, id := range ids {
		for _, v := range emb[int(id)*d:][:d] {
			h[p] = append(h[p], float64(v))
		}
	}
	for l := range c.NLayer {
		pre := "layers." + itoa(l) + "."
		q, k, v := make([][]float64, len(ids)), make([][]float64, len(ids)), make([][]float64, len(ids))
		for p := range ids {
			z := norm(h[p], get(pre+"attention_norm.weight").Data)
			q[p], k[p], v[p] = linear(pre+"attention.wq.weight", z), linear(pre+"attention.wk.weight", z), linear(pre+"attention.wv.weight", z)
			rotate(q[p], p)
			rotate(k[p], p)
		}
		for p := range ids {
			o := make([]float64, d)
			for head := range c.NHead {
				g := head / (c.NHead / c.NKVHead)
				var weights []float64
				sum := 0.0
				first := max(0, p-c.BlockSize+1)
				for j := first; j <= p; j++ {
					dot := 0.0
					for i := range hd {
						dot += q[p][head*hd+i] * k[j][g*hd+i]
					}
					e := math.Exp(dot / math.Sqrt(float64(hd)))
					weights = append(weights, e)
					sum += e
				}
				for j, w := range weights {
					for i := range hd {
						o[head*hd+i] += w / sum * v[first+j][g*hd+i]
					}
				}
			}
			if c.OctonionAttention {
				o = apply(get(pre+"attention.head_mixer.W"), get(pre+"attention.head_mixer.beta").Data, round8(o, rounded), true)
			}
			add(h[p], linear(pre+"attention.wo.weight", o))
			z := norm(h[p], get(pre+"ffn_norm.weight").Data)
			gate, up := linear(pre+"feed_forward.gate_proj.weight", z), linear(pre+"feed_forward.up_proj.weight", z)
			for i, x := range gate {
				gate[i] = x / (1 + math.Exp(-x)) * up[i]
			}
			add(h[p], linear(pre+"feed_forward.down_proj.weight", gate))
		}
	}
	logits := make([][]float32, len(ids))
	for p := range ids {
		z := round8(norm(h[p], get("norm.weight").Data), rounded)
		for id := range c.VocabSize {
			s := 0.0
			for i, x := range z {
				s += x * float64(emb[id*d+i])
			}
			logits[p] = append(logits[p], float32(s))
		}
	}
	return logits
}

// smallModels are the variants that the fixture does not exercise.
var smallModels = []struct {
	name string
	c    arch.Config
}{
	{"two mixer groups and grouped queries", arch.Config{NLayer: 2, NHead: 16, NKVHead: 4, NEmbd: 64, HiddenDim: 48, BlockSize: 7, VocabSize: 11, Quantizer: arch.Classic, OctonionAttention: true}},
	{"walsh", arch.Config{NLayer: 2, NHead: 4, NEmbd: 32, HiddenDim: 40, BlockSize: 9, VocabSize: 17, Algebra: "walsh"}},
	{"dense with grouped queries", arch.Config{NLayer: 2, NHead: 6, NKVHead: 2, NEmbd: 24, HiddenDim: 20, BlockSize: 5, VocabSize: 13, Algebra: "real", Quantizer: arch.None}},
	{"an algebra for each layer", arch.Config{NLayer: 3, NHead: 4, NEmbd: 16, HiddenDim: 24, BlockSize: 6, VocabSize: 5, Algebra: "quaternion,complex", OctonionAttention: true, MixerAlgebra: "quaternion"}},
	{"sedenion", arch.Config{NLayer: 1, NHead: 2, NEmbd: 32, HiddenDim: 32, BlockSize: 4, VocabSize: 6, Algebra: "sedenion"}},
	{"several chunks to a window", arch.Config{NLayer: 1, NHead: 1, NEmbd: 8, HiddenDim: 8, BlockSize: 131, VocabSize: 9, Algebra: "octonion"}},
	{"a cache that grows", arch.Config{NLayer: 1, NHead: 2, NEmbd: 8, HiddenDim: 8, BlockSize: 300, VocabSize: 9, Algebra: "complex"}},
	{"one token of context", arch.Config{NLayer: 1, NHead: 1, NEmbd: 8, HiddenDim: 8, BlockSize: 1, VocabSize: 3, Algebra: "real"}},
	{"a vocabulary of several blocks", arch.Config{NLayer: 1, NHead: 1, NEmbd: 8, HiddenDim: 8, BlockSize: 4, VocabSize: 2*headBlock + 3, Algebra: "real"}},
	{"int8 activations", arch.Config{NLayer: 1, NHead: 4, NEmbd: 32, HiddenDim: 32, BlockSize: 8, VocabSize: 7, Algebra: "walsh", ActBits: 8}},
}

// TestAgainstDefinition reads texts of over twice the context length in one
// piece, in odd pieces, and token by token.
func TestAgainstDefinition(t *testing.T) {
	for _, c := range smallModels {
		t.Run(c.name, func(t *testing.T) {
			m := randomModel(t, c.c, 7)
			e := newEngine(t, m, 2)
			ids := randomIDs(2*c.c.BlockSize+6, c.c.VocabSize, 3)
			want := naive(t, m, ids)
			tolerance := 5e-6
			if c.c.ActBits == 8 {
				tolerance = 2e-2 // a value near a half may round the other way
			}
			check := func(how string, p int, got []float32) {
				t.Helper()
				if rel := relL2(got, want[p]); !(rel <= tolerance) {
					t.Errorf("%s, position %d: relative error %.2g", how, p, rel)
				}
			}
			s := e.NewSession()
			for p, id := range ids {
				check("step", p, s.Step(id))
			}
			if s.Pos() != len(ids) {
				t.Errorf("position %d, want %d", s.Pos(), len(ids))
			}
			s.Reset()
			got, err := s.Prefill(ids)
			if err != nil {
				t.Fatal(err)
			}
			check("whole", len(ids)-1, got)
			s.Reset()
			for at, n := 0, 1; at < len(ids); at, n = at+n, n%5+1 {
				n = min(n, len(ids)-at)
				if got, err = s.Prefill(ids[at : at+n]); err != nil {
					t.Fatal(err)
				}
				check("pieces", at+n-1, got)
			}
		})
	}
}

// TestScoreWindows checks windows, shift and the last logits of Score.
func TestScoreWindows(t *testing.T) {
	for _, c := range smallModels[1:3] {
		m := randomModel(t, c.c, 9)
		e := newEngine(t, m, 2)
		block := c.c.BlockSize
		for _, n := range []int{2, block, block + 1, block + 2, 3*block + 3} {
			ids := randomIDs(n, c.c.VocabSize, 5)
			got, err := e.Score(context.Background(), ids, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got.Tokens != n-1 || len(got.LogProbs) != n-1 {
				t.Fatalf("%d ids: %d tokens, %d log-probabilities", n, got.Tokens, len(got.LogProbs))
			}
			mean := 0.0
			for at := 0; at < n-1; at += block {
				end := min(n-1, at+block)
				logits := naive(t, m, ids[at:end])
				for i, l := range logits {
					sum := 0.0
					for _, v := range l {
						sum += math.Exp(float64(v))
					}
					want := float64(l[ids[at+i+1]]) - math.Log(sum)
					mean -= want / float64(n-1)
					if math.Abs(float64(got.LogProbs[at+i])-want) > 2e-5 {
						t.Errorf("%d ids: log-probability %d is %v, want %v", n, at+i, got.LogProbs[at+i], want)
					}
				}
				if end == n-1 && relL2(got.Logits, logits[len(logits)-1]) > 5e-6 {
					t.Errorf("%d ids: wrong last logits", n)
				}
			}
			if math.Abs(got.Loss-mean) > 2e-5 {
				t.Errorf("%d ids: loss %v, want %v", n, got.Loss, mean)
			}
		}
	}
}

func TestThreadsAgree(t *testing.T) {
	m := randomModel(t, smallModels[0].c, 1)
	ids := randomIDs(40, 11, 1)
	var want []float32
	for _, threads := range []int{1, 2, 5} {
		s := newEngine(t, m, threads).NewSession()
		got, err := s.Prefill(ids)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = append(want, got...)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("%d threads: logit %d is %v, want %v", threads, i, got[i], want[i])
			}
		}
	}
}

func TestRotations(t *testing.T) {
	s := newEngine(t, randomModel(t, smallModels[0].c, 1), 1).NewSession()
	cos, sin := kernel.RoPETable(100, s.e.config.HeadDim())
	half := len(s.e.frequencies)
	c, sn := make([]float32, half), make([]float32, half)
	for s.pos < 100 {
		s.rotations(c, sn, 1)
		if !slices.Equal(c, cos[s.pos*half:(s.pos+1)*half]) || !slices.Equal(sn, sin[s.pos*half:(s.pos+1)*half]) {
			t.Fatalf("position %d differs from the kernel's table", s.pos)
		}
		s.pos++
	}
}

func TestSessionsTakeTurns(t *testing.T) {
	m := randomModel(t, smallModels[0].c, 1)
	e := newEngine(t, m, 2)
	ids := randomIDs(20, 11, 1)
	first, err := e.NewSession().Prefill(ids)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s := e.NewSession()
			for _, id := range ids {
				s.Step(id)
			}
			s.Reset()
			if got, err := s.Prefill(ids); err != nil || relL2(got, first) > 1e-6 {
				t.Errorf("sessions disturb each other: %v", err)
			}
		})
	}
	wg.Wait()
}

// TestLongContext opens a session of a model that claims a huge context: its
// memory comes with the text.
func TestLongContext(t *testing.T) {
	c := smallModels[0].c
	c.BlockSize = 1 << 24
	s := newEngine(t, randomModel(t, c, 1), 1).NewSession()
	if _, err := s.Prefill(randomIDs(300, 11, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestBadInput(t *testing.T) {
	m := randomModel(t, smallModels[2].c, 1)
	s := newEngine(t, m, 1).NewSession()
	for _, c := range []struct {
		ids  []int32
		want string
	}{
		{nil, "nothing to read"},
		{[]int32{1, 13}, "token id 13 at place 1 is outside the vocabulary of 13"},
		{[]int32{-1}, "token id -1"},
	} {
		if _, err := s.Prefill(c.ids); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want %q", c.ids, err, c.want)
		}
		if s.Pos() != 0 {
			t.Error("a refused prompt was read in part")
		}
	}
	e := s.Engine()
	for _, ids := range [][]int32{nil, {1}, {1, 99}} {
		if _, err := e.Score(context.Background(), ids, nil); err == nil {
			t.Errorf("scoring %v: no error", ids)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.Score(ctx, []int32{1, 2}, nil); err != context.Canceled {
		t.Errorf("cancelled score: got %v", err)
	}
	m.Tensors[1].Data = m.Tensors[1].Data[1:]
	if _, err := New(m, Options{}); err == nil {
		t.Error("a model with a short tensor was accepted")
	}
}

func TestStepAllocates(t *testing.T) {
	for _, numeric := range []string{Float, Int8} {
		t.Run(numeric, func(t *testing.T) { stepAllocates(t, numeric) })
	}
}

func stepAllocates(t *testing.T, numeric string) {
	c := smallModels[0].c
	c.ActBits = 8
	e, err := New(randomModel(t, c, 1), Options{Threads: 2, Numeric: numeric})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s := e.NewSession()
	sampler, err := NewSampler(SampleOptions{Temperature: 0.8, TopK: 5, TopP: 0.9, RepetitionPenalty: 1.1}, c.VocabSize)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(50, func() { sampler.Accept(sampler.Next(s.Step(1))) }); n != 0 {
		t.Errorf("%v allocations a token", n)
	}
}

// BenchmarkDecode is one token at the middle of the context.
func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct {
		algebra string
		vocab   int
	}{{"octonion", 65}, {"walsh", 65}, {"walsh", 50304}, {"real", 65}} {
		b.Run(c.algebra+"/"+itoa(c.vocab), func(b *testing.B) {
			s := newEngine(b, bigModel(b, c.algebra, c.vocab), 2).NewSession()
			if _, err := s.Prefill(randomIDs(256, c.vocab, 1)); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Step(1)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tok/s")
		})
	}
}

// BenchmarkPrefill is a prompt of 256 tokens.
func BenchmarkPrefill(b *testing.B) {
	for _, algebra := range []string{"octonion", "walsh"} {
		b.Run(algebra, func(b *testing.B) {
			s := newEngine(b, bigModel(b, algebra, 65), 2).NewSession()
			ids := randomIDs(256, 65, 1)
			for b.Loop() {
				s.Reset()
				if _, err := s.Prefill(ids); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(256*float64(b.N)/b.Elapsed().Seconds(), "tok/s")
		})
	}
}

// bigModel has 8 layers of width 512.
func bigModel(b *testing.B, algebra string, vocab int) *spinfile.Model {
	return randomModel(b, arch.Config{NLayer: 8, NHead: 8, NEmbd: 512, HiddenDim: 1536, BlockSize: 512, VocabSize: vocab, Algebra: algebra}, 1)
}
