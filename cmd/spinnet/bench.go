package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spinnet/engine"
)

// A bench measures one thing, at every shape and thread count worth knowing,
// and reports each. Files named bench_*.go add theirs to benches in init.
type bench struct {
	Name string
	Run  func(*benchContext) error
}

var benches []bench

// benchResult is one measurement; a zero field does not apply. Those up to
// peak_gflops are in every JSON line.
type benchResult struct {
	Bench         string   `json:"bench"`
	Shape         string   `json:"shape"`
	Threads       int      `json:"threads"`
	Ms            float64  `json:"ms"`     // median time of one call
	GFLOPS        float64  `json:"gflops"` // dense-equivalent: 2 × multiply–accumulates of the dense form
	TokensPerS    float64  `json:"tokens_per_s"`
	PeakGFLOPS    float64  `json:"peak_gflops"` // register-only FMA loop in the same run, same threads
	MBPerS        float64  `json:"mb_per_s,omitempty"`
	Allocs        *float64 `json:"allocs,omitempty"`  // heap allocations a call
	PeakMemoryMiB float64  `json:"rss_mb,omitempty"`  // most memory of the process
	Context       int      `json:"context,omitempty"` // tokens before the one decoded, or of the prompt
}

// benchContext is what a bench is given.
type benchContext struct {
	name    string
	model   string // --model, or "" for models of our own
	text    string // --text, or ""
	threads []int
	report  func(benchResult) error
}

// Threads are the thread counts to measure.
func (b *benchContext) Threads() []int { return b.threads }

// Report hands in one measurement; the bench's name is filled in.
func (b *benchContext) Report(r benchResult) error {
	r.Bench = b.name
	return b.report(r)
}

// benchTime is how long Measure repeats a call.
const benchTime = 600 * time.Millisecond

// Measure calls f once or, when it is quick, twice unmeasured, then for about
// benchTime and at least three times. It gives the median time of a call and
// the mean number of its heap allocations.
func (b *benchContext) Measure(f func()) (median time.Duration, allocs float64) {
	start := time.Now()
	if f(); time.Since(start) < benchTime {
		f()
	}
	times := make([]time.Duration, 0, 1<<14)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for start = time.Now(); len(times) < cap(times) && (len(times) < 3 || time.Since(start) < benchTime); {
		t := time.Now()
		f()
		times = append(times, time.Since(t))
	}
	runtime.ReadMemStats(&after)
	slices.Sort(times)
	return times[len(times)/2], float64(after.Mallocs-before.Mallocs) / float64(len(times))
}

func newBenchCmd() *cobra.Command {
	asJSON, list, threads, model, text := false, false, 0, "", ""
	cmd := &cobra.Command{
		Use:   "bench [PREFIX]",
		Short: "Measure the kernels, training and tokenising on this machine",
		Long: `Bench runs every benchmark whose name begins with PREFIX, on one thread and on
all, and prints a table. GFLOP/s of the hypercomplex layers count the
multiplications of the dense layer they replace; peak is what a loop of nothing
but fused multiply–adds reaches in the same run.`,
		Example: `  spinnet bench linear/octonion
  spinnet bench gemm --json --threads 1`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := strings.Join(args, "")
			var chosen []bench
			for _, b := range benches {
				if strings.HasPrefix(b.Name, prefix) {
					chosen = append(chosen, b)
				}
			}
			if len(chosen) == 0 {
				return &usageError{fmt.Errorf("no benchmark begins with %q", prefix), "spinnet bench --list prints their names"}
			}
			if list {
				for _, b := range chosen {
					if _, err := fmt.Fprintln(cmd.OutOrStdout(), b.Name); err != nil {
						return err
					}
				}
				return nil
			}
			counts := []int{threads}
			switch {
			case threads < 0 || threads > engine.MaxThreads:
				return usagef("--threads %d: want 1 to %d", threads, engine.MaxThreads)
			case threads == 0:
				counts = slices.Compact([]int{1, runtime.GOMAXPROCS(0)})
			}
			report := benchTable(cmd.OutOrStdout())
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				report = func(r benchResult) error { return enc.Encode(r) }
			}
			for _, b := range chosen {
				if err := b.Run(&benchContext{b.Name, model, text, counts, report}); err != nil {
					return fmt.Errorf("bench %s: %w", b.Name, err)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.Flags().StringVar(&model, "model", "", "decode, prefill and load: measure this `MODEL`")
	cmd.Flags().StringVar(&text, "text", "", "tokenizer: measure this text `FILE` too")
	cmd.Flags().BoolVar(&list, "list", false, "print the names only")
	cmd.Flags().IntVar(&threads, "threads", 0, "measure with this many threads (default 1 and one a core)")
	return cmd
}

// benchTable prints each result as a row as soon as it is there.
func benchTable(w io.Writer) func(benchResult) error {
	const row = "%-24s %-36s %7s %10s %9s %6s %10s %8s %7s %8s\n"
	wrote := false
	cell := func(format string, v float64) string {
		if v == 0 {
			return ""
		}
		return fmt.Sprintf(format, v)
	}
	return func(r benchResult) error {
		if !wrote {
			wrote = true
			if _, err := fmt.Fprintf(w, row, "bench", "shape", "threads", "ms", "GFLOP/s", "peak", "tokens/s", "MB/s", "allocs", "MiB"); err != nil {
				return err
			}
		}
		peak, allocs := "", ""
		if r.PeakGFLOPS > 0 && r.GFLOPS > 0 {
			peak = fmt.Sprintf("%.0f%%", 100*r.GFLOPS/r.PeakGFLOPS)
		}
		if r.Allocs != nil {
			allocs = fmt.Sprintf("%.3g", *r.Allocs)
		}
		_, err := fmt.Fprintf(w, row, r.Bench, r.Shape, fmt.Sprint(r.Threads), fmt.Sprintf("%.3f", r.Ms),
			cell("%.1f", r.GFLOPS), peak, cell("%.0f", r.TokensPerS), cell("%.1f", r.MBPerS), allocs, cell("%.0f", r.PeakMemoryMiB))
		return err
	}
}
