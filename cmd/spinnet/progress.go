package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"spinnet/train"
)

// progress shows a training run: a bar that stays on the last line of a
// terminal, or a line a log step elsewhere. Evaluations, samples and notes
// are lines of their own, above the bar.
type progress struct {
	w        io.Writer
	interval int // steps between lines without a terminal
	width    int // columns of the terminal
	bars     *mpb.Progress
	bar      *mpb.Bar

	mu     sync.Mutex
	status string  // what stands behind the bar
	rate   float64 // tokens a second, running mean
	first  int     // step the run began after

	// Since the last line: tokens and the time they took.
	tokens  int
	seconds float64
}

func newProgress(w io.Writer, cfg train.Config, step int) *progress {
	p := &progress{w: w, interval: cfg.LogInterval, width: 80, first: step}
	f, ok := w.(*os.File)
	if !ok {
		return p
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return p // no terminal
	}
	if width > 0 {
		p.width = width
	}
	p.showBar(cfg.MaxIters, step)
	return p
}

// showBar starts the bar of a terminal.
func (p *progress) showBar(steps, step int) {
	p.bars = mpb.New(mpb.WithOutput(p.w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(150*time.Millisecond))
	// A bar with a total ends there, and what is printed above it later, the
	// last evaluation and sample, would be lost: so the total comes after.
	p.bar = p.bars.New(0, mpb.BarStyle().Lbound("").Filler("━").Tip("╸").Padding("─").Rbound(""),
		mpb.BarWidth(max(8, min(24, p.width/6))),
		mpb.PrependDecorators(decor.CountersNoUnit("%d/%d ")),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.status
		})))
	p.bar.SetTotal(int64(steps), false)
	p.bar.SetCurrent(int64(step))
}

// observer connects a run to p.
func (p *progress) observer() train.Observer {
	return train.Observer{
		Step: p.step,
		Eval: p.eval,
		Sample: func(step int, text string) {
			p.note(fmt.Sprintf("sample at step %d:\n  %s", step, strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")))
		},
		Note: p.note,
	}
}

func (p *progress) step(s train.StepInfo) {
	if p.bar != nil {
		p.rate += max(0.05, 1/float64(s.Step-p.first)) * (s.TokensPerSecond - p.rate)
		status := p.fit(" loss %.3f", s.Loss, " mean %.3f", s.Smooth, "  %s tok/s", rate(p.rate), "  %s left", round(s.ETA),
			"  lr %.1e", s.LR, "  grad %.2f", s.GradNorm, "  zeros %.0f%%", 100*s.Zeros)
		p.mu.Lock()
		p.status = status
		p.mu.Unlock()
		p.bar.SetCurrent(int64(s.Step))
		return
	}
	p.tokens += s.Tokens
	p.seconds += float64(s.Tokens) / s.TokensPerSecond
	if s.Step%p.interval != 0 && s.Step != s.MaxSteps {
		return
	}
	p.note(fmt.Sprintf("step %*d/%d  loss %.4f  smooth %.4f  %.0f tok/s  lr %.2e  grad %.3f  zeros %.3f  eta %s",
		len(fmt.Sprint(s.MaxSteps)), s.Step, s.MaxSteps, s.Loss, s.Smooth, float64(p.tokens)/p.seconds, s.LR, s.GradNorm, s.Zeros, round(s.ETA)))
	p.tokens, p.seconds = 0, 0
}

// fit formats pairs of format and value for as long as they fit beside the
// bar.
func (p *progress) fit(pairs ...any) string {
	room := p.width - max(8, min(24, p.width/6)) - 14
	s := ""
	for i := 0; i < len(pairs); i += 2 {
		next := fmt.Sprintf(pairs[i].(string), pairs[i+1])
		if len(s)+len(next) > room {
			break
		}
		s += next
	}
	return s
}

func (p *progress) eval(e train.EvalInfo) {
	best := ""
	if e.Best {
		best = "  best so far"
	}
	val := fmt.Sprintf("val %.4f", e.Val)
	if math.IsNaN(e.Val) {
		val = "no validation split"
	}
	p.note(fmt.Sprintf("evaluation at step %d: train %.4f  %s%s", e.Step, e.Train, val, best))
}

// note prints lines of text, above the bar where there is one. It may be
// called from any goroutine.
func (p *progress) note(text string) {
	w := p.w
	if p.bars != nil {
		w = p.bars
	}
	fmt.Fprintln(w, text)
}

// close leaves the bar as it is and gives the terminal back.
func (p *progress) close() {
	if p.bars == nil {
		return
	}
	p.bar.Abort(false)
	p.bars.Wait()
}

// rate writes tokens a second in few characters.
func rate(perSecond float64) string {
	if perSecond >= 10e3 {
		return fmt.Sprintf("%.1fk", perSecond/1e3)
	}
	return fmt.Sprintf("%.0f", perSecond)
}

// round leaves a duration with the digits worth reading.
func round(d time.Duration) string {
	if d > time.Hour {
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return d.Round(time.Second).String()
}
