package pickle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MetaFile is the name of the file that nanoGPT's scripts, and the original's,
// put beside token files and models of characters.
const MetaFile = "meta.pkl"

// Meta reads a meta.pkl, a pickled dict with "vocab_size", "stoi" and "itos",
// and returns the characters in order of their ids.
func Meta(data []byte) (chars string, err error) {
	top, err := Load(data, nil)
	if err != nil {
		return "", fmt.Errorf("not nanoGPT's meta.pkl: %w", err)
	}
	meta, _ := top.(*Dict)
	if meta == nil {
		return "", errors.New("pickle: not nanoGPT's meta.pkl: no dict")
	}
	itos, _ := meta.Get("itos").(*Dict)
	if itos == nil {
		return "", errors.New(`pickle: not nanoGPT's meta.pkl: no dict "itos" in it`)
	}
	byID := make(map[int64]string, len(itos.Keys))
	for i, k := range itos.Keys {
		id, isInt := k.(int64)
		char, isText := itos.Values[i].(string)
		if !isInt || !isText || utf8.RuneCountInString(char) != 1 {
			return "", errors.New(`pickle: meta.pkl: "itos" does not map ids to characters`)
		}
		byID[id] = char
	}
	if n, ok := meta.Get("vocab_size").(int64); !ok || n != int64(len(byID)) {
		return "", fmt.Errorf(`pickle: meta.pkl: "vocab_size" is not %d, the number of characters in "itos"`, len(byID))
	}
	var b strings.Builder
	for id := range int64(len(byID)) {
		char, ok := byID[id]
		if !ok {
			return "", fmt.Errorf(`pickle: meta.pkl: "itos" has no character %d`, id)
		}
		b.WriteString(char)
	}
	return b.String(), nil
}

// EncodeMeta is the meta.pkl (protocol 2) of a character vocabulary.
func EncodeMeta(chars string) []byte {
	b := []byte{0x80, 2, '}', '('}
	text := func(s string) {
		b = append(binary.LittleEndian.AppendUint32(append(b, 'X'), uint32(len(s))), s...)
	}
	integer := func(n int) { b = binary.LittleEndian.AppendUint32(append(b, 'J'), uint32(n)) }
	text("vocab_size")
	integer(utf8.RuneCountInString(chars))
	for _, key := range []string{"itos", "stoi"} {
		text(key)
		b = append(b, '}', '(')
		id := 0
		for _, r := range chars {
			if key == "itos" {
				integer(id)
				text(string(r))
			} else {
				text(string(r))
				integer(id)
			}
			id++
		}
		b = append(b, 'u')
	}
	return append(b, 'u', '.')
}
