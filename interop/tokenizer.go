package interop

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"spinnet/pickle"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// maxMeta bounds the size of a meta.pkl that is read.
const maxMeta = 16 << 20

// tokenizer chooses that of a model: the file's own; where it has none, what
// the options say, and else what find finds, if it is not nil.
func (o Options) tokenizer(model string, vocab int, own spinfile.TokenizerInfo, find func(model string, vocab int) (spinfile.TokenizerInfo, error)) (info spinfile.TokenizerInfo, err error) {
	fail := failing(model, "")
	switch {
	case o.Chars == "" && o.Tokenizer == "":
		if own.Kind != "" || find == nil {
			return own, nil
		}
		return find(model, vocab)
	case o.Chars != "" && o.Tokenizer != "":
		return own, fail("", -1, "characters and a llama2.c tokenizer were given, want one of them")
	case o.Tokenizer != "":
		if info, err = readLlamaTokenizer(o.Tokenizer, vocab); err != nil {
			return own, err
		}
	default:
		if n := utf8.RuneCountInString(o.Chars); n != vocab {
			return own, fail("", -1, "%d characters were given, the model has a vocabulary of %d", n, vocab)
		}
		if _, err := tokenizer.New(tokenizer.KindChars, o.Chars); err != nil {
			return own, fail("", -1, "characters of the model: %s", strings.TrimPrefix(err.Error(), "tokenizer: "))
		}
		info = spinfile.TokenizerInfo{Kind: tokenizer.KindChars, Chars: o.Chars}
	}
	if own.Kind != "" && !own.Equal(info) {
		return own, fail("", -1, "the file has a tokenizer of its own (%s), other than the one given", own.Kind)
	}
	return info, nil
}

// originalTokenizer finds the tokenizer of a model of the original program,
// whose files carry none (SPEC §5): GPT-2 where it fits; fewer ids are
// characters, those of a meta.pkl beside the model, or, for 65,
// TinyShakespeare's. It is of kind "" when nothing says which.
func originalTokenizer(model string, vocab int) (spinfile.TokenizerInfo, error) {
	if vocab > tokenizer.EndOfText {
		return spinfile.GuessTokenizer(vocab), nil
	}
	path := filepath.Join(filepath.Dir(model), pickle.MetaFile)
	data, err := readBounded(path, maxMeta)
	if errors.Is(err, fs.ErrNotExist) {
		return spinfile.GuessTokenizer(vocab), nil
	}
	if err != nil {
		return spinfile.TokenizerInfo{}, err
	}
	chars, err := pickle.Meta(data)
	if err != nil {
		return spinfile.TokenizerInfo{}, failing(path, "")("", -1, "%s", strings.TrimPrefix(err.Error(), "pickle: "))
	}
	if _, err := tokenizer.New(tokenizer.KindChars, chars); err != nil {
		return spinfile.TokenizerInfo{}, failing(path, "")("", -1, "characters of the model: %s", strings.TrimPrefix(err.Error(), "tokenizer: "))
	}
	return spinfile.TokenizerInfo{Kind: tokenizer.KindChars, Chars: chars}, nil
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("interop: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("interop: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, failing(path, "")("", -1, "over %d bytes", limit)
	}
	return b, nil
}
