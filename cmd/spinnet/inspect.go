package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"spinnet/arch"
	"spinnet/engine"
	"spinnet/interop"
)

func newInspectCmd() *cobra.Command {
	var f modelFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "Show what is in a model file, and check it",
		Long: `Inspect prints a model's configuration, tokenizer, origin and tensors, and reads
all of it: checksums, lengths, shapes and values. A file that is not whole is an
error that says where. MODEL is a run's or checkpoint's folder, .spinnet,
.safetensors, the original's .pt, .gguf, or llama2.c's .bin.

Zeros are those among the ternary weights; of latent weights, among what they
would be rounded to.`,
		Example: `  spinnet inspect runs/demo
  spinnet inspect model.spinnet --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.options()
			if err != nil {
				return err
			}
			d, err := interop.Inspect(args[0], o)
			if err != nil {
				return err
			}
			r := newInspection(d)
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
			}
			return r.print(cmd.OutOrStdout())
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// inspection is a description as JSON.
type inspection struct {
	File      string             `json:"file"`
	Format    string             `json:"format"`
	Version   int                `json:"version,omitempty"`
	Bytes     int64              `json:"bytes"`
	Model     arch.Config        `json:"model"`
	Tokenizer inspectedTokenizer `json:"tokenizer"`
	Weights   int                `json:"weights"`
	Ternary   int                `json:"ternary"`
	Zeros     int                `json:"zeros"` // among the ternary weights
	Meta      map[string]string  `json:"meta"`
	Tensors   []inspectedTensor  `json:"tensors"`
}

// inspectedTokenizer is a tokenizer without its tables.
type inspectedTokenizer struct {
	Kind   string `json:"kind"`
	Tokens int    `json:"tokens"`
	Chars  string `json:"chars,omitempty"`
}

// inspectedTensor is a tensor of the file.
type inspectedTensor struct {
	Name   string `json:"name"`
	Source string `json:"source,omitempty"` // its name in the file, where it is another
	Kind   string `json:"kind"`
	Type   string `json:"type"`
	Shape  []int  `json:"shape"`
	Values int    `json:"values"`
	Offset int64  `json:"offset"` // −1: compressed in the file
	Bytes  int64  `json:"bytes"`
	Zeros  *int   `json:"zeros,omitempty"`
}

func newInspection(d *interop.Description) *inspection {
	r := &inspection{File: d.File, Format: d.Format, Version: d.Version, Bytes: d.Size, Model: d.Config, Meta: maps.Clone(d.Meta),
		Tokenizer: inspectedTokenizer{Kind: d.Tokenizer.Kind, Chars: d.Tokenizer.Chars}}
	delete(r.Meta, "source") // which File is
	if tok, err := engine.NewTokenizer(d.Tokenizer); err == nil {
		r.Tokenizer.Tokens = tok.VocabSize()
	}
	for _, t := range d.Tensors {
		e := inspectedTensor{Name: t.Name, Kind: t.Kind, Type: t.Type, Shape: t.Shape, Values: t.Values, Offset: t.Offset, Bytes: t.Bytes}
		if t.Source != t.Name {
			e.Source = t.Source
		}
		r.Weights += t.Values
		if t.Zeros >= 0 {
			e.Zeros = &t.Zeros
			r.Ternary += t.Values
			r.Zeros += t.Zeros
		}
		r.Tensors = append(r.Tensors, e)
	}
	return r
}

// print writes the inspection for a reader.
func (r *inspection) print(w io.Writer) error {
	line := func(key, format string, args ...any) {
		fmt.Fprintf(w, "%-11s "+format+"\n", append([]any{key}, args...)...)
	}
	format := r.Format
	if r.Version > 0 {
		format += fmt.Sprintf(" version %d", r.Version)
	}
	c := &r.Model
	line("file", "%s", r.File)
	line("format", "%s, %s", format, sizeText(r.Bytes))
	heads := fmt.Sprintf("%d heads", c.NHead)
	if c.NKVHead != c.NHead {
		heads += fmt.Sprintf(" (%d of keys and values)", c.NKVHead)
	}
	line("model", "%d layers, width %d, %s, hidden %d", c.NLayer, c.NEmbd, heads, c.HiddenDim)
	line("text", "vocabulary %s, context %s, tokenizer %s", thousands(c.VocabSize), thousands(c.BlockSize), r.Tokenizer.String())
	line("arithmetic", "%s", arithmetic(c))
	weights := thousands(r.Weights)
	if r.Ternary > 0 {
		weights += fmt.Sprintf(", of them %s ternary with %.1f %% zeros", thousands(r.Ternary), 100*float64(r.Zeros)/float64(r.Ternary))
	}
	line("weights", "%s", weights)
	for _, key := range slices.Sorted(maps.Keys(r.Meta)) {
		line(short(key, 20), "%s", short(r.Meta[key], 80))
	}
	table := [][]string{{"tensor", "kind", "shape", "type", "size", "zeros"}}
	for _, t := range r.Tensors {
		zeros := ""
		if t.Zeros != nil {
			zeros = fmt.Sprintf("%.1f %%", 100*float64(*t.Zeros)/float64(max(1, t.Values)))
		}
		shape := strings.ReplaceAll(strings.Trim(fmt.Sprint(t.Shape), "[]"), " ", " × ")
		table = append(table, []string{t.Name, t.Kind, shape, t.Type, sizeText(t.Bytes), zeros})
	}
	if r.Ternary == 0 {
		for i := range table {
			table[i] = table[i][:5]
		}
	}
	fmt.Fprintln(w)
	if err := printTable(w, table, 4); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nintact: %d tensors, every value read\n", len(r.Tensors))
	return err
}

// sizeText is bytesText with single bytes for what is small.
func sizeText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	return bytesText(int(n))
}

// String is the tokenizer in a few words.
func (t *inspectedTokenizer) String() string {
	if t.Kind == "" {
		return "unknown"
	}
	s := fmt.Sprintf("%s of %s", t.Kind, thousands(t.Tokens))
	if t.Chars != "" {
		chars := []rune(t.Chars)
		s += fmt.Sprintf(": %q", string(chars[:min(len(chars), 80)]))
		if len(chars) > 80 {
			s += "…"
		}
	}
	return s
}

// arithmetic says what the layers compute with.
func arithmetic(c *arch.Config) string {
	s := short(c.Algebra, 80)
	if c.Quantizer != arch.None {
		s += ", quantizer " + c.Quantizer
	}
	if c.ActBits > 0 {
		s += fmt.Sprintf(", activations of %d bits", c.ActBits)
	}
	if c.OctonionAttention {
		s += ", head mixer " + c.MixerAlgebra
	}
	if c.UntiedOutput {
		s += ", an output table of its own"
	}
	return s + fmt.Sprintf(", norm %g, rotations %g", c.NormEps, c.RopeTheta)
}

// printTable writes rows in columns, those from the given one on to the right.
func printTable(w io.Writer, rows [][]string, right int) error {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				b.WriteString("  ")
			}
			if i >= right {
				b.WriteString(pad + cell)
			} else {
				b.WriteString(cell + pad)
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}
