package dataset

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"path/filepath"
	"unicode/utf8"

	"spinnet/pickle"
	"spinnet/tokenizer"
)

// Source is one text to prepare. It is opened twice.
type Source struct {
	Name string // for messages
	Open func() (io.ReadCloser, error)
}

// FileSource is the text in a regular file.
func FileSource(path string) Source {
	return Source{path, func() (io.ReadCloser, error) {
		// Before opening, which waits for a writer when it is a pipe.
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			if info.IsDir() {
				return nil, fmt.Errorf("open %s: is a directory", path)
			}
			return nil, fmt.Errorf("open %s: not a regular file, and texts are read twice", path)
		}
		return os.Open(path)
	}}
}

// Options of Prepare.
type Options struct {
	Name      string // of the dataset, kept in the manifest
	Dir       string // folder to make
	Tokenizer string // "gpt2", "bytes" or "chars"
	// Val is the share of the validation split, 0 ≤ Val < 1. With at least
	// 1/Val documents it takes whole ones, evenly spread: document i (from 0)
	// when ⌊(i+1)·Val⌋ > ⌊i·Val⌋. With fewer it takes the last Val of the
	// text, counted in characters (bytes for the tokenizer "bytes").
	Val        float64
	ValSources []Source // explicit validation texts; Val must be 0
	Force      bool     // replace an existing dataset
	NanoGPT    bool     // insist on uint16 and write meta.pkl for characters
	SkipEmpty  bool     // leave out empty sources instead of failing
	// Progress, when not nil, is called now and then with the bytes tokenised
	// and their total.
	Progress func(done, total int64)
}

// Prepare tokenises the sources and writes a dataset folder: train.bin and
// val.bin (uint16; train.u32 and val.u32 when the vocabulary is larger than
// 65,535) with manifest.json. Texts are read twice in pieces, so memory is bounded
// whatever their size. The folder appears whole or not at all, and an existing one
// is replaced only with Force, after everything succeeded.
//
// Documents (a source each, and within a source whatever lines "<|endoftext|>"
// separate) are joined by token 50256 with gpt2, by an empty line with bytes
// and chars.
func Prepare(ctx context.Context, opts Options, sources []Source) (*Manifest, error) {
	if len(sources) == 0 {
		return nil, errors.New("dataset: no text to prepare")
	}
	if !(opts.Val >= 0 && opts.Val < 1) {
		return nil, fmt.Errorf("dataset: the validation share %v is not in 0 ≤ share < 1", opts.Val)
	}
	if len(opts.ValSources) > 0 && opts.Val != 0 {
		return nil, errors.New("dataset: give a validation share or validation files, not both")
	}
	if err := checkTarget(opts.Dir, opts.Force); err != nil {
		return nil, err
	}
	p := &preparer{ctx: ctx, opts: opts, buf: make([]byte, chunkSize)}
	t, err := p.scan(sources)
	if err != nil {
		return nil, err
	}
	m := &Manifest{
		Format: manifestFormat, Version: manifestVersion, Name: opts.Name,
		Tokenizer: TokenizerInfo{t.Kind(), t.Chars()}, VocabSize: t.VocabSize(), DType: "uint16",
	}
	m.Train.File, m.Val.File = "train.bin", "val.bin"
	if m.VocabSize > maxVocab16 {
		if opts.NanoGPT {
			return nil, fmt.Errorf("dataset: a vocabulary of %d does not fit nanoGPT's uint16 files (at most %d)", m.VocabSize, maxVocab16)
		}
		m.DType, m.Train.File, m.Val.File = "uint32", "train.u32", "val.u32"
	}
	return m, replaceDir(opts.Dir, opts.Force, func(dir string) error {
		return p.write(dir, m, t, sources)
	})
}

// preparer holds what the two passes of Prepare share.
type preparer struct {
	ctx  context.Context
	opts Options
	buf  []byte // of the document reader

	total           totals // of the sources, from the first pass
	done, lastShown int64  // bytes tokenised
	all             int64  // bytes to tokenise
}

// totals counts a group of sources.
type totals struct {
	documents, units, bytes int64
}

// unit is what position splits count: characters, or bytes.
func (p *preparer) units(text []byte) int64 {
	if p.opts.Tokenizer == tokenizer.KindBytes {
		return int64(len(text))
	}
	return int64(utf8.RuneCount(text))
}

// scan reads all texts once: it checks them, counts them and makes the
// tokenizer.
func (p *preparer) scan(sources []Source) (tokenizer.Tokenizer, error) {
	var set tokenizer.CharSet
	for group, list := range [][]Source{sources, p.opts.ValSources} {
		var n totals
		for _, s := range list {
			before := n.bytes
			err := p.documents(s, func(piece []byte, offset int64, first, _ bool) error {
				if first {
					n.documents++
				}
				n.units += p.units(piece)
				n.bytes += int64(len(piece))
				switch p.opts.Tokenizer {
				case tokenizer.KindChars:
					if bad := set.Add(piece); bad < len(piece) {
						return notUTF8(s, offset+int64(bad))
					}
				case tokenizer.KindGPT2:
					if !utf8.Valid(piece) {
						return notUTF8(s, offset+int64(firstInvalid(piece)))
					}
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
			if n.bytes == before && !p.opts.SkipEmpty {
				return nil, fmt.Errorf("dataset: %s: empty, nothing to tokenise", s.Name)
			}
		}
		if group == 0 {
			p.total = n
		}
		if n.documents > 1 {
			set.Add([]byte("\n")) // of the separator
		}
		p.all += n.bytes
	}
	if p.total.bytes == 0 {
		return nil, errors.New("dataset: all texts are empty")
	}
	if p.opts.Tokenizer == tokenizer.KindChars {
		return tokenizer.New(tokenizer.KindChars, set.String())
	}
	return tokenizer.New(p.opts.Tokenizer, "")
}

func notUTF8(s Source, offset int64) error {
	return &HintError{
		fmt.Errorf("dataset: %s: invalid UTF-8 at byte %d", s.Name, offset),
		"convert the file to UTF-8, or use --tokenizer bytes, which takes any",
	}
}

// firstInvalid is the offset of the first byte that is not valid UTF-8.
func firstInvalid(b []byte) int {
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(b)
}

// documents reads a source in pieces. Empty documents are left out; first
// and last tell where a document begins and ends.
func (p *preparer) documents(s Source, do func(piece []byte, offset int64, first, last bool) error) error {
	r, err := s.Open()
	if err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	defer r.Close()
	d := newDocReader(r, p.buf)
	first := true
	for {
		if err := p.ctx.Err(); err != nil {
			return fmt.Errorf("dataset: %w", err)
		}
		piece, offset, last, err := d.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("dataset: %s: at byte %d: %w", s.Name, offset, err)
		}
		if len(piece) == 0 && first {
			continue
		}
		if err := do(piece, offset, first, last); err != nil {
			return err
		}
		first = last
	}
}

// write is the second pass: tokenise into dir.
func (p *preparer) write(dir string, m *Manifest, t tokenizer.Tokenizer, sources []Source) error {
	train, err := newShardWriter(dir, &m.Train, m.width(), t)
	if err != nil {
		return err
	}
	defer train.f.Close()
	val, err := newShardWriter(dir, &m.Val, m.width(), t)
	if err != nil {
		return err
	}
	defer val.f.Close()

	if err := p.writeSplit(train, val, sources); err != nil {
		return err
	}
	for _, s := range p.opts.ValSources {
		err := p.documents(s, func(piece []byte, _ int64, first, last bool) error {
			return p.put(val, piece, first, last)
		})
		if err != nil {
			return withSource(s, err)
		}
	}
	if m.Tokenizer.Kind == tokenizer.KindChars && p.opts.NanoGPT {
		if err := writeFile(filepath.Join(dir, pickle.MetaFile), pickle.EncodeMeta(m.Tokenizer.Chars)); err != nil {
			return err
		}
	}
	if err := errors.Join(train.close(), val.close()); err != nil {
		return err
	}
	if m.Train.Tokens == 0 {
		return errors.New("dataset: the training split is empty; lower the validation share")
	}
	data, err := m.encode()
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, ManifestFile), data)
}

// writeSplit tokenises the sources into both splits, as Options.Val says.
func (p *preparer) writeSplit(train, val *shardWriter, sources []Source) error {
	share := p.opts.Val
	isVal := func(i int64) bool { return math.Floor(float64(i+1)*share) > math.Floor(float64(i)*share) }
	splitAt := int64(math.MaxInt64) // a position, with fewer documents than one for validation needs
	if share > 0 && math.Floor(float64(p.total.documents)*share) < 1 {
		splitAt = int64(float64(p.total.units) * (1 - share))
		isVal = func(int64) bool { return false }
	}
	var seen totals
	w := train
	for _, s := range sources {
		err := p.documents(s, func(piece []byte, _ int64, first, last bool) error {
			if first {
				w = train
				if isVal(seen.documents) || seen.units >= splitAt {
					w = val
				}
				seen.documents++
			}
			n := p.units(piece)
			seen.bytes += int64(len(piece))
			if w == train && seen.units+n > splitAt {
				at := p.cutUnits(piece, splitAt-seen.units)
				if err := p.put(w, piece[:at], first, true); err != nil {
					return err
				}
				w, piece, first = val, piece[at:], true
			}
			seen.units += n
			return p.put(w, piece, first, last)
		})
		if err != nil {
			return withSource(s, err)
		}
	}
	if seen != p.total {
		return errors.New("dataset: the texts changed while they were read")
	}
	return nil
}

// withSource names the text an encoding error came from.
func withSource(s Source, err error) error {
	var bad *tokenizer.InputError
	if errors.As(err, &bad) {
		return fmt.Errorf("dataset: %s: %w (the file changed while it was read)", s.Name, err)
	}
	return err
}

// put adds a piece of a document and reports progress.
func (p *preparer) put(w *shardWriter, piece []byte, first, last bool) error {
	if first {
		if err := w.begin(); err != nil {
			return err
		}
	}
	if err := w.text(piece); err != nil {
		return err
	}
	p.done += int64(len(piece))
	if p.opts.Progress != nil && (p.done-p.lastShown >= 4<<20 || p.done == p.all) {
		p.lastShown = p.done
		p.opts.Progress(p.done, p.all)
	}
	if last {
		return w.end()
	}
	return nil
}

// cutUnits is the length in bytes of the first n units of text.
func (p *preparer) cutUnits(text []byte, n int64) int {
	if p.opts.Tokenizer == tokenizer.KindBytes {
		return int(n)
	}
	i := 0
	for ; n > 0; n-- {
		_, size := utf8.DecodeRune(text[i:])
		i += size
	}
	return i
}

// shardWriter tokenises documents into one file.
type shardWriter struct {
	f       *os.File
	w       *bufio.Writer
	h       hash.Hash
	t       tokenizer.Tokenizer
	shard   *Shard
	width   int
	pending []byte // text of the document not yet tokenised
	ids     []int32
	raw     []byte
}

// pendingLimit bounds the text that waits for a place where it may be cut. A
// stretch longer than this without one (no word break in 2 MB) is cut anyway.
const pendingLimit = 2 << 20

func newShardWriter(dir string, shard *Shard, width int, t tokenizer.Tokenizer) (*shardWriter, error) {
	f, err := os.Create(filepath.Join(dir, shard.File))
	if err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	h := sha256.New()
	return &shardWriter{
		f: f, h: h, w: bufio.NewWriterSize(io.MultiWriter(f, h), 1<<18),
		t: t, shard: shard, width: width,
	}, nil
}

// begin starts a document: a separator, unless it is the first.
func (s *shardWriter) begin() error {
	s.shard.Documents++
	if s.shard.Documents == 1 {
		return nil
	}
	if s.t.Kind() == tokenizer.KindGPT2 {
		s.ids = append(s.ids[:0], tokenizer.EndOfText)
	} else {
		var err error
		if s.ids, err = s.t.Encode(s.ids[:0], []byte("\n\n")); err != nil {
			return err
		}
	}
	return s.put()
}

// text adds a piece of the document.
func (s *shardWriter) text(piece []byte) error {
	s.shard.SourceBytes += int64(len(piece))
	s.pending = append(s.pending, piece...)
	if len(s.pending) < chunkSize {
		return nil
	}
	n := s.t.Cut(s.pending)
	if n == 0 && len(s.pending) >= pendingLimit {
		// Before the last character that begins here.
		n = len(s.pending) - 1
		for i := 1; i < utf8.UTFMax && !utf8.RuneStart(s.pending[n]); i++ {
			n--
		}
	}
	return s.encode(n)
}

// end ends the document.
func (s *shardWriter) end() error { return s.encode(len(s.pending)) }

// encode tokenises the first n bytes that are pending.
func (s *shardWriter) encode(n int) error {
	if n == 0 {
		return nil
	}
	var err error
	if s.ids, err = s.t.Encode(s.ids[:0], s.pending[:n]); err != nil {
		return err
	}
	s.pending = s.pending[:copy(s.pending, s.pending[n:])]
	return s.put()
}

// put writes s.ids.
func (s *shardWriter) put() error {
	s.shard.Tokens += int64(len(s.ids))
	for ids := s.ids; len(ids) > 0; {
		part := ids[:min(len(ids), 16<<10)]
		ids = ids[len(part):]
		s.raw = s.raw[:0]
		for _, id := range part {
			if s.width == 2 {
				s.raw = binary.LittleEndian.AppendUint16(s.raw, uint16(id))
			} else {
				s.raw = binary.LittleEndian.AppendUint32(s.raw, uint32(id))
			}
		}
		if _, err := s.w.Write(s.raw); err != nil {
			return fmt.Errorf("dataset: %w", err)
		}
	}
	return nil
}

// close flushes the file to the disk and completes the manifest's entry.
func (s *shardWriter) close() error {
	if err := errors.Join(s.w.Flush(), s.f.Sync(), s.f.Close()); err != nil {
		return fmt.Errorf("dataset: %w", err)
	}
	s.shard.SHA256 = hex.EncodeToString(s.h.Sum(nil))
	return nil
}
