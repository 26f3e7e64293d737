package engine

import (
	"testing"

	"spinnet/spinfile"
	"spinnet/tokenizer"
)

func TestNewTokenizer(t *testing.T) {
	keep := []int32{}
	for id := range int32(256) {
		keep = append(keep, id)
	}
	for _, c := range []struct {
		info  spinfile.TokenizerInfo
		vocab int // 0: an error
	}{
		{spinfile.TokenizerInfo{Kind: "chars", Chars: "ab"}, 2},
		{spinfile.TokenizerInfo{Kind: "bytes"}, 256},
		{spinfile.TokenizerInfo{Kind: "gpt2"}, 50257},
		{spinfile.TokenizerInfo{Kind: "gpt2", Keep: append(keep, tokenizer.EndOfText)}, 257},
		{spinfile.TokenizerInfo{Kind: "gpt2", Keep: []int32{5}}, 0},
		{spinfile.TokenizerInfo{}, 0},
	} {
		tok, err := NewTokenizer(c.info)
		if c.vocab == 0 {
			if err == nil {
				t.Errorf("%+v was taken", c.info)
			}
		} else if err != nil || tok.VocabSize() != c.vocab {
			t.Errorf("%s: %v, want %d tokens", c.info.Kind, err, c.vocab)
		}
	}
}
