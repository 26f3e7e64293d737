package engine

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"testing"

	"spinnet/arch"
	"spinnet/spinfile"
)

// image is the image of a model.
func image(t testing.TB, m *spinfile.Model, o Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteImage(&b, m, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// imageModel is a random model with a tokenizer, in which everything occurs.
func imageModel(t testing.TB) *spinfile.Model {
	t.Helper()
	m := randomModel(t, arch.Config{NLayer: 2, NHead: 8, NKVHead: 4, NEmbd: 64, HiddenDim: 48, BlockSize: 7, VocabSize: 70,
		Quantizer: arch.AbsMean, OctonionAttention: true, UntiedOutput: true, Algebra: "octonion,walsh", ActBits: 8}, 3)
	m.Tokenizer = spinfile.TokenizerInfo{Kind: "chars", Chars: "abc"}
	m.Meta = map[string]string{"step": "1"}
	return m
}

// TestImage: the logits from an image are the golden ones.
func TestImage(t *testing.T) {
	for _, cache := range []bool{false, true} {
		h := fnv.New64a()
		for _, c := range smallModels {
			m := randomModel(t, c.c, 7)
			m.Tokenizer = spinfile.TokenizerInfo{Kind: "chars", Chars: "abc"}
			b := image(t, m, Options{Int8Cache: cache})
			before := slices.Clone(b)
			e, tok, err := FromImage(b)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if tok.Chars() != "abc" || e.Config() != m.Config || e.Numeric() != Int8 {
				t.Errorf("%s: got %q, %+v, %s", c.name, tok.Chars(), e.Config(), e.Numeric())
			}
			s := e.NewSession()
			ids := randomIDs(min(200, 2*c.c.BlockSize+6), c.c.VocabSize, 3)
			for at, n := 0, 1; at < len(ids); at, n = at+n, n*3%50+1 {
				n = min(n, len(ids)-at)
				logits, err := s.Prefill(ids[at : at+n])
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range logits {
					h.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
				}
			}
			if !bytes.Equal(b, before) {
				t.Errorf("%s: the image has changed", c.name)
			}
			e.Close()
		}
		want := uint64(int8Golden)
		if cache {
			want = int8CacheGolden
		}
		if got := h.Sum64(); got != want {
			t.Errorf("int8 cache %v: fingerprint %#x, want %#x", cache, got, want)
		}
	}
}

// TestImageTwice: an image does not depend on the machine's kernels, nor on how
// often it is made.
func TestImageTwice(t *testing.T) {
	m := imageModel(t)
	if !bytes.Equal(image(t, m, Options{}), image(t, m, Options{})) {
		t.Error("two images of a model differ")
	}
	if err := WriteImage(&bytes.Buffer{}, m, Options{Numeric: Float}); err == nil || !strings.Contains(err.Error(), "int8") {
		t.Errorf("an image for float arithmetic: %v", err)
	}
}

func TestImageBad(t *testing.T) {
	good := image(t, imageModel(t), Options{})
	le := binary.LittleEndian
	sum := func(b []byte) { // anew
		n := le.Uint32(b[20:])
		le.PutUint32(b[24:], imageSum(b[:imageHeader], b[imageHeader:imageHeader+int(n)]))
	}
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   string
	}{
		{"empty", func(b []byte) []byte { return nil }, "not a model's image"},
		{"another file", func(b []byte) []byte { return []byte("SPIN\x05\x00 and so on, for a while longer") }, "not a model's image"},
		{"magic only", func(b []byte) []byte { return b[:4] }, "not a model's image"},
		{"version", func(b []byte) []byte { b[4] = 9; return b }, "version 9"},
		{"cut", func(b []byte) []byte { return b[:len(b)-1] }, "that says it has"},
		{"cut, and says so", func(b []byte) []byte { b = b[:len(b)-64]; le.PutUint64(b[8:], uint64(len(b))); sum(b); return b }, "cut short"},
		{"longer, and says so", func(b []byte) []byte {
			b = append(b, 1, 2)
			le.PutUint64(b[8:], uint64(len(b)))
			sum(b)
			return b
		}, "2 bytes too many"},
		{"head", func(b []byte) []byte { b[imageHeader+5]++; return b }, "checksum"},
		{"head too long", func(b []byte) []byte { le.PutUint32(b[20:], 1<<31); return b }, "damaged"},
		{"flags", func(b []byte) []byte { b[16] = 6; return b }, "damaged"},
		{"configuration", func(b []byte) []byte { b[imageHeader+4]++; sum(b); return b }, "cut short"}, // a layer more
		{"many layers", func(b []byte) []byte { le.PutUint32(b[imageHeader+4:], 1<<20); sum(b); return b }, "layer"},
		{"wide", func(b []byte) []byte { le.PutUint32(b[imageHeader+4+4*6:], 1<<24); sum(b); return b }, "cut short"},
		{"not aligned", func(b []byte) []byte { c := make([]byte, len(b)+1); copy(c[1:], b); return c[1:] }, "multiple of 4"},
	} {
		e, _, err := FromImage(c.change(slices.Clone(good)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
		if e != nil {
			t.Errorf("%s: an engine beside the error", c.name)
		}
	}
}

// FuzzFromImage: no bytes make it panic, nor a text computed from them.
func FuzzFromImage(f *testing.F) {
	good := image(f, imageModel(f), Options{Int8Cache: true})
	f.Add(good, 0, byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at int, v byte) {
		if len(b) == 0 {
			b = good
		}
		b = slices.Clone(b)
		b[uint(at)%uint(len(b))] = v
		if n := len(b); n >= imageHeader {
			if head := binary.LittleEndian.Uint32(b[20:]); int64(head) <= int64(n-imageHeader) { // else no fuzzing gets past the checksum
				binary.LittleEndian.PutUint32(b[24:], imageSum(b[:imageHeader], b[imageHeader:imageHeader+int(head)]))
			}
		}
		e, _, err := FromImage(b)
		if err != nil || e.Config().BlockSize > 1000 || e.Config().NEmbd > 1000 || e.Config().HiddenDim > 1000 {
			return
		}
		s := e.NewSession()
		s.Step(0)
		s.Step(0)
	})
}

// TestCacheBytes: not less than a session has, and not much more.
func TestCacheBytes(t *testing.T) {
	for _, c := range []arch.Config{
		{NLayer: 2, NHead: 4, NKVHead: 2, NEmbd: 64, HiddenDim: 64, BlockSize: 2000, VocabSize: 10, Algebra: "real"},
		{NLayer: 1, NHead: 1, NEmbd: 32, HiddenDim: 32, BlockSize: 5, VocabSize: 10, Algebra: "real"},
	} {
		for _, cache8 := range []bool{false, true} {
			e := newInt8Engine(t, c, Options{Threads: 1, Int8Cache: cache8})
			s := e.NewSession()
			for _, n := range []int{1, 300, 700, 3000} {
				for s.Pos() < n {
					if _, err := s.Prefill(randomIDs(min(100, n-s.Pos()), 10, 1)); err != nil {
						t.Fatal(err)
					}
				}
				k, got := &s.cache, 0
				for i := range k.layers {
					got += 4*(len(k.keys[i])+len(k.values[i])+len(k.keyScale[i])+len(k.valueScale[i])) + len(k.keys8[i]) + len(k.values8[i])
				}
				if most := e.CacheBytes(n); got > most+most/8 || most > 3*got {
					t.Errorf("%d tokens, int8 %v: CacheBytes %d, the cache has %d", n, cache8, most, got)
				}
			}
		}
	}
}
