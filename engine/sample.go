package engine

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"

	"spinnet/kernel"
)

// SampleOptions say how the next token is drawn from the logits. The steps
// follow in the order of the fields after Seed: repetition penalty,
// temperature, top-k, top-p, min-p. Zero values switch a step off, except
// that Temperature 0 means always the most probable token.
type SampleOptions struct {
	Seed uint64

	// RepetitionPenalty divides positive and multiplies negative logits of
	// recent tokens (Keskar et al. 2019); 0 and 1 do nothing.
	RepetitionPenalty float64
	RepetitionWindow  int     // how many tokens are recent; 0 means 64
	Temperature       float64 // divides the logits
	TopK              int     // keep the k most probable tokens
	TopP              float64 // keep the fewest most probable whose sum reaches p
	MinP              float64 // keep those at least p times as probable as the first
}

// DefaultTemperature is the temperature of the command-line tools.
const DefaultTemperature = 0.8

// defaultWindow is the number of recent tokens that a repetition penalty
// looks at.
const defaultWindow = 64

// Validate checks the ranges of the options.
func (o SampleOptions) Validate() error {
	bad := func(what string) error { return errors.New("engine: " + what) }
	switch {
	case !(o.Temperature >= 0) || math.IsInf(o.Temperature, 0):
		return bad("temperature must be 0 or more")
	case o.TopK < 0:
		return bad("top-k must be 0 or more")
	case !(o.TopP >= 0 && o.TopP <= 1):
		return bad("top-p must be from 0 to 1")
	case !(o.MinP >= 0 && o.MinP <= 1):
		return bad("min-p must be from 0 to 1")
	case !(o.RepetitionPenalty >= 0) || math.IsInf(o.RepetitionPenalty, 0):
		return bad("the repetition penalty must be 0 or more")
	case o.RepetitionWindow < 0:
		return bad("the repetition window must be 0 or more")
	}
	return nil
}

// Sampler draws tokens. It allocates nothing after its creation. The same
// options, logits and history give the same tokens.
type Sampler struct {
	o      SampleOptions
	rng    *rand.Rand
	logits []float32
	order  []int32 // candidate ids
	weight []float32
	recent []int32 // ring of the last tokens
	count  int
}

// NewSampler returns a sampler over the first vocab logits: ids from vocab on
// are never drawn, which leaves out the padding of a vocabulary.
func NewSampler(o SampleOptions, vocab int) (*Sampler, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if vocab < 1 {
		return nil, errors.New("engine: no tokens to draw from")
	}
	s := &Sampler{o: o, rng: rand.New(rand.NewPCG(o.Seed, 0)), logits: make([]float32, vocab), order: make([]int32, vocab), weight: make([]float32, vocab)}
	if o.RepetitionPenalty != 0 && o.RepetitionPenalty != 1 {
		window := o.RepetitionWindow
		if window == 0 {
			window = defaultWindow
		}
		s.recent = make([]int32, min(window, maxWindow))
	}
	return s, nil
}

// maxWindow bounds the memory of a repetition window.
const maxWindow = 1 << 20

// Accept notes a token of the text, of the prompt or drawn, for the
// repetition penalty.
func (s *Sampler) Accept(id int32) {
	if len(s.recent) > 0 {
		s.recent[s.count%len(s.recent)] = id
		s.count++
	}
}

// Next draws the next token from logits, which it leaves as they are. Ties
// go to the lower id; a NaN counts as impossible.
func (s *Sampler) Next(logits []float32) int32 {
	l := s.logits
	for i, v := range logits[:len(l)] {
		if v != v {
			v = float32(math.Inf(-1))
		}
		l[i] = v
	}
	s.penalise(l)
	best := argmax(l)
	t := float32(s.o.Temperature) // may be too small to be other than 0
	// With an infinity in front no differences are left to draw from.
	if t == 0 || math.IsInf(float64(l[best]), 0) {
		return best
	}
	top := l[best]
	for i, v := range l {
		l[i] = (v - top) / t // the first is 0: no overflow at any temperature
	}
	ids := s.candidates(l)
	weight := s.weight[:len(ids)]
	for i, id := range ids {
		weight[i] = l[id]
	}
	kernel.Exp(weight, weight)
	return s.draw(ids, weight)
}

// penalise applies the repetition penalty once to each recent token.
func (s *Sampler) penalise(l []float32) {
	p := float32(s.o.RepetitionPenalty)
	recent := s.recent[:min(s.count, len(s.recent))]
	for i, id := range recent {
		if id < 0 || int(id) >= len(l) || slices.Contains(recent[:i], id) {
			continue
		}
		if l[id] > 0 {
			l[id] /= p
		} else {
			l[id] *= p
		}
	}
}

// candidates gives the ids that top-k and top-p keep, in descending order of
// l (ties to the lower id) if one of them is on, else all ids in order. l is
// (logit − max)/T.
func (s *Sampler) candidates(l []float32) []int32 {
	ids := s.order[:len(l)]
	for i := range ids {
		ids[i] = int32(i)
	}
	k, p := len(ids), s.o.TopP
	if s.o.TopK > 0 {
		k = min(k, s.o.TopK)
	}
	if p == 0 {
		p = 1
	}
	if k == len(ids) && p == 1 {
		return ids
	}
	// A heap's root moves to the end of what is left of the heap, so that the
	// order is found from the back and only as far as it is needed.
	heapify(ids, l)
	sorted := len(ids) // ids[sorted:] are in ascending order
	if k < len(ids) {
		for sorted > len(ids)-k {
			sorted--
			pop(ids[:sorted+1], l)
		}
	}
	first := sorted
	if p < 1 {
		kernel.Exp(s.weight, l)
		kept := ids
		if k < len(ids) {
			kept = ids[sorted:]
		}
		mass, sum := 0.0, 0.0
		for _, id := range kept {
			mass += float64(s.weight[id])
		}
		for first = len(ids); first > len(ids)-k && (first == len(ids) || sum < p*mass); {
			first--
			if first < sorted {
				pop(ids[:first+1], l)
			}
			sum += float64(s.weight[ids[first]])
		}
	}
	slices.Reverse(ids[first:])
	return ids[first:]
}

// draw applies min-p to the weights exp((l−max)/T), of which the largest is
// 1, and draws one id in proportion.
func (s *Sampler) draw(ids []int32, weight []float32) int32 {
	least := float32(s.o.MinP)
	sum := 0.0
	for i, w := range weight {
		if w < least {
			weight[i] = 0
			continue
		}
		sum += float64(w)
	}
	u := s.rng.Float64() * sum
	last := ids[0]
	for i, w := range weight {
		if w == 0 {
			continue
		}
		last = ids[i]
		if u -= float64(w); u < 0 {
			break
		}
	}
	return last // rounding may leave u at 0 after the last
}

// argmax is the id of the largest logit, the lowest of equals.
func argmax(l []float32) int32 {
	best := 0
	for i, v := range l {
		if v > l[best] {
			best = i
		}
	}
	return int32(best)
}

// before orders ids by descending logit, then ascending id.
func before(l []float32, a, b int32) bool {
	return l[a] > l[b] || l[a] == l[b] && a < b
}

// heapify makes ids a heap whose root comes before all others.
func heapify(ids []int32, l []float32) {
	for i := len(ids)/2 - 1; i >= 0; i-- {
		sift(ids, l, i)
	}
}

// pop moves the root of the heap ids to its end; the rest stays a heap.
func pop(ids []int32, l []float32) {
	last := len(ids) - 1
	ids[0], ids[last] = ids[last], ids[0]
	sift(ids[:last], l, 0)
}

// sift lets the id at i sink to its place.
func sift(ids []int32, l []float32, i int) {
	for {
		child := 2*i + 1
		if child >= len(ids) {
			return
		}
		if child+1 < len(ids) && before(l, ids[child+1], ids[child]) {
			child++
		}
		if !before(l, ids[child], ids[i]) {
			return
		}
		ids[i], ids[child] = ids[child], ids[i]
		i = child
	}
}
