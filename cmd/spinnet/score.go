package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"spinnet/engine"

	"spinnet/tokenizer"
)

// scoreFlags are the options of "spinnet score".
type scoreFlags struct {
	text, file, ids string
	json, logits    bool
	engineFlags
}

// scored is a score as JSON.
type scored struct {
	Loss        float64   `json:"loss"`
	BitsPerByte *float64  `json:"bits_per_byte"` // null when the model does not say what its tokens are
	Tokens      int       `json:"tokens"`
	LogProbs    []float32 `json:"logprobs"`
	Logits      []float32 `json:"logits,omitempty"`
}

func newScoreCmd() *cobra.Command {
	var f scoreFlags
	cmd := &cobra.Command{
		Use:   "score MODEL",
		Short: "Measure how well a model predicts a text",
		Long: `Score prints the mean loss of a text in nats a token, the bits for each of its
bytes, and the number of tokens predicted: all but the first. The text is read
in consecutive windows of the model's context length, each from an empty cache,
as the evaluation during training does. --logits adds the logits at the last
position, those that predict the text's last token.`,
		Example: `  spinnet score runs/demo --file scene.txt
  spinnet score runs/demo --text "To be, or not to be" --json
  spinnet score runs/demo --ids "18 47 56 57 58" --json --logits`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runScore(cmd, args[0], &f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.text, "text", "", "text to score")
	fl.StringVar(&f.file, "file", "", "`FILE` to score, - for standard input")
	fl.StringVar(&f.ids, "ids", "", "token `IDS` to score, separated by spaces or commas")
	fl.BoolVar(&f.json, "json", false, "print one JSON object with loss, bits_per_byte, tokens and logprobs")
	fl.BoolVar(&f.logits, "logits", false, "add the last position's logits")
	f.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("text", "file", "ids")
	return cmd
}

// runScore is "spinnet score".
func runScore(cmd *cobra.Command, path string, f *scoreFlags) error {
	given := cmd.Flags().Changed
	if !given("text") && !given("file") && !given("ids") {
		return &usageError{errors.New("nothing to score"), "give one of --text, --file and --ids"}
	}
	if _, err := f.engineOptions(); err != nil {
		return err
	}
	what, text := "--text", f.text
	var ids []int32
	var err error
	switch {
	case given("ids"):
		what = "--ids"
		if ids, err = parseIDs(f.ids); err != nil {
			return err
		}
	case given("file"):
		what = f.file
		if text, err = readScoreFile(f.file, cmd.InOrStdin()); err != nil {
			return err
		}
	}
	l, err := loadModel(path, &f.engineFlags, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer l.close()
	if !given("ids") {
		if ids, err = l.encode(what, text, tokenizer.EncodeText); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	r, err := engine.ScoreIDs(ctx, l.text, ids, nil)
	if errors.Is(err, context.Canceled) {
		return exitError(exitInterrupted)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if math.IsNaN(r.Loss) || math.IsInf(r.Loss, 0) {
		return fmt.Errorf("%s: the loss is %v: the model's weights are too large", path, r.Loss)
	}
	s := scored{Loss: r.Loss, Tokens: r.Tokens, LogProbs: r.LogProbs}
	if l.tok != nil {
		if bits, err := r.BitsPerByte(l.tok, ids); err == nil && bits > 0 { // padding ids have no text
			s.BitsPerByte = &bits
		}
	}
	if f.logits {
		s.Logits = r.Logits
	}
	if err := s.print(cmd.OutOrStdout(), f.json); err != nil {
		return err
	}
	if f.numeric == "" && !l.options.Int8Cache {
		return nil
	}
	return l.reportLoss(ctx, cmd.ErrOrStderr(), what, ids, r.Loss)
}

// print writes the score as JSON or as lines.
func (s *scored) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	bits := "unknown"
	if s.BitsPerByte != nil {
		bits = fmt.Sprintf("%.4f", *s.BitsPerByte)
	}
	_, err := fmt.Fprintf(w, "loss           %.6f nats a token\nbits per byte  %s\ntokens         %d\n", s.Loss, bits, s.Tokens)
	if err == nil && s.Logits != nil {
		_, err = fmt.Fprintln(w, "logits        ", strings.Trim(fmt.Sprint(s.Logits), "[]"))
	}
	return err
}

// readScoreFile reads a file, or in for "-".
func readScoreFile(path string, in io.Reader) (string, error) {
	if path == "-" {
		return readBounded(in, "standard input")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return readBounded(f, path)
}

// parseIDs reads token ids separated by spaces or commas.
func parseIDs(s string) ([]int32, error) {
	var ids []int32
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		id, err := strconv.ParseInt(word, 10, 32)
		if err != nil {
			return nil, usagef("--ids: %q is not a token id", word)
		}
		ids = append(ids, int32(id))
	}
	return ids, nil
}
