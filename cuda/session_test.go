//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"spinnet/arch"
	"spinnet/engine"
	"spinnet/spinfile"
)

var _ engine.Text = (*Session)(nil)

// sessionModels are tiny models with everything that the engine knows.
func sessionModels() map[string]arch.Config {
	base := arch.Config{NLayer: 2, NHead: 8, NEmbd: 64, HiddenDim: 176, BlockSize: 24, VocabSize: 65, Algebra: "octonion", ActBits: 8}
	with := func(change func(c *arch.Config)) arch.Config {
		c := base
		change(&c)
		return c.WithDefaults()
	}
	models := map[string]arch.Config{
		"mixer":      with(func(c *arch.Config) { c.OctonionAttention = true }),
		"two groups": with(func(c *arch.Config) { c.OctonionAttention, c.NHead, c.NEmbd = true, 16, 96 }),
		"mixed":      with(func(c *arch.Config) { c.Algebra = "walsh,quaternion" }),
		"kv heads":   with(func(c *arch.Config) { c.NKVHead, c.NHead, c.Algebra, c.HiddenDim = 2, 4, "quaternion", 44 }),
		"untied":     with(func(c *arch.Config) { c.UntiedOutput = true }),
		"odd widths": with(func(c *arch.Config) {
			c.NHead, c.NEmbd, c.HiddenDim, c.BlockSize, c.VocabSize = 4, 72, 1368/8, 17, 301
			c.Algebra = "real"
		}),
		"odd parts": with(func(c *arch.Config) { c.NEmbd, c.HiddenDim = 80, 8*171 }),
		"classic":   with(func(c *arch.Config) { c.Quantizer, c.OctonionAttention = arch.Classic, true }),
		"dense":     with(func(c *arch.Config) { c.Quantizer, c.OctonionAttention = arch.None, true }),
		"wide": with(func(c *arch.Config) {
			c.NLayer, c.NEmbd, c.HiddenDim, c.BlockSize, c.OctonionAttention = 1, 512, 1408, 300, true
		}),
		"mixer of quaternions": with(func(c *arch.Config) { c.OctonionAttention, c.MixerAlgebra = true, "quaternion" }),
	}
	for _, name := range []string{"real", "complex", "quaternion", "walsh", "random:5", "sedenion"} {
		models[name] = with(func(c *arch.Config) { c.Algebra = name })
	}
	return models
}

// sessionModel has random latents.
func sessionModel(t testing.TB, c arch.Config) *spinfile.Model {
	t.Helper()
	rng := rand.New(rand.NewPCG(testSeed, 1))
	all := map[string][]float32{}
	for _, p := range arch.Params(c) {
		w := make([]float32, p.Len())
		for i := range w {
			switch p.Kind {
			case arch.Norm, arch.Beta:
				w[i] = float32(1 + 0.1*rng.NormFloat64())
			default:
				w[i] = float32(rng.NormFloat64())
			}
			if p.Kind == arch.Ternary && c.Quantizer == arch.AbsMean { // as trained ones are: attention that is all or nothing makes much of little
				w[i] /= float32(math.Sqrt(float64(c.NEmbd)))
			}
			if p.Kind == arch.MixerWeight || c.Quantizer == arch.None && p.Kind == arch.Ternary {
				w[i] *= 0.1
			}
		}
		all[p.Name] = w
	}
	m, err := spinfile.FromLatents(c, spinfile.TokenizerInfo{}, func(name string) []float32 { return all[name] })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// needSession puts a model on the first GPU, or skips the test.
func needSession(t testing.TB, m *spinfile.Model, o engine.Options) *Session {
	t.Helper()
	s, err := NewSession(0, m, o)
	if err != nil {
		needGPU(t) // skips
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func cpuSession(t testing.TB, m *spinfile.Model, o engine.Options) *engine.Session {
	t.Helper()
	e, err := engine.New(m, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e.NewSession()
}

// sameLogits compares in int8 numerics bit by bit, in float by norms.
func sameLogits(numeric string, got, want []float32) error {
	return closeLogits(numeric, got, want, 1e-4)
}

func closeLogits(numeric string, got, want []float32, limit float64) error {
	if numeric == engine.Int8 {
		for i := range want {
			if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
				return fmt.Errorf("logit %d is %v, want the bits of %v", i, got[i], want[i])
			}
		}
		return nil
	}
	var d, n float64
	for i := range want {
		e := float64(got[i]) - float64(want[i])
		d += e * e
		n += float64(want[i]) * float64(want[i])
	}
	if !(d <= limit*limit*n) {
		return fmt.Errorf("relative error %.2g, want at most %g", math.Sqrt(d/n), limit)
	}
	return nil
}

// TestSession reads texts in pieces of several sizes, past the end of the
// context, on GPU and CPU.
func TestSession(t *testing.T) {
	needGPU(t) // and keep it open: to open it takes longer than most of what follows
	for name, c := range sessionModels() {
		if testing.Short() && !slices.Contains([]string{"mixer", "kv heads", "dense"}, name) {
			continue
		}
		if testing.Short() {
			c.BlockSize = 8
		}
		for _, o := range []engine.Options{{Numeric: engine.Int8}, {Numeric: engine.Int8, Int8Cache: true}, {Numeric: engine.Float}} {
			if o.Numeric == engine.Float {
				c.ActBits = 0 // rounding to int8 levels makes much of little
			}
			t.Run(fmt.Sprintf("%s/%s%v", name, o.Numeric, o.Int8Cache), func(t *testing.T) {
				testSession(t, sessionModel(t, c), o)
			})
		}
	}
	for _, bits := range []int{4, 6, 8} {
		for _, width := range []int{64, 72, 256} { // in groups of 32
			if testing.Short() && width != 72 {
				continue
			}
			c := sessionModels()["untied"]
			c.NEmbd, c.NHead, c.NKVHead = width, 4, 4
			for _, c.ActBits = range []int{8, 0} {
				t.Run(fmt.Sprintf("%d bits %d/%d", bits, width, c.ActBits), func(t *testing.T) {
					testSession(t, sessionModel(t, c).QuantizeEmbedding(bits), engine.Options{})
				})
			}
		}
	}
}

func testSession(t *testing.T, m *spinfile.Model, o engine.Options) {
	s, cpu := needSession(t, m, o), cpuSession(t, m, o)
	if want := s.info.Major == 9 && m.Config.Quantizer != arch.None && arch.AlgebraDim(m.Config.LayerAlgebra(0)) <= 8 && m.Config.Algebra != "walsh,quaternion" && m.Config.MixerAlgebra == "octonion"; s.fast != want {
		t.Errorf("a token in one launch: %v, want %v", s.fast, want)
	}
	rng := rand.New(rand.NewPCG(testSeed, 2))
	ids := make([]int32, 2*m.Config.BlockSize+6)
	for i := range ids {
		ids[i] = rng.Int32N(int32(m.Config.VocabSize))
	}
	lengths := [2]int{len(ids), len(ids)}
	if testing.Short() {
		lengths = [2]int{m.Config.BlockSize + 6, 5}
	}
	for round, length := range lengths {
		ids := ids[:length]
		var n int // read at a time
		for at := 0; at < len(ids); at += n {
			n = min(1+(7*at+3*round)%5*(at%3), len(ids)-at)
			got, err := s.Prefill(ids[at : at+n])
			if err != nil {
				t.Fatal(err)
			}
			want, err := cpu.Prefill(ids[at : at+n])
			if err != nil {
				t.Fatal(err)
			}
			if err := sameLogits(s.Numeric(), got, want); err != nil {
				t.Fatalf("after %d ids, the last %d together: %v", at+n, n, err)
			}
		}
		if s.Pos() != len(ids) {
			t.Errorf("position %d, want %d", s.Pos(), len(ids))
		}
		s.Reset()
		cpu.Reset()
	}
	n := m.Config.BlockSize
	got, want := make([]float32, n), make([]float32, n)
	gotLast, err := s.Score(got, ids[:n], ids[1:n+1])
	if err != nil {
		t.Fatal(err)
	}
	wantLast, err := cpu.Score(want, ids[:n], ids[1:n+1])
	if err != nil {
		t.Fatal(err)
	}
	if err := sameLogits(s.Numeric(), got, want); err != nil {
		t.Errorf("log-probabilities: %v", err)
	}
	if err := sameLogits(s.Numeric(), gotLast, wantLast); err != nil {
		t.Errorf("after scoring: %v", err)
	}
}

// TestSessionGenerates: the same text as on the CPU, greedily and drawn, past the
// context.
func TestSessionGenerates(t *testing.T) {
	c := sessionModels()["mixer"]
	c.VocabSize = 256
	m := sessionModel(t, c)
	m.Tokenizer = spinfile.TokenizerInfo{Kind: "bytes"}
	tok, err := engine.NewTokenizer(m.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	s, cpu := needSession(t, m, engine.Options{}), cpuSession(t, m, engine.Options{})
	for _, temperature := range []float64{0, 0.8} {
		var texts [2]string
		for i, text := range []engine.Text{s, cpu} {
			text.Reset()
			o := engine.GenerateOptions{MaxTokens: 60, Sample: engine.SampleOptions{Seed: 3, Temperature: temperature}}
			r, err := engine.Generate(t.Context(), text, tok, []int32{72, 101, 121}, o, func(b []byte) error {
				texts[i] += string(b)
				return nil
			})
			if err != nil || r.Tokens != 60 {
				t.Fatalf("%d tokens, error %v", r.Tokens, err)
			}
		}
		if texts[0] != texts[1] {
			t.Errorf("at temperature %v: got %q, want %q", temperature, texts[0], texts[1])
		}
	}
}

// TestSessionDraws: several samplers in turn draw what they draw on the CPU, of
// vocabularies that are no multiple of a summary's block or more than one launch's.
func TestSessionDraws(t *testing.T) {
	needGPU(t)
	for _, vocab := range []int{1, 65, 301, 2049, 5000} {
		c := sessionModels()["mixer"]
		c.VocabSize = vocab
		m := sessionModel(t, c)
		s, cpu := needSession(t, m, engine.Options{}), cpuSession(t, m, engine.Options{})
		var drawn [2][]*engine.Sampler // on the GPU, on the CPU
		for i, o := range []engine.SampleOptions{{}, {Temperature: 0.8}, {Temperature: 1, TopK: 5}, {Temperature: 0.8, Seed: 2}, {Temperature: 1.3, TopP: 0.9},
			{Temperature: 0.7, RepetitionPenalty: 1.2}, {Temperature: 1e-44}} {
			for j := range drawn {
				sampler, err := engine.NewSampler(o, max(1, vocab-i/3)) // the last ids are not always drawn from
				if err != nil {
					t.Fatal(err)
				}
				drawn[j] = append(drawn[j], sampler)
			}
		}
		ids := []int32{0}
		for step := range 3 * len(drawn[0]) {
			if _, err := s.Prefill(ids); err != nil {
				t.Fatal(err)
			}
			if _, err := cpu.Prefill(ids); err != nil {
				t.Fatal(err)
			}
			k := step / 3 % len(drawn[0]) // its second and third token have a summary
			got, want := s.Draw(drawn[0][k]), cpu.Draw(drawn[1][k])
			if got != want {
				t.Fatalf("%d tokens, step %d, sampler %d: drew %d, want %d", vocab, step, k, got, want)
			}
			drawn[0][k].Accept(got)
			drawn[1][k].Accept(got)
			ids[0] = got
		}
	}
}

// TestPack: the packed words hold the weights, in the layout of the kernels.
func TestPack(t *testing.T) {
	sizes := []uintptr{unsafe.Sizeof(decodeLinear{}), unsafe.Sizeof(decodeCache{}), unsafe.Sizeof(decodeLayer{}),
		unsafe.Sizeof(decodeTable{}), unsafe.Sizeof(decodeHeads{}), unsafe.Sizeof(decodeModel{})}
	if want := []uintptr{24, 32, 304, 40, 24, 200}; !slices.Equal(sizes, want) {
		t.Errorf("structs of %v bytes, want %v as in decode_types.cuh", sizes, want)
	}
	for _, name := range []string{"odd parts", "dense", "sedenion"} {
		c := sessionModels()[name]
		m := sessionModel(t, c)
		p, err := pack(m, engine.Int8)
		if err != nil {
			t.Fatal(err)
		}
		down := m.Tensor("layers.1.feed_forward.down_proj.weight")
		n, rows, cols := down.Shape[0], down.Shape[1], down.Shape[2]
		l := p.layers[1].down
		if int(l.n) != rows || int(l.k) != cols || p.dims[1] != n {
			t.Errorf("%s: %d × %d of dimension %d, want %v", name, l.n, l.k, p.dims[1], down.Shape)
		}
		want, _ := engine.RoundWeight(down)
		data := p.bytes[l.w-1:]
		for i := range n * rows * words(cols) * 16 {
			word, c := i/16, i%16
			r, k, col := word/words(cols)/n, word/words(cols)%n, word%words(cols)*16+c
			var got int8
			if p.form == formTernary {
				got = int8(data[4*word+c%4]>>(c/4*2)&3) - 1
			} else {
				got = int8(data[i])
			}
			value := int8(0) // of the padding
			if col < cols {
				value = want[(k*rows+r)*cols+col]
			}
			if got != value {
				t.Fatalf("%s: block %d, row %d, column %d is %d, want %d", name, k, r, col, got, value)
			}
		}
	}
}

// TestSessionFakeQuant runs a model of int8 activations in float numerics. One
// value that rounds the other way shows, so the comparison is coarse.
func TestSessionFakeQuant(t *testing.T) {
	m := sessionModel(t, sessionModels()["mixer"])
	o := engine.Options{Numeric: engine.Float}
	s, cpu := needSession(t, m, o), cpuSession(t, m, o)
	ids := []int32{5, 2, 60, 33, 33, 1, 9}
	for _, ids := range [][]int32{ids, ids[:1]} {
		got, err := s.Prefill(ids)
		if err != nil {
			t.Fatal(err)
		}
		want, err := cpu.Prefill(ids)
		if err != nil {
			t.Fatal(err)
		}
		if err := closeLogits(s.Numeric(), got, want, 0.05); err != nil {
			t.Errorf("%d ids: %v", len(ids), err)
		}
	}
}

// TestSessionAtFullSize: the shape of the benchmark, its memory, and its speed.
func TestSessionAtFullSize(t *testing.T) {
	if testing.Short() {
		t.Skip("a large model")
	}
	c := arch.Config{NLayer: 8, NHead: 8, NEmbd: 512, HiddenDim: 1408, BlockSize: 1024, VocabSize: 50304, ActBits: 8, OctonionAttention: true}.WithDefaults()
	m := sessionModel(t, c).QuantizeEmbedding(8)
	s, cpu := needSession(t, m, engine.Options{}), cpuSession(t, m, engine.Options{})
	weights, cache, all := s.Memory()
	t.Logf("weights %.2f MB, cache %.2f MB, in all %.2f MB", float64(weights)/1e6, float64(cache)/1e6, float64(all)/1e6)
	if weights > 30e6 {
		t.Errorf("%d bytes of weights, want at most 30 MB", weights)
	}
	rng := rand.New(rand.NewPCG(testSeed, 3))
	ids := make([]int32, 1000) // and past the context
	for i := range ids {
		ids[i] = rng.Int32N(int32(c.VocabSize))
	}
	logits, err := s.Prefill(ids)
	if err != nil {
		t.Fatal(err)
	}
	want, err := cpu.Prefill(ids)
	if err != nil {
		t.Fatal(err)
	}
	for range 40 { // greedily
		if err := sameLogits(engine.Int8, logits, want); err != nil {
			t.Fatal(err)
		}
		best := slices.Index(want, slices.Max(want))
		one := []int32{int32(best)}
		if logits, err = s.Prefill(one); err != nil {
			t.Fatal(err)
		}
		if want, err = cpu.Prefill(one); err != nil {
			t.Fatal(err)
		}
	}
	if allocs := testing.AllocsPerRun(20, func() {
		if _, err := s.Prefill(ids[:1]); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations a token", allocs)
	}
}

func TestSessionRefuses(t *testing.T) {
	c := sessionModels()["mixer"]
	m := sessionModel(t, c)
	for _, o := range []engine.Options{{Numeric: "int4"}, {Numeric: engine.Float, Int8Cache: true}} {
		if _, err := NewSession(0, m, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	s := needSession(t, m, engine.Options{})
	for _, ids := range [][]int32{nil, {-1}, {65}, {1, 2, 700}} {
		if _, err := s.Prefill(ids); err == nil || s.Pos() != 0 {
			t.Errorf("%v was read", ids)
		}
	}
	if _, err := s.Prefill([]int32{1, 2}); err != nil {
		t.Error("a refusal ends the session:", err)
	}
	if _, err := NewSession(1<<10, m, engine.Options{}); err == nil {
		t.Error("there is a GPU number 1024")
	}
	if os.Getenv("SPINNET_REQUIRE_GPU") != "" && !testing.Short() {
		c.BlockSize = 1 << 22
		_, err := NewSession(0, sessionModel(t, c), engine.Options{})
		if err == nil || !strings.Contains(err.Error(), "block_size") {
			t.Errorf("a block of 4 million positions: got %v", err)
		}
		t.Log(err)
		c.BlockSize, c.NLayer, c.NEmbd, c.NHead, c.NKVHead, c.Algebra, c.HiddenDim, c.OctonionAttention = 48000, 500, 512, 16, 16, "sedenion", 16, false
		_, err = NewSession(0, sessionModel(t, c), engine.Options{})
		if err == nil || !strings.Contains(err.Error(), "--kv-cache int8") {
			t.Errorf("a cache of 98 GB: got %v", err)
		}
		t.Log(err)
	}
}

// fakeSession puts a model on the fake driver.
func fakeSession(t *testing.T, f *fake, c arch.Config, o engine.Options) (*Session, error) {
	t.Helper()
	dir := t.TempDir()
	for _, stem := range []string{"decode", "prefill"} {
		if err := os.WriteFile(filepath.Join(dir, stem+".fatbin"), []byte("kernels"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SPINNET_CUDA_KERNELS", dir)
	useFake(t, f)
	return NewSession(0, sessionModel(t, c), o)
}

// TestSessionOutOfMemory: what does not fit says how much is needed and which
// setting lowers it, and gives back what it took.
func TestSessionOutOfMemory(t *testing.T) {
	for _, o := range []engine.Options{{}, {Int8Cache: true}, {Numeric: engine.Float}} {
		f := &fake{memory: 1 << 20}
		_, err := fakeSession(t, f, sessionModels()["wide"], o)
		oneLine(t, err, "cuda:0 Fake", "OUT_OF_MEMORY", "B more needed beside the ", " of 1.0 MB free", "--device cpu")
		if smaller := o == (engine.Options{}); strings.Contains(err.Error(), "--kv-cache int8") != smaller {
			t.Errorf("%+v: got %q, want a smaller cache: %v", o, err, smaller)
		}
		if f.used != 0 || len(f.blocks) != 0 {
			t.Errorf("%d bytes and %d blocks were not given back", f.used, len(f.blocks))
		}
	}
}

// TestSessionLaunches: a token is one graph with two kernels where there are
// clusters of blocks, and takes no memory; a failure is reported and kept.
func TestSessionLaunches(t *testing.T) {
	for _, major := range []int{8, 9, 12} {
		f := &fake{major: major}
		s, err := fakeSession(t, f, sessionModels()["mixer"], engine.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for token := range 4 {
			f.forget()
			if _, err := s.Prefill([]int32{3}); err != nil {
				t.Fatal(err)
			}
			if early := s.gpu.config.count > 0; token == 0 && early != (major == 9) {
				t.Errorf("sm_%d0: %s starts early: %v", major, s.gpu.last, early)
			}
			switch {
			case token == 0 && major == 9:
				if want := []string{"decode_layers_8", "decode_logits", "decode_weigh"}; !slices.Equal(f.launch, want) {
					t.Errorf("a token launches %v, want %v", f.launch, want)
				}
			case token > 1:
				if want := []function{cuCtxSetCurrent, cuGraphLaunch, cuCtxSetCurrent, cuStreamSynchronize}; !slices.Equal(f.calls, want) {
					t.Errorf("token %d calls %v, want %v", token, f.calls, want)
				}
			}
		}
		f.forget()
		if _, err := s.Prefill(make([]int32, 30)); err != nil || s.Pos() != 34 {
			t.Errorf("at %d with error %v, want 34", s.Pos(), err)
		}
		if slices.Contains(f.launch, "decode_layers_8") || !slices.Contains(f.launch, "prefill_attend") {
			t.Errorf("a prompt launches %v", f.launch)
		}
		f.fail = func(fn function) int {
			if fn == cuStreamSynchronize {
				return 700
			}
			return 0
		}
		_, err = s.Prefill([]int32{1})
		oneLine(t, err, "cuda:0 Fake", "ILLEGAL_ADDRESS", "decode_weigh")
		f.fail = nil
		if _, again := s.Prefill([]int32{1}); again != err || s.Pos() != 34 {
			t.Errorf("after a failure: %v at %d", again, s.Pos())
		}
		s.Close()
	}
}

// TestSessionWithoutRoom: where the cluster cannot be launched, a token goes step
// by step.
func TestSessionWithoutRoom(t *testing.T) {
	f := new(fake)
	f.fail = func(fn function) int {
		if fn == cuLaunchKernelEx && f.last == "decode_layers_8" {
			return 912 // CUDA_ERROR_INVALID_CLUSTER_SIZE
		}
		return 0
	}
	s, err := fakeSession(t, f, sessionModels()["mixer"], engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Prefill([]int32{3}); err != nil || s.fast || !slices.Contains(f.launch, "prefill_attend") {
		t.Errorf("error %v, launches %v", err, f.launch)
	}
}

// BenchmarkToken is a token in the middle of a context.
func BenchmarkToken(b *testing.B) {
	for _, algebra := range []string{"octonion", "walsh"} {
		c := arch.Config{NLayer: 8, NHead: 8, NEmbd: 512, HiddenDim: 1408, BlockSize: 1024, VocabSize: 50304, ActBits: 8, Algebra: algebra, OctonionAttention: true}.WithDefaults()
		m := sessionModel(b, c).QuantizeEmbedding(8)
		for _, o := range []engine.Options{{}, {Int8Cache: true}, {Numeric: engine.Float}} {
			s := needSession(b, m, o)
			for _, at := range []int{10, 255, 1000} {
				for _, drawn := range []bool{false, true} {
					name := fmt.Sprintf("%s %s int8cache=%v at %d", algebra, s.Numeric(), o.Int8Cache, at)
					if drawn {
						name += " drawn"
					}
					b.Run(name, func(b *testing.B) { benchToken(b, s, at, drawn) })
				}
			}
			b.Run(fmt.Sprintf("%s %s prompt of 256", algebra, s.Numeric()), func(b *testing.B) {
				for b.Loop() {
					s.Reset()
					if _, err := s.Prefill(make([]int32, 256)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// benchToken is a token at a position; drawn: and the choice of the next.
func benchToken(b *testing.B, s *Session, at int, drawn bool) {
	sampler, err := engine.NewSampler(engine.SampleOptions{Temperature: engine.DefaultTemperature}, s.config.VocabSize)
	if err != nil {
		b.Fatal(err)
	}
	s.Reset()
	ids := make([]int32, at)
	if _, err := s.Prefill(ids); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.pos = at
		if _, err := s.Prefill(ids[:1]); err != nil {
			b.Fatal(err)
		}
		if drawn {
			ids[0] = s.Draw(sampler)
		}
	}
}
