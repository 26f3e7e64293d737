package interop

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// tokenizer reads the vocabulary of a GGUF file. llama's pieces are taken as
// they are. Of the other algorithms only what our own tokenizers compute is
// known: gpt2 with GPT-2's tokens (some may be left out) or with single
// characters, rwkv with single characters or bytes, as our export writes them.
func (f *ggufFile) tokenizer(fail failure) (info spinfile.TokenizerInfo, err error) {
	tokens, _ := f.meta["tokenizer.ggml.tokens"].([]string)
	types := make([]int32, len(tokens))
	if n, ok := f.meta["tokenizer.ggml.token_type"].(ggufNumbers); ok && len(n.ints()) == len(tokens) {
		types = n.ints()
	}
	model, _ := f.meta["tokenizer.ggml.model"].(string)
	switch model {
	case "":
		return info, nil
	case "llama":
		return f.llama(tokens, types, fail)
	case "gpt2", "rwkv":
		read := plain
		if model == "rwkv" {
			read = plainRWKV
		}
		var texts []string
		end := false // GPT-2's end of text follows
		for id, t := range tokens {
			text, ok := read(t)
			if !ok || types[id] == tokenUnused || types[id] == tokenControl {
				end = t == endOfText
				break // the rest stands for no text
			}
			texts = append(texts, text)
		}
		if info, ok := knownTokenizer(texts, model, end); ok {
			return info, nil
		}
	}
	return info, fail("", -1, "tokenizer.ggml.model = %s with %d tokens: not one that is known (llama, or gpt2 with GPT-2's tokens)", quoted(model), len(tokens))
}

// dropExtra undoes what the export adds to a vocabulary without an unused id
// (see ggufVocab.end): a last token that ends the text and is never drawn, and
// its row in the embedding and the output. It would take part in the softmax.
func (f *ggufFile) dropExtra() {
	tokens, _ := f.meta["tokenizer.ggml.tokens"].([]string)
	types, _ := f.meta["tokenizer.ggml.token_type"].(ggufNumbers)
	suppressed, _ := f.meta["tokenizer.ggml.suppress_tokens"].(ggufNumbers)
	last := len(tokens) - 1
	if last < 1 || tokens[last] != endOfText || len(types.ints()) != len(tokens) || types.ints()[last] != tokenControl ||
		f.meta["tokenizer.ggml.eos_token_id"] != uint64(last) || !slices.Contains(suppressed.ints(), int32(last)) {
		return
	}
	for i := range f.tensors {
		t := &f.tensors[i]
		if t.name == "token_embd.weight" || t.name == "output.weight" {
			if len(t.shape) != 2 || t.shape[0] != len(tokens) {
				return // another's file after all; what is wrong with it comes out later
			}
		}
	}
	for i := range f.tensors {
		t := &f.tensors[i]
		if t.name == "token_embd.weight" || t.name == "output.weight" {
			t.shape[0]--
			t.count -= int64(t.shape[1])
		}
	}
	f.meta["tokenizer.ggml.tokens"] = tokens[:last]
	types.data = types.data[:4*last]
	f.meta["tokenizer.ggml.token_type"] = types
	if scores, ok := f.meta["tokenizer.ggml.scores"].(ggufNumbers); ok && len(scores.floats()) > last {
		scores.data = scores.data[:4*last]
		f.meta["tokenizer.ggml.scores"] = scores
	}
	for _, key := range []string{"tokenizer.ggml.eos_token_id", "tokenizer.ggml.bos_token_id"} {
		if f.meta[key] == uint64(last) {
			delete(f.meta, key)
		}
	}
}

// llama reads the pieces and scores of SentencePiece.
func (f *ggufFile) llama(tokens []string, types []int32, fail failure) (info spinfile.TokenizerInfo, err error) {
	scores, _ := f.meta["tokenizer.ggml.scores"].(ggufNumbers)
	info = spinfile.TokenizerInfo{Kind: tokenizer.KindLlama, Scores: scores.floats()}
	if len(info.Scores) != len(tokens) {
		return info, fail("", -1, "tokenizer.ggml.scores has %d numbers for %d tokens", len(info.Scores), len(tokens))
	}
	for key, want := range map[string]any{
		"bos_token_id": uint64(tokenizer.LlamaBOS), "eos_token_id": uint64(tokenizer.LlamaEOS), "add_space_prefix": true,
	} {
		if v, ok := f.meta["tokenizer.ggml."+key]; ok && v != want {
			return info, fail("", -1, "tokenizer.ggml.%s = %s; only %s is supported", key, shown(v), shown(want))
		}
	}
	// Ids that no text has, at the end, are the padding of the vocabulary.
	for len(tokens) > 0 && types[len(tokens)-1] == tokenUnused {
		tokens = tokens[:len(tokens)-1]
	}
	info.Scores = info.Scores[:len(tokens)]
	for id, t := range tokens {
		if !utf8.ValidString(t) {
			return info, fail("", -1, "token %d is not UTF-8", id)
		}
		info.Pieces = append(info.Pieces, strings.ReplaceAll(t, "\u2581", " "))
	}
	if _, err := tokenizer.NewLlama(info.Pieces, info.Scores); err != nil {
		return info, fail("", -1, "%v", err)
	}
	return info, nil
}

// knownTokenizer finds the tokenizer of ours whose tokens have these texts;
// end says that GPT-2's end of text comes after them.
func knownTokenizer(texts []string, model string, end bool) (info spinfile.TokenizerInfo, ok bool) {
	if model == "gpt2" {
		all := texts
		if end {
			all = append(slices.Clip(texts), endOfText)
		}
		if keep, ok := keptOfGPT2(all); ok {
			info.Kind = tokenizer.KindGPT2
			if len(keep) <= tokenizer.EndOfText {
				info.Keep = keep
			}
			return info, true
		}
	}
	chars := strings.Join(texts, "")
	if model == "rwkv" && len(texts) == 256 && len(chars) == 256 && !utf8.ValidString(chars) {
		return spinfile.TokenizerInfo{Kind: tokenizer.KindBytes}, true
	}
	if utf8.RuneCountInString(chars) != len(texts) {
		return info, false
	}
	_, err := tokenizer.New(tokenizer.KindChars, chars)
	return spinfile.TokenizerInfo{Kind: tokenizer.KindChars, Chars: chars}, err == nil
}

// keptOfGPT2 gives the GPT-2 ids of texts, if all are GPT-2's and ascend, the
// single bytes among them.
func keptOfGPT2(texts []string) (keep []int32, ok bool) {
	t := tokenizer.GPT2()
	id, single := int32(0), 0
	var b []byte
	for _, text := range texts {
		for ; ; id++ {
			if int(id) >= t.VocabSize() {
				return nil, false
			}
			var err error
			if b, err = t.AppendDecode(b[:0], id); err != nil {
				return nil, false
			}
			if string(b) == text {
				break
			}
		}
		if len(text) == 1 {
			single++
		}
		keep = append(keep, id)
		id++
	}
	return keep, single == 256
}

// plainBytes are the bytes that the characters of GPT-2's vocabulary stand for.
var plainBytes = func() map[rune]byte {
	m := map[rune]byte{}
	for b, r := range byteRunes {
		m[r] = byte(b)
	}
	return m
}()

// plain gives the bytes of a token of GPT-2's vocabulary.
func plain(token string) (string, bool) {
	b := make([]byte, 0, len(token))
	for _, r := range token {
		v, ok := plainBytes[r]
		if !ok {
			return "", false
		}
		b = append(b, v)
	}
	return string(b), len(b) > 0
}

// plainRWKV gives the bytes of a token of RWKV's vocabulary, which has those
// that cannot be seen as \xNN.
func plainRWKV(token string) (string, bool) {
	var b []byte
	for i := 0; i < len(token); i++ {
		if token[i] != '\\' {
			b = append(b, token[i])
			continue
		}
		if len(token)-i < 4 || token[i+1] != 'x' {
			return "", false
		}
		v, err := strconv.ParseUint(token[i+2:i+4], 16, 8)
		if err != nil {
			return "", false
		}
		b = append(b, byte(v))
		i += 3
	}
	return string(b), len(b) > 0
}
