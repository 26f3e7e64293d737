package tokenizer

import (
	_ "embed" // for the vocabulary
	"math/bits"
	"slices"
	"sync"
)

//go:generate go run -C _gen . -in ../../../shared/data/r50k_base.tiktoken -out ../zgpt2.bin

// gpt2Data is the vocabulary as _gen/main.go describes it.
//
//go:embed zgpt2.bin
var gpt2Data string

const (
	gpt2Tokens = 50256 // without EndOfText
	longest    = 128   // bytes of the longest token
	tableBits  = 17
	noToken    = 0xFFFF

	endOfText = "<|endoftext|>"
)

// vocabulary is GPT-2's, immutable: 50,256 byte strings. A token's id is also
// the rank of the merge that makes it.
type vocabulary struct {
	bytes  []byte // of all tokens, in order of ids
	start  [gpt2Tokens + 1]uint32
	byteID [256]uint16            // id of each single byte
	table  [1 << tableBits]uint16 // ids by hash of their bytes, open addressing
	plane  *[1 << 16]uint8        // character classes
}

// loadGPT2 gives the vocabulary, expanded at the first call.
var loadGPT2 = sync.OnceValue(expandGPT2)

// expandGPT2 makes the vocabulary from the embedded file, in a few
// milliseconds.
func expandGPT2() *vocabulary {
	v := &vocabulary{bytes: make([]byte, 0, 330_000), plane: planeClass()}
	for i := range v.table {
		v.table[i] = noToken
	}
	for id := range gpt2Tokens {
		if id < 256 {
			v.bytes = append(v.bytes, gpt2Data[id])
			v.byteID[gpt2Data[id]] = uint16(id)
		} else {
			left, right := parts(int32(id))
			v.bytes = append(v.bytes, v.token(left)...)
			v.bytes = append(v.bytes, v.token(right)...)
		}
		v.start[id+1] = uint32(len(v.bytes))
		h := hashBytes(v.bytes[v.start[id]:])
		for v.table[h] != noToken {
			h = (h + 1) % (1 << tableBits)
		}
		v.table[h] = uint16(id)
	}
	return v
}

// token gives the bytes of id < gpt2Tokens.
func (v *vocabulary) token(id int32) []byte { return v.bytes[v.start[id]:v.start[id+1]] }

// find gives the id of the token that is exactly b, or noToken.
func (v *vocabulary) find(b []byte) uint32 {
	if len(b) > longest {
		return noToken
	}
	for h := hashBytes(b); ; h = (h + 1) % (1 << tableBits) {
		id := v.table[h]
		if id == noToken || string(v.token(int32(id))) == string(b) {
			return uint32(id)
		}
	}
}

func hashBytes(b []byte) uint32 {
	h := uint64(len(b))
	for len(b) >= 8 {
		h = mix(h ^ load64(b))
		b = b[8:]
	}
	var tail uint64
	for i, c := range b {
		tail |= uint64(c) << (8 * i)
	}
	return uint32(mix(h^tail) >> (64 - tableBits))
}

func mix(x uint64) uint64 {
	hi, lo := bits.Mul64(x^0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93)
	return hi ^ lo
}

// load64 is a single load where the machine allows it.
func load64(b []byte) uint64 {
	_ = b[7]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

// BPE is the GPT-2 tokenizer: byte-pair encoding with 50,257 tokens, exact
// with OpenAI's implementation (tiktoken's "gpt2"). Text may be any bytes:
// what is not valid UTF-8 is encoded byte by byte and decodes to the same
// bytes. See GPT2.
type BPE struct {
	mu sync.Mutex  // guards what follows
	v  *vocabulary // nil before the first text
	// cache holds the ids of short words seen lately, by hash.
	cache []cacheEntry
	long  longWord
}

// cacheEntry is 32 bytes: a word of at most 16 bytes and its at most 7 ids.
type cacheEntry struct {
	lo, hi uint64 // the word, zero padded
	ids    [7]uint16
	count  uint8
	size   uint8 // of the word in bytes; 0: no entry
}

const (
	cacheBits = 16
	cacheWord = 16
)

// GPT2 returns a new GPT-2 tokenizer. Instances share the vocabulary, which is
// expanded when the first is used; each has its own cache, and its calls wait for one another, so give every busy
// goroutine its own.
func GPT2() *BPE { return &BPE{} }

// VocabSize is 50,257: with EndOfText.
func (t *BPE) VocabSize() int { return gpt2Tokens + 1 }

// Kind is "gpt2".
func (t *BPE) Kind() string { return KindGPT2 }

// Chars is "".
func (t *BPE) Chars() string { return "" }

// Cut implements Tokenizer: the last place where white space begins.
func (t *BPE) Cut(text []byte) int { return cutWords(text, loadGPT2().plane) }

// AppendDecode implements Tokenizer; EndOfText gives "<|endoftext|>".
func (t *BPE) AppendDecode(dst []byte, id int32) ([]byte, error) {
	switch {
	case id == EndOfText:
		return append(dst, endOfText...), nil
	case id < 0 || id >= gpt2Tokens:
		return dst, idError(id, gpt2Tokens+1)
	}
	return append(dst, loadGPT2().token(id)...), nil
}

// EncodeSpecial is Encode, but each "<|endoftext|>" in the text becomes
// EndOfText. Use it on trusted text only.
func (t *BPE) EncodeSpecial(dst []int32, text []byte) ([]int32, error) {
	for {
		i := indexEndOfText(text)
		if i < 0 {
			return t.Encode(dst, text)
		}
		dst, _ = t.Encode(dst, text[:i])
		dst = append(dst, EndOfText)
		text = text[i+len(endOfText):]
	}
}

func indexEndOfText(text []byte) int {
	for i := 0; i+len(endOfText) <= len(text); i++ {
		if text[i] == '<' && string(text[i:i+len(endOfText)]) == endOfText {
			return i
		}
	}
	return -1
}

// Encode implements Tokenizer; it never fails. "<|endoftext|>" is ordinary
// text. The time is linear in the text, whatever it is, up to a logarithm of
// the length of words over 128 bytes.
func (t *BPE) Encode(dst []int32, text []byte) ([]int32, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cache == nil {
		t.v, t.cache = loadGPT2(), make([]cacheEntry, 1<<cacheBits)
	}
	cache := (*[1 << cacheBits]cacheEntry)(t.cache)
	for i := 0; i < len(text); {
		n := shortLetters(text, i)
		if n == 0 {
			n = nextWord(text, i, t.v.plane) - i
		}
		end := i + n
		if n > cacheWord {
			dst = t.encodeWord(dst, text[i:end])
			i = end
			continue
		}
		lo, hi := loadWord(text, i, n)
		e := &cache[(lo*0x9E3779B97F4A7C15^hi*0xC2B2AE3D27D4EB4F)>>(64-cacheBits)]
		if e.lo != lo || e.hi != hi || int(e.size) != n {
			before := len(dst)
			dst = t.encodeWord(dst, text[i:end])
			if ids := dst[before:]; len(ids) <= len(e.ids) {
				e.lo, e.hi, e.size, e.count = lo, hi, uint8(n), uint8(len(ids))
				for k, id := range ids {
					e.ids[k] = uint16(id)
				}
			}
			i = end
			continue
		}
		at := len(dst)
		if cap(dst)-at < len(e.ids) {
			dst = slices.Grow(dst, len(e.ids)+(len(text)-i)/3)
		}
		// Most words are one or two ids; writing a spare one is cheaper than a loop.
		d := (*[len(e.ids)]int32)(dst[at : at+len(e.ids)])
		d[0], d[1] = int32(e.ids[0]), int32(e.ids[1])
		for k := 2; k < int(e.count); k++ {
			d[k] = int32(e.ids[k])
		}
		dst = dst[:at+int(e.count)]
		i = end
	}
	return dst, nil
}

// loadWord gives the n ≤ 16 bytes at text[i:], zero padded.
func loadWord(text []byte, i, n int) (lo, hi uint64) {
	if len(text)-i < cacheWord {
		var b [cacheWord]byte
		copy(b[:], text[i:i+n])
		return load64(b[:8]), load64(b[8:])
	}
	b := text[i : i+cacheWord]
	if n <= 8 {
		return load64(b) & (^uint64(0) >> (64 - 8*n)), 0
	}
	return load64(b), load64(b[8:]) & (^uint64(0) >> (128 - 8*n))
}

// encodeWord encodes one word of the pattern.
func (t *BPE) encodeWord(dst []int32, word []byte) []int32 {
	if id := t.v.find(word); id != noToken {
		return append(dst, int32(id))
	}
	if len(word) > shortWord {
		return t.long.encode(t.v, dst, word)
	}
	return t.v.encodeShort(dst, word)
}

const shortWord = 128

// encodeShort merges, while there is one, the neighbouring parts that make the
// token of lowest rank (the leftmost of equals), looking at all parts each
// time.
func (v *vocabulary) encodeShort(dst []int32, word []byte) []int32 {
	var start [shortWord + 2]uint8 // of the parts; one more for the end
	var rank [shortWord + 1]uint16 // of each part put together with the next
	n := len(word)                 // parts
	for i := range word {
		start[i] = uint8(i)
	}
	start[n] = uint8(n)
	join := func(i int) uint16 { // parts i and i+1
		if i+2 > n {
			return noToken
		}
		return uint16(v.find(word[start[i]:start[i+2]]))
	}
	for i := range n {
		rank[i] = join(i)
	}
	for {
		best, at := uint16(noToken), 0
		for i, r := range rank[:n] {
			if r < best {
				best, at = r, i
			}
		}
		if best == noToken {
			break
		}
		copy(start[at+1:n], start[at+2:n+1])
		copy(rank[at+1:n-1], rank[at+2:n])
		n--
		rank[at] = join(at)
		if at > 0 {
			rank[at-1] = join(at - 1)
		}
	}
	for i := range n {
		dst = append(dst, int32(v.find(word[start[i]:start[i+1]])))
	}
	return dst
}

// longWord encodes words of any length with a heap instead of repeated scans.
// Its buffers are kept for the next word.
type longWord struct {
	next []int32  // start of the following part; parts are known by their start
	prev []int32  // start of the part before
	rank []uint16 // of the part put together with the next
	heap []uint64 // rank<<32 | start, smallest first; may hold stale entries
}

func (l *longWord) encode(v *vocabulary, dst []int32, word []byte) []int32 {
	n := len(word)
	l.next = slices.Grow(l.next[:0], n+1)[:n+1]
	l.prev = slices.Grow(l.prev[:0], n+1)[:n+1]
	l.rank = slices.Grow(l.rank[:0], n+1)[:n+1]
	l.heap = l.heap[:0]
	for i := range n + 1 {
		l.next[i], l.prev[i] = int32(i+1), int32(i-1)
	}
	for i := range n {
		l.join(v, word, i)
	}
	for len(l.heap) > 0 {
		top := l.pop()
		at := int(uint32(top))
		if l.rank[at] != uint16(top>>32) {
			continue // merged away or changed since
		}
		gone := l.next[at]
		l.rank[gone] = noToken
		after := l.next[gone]
		l.next[at] = after
		l.prev[after] = int32(at)
		l.join(v, word, at)
		if p := l.prev[at]; p >= 0 {
			l.join(v, word, int(p))
		}
	}
	for i := 0; i < n; i = int(l.next[i]) {
		dst = append(dst, int32(v.find(word[i:l.next[i]])))
	}
	if n > 1<<16 { // do not keep what one odd word needed
		*l = longWord{}
	}
	return dst
}

// join looks up the part at i together with the one after it.
func (l *longWord) join(v *vocabulary, word []byte, i int) {
	l.rank[i] = noToken
	mid := l.next[i]
	if int(mid) >= len(word) {
		return
	}
	r := v.find(word[i:l.next[mid]])
	l.rank[i] = uint16(r)
	if r != noToken {
		l.push(uint64(r)<<32 | uint64(i))
	}
}

func (l *longWord) push(x uint64) {
	h := append(l.heap, x)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 4
		if h[up] <= x {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = x
	l.heap = h
}

func (l *longWord) pop() uint64 {
	h := l.heap
	top := h[0]
	x := h[len(h)-1]
	h = h[:len(h)-1]
	l.heap = h
	i := 0
	for {
		c := 4*i + 1
		if c >= len(h) {
			break
		}
		least := c
		for k := c + 1; k < min(c+4, len(h)); k++ {
			if h[k] < h[least] {
				least = k
			}
		}
		if h[least] >= x {
			break
		}
		h[i] = h[least]
		i = least
	}
	if len(h) > 0 {
		h[i] = x
	}
	return top
}
