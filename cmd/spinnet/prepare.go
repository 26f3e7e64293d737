package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"spinnet/corpus"
	"spinnet/dataset"
	"spinnet/tokenizer"
)

func newPrepareCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "prepare",
		Short: "Tokenise a text into a dataset folder",
		Long: `Prepare tokenises texts into a folder with train.bin, val.bin and
manifest.json, which train reads. The folder appears whole or not at all.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return &usageError{errors.New("prepare: which dataset?"), "run: spinnet prepare tinyshakespeare, spinnet prepare gostd, or spinnet prepare text FILE… --out DIR"}
		},
	}
	c.AddCommand(newPrepareShakespeareCmd(), newPrepareGoCmd(), newPrepareTextCmd())
	return c
}

// prepareFlags are the flags the three subcommands share.
type prepareFlags struct {
	dataset.Options
	valFiles []string
	asJSON   bool
}

func (f *prepareFlags) add(c *cobra.Command, kind string) {
	fl := c.Flags()
	fl.StringVar(&f.Tokenizer, "tokenizer", kind, "gpt2, bytes or chars")
	fl.Float64Var(&f.Val, "val", 0.1, "share of the validation split, 0 for none")
	fl.BoolVar(&f.Force, "force", false, "replace the dataset if it exists")
	fl.BoolVar(&f.NanoGPT, "nanogpt", false, "make sure nanoGPT reads the folder too: uint16 only, and meta.pkl for chars")
	fl.BoolVar(&f.asJSON, "json", false, "print the manifest instead of a summary")
}

// run prepares the sources and reports.
func (f *prepareFlags) run(c *cobra.Command, sources []dataset.Source) error {
	if !slices.Contains([]string{tokenizer.KindGPT2, tokenizer.KindBytes, tokenizer.KindChars}, f.Tokenizer) {
		return usagef("unknown tokenizer %q: want gpt2, bytes or chars", f.Tokenizer)
	}
	if !(f.Val >= 0 && f.Val < 1) {
		return usagef("--val %v: want 0 or more and under 1", f.Val)
	}
	if f.Dir == "" {
		f.Dir = dataset.DefaultDir(f.Name)
	}
	errOut := c.ErrOrStderr()
	if isTerminal(errOut) {
		f.Progress = func(done, total int64) {
			end := ""
			if done == total {
				end = "\n"
			}
			fmt.Fprintf(errOut, "\r%s: %d of %d MB%s", f.Name, done>>20, total>>20, end)
		}
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	m, err := dataset.Prepare(ctx, f.Options, sources)
	if ctx.Err() != nil && err != nil {
		fmt.Fprintln(errOut, "stopped; nothing was written")
		return exitError(exitInterrupted)
	}
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	if f.asJSON {
		data, err := os.ReadFile(filepath.Join(f.Dir, dataset.ManifestFile))
		if err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		_, err = out.Write(data)
		return err
	}
	summary := fmt.Sprintf("%s: %s tokenizer, vocabulary %d, %s\n", f.Dir, m.Tokenizer.Kind, m.VocabSize, m.DType)
	for _, s := range []dataset.Shard{m.Train, m.Val} {
		summary += fmt.Sprintf("  %-10s %12d tokens  %8d documents  %12d bytes of text\n", s.File, s.Tokens, s.Documents, s.SourceBytes)
	}
	_, err = io.WriteString(out, summary)
	return err
}

func newPrepareShakespeareCmd() *cobra.Command {
	var f prepareFlags
	c := &cobra.Command{
		Use:   "tinyshakespeare",
		Short: "The embedded 1.1 MB of Shakespeare, by character, into datasets/tinyshakespeare",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f.Name = "tinyshakespeare"
			return f.run(c, []dataset.Source{{
				Name: "tinyshakespeare",
				Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(corpus.TinyShakespeare)), nil },
			}})
		},
	}
	f.add(c, tokenizer.KindChars)
	c.Flags().StringVar(&f.Dir, "out", "", "folder to write (default datasets/tinyshakespeare)")
	return c
}

func newPrepareTextCmd() *cobra.Command {
	var f prepareFlags
	c := &cobra.Command{
		Use:   "text FILE…",
		Short: "Text files of your own",
		Long: `Text files of your own. Documents are separated by lines "<|endoftext|>", and
every file begins a new one. With ten or more documents (at --val 0.1) every
tenth is for validation; with fewer, the last tenth of the text is.`,
		Example: "  spinnet prepare text stories.txt --out datasets/stories --tokenizer gpt2",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, files []string) error {
			if f.Dir == "" {
				return &usageError{errors.New("prepare: text needs a folder to write to"), "add --out datasets/NAME"}
			}
			f.Name = filepath.Base(f.Dir)
			var sources []dataset.Source
			for _, name := range files {
				sources = append(sources, dataset.FileSource(name))
			}
			for _, name := range f.valFiles {
				f.ValSources = append(f.ValSources, dataset.FileSource(name))
			}
			if len(f.valFiles) > 0 && !c.Flags().Changed("val") {
				f.Val = 0
			}
			return f.run(c, sources)
		},
	}
	f.add(c, tokenizer.KindGPT2)
	c.Flags().StringVar(&f.Dir, "out", "", "folder to write")
	c.Flags().StringSliceVar(&f.valFiles, "val-file", nil, "text for validation, instead of a share of the others")
	return c
}

func newPrepareGoCmd() *cobra.Command {
	var f prepareFlags
	c := &cobra.Command{
		Use:   "gostd",
		Short: "The source of Go's standard library, a code corpus of about 26 MB, into datasets/gostd",
		Long: `The source of the standard library of the installed Go toolchain: every .go
file but tests, testdata, vendored code and commands; a document each.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			sources, err := goSources()
			if err != nil {
				return err
			}
			f.Name, f.SkipEmpty = "gostd", true
			return f.run(c, sources)
		},
	}
	f.add(c, tokenizer.KindGPT2)
	c.Flags().StringVar(&f.Dir, "out", "", "folder to write (default datasets/gostd)")
	return c
}

// goSources lists the standard library's files in lexical order.
func goSources() ([]dataset.Source, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, &dataset.HintError{Err: fmt.Errorf("prepare: cannot find the Go toolchain: go env GOROOT: %w", err), Text: "install Go and put it in PATH"}
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "src")
	var sources []dataset.Source
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := e.Name()
		if e.IsDir() {
			if name == "testdata" || name == "vendor" || path == filepath.Join(root, "cmd") {
				return fs.SkipDir
			}
			return nil
		}
		if e.Type().IsRegular() && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			sources = append(sources, dataset.FileSource(path))
		}
		return nil
	})
	if err == nil && len(sources) == 0 {
		err = fmt.Errorf("no Go files in %s", root)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	return sources, nil
}
