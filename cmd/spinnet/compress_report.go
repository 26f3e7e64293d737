package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"spinnet/arch"
	"spinnet/spinfile"
)

// checkpointBytes is what training keeps of a parameter: the weight and two
// moments of AdamW in float32.
const checkpointBytes = 12

// compressReport says what became of a model, as JSON.
type compressReport struct {
	File            string           `json:"file"`
	Format          int              `json:"format"`
	Bytes           int              `json:"bytes"`
	Parameters      int              `json:"parameters"`       // trained, before trimming
	CheckpointBytes int              `json:"checkpoint_bytes"` // 12 a parameter
	Ratio           float64          `json:"ratio"`            // checkpoint_bytes / bytes
	BitsPerWeight   float64          `json:"bits_per_weight"`  // of the whole file, over the parameters it holds
	BitsPerTrit     float64          `json:"bits_per_trit"`    // of ternary tensors with their scales; 0 without
	Zeros           float64          `json:"zeros"`            // share of the trits
	VocabSize       int              `json:"vocab_size"`
	TrimmedFrom     int              `json:"trimmed_from,omitempty"`  // vocabulary before
	TrimmedBytes    int              `json:"trimmed_bytes,omitempty"` // of the rows that were dropped
	Overhead        int              `json:"overhead_bytes"`          // header, table, padding, configuration, tokenizer, metadata
	Kinds           []compressKind   `json:"kinds"`
	Tensors         []compressTensor `json:"tensors"`
	Loss            *compressLoss    `json:"loss,omitempty"`

	kept  int // parameters after trimming
	model arch.Config
}

// compressKind sums the tensors of a kind.
type compressKind struct {
	Kind      string         `json:"kind"`
	Tensors   int            `json:"tensors"`
	Values    int            `json:"values"`
	Bytes     int            `json:"bytes"`
	Encodings map[string]int `json:"encodings"` // how many tensors in each
	MaxError  float64        `json:"max_error"`
}

// compressTensor is one tensor of the file.
type compressTensor struct {
	Name     string         `json:"name"`
	Kind     string         `json:"kind"`
	Encoding string         `json:"encoding"`
	Values   int            `json:"values"`
	Zeros    int            `json:"zeros"`
	Bytes    int            `json:"bytes"`
	Sizes    map[string]int `json:"sizes,omitempty"` // bytes in each encoding there was to choose from
	Error    float64        `json:"error"`           // root mean square of the difference over that of the values
}

// compressLoss is the loss on a text.
type compressLoss struct {
	On      string    `json:"on"`
	Before  measured  `json:"before"`
	Trimmed *measured `json:"trimmed,omitempty"` // with the small vocabulary, not yet rounded
	After   measured  `json:"after"`
}

type measured struct {
	Loss        float64  `json:"loss"`
	BitsPerByte *float64 `json:"bits_per_byte"`
	Tokens      int      `json:"tokens"`
}

// newCompressReport lists the tensors of a file; sum adds them up.
func newCompressReport(c *compressing, sizes spinfile.Report) compressReport {
	r := compressReport{File: c.flags.output, Format: c.flags.format, Bytes: len(c.data), Parameters: parameters(c.before.Config),
		VocabSize: c.after.Config.VocabSize, kept: parameters(c.source.Config), model: c.after.Config}
	if r.VocabSize != c.before.Config.VocabSize {
		r.TrimmedFrom = c.before.Config.VocabSize
	}
	for i := range c.after.Tensors {
		t := &c.after.Tensors[i]
		e := compressTensor{Name: t.Name, Kind: t.Kind.String(), Values: t.Len(), Zeros: t.Zeros()}
		if c.flags.format == 4 {
			e.Encoding, e.Bytes = format4(t)
		} else {
			s := sizes.Tensors[i]
			e.Encoding, e.Bytes = s.Encoding.String(), s.Bytes
			for encoding, n := range s.Sizes {
				if e.Sizes == nil {
					e.Sizes = map[string]int{}
				}
				e.Sizes[encoding.String()] = n
			}
		}
		r.Tensors = append(r.Tensors, e)
	}
	return r
}

// format4 is how version 4 stores a tensor, and the bytes of its values.
func format4(t *spinfile.Tensor) (encoding string, bytes int) {
	switch n := t.Len(); {
	case t.Trits != nil:
		return "bitmask", (n+7)/8 + (n-t.Zeros()+7)/8 + 2*len(t.Scale)
	case t.Int8 != nil || t.Packed != nil:
		return "int8", n + 4
	default:
		return "float16", 2 * n
	}
}

// sum fills in the totals.
func (r *compressReport) sum() {
	r.Overhead = r.Bytes
	trits, zeros, ternary := 0, 0, 0
	for _, t := range r.Tensors {
		i := slices.IndexFunc(r.Kinds, func(k compressKind) bool { return k.Kind == t.Kind })
		if i < 0 {
			i = len(r.Kinds)
			r.Kinds = append(r.Kinds, compressKind{Kind: t.Kind, Encodings: map[string]int{}})
		}
		k := &r.Kinds[i]
		k.Tensors++
		k.Values += t.Values
		k.Bytes += t.Bytes
		k.Encodings[t.Encoding]++
		k.MaxError = max(k.MaxError, t.Error)
		r.Overhead -= t.Bytes
		if r.TrimmedFrom > 0 && t.Kind == arch.Embedding.String() {
			r.TrimmedBytes += t.Bytes / r.VocabSize * (r.TrimmedFrom - r.VocabSize)
		}
		if t.Kind == arch.Ternary.String() && r.model.Quantizer != arch.None {
			trits += t.Values
			zeros += t.Zeros
			ternary += t.Bytes
		}
	}
	r.CheckpointBytes = checkpointBytes * r.Parameters
	r.Ratio = float64(r.CheckpointBytes) / float64(r.Bytes)
	r.BitsPerWeight = 8 * float64(r.Bytes) / float64(r.kept)
	if trits > 0 {
		r.BitsPerTrit = 8 * float64(ternary) / float64(trits)
		r.Zeros = float64(zeros) / float64(trits)
	}
}

func (r *compressReport) json(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// print writes the report for a reader.
func (r *compressReport) print(w io.Writer, verbose bool) error {
	fmt.Fprintf(w, "file        %s: %s, version %d\n", r.File, bytesText(r.Bytes), r.Format)
	fmt.Fprintf(w, "ratio       1/%.1f of the training checkpoint (%s: weights and two moments of %s parameters)\n",
		r.Ratio, bytesText(r.CheckpointBytes), thousands(r.Parameters))
	if r.TrimmedFrom > 0 {
		fmt.Fprintf(w, "vocabulary  %s of %s tokens kept; with all of them %s, 1/%.1f\n", thousands(r.VocabSize), thousands(r.TrimmedFrom),
			bytesText(r.Bytes+r.TrimmedBytes), float64(r.CheckpointBytes)/float64(r.Bytes+r.TrimmedBytes))
	}
	fmt.Fprintf(w, "bits        %.3f a weight", r.BitsPerWeight)
	if r.BitsPerTrit > 0 {
		fmt.Fprintf(w, "; %.3f a ternary weight, %.1f %% of them zeros", r.BitsPerTrit, 100*r.Zeros)
	}
	fmt.Fprint(w, "\n\n")
	// The error is that of the values as root mean square; a kind's is that of
	// its worst tensor.
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "kind\ttensors\tvalues\tbytes\tbits a value\tencoding\terror at most")
	for _, k := range r.Kinds {
		var encodings []string
		for _, e := range slices.Sorted(maps.Keys(k.Encodings)) {
			if len(k.Encodings) > 1 {
				e = fmt.Sprintf("%s ×%d", e, k.Encodings[e])
			}
			encodings = append(encodings, e)
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%.3f\t%s\t%s\n", k.Kind, k.Tensors, thousands(k.Values), thousands(k.Bytes),
			8*float64(k.Bytes)/float64(k.Values), strings.Join(encodings, ", "), errorText(k.MaxError))
	}
	fmt.Fprintf(table, "the rest\t\t\t%s\n", thousands(r.Overhead))
	if verbose {
		fmt.Fprintln(table, "\ntensor\tzeros\tvalues\tbytes\tbits a value\tencoding\terror\tbytes in each encoding")
		for _, t := range r.Tensors {
			zeros := ""
			if t.Zeros > 0 {
				zeros = fmt.Sprintf("%.1f %%", 100*float64(t.Zeros)/float64(t.Values))
			}
			var sizes []string
			for _, e := range slices.Sorted(maps.Keys(t.Sizes)) {
				sizes = append(sizes, fmt.Sprintf("%s %s", e, thousands(t.Sizes[e])))
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%.3f\t%s\t%s\t%s\n", t.Name, zeros, thousands(t.Values), thousands(t.Bytes),
				8*float64(t.Bytes)/float64(t.Values), t.Encoding, errorText(t.Error), strings.Join(sizes, ", "))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if r.Loss == nil {
		fmt.Fprintln(w, "\nhint: --file TEXT also measures the loss before and after")
		return nil
	}
	b, a := &r.Loss.Before, &r.Loss.After
	if t := r.Loss.Trimmed; t != nil && b.BitsPerByte != nil && t.BitsPerByte != nil && a.BitsPerByte != nil {
		// Other tokens, and another number of them: a token's loss says nothing.
		before, trimmed, after := *b.BitsPerByte, *t.BitsPerByte, *a.BitsPerByte
		fmt.Fprintf(w, "\nbits a byte %.5f before, %.5f trimmed (%+.4f %%), %.5f after (%+.4f %%, of it %+.4f %% by rounding), on %s\n",
			before, trimmed, 100*(trimmed/before-1), after, 100*(after/before-1), 100*(after-trimmed)/before, r.Loss.On)
		fmt.Fprintf(w, "            %.6f nats a token before, of %s; %.6f after, of %s\n", b.Loss, thousands(b.Tokens), a.Loss, thousands(a.Tokens))
		return nil
	}
	fmt.Fprintf(w, "\nloss        %.6f before, %.6f after: %+.4f %%, on %s tokens of %s\n", b.Loss, a.Loss, 100*(a.Loss/b.Loss-1), thousands(a.Tokens), r.Loss.On)
	if b.BitsPerByte != nil && a.BitsPerByte != nil {
		fmt.Fprintf(w, "            %.5f bits a byte before, %.5f after\n", *b.BitsPerByte, *a.BitsPerByte)
	}
	return nil
}

// errorText writes a relative error.
func errorText(e float64) string {
	if e == 0 {
		return "none"
	}
	return fmt.Sprintf("%.3g %%", 100*e)
}
