package train

import (
	"context"
	"errors"
	"strings"

	"spinnet/engine"
	"spinnet/spinfile"
)

// sample continues sample_prompt with the weights as they are, quantised,
// through the inference engine: what it prints is what a user would get.
// Without a tokenizer or with sample_tokens = 0 it is empty.
func (t *Trainer) sample(ctx context.Context) (string, error) {
	tok := t.data.Tokenizer
	if tok == nil || t.cfg.SampleTokens == 0 {
		return "", nil
	}
	m, err := spinfile.FromLatents(t.model.Config, t.tokenizerInfo(), func(name string) []float32 {
		if p := t.model.Param(name); p != nil {
			return t.host(p.Value)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	e, err := engine.New(m, engine.Options{Threads: t.threads})
	if err != nil {
		return "", err
	}
	defer e.Close()
	prompt, err := tok.Encode(nil, []byte(t.cfg.SamplePrompt))
	if err != nil {
		return "", err
	}
	if len(prompt) == 0 {
		return "", errors.New("train: sample_prompt is empty")
	}
	var text strings.Builder
	text.WriteString(t.cfg.SamplePrompt)
	o := engine.GenerateOptions{MaxTokens: t.cfg.SampleTokens,
		Sample: engine.SampleOptions{Seed: t.cfg.Seed, Temperature: engine.DefaultTemperature}}
	_, err = engine.Generate(ctx, e.NewSession(), tok, prompt, o, func(b []byte) error {
		text.Write(b)
		return nil
	})
	return text.String(), err
}
