package tokenizer

import (
	"errors"
	"slices"
	"strconv"
	"unicode/utf8"
)

// charTokenizer: id i is the i-th of the sorted distinct characters (Unicode
// code points) of a vocabulary.
type charTokenizer struct {
	chars string
	runes []rune
	ascii [utf8.RuneSelf]int32 // id of an ASCII character, or −1
	other map[rune]int32       // the rest
}

func newChars(chars string) (*charTokenizer, error) {
	if chars == "" {
		return nil, errors.New("tokenizer: the character vocabulary is empty")
	}
	if !utf8.ValidString(chars) {
		return nil, errors.New("tokenizer: the character vocabulary is not valid UTF-8")
	}
	t := &charTokenizer{chars: chars, runes: []rune(chars), other: make(map[rune]int32)}
	for i := range t.ascii {
		t.ascii[i] = -1
	}
	for i, r := range t.runes {
		if i > 0 && t.runes[i-1] >= r {
			return nil, errors.New("tokenizer: the character vocabulary is not sorted and distinct at character " + strconv.Itoa(i))
		}
		if r < utf8.RuneSelf {
			t.ascii[r] = int32(i)
		} else {
			t.other[r] = int32(i)
		}
	}
	return t, nil
}

func (t *charTokenizer) Encode(dst []int32, text []byte) ([]int32, error) {
	for i := 0; i < len(text); {
		if b := text[i]; b < utf8.RuneSelf {
			id := t.ascii[b]
			if id < 0 {
				return dst, &InputError{i, "character " + strconv.QuoteRune(rune(b)) + " is not in the vocabulary"}
			}
			dst = append(dst, id)
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return dst, &InputError{i, "invalid UTF-8"}
		}
		id, ok := t.other[r]
		if !ok {
			return dst, &InputError{i, "character " + strconv.QuoteRune(r) + " is not in the vocabulary"}
		}
		dst = append(dst, id)
		i += size
	}
	return dst, nil
}

func (t *charTokenizer) AppendDecode(dst []byte, id int32) ([]byte, error) {
	if id < 0 || int(id) >= len(t.runes) {
		return dst, idError(id, len(t.runes))
	}
	return utf8.AppendRune(dst, t.runes[id]), nil
}

func (t *charTokenizer) VocabSize() int { return len(t.runes) }
func (t *charTokenizer) Kind() string   { return KindChars }
func (t *charTokenizer) Chars() string  { return t.chars }

func (t *charTokenizer) Cut(text []byte) int { return wholeRunes(text) }

// wholeRunes is the length of text without an incomplete UTF-8 character at
// its end.
func wholeRunes(text []byte) int {
	for i := len(text) - 1; i >= 0 && i >= len(text)-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			if utf8.FullRune(text[i:]) {
				break
			}
			return i
		}
	}
	return len(text)
}

// CharSet collects the distinct characters of a text given piece by piece.
// The zero value is empty.
type CharSet struct {
	ascii [utf8.RuneSelf]bool
	other map[rune]struct{}
}

// Add adds the characters of text up to the first byte that is not valid UTF-8
// (or begins a character that is cut off), and returns the offset of that byte,
// or len(text).
func (s *CharSet) Add(text []byte) int {
	for i := 0; i < len(text); {
		if b := text[i]; b < utf8.RuneSelf {
			s.ascii[b] = true
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		if s.other == nil {
			s.other = make(map[rune]struct{})
		}
		s.other[r] = struct{}{}
		i += size
	}
	return len(text)
}

// String returns the characters, sorted: the vocabulary New takes.
func (s *CharSet) String() string {
	var runes []rune
	for r, ok := range s.ascii {
		if ok {
			runes = append(runes, rune(r))
		}
	}
	for r := range s.other {
		runes = append(runes, r)
	}
	slices.Sort(runes)
	return string(runes)
}
