package tokenizer

import (
	"math/bits"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Character classes of GPT-2's word pattern. An invalid byte of UTF-8 counts
// as "other".
const (
	classOther  = iota
	classLetter // \p{L}
	classNumber // \p{N}
	classSpace  // \s: Unicode White_Space, so with U+0085 and without U+FEFF
	classHigh   // in byteClass: not ASCII, ask runeClass
)

// byteClass is the class of a byte.
var byteClass = func() (c [256]uint8) {
	for b := range c {
		switch {
		case b >= utf8.RuneSelf:
			c[b] = classHigh
		case b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z':
			c[b] = classLetter
		case b >= '0' && b <= '9':
			c[b] = classNumber
		case b == ' ' || b >= '\t' && b <= '\r':
			c[b] = classSpace
		}
	}
	return c
}()

// planeClass gives the class of every character below U+10000; it saves the
// binary searches of package unicode.
var planeClass = sync.OnceValue(func() *[1 << 16]uint8 {
	c := new([1 << 16]uint8)
	for _, s := range []struct {
		table *unicode.RangeTable
		class uint8
	}{{unicode.L, classLetter}, {unicode.N, classNumber}, {unicode.White_Space, classSpace}} {
		for _, r := range s.table.R16 {
			for x := int(r.Lo); x <= int(r.Hi); x += int(r.Stride) {
				c[x] = s.class
			}
		}
	}
	return c
})

// runeAt decodes the character at text[i] (not ASCII) and gives its class and
// size; an invalid byte has size 1.
func runeAt(text []byte, i int, plane *[1 << 16]uint8) (class uint8, size int) {
	r, size := utf8.DecodeRune(text[i:])
	switch {
	case size == 1:
		return classOther, 1
	case r < 1<<16:
		return plane[r], size
	case unicode.Is(unicode.L, r):
		return classLetter, size
	case unicode.Is(unicode.N, r):
		return classNumber, size
	}
	return classOther, size // there is no white space above U+10000
}

// nextWord returns the end of the word that begins at text[i], by GPT-2's
// pattern, whose alternatives are tried in this order:
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func nextWord(text []byte, i int, plane *[1 << 16]uint8) int {
	k := i
	class := byteClass[text[i]]
	size := 1
	switch {
	case class == classSpace:
		if text[i] == ' ' && i+1 < len(text) { // " ?": the space goes with what follows
			k = i + 1
			class = byteClass[text[k]]
			if class == classHigh {
				class, size = runeAt(text, k, plane)
			}
		}
		if class == classSpace {
			return endOfSpace(text, i, plane)
		}
	case class == classHigh:
		if class, size = runeAt(text, i, plane); class == classSpace {
			return endOfSpace(text, i, plane)
		}
	case text[i] == '\'':
		if n := contraction(text[i+1:]); n > 0 {
			return i + 1 + n
		}
	}
	for k += size; k < len(text); {
		switch c := byteClass[text[k]]; c {
		case class:
			k++
		case classHigh:
			c, size := runeAt(text, k, plane)
			if c != class {
				return k
			}
			k += size
		default:
			return k
		}
	}
	return k
}

// shortLetters is the length of the word at text[i] if it is the usual kind, one
// to seven ASCII letters with or without a space before them; otherwise 0, for
// nextWord to decide. It looks at eight bytes at once instead of branching
// on each.
func shortLetters(text []byte, i int) int {
	if len(text)-i < 9 {
		return 0
	}
	space := 0
	if text[i] == ' ' {
		space = 1
	}
	const ones = 0x0101010101010101
	x := load64(text[i+space : i+space+8])
	// Bit 7 of each byte of above is set from 'a' on, of beyond after 'z'.
	low := (x | 0x20*ones) & (0x7f * ones)
	above, beyond := low+(0x80-'a')*ones, low+(0x7f-'z')*ones
	others := (^above | beyond | x) & (0x80 * ones)
	at := bits.TrailingZeros64(others)
	if others == 0 || at < 8 || x>>at&1 != 0 { // eight letters, none, or not ASCII next
		return 0
	}
	return space + at>>3
}

// contraction is the length of what follows the apostrophe of 's 't 're 've
// 'm 'll 'd, or 0.
func contraction(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	switch b[0] {
	case 's', 't', 'm', 'd':
		return 1
	case 'r', 'v':
		if len(b) > 1 && b[1] == 'e' {
			return 2
		}
	case 'l':
		if len(b) > 1 && b[1] == 'l' {
			return 2
		}
	}
	return 0
}

// endOfSpace is the end of the white space that begins at text[i]: all of it
// at the end of the text, else all but its last character (\s+(?!\S)), unless
// it is a single one (\s+).
func endOfSpace(text []byte, i int, plane *[1 << 16]uint8) int {
	k, last := i, i
	for k < len(text) {
		size := 1
		class := byteClass[text[k]]
		if class == classHigh {
			class, size = runeAt(text, k, plane)
		}
		if class != classSpace {
			if last > i {
				return last
			}
			return k
		}
		last = k
		k += size
	}
	return k
}

// cutWords returns the last place before the text's end where white space
// follows something else: words end there whatever comes after.
func cutWords(text []byte, plane *[1 << 16]uint8) int {
	for p := len(text) - 1; p > 0; p-- {
		if byteClass[text[p]] != classSpace {
			continue
		}
		before := byteClass[text[p-1]]
		if before == classHigh {
			_, size := utf8.DecodeLastRune(text[:p])
			before, _ = runeAt(text[:p], p-size, plane)
		}
		if before != classSpace {
			return p
		}
	}
	return 0
}
