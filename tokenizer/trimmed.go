package tokenizer

import (
	"errors"
	"strconv"
)

// Trimmed is the GPT-2 tokenizer with a part of its tokens, which have the ids
// 0 … n−1 in GPT-2's order. What GPT-2 would make of a text is taken, and each
// token that is not kept is replaced by the two that it was merged from, and
// these in turn, down to single bytes. So any text still has ids, and they
// decode to it.
type Trimmed struct {
	bpe  *BPE
	keep []int32 // GPT-2's id of each id
	ids  []int32 // the id of each of GPT-2's, or −1
}

// NewTrimmed makes the tokenizer that keeps these ids of GPT-2, ascending, all
// 256 single bytes among them (they are GPT-2's first).
func NewTrimmed(keep []int32) (*Trimmed, error) {
	t := &Trimmed{bpe: GPT2(), keep: append([]int32(nil), keep...), ids: make([]int32, gpt2Tokens+1)}
	for i := range t.ids {
		t.ids[i] = -1
	}
	last := int32(-1)
	for i, id := range keep {
		if id <= last || id > gpt2Tokens {
			return nil, errors.New("tokenizer: the trimmed vocabulary has GPT-2's id " + strconv.Itoa(int(id)) + " at " + strconv.Itoa(i) +
				", want ascending ids up to " + strconv.Itoa(gpt2Tokens))
		}
		t.ids[id] = int32(i)
		last = id
	}
	for id := range 256 {
		if t.ids[id] < 0 {
			return nil, errors.New("tokenizer: the trimmed vocabulary lacks the byte of GPT-2's id " + strconv.Itoa(id))
		}
	}
	return t, nil
}

// Encode implements Tokenizer; it never fails.
func (t *Trimmed) Encode(dst []int32, text []byte) ([]int32, error) {
	from := len(dst)
	dst, err := t.bpe.Encode(dst, text)
	if err != nil {
		return dst, err
	}
	whole := true
	for i, id := range dst[from:] {
		if t.ids[id] < 0 {
			whole = false
			from += i
			break
		}
		dst[from+i] = t.ids[id]
	}
	if whole {
		return dst, nil
	}
	rest := append([]int32(nil), dst[from:]...)
	dst = dst[:from]
	for _, id := range rest {
		dst = t.expand(dst, id)
	}
	return dst, nil
}

// expand appends the ids of a token of GPT-2.
func (t *Trimmed) expand(dst []int32, id int32) []int32 {
	if kept := t.ids[id]; kept >= 0 {
		return append(dst, kept)
	}
	left, right := parts(id)
	return t.expand(t.expand(dst, left), right)
}

// parts gives the two tokens that a token of GPT-2 over 255 was merged from.
func parts(id int32) (left, right int32) {
	p := gpt2Data[256+4*(id-256):][:4]
	return int32(p[0]) | int32(p[1])<<8, int32(p[2]) | int32(p[3])<<8
}

// AppendDecode implements Tokenizer.
func (t *Trimmed) AppendDecode(dst []byte, id int32) ([]byte, error) {
	if id < 0 || int(id) >= len(t.keep) {
		return dst, idError(id, len(t.keep))
	}
	return t.bpe.AppendDecode(dst, t.keep[id])
}

// VocabSize is the number of tokens kept.
func (t *Trimmed) VocabSize() int { return len(t.keep) }

// Kind is "gpt2".
func (t *Trimmed) Kind() string { return KindGPT2 }

// Chars is "".
func (t *Trimmed) Chars() string { return "" }

// Cut implements Tokenizer.
func (t *Trimmed) Cut(text []byte) int { return t.bpe.Cut(text) }

// End gives the id that ends a text, in a vocabulary that has one. GPT-2's,
// "<|endoftext|>", stands between documents.
func End(t Tokenizer) (id int32, ok bool) {
	switch t := t.(type) {
	case *BPE:
		return EndOfText, true
	case *Trimmed:
		id := t.ids[EndOfText]
		return id, id >= 0
	case *llamaTokenizer:
		return LlamaEOS, true
	}
	return 0, false
}

// EncodeText gives the ids of a text from its beginning: those of Encode,
// behind the id that begins a text in a vocabulary of kind "llama".
func EncodeText(t Tokenizer, text string) ([]int32, error) {
	var ids []int32
	if t.Kind() == KindLlama {
		ids = append(ids, LlamaBOS)
	}
	return t.Encode(ids, []byte(text))
}

// Prompt gives the ids that a text is continued from: at least one. Without a
// prompt it is the id that ends a text, after which the next begins, else that
// of a line's end, else the first.
func Prompt(t Tokenizer, prompt string) ([]int32, error) {
	ids, err := EncodeText(t, prompt)
	if err != nil || len(ids) > 0 {
		return ids, err
	}
	if id, ok := End(t); ok {
		return []int32{id}, nil
	}
	if ids, err := t.Encode(nil, []byte("\n")); err == nil {
		return ids, nil
	}
	return []int32{0}, nil
}
