package interop

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"spinnet/pickle"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// maxMeta bounds the size of a meta.pkl that is read.
const maxMeta = 16 << 20

// originalTokenizer finds the tokenizer of a model of the original program,
// whose files carry none (SPEC §5): GPT-2 for more than 256 ids; fewer are
// characters: those of the options, of a meta.pkl beside the model, or, for
// 65, TinyShakespeare's. It is of kind "" when nothing says which.
func originalTokenizer(model string, vocab int, o Options) (spinfile.TokenizerInfo, error) {
	chars := o.Chars
	if vocab > 256 {
		return spinfile.GuessTokenizer(vocab), nil
	}
	if chars == "" {
		path := filepath.Join(filepath.Dir(model), pickle.MetaFile)
		data, err := readBounded(path, maxMeta)
		if errors.Is(err, fs.ErrNotExist) {
			return spinfile.GuessTokenizer(vocab), nil
		}
		if err != nil {
			return spinfile.TokenizerInfo{}, err
		}
		if chars, err = pickle.Meta(data); err != nil {
			return spinfile.TokenizerInfo{}, failing(path, "")("", -1, "%s", strings.TrimPrefix(err.Error(), "pickle: "))
		}
	}
	if _, err := tokenizer.New(tokenizer.KindChars, chars); err != nil {
		return spinfile.TokenizerInfo{}, fmt.Errorf("interop: %s: characters of the model: %w", model, err)
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
