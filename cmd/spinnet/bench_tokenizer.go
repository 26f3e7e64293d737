package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"spinnet/corpus"
	"spinnet/tokenizer"
)

func init() { benches = append(benches, bench{"tokenizer/gpt2", benchTokenizer}) }

// benchTokenizer measures GPT-2 encoding on one core: on the embedded corpus,
// and on TinyStories where the file lies beside the repository.
func benchTokenizer(b *benchContext) error {
	texts := []struct {
		name string
		text []byte
	}{{"tinyshakespeare", []byte(corpus.TinyShakespeare)}}
	stories, err := os.ReadFile("../shared/data/tinystories_train.txt")
	if err == nil {
		texts = append(texts, texts[0])
		texts[1].name, texts[1].text = "tinystories_train", stories
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, x := range texts {
		t := tokenizer.GPT2()
		var ids []int32
		took, allocs := b.Measure(func() { ids, err = t.Encode(ids[:0], x.text) })
		if err != nil {
			return err
		}
		err := b.Report(benchResult{
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
