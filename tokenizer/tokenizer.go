// Package tokenizer turns text into token ids and back: characters, bytes,
// GPT-2 byte-pair encoding, and the pieces of Llama models. It imports nothing of ours, and neither fmt, os,
// regexp nor encoding/json, because it is also compiled into the WebAssembly
// module.
package tokenizer

import (
	"errors"
	"strconv"
)

// Kinds of tokenizer, as they stand in manifests, model files and flags.
const (
	KindChars = "chars"
	KindBytes = "bytes"
	KindGPT2  = "gpt2"
	KindLlama = "llama"
)

// EndOfText is GPT-2's id for the text "<|endoftext|>", which separates
// documents. Encode never yields it: whoever wants it appends it.
const EndOfText = 50256

// Tokenizer maps text to ids 0 … VocabSize()−1 and back. Implementations are
// safe for concurrent use.
type Tokenizer interface {
	// Encode appends the ids of text to dst. The error, when there is one, is
	// an *InputError that gives the byte offset.
	Encode(dst []int32, text []byte) ([]int32, error)
	// AppendDecode appends the bytes of one token to dst; it fails only for an
	// id outside the vocabulary. The bytes of one token need not be whole
	// UTF-8 characters.
	AppendDecode(dst []byte, id int32) ([]byte, error)
	// VocabSize is the number of ids.
	VocabSize() int
	// Kind is "chars", "bytes", "gpt2" or "llama".
	Kind() string
	// Chars is the character vocabulary, sorted and distinct, id by id; ""
	// unless Kind is "chars".
	Chars() string
	// Cut returns the largest n such that text[:n] and text[n:] can be encoded
	// apart, whatever follows text, with the same ids as together; 0 when
	// there is no such place.
	Cut(text []byte) int
}

// InputError says that a text cannot be encoded, and where.
type InputError struct {
	Offset int    // in bytes from the start of the text given to Encode
	Reason string // such as `character "é" is not in the vocabulary`
}

// Error gives the reason and the byte offset.
func (e *InputError) Error() string {
	return "tokenizer: " + e.Reason + " at byte " + strconv.Itoa(e.Offset)
}

// New makes a tokenizer by kind; chars is the vocabulary of kind "chars",
// sorted and distinct, and must be "" for the others. NewLlama makes those of
// kind "llama".
func New(kind, chars string) (Tokenizer, error) {
	if kind != KindChars && chars != "" {
		return nil, errors.New("tokenizer: kind " + strconv.Quote(kind) + " takes no character vocabulary")
	}
	switch kind {
	case KindChars:
		return newChars(chars)
	case KindBytes:
		return byteTokenizer{}, nil
	case KindGPT2:
		return GPT2(), nil
	}
	return nil, errors.New("tokenizer: unknown kind " + strconv.Quote(kind) + " (want gpt2, bytes or chars)")
}

// Decode appends the bytes of all ids, a text from its beginning, to dst.
func Decode(t Tokenizer, dst []byte, ids []int32) ([]byte, error) {
	var err error
	prev := int32(LlamaBOS)
	for _, id := range ids {
		if dst, err = AppendAfter(t, dst, prev, id); err != nil {
			return dst, err
		}
		prev = id
	}
	return dst, nil
}

// AppendAfter appends the bytes of a token that follows another to dst. They
// differ from AppendDecode's where a text of kind "llama" begins: the space
// that Encode puts before a text is not given back.
func AppendAfter(t Tokenizer, dst []byte, prev, id int32) ([]byte, error) {
	start := len(dst)
	dst, err := t.AppendDecode(dst, id)
	if err == nil && prev == LlamaBOS && t.Kind() == KindLlama && len(dst) > start && dst[start] == ' ' {
		dst = append(dst[:start], dst[start+1:]...)
	}
	return dst, err
}

// idError says that an id is outside a vocabulary.
func idError(id int32, vocab int) error {
	return errors.New("tokenizer: token id " + strconv.Itoa(int(id)) + " is outside the vocabulary of " + strconv.Itoa(vocab))
}

// byteTokenizer: the id of a byte is its value.
type byteTokenizer struct{}

func (byteTokenizer) Encode(dst []int32, text []byte) ([]int32, error) {
	for _, b := range text {
		dst = append(dst, int32(b))
	}
	return dst, nil
}

func (byteTokenizer) AppendDecode(dst []byte, id int32) ([]byte, error) {
	if uint32(id) > 255 {
		return dst, idError(id, 256)
	}
	return append(dst, byte(id)), nil
}

func (byteTokenizer) VocabSize() int      { return 256 }
func (byteTokenizer) Kind() string        { return KindBytes }
func (byteTokenizer) Chars() string       { return "" }
func (byteTokenizer) Cut(text []byte) int { return len(text) }
