// Package runlog writes and reads metrics.jsonl, the record of a training
// run: one JSON object a step. It imports nothing of ours.
package runlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"strconv"
)

// File is the name of the log in a run's folder.
const File = "metrics.jsonl"

// Record is what one step leaves behind. A number that is not finite is left
// out of the file, and one that is not in the file reads as NaN.
type Record struct {
	Step            int     // steps done, from 1
	Loss            float64 // of the step's batch, nats a token
	Smooth          float64 // running mean of Loss
	LR              float64 // learning rate used
	GradNorm        float64 // before clipping
	Zeros           float64 // share of zeros in the ternary weights, 0 to 1
	TokensPerSecond float64
	Elapsed         float64 // seconds of training, over all resumes
	Eval            *Eval   // nil unless the model was evaluated after this step
}

// Eval is the loss of one evaluation, nats a token. NaN: not measured.
type Eval struct {
	Train, Val float64
}

// Writer appends records to a log. Each Write reaches the operating system
// before it returns, so a killed process loses nothing.
type Writer struct {
	f    *os.File
	buf  []byte
	end  int64 // size of the file
	last tail
}

// tail is what is known of a log's last line.
type tail struct {
	step      int  // −1 when it is no record
	evaluated bool // it has an evaluation
}

// Append opens the log at path to add to it, making it when there is none. A
// last line that a killed process left torn is cut off.
func Append(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("runlog: %w", err)
	}
	end, last, err := cut(f, math.MaxInt)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("runlog: %s: %w", path, err)
	}
	return &Writer{f: f, end: end, last: last}, nil
}

// Write adds one record.
func (w *Writer) Write(r Record) error {
	b := append(w.buf[:0], `{"step":`...)
	b = strconv.AppendInt(b, int64(r.Step), 10)
	b = number(b, "loss", r.Loss)
	b = number(b, "smooth", r.Smooth)
	b = number(b, "lr", r.LR)
	b = number(b, "grad_norm", r.GradNorm)
	b = number(b, "zeros", r.Zeros)
	b = number(b, "tokens_per_s", r.TokensPerSecond)
	b = number(b, "elapsed_s", r.Elapsed)
	if r.Eval != nil {
		b = r.Eval.append(b)
	}
	w.buf = append(b, closing...)
	if err := w.put(w.end); err != nil {
		return err
	}
	w.last = tail{r.Step, r.Eval != nil}
	return nil
}

// closing ends a record.
const closing = "}\n"

// AddEval adds an evaluation to the last record, if it is of that step and has
// none: for one that came later than the step, as after an interruption.
// Otherwise it does nothing.
func (w *Writer) AddEval(step int, e Eval) error {
	if w.last.step != step || w.last.evaluated {
		return nil
	}
	at := w.end - int64(len(closing))
	var end [len(closing)]byte
	if _, err := w.f.ReadAt(end[:], at); err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	if string(end[:]) != closing {
		return nil // another program's line
	}
	w.buf = append(e.append(w.buf[:0]), closing...)
	w.last.evaluated = true
	return w.put(at)
}

// put writes w.buf at an offset, which becomes the end of the log.
func (w *Writer) put(at int64) error {
	if _, err := w.f.WriteAt(w.buf, at); err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	w.end = at + int64(len(w.buf))
	return nil
}

// append adds the members of an evaluation to a record.
func (e Eval) append(b []byte) []byte {
	return number(number(b, "train_loss", e.Train), "val_loss", e.Val)
}

// number appends a finite number as a JSON member.
func number(b []byte, name string, v float64) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return strconv.AppendFloat(b, v, 'g', -1, 64) // JSON allows every form of 'g'
}

// Close closes the file.
func (w *Writer) Close() error { return w.f.Close() }

// Truncate drops what the log at path says about steps after step, and a torn
// last line. The file only gets shorter, in one operation, so a crash leaves
// it whole before or whole after. No file is an empty log.
func Truncate(path string, step int) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	if _, _, err = cut(f, step); err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("runlog: %s: %w", path, err)
	}
	return nil
}

// cut shortens f to the lines before the first record of a later step and
// before a torn last line. It gives the new length and the last line.
func cut(f *os.File, step int) (keep int64, last tail, err error) {
	last.step = -1
	br := bufio.NewReader(f)
	for {
		line, err := readLine(br)
		if err == io.EOF {
			break // and any torn line with it
		}
		if err != nil {
			return 0, last, err
		}
		var r struct {
			Step  *int     `json:"step"`
			Train *float64 `json:"train_loss"`
			Val   *float64 `json:"val_loss"`
		}
		known := json.Unmarshal(line, &r) == nil && r.Step != nil
		if known && *r.Step > step {
			break
		}
		last = tail{step: -1}
		if known {
			last = tail{*r.Step, r.Train != nil || r.Val != nil}
		}
		keep += int64(len(line))
	}
	if size, err := f.Seek(0, io.SeekEnd); err != nil || size == keep {
		return keep, last, err
	}
	return keep, last, f.Truncate(keep)
}

// maxLine bounds a line, so that a foreign file cannot take all memory.
const maxLine = 1 << 20

// readLine gives the next line with its newline; a last line without one is
// io.EOF.
func readLine(br *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, fmt.Errorf("line longer than %d bytes: not a metrics log", maxLine)
		}
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

// Read yields the records of a log in order. A torn last line ends the log
// without error; a line that is no record is an error that names it, and the
// last thing yielded.
func Read(r io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		br := bufio.NewReader(r)
		for n := 1; ; n++ {
			line, err := readLine(br)
			if err == io.EOF {
				return
			}
			var rec Record
			if err == nil {
				rec, err = parse(line)
			}
			if err != nil {
				yield(Record{}, fmt.Errorf("runlog: line %d: %w", n, err))
				return
			}
			if !yield(rec, nil) {
				return
			}
		}
	}
}

// parse reads one line.
func parse(line []byte) (Record, error) {
	nan := math.NaN()
	l := struct {
		Step     *int     `json:"step"`
		Loss     float64  `json:"loss"`
		Smooth   float64  `json:"smooth"`
		LR       float64  `json:"lr"`
		GradNorm float64  `json:"grad_norm"`
		Zeros    float64  `json:"zeros"`
		Speed    float64  `json:"tokens_per_s"`
		Elapsed  float64  `json:"elapsed_s"`
		Train    *float64 `json:"train_loss"`
		Val      *float64 `json:"val_loss"`
	}{nil, nan, nan, nan, nan, nan, nan, nan, nil, nil}
	if err := json.Unmarshal(bytes.TrimSpace(line), &l); err != nil {
		return Record{}, err
	}
	if l.Step == nil {
		return Record{}, errors.New("no step")
	}
	r := Record{*l.Step, l.Loss, l.Smooth, l.LR, l.GradNorm, l.Zeros, l.Speed, l.Elapsed, nil}
	if l.Train != nil || l.Val != nil {
		r.Eval = &Eval{nan, nan}
		if l.Train != nil {
			r.Eval.Train = *l.Train
		}
		if l.Val != nil {
			r.Eval.Val = *l.Val
		}
	}
	return r, nil
}

// ReadFile gives all records of the log at path.
func ReadFile(path string) ([]Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("runlog: %w", err)
	}
	defer f.Close()
	var rs []Record
	for r, err := range Read(f) {
		if err != nil {
			return rs, fmt.Errorf("%s: %w", path, err)
		}
		rs = append(rs, r)
	}
	return rs, nil
}
