package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"spinnet/arch"
	"spinnet/configs"
	"spinnet/dataset"
	"spinnet/train"
)

// trainFlags are the options of "spinnet train" that are no recipe's keys.
type trainFlags struct {
	resume, overwrite, dryRun bool
	initFrom                  string
	overrides                 []string // key=value, in the order given
}

func newTrainCmd() *cobra.Command {
	var flags trainFlags
	cmd := &cobra.Command{
		Use:   "train CONFIG [--key=value …]",
		Short: "Train a model by a recipe",
		Long: `Train reads a recipe (a TOML file, a run's folder, or the name of one that ships:
` + strings.Join(configs.Names(), ", ") + `)
and trains to max_iters. Checkpoints and metrics.jsonl go to out_dir. Ctrl-C
saves a checkpoint first; --resume goes on from the last one, to the same
weights as if nothing had happened.`,
		Example: `  spinnet train demo
  spinnet train demo --n_layer=6 --learning_rate=3e-3 --out_dir=runs/deep
  spinnet train runs/deep --resume --max_iters=8000
  spinnet train tinystories --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runTrain(cmd.OutOrStdout(), cmd.ErrOrStderr(), args[0], flags)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&flags.resume, "resume", false, "go on from the last checkpoint in out_dir")
	f.BoolVar(&flags.overwrite, "overwrite", false, "replace the run that is in out_dir")
	f.BoolVar(&flags.dryRun, "dry-run", false, "print size, memory and estimated speed, and train nothing")
	f.StringVar(&flags.initFrom, "init-from", "", "start from the weights of this `MODEL` (fine-tuning)")
	cmd.MarkFlagsMutuallyExclusive("resume", "overwrite")
	cmd.MarkFlagsMutuallyExclusive("resume", "init-from")
	addRecipeFlags(cmd, &flags.overrides)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if e, ok := errors.AsType[*pflag.NotExistError](err); ok && e.GetSpecifiedName() == "bias" {
			_, err := train.LoadConfig("", nil, []string{"bias"}) // which says why there is none
			return &usageError{err: err}
		}
		return flagError(cmd, err)
	})
	return cmd
}

// addRecipeFlags makes every key of a recipe a flag, with underscores or
// dashes. They are listed apart from the others in the help.
func addRecipeFlags(cmd *cobra.Command, overrides *[]string) {
	known := map[string]bool{}
	var help strings.Builder
	help.WriteString("\nRecipe keys (--key=value):\n")
	for _, k := range train.Keys() {
		known[k.Name] = true
		flag := cmd.Flags().VarPF(&override{k, overrides}, k.Name, "", k.Usage)
		flag.Hidden = true
		if k.Type == "true or false" {
			flag.NoOptDefVal = "true"
		}
		fmt.Fprintf(&help, "  %-28s %s (default %s)\n", k.Name, k.Usage, k.Default)
	}
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if key := strings.ReplaceAll(name, "-", "_"); known[key] {
			name = key
		}
		return pflag.NormalizedName(name)
	})
	cmd.SetUsageTemplate(cmd.UsageTemplate() + help.String())
}

// override is the pflag.Value of one recipe key: it only takes note, and
// train.LoadConfig checks.
type override struct {
	key  train.Key
	list *[]string
}

func (o *override) Set(value string) error {
	*o.list = append(*o.list, o.key.Name+"="+value)
	return nil
}
func (o *override) String() string { return "" }
func (o *override) Type() string   { return o.key.Type }

// loadRecipe finds a recipe: a file, a run's folder, or a name of package
// configs, in this order. A run's folder is its out_dir wherever it was when
// the run began, so that a copy does not write into the original.
func loadRecipe(name string, overrides []string) (train.Config, error) {
	const limit = 1 << 20
	path := name
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		inside := filepath.Join(path, "config.toml")
		if _, err = os.Stat(inside); err == nil || !slices.Contains(configs.Names(), name) {
			path = inside
			overrides = append([]string{"out_dir=" + filepath.Clean(name)}, overrides...)
		}
	}
	var text []byte
	switch {
	case err == nil:
		text, err = readAtMost(path, limit, "recipe")
	case path == name && !strings.ContainsAny(name, `/\.`):
		path = name + ".toml"
		if text, err = configs.Read(name); err != nil {
			return train.Config{}, noRecipe(name)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return train.Config{}, noRecipe(path)
	}
	if err != nil {
		return train.Config{}, err
	}
	cfg, err := train.LoadConfig(path, text, overrides)
	if ce, ok := errors.AsType[*train.ConfigError](err); ok && strings.HasPrefix(ce.Where, "--") {
		return cfg, &usageError{err: err}
	}
	return cfg, err
}

// readAtMost reads a file, which may be a pipe; a longer one is not what is
// wanted.
func readAtMost(path string, limit int64, wanted string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s: more than %d bytes is no %s", path, limit, wanted)
	}
	return text, err
}

func noRecipe(name string) error {
	return &dataset.HintError{Err: fmt.Errorf("no recipe %q", name),
		Text: "give a TOML file, a run's folder, or one of " + strings.Join(configs.Names(), ", ")}
}

// runTrain is "spinnet train": the final losses go to out, all else to log.
func runTrain(out, log io.Writer, recipe string, flags trainFlags) (err error) {
	cfg, err := loadRecipe(recipe, flags.overrides)
	if err != nil {
		return err
	}
	data, err := dataset.Open(cfg.DatasetDir())
	if err != nil {
		return err
	}
	defer data.Close()
	shape := cfg.Arch(data.VocabSize)
	if err := shape.Validate(); err != nil {
		return err
	}
	if flags.dryRun {
		return dryRun(out, cfg, data)
	}
	dev, note, err := openDevice(cfg)
	if err != nil {
		return err
	}
	if dev == nil {
		if err := checkMemory(cfg, shape); err != nil {
			return err
		}
	}
	fmt.Fprint(log, cfg.Resolved().TOML(), "\n")
	noteDevice(log, dev, note)
	printModel(log, cfg, shape)

	t, err := train.New(cfg, data, train.Options{Threads: cfg.Threads, Device: dev})
	if err != nil {
		return withNeed(err, cfg, data)
	}
	defer t.Close()
	switch {
	case flags.resume:
		err = t.Resume()
	case flags.initFrom != "":
		err = t.InitFrom(flags.initFrom)
	}
	if err == nil && flags.overwrite {
		err = t.Overwrite()
	}
	if err != nil {
		return err
	}
	if flags.resume {
		fmt.Fprintf(log, "resuming after step %d\n", t.Step())
	}

	p := newProgress(log, cfg, t.Step())
	ctx, stop := untilSignal(p)
	defer stop()
	err = t.Run(ctx, p.observer())
	p.close()
	if gpu, ok := dev.(interface{ Memory() uint64 }); ok {
		fmt.Fprintf(log, "memory      %s on the GPU\n", bytesText(int(gpu.Memory())))
	}
	if errors.Is(err, train.ErrInterrupted) {
		fmt.Fprintf(log, "interrupted after step %d; go on with: spinnet train %s --resume\n", t.Step(), cfg.OutDir)
		return exitError(exitInterrupted)
	}
	if err != nil {
		return withNeed(err, cfg, data)
	}
	last := t.Last()
	val := fmt.Sprintf("val %.4f", last.Val)
	if math.IsNaN(last.Val) {
		val = "no validation split"
	}
	_, err = fmt.Fprintf(out, "final: step %d train %.4f %s\n", last.Step, last.Train, val)
	return err
}

// untilSignal gives a context that ends at the first Ctrl-C or SIGTERM, or
// when the terminal goes away; the second one ends the program at once.
func untilSignal(p *progress) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(signals, syscall.SIGHUP)
	}
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			p.note("stopping: saving a checkpoint (again to stop at once)")
			cancel()
		case <-done:
			return
		}
		select {
		case <-signals:
			os.Exit(exitInterrupted)
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}

// printModel says what is trained: its shape and its parameters by kind.
func printModel(w io.Writer, cfg train.Config, shape arch.Config) {
	n := arch.Count(shape)
	mixer := "no head mixer"
	if shape.OctonionAttention {
		mixer = shape.MixerAlgebra + " head mixer"
	}
	fmt.Fprintf(w, "model       %d layers, d %d, %d heads, SwiGLU %d, block %d, vocabulary %d\n",
		shape.NLayer, shape.NEmbd, shape.NHead, shape.HiddenDim, shape.BlockSize, shape.VocabSize)
	fmt.Fprintf(w, "layers      %s, %s, %s\n", shape.Algebra, shape.Quantizer, mixer)
	fmt.Fprintf(w, "parameters  %s ternary, %s float, %s in all; %s stored\n",
		thousands(n.Ternary), thousands(n.Float), thousands(n.Ternary+n.Float), bytesText(n.StoredBytes))
	fmt.Fprintf(w, "step        %s tokens: %d × %d, %d times\n\n",
		thousands(cfg.TokensPerStep()), cfg.BatchSize, cfg.BlockSize, cfg.GradAccum)
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// bytesText writes a size in the unit that suits it.
func bytesText(n int) string {
	switch f := float64(n); {
	case f >= 1e12:
		return fmt.Sprintf("%.2f TB", f/1e12)
	case f >= 1e9:
		return fmt.Sprintf("%.2f GB", f/1e9)
	case f >= 1e6:
		return fmt.Sprintf("%.2f MB", f/1e6)
	}
	return fmt.Sprintf("%.1f kB", float64(n)/1e3)
}
