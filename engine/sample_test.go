package engine

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"spinnet/kernel"
)

func newSampler(t testing.TB, o SampleOptions, vocab int) *Sampler {
	t.Helper()
	s, err := NewSampler(o, vocab)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// allowed is the definition of top-k, top-p and min-p by sorting: the ids
// that may be drawn, with their probabilities.
func allowed(o SampleOptions, logits []float32) map[int32]float64 {
	ids := make([]int32, len(logits))
	weight := make([]float64, len(logits))
	top := slices.Max(logits)
	for i := range ids {
		ids[i] = int32(i)
		weight[i] = math.Exp(float64((logits[i] - top) / float32(o.Temperature)))
	}
	slices.SortStableFunc(ids, func(a, b int32) int {
		switch {
		case logits[a] > logits[b]:
			return -1
		case logits[a] < logits[b]:
			return 1
		}
		return 0
	})
	if o.TopK > 0 {
		ids = ids[:min(len(ids), o.TopK)]
	}
	mass := func(ids []int32) (sum float64) {
		for _, id := range ids {
			sum += weight[id]
		}
		return sum
	}
	if o.TopP > 0 && o.TopP < 1 {
		all, n := mass(ids), 1
		for n < len(ids) && mass(ids[:n]) < o.TopP*all {
			n++
		}
		ids = ids[:n]
	}
	kept := map[int32]float64{}
	for _, id := range ids {
		if weight[id] >= o.MinP {
			kept[id] = weight[id]
		}
	}
	total := 0.0
	for _, w := range kept {
		total += w
	}
	for id := range kept {
		kept[id] /= total
	}
	return kept
}

func TestSamplerDistribution(t *testing.T) {
	const draws = 20000
	rng := rand.New(rand.NewPCG(1, 1))
	for _, o := range []SampleOptions{
		{Temperature: 1},
		{Temperature: 0.5},
		{Temperature: 1, TopK: 3},
		{Temperature: 1, TopP: 0.7},
		{Temperature: 1, MinP: 0.2},
		{Temperature: 1.3, TopK: 8, TopP: 0.8, MinP: 0.05},
		{Temperature: 1, TopK: 1},
		{Temperature: 1, TopK: 100, TopP: 1},
		{Temperature: 1, TopP: 1e-9},
	} {
		logits := make([]float32, 12)
		for i := range logits {
			logits[i] = float32(math.Round(rng.NormFloat64() * 2)) // with ties
		}
		o.Seed = rng.Uint64()
		want := allowed(o, logits)
		s := newSampler(t, o, len(logits))
		counts := map[int32]float64{}
		for range draws {
			counts[s.Next(logits)]++
		}
		for id := range int32(len(logits)) {
			p := want[id]
			got := counts[id] / draws
			if p == 0 && got > 0 || math.Abs(got-p) > 5*math.Sqrt(p*(1-p)/draws) {
				t.Errorf("%+v: id %d drawn with frequency %.4f, want %.4f", o, id, got, p)
			}
		}
	}
}

// TestCandidates compares the partial selection with sorting.
func TestCandidates(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 300 {
		n := 1 + rng.IntN(200)
		logits := make([]float32, n)
		for i := range logits {
			logits[i] = float32(rng.IntN(20)) / 4
		}
		o := SampleOptions{Temperature: 0.3 + rng.Float64()}
		if rng.IntN(2) == 0 {
			o.TopK = 1 + rng.IntN(n+5)
		}
		if rng.IntN(2) == 0 {
			o.TopP = rng.Float64()
		}
		s := newSampler(t, o, n)
		got := s.candidates(logits, slices.Max(logits), 1/float32(o.Temperature))
		want := allowed(o, logits)
		if len(got) != len(want) {
			t.Errorf("%+v of %d: %d candidates, want %d", o, n, len(got), len(want))
		}
		for i, id := range got {
			if _, ok := want[id]; !ok {
				t.Errorf("%+v: candidate %d should not be", o, id)
			}
			if i > 0 && !before(logits, got[i-1], id) {
				t.Errorf("%+v: candidates out of order", o)
			}
		}
	}
}

func TestSamplerGreedy(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name   string
		logits []float32
		want   int32
	}{
		{"largest", []float32{1, 3, 2}, 1},
		{"tie", []float32{1, 3, 3}, 1},
		{"nan", []float32{nan, -1, nan}, 1},
		{"all nan", []float32{nan, nan, nan}, 0},
		{"infinity", []float32{0, inf, inf}, 1},
	} {
		for _, o := range []SampleOptions{{}, {Temperature: 1, TopK: 1}, {Temperature: 1e-30, MinP: 1, TopK: 2, TopP: 0.5}, {Temperature: 1e-60, TopK: 2}} {
			if got := newSampler(t, o, 3).Next(c.logits); got != c.want {
				t.Errorf("%s, %+v: got %d, want %d", c.name, o, got, c.want)
			}
		}
	}
}

func TestSamplerPadding(t *testing.T) {
	s := newSampler(t, SampleOptions{Temperature: 5}, 3)
	for range 1000 {
		if id := s.Next([]float32{0, 0, 0, 100, 100}); id > 2 {
			t.Fatalf("drew the padding id %d", id)
		}
	}
}

func TestSamplerSeed(t *testing.T) {
	logits := make([]float32, 50)
	draw := func(seed uint64) (ids []int32) {
		s := newSampler(t, SampleOptions{Seed: seed, Temperature: 1}, len(logits))
		for range 20 {
			ids = append(ids, s.Next(logits))
		}
		return ids
	}
	if !slices.Equal(draw(1), draw(1)) {
		t.Error("one seed gave two texts")
	}
	if slices.Equal(draw(1), draw(2)) {
		t.Error("two seeds gave one text")
	}
}

func TestRepetitionPenalty(t *testing.T) {
	s := newSampler(t, SampleOptions{RepetitionPenalty: 2, RepetitionWindow: 2}, 4)
	logits := []float32{3, 2, 1.8, -1}
	for i, want := range []int32{0, 1, 2, 0, 1} { // each is back when it has left the window
		got := s.Next(logits)
		if got != want {
			t.Errorf("token %d: got %d, want %d", i, got, want)
		}
		s.Accept(got)
	}
	if logits[0] != 3 {
		t.Error("the logits were changed")
	}
	n := newSampler(t, SampleOptions{RepetitionPenalty: 2}, 2)
	n.Accept(0)
	n.Accept(0) // penalised once all the same
	n.Accept(7) // padding, outside what is drawn
	if got := n.Next([]float32{-1, -1.9}); got != 1 {
		t.Errorf("a negative logit: got %d, want 1", got)
	}
}

func TestSampleOptionsBad(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		o    SampleOptions
		want string
	}{
		{SampleOptions{Temperature: -1}, "temperature"},
		{SampleOptions{Temperature: nan}, "temperature"},
		{SampleOptions{Temperature: math.Inf(1)}, "temperature"},
		{SampleOptions{TopK: -1}, "top-k"},
		{SampleOptions{TopP: 1.1}, "top-p"},
		{SampleOptions{MinP: nan}, "min-p"},
		{SampleOptions{RepetitionPenalty: -1}, "penalty"},
		{SampleOptions{RepetitionWindow: -1}, "window"},
	} {
		if _, err := NewSampler(c.o, 5); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.o, err, c.want)
		}
	}
}

func BenchmarkSampler(b *testing.B) {
	logits := make([]float32, 50257)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range logits {
		logits[i] = float32(rng.NormFloat64() * 3)
	}
	for _, c := range []struct {
		name string
		o    SampleOptions
	}{{"greedy", SampleOptions{}}, {"temperature", SampleOptions{Temperature: 0.8}}, {"topk", SampleOptions{Temperature: 0.8, TopK: 40}}, {"topp", SampleOptions{Temperature: 0.8, TopP: 0.95}}} {
		b.Run(c.name, func(b *testing.B) {
			s := newSampler(b, c.o, len(logits))
			b.ReportAllocs()
			for b.Loop() {
				s.Next(logits)
			}
		})
	}
}

// summaryOf is a Summary by its definition.
func summaryOf(s *Sampler, logits []float32) (m Summary) {
	vocab, inv := s.Summarized()
	l := logits[:vocab]
	top, weight := kernel.MaxOf(l), make([]float32, SummaryBlock)
	for len(l) > 0 {
		n := min(len(l), SummaryBlock)
		most := kernel.MaxOf(l[:n])
		if kernel.HasNaN(l[:n]) {
			most = float32(math.NaN())
		}
		m.Maxima = append(m.Maxima, most)
		sum := float32(math.NaN())
		if inv != 0 {
			sum = kernel.ExactExpScaled(weight[:n], l[:n], top, inv)
		}
		m.Sums = append(m.Sums, sum)
		l = l[n:]
	}
	return m
}

// TestSamplerSummary: with a summary the choices are the same.
func TestSamplerSummary(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, o := range []SampleOptions{
		{}, {Temperature: 0.8}, {Temperature: 1e-60}, {Temperature: 1e60}, {Temperature: 1e60, TopK: 5}, {Temperature: 2, TopK: 5}, {Temperature: 1, TopK: 1000}, {Temperature: 1, TopP: 0.5},
		{Temperature: 1, TopK: 40, TopP: 0.7}, {Temperature: 1, TopP: 1}, {Temperature: 1, MinP: 0.1}, {Temperature: 0.5, RepetitionPenalty: 1.3},
	} {
		for _, vocab := range []int{1, 64, 301} {
			o.Seed = rng.Uint64()
			plain, summed := newSampler(t, o, vocab), newSampler(t, o, vocab)
			logits := make([]float32, vocab+3) // with padding
			for round := range 50 {
				for i := range logits {
					logits[i] = float32(math.Round(rng.NormFloat64()*20) / 10) // with ties
				}
				switch round {
				case 10:
					logits[rng.IntN(vocab)] = float32(math.NaN())
				case 11:
					logits[rng.IntN(vocab)] = float32(math.Inf(1))
				}
				got, want := summed.NextOf(logits, summaryOf(summed, logits)), plain.Next(logits)
				if got != want {
					t.Fatalf("%+v of %d, round %d: got %d, want %d", o, vocab, round, got, want)
				}
				plain.Accept(want)
				summed.Accept(got)
			}
		}
	}
}
