package main

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// meter shows how far a command is, on a terminal: a bar that vanishes when
// the command is done. Elsewhere it does nothing.
type meter struct {
	bars *mpb.Progress
	bar  *mpb.Bar

	mu     sync.Mutex
	status string
}

func newMeter(w io.Writer) *meter {
	m := &meter{}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return m
	}
	m.bars = mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(100*time.Millisecond))
	m.bar = m.bars.New(0, mpb.BarStyle().Lbound("").Filler("━").Tip("╸").Padding("─").Rbound(""),
		mpb.BarWidth(24), mpb.BarRemoveOnComplete(),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			m.mu.Lock()
			defer m.mu.Unlock()
			return " " + m.status
		})))
	return m
}

// start begins a part of the work that has total steps; 0 when there is no
// telling.
func (m *meter) start(what string, total int) {
	if m.bar == nil {
		return
	}
	m.mu.Lock()
	m.status = what
	m.mu.Unlock()
	m.bar.SetTotal(int64(max(1, total)), false)
	m.bar.SetCurrent(0)
}

// set says how many steps are done.
func (m *meter) set(done int) {
	if m.bar != nil {
		m.bar.SetCurrent(int64(done))
	}
}

// close takes the bar away.
func (m *meter) close() {
	if m.bar != nil {
		m.bar.Abort(true)
		m.bars.Wait()
	}
}
