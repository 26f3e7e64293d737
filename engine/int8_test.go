package engine

import (
	"context"
	"errors"
	"hash/fnv"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"spinnet/arch"
	"spinnet/kernel"
	"spinnet/spinfile"
)

// newInt8Engine runs a model in int8 numerics.
func newInt8Engine(t testing.TB, c arch.Config, o Options) *Engine {
	t.Helper()
	o.Numeric = Int8
	e, err := New(randomModel(t, c, 7), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// TestInt8AgainstDefinition: int8 numerics stay near the definition of a
// model with int8 activations, in one piece and token by token.
func TestInt8AgainstDefinition(t *testing.T) {
	for _, c := range smallModels {
		t.Run(c.name, func(t *testing.T) {
			c.c.ActBits = 8
			e := newInt8Engine(t, c.c, Options{Threads: 2})
			ids := randomIDs(2*c.c.BlockSize+6, c.c.VocabSize, 3)
			want := naiveRounded(t, randomModel(t, c.c, 7), ids, true)
			s := e.NewSession()
			worst := 0.0
			for p, id := range ids {
				worst = max(worst, relL2(s.Step(id), want[p]))
			}
			if !(worst <= 2e-2) { // a value near a half may round the other way
				t.Errorf("relative error %.2g", worst)
			}
		})
	}
}

// int8Hash is a fingerprint of all logits of a text, read in pieces of
// several sizes.
func int8Hash(t testing.TB, o Options) uint64 {
	h := fnv.New64a()
	for _, c := range smallModels {
		s := newInt8Engine(t, c.c, o).NewSession()
		ids := randomIDs(min(200, 2*c.c.BlockSize+6), c.c.VocabSize, 3)
		for at, n := 0, 1; at < len(ids); at, n = at+n, n*3%50+1 {
			n = min(n, len(ids)-at)
			logits, err := s.Prefill(ids[at : at+n])
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range logits {
				b := math.Float32bits(v)
				h.Write([]byte{byte(b), byte(b >> 8), byte(b >> 16), byte(b >> 24)})
			}
		}
	}
	return h.Sum64()
}

// The fingerprints, the same on every machine, kernel set and compiler
// setting: a change of these changes what every stored model writes.
const (
	int8Golden      = 0x12c572c9087819b8
	int8CacheGolden = 0xdd5fbecab507e288
)

// TestInt8Bits compares logits bit by bit with those of every other machine.
func TestInt8Bits(t *testing.T) {
	for _, threads := range []int{1, 2, 5} {
		if got := int8Hash(t, Options{Threads: threads}); got != int8Golden {
			t.Errorf("%s, %d threads: logits have the fingerprint %#x, want %#x", kernel.Set(), threads, got, uint64(int8Golden))
		}
		if got := int8Hash(t, Options{Threads: threads, Int8Cache: true}); got != int8CacheGolden {
			t.Errorf("%s, %d threads, int8 cache: logits have the fingerprint %#x, want %#x", kernel.Set(), threads, got, uint64(int8CacheGolden))
		}
	}
}

// TestInt8Packed: tables of 4 and 6 bits give what their values in int8 give,
// bit for bit, for one token, a prompt and a score.
func TestInt8Packed(t *testing.T) {
	for _, c := range smallModels {
		for _, bits := range []int{4, 6} {
			packed := randomModel(t, c.c, 7).QuantizeEmbedding(bits)
			expanded := *packed
			expanded.Tensors = slices.Clone(packed.Tensors)
			for i := range expanded.Tensors {
				w := &expanded.Tensors[i]
				w.Int8, w.Packed, w.Groups, w.Bits = w.Expanded(), nil, nil, 0
			}
			ids := randomIDs(2*c.c.BlockSize+6, c.c.VocabSize, 3)
			var want []float32
			for i, m := range []*spinfile.Model{&expanded, packed} {
				e, err := New(m, Options{Threads: 2, Numeric: Int8})
				if err != nil {
					t.Fatal(err)
				}
				s := e.NewSession()
				var got []float32
				for _, id := range ids[:min(len(ids), 20)] {
					got = append(got, s.Step(id)...)
				}
				logits, err := s.Prefill(ids)
				if err != nil {
					t.Fatal(err)
				}
				score, err := e.Score(context.Background(), ids, nil)
				if err != nil {
					t.Fatal(err)
				}
				e.Close()
				got = append(append(got, logits...), score.LogProbs...)
				if i == 0 {
					want = got
				} else if !slices.Equal(got, want) {
					t.Errorf("%s, %s, %d bits: the packed table gives other logits", kernel.Set(), c.name, bits)
				}
			}
		}
	}
}

// TestInt8BitsEverySet runs the tests of bits with every kernel set that this
// machine has.
func TestInt8BitsEverySet(t *testing.T) {
	if os.Getenv("SPINNET_KERNEL") != "" {
		t.Skip("a kernel set is forced")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	for _, set := range kernel.Sets() {
		cmd := exec.Command(exe, "-test.run=^TestInt8(Bits|Packed)$")
		cmd.Env = append(os.Environ(), "SPINNET_KERNEL="+set)
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.ENOEXEC) {
			t.Skip("an emulated program cannot start itself")
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", set, err, out)
		}
	}
}

// TestInt8Chunks: how a prompt is cut does not matter to a single bit.
func TestInt8Chunks(t *testing.T) {
	for _, c := range smallModels {
		for _, o := range []Options{{Threads: 1}, {Threads: 3}, {Threads: 3, Int8Cache: true}} {
			e := newInt8Engine(t, c.c, o)
			ids := randomIDs(2*c.c.BlockSize+6, c.c.VocabSize, 3)
			s := e.NewSession()
			whole, err := s.Prefill(ids)
			if err != nil {
				t.Fatal(err)
			}
			whole = slices.Clone(whole)
			s = e.NewSession()
			var got []float32
			for _, id := range ids {
				got = s.Step(id)
			}
			if !slices.Equal(got, whole) {
				t.Errorf("%s, %d threads: step by step differs from one piece", c.name, o.Threads)
			}
		}
	}
}

func TestInt8Score(t *testing.T) {
	c := smallModels[1].c
	c.ActBits = 8
	m := randomModel(t, c, 7)
	ids := randomIDs(40, c.VocabSize, 3)
	var want Score
	for i, o := range []Options{{Numeric: Float}, {}, {Int8Cache: true}} {
		e, err := New(m, o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Score(context.Background(), ids, nil)
		e.Close()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			want = got
		}
		if math.Abs(got.Loss-want.Loss) > 0.02*want.Loss {
			t.Errorf("%+v: loss %v, float %v", o, got.Loss, want.Loss)
		}
	}
}

func TestOptions(t *testing.T) {
	m := randomModel(t, smallModels[1].c, 7)
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Numeric: "bf16"}, `unknown numeric "bf16"`},
		{Options{Int8Cache: true}, "an int8 cache needs int8 numerics"},
		{Options{Threads: 1 << 20}, "threads"},
	} {
		if _, err := New(m, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.o, err, c.want)
		}
	}
	wide := arch.Config{NLayer: 1, NHead: 1, NEmbd: 2, HiddenDim: kernel.MaxInt8Columns + 1, BlockSize: 4, VocabSize: 3, Algebra: "real"}
	if _, err := New(randomModel(t, wide, 7), Options{Numeric: Int8}); err == nil || !strings.Contains(err.Error(), "hidden_dim = 65537") {
		t.Errorf("a product that may overflow: got %v", err)
	}
	m.Config.ActBits = 8
	e, err := New(m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.Numeric() != Int8 {
		t.Error("a model with int8 activations runs in float by default")
	}
}

// BenchmarkInt8 is a token at position 256, and a prompt of 256 tokens, of a
// model with GPT-2's vocabulary in 8 bits or 4.
func BenchmarkInt8(b *testing.B) {
	for _, algebra := range []string{"octonion", "walsh", "octonion/q4"} {
		name, bits, _ := strings.Cut(algebra, "/")
		m := bigModel(b, name, 50304)
		if bits != "" {
			m = m.QuantizeEmbedding(4)
		}
		for _, threads := range []int{1, 2} {
			e, err := New(m, Options{Threads: threads, Numeric: Int8})
			if err != nil {
				b.Fatal(err)
			}
			s, ids := e.NewSession(), randomIDs(256, 50304, 1)
			b.Run("prefill/"+algebra+"/"+itoa(threads), func(b *testing.B) {
				for b.Loop() {
					s.Reset()
					if _, err := s.Prefill(ids); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(256*float64(b.N)/b.Elapsed().Seconds(), "tok/s")
			})
			b.Run("decode/"+algebra+"/"+itoa(threads), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if s.Pos() > 300 {
						s.pos = 256
					}
					s.Step(1)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tok/s")
			})
			e.Close()
		}
	}
}
