package interop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"spinnet/arch"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// A llama2.c model of version 0 is a header of seven int32 and float32 values
// without names: the embedding, then each kind of weight for all layers.

const (
	llama2cHeaderSize = 7 * 4
	llama2cMagic      = "24ka" // of its later versions
	llama2cEps        = 1e-5
	maxVocabFile      = 64 << 20
)

// llama2cTensors are the weights of a layer in the order of the file; those
// of one name follow each other layer by layer.
var llama2cTensors = []string{"attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo",
	"ffn_norm", "feed_forward.gate_proj", "feed_forward.down_proj", "feed_forward.up_proj"}

// llama2cConfig reads the header. untied says that the output has its own
// table.
func llama2cConfig(head []byte) (c arch.Config, err error) {
	if len(head) < llama2cHeaderSize {
		return c, errors.New("shorter than its header")
	}
	word := func(i int) int { return int(int32(binary.LittleEndian.Uint32(head[4*i:]))) }
	c = arch.Config{NEmbd: word(0), HiddenDim: word(1), NLayer: word(2), NHead: word(3), NKVHead: word(4), VocabSize: word(5), BlockSize: word(6),
		Algebra: "real", Quantizer: arch.None, NormEps: llama2cEps}
	if c.VocabSize < 0 {
		c.VocabSize, c.UntiedOutput = -c.VocabSize, true
	}
	if c.NKVHead < 1 || c.HiddenDim < 1 { // what WithDefaults would fill
		return c, errors.New("a header without sizes")
	}
	c = c.WithDefaults()
	return c, c.Validate()
}

// llama2cSize is the size of the file of a valid configuration.
func llama2cSize(c arch.Config) int64 {
	n := int64(c.BlockSize) * int64(c.HeadDim()) // cosines and sines of the rotations
	for _, p := range arch.Params(c) {
		n += int64(p.Len())
	}
	return llama2cHeaderSize + 4*n
}

// isLlama2C reports whether a file is a llama2.c model: it has no magic
// number, but its header says how large it must be.
func isLlama2C(head []byte, size int64) bool {
	if strings.HasPrefix(string(head), llama2cMagic) {
		return true
	}
	c, err := llama2cConfig(head)
	// The size bounds the number of layers, and with it the work here.
	return err == nil && int64(c.NLayer)*int64(c.NEmbd) < size && llama2cSize(c) == size
}

// openLlama2C opens a model of llama2.c.
func (l *Latents) openLlama2C(o Options) error {
	head := make([]byte, min(l.Size, llama2cHeaderSize))
	if _, err := l.file.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return l.fail("", 0, "%v", err)
	}
	if strings.HasPrefix(string(head), llama2cMagic) {
		return l.fail("", 0, "a file of a later version than 0; export it with --version 0")
	}
	var err error
	if l.Config, err = llama2cConfig(head); err != nil {
		return l.fail("", 0, "%v", err)
	}
	c := l.Config
	if want := llama2cSize(c); want != l.Size {
		return l.fail("", 0, "%d bytes, its header asks for %d", l.Size, want)
	}
	byName := map[string]arch.Param{}
	for _, p := range arch.Params(c) {
		byName[p.Name] = p
	}
	at := int64(llama2cHeaderSize)
	next := func(name string) {
		p := byName[name]
		shape, place := storedShape(p, 2), at
		l.Tensors = append(l.Tensors, Stored{Name: name, Source: name, Type: "F32", Shape: shape, Offset: at, Bytes: 4 * int64(p.Len()),
			read: func(dst []float32) error { return readValues(dst, l.file, place, "F32") }})
		at += 4 * int64(p.Len())
	}
	next("tok_embeddings.weight")
	for _, name := range llama2cTensors {
		for i := range c.NLayer {
			next(fmt.Sprintf("layers.%d.%s.weight", i, name))
		}
	}
	next("norm.weight")
	at += 4 * int64(c.BlockSize) * int64(c.HeadDim())
	if c.UntiedOutput {
		next(arch.OutputName)
	}
	l.Tokenizer, err = o.tokenizer(l.File, c.VocabSize, spinfile.TokenizerInfo{}, findLlamaTokenizer)
	return err
}

// findLlamaTokenizer reads the tokenizer beside a model: tokN.bin for a
// vocabulary of N, else tokenizer.bin. It is of kind "" when there is none.
func findLlamaTokenizer(model string, vocab int) (spinfile.TokenizerInfo, error) {
	for _, name := range []string{fmt.Sprintf("tok%d.bin", vocab), "tokenizer.bin"} {
		info, err := readLlamaTokenizer(filepath.Join(filepath.Dir(model), name), vocab)
		if !errors.Is(err, fs.ErrNotExist) {
			return info, err
		}
	}
	return spinfile.TokenizerInfo{}, nil
}

// readLlamaTokenizer reads a file of vocab pieces.
func readLlamaTokenizer(path string, vocab int) (spinfile.TokenizerInfo, error) {
	b, err := readBounded(path, maxVocabFile)
	if err != nil {
		return spinfile.TokenizerInfo{}, err
	}
	return parseLlamaTokenizer(path, b, vocab)
}

// parseLlamaTokenizer reads llama2.c's tokenizer.bin: the length of the
// longest piece, then a score, a length and the text of each.
func parseLlamaTokenizer(path string, b []byte, vocab int) (info spinfile.TokenizerInfo, err error) {
	fail := failing(path, FormatLlama2C)
	if len(b) < 4 || (len(b)-4)/8 < vocab {
		return info, fail("", int64(len(b)), "a tokenizer of %d bytes, too short for %d pieces", len(b), vocab)
	}
	info = spinfile.TokenizerInfo{Kind: tokenizer.KindLlama, Pieces: make([]string, vocab), Scores: make([]float32, vocab)}
	at := 4
	for i := range vocab {
		if len(b)-at < 8 {
			return info, fail("", int64(at), "truncated at piece %d of %d", i, vocab)
		}
		info.Scores[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[at:]))
		n := int(int32(binary.LittleEndian.Uint32(b[at+4:])))
		at += 8
		if n < 0 || n > len(b)-at {
			return info, fail("", int64(at-4), "piece %d has %d bytes, %d are left", i, n, len(b)-at)
		}
		piece := string(b[at : at+n])
		if !utf8.ValidString(piece) {
			return info, fail("", int64(at), "piece %d is not UTF-8", i)
		}
		if i <= tokenizer.LlamaEOS { // written so that no text merges to them
			piece = strings.Trim(piece, "\n")
		}
		info.Pieces[i] = piece
		at += n
	}
	if at != len(b) {
		return info, fail("", int64(at), "%d bytes after piece %d, the last of the model's vocabulary", len(b)-at, vocab-1)
	}
	if _, err := tokenizer.NewLlama(info.Pieces, info.Scores); err != nil {
		return info, fail("", -1, "%v", err)
	}
	return info, nil
}
