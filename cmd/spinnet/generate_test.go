package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"spinnet/engine"
)

const seedTiny = "../../model/testdata/seed_tiny"

// spinnetCmd runs a command line with text on standard input.
func spinnetCmd(t testing.TB, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, log bytes.Buffer
	root := newRootCmd()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&log)
	err = root.Execute()
	return out.String(), log.String(), err
}

func TestGenerateCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "prompt")
	if err := os.WriteFile(file, []byte("First Citizen:\nB"), 0o644); err != nil {
		t.Fatal(err)
	}
	const greedy = "ure the the the the the the the the t th" // of the original
	for _, c := range []struct {
		name, stdin, want string
		args              []string
	}{
		{"prompt", "unread", greedy + "\n", []string{"--prompt", "First Citizen:\nB", "-n", "40"}},
		{"file", "", greedy + "\n", []string{"--prompt-file", file, "-n", "40"}},
		{"stdin", "First Citizen:\nB", greedy + "\n", []string{"-n", "40"}},
		{"dash", "First Citizen:\nB", greedy + "\n", []string{"-n", "40", "--prompt-file", "-"}},
		{"stop", "First Citizen:\nB", "ure \n", []string{"-n", "40", "--stop", "the", "--stop", "zzz"}},
		{"echo", "First Citizen:\nB", "First Citizen:\nBure \n", []string{"-n", "4", "--echo"}},
		{"samples", "First Citizen:\nB", "ure \n----- sample 2 -----\nure \n", []string{"-n", "4", "--num-samples", "2"}},
		{"json", "First Citizen:\nB", `{"prompt":"First Citizen:\nB","text":"ure ","seed":1,"prompt_tokens":16,"tokens":4,"reason":"length"}` + "\n", []string{"-n", "4", "--json"}},
		{"nothing", "First Citizen:\nB", "\n", []string{"-n", "0"}},
	} {
		got, _, err := spinnetCmd(t, c.stdin, append([]string{"generate", seedTiny, "-t", "0", "--threads", "1"}, c.args...)...)
		if err != nil || got != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	first, _, err := spinnetCmd(t, "", "generate", seedTiny, "--max-tokens", "100", "--seed", "5")
	if err != nil || len(first) < 100 {
		t.Errorf("empty prompt: got %q, %v", first, err)
	}
	again, log, err := spinnetCmd(t, "", "generate", seedTiny, "--max-tokens", "100", "--seed", "5", "--threads", "2", "--stats")
	if err != nil || again != first {
		t.Errorf("the same seed: got %q, %v; want %q", again, err, first)
	}
	for _, word := range []string{"load", "prefill", "decode"} {
		if !strings.Contains(log, word) {
			t.Errorf("--stats says nothing of %s: %q", word, log)
		}
	}
}

func TestGenerateCommandBad(t *testing.T) {
	for _, c := range []struct {
		want  string
		usage bool
		args  []string
	}{
		{"character 'é' is not in the vocabulary at byte 1", false, []string{seedTiny, "--prompt", "aé"}},
		{"no such file", false, []string{"nowhere", "--prompt", "a"}},
		{"no such file", false, []string{seedTiny, "--prompt-file", "nowhere"}},
		{"not a model file", false, []string{"generate.go", "--prompt", "a"}},
		{"no model in it", false, []string{".", "--prompt", "a"}},
		{"top-p", true, []string{seedTiny, "--prompt", "a", "--top-p", "2"}},
		{"--stop", true, []string{seedTiny, "--prompt", "a", "--stop", ""}},
		{"--num-samples 0", true, []string{seedTiny, "--prompt", "a", "--num-samples", "0"}},
		{"--max-tokens -1", true, []string{seedTiny, "--prompt", "a", "--max-tokens", "-1"}},
		{"--threads -1", true, []string{seedTiny, "--prompt", "a", "--threads", "-1"}},
	} {
		out, _, err := spinnetCmd(t, "", append([]string{"generate"}, c.args...)...)
		_, usage := errors.AsType[*usageError](err)
		if err == nil || !strings.Contains(err.Error(), c.want) || usage != c.usage || out != "" {
			t.Errorf("%v: got %q, %v (usage error: %v); want %q", c.args, out, err, usage, c.want)
		}
	}
}

func TestScoreCommand(t *testing.T) {
	b, err := os.ReadFile(seedTiny + "/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		IDs        []int32   `json:"ids"`
		Loss       float64   `json:"loss"`
		LastLogits []float32 `json:"last_logits"`
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	ids, err := json.Marshal(want.IDs)
	if err != nil {
		t.Fatal(err)
	}
	const text = "First Citizen:\nBefore we proceed any further, hear me speak.\n"
	for _, c := range []struct {
		name, stdin string
		args        []string
	}{
		{"text", "", []string{"--text", text}},
		{"ids", "", []string{"--ids", strings.Trim(string(ids), "[]")}},
		{"stdin", text, []string{"--file", "-"}},
	} {
		out, _, err := spinnetCmd(t, c.stdin, append([]string{"score", seedTiny, "--json", "--logits"}, c.args...)...)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got scored
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		if math.Abs(got.Loss-want.Loss) > 1e-6*want.Loss || got.Tokens != 60 || len(got.LogProbs) != 60 || len(got.Logits) != 65 {
			t.Errorf("%s: got %+v", c.name, got)
		}
		if bits := want.Loss / math.Ln2; math.Abs(*got.BitsPerByte-bits) > 1e-5 { // one byte a token
			t.Errorf("%s: %v bits a byte, want %v", c.name, *got.BitsPerByte, bits)
		}
		for i, l := range got.Logits {
			if math.Abs(float64(l-want.LastLogits[i])) > 1e-4 {
				t.Errorf("%s: logit %d is %v, want %v", c.name, i, l, want.LastLogits[i])
			}
		}
	}
	out, _, err := spinnetCmd(t, "", "score", seedTiny, "--text", text)
	if err != nil || !strings.HasPrefix(out, "loss           2.507932 nats a token\n") || !strings.Contains(out, "tokens         60") {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestScoreCommandBad(t *testing.T) {
	for _, c := range []struct {
		want string
		args []string
	}{
		{"nothing to score", nil},
		{"at least 2 tokens", []string{"--text", ""}},
		{"not in the vocabulary", []string{"--text", "1234"}},
		{"outside the vocabulary of 65", []string{"--ids", "3,65"}},
		{`"x" is not a token id`, []string{"--ids", "3 x"}},
		{"no such file", []string{"--file", "nowhere"}},
	} {
		out, _, err := spinnetCmd(t, "", append([]string{"score", seedTiny}, c.args...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) || out != "" {
			t.Errorf("%v: got %q, %v; want %q", c.args, out, err, c.want)
		}
	}
}

// A line may be long, and one that cannot be read is an error.
func TestInteractLongLine(t *testing.T) {
	for _, c := range []struct {
		in   io.Reader
		want string
	}{
		{strings.NewReader(strings.Repeat("a", 70_000) + "\n\n"), ""},
		{iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("abc"))), "reading a prompt: timeout"},
	} {
		var out bytes.Buffer
		f := &generateFlags{samples: 1, engineFlags: engineFlags{kvCache: "float", device: deviceCPU}}
		f.options.MaxTokens, f.options.Sample = 1, engine.SampleOptions{RepetitionPenalty: 1}
		l, err := loadModel(seedTiny, &f.engineFlags, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		g := &generator{loaded: l, flags: f, out: &out, log: io.Discard}
		err = g.interact(t.Context(), c.in)
		if c.want == "" && (err != nil || g.total.PromptTokens != 70_000) || c.want != "" && (err == nil || err.Error() != c.want) {
			t.Errorf("%d tokens, %v; want %q", g.total.PromptTokens, err, c.want)
		}
	}
}

// A stopped conversion writes no more.
func TestStoppable(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	w := stoppable{ctx, io.Discard}
	if n, err := w.Write([]byte("x")); n != 1 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	stop()
	if _, err := w.Write([]byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
