package engine

import (
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// NewTokenizer makes the tokenizer that a model names. A model that names none
// (Kind is "") gives an error.
func NewTokenizer(info spinfile.TokenizerInfo) (tokenizer.Tokenizer, error) {
	switch {
	case info.Kind == tokenizer.KindGPT2 && len(info.Keep) > 0:
		return tokenizer.NewTrimmed(info.Keep)
	case info.Kind == tokenizer.KindLlama:
		return tokenizer.NewLlama(info.Pieces, info.Scores)
	}
	return tokenizer.New(info.Kind, info.Chars)
}
