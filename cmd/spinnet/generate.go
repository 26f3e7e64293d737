package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"spinnet/cuda"
	"spinnet/engine"
	"spinnet/tokenizer"
)

// maxPrompt bounds a prompt that is read from a file or a pipe.
const maxPrompt = 256 << 20

// generateFlags are the options of "spinnet generate".
type generateFlags struct {
	prompt, promptFile string
	options            engine.GenerateOptions
	samples            int
	echo, json, stats  bool
	engineFlags
}

func newGenerateCmd() *cobra.Command {
	var f generateFlags
	cmd := &cobra.Command{
		Use:   "generate MODEL",
		Short: "Continue a text",
		Long: `Generate continues a prompt with a model: a run's folder (its best checkpoint,
else its last), a checkpoint's folder, or a file: .spinnet, .safetensors, the
original's .pt, .gguf or llama2.c's .bin. The prompt comes from --prompt, --prompt-file or standard input; on a
terminal without one, each line typed is a prompt until an empty line. An empty
prompt starts from a line's beginning (GPT-2: from a document's).

The next token is drawn after, in this order: repetition penalty, temperature,
top-k, top-p, min-p. The same seed gives the same text; sample i of several uses
seed + i. Text may go on past the model's context length.`,
		Example: `  spinnet generate runs/demo --prompt "ROMEO:"
  spinnet generate runs/demo --prompt-file scene.txt --max-tokens 500 --temperature 0.7 --top-p 0.95
  echo "JULIET:" | spinnet generate runs/demo --num-samples 3 --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runGenerate(cmd, args[0], &f)
		},
	}
	fl, s := cmd.Flags(), &f.options.Sample
	fl.StringVarP(&f.prompt, "prompt", "p", "", "text to continue")
	fl.StringVar(&f.promptFile, "prompt-file", "", "read the prompt from this `FILE`, - for standard input")
	fl.IntVarP(&f.options.MaxTokens, "max-tokens", "n", 200, "how many tokens to write at most")
	fl.Float64VarP(&s.Temperature, "temperature", "t", engine.DefaultTemperature, "0 always takes the most probable token")
	fl.IntVar(&s.TopK, "top-k", 0, "draw from the k most probable tokens only (0: all)")
	fl.Float64Var(&s.TopP, "top-p", 0, "draw from the fewest tokens whose probabilities reach p (0: all)")
	fl.Float64Var(&s.MinP, "min-p", 0, "draw from tokens at least p times as probable as the first")
	fl.Float64Var(&s.RepetitionPenalty, "repetition-penalty", 1, "make recent tokens less probable (1: do not)")
	fl.IntVar(&s.RepetitionWindow, "repetition-window", 64, "how many tokens are recent")
	fl.Uint64Var(&s.Seed, "seed", 1, "of the random numbers")
	fl.StringArrayVar(&f.options.Stop, "stop", nil, "end before this text; may be repeated")
	fl.IntVar(&f.samples, "num-samples", 1, "how many continuations to write")
	fl.BoolVar(&f.echo, "echo", false, "write the prompt before each continuation")
	fl.BoolVar(&f.json, "json", false, "write one JSON object for each continuation")
	fl.BoolVar(&f.stats, "stats", false, "print times, speeds and memory to standard error")
	f.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("prompt", "prompt-file")
	return cmd
}

// check refuses option values that no run can have.
func (f *generateFlags) check() error {
	if err := f.options.Sample.Validate(); err != nil {
		return &usageError{err: err}
	}
	for _, stop := range f.options.Stop {
		if stop == "" {
			return usagef("--stop: the text is empty")
		}
	}
	switch {
	case f.options.MaxTokens < 0:
		return usagef("--max-tokens %d: want 0 or more", f.options.MaxTokens)
	case f.samples < 1:
		return usagef("--num-samples %d: want 1 or more", f.samples)
	}
	_, err := f.engineOptions()
	return err
}

// runGenerate is "spinnet generate".
func runGenerate(cmd *cobra.Command, path string, f *generateFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	g := &generator{out: cmd.OutOrStdout(), log: cmd.ErrOrStderr(), flags: f}
	in := cmd.InOrStdin()
	interactive := !cmd.Flags().Changed("prompt") && f.promptFile == "" && isTerminal(in)
	var prompt string
	if !interactive {
		var err error
		if prompt, err = readPrompt(cmd, f, in); err != nil {
			return err
		}
	}
	// Only from here on: there is nothing to finish while a prompt is read.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	var err error
	if g.loaded, err = loadModel(path, &f.engineFlags, g.log); err != nil {
		return err
	}
	defer g.close()
	if interactive {
		err = g.interact(ctx, in)
	} else {
		err = g.samples(ctx, prompt)
	}
	if f.stats {
		g.printStats()
	}
	if errors.Is(err, context.Canceled) {
		return exitError(exitInterrupted)
	}
	return err
}

// readPrompt gives the prompt of the flags, or what comes in.
func readPrompt(cmd *cobra.Command, f *generateFlags, in io.Reader) (string, error) {
	switch {
	case cmd.Flags().Changed("prompt"):
		return f.prompt, nil
	case f.promptFile != "" && f.promptFile != "-":
		file, err := os.Open(f.promptFile)
		if err != nil {
			return "", err
		}
		defer file.Close()
		return readBounded(file, f.promptFile)
	}
	return readBounded(in, "standard input")
}

// readBounded reads all of r, which must not be absurdly long.
func readBounded(r io.Reader, name string) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPrompt+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if len(b) > maxPrompt {
		return "", fmt.Errorf("%s: over %s", name, bytesText(maxPrompt))
	}
	return string(b), nil
}

// isTerminal reports whether a stream is a terminal (which /dev/null is not).
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// generator writes continuations.
type generator struct {
	*loaded
	flags    *generateFlags
	out, log io.Writer
	total    engine.Result // of all samples
	turns    uint64        // prompts so far, for their seeds
	peak     int           // memory after the first of them
}

// generated is a continuation as JSON.
type generated struct {
	Prompt       string `json:"prompt"`
	Text         string `json:"text"`
	Seed         uint64 `json:"seed"`
	PromptTokens int    `json:"prompt_tokens"`
	Tokens       int    `json:"tokens"`
	Reason       string `json:"reason"`
}

// samples writes the continuations of one prompt.
func (g *generator) samples(ctx context.Context, prompt string) error {
	ids, err := g.encode("prompt", prompt, tokenizer.Prompt)
	if err != nil {
		return err
	}
	for i := range g.flags.samples {
		if i > 0 && !g.flags.json {
			if _, err := fmt.Fprintf(g.out, "----- sample %d -----\n", i+1); err != nil {
				return err
			}
		}
		if err := g.one(ctx, prompt, ids); err != nil {
			return err
		}
	}
	compare := g.flags.numeric != "" || g.options.Int8Cache
	if !compare || g.peak == 0 {
		g.peak = peakRSS() // before a second engine, for the comparison, adds its own
	}
	if compare {
		return g.compare(ctx, ids)
	}
	return nil
}

// compare says what the arithmetic asked for costs on the prompt.
func (g *generator) compare(ctx context.Context, ids []int32) error {
	if len(ids) < 2 {
		return nil
	}
	r, err := engine.ScoreIDs(ctx, g.text, ids, nil)
	if err != nil {
		return err
	}
	return g.reportLoss(ctx, g.log, "the prompt", ids, r.Loss)
}

// one writes one continuation, as it comes unless it is JSON.
func (g *generator) one(ctx context.Context, prompt string, ids []int32) error {
	o := g.flags.options
	o.Sample.Seed += g.turns
	g.turns++
	g.text.Reset()
	last := byte(0)
	var text strings.Builder
	emit := func(b []byte) error {
		last = b[len(b)-1]
		if g.flags.json {
			text.Write(b)
			return nil
		}
		_, err := g.out.Write(b)
		return err
	}
	if g.flags.echo && prompt != "" && !g.flags.json {
		if err := emit([]byte(prompt)); err != nil {
			return err
		}
	}
	r, err := engine.Generate(ctx, g.text, g.tok, ids, o, emit)
	g.total.PromptTokens += r.PromptTokens
	g.total.Tokens += r.Tokens
	g.total.Prefill += r.Prefill
	g.total.Decode += r.Decode
	if g.flags.json && err == nil {
		return json.NewEncoder(g.out).Encode(generated{prompt, text.String(), o.Sample.Seed, r.PromptTokens, r.Tokens, r.Reason})
	}
	if !g.flags.json && last != '\n' {
		if _, e := fmt.Fprintln(g.out); err == nil {
			err = e
		}
	}
	return err
}

// interact continues each line typed until an empty one or the end.
func (g *generator) interact(ctx context.Context, in io.Reader) error {
	fmt.Fprintln(g.log, "Type a text to continue; an empty line ends.")
	lines := make(chan string)
	var failed error // set before lines is closed
	go func() {
		defer close(lines)
		s := bufio.NewScanner(in)
		s.Buffer(nil, maxPrompt)
		for s.Scan() {
			lines <- s.Text()
		}
		failed = s.Err()
	}()
	for {
		fmt.Fprint(g.log, "> ")
		select {
		case <-ctx.Done():
			fmt.Fprintln(g.log)
			return ctx.Err()
		case line, ok := <-lines:
			if !ok && failed != nil {
				return fmt.Errorf("reading a prompt: %w", failed)
			}
			if !ok || line == "" {
				return nil
			}
			err := g.samples(ctx, line)
			if _, isText := errors.AsType[*tokenizer.InputError](err); isText {
				fmt.Fprintln(g.log, oneLine(err.Error()))
				continue
			}
			if err != nil {
				return err
			}
		}
	}
}

// printStats says how long it took.
func (g *generator) printStats() {
	rate := func(n int, d time.Duration) string {
		if d <= 0 {
			return "–"
		}
		return fmt.Sprintf("%.0f tokens/s", float64(n)/d.Seconds())
	}
	r := &g.total
	// The first token of a continuation comes out of the prefill.
	fmt.Fprintf(g.log, "load     %s (%s)\n", g.time.Round(time.Microsecond*100), g.model.Meta["source"])
	fmt.Fprintf(g.log, "prefill  %d tokens, %s\n", r.PromptTokens, rate(r.PromptTokens, r.Prefill))
	fmt.Fprintf(g.log, "decode   %d tokens, %s, %s, %s\n", r.Tokens, rate(r.Tokens, r.Decode), g.where, g.numeric)
	if s, ok := g.text.(*cuda.Session); ok {
		weights, cache, all := s.Memory()
		fmt.Fprintf(g.log, "on GPU   %s: weights %s, keys and values %s\n", bytesText(int(all)), bytesText(int(weights)), bytesText(int(cache)))
	}
	if g.peak > 0 {
		fmt.Fprintf(g.log, "memory   %s at most\n", bytesText(g.peak))
	}
}

// peakRSS is the most memory the process has had, in bytes; 0 where the
// system does not say.
func peakRSS() int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kb int
	if _, err := fmt.Sscanf(rest, "%d kB", &kb); err != nil {
		return 0
	}
	return kb << 10
}
