package tokenizer

import (
	"errors"
	"strconv"
	"strings"
)

// Ids that begin and end a text in models of kind llama. Encode yields
// neither: whoever prompts such a model begins with LlamaBOS.
const (
	LlamaBOS = 1
	LlamaEOS = 2
)

// llamaTokenizer is SentencePiece's byte-pair encoding as llama2.c has it: a
// text, with a space before it, is cut into characters; then the pair of
// neighbours that makes the piece with the highest score is joined, the
// leftmost of equals, until no pair makes a piece. A character that is no
// piece becomes its bytes.
type llamaTokenizer struct {
	texts   []string // that ids stand for
	scores  []float32
	ids     map[string]int32 // of pieces, but for bytes and controls
	bytes   [256]int32       // of the pieces <0x00> … <0xFF>, or −1
	longest int              // piece, in bytes
}

// NewLlama makes the tokenizer of kind "llama" of the pieces of its ids and
// their scores, as llama2.c's and GGUF files have them, with plain spaces.
// Ids 0 to 2 are unknown, begin and end, which stand for no text.
func NewLlama(pieces []string, scores []float32) (Tokenizer, error) {
	if len(pieces) < 3 || len(pieces) != len(scores) {
		return nil, errors.New("tokenizer: " + strconv.Itoa(len(pieces)) + " pieces and " + strconv.Itoa(len(scores)) + " scores, want 3 or more and as many")
	}
	t := &llamaTokenizer{texts: make([]string, len(pieces)), scores: scores, ids: make(map[string]int32, len(pieces))}
	for i := range t.bytes {
		t.bytes[i] = -1
	}
	for i, p := range pieces {
		if s := scores[i]; s-s != 0 {
			return nil, errors.New("tokenizer: piece " + strconv.Itoa(i) + " has a score that is not finite")
		}
		if i <= LlamaEOS {
			continue
		}
		if b, ok := bytePiece(p); ok {
			t.texts[i] = string([]byte{b})
			if t.bytes[b] < 0 {
				t.bytes[b] = int32(i)
			}
			continue
		}
		t.texts[i] = p
		if _, twice := t.ids[p]; !twice && p != "" {
			t.ids[p] = int32(i)
			t.longest = max(t.longest, len(p))
		}
	}
	return t, nil
}

// bytePiece reads <0xNN>.
func bytePiece(p string) (byte, bool) {
	if len(p) != 6 || !strings.HasPrefix(p, "<0x") || p[5] != '>' {
		return 0, false
	}
	v, err := strconv.ParseUint(p[3:5], 16, 8)
	return byte(v), err == nil
}

// symbol is a token in the making.
type symbol struct {
	start, end int   // of its text
	next, prev int32 // neighbours, −1 for none
	id         int32 // −1 once it is part of the one before
	isByte     bool  // bytes of a character join nothing
}

// merge is a pair that could be joined.
type merge struct {
	score    float32
	left, id int32 // its first symbol, and what it becomes
	end      int   // of its text: the pair has changed since if it differs
}

// before says which of two pairs is joined first.
func (m merge) before(o merge) bool {
	return m.score > o.score || m.score == o.score && m.left < o.left
}

// merges is a heap, the first pair on top.
type merges []merge

func (h *merges) push(m merge) {
	s := append(*h, m)
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if !s[i].before(s[up]) {
			break
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
	*h = s
}

func (h *merges) pop() merge {
	s := *h
	top := s[0]
	s[0] = s[len(s)-1]
	s = s[:len(s)-1]
	for i := 0; ; {
		first := 2*i + 1
		if first >= len(s) {
			break
		}
		if second := first + 1; second < len(s) && s[second].before(s[first]) {
			first = second
		}
		if !s[first].before(s[i]) {
			break
		}
		s[i], s[first] = s[first], s[i]
		i = first
	}
	*h = s
	return top
}

// lowestScore is what llama2.c starts its search from: pieces below it are
// never made.
const lowestScore = -1e10

func (t *llamaTokenizer) Encode(dst []int32, text []byte) ([]int32, error) {
	if len(text) == 0 {
		return dst, nil
	}
	text = append([]byte{' '}, text...)
	symbols, err := t.characters(text)
	if err != nil {
		return dst, err
	}
	var heap merges
	consider := func(left int32) {
		if left < 0 || symbols[left].next < 0 {
			return
		}
		a, b := &symbols[left], &symbols[symbols[left].next]
		if a.isByte || b.isByte || b.end-a.start > t.longest {
			return
		}
		if id, ok := t.ids[string(text[a.start:b.end])]; ok && t.scores[id] > lowestScore {
			heap.push(merge{t.scores[id], left, id, b.end})
		}
	}
	for i := range symbols {
		consider(int32(i))
	}
	for len(heap) > 0 {
		m := heap.pop()
		a := &symbols[m.left]
		if a.id < 0 || a.next < 0 || symbols[a.next].end != m.end {
			continue // one of the two was joined with another
		}
		b := &symbols[a.next]
		a.id, a.end, a.next, b.id = m.id, b.end, b.next, -1
		if a.next >= 0 {
			symbols[a.next].prev = m.left
		}
		consider(a.prev)
		consider(m.left)
	}
	for i := int32(0); i >= 0; i = symbols[i].next {
		dst = append(dst, symbols[i].id)
	}
	return dst, nil
}

// characters cuts a text, which begins with the added space, into single
// characters.
func (t *llamaTokenizer) characters(text []byte) ([]symbol, error) {
	symbols := make([]symbol, 0, len(text))
	add := func(s symbol) {
		s.prev, s.next = int32(len(symbols))-1, int32(len(symbols))+1
		symbols = append(symbols, s)
	}
	for at := 0; at < len(text); {
		end := at + 1
		for end < len(text) && text[end]&0xc0 == 0x80 && end-at < 4 {
			end++
		}
		if id, ok := t.ids[string(text[at:end])]; ok {
			add(symbol{start: at, end: end, id: id})
		} else {
			for i := at; i < end; i++ {
				id := t.bytes[text[i]]
				if id < 0 {
					return nil, &InputError{max(0, at-1), "character " + strconv.Quote(string(text[at:end])) + " is not in the vocabulary"}
				}
				add(symbol{start: i, end: i + 1, id: id, isByte: true})
			}
		}
		at = end
	}
	symbols[len(symbols)-1].next = -1
	return symbols, nil
}

func (t *llamaTokenizer) AppendDecode(dst []byte, id int32) ([]byte, error) {
	if id < 0 || int(id) >= len(t.texts) {
		return dst, idError(id, len(t.texts))
	}
	return append(dst, t.texts[id]...), nil
}

func (t *llamaTokenizer) VocabSize() int { return len(t.texts) }
func (t *llamaTokenizer) Kind() string   { return KindLlama }
func (t *llamaTokenizer) Chars() string  { return "" }

// Cut gives no place: each text gets a space before it.
func (t *llamaTokenizer) Cut([]byte) int { return 0 }
