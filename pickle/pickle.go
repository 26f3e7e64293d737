// Package pickle reads Python pickles as plain data. Nothing in a pickle is
// run: where Python would call a function, Load keeps the function's name and
// its arguments, and a name that the caller does not allow is refused. It
// imports nothing of ours.
package pickle

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// Values are nil, bool, int64, float64, string, []byte, Tuple, *List, *Dict,
// Global, *Call and Persistent.
type (
	// Tuple is a tuple.
	Tuple []any
	// List is a list. A hostile pickle can make it contain itself.
	List struct{ Items []any }
	// Dict is a dict or an OrderedDict in order of insertion; a repeated key is
	// there twice. A hostile pickle can make it contain itself.
	Dict struct{ Keys, Values []any }
	// Global is something named, such as a class, that was allowed.
	Global struct{ Module, Name string }
	// Call is what Func would have been called with.
	Call struct {
		Func Global
		Args Tuple
	}
	// Persistent is a reference to something that is not in the pickle.
	Persistent struct{ ID any }
)

// String is the full name, as Python writes it.
func (g Global) String() string { return g.Module + "." + g.Name }

// Get is the value of a string key, the last one if it is repeated, or nil.
func (d *Dict) Get(key string) any {
	for i := len(d.Keys) - 1; i >= 0; i-- {
		if d.Keys[i] == key {
			return d.Values[i]
		}
	}
	return nil
}

// An Error says why a pickle was refused, and where.
type Error struct {
	Offset int // in bytes
	Reason string
}

// Error gives the reason and the place.
func (e *Error) Error() string {
	return fmt.Sprintf("pickle: %s (at byte %d)", e.Reason, e.Offset)
}

// maxOps bounds the operations of a pickle, and with them the memory that
// reading it takes. A checkpoint of a hundred layers has about 300,000.
const maxOps = 1 << 21

// Load reads one pickle of protocol 2 to 5 that fills data. A name is refused
// unless allow says yes; nil allows none but OrderedDict, which becomes a
// *Dict. The error is an *Error.
func Load(data []byte, allow func(module, name string) bool) (any, error) {
	l := &loader{data: data, allow: allow}
	for ops := 0; ; ops++ {
		if l.pos == len(data) {
			return nil, l.fail("it ends too early")
		}
		if ops == maxOps {
			return nil, l.fail("more than %d operations", maxOps)
		}
		l.op = l.pos
		l.pos++
		done, err := l.step(data[l.op])
		if err != nil {
			return nil, err
		}
		if done {
			break
		}
	}
	if len(l.stack) != 1 || len(l.marks) > 0 {
		return nil, l.fail("it leaves %d values, want one", len(l.stack))
	}
	if l.pos != len(data) {
		return nil, l.fail("%d bytes after its end", len(data)-l.pos)
	}
	return l.stack[0], nil
}

// loader is the machine that a pickle is a program for.
type loader struct {
	data    []byte
	op, pos int // of the current operation, and of what is to be read next
	allow   func(module, name string) bool
	stack   []any
	marks   []int // heights of the stack
	memo    map[uint64]any
}

var orderedDict = Global{"collections", "OrderedDict"}

func (l *loader) fail(format string, args ...any) error {
	return &Error{l.op, fmt.Sprintf(format, args...)}
}

// take reads n bytes.
func (l *loader) take(n uint64) ([]byte, error) {
	if n > uint64(len(l.data)-l.pos) {
		return nil, l.fail("%d bytes wanted, %d left", n, len(l.data)-l.pos)
	}
	b := l.data[l.pos : l.pos+int(n)]
	l.pos += int(n)
	return b, nil
}

// number reads an unsigned little-endian number of n bytes.
func (l *loader) number(n int) (uint64, error) {
	var word [8]byte
	b, err := l.take(uint64(n))
	copy(word[:], b)
	return binary.LittleEndian.Uint64(word[:]), err
}

// line reads up to a line feed.
func (l *loader) line() (string, error) {
	s := string(l.data[l.pos:min(len(l.data), l.pos+256)])
	s, _, ok := strings.Cut(s, "\n")
	if !ok {
		return "", l.fail("a name without an end")
	}
	l.pos += len(s) + 1
	return s, nil
}

func (l *loader) push(v any) { l.stack = append(l.stack, v) }

// room checks that n values lie above the last mark.
func (l *loader) room(n int) error {
	low := 0
	if len(l.marks) > 0 {
		low = l.marks[len(l.marks)-1]
	}
	if len(l.stack)-low < n {
		return l.fail("operation %#02x lacks its operands", l.data[l.op])
	}
	return nil
}

// pop takes the top n values off the stack, in their order.
func (l *loader) pop(n int) ([]any, error) {
	if err := l.room(n); err != nil {
		return nil, err
	}
	top := append([]any(nil), l.stack[len(l.stack)-n:]...)
	l.stack = l.stack[:len(l.stack)-n]
	return top, nil
}

// popMark takes off the values above the last mark, and the mark.
func (l *loader) popMark() ([]any, error) {
	if len(l.marks) == 0 {
		return nil, l.fail("operation %#02x lacks its mark", l.data[l.op])
	}
	at := l.marks[len(l.marks)-1]
	top, err := l.pop(len(l.stack) - at)
	l.marks = l.marks[:len(l.marks)-1]
	return top, err
}

// global pushes a name, if it is allowed.
func (l *loader) global(module, name string) error {
	g := Global{module, name}
	if g != orderedDict && (l.allow == nil || !l.allow(module, name)) {
		return l.fail("it names %q, which is not data; refused and not run", g.String())
	}
	l.push(g)
	return nil
}

// sizes are those of the numbers that follow an operation.
var sizes = map[byte]int{
	'K': 1, 'M': 2, 'J': 4, 0x8a: 1, // integers
	'X': 4, 0x8c: 1, 0x8d: 8, 'B': 4, 'C': 1, 0x8e: 8, // lengths of strings and bytes
	'q': 1, 'r': 4, 'h': 1, 'j': 4, // places in the memo
	0x80: 1, 0x95: 8, // protocol, frame
}

// step does one operation.
func (l *loader) step(op byte) (done bool, err error) {
	var v uint64
	if n := sizes[op]; n > 0 {
		if v, err = l.number(n); err != nil {
			return false, err
		}
	}
	switch op {
	case '.': // STOP
		return true, nil
	case 0x80: // PROTO
		if v < 2 || v > 5 {
			return false, l.fail("protocol %d, want 2 to 5", v)
		}
	case 0x95: // FRAME: its length does not matter here
	case '(': // MARK
		l.marks = append(l.marks, len(l.stack))
	case 'N':
		l.push(nil)
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		l.push(op == 0x88)
	case 'K', 'M': // BININT1, BININT2
		l.push(int64(v))
	case 'J': // BININT
		l.push(int64(int32(v)))
	case 0x8a: // LONG1
		return false, l.long(v)
	case 'G': // BINFLOAT, big-endian
		b, err := l.take(8)
		if err != nil {
			return false, err
		}
		l.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
	case 'X', 0x8c, 0x8d: // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
		b, err := l.take(v)
		if err != nil {
			return false, err
		}
		if !utf8.Valid(b) {
			return false, l.fail("a string that is not UTF-8")
		}
		l.push(string(b))
	case 'B', 'C', 0x8e: // BINBYTES, SHORT_BINBYTES, BINBYTES8
		b, err := l.take(v)
		if err != nil {
			return false, err
		}
		l.push(append([]byte(nil), b...))
	case 'q', 'r', 0x94: // BINPUT, LONG_BINPUT, MEMOIZE
		if err := l.room(1); err != nil {
			return false, err
		}
		if op == 0x94 {
			v = uint64(len(l.memo))
		}
		if l.memo == nil {
			l.memo = map[uint64]any{}
		}
		l.memo[v] = l.stack[len(l.stack)-1]
	case 'h', 'j': // BINGET, LONG_BINGET
		x, ok := l.memo[v]
		if !ok {
			return false, l.fail("nothing was kept as %d", v)
		}
		l.push(x)
	case 'c', 'i': // GLOBAL, INST
		module, err := l.line()
		if err != nil {
			return false, err
		}
		name, err := l.line()
		if err != nil {
			return false, err
		}
		if err := l.global(module, name); err != nil || op == 'c' {
			return false, err
		}
		return false, l.fail("operation 0x69 makes objects; refused")
	case 0x93: // STACK_GLOBAL
		return false, l.stackGlobal()
	default:
		return false, l.build(op)
	}
	return false, nil
}

// long pushes a signed number of n bytes.
func (l *loader) long(n uint64) error {
	b, err := l.take(n)
	if err != nil {
		return err
	}
	if n > 8 {
		return l.fail("an integer of %d bytes", n)
	}
	var word [8]byte
	if n > 0 && b[n-1] >= 0x80 {
		word = [8]byte{255, 255, 255, 255, 255, 255, 255, 255}
	}
	copy(word[:], b)
	l.push(int64(binary.LittleEndian.Uint64(word[:])))
	return nil
}

func (l *loader) stackGlobal() error {
	top, err := l.pop(2)
	if err != nil {
		return err
	}
	module, ok1 := top[0].(string)
	name, ok2 := top[1].(string)
	if !ok1 || !ok2 {
		return l.fail("a name that is not text")
	}
	return l.global(module, name)
}

// build does the operations that make containers and references.
func (l *loader) build(op byte) error {
	switch op {
	case ')':
		l.push(Tuple{})
	case ']':
		l.push(new(List))
	case '}':
		l.push(new(Dict))
	case 't', 0x85, 0x86, 0x87: // TUPLE, TUPLE1 … TUPLE3
		var items []any
		var err error
		if op == 't' {
			items, err = l.popMark()
		} else {
			items, err = l.pop(int(op - 0x84))
		}
		if err != nil {
			return err
		}
		l.push(Tuple(items))
	case 'a', 'e', 's', 'u': // APPEND, APPENDS, SETITEM, SETITEMS
		return l.fill(op)
	case 'Q': // BINPERSID
		top, err := l.pop(1)
		if err != nil {
			return err
		}
		l.push(Persistent{top[0]})
	case 'R': // REDUCE
		top, err := l.pop(2)
		if err != nil {
			return err
		}
		f, ok1 := top[0].(Global)
		args, ok2 := top[1].(Tuple)
		switch {
		case !ok1 || !ok2:
			return l.fail("a call of something that has no name")
		case f != orderedDict:
			l.push(&Call{f, args})
		case len(args) > 0:
			return l.fail("an OrderedDict made of %d arguments", len(args))
		default:
			l.push(new(Dict))
		}
	case 'b': // BUILD: the attributes of an OrderedDict, which are not its items
		top, err := l.pop(2)
		if err != nil {
			return err
		}
		if _, ok := top[0].(*Dict); !ok {
			return l.fail("attributes of something that is no dict")
		}
		l.push(top[0])
	default:
		return l.fail("operation %#02x holds no plain data; refused", op)
	}
	return nil
}

// fill puts items into the list or dict below them.
func (l *loader) fill(op byte) error {
	var items []any
	var err error
	switch op {
	case 'a':
		items, err = l.pop(1)
	case 's':
		items, err = l.pop(2)
	default:
		items, err = l.popMark()
	}
	if err == nil {
		err = l.room(1)
	}
	if err != nil {
		return err
	}
	switch into := l.stack[len(l.stack)-1].(type) {
	case *List:
		if op == 'a' || op == 'e' {
			into.Items = append(into.Items, items...)
			return nil
		}
	case *Dict:
		if (op == 's' || op == 'u') && len(items)%2 == 0 {
			for i := 0; i < len(items); i += 2 {
				into.Keys, into.Values = append(into.Keys, items[i]), append(into.Values, items[i+1])
			}
			return nil
		}
	}
	return l.fail("items of something that takes none")
}
