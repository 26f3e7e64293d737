package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// parseMeta reads nanoGPT's meta.pkl, a pickled dict with "vocab_size", "stoi"
// and "itos", and returns the characters in order of their ids. It is a reader
// of data only: integers, strings and dicts; whatever could run code is an
// error.
func parseMeta(data []byte) (string, error) {
	top, err := unpickle(data)
	if err != nil {
		return "", fmt.Errorf("dataset: not nanoGPT's meta.pkl: %w", err)
	}
	meta, _ := top.(*pickleDict)
	if meta == nil {
		return "", errors.New("dataset: not nanoGPT's meta.pkl: no dict")
	}
	itos, _ := meta.get("itos").(*pickleDict)
	if itos == nil {
		return "", errors.New(`dataset: not nanoGPT's meta.pkl: no dict "itos" in it`)
	}
	byID := make(map[int64]string, len(itos.keys))
	for i, k := range itos.keys {
		id, isInt := k.(int64)
		char, isText := itos.values[i].(string)
		if !isInt || !isText || utf8.RuneCountInString(char) != 1 {
			return "", errors.New(`dataset: meta.pkl: "itos" does not map ids to characters`)
		}
		byID[id] = char
	}
	if n, ok := meta.get("vocab_size").(int64); !ok || n != int64(len(byID)) {
		return "", fmt.Errorf(`dataset: meta.pkl: "vocab_size" is %v, but "itos" has %d characters`, meta.get("vocab_size"), len(byID))
	}
	var chars strings.Builder
	for id := range int64(len(byID)) {
		char, ok := byID[id]
		if !ok {
			return "", fmt.Errorf(`dataset: meta.pkl: "itos" has no character %d`, id)
		}
		chars.WriteString(char)
	}
	return chars.String(), nil
}

// pickleDict is a dict in order of insertion.
type pickleDict struct{ keys, values []any }

// get is the value of the first such key, or nil.
func (d *pickleDict) get(key string) any {
	for i, k := range d.keys {
		if k == key {
			return d.values[i]
		}
	}
	return nil
}

// pickleMark is what the opcode MARK leaves on the stack.
type pickleMark struct{}

var errPickle = errors.New("the pickle is damaged")

// unpickle runs the opcodes that a dict of strings, integers and dicts needs,
// protocols 0x80 2 … 5. Values are int64, string and *pickleDict.
func unpickle(data []byte) (any, error) {
	var stack, memo []any
	pos := 0
	take := func(n int) []byte {
		if n < 0 || n > len(data)-pos {
			return nil
		}
		pos += n
		return data[pos-n : pos : pos]
	}
	number := func(n int) (v uint64, ok bool) { // little-endian
		var b [8]byte
		part := take(n)
		copy(b[:], part)
		return binary.LittleEndian.Uint64(b[:]), part != nil
	}
	for pos < len(data) {
		op := data[pos]
		pos++
		switch op {
		case 0x80, 0x95: // PROTO, FRAME
			if _, ok := number(map[byte]int{0x80: 1, 0x95: 8}[op]); !ok {
				return nil, errPickle
			}
		case '}': // EMPTY_DICT
			stack = append(stack, new(pickleDict))
		case '(': // MARK
			stack = append(stack, pickleMark{})
		case 'K', 'M', 'J': // BININT1, BININT2, BININT
			v, ok := number(map[byte]int{'K': 1, 'M': 2, 'J': 4}[op])
			if !ok {
				return nil, errPickle
			}
			if op == 'J' {
				v = uint64(int64(int32(v)))
			}
			stack = append(stack, int64(v))
		case 'X', 0x8c: // BINUNICODE, SHORT_BINUNICODE
			n, ok := number(map[byte]int{'X': 4, 0x8c: 1}[op])
			text := take(int(n))
			if !ok || text == nil && n > 0 || !utf8.Valid(text) {
				return nil, errPickle
			}
			stack = append(stack, string(text))
		case 0x94: // MEMOIZE
			if len(stack) == 0 {
				return nil, errPickle
			}
			memo = append(memo, stack[len(stack)-1])
		case 'q', 'r': // BINPUT, LONG_BINPUT: Python numbers them in order
			i, ok := number(map[byte]int{'q': 1, 'r': 4}[op])
			if !ok || len(stack) == 0 || i != uint64(len(memo)) {
				return nil, errPickle
			}
			memo = append(memo, stack[len(stack)-1])
		case 'h', 'j': // BINGET, LONG_BINGET
			i, ok := number(map[byte]int{'h': 1, 'j': 4}[op])
			if !ok || i >= uint64(len(memo)) {
				return nil, errPickle
			}
			stack = append(stack, memo[i])
		case 's', 'u': // SETITEM, SETITEMS
			at := len(stack) - 2
			if op == 'u' {
				for at = len(stack) - 1; at >= 0 && stack[at] != (pickleMark{}); at-- {
				}
			}
			if at < 1 {
				return nil, errPickle
			}
			items := stack[at:]
			if op == 'u' {
				items = items[1:]
			}
			d, ok := stack[at-1].(*pickleDict)
			if !ok || len(items)%2 != 0 {
				return nil, errPickle
			}
			for i := 0; i < len(items); i += 2 {
				d.keys, d.values = append(d.keys, items[i]), append(d.values, items[i+1])
			}
			stack = stack[:at]
		case '.': // STOP
			if len(stack) != 1 {
				return nil, errPickle
			}
			return stack[0], nil
		default:
			return nil, fmt.Errorf("opcode %#02x at byte %d holds no plain data", op, pos-1)
		}
	}
	return nil, errPickle
}

// encodeMeta is the meta.pkl (protocol 2) of a character vocabulary.
func encodeMeta(chars string) []byte {
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
