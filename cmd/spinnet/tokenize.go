package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"spinnet/tokenizer"
)

// tokenizeLine bounds a line of JSON, and tokenizeChunk the text encoded at
// once (twice that where no word ends).
const (
	tokenizeLine  = 256 << 20
	tokenizeChunk = 1 << 20
)

func newTokenizeCmd() *cobra.Command {
	var kind string
	var jsonl, decode, special bool
	c := &cobra.Command{
		Use:   "tokenize [FILE]",
		Short: "Turn text into token ids, and back",
		Long: `Tokenize reads text from FILE or stdin and prints its token ids, separated by
spaces. With --decode it reads ids and writes the text. With --jsonl it reads
lines {"text": "…"} and writes lines {"ids": […]}, or the reverse; bytes that
are no UTF-8 become U+FFFD in JSON.

--tokenizer chars:FILE takes the distinct characters of a text as vocabulary.`,
		Example: `  echo "Hello, world" | spinnet tokenize
  spinnet tokenize --tokenizer chars:corpus/tinyshakespeare.txt play.txt
  spinnet tokenize --decode --jsonl < ids.jsonl`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			t, err := tokenizerByFlag(kind)
			if err != nil {
				return err
			}
			if _, ok := t.(*tokenizer.BPE); special && !ok {
				return usagef("tokenize: --special is for --tokenizer gpt2 only")
			}
			in, name := c.InOrStdin(), "stdin"
			if len(args) == 1 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("tokenize: %w", err)
				}
				defer f.Close()
				in, name = f, args[0]
			}
			out := bufio.NewWriterSize(c.OutOrStdout(), 1<<16)
			job := tokenizeJob{t: t, special: special, in: bufio.NewReaderSize(in, 1<<16), out: out}
			switch {
			case jsonl && decode:
				err = job.lines(job.decodeLine)
			case jsonl:
				err = job.lines(job.encodeLine)
			case decode:
				err = job.decodeText()
			default:
				err = job.encodeText()
			}
			if err != nil {
				err = fmt.Errorf("tokenize: %s: %w", name, err)
			}
			// What came before an error is still printed.
			if e := out.Flush(); err == nil && e != nil {
				err = fmt.Errorf("tokenize: %w", e)
			}
			return err
		},
	}
	c.Flags().StringVar(&kind, "tokenizer", tokenizer.KindGPT2, "gpt2, bytes or chars:FILE")
	c.Flags().BoolVar(&jsonl, "jsonl", false, "read and write JSON lines")
	c.Flags().BoolVar(&decode, "decode", false, "from ids to text")
	c.Flags().BoolVar(&special, "special", false, `let "<|endoftext|>" in the text become token 50256 (gpt2)`)
	return c
}

// tokenizerByFlag makes the tokenizer that gpt2, bytes or chars:FILE names.
func tokenizerByFlag(kind string) (tokenizer.Tokenizer, error) {
	path, ok := strings.CutPrefix(kind, tokenizer.KindChars+":")
	switch {
	case ok:
		return charsOfFile(path)
	case kind == tokenizer.KindGPT2 || kind == tokenizer.KindBytes:
		return tokenizer.New(kind, "")
	}
	return nil, usagef("unknown tokenizer %q: want gpt2, bytes or chars:FILE", kind)
}

// charsOfFile is the character tokenizer of the characters in a file.
func charsOfFile(path string) (tokenizer.Tokenizer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer chars: %w", err)
	}
	defer f.Close()
	var set tokenizer.CharSet
	buf := make([]byte, 1<<16)
	kept, offset := 0, 0
	for {
		n, err := f.Read(buf[kept:])
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("tokenizer chars: %w", err)
		}
		text := buf[:kept+n]
		end := set.Add(text)
		if end < len(text) && (err == io.EOF || utf8.FullRune(text[end:])) {
			return nil, fmt.Errorf("tokenizer chars: %s: invalid UTF-8 at byte %d", path, offset+end)
		}
		if err == io.EOF {
			break
		}
		kept = copy(buf, text[end:]) // a character that goes on in the next read
		offset += end
	}
	if set.String() == "" {
		return nil, fmt.Errorf("tokenizer chars: %s: empty, so there is no vocabulary", path)
	}
	return tokenizer.New(tokenizer.KindChars, set.String())
}

// tokenizeJob is one run of tokenize.
type tokenizeJob struct {
	t       tokenizer.Tokenizer
	special bool
	in      *bufio.Reader
	out     *bufio.Writer
	ids     []int32
	raw     []byte
}

// encode fills j.ids.
func (j *tokenizeJob) encode(text []byte) (err error) {
	if j.special {
		j.ids, err = j.t.(*tokenizer.BPE).EncodeSpecial(j.ids[:0], text)
	} else {
		j.ids, err = j.t.Encode(j.ids[:0], text)
	}
	return err
}

// encodeText prints the ids of all input, in pieces that end where words do.
func (j *tokenizeJob) encodeText() error {
	var pending []byte
	offset, sep := 0, ""
	for eof := false; !eof; {
		at := len(pending)
		pending = append(pending, make([]byte, tokenizeChunk)...)
		n, err := io.ReadFull(j.in, pending[at:])
		pending = pending[:at+n]
		if eof = err == io.EOF || err == io.ErrUnexpectedEOF; err != nil && !eof {
			return err
		}
		cut := len(pending)
		if !eof {
			if cut = j.t.Cut(pending); cut == 0 {
				if len(pending) < 64*tokenizeChunk {
					continue
				}
				return fmt.Errorf("no word ends in %d bytes from byte %d on", len(pending), offset)
			}
		}
		if err := j.encode(pending[:cut]); err != nil {
			if bad, ok := errors.AsType[*tokenizer.InputError](err); ok {
				return fmt.Errorf("%s at byte %d", bad.Reason, offset+bad.Offset)
			}
			return err
		}
		for _, id := range j.ids {
			j.raw = strconv.AppendInt(append(j.raw[:0], sep...), int64(id), 10)
			if _, err := j.out.Write(j.raw); err != nil {
				return err
			}
			sep = " "
		}
		offset += cut
		pending = pending[:copy(pending, pending[cut:])]
	}
	return j.out.WriteByte('\n')
}

// decodeText writes the text of ids separated by white space.
func (j *tokenizeJob) decodeText() error {
	words := bufio.NewScanner(j.in)
	words.Split(bufio.ScanWords)
	for n := 1; words.Scan(); n++ {
		id, err := strconv.ParseInt(words.Text(), 10, 32)
		if err != nil {
			return fmt.Errorf("id %d: %.40q is not a token id", n, words.Text())
		}
		if j.raw, err = j.t.AppendDecode(j.raw[:0], int32(id)); err != nil {
			return fmt.Errorf("id %d: %w", n, err)
		}
		if _, err := j.out.Write(j.raw); err != nil {
			return err
		}
	}
	if errors.Is(words.Err(), bufio.ErrTooLong) {
		return errors.New("that is no list of token ids")
	}
	return words.Err()
}

// lines calls do with each line of the input.
func (j *tokenizeJob) lines(do func(line []byte) error) error {
	var line []byte
	for n := 1; ; n++ {
		line = line[:0]
		for {
			part, err := j.in.ReadSlice('\n')
			line = append(line, part...)
			if err == nil || err == io.EOF && len(line) > 0 {
				break
			}
			if err == io.EOF {
				return nil
			}
			if err != bufio.ErrBufferFull {
				return fmt.Errorf("line %d: %w", n, err)
			}
			if len(line) > tokenizeLine {
				return fmt.Errorf("line %d: longer than %d MB", n, tokenizeLine>>20)
			}
		}
		if err := do(bytes.TrimSpace(line)); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

// encodeLine turns {"text": …} into {"ids": …}.
func (j *tokenizeJob) encodeLine(line []byte) error {
	var in struct{ Text *string }
	switch err := json.Unmarshal(line, &in); {
	case !utf8.Valid(line):
		return errors.New("invalid UTF-8")
	case err != nil:
		return fmt.Errorf(`not an object {"text": "…"}: %w`, err)
	case in.Text == nil:
		return errors.New(`no "text" in the object`)
	}
	if err := j.encode([]byte(*in.Text)); err != nil {
		if bad, ok := errors.AsType[*tokenizer.InputError](err); ok {
			return fmt.Errorf("text: %s at byte %d", bad.Reason, bad.Offset)
		}
		return err
	}
	j.raw = append(j.raw[:0], `{"ids":[`...)
	for i, id := range j.ids {
		if i > 0 {
			j.raw = append(j.raw, ',')
		}
		j.raw = strconv.AppendInt(j.raw, int64(id), 10)
	}
	_, err := j.out.Write(append(j.raw, "]}\n"...))
	return err
}

// decodeLine turns {"ids": …} into {"text": …}.
func (j *tokenizeJob) decodeLine(line []byte) error {
	var in struct{ IDs *[]int32 }
	if err := json.Unmarshal(line, &in); err != nil {
		return fmt.Errorf(`not an object {"ids": […]}: %w`, err)
	}
	if in.IDs == nil {
		return errors.New(`no "ids" in the object`)
	}
	text, err := tokenizer.Decode(j.t, j.raw[:0], *in.IDs)
	j.raw = text
	if err != nil {
		return err
	}
	enc := json.NewEncoder(j.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(struct {
		Text string `json:"text"`
	}{string(text)})
}
