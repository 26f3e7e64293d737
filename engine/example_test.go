package engine_test

import (
	"context"
	"fmt"
	"os"

	"spinnet/engine"
	"spinnet/interop"
	"spinnet/tokenizer"
)

func Example() {
	m, err := interop.Open("../model/testdata/seed_tiny")
	if err != nil {
		panic(err)
	}
	tok, err := tokenizer.New(m.Tokenizer.Kind, m.Tokenizer.Chars)
	if err != nil {
		panic(err)
	}
	e, err := engine.New(m, engine.Options{Threads: 1})
	if err != nil {
		panic(err)
	}
	defer e.Close()

	prompt, err := tok.Encode(nil, []byte("First Citizen:\nB"))
	if err != nil {
		panic(err)
	}
	o := engine.GenerateOptions{MaxTokens: 19, Sample: engine.SampleOptions{Temperature: 0}}
	r, err := engine.Generate(context.Background(), e.NewSession(), tok, prompt, o, func(text []byte) error {
		_, err := os.Stdout.Write(text)
		return err
	})
	if err != nil {
		panic(err)
	}
	fmt.Printf("\n%d tokens, %s\n", r.Tokens, r.Reason)

	score, err := e.Score(context.Background(), prompt, nil)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%.3f nats a token\n", score.Loss)
	// Output:
	// ure the the the the
	// 19 tokens, length
	// 2.878 nats a token
}
