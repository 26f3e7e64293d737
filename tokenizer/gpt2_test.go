package tokenizer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// shared gives a file of the folder of fixtures and data beside the
// repository, or skips.
func shared(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "shared", name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("../shared/%s is not here", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// slowWords cuts text by trying the alternatives of GPT-2's pattern one after
// the other, as written.
func slowWords(text []byte) []string {
	type char struct {
		s string
		r rune
	}
	var chars []char
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			r = '\x00' // an invalid byte is neither space, letter nor number
		}
		chars = append(chars, char{string(text[i : i+size]), r})
		i += size
	}
	isSpace := func(r rune) bool { return unicode.Is(unicode.White_Space, r) }
	isOther := func(r rune) bool { return !isSpace(r) && !unicode.IsLetter(r) && !unicode.Is(unicode.N, r) }
	run := func(from int, is func(rune) bool) int {
		to := from
		for to < len(chars) && is(chars[to].r) {
			to++
		}
		return to
	}
	match := func(i int) int {
		for _, s := range []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
			var got strings.Builder
			for k := i; k < len(chars) && k < i+len(s); k++ {
				got.WriteString(chars[k].s)
			}
			if got.String() == s {
				return i + len(s)
			}
		}
		for _, is := range []func(rune) bool{unicode.IsLetter, func(r rune) bool { return unicode.Is(unicode.N, r) }, isOther} {
			if chars[i].r == ' ' {
				if to := run(i+1, is); to > i+1 {
					return to
				}
			}
			if to := run(i, is); to > i {
				return to
			}
		}
		to := run(i, isSpace)
		if to < len(chars) && to-1 > i {
			return to - 1
		}
		return to
	}
	var words []string
	for i := 0; i < len(chars); {
		to := match(i)
		var w strings.Builder
		for _, c := range chars[i:to] {
			w.WriteString(c.s)
		}
		words = append(words, w.String())
		i = to
	}
	return words
}

// slowRanks is the vocabulary as a map.
func slowRanks() map[string]int32 {
	ranks := make(map[string]int32)
	for id := range int32(gpt2Tokens) {
		ranks[string(loadGPT2().token(id))] = id
	}
	return ranks
}

// slowEncode is byte-pair encoding as defined: in each word, merge the
// leftmost pair of lowest rank until no pair is a token.
func slowEncode(ranks map[string]int32, text []byte) []int32 {
	ids := []int32{}
	for _, word := range slowWords(text) {
		if id, ok := ranks[word]; ok {
			ids = append(ids, id)
			continue
		}
		parts := strings.Split(word, "")
		parts = parts[:0]
		for i := range len(word) {
			parts = append(parts, word[i:i+1])
		}
		for {
			best, at := int32(gpt2Tokens), -1
			for i := range len(parts) - 1 {
				if id, ok := ranks[parts[i]+parts[i+1]]; ok && id < best {
					best, at = id, i
				}
			}
			if at < 0 {
				break
			}
			parts[at] += parts[at+1]
			parts = slices.Delete(parts, at+1, at+2)
		}
		for _, p := range parts {
			ids = append(ids, ranks[p])
		}
	}
	return ids
}

func encode(t testing.TB, tok Tokenizer, text string) []int32 {
	t.Helper()
	ids, err := tok.Encode([]int32{}, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func decode(t testing.TB, tok Tokenizer, ids []int32) string {
	t.Helper()
	text, err := Decode(tok, nil, ids)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkVectors compares lines {"text","ids"} (or "tiktoken_wasm" for "ids").
func checkVectors(t *testing.T, data []byte) {
	tok := GPT2()
	n := 0
	for line := range bytes.Lines(data) {
		var v struct {
			Text     string
			IDs      []int32
			Tiktoken []int32 `json:"tiktoken_wasm"`
		}
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		want := v.IDs
		if want == nil {
			want = v.Tiktoken
		}
		n++
		if got := encode(t, tok, v.Text); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", v.Text, got, want)
		}
		if got := decode(t, tok, want); got != v.Text {
			t.Errorf("decode: got %q, want %q", got, v.Text)
		}
	}
	t.Logf("%d vectors", n)
	if n == 0 {
		t.Error("no vectors")
	}
}

func TestGPT2Vectors(t *testing.T) {
	data, err := os.ReadFile("testdata/gpt2_vectors.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	checkVectors(t, data)
}

func TestGPT2VectorsShared(t *testing.T) {
	checkVectors(t, shared(t, "fixtures/gpt2_bpe_vectors.jsonl"))
}
func TestGPT2DivergentShared(t *testing.T) {
	checkVectors(t, shared(t, "fixtures/gpt2_bpe_divergent.jsonl"))
}

// The embedded file is what the generator writes.
func TestGPT2Data(t *testing.T) {
	sum := sha256.Sum256([]byte(gpt2Data))
	const want = "b3515ab51c5bf27366b31118aa4b453a3add43cfbb5d25e6dc49a6c75f1ea023"
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("zgpt2.bin: sha256 is %s, want %s", got, want)
	}
	if got := len(slices.MaxFunc(allTokens(), func(a, b []byte) int { return len(a) - len(b) })); got != longest {
		t.Errorf("longest token: got %d bytes, want %d", got, longest)
	}
}

func allTokens() (tokens [][]byte) {
	for id := range int32(gpt2Tokens) {
		tokens = append(tokens, loadGPT2().token(id))
	}
	return tokens
}

func TestGPT2VocabularyShared(t *testing.T) {
	s := bufio.NewScanner(bytes.NewReader(shared(t, "data/r50k_base.tiktoken")))
	id := int32(0)
	for ; s.Scan(); id++ {
		text, _, _ := strings.Cut(s.Text(), " ")
		want, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := loadGPT2().token(id); !bytes.Equal(got, want) {
			t.Fatalf("token %d: got %q, want %q", id, got, want)
		}
	}
	if id != gpt2Tokens {
		t.Errorf("got %d tokens, want %d", id, gpt2Tokens)
	}
}

func TestGPT2CountsShared(t *testing.T) {
	for _, c := range []struct {
		file string
		want int
	}{{"tinyshakespeare.txt", 338025}, {"kjv.txt", 1024544}, {"tinystories_train.txt", 881654}} {
		t.Run(c.file, func(t *testing.T) {
			text := shared(t, "data/"+c.file)
			tok := GPT2()
			ids := encode(t, tok, string(text))
			if len(ids) != c.want {
				t.Errorf("got %d tokens, want %d", len(ids), c.want)
			}
			if decode(t, tok, ids) != string(text) {
				t.Error("the tokens do not decode to the text")
			}
		})
	}
}

func TestEndOfText(t *testing.T) {
	tok := GPT2()
	const text = "a<|endoftext|><|endoftext|>\n<|endoftex"
	if got := encode(t, tok, text); slices.Contains(got, EndOfText) {
		t.Errorf("Encode: got %v, with the special token", got)
	}
	got, err := tok.EncodeSpecial(nil, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := append([]int32{64, EndOfText, EndOfText}, encode(t, tok, "\n<|endoftex")...)
	if !slices.Equal(got, want) {
		t.Errorf("EncodeSpecial: got %v, want %v", got, want)
	}
	if got := decode(t, tok, got); got != text {
		t.Errorf("got %q, want %q", got, text)
	}
}

// pieces of text that meet every branch of the pattern.
var pieces = []string{
	" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u0085", "\u2003", "\u3000", "\ufeff", "a", "the", "Zoë", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'", "'S",
	"’s", "1", "23", "½", "٣", "²", "Ⅷ", "!", "...", "—", "#", "<|endoftext|>", "中文", "日本語", "😀", "e\u0301", "ǅ", "𝔘", "𐄇", "\x00", "\x7f", "\xff", "\xe4\xb8", "\xc3", "_", "==", "ing", "Hello", "aaaaaaaaaaaaaaaa", "ÃÂÃÂÃÂÃÂ",
}

func TestGPT2AgainstDefinition(t *testing.T) {
	ranks := slowRanks()
	tok := GPT2()
	r := rand.New(rand.NewPCG(1, 2))
	check := func(text string) {
		t.Helper()
		got, want := encode(t, tok, text), slowEncode(ranks, []byte(text))
		if !slices.Equal(got, want) {
			t.Fatalf("%q: got %v, want %v", text, got, want)
		}
		if back := decode(t, tok, got); back != text {
			t.Fatalf("got %q, want %q", back, text)
		}
		if n := tok.Cut([]byte(text)); n < len(text) {
			if parts := append(encode(t, tok, text[:n]), encode(t, tok, text[n:])...); !slices.Equal(parts, want) {
				t.Fatalf("%q cut at %d: got %v, want %v", text, n, parts, want)
			}
		} else if n > 0 {
			t.Fatalf("%q: cut at its end", text)
		}
	}
	for _, a := range pieces {
		for _, b := range pieces {
			check(a + b)
			check(a + b + "x")
			check("so " + a + b + "me, more words")
		}
	}
	for range 5000 {
		var s strings.Builder
		for range r.IntN(12) {
			s.WriteString(pieces[r.IntN(len(pieces))])
		}
		check(s.String())
	}
	for x := rune(0); x <= unicode.MaxRune; x += 1 + rune(r.IntN(60)) {
		check("a" + string(x) + string(x) + " " + string(x) + "1")
	}
	for _, n := range []int{127, 128, 129, 130, 200, 400} {
		for _, letters := range []string{"a", "ab", "etaoinshrdlu", "ÃÂ", "abcdefghijklmnopqrstuvwxyz"} {
			b := make([]byte, n)
			for i := range b {
				b[i] = letters[r.IntN(len(letters))]
			}
			check(string(b))
			check(strings.Repeat(letters, n/len(letters)))
		}
	}
}

// The encoder for long words and the one for short words are the same
// function.
func TestLongWordAgainstShort(t *testing.T) {
	v := loadGPT2()
	r := rand.New(rand.NewPCG(3, 4))
	var l longWord
	for range 3000 {
		b := make([]byte, 1+r.IntN(shortWord))
		letters := "etaoin shrdlu"[:1+r.IntN(13)]
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		got, want := l.encode(v, nil, b), v.encodeShort(nil, b)
		if !slices.Equal(got, want) {
			t.Fatalf("%q: got %v, want %v", b, got, want)
		}
	}
}

// A word of a megabyte costs about ten times one of a tenth.
func TestLongWordsAreLinear(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, c := range []struct{ name, letters string }{
		{"one letter", "a"}, {"random letters", "abcdefghijklmnopqrstuvwxyz"}, {"spaces", " "}, {"digits", "0123456789"}, {"newlines", "\n"}, {"marks", "!?.,;"}, {"apostrophes", "'"}, {"bytes", "\xff\xfe\x80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := make([]byte, 1<<20)
			for i := range text {
				text[i] = c.letters[r.IntN(len(c.letters))]
			}
			tok := GPT2()
			spent := func(n int) time.Duration {
				start := time.Now()
				ids := encode(t, tok, string(text[:n]))
				d := time.Since(start)
				if decode(t, tok, ids) != string(text[:n]) {
					t.Error("the tokens do not decode to the text")
				}
				return d
			}
			small, large := spent(1<<17), spent(1<<20)
			t.Logf("128 KiB in %v, 1 MiB in %v", small, large)
			if large > 40*small+2*time.Second {
				t.Errorf("128 KiB took %v, 1 MiB %v", small, large)
			}
		})
	}
}

func TestGPT2Concurrent(t *testing.T) {
	tok := GPT2()
	text := strings.Repeat("Several goroutines may share one tokenizer. ", 50)
	want := encode(t, tok, text)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if got, err := tok.Encode(nil, []byte(text)); err != nil || !slices.Equal(got, want) {
					t.Errorf("got %d ids, %v, want %d", len(got), err, len(want))
				}
			}
		})
	}
	wg.Wait()
}

func FuzzGPT2(f *testing.F) {
	ranks := slowRanks()
	for _, p := range pieces {
		f.Add([]byte(p))
	}
	f.Add([]byte("I'll say: it's 42 o'clock,  \n\n isn't it?"))
	f.Add(bytes.Repeat([]byte("ab"), 200))
	tok := GPT2()
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 600 {
			return // the definition takes quadratic time
		}
		got, want := encode(t, tok, string(text)), slowEncode(ranks, text)
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
		if back := decode(t, tok, got); back != string(text) {
			t.Errorf("got %q, want %q", back, text)
		}
		n := tok.Cut(text)
		if n > 0 && n >= len(text) || n < 0 {
			t.Fatalf("%q: cut at %d", text, n)
		}
		if parts := append(encode(t, tok, string(text[:n])), encode(t, tok, string(text[n:]))...); !slices.Equal(parts, want) {
			t.Errorf("%q cut at %d: got %v, want %v", text, n, parts, want)
		}
	})
}

func BenchmarkGPT2(b *testing.B) {
	for _, file := range []string{"../corpus/tinyshakespeare.txt", "../../shared/data/tinystories_train.txt", "../../shared/data/kjv.txt"} {
		b.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(b *testing.B) {
			text, err := os.ReadFile(file)
			if err != nil {
				b.Skip(err)
			}
			tok := GPT2()
			var ids []int32
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				ids, _ = tok.Encode(ids[:0], text)
			}
		})
	}
	b.Run("random-word", func(b *testing.B) {
		r := rand.New(rand.NewPCG(5, 6))
		text := make([]byte, 1<<20)
		for i := range text {
			text[i] = 'a' + byte(r.IntN(26))
		}
		tok := GPT2()
		var ids []int32
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			ids, _ = tok.Encode(ids[:0], text)
		}
	})
	b.Run("load", func(b *testing.B) {
		b.SetBytes(int64(len(gpt2Data)))
		for b.Loop() {
			expandGPT2()
		}
	})
	b.Run("code", func(b *testing.B) {
		text, err := os.ReadFile("gpt2_test.go")
		if err != nil {
			b.Skip(err)
		}
		tok := GPT2()
		var ids []int32
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			ids, _ = tok.Encode(ids[:0], text)
		}
	})
}

func ExampleGPT2() {
	ids, _ := GPT2().Encode(nil, []byte("Hello, world"))
	fmt.Println(ids)
	// Output: [15496 11 995]
}
