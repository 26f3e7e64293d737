package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"spinnet/interop"
	"spinnet/spinfile"
)

// modelFlags say what a model file itself does not.
type modelFlags struct{ chars, tokenizer string }

// add defines the flags of a command that opens a model.
func (f *modelFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.chars, "chars", "", "text `FILE` whose distinct characters are the vocabulary of a model of\ncharacters that carries none")
	cmd.Flags().StringVar(&f.tokenizer, "llama-tokenizer", "", "tokenizer `FILE` of a llama2.c model (default: tokN.bin or tokenizer.bin\nbeside it)")
	cmd.MarkFlagsMutuallyExclusive("chars", "llama-tokenizer")
}

// options reads what the flags name.
func (f *modelFlags) options() (interop.Options, error) {
	o := interop.Options{Tokenizer: f.tokenizer}
	if f.chars != "" {
		t, err := charsOfFile(f.chars)
		if err != nil {
			return o, err
		}
		o.Chars = t.Chars()
	}
	return o, nil
}

// convertFlags are the options of "spinnet convert".
type convertFlags struct {
	modelFlags
	format int
	gguf   interop.GGUFOptions
	log    io.Writer
}

// modelWriters write a model in a format, by the extension of the file's name.
var modelWriters = map[string]func(w io.Writer, in string, o interop.Options, f *convertFlags) error{
	".gguf":        writeGGUF,
	".safetensors": writeSafetensors,
	".spinnet":     writeSpinnet,
}

func newConvertCmd() *cobra.Command {
	var f convertFlags
	cmd := &cobra.Command{
		Use:   "convert IN OUT",
		Short: "Write a model in another format",
		Long: `Convert reads any model (a run's or checkpoint's folder, .spinnet, .safetensors,
the original's .pt, .gguf, llama2.c's .bin) and writes it in the format that the
name of OUT ends in. OUT appears whole or not at all.

.safetensors  One file that needs no state.json: its metadata holds the
              configuration and the tokenizer. Latent weights stay latent, so
              training can go on from it. A finished model (.spinnet) becomes
              one of the quantizer classic that computes the same.
.spinnet      What "spinnet compress" writes with an int8 embedding.
.gguf         For llama.cpp: layers as the dense matrices they stand for, in f32,
              f16, q8_0, q4_0, q6_k and, for trits, tq1_0 and tq2_0.`,
		Example: `  spinnet convert ckpt.pt model.safetensors      # then: train … --init-from model.safetensors
  spinnet convert ckpt.pt model.spinnet --format 4
  spinnet convert runs/demo demo.gguf --linear tq2_0 --embedding q8_0
  spinnet convert stories260K.bin stories.spinnet --llama-tokenizer tok512.bin`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.log = cmd.ErrOrStderr()
			return runConvert(cmd, args[0], args[1], &f)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.gguf.Linear, "linear", "f16", "type of the linear layers of a .gguf file")
	cmd.Flags().StringVar(&f.gguf.Embedding, "embedding", "f16", "type of the embedding of a .gguf file")
	cmd.Flags().IntVar(&f.format, "format", 5, "version of a .spinnet file: 5, or 4 for the original's tools")
	return cmd
}

// runConvert is "spinnet convert".
func runConvert(cmd *cobra.Command, in, out string, f *convertFlags) error {
	ext := strings.ToLower(filepath.Ext(out))
	write, ok := modelWriters[ext]
	switch {
	case !ok:
		return &usageError{fmt.Errorf("%s: no format that is written", out),
			"the name ends in one of " + strings.Join(slices.Sorted(maps.Keys(modelWriters)), ", ")}
	case f.format != 4 && f.format != 5:
		return usagef("--format %d: want 5 or 4", f.format)
	}
	for name, of := range map[string]string{"linear": ".gguf", "embedding": ".gguf", "format": ".spinnet"} {
		if cmd.Flags().Changed(name) && ext != of {
			return usagef("--%s: it is for %s files, %s is none", name, of, out)
		}
	}
	if err := f.gguf.Validate(); err != nil {
		return &usageError{err: err}
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	if from, err := interop.Resolve(in); err != nil {
		return err
	} else if same(from, out) {
		return usagef("%s is what is read and what is to be written", out)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	err = interop.WriteFile(out, func(w io.Writer) error {
		if err := write(stoppable{ctx, w}, in, o, f); err != nil {
			return err
		}
		return ctx.Err()
	})
	if errors.Is(err, context.Canceled) {
		return exitError(exitInterrupted)
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(out)
	if err == nil {
		fmt.Fprintf(f.log, "%s: %s\n", out, sizeText(info.Size()))
	}
	return err
}

// stoppable is a writer until its context ends.
type stoppable struct {
	ctx context.Context
	w   io.Writer
}

func (s stoppable) Write(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.w.Write(b)
}

// same reports whether two paths lead to one file.
func same(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

func writeSafetensors(w io.Writer, in string, o interop.Options, _ *convertFlags) error {
	format, err := interop.Format(in)
	if err != nil {
		return err
	}
	if format == interop.FormatSpinnet {
		m, err := interop.OpenWith(in, o)
		if err != nil {
			return err
		}
		return interop.WriteModel(w, m)
	}
	l, err := interop.OpenLatents(in, o)
	if err != nil {
		return err
	}
	defer l.Close()
	return interop.WriteLatents(w, l)
}

func writeSpinnet(w io.Writer, in string, o interop.Options, f *convertFlags) error {
	m, err := interop.OpenWith(in, o)
	if err != nil {
		return err
	}
	var data []byte
	if f.format == 4 {
		data, err = spinfile.Encode4(m)
	} else {
		data, _, err = spinfile.Encode(m.QuantizeEmbedding(8).Quantize())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	_, err = w.Write(data)
	return err
}

func writeGGUF(w io.Writer, in string, o interop.Options, f *convertFlags) error {
	m, err := interop.OpenWith(in, o)
	if err != nil {
		return err
	}
	options := f.gguf
	options.Name = strings.TrimSuffix(filepath.Base(in), filepath.Ext(in))
	options.Report = func(t interop.GGUFTensor) {
		if t.Reason != "" {
			fmt.Fprintf(f.log, "%s is %s: %s\n", t.Name, t.Type, t.Reason)
		}
	}
	return interop.WriteGGUF(w, m, options)
}
