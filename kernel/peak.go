package kernel

// PeakFMA keeps every worker busy with independent multiply-adds in
// registers, rounds times 12 vectors, and returns the floating-point
// operations done: the measure the matrix kernels are held against. 0 where
// there is no assembly.
func PeakFMA(p *Pool, rounds int) float64 {
	t := &p.tasks().peak
	t.rounds, t.flops = rounds, 0
	p.Run(p.Threads(), t)
	return t.flops * float64(p.Threads())
}

type peakTask struct {
	rounds int
	flops  float64 // of one worker
}

// Do is one worker's share.
func (t *peakTask) Do(i, _ int) {
	if f := peakFMA(t.rounds); i == 0 {
		t.flops = float64(f)
	}
}
