package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"spinnet/arch"
	"spinnet/dataset"
	"spinnet/engine"
	"spinnet/interop"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// compressFlags are the options of "spinnet compress".
type compressFlags struct {
	output, embedding, trim string
	format, threads         int
	text, file              string
	json, verbose           bool
	modelFlags
}

func newCompressCmd() *cobra.Command {
	var f compressFlags
	cmd := &cobra.Command{
		Use:   "compress MODEL -o FILE",
		Short: "Make a small .spinnet file of a trained model",
		Long: `Compress writes a model as a .spinnet file: ternary weights in about 1.6 bits or
less, the embedding in 8, 6 or 4, head mixers in 8. MODEL is a run's folder, a
checkpoint or any other model file; the tensors of a .spinnet file that are
small already stay as they are. The file appears whole or not at all, and the
same model gives the same bytes.

--trim-vocab drops the tokens of GPT-2's vocabulary that a text never uses. All
single bytes stay, so any text can still be written.

The report goes to standard error, or with --json to standard output. With a
text it has the loss before and after.`,
		Example: `  spinnet compress runs/demo -o demo.spinnet --file val.txt
  spinnet compress runs/stories -o stories.spinnet --embedding q4 --trim-vocab stories.txt
  spinnet compress runs/classic -o original.spinnet --format 4`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runCompress(cmd, args[0], &f)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.output, "output", "o", "", "`FILE` to write (required)")
	fl.StringVar(&f.embedding, "embedding", "int8", "how the embedding is stored: int8, q6 or q4")
	fl.StringVar(&f.trim, "trim-vocab", "", "keep only the tokens of this text `FILE`, and all bytes")
	fl.IntVar(&f.format, "format", 5, "version of the file: 5, or 4 for the original's tools")
	fl.StringVar(&f.text, "text", "", "text to measure the loss on, before and after")
	fl.StringVar(&f.file, "file", "", "`FILE` to measure the loss on, - for standard input")
	fl.BoolVar(&f.json, "json", false, "print the report as one JSON object")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "a line for each tensor in the report")
	fl.IntVar(&f.threads, "threads", 0, "threads to measure the loss with (0: one a core)")
	f.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("text", "file")
	return cmd
}

// bits is the number of --embedding.
func (f *compressFlags) bits() int {
	return map[string]int{"int8": 8, "q6": 6, "q4": 4}[f.embedding]
}

// check refuses flags that cannot go together.
func (f *compressFlags) check() error {
	ext := strings.ToLower(filepath.Ext(f.output))
	switch {
	case f.output == "":
		return &usageError{errors.New("no file to write"), "give one with -o FILE"}
	case ext != ".spinnet" && modelWriters[ext] != nil:
		return &usageError{fmt.Errorf("%s: compress writes .spinnet files only", f.output), "spinnet convert MODEL " + f.output + " writes that format"}
	case f.bits() == 0:
		return usagef("--embedding %s: want int8, q6 or q4", f.embedding)
	case f.format != 4 && f.format != 5:
		return usagef("--format %d: want 5 or 4", f.format)
	case f.format == 4 && f.bits() != 8:
		return usagef("--embedding %s: version 4 stores int8 only", f.embedding)
	case f.format == 4 && f.trim != "":
		return usagef("--trim-vocab: version 4 has no place for the map of tokens")
	case f.threads < 0:
		return usagef("--threads %d: want 0 or more", f.threads)
	}
	return nil
}

// compressing is a model on its way into a file.
type compressing struct {
	flags  *compressFlags
	path   string          // of the model
	before *spinfile.Model // as it was opened, its vocabulary whole
	source *spinfile.Model // the same, trimmed if it is to be
	after  *spinfile.Model // as it is read back from the file
	data   []byte          // the file
	report compressReport
}

// runCompress is "spinnet compress".
func runCompress(cmd *cobra.Command, path string, f *compressFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	given := cmd.Flags().Changed
	what, text := "--text", f.text
	if given("file") {
		var err error
		if what, text, err = readNamed(f.file, cmd.InOrStdin()); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	m := newMeter(cmd.ErrOrStderr())
	c := &compressing{flags: f, path: path}
	err := c.run(ctx, m)
	if err == nil && (given("text") || given("file")) {
		err = c.losses(ctx, m, what, text)
	}
	if err == nil {
		// Last: whatever is wrong, what stood there stays.
		m.start("writing", 0)
		err = interop.WriteFile(f.output, func(w io.Writer) error {
			_, err := w.Write(c.data)
			return err
		})
	}
	m.close()
	if errors.Is(err, context.Canceled) {
		return exitError(exitInterrupted)
	}
	if err != nil {
		return err
	}
	if f.json {
		return c.report.json(cmd.OutOrStdout())
	}
	return c.report.print(cmd.ErrOrStderr(), f.verbose)
}

// readNamed reads a text file, or in for "-", and gives its name.
func readNamed(path string, in io.Reader) (name, text string, err error) {
	text, err = readScoreFile(path, in)
	return path, text, err
}

// run opens, trims, quantises, encodes, and reads back what it made.
func (c *compressing) run(ctx context.Context, m *meter) (err error) {
	// A folder to write to that is not there is better known now.
	if _, err := os.Stat(filepath.Dir(c.flags.output)); err != nil {
		return fmt.Errorf("%s: %w", c.flags.output, err)
	}
	o, err := c.flags.options()
	if err != nil {
		return err
	}
	m.start("reading", 0)
	if c.before, err = interop.OpenWith(c.path, o); err != nil {
		return err
	}
	c.source = c.before
	if c.flags.trim != "" {
		if c.source, err = trimVocab(ctx, m, c.before, c.flags.trim); err != nil {
			return err
		}
	}
	var sizes spinfile.Report
	m.start("quantising", 0)
	if c.flags.format == 4 {
		c.data, err = spinfile.Encode4(c.source)
	} else {
		c.data, sizes, err = spinfile.Encode(c.source.QuantizeEmbedding(c.flags.bits()).Quantize())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	m.start("reading back", 0)
	if c.after, err = spinfile.Decode(c.data); err != nil {
		return fmt.Errorf("%s: what was made of it cannot be read: %w", c.path, err)
	}
	if c.flags.format == 4 {
		c.after.Tokenizer = c.source.Tokenizer // which the file does not hold
	}
	c.report = newCompressReport(c, sizes)
	m.start("comparing", len(c.after.Tensors))
	for i := range c.after.Tensors {
		c.report.Tensors[i].Error = relativeError(&c.after.Tensors[i], &c.source.Tensors[i])
		m.set(i + 1)
	}
	c.report.sum()
	return ctx.Err()
}

// relativeError is |got − want| / |want|, as root mean squares.
func relativeError(got, want *spinfile.Tensor) float64 {
	var diff, norm float64
	w := want.Floats()
	for i, v := range got.Floats() {
		d := float64(v) - float64(w[i])
		diff += d * d
		norm += float64(w[i]) * float64(w[i])
	}
	if diff == 0 {
		return 0
	}
	return math.Sqrt(diff / norm)
}

// losses measures both models on a text, each with its own tokens.
func (c *compressing) losses(ctx context.Context, m *meter, what, text string) error {
	c.report.Loss = &compressLoss{On: what}
	type side struct {
		name  string
		model *spinfile.Model
		to    *measured
	}
	sides := []side{{"before", c.before, &c.report.Loss.Before}, {"after", c.after, &c.report.Loss.After}}
	if c.report.TrimmedFrom > 0 { // what trimming costs, apart from rounding
		c.report.Loss.Trimmed = new(measured)
		sides = append(sides, side{"trimmed", c.source, c.report.Loss.Trimmed})
	}
	for _, side := range sides {
		if side.model.Tokenizer.Kind == "" {
			return &dataset.HintError{Err: fmt.Errorf("%s does not say how text becomes tokens", c.path), Text: "leave --text and --file out: the loss is not needed to compress"}
		}
		tok, err := engine.NewTokenizer(side.model.Tokenizer)
		if err != nil {
			return fmt.Errorf("%s: %w", c.path, err)
		}
		ids, err := tok.Encode(nil, []byte(text))
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		e, err := engine.New(side.model, engine.Options{Threads: c.flags.threads, Numeric: engine.Float})
		if err != nil {
			return fmt.Errorf("%s: %w", c.path, err)
		}
		m.start("loss "+side.name, len(ids)-1)
		r, err := e.Score(ctx, ids, m.set)
		e.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if math.IsNaN(r.Loss) || math.IsInf(r.Loss, 0) {
			return fmt.Errorf("%s: the loss is %v: the model's weights are too large", c.path, r.Loss)
		}
		*side.to = measured{Loss: r.Loss, Tokens: r.Tokens}
		if bits, err := r.BitsPerByte(tok, ids); err == nil && bits > 0 { // padding ids have no text
			side.to.BitsPerByte = &bits
		}
	}
	return nil
}

// trimChunk is how much of a corpus is read at a time; a word longer than
// trimMost is cut.
const (
	trimChunk = 1 << 20
	trimMost  = 16 << 20
)

// trimVocab gives a model without the tokens that a corpus does not use.
func trimVocab(ctx context.Context, m *meter, model *spinfile.Model, corpus string) (*spinfile.Model, error) {
	if model.Tokenizer.Kind != tokenizer.KindGPT2 {
		return nil, &dataset.HintError{Err: fmt.Errorf("--trim-vocab: the model's tokenizer is %q, not gpt2", model.Tokenizer.Kind),
			Text: "other vocabularies are as small as their text"}
	}
	tok, err := engine.NewTokenizer(model.Tokenizer)
	if err != nil {
		return nil, err
	}
	if tok.VocabSize() > model.Config.VocabSize {
		return nil, fmt.Errorf("--trim-vocab: the tokenizer has %d tokens, the model %d", tok.VocabSize(), model.Config.VocabSize)
	}
	f, err := os.Open(corpus)
	if err != nil {
		return nil, fmt.Errorf("--trim-vocab: %w", err)
	}
	defer f.Close()
	total := 0
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		total = int(info.Size())
	}
	m.start("counting tokens", total)
	used := make([]bool, tok.VocabSize())
	if err := markUsed(ctx, m, used, tok, f); err != nil {
		return nil, fmt.Errorf("--trim-vocab: %s: %w", corpus, err)
	}
	var rows, keep []int32
	for id := range used {
		was := int32(id)
		if model.Tokenizer.Keep != nil {
			was = model.Tokenizer.Keep[id]
		}
		if used[id] || was < 256 || was == tokenizer.EndOfText {
			rows, keep = append(rows, int32(id)), append(keep, was)
		}
	}
	return model.Trim(rows, spinfile.TokenizerInfo{Kind: tokenizer.KindGPT2, Keep: keep})
}

// markUsed marks the tokens of a text.
func markUsed(ctx context.Context, m *meter, used []bool, tok tokenizer.Tokenizer, r io.Reader) error {
	var buf []byte
	var ids []int32
	done, any := 0, false
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := len(buf)
		buf = append(buf, make([]byte, trimChunk)...)
		n, err := io.ReadFull(r, buf[at:])
		buf = buf[:at+n]
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return err
		}
		cut := tok.Cut(buf)
		if end || cut == 0 && len(buf) > trimMost {
			cut = len(buf)
		}
		if ids, err = tok.Encode(ids[:0], buf[:cut]); err != nil {
			return err
		}
		for _, id := range ids {
			used[id], any = true, true
		}
		done += cut
		m.set(done)
		buf = append(buf[:0], buf[cut:]...)
		if end {
			break
		}
	}
	if !any {
		return errors.New("the text is empty")
	}
	return nil
}

// parameters is how many were trained.
func parameters(c arch.Config) int {
	n := 0
	for _, p := range arch.Params(c) {
		n += p.Len()
	}
	return n
}
