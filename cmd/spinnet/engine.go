package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"spinnet/cuda"
	"spinnet/dataset"
	"spinnet/engine"
	"spinnet/interop"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// engineFlags are the options of every command that runs a model.
type engineFlags struct {
	threads          int
	numeric, kvCache string
	device           string
	modelFlags
}

func (f *engineFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	f.modelFlags.add(cmd)
	fl.IntVar(&f.threads, "threads", 0, "threads to compute with (0: one a core)")
	fl.StringVar(&f.numeric, "numeric", "", "arithmetic, int8 or float (default: what the model was trained for)")
	fl.StringVar(&f.kvCache, "kv-cache", "float", "keep keys and values as float or, in a quarter of the memory, int8")
	fl.StringVar(&f.device, "device", deviceAuto, "auto, cpu, cuda or cuda:N; auto takes a GPU where it gives the same bits")
}

// options checks the flags.
func (f *engineFlags) engineOptions() (engine.Options, error) {
	o := engine.Options{Threads: f.threads, Numeric: f.numeric, Int8Cache: f.kvCache == "int8"}
	switch {
	case f.threads < 0:
		return o, usagef("--threads %d: want 0 or more", f.threads)
	case f.numeric != "" && f.numeric != engine.Float && f.numeric != engine.Int8:
		return o, usagef("--numeric %s: want float or int8", f.numeric)
	case f.kvCache != "float" && f.kvCache != "int8":
		return o, usagef("--kv-cache %s: want float or int8", f.kvCache)
	}
	if _, err := deviceNumber(f.device); err != nil {
		return o, usagef("--%v", err)
	}
	return o, nil
}

// loaded is a model ready to run.
type loaded struct {
	model   *spinfile.Model
	text    engine.Text
	numeric string
	where   string // what it runs on
	close   func()
	options engine.Options
	tok     tokenizer.Tokenizer // nil when the model does not say which
	time    time.Duration
}

// loadModel opens a model file and gets it ready on the device that the flags
// ask for. A GPU that it takes is named on log.
func loadModel(path string, f *engineFlags, log io.Writer) (*loaded, error) {
	o, err := f.engineOptions()
	if err != nil {
		return nil, err
	}
	given, err := f.modelFlags.options()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	m, err := interop.OpenWith(path, given)
	if err != nil {
		return nil, err
	}
	if o.Int8Cache && o.NumericOf(m) != engine.Int8 {
		return nil, &dataset.HintError{Err: fmt.Errorf("%s: --kv-cache int8 needs int8 arithmetic, this model runs in float", path), Text: "add --numeric int8"}
	}
	l := &loaded{model: m, options: o}
	if m.Tokenizer.Kind != "" {
		if l.tok, err = engine.NewTokenizer(m.Tokenizer); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := l.place(f.device, log); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l.time = time.Since(start)
	return l, nil
}

// place opens a text on a device. auto takes the first GPU that works for int8
// numerics, which have the same bits there, and the CPU for float.
func (l *loaded) place(device string, log io.Writer) error {
	if device != deviceCPU && (device != deviceAuto || l.options.NumericOf(l.model) == engine.Int8) {
		s, err := openGPU(device, func(number int) (*cuda.Session, error) { return cuda.NewSession(number, l.model, l.options) })
		switch {
		case err == nil:
			l.text, l.numeric, l.where, l.close = s, s.Numeric(), s.Name(), s.Close
			noteDevice(log, nil, s.Name())
			return nil
		case device != deviceAuto:
			return &dataset.HintError{Err: err, Text: "--device cpu needs no GPU"}
		case !errors.Is(err, cuda.ErrNoDriver) && !errors.Is(err, cuda.ErrLeftOut):
			noteDevice(log, nil, onCPU(err))
		}
	}
	e, err := engine.New(l.model, l.options)
	if err != nil {
		return err
	}
	l.text, l.numeric, l.close = e.NewSession(), e.Numeric(), e.Close
	l.where = fmt.Sprintf("%d threads", e.Threads())
	return nil
}

// encode makes ids of text by tokenizer.EncodeText or Prompt, with hints in its
// errors.
func (l *loaded) encode(what, text string, encode func(tokenizer.Tokenizer, string) ([]int32, error)) ([]int32, error) {
	if l.tok == nil {
		return nil, &dataset.HintError{Err: errors.New("the model does not say how text becomes tokens"),
			Text: "say it with --chars or --llama-tokenizer (spinnet convert makes a file that says it); spinnet score --ids takes token ids"}
	}
	ids, err := encode(l.tok, text)
	if err == nil {
		return ids, nil
	}
	err = fmt.Errorf("%s: %w", what, err)
	if chars := l.tok.Chars(); chars != "" {
		err = &dataset.HintError{Err: err, Text: fmt.Sprintf("the model knows these characters only: %q", chars)}
	}
	return nil, err
}

// usualLoss is the loss of ids in the arithmetic that the model would run in
// without options, for comparison. ok is false when that is what it runs in,
// or there is nothing to predict.
func (l *loaded) usualLoss(ctx context.Context, ids []int32) (loss float64, numeric string, ok bool, err error) {
	if len(ids) < 2 || (engine.Options{}).NumericOf(l.model) == l.numeric && !l.options.Int8Cache {
		return 0, "", false, nil
	}
	e, err := engine.New(l.model, engine.Options{Threads: l.options.Threads})
	if err != nil {
		return 0, "", false, err
	}
	defer e.Close()
	r, err := e.Score(ctx, ids, nil)
	return r.Loss, e.Numeric(), err == nil, err
}

// reportLoss says on w what the chosen arithmetic costs on a text.
func (l *loaded) reportLoss(ctx context.Context, w io.Writer, what string, ids []int32, loss float64) error {
	usual, numeric, ok, err := l.usualLoss(ctx, ids)
	if err != nil || !ok {
		return err
	}
	own := l.numeric
	if l.options.Int8Cache {
		own += " with an int8 cache"
	}
	_, err = fmt.Fprintf(w, "loss on %s: %.6f in %s, %.6f in %s (%+.2f %%)\n", what, loss, own, usual, numeric, 100*(loss/usual-1))
	return err
}
