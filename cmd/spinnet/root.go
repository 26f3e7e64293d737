package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"spinnet/kernel"
	"spinnet/train"
)

// Exit codes: 0 done, 1 failed, 2 called wrongly, 130 stopped by Ctrl-C.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// usageError is a mistake in the command line.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Hint is the line that says what to do instead.
func (e *usageError) Hint() string { return e.hint }

// usagef makes a usageError without a hint of its own.
func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// exitError ends the program with a code; what there was to say is said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// run is the program: it prints an error as one line, and what to do about
// it as a second, and gives the exit code.
func run(args []string) int {
	root := newRootCmd()
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "spinnet:", oneLine(err.Error()))
	var hinter interface{ Hint() string }
	if errors.As(err, &hinter) && hinter.Hint() != "" {
		fmt.Fprintln(os.Stderr, "hint:", oneLine(hinter.Hint()))
	}
	if isUsage(err) {
		return exitUsage
	}
	return exitFailed
}

// isUsage reports whether the command line is at fault. Cobra's own checks of
// flags that exclude or need each other have no type.
func isUsage(err error) bool {
	_, ours := errors.AsType[*usageError](err)
	return ours || strings.HasPrefix(err.Error(), "if any flags in the group") ||
		strings.HasPrefix(err.Error(), "required flag(s)") || strings.HasPrefix(err.Error(), "at least one of the flags")
}

// maxLine is how much of a message is printed, in characters.
const maxLine = 4000

// oneLine makes one line of a text that may come from a file: no other
// characters that a terminal would follow instead of showing them.
func oneLine(s string) string {
	var b strings.Builder
	n := 0
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if n > 0 {
			b.WriteByte(' ')
		}
		for _, r := range word {
			if n++; n > maxLine {
				return b.String() + "…"
			}
			if unicode.IsPrint(r) {
				b.WriteRune(r)
			} else {
				b.WriteRune(unicode.ReplacementChar)
			}
		}
	}
	return b.String()
}

// short is oneLine of at most so many characters.
func short(s string, most int) string {
	s = oneLine(s)
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

// newRootCmd builds the command tree. Each subcommand has its own file.
func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "spinnet",
		Short: "Train, run and study ternary hypercomplex language models",
		Long: `spinnet trains small language models whose weights are −1, 0 and +1, arranged
by a hypercomplex algebra, and writes text with them. One binary, any CPU.

Data goes to stdout, everything else to stderr. Every flag can also be set in
the environment: --top-k is SPINNET_TOP_K.`,
		Example: `  spinnet prepare tinyshakespeare    # text to tokens, in datasets/
  spinnet train demo                 # checkpoints and metrics, in runs/demo
  spinnet generate runs/demo --prompt "ROMEO:"`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		Args:                       cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := kernel.SetError(); err != nil {
				return &usageError{err: err} // rather than another kernel set than asked for
			}
			return flagsFromEnv(cmd.Flags())
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	for _, g := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"text", "Text:", []*cobra.Command{newPrepareCmd(), newTokenizeCmd()}},
		{"models", "Models:", []*cobra.Command{newTrainCmd(), newGenerateCmd(), newScoreCmd(), newCompressCmd(), newConvertCmd(), newInspectCmd(), newPlotCmd()}},
		{"places", "Elsewhere:", []*cobra.Command{newWebCmd(), newCanisterCmd()}},
		{"program", "The program:", []*cobra.Command{newBenchCmd(), newVersionCmd()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID("program")
	for _, c := range root.Commands() {
		usageErrors(c)
	}
	root.SetFlagErrorFunc(flagError)
	return root
}

// usageErrors makes wrong arguments of a command and its subcommands exit 2.
func usageErrors(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err == nil {
				return nil
			}
			if _, ok := errors.AsType[*usageError](err); ok {
				return err
			}
			return &usageError{err, "usage: " + cmd.UseLine()}
		}
	}
	for _, sub := range c.Commands() {
		usageErrors(sub)
	}
}

func unknownCommand(root *cobra.Command, name string) error {
	hint := "spinnet --help lists the commands"
	if s := root.SuggestionsFor(name); len(s) > 0 {
		hint = "did you mean spinnet " + s[0] + "?"
	}
	return &usageError{fmt.Errorf("unknown command %q", name), hint}
}

// flagError explains a flag that does not exist or does not parse.
func flagError(cmd *cobra.Command, err error) error {
	missing, ok := errors.AsType[*pflag.NotExistError](err)
	if bad, is := errors.AsType[*pflag.InvalidValueError](err); is {
		err = badValue("--"+bad.GetFlag().Name+" "+bad.GetValue(), bad)
	}
	if !ok {
		return &usageError{err, cmd.CommandPath() + " --help lists the flags"}
	}
	name := missing.GetSpecifiedName()
	best, at := "", max(2, len(name)/3)+1
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := train.EditDistance(strings.ReplaceAll(name, "_", "-"), strings.ReplaceAll(f.Name, "_", "-")); d < at {
			best, at = f.Name, d
		}
	})
	if best != "" {
		return &usageError{fmt.Errorf("unknown flag --%s", name), "did you mean --" + best + "?"}
	}
	return &usageError{fmt.Errorf("unknown flag --%s", name), cmd.CommandPath() + " --help lists the flags"}
}

// badValue says what a flag takes, where its type is pflag's.
func badValue(given string, err error) error {
	bad, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return fmt.Errorf("%s: %w", given, err)
	}
	want := map[string]string{
		"int": "a whole number", "uint64": "a whole number, 0 or more", "float64": "a number",
		"bool": "true or false", "duration": "a time such as 30s or 5m",
	}[bad.GetFlag().Value.Type()]
	switch {
	case want == "":
		return fmt.Errorf("%s: %w", given, errors.Unwrap(bad))
	case errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("%s: out of range, want %s", given, want)
	}
	return fmt.Errorf("%s: want %s", given, want)
}

// flagsFromEnv sets each flag that the command line left alone from its
// SPINNET_ variable.
func flagsFromEnv(flags *pflag.FlagSet) (err error) {
	flags.VisitAll(func(f *pflag.Flag) {
		name := "SPINNET_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, set := os.LookupEnv(name)
		if f.Changed || !set || err != nil || f.Name == "help" {
			return
		}
		if e := flags.Set(f.Name, value); e != nil {
			err = &usageError{badValue(name+"="+value, e), ""}
		}
	})
	return err
}
