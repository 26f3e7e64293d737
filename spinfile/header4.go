package spinfile

import (
	"math"
	"strconv"
	"strings"

	"spinnet/arch"
)

// maxHeader4 bounds the JSON header of version 4; the original writes about
// 140 bytes.
const maxHeader4 = 4096

// flatJSON reads one JSON object whose values are numbers, true, false and
// null, with keys of plain ASCII: all that the header of version 4 holds.
type flatJSON struct {
	cursor
}

// space skips white space.
func (j *flatJSON) space() {
	for j.at < j.end && strings.IndexByte(" \t\r\n", j.data[j.at]) >= 0 {
		j.at++
	}
}

// next skips white space and one given character, or fails.
func (j *flatJSON) next(want byte) {
	if j.space(); j.err != nil {
		return
	}
	if j.at == j.end || j.data[j.at] != want {
		j.fail("want " + strconv.QuoteRune(rune(want)) + " in the JSON object")
		return
	}
	j.at++
}

// peek skips white space and gives the next character, or 0.
func (j *flatJSON) peek() byte {
	if j.space(); j.err != nil || j.at == j.end {
		return 0
	}
	return j.data[j.at]
}

// key reads a string.
func (j *flatJSON) key() string {
	j.next('"')
	from := j.at
	for j.err == nil && j.at < j.end && j.data[j.at] != '"' {
		if b := j.data[j.at]; b < ' ' || b > '~' || b == '\\' {
			j.fail("a key is not plain text")
		}
		j.at++
	}
	key := string(j.data[from:j.at])
	j.next('"')
	return key
}

// value reads a number, true, false or null, as it stands.
func (j *flatJSON) value() string {
	j.space()
	from := j.at
	for j.at < j.end && strings.IndexByte("+-.0123456789Eaeflnrstu", j.data[j.at]) >= 0 {
		j.at++
	}
	v := string(j.data[from:j.at])
	switch v {
	case "true", "false", "null":
		return v
	}
	digits := strings.TrimPrefix(v, "-")
	if digits == "" || digits[0] < '0' || digits[0] > '9' || len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		j.at = from
		j.fail("want a number, true or false")
	} else if f, err := strconv.ParseFloat(v, 64); err != nil || math.IsInf(f, 0) || strings.HasSuffix(v, ".") || strings.Contains(v, ".e") || strings.Contains(v, ".E") {
		j.at = from
		j.fail("the number does not parse")
	}
	return v
}

// header4 reads the model_args of a version 3 or 4 file.
func header4(data []byte, at, length int) (arch.Config, error) {
	j := flatJSON{cursor{data: data, at: at, end: at + length, section: "header"}}
	c := arch.Config{Algebra: "octonion", Quantizer: arch.Classic, MixerAlgebra: "octonion"}
	numbers := map[string]*int{"n_layer": &c.NLayer, "n_head": &c.NHead, "n_embd": &c.NEmbd, "block_size": &c.BlockSize, "vocab_size": &c.VocabSize}
	seen := map[string]bool{}
	j.next('{')
	for more := j.peek() != '}'; more && j.err == nil; {
		from := j.at
		key := j.key()
		j.next(':')
		value := j.value()
		if j.err != nil {
			break
		}
		wrong := ""
		switch {
		case seen[key]:
			wrong = "twice"
		case numbers[key] != nil:
			n, err := strconv.ParseInt(value, 10, 32)
			if err != nil || n < 1 {
				wrong = "want a whole number from 1"
			}
			*numbers[key] = int(n)
		case key == "dropout":
			f, err := strconv.ParseFloat(value, 64)
			if err != nil {
				wrong = "want a number"
			}
			c.Dropout = f
		case key == "bias" && value == "true":
			wrong = "a model with biases is not supported"
		case key == "bias" || key == "octonion_attention":
			if value != "true" && value != "false" {
				wrong = "want true or false"
			}
			c.OctonionAttention = c.OctonionAttention || key == "octonion_attention" && value == "true"
		default:
			wrong = "unknown key"
		}
		if wrong != "" {
			j.at = from
			j.fail(key + " = " + value + ": " + wrong)
		}
		seen[key] = true
		if more = j.peek() == ','; more {
			j.next(',')
		}
	}
	j.next('}')
	if j.space(); j.err == nil && j.at != j.end {
		j.fail("text after the JSON object")
	}
	for _, key := range []string{"n_layer", "n_head", "n_embd", "block_size", "vocab_size"} {
		if !seen[key] {
			j.fail(key + " is missing")
		}
	}
	if j.err != nil {
		return c, j.err
	}
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return c, corrupt("header", at, err.Error())
	}
	return c, nil
}

// appendHeader4 writes model_args as Python's json.dumps does.
func appendHeader4(dst []byte, c arch.Config) []byte {
	field := func(key, value string) {
		dst = append(dst, `, "`+key+`": `+value...)
	}
	start := len(dst)
	field("n_layer", strconv.Itoa(c.NLayer))
	field("n_head", strconv.Itoa(c.NHead))
	field("n_embd", strconv.Itoa(c.NEmbd))
	field("block_size", strconv.Itoa(c.BlockSize))
	field("bias", "false")
	field("vocab_size", strconv.Itoa(c.VocabSize))
	field("dropout", pythonFloat(c.Dropout))
	field("octonion_attention", strconv.FormatBool(c.OctonionAttention))
	dst = append(dst[:start], append([]byte{'{'}, dst[start+2:]...)...)
	return append(dst, '}')
}

// pythonFloat is Python's repr of a finite float.
func pythonFloat(v float64) string {
	s := strconv.FormatFloat(v, 'e', -1, 64)
	_, exponent, _ := strings.Cut(s, "e")
	if e, _ := strconv.Atoi(exponent); e < -4 || e >= 16 {
		return s
	}
	s = strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
