package agent

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"spinnet/canister/candid"
)

// FormatArgs writes values as Candid text: (value, value).
func FormatArgs(values []any) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = Format(v)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// Format writes one value as Candid text.
func Format(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case Nat:
		return v.String() + " : nat"
	case Int:
		return v.String() + " : int"
	case uint8, uint16, uint32, uint64:
		return fmt.Sprintf("%d : nat%s", v, strings.TrimPrefix(fmt.Sprintf("%T", v), "uint"))
	case int8, int16, int32, int64:
		return fmt.Sprintf("%d : %T", v, v)
	case float32, float64:
		return fmt.Sprintf("%v : %T", v, v)
	case string:
		return quote(v)
	case Principal:
		return `principal "` + v.String() + `"`
	case []byte:
		if utf8.Valid(v) {
			return "blob " + quote(string(v))
		}
		var b strings.Builder
		for _, c := range v {
			fmt.Fprintf(&b, `\%02x`, c)
		}
		return `blob "` + b.String() + `"`
	case Opt:
		if !v.Set {
			return "null"
		}
		return "opt " + parenthesised(v.Value)
	case Vec:
		parts := make([]string, len(v))
		for i, x := range v {
			parts[i] = Format(x)
		}
		return "vec {" + spaced(parts) + "}"
	case Record:
		parts := make([]string, len(v))
		for i, f := range v {
			parts[i] = label(f) + " = " + Format(f.Value)
		}
		return "record {" + spaced(parts) + "}"
	case Variant:
		if v.Value == nil {
			return "variant { " + label(Field(v)) + " }"
		}
		return "variant { " + label(Field(v)) + " = " + Format(v.Value) + " }"
	}
	return fmt.Sprintf("<%T>", v)
}

func spaced(parts []string) string {
	if len(parts) == 0 {
		return ""
	}
	return " " + strings.Join(parts, "; ") + " "
}

// parenthesised brackets what has a type beside it.
func parenthesised(v any) string {
	s := Format(v)
	if strings.Contains(s, " : ") && s[0] != '"' && !strings.HasSuffix(s, "}") {
		return "(" + s + ")"
	}
	return s
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func label(f Field) string {
	switch {
	case f.Name == "":
		return strconv.FormatUint(uint64(f.ID), 10)
	case identifier.MatchString(f.Name):
		return f.Name
	}
	return quote(f.Name)
}

// quote writes a text with Candid's escapes. Control characters are escaped,
// so that a terminal shows the text instead of following it.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e:
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + `"`
}

// FieldNames collects the names in a service's description, to show instead
// of their hashes.
func FieldNames(service string) map[uint32]string {
	names := map[uint32]string{}
	for _, word := range regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*|"[^"\\]*"`).FindAllString(service, -1) {
		word = strings.Trim(word, `"`)
		names[candid.Hash(word)] = word
	}
	return names
}

// ParseArgs reads Candid text: (value, value), or one value without the
// brackets. A number without a type is an int, with a point a float64:
// write 5 : nat32.
func ParseArgs(text string) ([]any, error) {
	p := &textParser{rest: text}
	values, err := p.args()
	if err != nil {
		return nil, fmt.Errorf("agent: candid text at character %d: %w", len(text)-len(p.rest)+1, err)
	}
	return values, nil
}

type textParser struct {
	rest  string
	depth int
}

func (p *textParser) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

// take skips spaces and a symbol, if it is there.
func (p *textParser) take(symbol string) bool {
	p.space()
	rest, ok := strings.CutPrefix(p.rest, symbol)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *textParser) args() ([]any, error) {
	values := []any{}
	if !p.take("(") {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	} else {
		for !p.take(")") {
			v, err := p.value()
			if err != nil {
				return nil, err
			}
			values = append(values, v)
			if !p.take(",") {
				if !p.take(")") {
					return nil, fmt.Errorf("want , or )")
				}
				break
			}
		}
	}
	if p.space(); p.rest != "" {
		return nil, fmt.Errorf("text after the last value")
	}
	return values, nil
}

var (
	numeral = regexp.MustCompile(`^[+-]?[0-9][0-9_]*(\.[0-9]*)?([eE][+-]?[0-9]+)?`)
	word    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*`)
)

// value reads a value with an optional type.
func (p *textParser) value() (any, error) {
	if p.depth++; p.depth > maxNesting {
		return nil, fmt.Errorf("nested more than %d deep", maxNesting)
	}
	defer func() { p.depth-- }()
	p.space()
	switch w := word.FindString(p.rest); {
	case strings.HasPrefix(p.rest, `"`):
		b, err := p.quoted()
		if err == nil && !utf8.Valid(b) {
			err = fmt.Errorf("a text that is not UTF-8")
		}
		return string(b), err
	case p.take("("):
		v, err := p.value()
		if err == nil && !p.take(")") {
			err = fmt.Errorf("want )")
		}
		return v, err
	case w != "":
		p.rest = p.rest[len(w):]
		return p.keyword(w)
	}
	n := numeral.FindString(p.rest)
	if n == "" {
		return nil, fmt.Errorf("want a value")
	}
	p.rest = p.rest[len(n):]
	typ := ""
	if p.take(":") {
		p.space()
		typ = word.FindString(p.rest)
		p.rest = p.rest[len(typ):]
	}
	return number(strings.ReplaceAll(n, "_", ""), typ)
}

func (p *textParser) keyword(w string) (any, error) {
	switch w {
	case "null":
		return nil, nil
	case "true", "false":
		return w == "true", nil
	case "opt":
		v, err := p.value()
		return Some(v), err
	case "blob":
		p.space()
		return p.quoted()
	case "principal":
		p.space()
		b, err := p.quoted()
		if err != nil {
			return nil, err
		}
		return ParsePrincipal(string(b))
	case "vec":
		v := Vec{}
		err := p.list(func() error {
			x, err := p.value()
			v = append(v, x)
			return err
		})
		if len(v) > 0 && err == nil {
			if _, ok := v[0].(uint8); ok {
				return octets(v)
			}
		}
		return v, err
	case "record":
		r := Record{}
		err := p.list(func() error {
			f, err := p.field(uint32(len(r)))
			r = append(r, f)
			return err
		})
		return r, err
	case "variant":
		var v []Field
		err := p.list(func() error {
			f, err := p.field(0)
			v = append(v, f)
			return err
		})
		if err == nil && len(v) != 1 {
			err = fmt.Errorf("a variant has one field")
		}
		if err != nil {
			return nil, err
		}
		return Variant(v[0]), nil
	}
	return nil, fmt.Errorf("%q is no value", w)
}

// octets makes bytes of a vec of nat8.
func octets(v Vec) (any, error) {
	b := make([]byte, len(v))
	for i, x := range v {
		c, ok := x.(uint8)
		if !ok {
			return nil, fmt.Errorf("a vec of several types")
		}
		b[i] = c
	}
	return b, nil
}

// list reads { item; item }.
func (p *textParser) list(item func() error) error {
	if !p.take("{") {
		return fmt.Errorf("want {")
	}
	for !p.take("}") {
		if err := item(); err != nil {
			return err
		}
		if !p.take(";") {
			if !p.take("}") {
				return fmt.Errorf("want ; or }")
			}
			break
		}
	}
	return nil
}

// field reads name = value; a name alone is a field of null, and a value
// alone, which is no name, the field of number next.
func (p *textParser) field(next uint32) (Field, error) {
	p.space()
	before := p.rest
	f := Field{ID: next}
	if strings.HasPrefix(p.rest, `"`) {
		b, err := p.quoted()
		if err != nil {
			return f, err
		}
		f = F(string(b), nil)
	} else if w := word.FindString(p.rest); w != "" {
		p.rest = p.rest[len(w):]
		f = F(w, nil)
	} else if n := numeral.FindString(p.rest); n != "" {
		id, err := strconv.ParseUint(n, 10, 32)
		if err == nil {
			p.rest = p.rest[len(n):]
			f = Field{ID: uint32(id)}
		}
	}
	var err error
	switch {
	case p.take("="):
		f.Value, err = p.value()
	case f.Name != "" && !strings.HasPrefix(before, `"`) && !slices.Contains([]string{"opt", "vec", "record", "blob", "principal", "null", "true", "false"}, f.Name):
	default:
		p.rest = before
		f = Field{ID: next}
		f.Value, err = p.value()
	}
	return f, err
}

// quoted reads a text in quotes as bytes.
func (p *textParser) quoted() ([]byte, error) {
	if !strings.HasPrefix(p.rest, `"`) {
		return nil, fmt.Errorf("want a text in quotes")
	}
	s := p.rest[1:]
	b := []byte{}
	for {
		i := strings.IndexAny(s, `"\`)
		if i < 0 || s[i] == '\\' && len(s) < i+2 {
			return nil, fmt.Errorf("a text without an end")
		}
		b = append(b, s[:i]...)
		if s[i] == '"' {
			p.rest = s[i+1:]
			return b, nil
		}
		esc := s[i+1]
		s = s[i+2:]
		switch {
		case strings.IndexByte(`"'\`, esc) >= 0:
			b = append(b, esc)
		case esc == 'n':
			b = append(b, '\n')
		case esc == 'r':
			b = append(b, '\r')
		case esc == 't':
			b = append(b, '\t')
		case esc == 'u':
			digits, rest, ok := strings.Cut(strings.TrimPrefix(s, "{"), "}")
			r, err := strconv.ParseUint(digits, 16, 32)
			if !ok || err != nil || !utf8.ValidRune(rune(r)) {
				return nil, fmt.Errorf(`a \u without {hexadecimal digits} of a character`)
			}
			b, s = utf8.AppendRune(b, rune(r)), rest
		default:
			if s == "" {
				return nil, fmt.Errorf("a text without an end")
			}
			two, err := hex.DecodeString(string([]byte{esc, s[0]}))
			if err != nil {
				return nil, fmt.Errorf(`\%c is no escape`, esc)
			}
			b, s = append(b, two...), s[1:]
		}
	}
}

// number makes a number of a type.
func number(n, typ string) (any, error) {
	if typ == "" {
		typ = "int"
		if strings.ContainsAny(n, ".eE") {
			typ = "float64"
		}
	}
	bad := fmt.Errorf("%s is no %s", n, typ)
	switch typ {
	case "float32":
		v, err := strconv.ParseFloat(n, 32)
		if err != nil {
			return nil, bad
		}
		return float32(v), nil
	case "float64":
		v, err := strconv.ParseFloat(n, 64)
		if err != nil {
			return nil, bad
		}
		return v, nil
	case "nat", "int":
		v, ok := new(big.Int).SetString(n, 10)
		switch {
		case !ok || len(n) > maxLEBBytes || typ == "nat" && v.Sign() < 0:
			return nil, bad
		case typ == "nat":
			return Nat{v}, nil
		}
		return Int{v}, nil
	case "nat8", "nat16", "nat32", "nat64":
		bits, _ := strconv.Atoi(typ[3:])
		v, err := strconv.ParseUint(n, 10, bits)
		if err != nil {
			return nil, bad
		}
		return map[int]any{8: uint8(v), 16: uint16(v), 32: uint32(v), 64: v}[bits], nil
	case "int8", "int16", "int32", "int64":
		bits, _ := strconv.Atoi(typ[3:])
		v, err := strconv.ParseInt(n, 10, bits)
		if err != nil {
			return nil, bad
		}
		return map[int]any{8: int8(v), 16: int16(v), 32: int32(v), 64: v}[bits], nil
	}
	return nil, fmt.Errorf("%q is no type of numbers", typ)
}

// JSON gives what encoding/json writes of decoded values: records as objects,
// variants as objects of one field, numbers of more than 53 bits and bytes
// that are no text as strings.
func JSON(v any) any {
	switch v := v.(type) {
	case []any:
		return jsonList(v)
	case Vec:
		return jsonList(v)
	case Opt:
		return JSON(v.Value)
	case Record:
		m := map[string]any{}
		for _, f := range v {
			m[jsonName(f)] = JSON(f.Value)
		}
		return m
	case Variant:
		return map[string]any{jsonName(Field(v)): JSON(v.Value)}
	case Nat:
		return v.String()
	case Int:
		return v.String()
	case uint64:
		if v >= 1<<53 {
			return strconv.FormatUint(v, 10)
		}
	case int64:
		if v >= 1<<53 || v <= -1<<53 {
			return strconv.FormatInt(v, 10)
		}
	case float32:
		return jsonFloat(float64(v))
	case float64:
		return jsonFloat(v)
	case Principal:
		return v.String()
	case []byte:
		if utf8.Valid(v) {
			return string(v)
		}
		return hex.EncodeToString(v)
	}
	return v
}

func jsonList(list []any) []any {
	out := make([]any, len(list))
	for i, x := range list {
		out[i] = JSON(x)
	}
	return out
}

func jsonName(f Field) string {
	if f.Name == "" {
		return strconv.FormatUint(uint64(f.ID), 10)
	}
	return f.Name
}

// jsonFloat makes texts of what JSON has no number for.
func jsonFloat(v float64) any {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return v
}
