package train

import "time"

// Observer is told what happens during a run. Any function may be nil.
type Observer struct {
	Step       func(StepInfo)
	Eval       func(EvalInfo)
	Sample     func(step int, text string)
	Checkpoint func(step int, dir string)
	Note       func(text string)
}

// StepInfo describes one finished step.
type StepInfo struct {
	Step, MaxSteps  int // steps done, steps to do
	Tokens          int // tokens in this step
	Loss            float64
	Smooth          float64 // exponential average of the loss
	LR              float64
	GradNorm        float64 // before clipping
	Zeros           float64 // share of zeros in the ternary weights, 0..1
	TokensPerSecond float64 // of this step
	Elapsed, ETA    time.Duration
}

// EvalInfo describes one evaluation: mean losses in nats a token. Val is NaN
// when the dataset has no validation split.
type EvalInfo struct {
	Step       int
	Train, Val float64
	Best       bool // lowest validation loss so far
}

// fill gives every function a body, so that callers need not ask.
func (o Observer) fill() Observer {
	if o.Step == nil {
		o.Step = func(StepInfo) {}
	}
	if o.Eval == nil {
		o.Eval = func(EvalInfo) {}
	}
	if o.Sample == nil {
		o.Sample = func(int, string) {}
	}
	if o.Checkpoint == nil {
		o.Checkpoint = func(int, string) {}
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	return o
}
