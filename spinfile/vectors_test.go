package spinfile

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"spinnet/arch"
)

// Test vectors for readers of the format (docs/format.md): testdata/vectors
// holds files that begin with a few lines of text,
//
//	expect: ok, or what is wrong
//	section: where, and at
//	offset: which byte
//
// an empty line, and then a .spinnet file, which is to be read or refused.
// UPDATE_GOLDEN=1 go test -run TestVectors ./spinfile writes them.
type vector struct {
	name, expect string
	make         func() []byte
}

// wrong says what an error's reason holds for what a vector expects.
var wrong = map[string]string{
	"bad magic":       "not a .spinnet file",
	"bad version":     "is not supported",
	"truncated":       "truncated",
	"trailing bytes":  "bytes after the end",
	"bad checksum":    "checksum",
	"bad zero":        "must be 0",
	"bad flags":       "unknown flags",
	"bad table":       "",
	"bad config":      "",
	"bad tokenizer":   "",
	"bad metadata":    "",
	"bad JSON":        "",
	"bad record":      "",
	"bad value":       "",
	"missing tensor":  "missing",
	"unknown tensor":  "does not belong",
	"bad encoding":    "encoding",
	"bad rotation":    "want",
	"second record":   "a second record",
	"bad tensor size": "values in encoding",
}

// least is a model as small as they come, with 16 × 16 weights.
func least(t testing.TB, quantizer string, tok TokenizerInfo) *Model {
	t.Helper()
	c := arch.Config{NLayer: 1, NHead: 1, NEmbd: 16, HiddenDim: 16, BlockSize: 2, VocabSize: 2, Algebra: "real", Quantizer: quantizer}
	switch {
	case tok.Kind == "llama":
		c.VocabSize = 3
	case tok.Kind == "gpt2" || tok.Kind == "bytes":
		c.VocabSize = 300
	}
	all := randomLatents(c)
	m, err := FromLatents(c, tok, func(n string) []float32 { return all[n] })
	if err != nil {
		t.Fatal(err)
	}
	m.Meta = map[string]string{"a": "1", "b": "2"}
	return m
}

// keptBytes are the ids of the single bytes and others of GPT-2.
func keptBytes(others ...int32) []int32 {
	var keep []int32
	for id := range int32(byteVocab) {
		keep = append(keep, id)
	}
	return append(keep, others...)
}

// reseal gives a version 5 file the size and the checksums that it should
// have.
func reseal(b []byte) []byte {
	b = slices.Clone(b)
	if len(b) < headerLen {
		return b
	}
	le.PutUint64(b[8:], uint64(len(b)))
	count, names := uint64(le.Uint32(b[16:])), uint64(le.Uint32(b[20:]))
	end := headerLen + count*entryLen + names
	if end > uint64(len(b)) {
		return b
	}
	for i := range count {
		e := b[headerLen+i*entryLen:][:entryLen]
		offset, length := le.Uint64(e[8:]), le.Uint64(e[16:])
		if offset <= uint64(len(b)) && length <= uint64(len(b))-offset {
			le.PutUint32(e[4:], crc32.Checksum(b[offset:offset+length], castagnoli))
		}
	}
	sum := crc32.Update(crc32.Checksum(b[:headerLen-4], castagnoli), castagnoli, b[headerLen:end])
	le.PutUint32(b[headerLen-4:], sum)
	return b
}

func vectors(t testing.TB) []vector {
	five := func(m *Model) []byte {
		b, _, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	four := func() []byte {
		c := tiny
		c.NLayer, c.BlockSize, c.HiddenDim = 1, 1, arch.ClassicHidden(c.NEmbd)
		all := randomLatents(c)
		m, err := FromLatents(c, TokenizerInfo{}, func(n string) []float32 { return all[n] })
		if err != nil {
			t.Fatal(err)
		}
		b, err := Encode4(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	chars := TokenizerInfo{Kind: "chars", Chars: "ab"}
	plain := func() *Model { return least(t, arch.AbsMean, chars).Quantize() }
	sparse := func(zeros float64) *Model {
		m := plain()
		r := rand.New(rand.NewPCG(1, 1))
		for i := range m.Tensors {
			if q := m.Tensors[i].Trits; q != nil {
				copy(q, randomTrits(len(q), zeros, r))
			}
		}
		return m
	}
	// section i of a file, resealed after a change.
	section := func(b []byte, i int) []byte {
		e := b[headerLen+i*entryLen:]
		return b[le.Uint64(e[8:]):][:le.Uint64(e[16:])]
	}
	change := func(b []byte, do func(b []byte)) []byte {
		do(b)
		return reseal(b)
	}
	const wq = 5 // the first ternary tensor's section
	replace := func(old, with string) func() []byte {
		return func() []byte {
			b := four()
			n := int(le.Uint32(b[6:]))
			header := strings.Replace(string(b[10:10+n]), old, with, 1)
			out := append(le.AppendUint32(slices.Clone(b[:6]), uint32(len(header))), header...)
			return append(out, b[10+n:]...)
		}
	}
	// at changes a version 4 file from the record of a name on.
	at := func(name string, do func(b []byte)) func() []byte {
		return func() []byte {
			b := four()
			do(b[bytes.Index(b, []byte(name))+len(name):])
			return b
		}
	}
	return []vector{
		{"v5_int8", "ok", func() []byte { return five(plain()) }},
		{"v5_float", "ok", func() []byte { return five(least(t, arch.None, TokenizerInfo{})) }},
		{"v5_classic", "ok", func() []byte { return five(least(t, arch.Classic, TokenizerInfo{Kind: "bytes"}).Quantize()) }},
		{"v5_q6", "ok", func() []byte { return five(plain().QuantizeEmbedding(6)) }},
		{"v5_q4", "ok", func() []byte { return five(plain().QuantizeEmbedding(4)) }},
		{"v5_bitmask", "ok", func() []byte { return five(sparse(0.45)) }},
		{"v5_entropy", "ok", func() []byte { return five(sparse(0.9)) }},
		{"v5_gpt2_trimmed", "ok", func() []byte {
			return five(least(t, arch.AbsMean, TokenizerInfo{Kind: "gpt2", Keep: keptBytes(300, 50256)}).Quantize())
		}},
		{"v5_llama", "ok", func() []byte {
			return five(least(t, arch.AbsMean, TokenizerInfo{Kind: "llama", Pieces: []string{"<unk>", "<s>", "é"}, Scores: []float32{0, 0, -1}}).Quantize())
		}},
		{"v5_mixer_untied", "ok", func() []byte { return five(samples(t)["untied int8"]) }},
		{"v5_empty", "truncated", func() []byte { return nil }},
		{"v5_header_cut", "truncated", func() []byte { return five(plain())[:63] }},
		{"v5_cut", "truncated", func() []byte { b := five(plain()); return b[:len(b)-1] }},
		{"v5_trailing", "trailing bytes", func() []byte { return append(five(plain()), 0) }},
		{"v5_magic", "bad magic", func() []byte { return change(five(plain()), func(b []byte) { b[0] = 's' }) }},
		{"v5_version", "bad version", func() []byte { return change(five(plain()), func(b []byte) { b[4] = 6 }) }},
		{"v2", "bad version", func() []byte { b := four(); b[4] = 2; return b }},
		{"v5_flags", "bad flags", func() []byte { return change(five(plain()), func(b []byte) { b[6] = 1 }) }},
		{"v5_header_reserved", "bad zero", func() []byte { return change(five(plain()), func(b []byte) { b[30] = 1 }) }},
		{"v5_padding", "bad zero", func() []byte {
			return change(five(plain()), func(b []byte) { b[le.Uint64(b[headerLen+entryLen+8:])-1] = 1 })
		}},
		{"v5_header_checksum", "bad checksum", func() []byte { b := five(plain()); b[headerLen+1] ^= 1; return b }},
		{"v5_section_checksum", "bad checksum", func() []byte { b := five(plain()); b[len(b)-1] ^= 1; return b }},
		{"v5_section_place", "bad table", func() []byte { return change(five(plain()), func(b []byte) { b[headerLen+entryLen+8] += 64 }) }},
		{"v5_section_kind", "bad table", func() []byte { return change(five(plain()), func(b []byte) { b[headerLen+entryLen] = 3 }) }},
		{"v5_section_name", "bad table", func() []byte {
			return change(five(plain()), func(b []byte) {
				n := bytes.Index(b, []byte("tok_embeddings"))
				b[n] = 'T'
			})
		}},
		{"v5_section_count", "bad table", func() []byte { return change(five(plain()), func(b []byte) { le.PutUint32(b[16:], 1<<31) }) }},
		{"v5_no_tensor", "missing tensor", func() []byte {
			return change(five(plain()), func(b []byte) {
				section(b, 0)[30] = flagUntied
			})
		}},
		{"v5_config", "bad config", func() []byte { return change(five(plain()), func(b []byte) { le.PutUint32(section(b, 0)[4:], 3) }) }},
		{"v5_config_layers", "bad config", func() []byte { return change(five(plain()), func(b []byte) { le.PutUint32(section(b, 0)[0:], 4096) }) }},
		{"v5_huge", "bad tensor size", func() []byte {
			return change(five(plain()), func(b []byte) { le.PutUint32(section(b, 0)[24:], 1<<24) })
		}},
		{"v5_config_quantizer", "bad config", func() []byte { return change(five(plain()), func(b []byte) { section(b, 0)[28] = 3 }) }},
		{"v5_config_flags", "bad config", func() []byte { return change(five(plain()), func(b []byte) { section(b, 0)[30] = 4 }) }},
		{"v5_tokenizer_kind", "bad tokenizer", func() []byte { return change(five(plain()), func(b []byte) { section(b, 1)[0] = 9 }) }},
		{"v5_tokenizer_utf8", "bad tokenizer", func() []byte { return change(five(plain()), func(b []byte) { section(b, 1)[1] = 0xff }) }},
		{"v5_tokenizer_order", "bad tokenizer", func() []byte { return change(five(plain()), func(b []byte) { copy(section(b, 1)[1:], "ba") }) }},
		{"v5_tokenizer_twice", "bad tokenizer", func() []byte { return change(five(plain()), func(b []byte) { copy(section(b, 1)[1:], "aa") }) }},
		{"v5_tokenizer_large", "bad tokenizer", func() []byte { // 256 bytes for two ids
			return change(five(least(t, arch.None, TokenizerInfo{})), func(b []byte) { section(b, 1)[0] = 2 })
		}},
		{"v5_tokenizer_no_byte", "bad tokenizer", func() []byte {
			trimmed := least(t, arch.AbsMean, TokenizerInfo{Kind: "gpt2", Keep: keptBytes(300, 50256)}).Quantize()
			return change(five(trimmed), func(b []byte) { section(b, 1)[34] = 0xfe })
		}},
		{"v5_tokenizer_two_pieces", "bad tokenizer", func() []byte {
			llama := TokenizerInfo{Kind: "llama", Pieces: []string{"", "", "123456"}, Scores: make([]float32, 3)}
			return change(five(least(t, arch.AbsMean, llama).Quantize()), func(b []byte) { // the third is the second's text
				s := section(b, 1)
				s[1], s[15] = 2, 12
			})
		}},
		{"v5_tokenizer_hash", "bad tokenizer", func() []byte {
			return change(five(least(t, arch.AbsMean, TokenizerInfo{Kind: "gpt2", Keep: keptBytes()}).Quantize()), func(b []byte) { section(b, 1)[1] ^= 1 })
		}},
		{"v5_metadata_order", "bad metadata", func() []byte { return change(five(plain()), func(b []byte) { section(b, 2)[6] = 'c' }) }},
		{"v5_metadata_length", "bad metadata", func() []byte { return change(five(plain()), func(b []byte) { section(b, 2)[7] = 200 }) }},
		{"v5_encoding", "bad encoding", func() []byte { return change(five(plain()), func(b []byte) { b[headerLen+wq*entryLen+1] = 3 }) }},
		{"v5_scales", "bad encoding", func() []byte { return change(five(plain()), func(b []byte) { b[headerLen+wq*entryLen+2] = 0 }) }},
		{"v5_tensor_size", "bad tensor size", func() []byte { return change(five(plain()), func(b []byte) { b[headerLen+wq*entryLen+2] = 2 }) }},
		{"v5_minus_128", "bad value", func() []byte { return change(five(plain()), func(b []byte) { section(b, 3)[7] = 0x80 }) }},
		{"v5_infinite_scale", "bad value", func() []byte {
			return change(five(plain()), func(b []byte) { copy(section(b, 3)[32:], "\x00\x00\x80\x7f") })
		}},
		{"v5_infinite_norm", "bad value", func() []byte { return change(five(plain()), func(b []byte) { copy(section(b, 4)[2:], "\x00\xfc") }) }},
		{"v5_base3", "bad value", func() []byte { return change(five(plain()), func(b []byte) { section(b, wq)[9] = 243 }) }},
		{"v5_base3_end", "bad value", func() []byte { return change(five(plain()), func(b []byte) { section(b, wq)[51] += 3 }) }},
		{"v5_q4_product", "bad value", func() []byte {
			return change(five(plain().QuantizeEmbedding(4)), func(b []byte) { section(b, 3)[32] = 255 })
		}},
		{"v5_q6_end", "bad value", func() []byte {
			return change(five(plain().QuantizeEmbedding(6)), func(b []byte) { section(b, 3)[0] ^= 0x10 })
		}},
		{"v5_bitmask_signs", "bad value", func() []byte {
			return change(five(sparse(0.45)), func(b []byte) { section(b, wq)[0] = 0; section(b, wq)[1] = 0 })
		}},
		{"v5_entropy_state", "bad value", func() []byte { return change(five(sparse(0.9)), func(b []byte) { section(b, wq)[2] ^= 1 }) }},
		{"v4", "ok", four},
		{"v3", "ok", func() []byte { b := four(); b[4] = 3; return b }},
		{"v4_cut", "truncated", func() []byte { b := four(); return b[:len(b)-4] }},
		{"v4_trailing", "trailing bytes", func() []byte { return append(four(), 0) }},
		{"v4_json", "bad JSON", replace("true}", "true")},
		{"v4_json_key", "bad JSON", replace("n_head", "n_tail")},
		{"v4_json_bias", "bad JSON", replace(`"bias": false`, `"bias": true`)},
		{"v4_config", "bad config", replace(`"n_head": 8`, `"n_head": 7`)},
		{"v4_layers", "bad config", replace(`"n_layer": 1`, `"n_layer": 4096`)},
		{"v4_shape", "bad record", replace(`"vocab_size": 3`, `"vocab_size": 4`)},
		{"v4_missing", "missing tensor", at("layers.0.ffn_nor", func(b []byte) { b[0] = 'n' })},
		{"v4_unknown", "unknown tensor", replace(`"octonion_attention": true`, `"octonion_attention": false`)},
		{"v4_second", "second record", func() []byte {
			b := four()
			i := bytes.Index(b, []byte("layers.0.ffn_norm")) - 3
			return append(slices.Clone(b[:i+65]), b[i:]...)
		}},
		{"v4_marker", "bad record", func() []byte { b := four(); b[bytes.Index(b, []byte("freqs_cis"))-3] = 'X'; return b }},
		{"v4_dtype", "bad record", at("layers.0.ffn_norm.weight", func(b []byte) { b[0] = 3 })},
		{"v4_dims", "bad record", at("layers.0.ffn_norm.weight", func(b []byte) { b[1] = 9 })},
		{"v4_huge", "bad record", at("layers.0.ffn_norm.weight", func(b []byte) { copy(b[2:], "\xff\xff\xff\xff") })},
		{"v4_nonzeros", "bad record", at("wq.weight", func(b []byte) { b[13]++ })},
		{"v4_infinite", "bad value", at("layers.0.ffn_norm.weight", func(b []byte) { copy(b[6:], "\x00\x7c") })},
		{"v4_rotation", "bad rotation", at("freqs_cis", func(b []byte) { b[17] = 0 })},
	}
}

const vectorDir = "testdata/vectors"

// TestVectors reads every vector and finds what it expects.
func TestVectors(t *testing.T) {
	if os.Getenv("UPDATE_GOLDEN") != "" {
		writeVectors(t)
	}
	files, err := filepath.Glob(vectorDir + "/*")
	if err != nil || len(files) != len(vectors(t)) {
		t.Errorf("%d vectors in %s, want %d: %v", len(files), vectorDir, len(vectors(t)), err)
	}
	for _, file := range files {
		head, body := readVector(t, file)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(body)
		runtime.ReadMemStats(&after)
		if used, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+100*len(body)); used > most {
			t.Errorf("%s: %d bytes allocated for a file of %d, want at most %d", file, used, len(body), most)
		}
		if head["expect"] == "ok" {
			if err != nil {
				t.Errorf("%s: %v", file, err)
			}
			continue
		}
		bad, ok := errors.AsType[*CorruptError](err)
		if !ok {
			t.Errorf("%s: got %v, want %s", file, err, head["expect"])
			continue
		}
		reason, known := wrong[head["expect"]]
		if !known || !strings.Contains(bad.Reason, reason) || bad.Section != head["section"] || fmt.Sprint(bad.Offset) != head["offset"] {
			t.Errorf("%s: got %v, want %v", file, err, head)
		}
	}
}

// TestVectorsFresh compares the vectors with what would be written today.
func TestVectorsFresh(t *testing.T) {
	for _, v := range vectors(t) {
		_, body := readVector(t, filepath.Join(vectorDir, v.name))
		diffBytes(t, v.name, body, v.make())
	}
}

func readVector(t testing.TB, file string) (head map[string]string, body []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text, body, ok := bytes.Cut(b, []byte("\n\n"))
	if !ok {
		t.Fatalf("%s: no empty line", file)
	}
	head = map[string]string{}
	for line := range strings.SplitSeq(string(text), "\n") {
		key, value, _ := strings.Cut(line, ": ")
		head[key] = value
	}
	return head, body
}

func writeVectors(t *testing.T) {
	if err := os.RemoveAll(vectorDir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(vectorDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors(t) {
		body := v.make()
		head := "expect: " + v.expect + "\n"
		if v.expect != "ok" {
			_, err := Decode(body)
			bad, ok := errors.AsType[*CorruptError](err)
			if !ok {
				t.Errorf("%s: got %v, want %s", v.name, err, v.expect)
				continue
			}
			head += fmt.Sprintf("section: %s\noffset: %d\n", bad.Section, bad.Offset)
		}
		if err := os.WriteFile(filepath.Join(vectorDir, v.name), append([]byte(head+"\n"), body...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzDecode: no input makes the reader panic, and what it reads is a whole
// model that can be written and read again. Of version 5 files it also tries
// what they would be with good checksums.
func FuzzDecode(f *testing.F) {
	f.Add(readSeedTiny(f))
	files, err := filepath.Glob(vectorDir + "/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		_, body := readVector(f, file)
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		checkDecode(t, data)
		if len(data) > 5 && data[4] == 5 {
			checkDecode(t, reseal(data))
		}
	})
}

func checkDecode(t *testing.T, data []byte) {
	m, err := Decode(data)
	if err != nil {
		if _, ok := errors.AsType[*CorruptError](err); !ok {
			t.Fatalf("the error %v is no CorruptError", err)
		}
		return
	}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	b, _, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Tensors {
		got, want := &again.Tensors[i], &m.Tensors[i]
		if want.Data != nil && !fitsFloat16(want.Data) {
			continue
		}
		if !slices.Equal(got.Trits, want.Trits) || !slices.Equal(got.Int8, want.Int8) || !bytes.Equal(got.Packed, want.Packed) || !slices.Equal(got.Scale, want.Scale) || !slices.Equal(got.Groups, want.Groups) {
			t.Fatalf("%s changed", want.Name)
		}
	}
	if again.Config != m.Config || !again.Tokenizer.Equal(m.Tokenizer) || !reflect.DeepEqual(again.Meta, m.Meta) {
		t.Fatalf("got %+v %v %v, want %+v %v %v", again.Config, again.Tokenizer, again.Meta, m.Config, m.Tokenizer, m.Meta)
	}
}
