package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"spinnet/corpus"
	"spinnet/tokenizer"
)

func init() { benches = append(benches, bench{"tokenizer/gpt2", benchTokenizer}) }

// benchTokenizer measures GPT-2 encoding on one core: of the embedded corpus, and of
// the file that is named.
func benchTokenizer(b *benchContext) error {
	type named struct {
		name string
		text []byte
	}
	texts := []named{{"tinyshakespeare", []byte(corpus.TinyShakespeare)}}
	if b.text != "" {
		text, err := os.ReadFile(b.text)
		if err != nil {
			return err
		}
		texts = append(texts, named{strings.TrimSuffix(filepath.Base(b.text), filepath.Ext(b.text)), text})
	}
	for _, x := range texts {
		t := tokenizer.GPT2()
		var ids []int32
		var err error
		took, allocs := b.Measure(func() { ids, err = t.Encode(ids[:0], x.text) })
		if err != nil {
			return err
		}
		err = b.Report(benchResult{
			Shape: fmt.Sprintf("%s %.1f MB", x.name, float64(len(x.text))/1e6), Threads: 1,
			Ms: took.Seconds() * 1e3, TokensPerS: float64(len(ids)) / took.Seconds(),
			MBPerS: float64(len(x.text)) / 1e6 / took.Seconds(), Allocs: &allocs,
		})
		if err != nil {
			return err
		}
	}
	return nil
}
