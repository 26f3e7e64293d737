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
// options, logits and history give the same tokens, on every machine.
type Sampler struct {
	o      SampleOptions
	pcg    *rand.PCG
	rng    *rand.Rand // of pcg
	recent []int32    // ring of the last tokens
	count  int
	*sampleMemory
}

// sampleMemory is what a choice needs, and nothing that the next one does.
type sampleMemory struct {
	logits []float32 // a copy, where they must be changed
	maxima []float32 // of each SummaryBlock of the logits, for top-k and top-p
	sorted []float32 // the maxima in ascending order
	order  []int32   // candidate ids
	weight []float32
	sums   []float32 // of the weights of each block
}

func newSampleMemory(vocab int) *sampleMemory {
	blocks := (vocab + SummaryBlock - 1) / SummaryBlock
	return &sampleMemory{logits: make([]float32, vocab), order: make([]int32, vocab), weight: make([]float32, vocab),
		maxima: make([]float32, blocks), sorted: make([]float32, blocks), sums: make([]float32, blocks)}
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
	s := bareSampler(o)
	s.sampleMemory = newSampleMemory(vocab)
	return s, nil
}

// bareSampler returns a sampler with valid options that has no memory yet.
func bareSampler(o SampleOptions) *Sampler {
	s := &Sampler{o: o, pcg: rand.NewPCG(o.Seed, 0)}
	s.rng = rand.New(s.pcg)
	if o.RepetitionPenalty != 0 && o.RepetitionPenalty != 1 {
		window := o.RepetitionWindow
		if window == 0 {
			window = defaultWindow
		}
		s.recent = make([]int32, min(window, maxWindow))
	}
	return s
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

// SummaryBlock is how many logits a Summary takes together: most blocks hold
// nothing that can be drawn, and are passed over.
const SummaryBlock = 64

// Summary is what a device can find out about logits while it has them: of every
// block of SummaryBlock of those that are drawn from, the last one maybe shorter,
// the greatest, NaN if one is NaN, and the sum that
// kernel.ExactExpScaled(…, top, inv) gives, where top is the greatest of all.
type Summary struct{ Maxima, Sums []float32 }

// Summarized says of what a Summary must be: the first vocab logits, and inv, 0
// if the sums are not used.
func (s *Sampler) Summarized() (vocab int, inv float32) {
	if s.o.Temperature > 0 {
		inv = float32(1 / s.o.Temperature)
	}
	return len(s.logits), inv
}

// NextOf is Next for logits with their summary, most of which it need not look at.
func (s *Sampler) NextOf(logits []float32, m Summary) int32 {
	l := logits[:len(s.logits)]
	weighs := s.o.MinP > 0 || s.o.TopP > 0 && s.o.TopP < 1 // it needs every weight
	inv := float32(1 / s.o.Temperature)
	if len(s.recent) > 0 || weighs || inv == 0 || // too hot for float32: there are no sums
		kernel.HasNaN(m.Maxima) {
		return s.Next(logits)
	}
	i := kernel.ArgMax(m.Maxima)
	lo, hi := s.block(i, len(l))
	best := int32(lo + kernel.ArgMax(l[lo:hi]))
	top := l[best]
	if s.certain(top, inv) {
		return best
	}
	if s.o.TopK > 0 && s.o.TopK < len(l) {
		copy(s.maxima, m.Maxima)
		return s.drawCandidate(s.candidates(l, top, inv))
	}
	i, u := s.drawBlock(m.Sums)
	lo, hi = s.block(i, len(l))
	kernel.ExactExpScaled(s.weight[lo:hi], l[lo:hi], top, inv)
	return int32(lo + find(s.weight[lo:hi], u))
}

// certain reports whether the best logit is the only choice: with a temperature of
// 0 or too small for float32, or an infinity in front, no differences are left to
// draw from.
func (s *Sampler) certain(top, inv float32) bool {
	return s.o.Temperature == 0 || math.IsInf(float64(inv), 0) || math.IsInf(float64(top), 0)
}

// Next draws the next token from logits, which it leaves as they are. Ties
// go to the lower id; a NaN counts as impossible.
func (s *Sampler) Next(logits []float32) int32 {
	l := logits[:len(s.logits)]
	if len(s.recent) > 0 || kernel.HasNaN(l) {
		for i, v := range l {
			if v != v {
				v = float32(math.Inf(-1))
			}
			s.logits[i] = v
		}
		l = s.logits
		s.penalise(l)
	}
	best := int32(kernel.ArgMax(l))
	top, inv := l[best], float32(1/s.o.Temperature)
	if s.certain(top, inv) {
		return best
	}
	if s.o.TopK > 0 && s.o.TopK < len(l) || s.o.TopP > 0 && s.o.TopP < 1 {
		for i := range s.maxima {
			lo, hi := s.block(i, len(l))
			s.maxima[i] = kernel.MaxOf(l[lo:hi])
		}
		ids := s.candidates(l, top, inv)
		return s.drawCandidate(ids)
	}
	s.weigh(l, top, inv)
	return s.drawAny()
}

// block is the range of block i of n logits.
func (s *Sampler) block(i, n int) (lo, hi int) { return i * SummaryBlock, min(n, (i+1)*SummaryBlock) }

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

// weigh sets all weights, exp((l−top)/T), and their sums by block, and
// returns the sum of all.
func (s *Sampler) weigh(l []float32, top, inv float32) float64 {
	sum := 0.0
	for i := range s.sums {
		lo, hi := s.block(i, len(l))
		s.sums[i] = kernel.ExactExpScaled(s.weight[lo:hi], l[lo:hi], top, inv)
		sum += float64(s.sums[i])
	}
	return sum
}

// candidates gives the ids that top-k and top-p keep, in descending order of
// l, ties to the lower id, and sets their weights in that order. The blocks'
// maxima are there.
func (s *Sampler) candidates(l []float32, top, inv float32) []int32 {
	copy(s.sorted, s.maxima)
	slices.Sort(s.sorted)
	k, p, mass := len(l), s.o.TopP, 0.0
	enough := 64 // how many are likely to do
	if s.o.TopK > 0 && s.o.TopK < k {
		k = s.o.TopK
		enough = k
	} else {
		mass = s.weigh(l, top, inv)
	}
	if p == 0 {
		p = 1
	}
	for ; ; enough *= 8 {
		ids := s.atLeast(l, s.threshold(enough))
		all := len(ids) == len(l)
		// A heap's root moves behind what is left of the heap, so that the
		// order is found from the back and only as far as it is needed.
		heapify(ids, l)
		n := 0 // taken, at the end of ids
		take := func() float32 {
			pop(ids[:len(ids)-n], l)
			n++
			return l[ids[len(ids)-n]]
		}
		if k < len(l) {
			for n < k {
				v := take()
				s.weight[n-1] = v
			}
			mass = float64(kernel.ExactExpScaled(s.weight[:n], s.weight[:n], top, inv))
			if p < 1 {
				sum := 0.0
				for n = 0; n < k && (n == 0 || sum < p*mass); n++ {
					sum += float64(s.weight[n])
				}
			}
			slices.Reverse(ids[len(ids)-k:])
			return ids[len(ids)-k:][:n]
		}
		sum := 0.0
		for n < len(ids) && (n == 0 || sum < p*mass) {
			take()
			sum += float64(s.weight[ids[len(ids)-n]])
		}
		if sum < p*mass && !all {
			continue
		}
		ids = ids[len(ids)-n:]
		slices.Reverse(ids)
		for i, id := range ids {
			s.weight[i] = l[id]
		}
		kernel.ExactExpScaled(s.weight[:n], s.weight[:n], top, inv)
		return ids
	}
}

// threshold is a value that at least n logits reach: the n-th largest of the
// blocks' maxima, −Inf if there are fewer blocks.
func (s *Sampler) threshold(n int) float32 {
	if n > len(s.maxima) {
		return float32(math.Inf(-1))
	}
	return s.sorted[len(s.sorted)-n]
}

// atLeast gives the ids of all logits that reach a threshold, in order.
func (s *Sampler) atLeast(l []float32, threshold float32) []int32 {
	ids := s.order[:0]
	for i, m := range s.maxima {
		if m < threshold {
			continue
		}
		lo, hi := s.block(i, len(l))
		for id := lo; id < hi; id++ {
			if l[id] >= threshold {
				ids = append(ids, int32(id))
			}
		}
	}
	return ids
}

// drawCandidate draws one of the ids in proportion to the weights, of which
// the first is 1, after min-p.
func (s *Sampler) drawCandidate(ids []int32) int32 {
	weight, least := s.weight[:len(ids)], float32(s.o.MinP)
	sum := 0.0
	for i, w := range weight { // in descending order
		if w < least {
			weight = weight[:i]
			break
		}
		sum += float64(w)
	}
	return ids[find(weight, s.rng.Float64()*sum)]
}

// drawAny draws any id in proportion to the weights, of which the largest is
// 1, after min-p.
func (s *Sampler) drawAny() int32 {
	if least := float32(s.o.MinP); least > 0 {
		for i := range s.sums {
			lo, hi := s.block(i, len(s.weight))
			s.sums[i] = 0
			for j, w := range s.weight[lo:hi] {
				if w < least {
					w = 0
					s.weight[lo+j] = 0
				}
				s.sums[i] += w
			}
		}
	}
	i, u := s.drawBlock(s.sums)
	lo, hi := s.block(i, len(s.weight))
	return int32(lo + find(s.weight[lo:hi], u))
}

// drawBlock draws a block in proportion to the sums of its weights, and where in
// that sum.
func (s *Sampler) drawBlock(sums []float32) (block int, u float64) {
	sum := 0.0
	for _, v := range sums {
		sum += float64(v)
	}
	u = s.rng.Float64() * sum
	block = find(sums, u)
	for _, v := range sums[:block] {
		u -= float64(v)
	}
	return block, u
}

// find gives the place in which u falls when the weights are laid end to end;
// the last that is not 0 if rounding leaves u behind it.
func find(weight []float32, u float64) int {
	last := 0
	for i, w := range weight {
		if w == 0 {
			continue
		}
		last = i
		if u -= float64(w); u < 0 {
			break
		}
	}
	return last
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
