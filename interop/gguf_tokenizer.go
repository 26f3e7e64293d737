package interop

import (
	"bytes"
	"fmt"
	"strings"

	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// Types of a token in GGUF.
const (
	tokenNormal  = 1
	tokenUnknown = 2
	tokenControl = 3
	tokenUnused  = 5
	tokenByte    = 6
)

// endOfText is the token that ends a text, as GPT-2 calls it.
const endOfText = "<|endoftext|>"

// ggufVocab is a tokenizer as GGUF has it.
type ggufVocab struct {
	model  string // "gpt2", "rwkv" or "llama": the algorithm
	pre    string // of gpt2: how text is cut before merging
	tokens []string
	types  []int32
	merges []string  // of gpt2
	scores []float32 // of llama

	bos, eos, unknown int // −1: none

	// extra is set where the last token is none of the model's; see end.
	extra bool
}

// ggufVocabulary writes the model's tokenizer in GGUF's terms.
func ggufVocabulary(m *spinfile.Model) (*ggufVocab, error) {
	info, size := m.Tokenizer, m.Config.VocabSize
	v := &ggufVocab{bos: -1, eos: -1, unknown: -1}
	switch info.Kind {
	case tokenizer.KindGPT2:
		v.gpt2(info.Keep)
	case tokenizer.KindBytes:
		v.model = "rwkv" // which finds the longest token that matches: here the byte
		for b := range 256 {
			v.add(escapeRWKV(string([]byte{byte(b)})), tokenNormal)
		}
	case tokenizer.KindChars:
		v.chars(info.Chars)
	case "llama":
		v.llama(info.Pieces, info.Scores)
	default:
		return nil, fmt.Errorf("interop: GGUF export: the model's tokenizer is unknown (kind %q); llama.cpp needs one in the file", info.Kind)
	}
	own := len(v.tokens)
	for id := own; id < size; id++ {
		// Ids that no text has. RWKV's algorithm would find them all the same,
		// so there they are no UTF-8.
		text := fmt.Sprintf("<unused%d>", id)
		if v.model == "rwkv" {
			text = `\xff\xfe` + text
		}
		v.add(text, tokenUnused)
	}
	if v.eos < 0 && v.model != "rwkv" {
		v.end(own)
	}
	return v, nil
}

func (v *ggufVocab) add(text string, kind int32) {
	v.tokens = append(v.tokens, text)
	v.types = append(v.types, kind)
}

// end gives a vocabulary without an end-of-text token one, because llama.cpp
// takes any token for it that is not told otherwise, and stops there. It is
// the first unused id. If there is none, it is an extra token whose row in the
// embedding is the mean of the others: its logit is then the mean of all
// logits, and never the largest.
func (v *ggufVocab) end(own int) {
	if own == len(v.tokens) {
		v.add(endOfText, tokenControl)
		v.extra = true
	} else {
		v.tokens[own], v.types[own] = endOfText, tokenControl
	}
	v.eos = own
	if v.bos < 0 {
		v.bos = own
	}
}

// extend adds the row of the extra token, if there is one.
func (v *ggufVocab) extend(x *matrix) *matrix {
	if !v.extra {
		return x
	}
	mean, row := make([]float64, x.width), make([]float32, x.width)
	for r := range x.rows {
		x.row(row, r)
		for i, w := range row {
			mean[i] += float64(w)
		}
	}
	longer := *x
	longer.rows++
	longer.row = func(dst []float32, r int) {
		if r < x.rows {
			x.row(dst, r)
			return
		}
		for i, sum := range mean {
			dst[i] = float32(sum / float64(x.rows))
		}
	}
	if x.int8s != nil {
		longer.int8s = func(r int) ([]int8, float32) {
			if r < x.rows {
				return x.int8s(r)
			}
			return nil, 0
		}
	}
	return &longer
}

// write appends the tokenizer's metadata.
func (v *ggufVocab) write(kv *ggufMeta) {
	kv.string("tokenizer.ggml.model", v.model)
	if v.pre != "" {
		kv.string("tokenizer.ggml.pre", v.pre)
	}
	kv.strings("tokenizer.ggml.tokens", v.tokens)
	kv.int32s("tokenizer.ggml.token_type", v.types)
	if v.model == "llama" {
		scores := make([]float32, len(v.tokens)) // unused tokens need one as well
		copy(scores, v.scores)
		kv.float32s("tokenizer.ggml.scores", scores)
	}
	if v.model == "gpt2" {
		kv.strings("tokenizer.ggml.merges", v.merges)
	}
	for _, special := range []struct {
		key string
		id  int
	}{{"bos", v.bos}, {"eos", v.eos}, {"unknown", v.unknown}} {
		if special.id >= 0 {
			kv.uint32("tokenizer.ggml."+special.key+"_token_id", special.id)
		}
	}
	if v.model == "llama" {
		kv.bool("tokenizer.ggml.add_space_prefix", true)
	}
	kv.bool("tokenizer.ggml.add_bos_token", v.model == "llama")
	kv.bool("tokenizer.ggml.add_eos_token", false)
	var suppress []int32 // never to be drawn
	for id, kind := range v.types {
		if kind == tokenUnused || v.extra && id == v.eos {
			suppress = append(suppress, int32(id))
		}
	}
	if suppress != nil {
		kv.int32s("tokenizer.ggml.suppress_tokens", suppress)
	}
}

// gpt2 is GPT-2's vocabulary, or those of its tokens whose ids are in keep.
// The merges are always all of them. A token that they make and the vocabulary
// lacks, llama.cpp takes apart into bytes, where tokenizer.Trimmed stops at the
// largest parts there are: same text, other ids.
func (v *ggufVocab) gpt2(keep []int32) {
	v.model, v.pre = "gpt2", "gpt-2"
	t := tokenizer.GPT2()
	all := make([]string, tokenizer.EndOfText)
	for id := range all {
		b, _ := t.AppendDecode(nil, int32(id)) // ids within the vocabulary do not fail
		all[id] = string(b)
	}
	v.merges = bpeMerges(all)
	add := func(id int32) {
		if id == tokenizer.EndOfText {
			v.bos, v.eos = len(v.tokens), len(v.tokens)
			v.add(endOfText, tokenControl)
			return
		}
		v.add(printable(all[id]), tokenNormal)
	}
	for _, id := range keep {
		add(id)
	}
	if keep == nil {
		for id := range int32(tokenizer.EndOfText + 1) {
			add(id)
		}
	}
}

// bpeMerges reconstructs the merges from a vocabulary in which ids are ranks:
// a token is made of the two parts into which the merges before it take its
// bytes.
func bpeMerges(tokens []string) []string {
	rank := make(map[string]int, len(tokens))
	for id, s := range tokens {
		rank[s] = id
	}
	var merges []string
	for id, s := range tokens {
		if len(s) < 2 {
			continue
		}
		cut := make([]int, len(s)+1) // where the parts begin
		for i := range cut {
			cut[i] = i
		}
		for len(cut) > 3 {
			best, at := id, 0
			for i := 0; i+2 < len(cut); i++ {
				if r, ok := rank[s[cut[i]:cut[i+2]]]; ok && r < best {
					best, at = r, i+1
				}
			}
			if at == 0 {
				break // not a vocabulary of merges; the rest makes no pair
			}
			cut = append(cut[:at], cut[at+1:]...)
		}
		if len(cut) == 3 {
			merges = append(merges, printable(s[:cut[1]])+" "+printable(s[cut[1]:]))
		}
	}
	return merges
}

// chars is a vocabulary of characters: GPT-2's algorithm with merges that put
// together the bytes of each. It drops a character that is not in the
// vocabulary. (RWKV's, a search for the longest token, needs no merges and no
// end of text, but there llama.cpp does not survive such a character.)
func (v *ggufVocab) chars(chars string) {
	v.model, v.pre = "gpt2", "smollm" // as GPT-2's, but decoding leaves spaces alone
	done := map[string]bool{}
	for _, r := range chars {
		s := string(r)
		v.add(printable(s), tokenNormal)
		for i := 2; i <= len(s); i++ {
			if !done[s[:i]] {
				done[s[:i]] = true
				v.merges = append(v.merges, printable(s[:i-1])+" "+printable(s[i-1:i]))
			}
		}
	}
}

// llama is a vocabulary of SentencePiece, in which U+2581 stands for a space.
func (v *ggufVocab) llama(pieces []string, scores []float32) {
	v.model = "llama"
	v.scores = scores
	for id, s := range pieces {
		kind := int32(tokenNormal)
		var b byte
		switch name := strings.Trim(s, "\n"); {
		case name == "<unk>":
			s, kind, v.unknown = name, tokenUnknown, id
		case name == "<s>":
			s, kind, v.bos = name, tokenControl, id
		case name == "</s>":
			s, kind, v.eos = name, tokenControl, id
		case isByteToken(s, &b):
			s, kind = fmt.Sprintf("<0x%02X>", b), tokenByte
		default:
			s = strings.ReplaceAll(s, " ", "\u2581")
		}
		v.add(s, kind)
	}
}

// isByteToken reads a token such as <0x0A>.
func isByteToken(s string, b *byte) bool {
	if len(s) != len("<0x0A>") {
		return false
	}
	n, err := fmt.Sscanf(s, "<0x%02X>", b)
	return n == 1 && err == nil
}

// escapeRWKV writes bytes as the RWKV vocabulary does.
func escapeRWKV(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c > ' ' && c < 0x7F && c != '\\' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// byteRunes are the characters that stand for bytes in GPT-2's vocabulary:
// the printable ones of Latin-1 for themselves, the others from U+0100 on.
var byteRunes = func() (runes [256]rune) {
	next := rune(256)
	for b := range runes {
		switch {
		case b >= '!' && b <= '~', b >= 0xA1 && b <= 0xAC, b >= 0xAE:
			runes[b] = rune(b)
		default:
			runes[b] = next
			next++
		}
	}
	return runes
}()

// printable writes bytes in the characters of GPT-2's vocabulary.
func printable(s string) string {
	var b bytes.Buffer
	for _, c := range []byte(s) {
		b.WriteRune(byteRunes[c])
	}
	return b.String()
}
