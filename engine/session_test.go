package engine

import (
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"testing"
)

// pieces reads ids by passes that advance a few layers at a time.
func pieces(t testing.TB, s *Session, ids []int32, layers int) []float32 {
	t.Helper()
	for len(ids) > 0 {
		n := min(len(ids), s.Chunk())
		if err := s.Begin(ids[:n]); err != nil {
			t.Fatal(err)
		}
		for s.Advance(layers) > 0 {
		}
		ids = ids[n:]
	}
	return s.Logits()
}

// TestPassInt8: passes give the golden logits, whatever the pieces, threads
// and the reads in between.
func TestPassInt8(t *testing.T) {
	for _, o := range []Options{{Threads: 1}, {Threads: 3}, {Threads: 2, Int8Cache: true}} {
		h := fnv.New64a()
		for _, c := range smallModels {
			s := newInt8Engine(t, c.c, o).NewSession()
			ids := randomIDs(min(200, 2*c.c.BlockSize+6), c.c.VocabSize, 3)
			for at, n := 0, 1; at < len(ids); at, n = at+n, n*3%50+1 {
				n = min(n, len(ids)-at)
				logits := pieces(t, s, ids[at:at+n], 1+at%3)
				if s.Pos() != at+n {
					t.Fatalf("position %d, want %d", s.Pos(), at+n)
				}
				for _, v := range logits {
					b := math.Float32bits(v)
					h.Write([]byte{byte(b), byte(b >> 8), byte(b >> 16), byte(b >> 24)})
				}
			}
		}
		want := uint64(int8Golden)
		if o.Int8Cache {
			want = int8CacheGolden
		}
		if got := h.Sum64(); got != want {
			t.Errorf("%+v: fingerprint %#x, want %#x", o, got, want)
		}
	}
}

// TestPassFloat: the same passes in one piece and in several.
func TestPassFloat(t *testing.T) {
	m, want := openSeedTiny(t)
	e := newEngine(t, m, 2)
	a, b := e.NewSession(), e.NewSession()
	for at := 0; at < len(want.IDs); at += 40 {
		ids := want.IDs[at:min(len(want.IDs), at+40)]
		whole, err := a.Prefill(ids)
		if err != nil {
			t.Fatal(err)
		}
		if got := pieces(t, b, ids, 1); !slices.Equal(got, whole) {
			t.Fatalf("tokens from %d on: logits differ", at)
		}
	}
}

// TestPassForgotten: what is read otherwise replaces an unfinished pass.
func TestPassForgotten(t *testing.T) {
	c := smallModels[0].c
	e := newInt8Engine(t, c, Options{Threads: 1})
	a, b := e.NewSession(), e.NewSession()
	ids := randomIDs(3, c.VocabSize, 5)
	if err := a.Begin(ids); err != nil {
		t.Fatal(err)
	}
	a.Advance(1)
	got := slices.Clone(a.Step(ids[0]))
	if want := b.Step(ids[0]); !slices.Equal(got, want) {
		t.Error("logits differ after a forgotten pass")
	}
	if left := a.Advance(1); left != 0 {
		t.Errorf("%d layers left without a pass", left)
	}
}

func TestPassBad(t *testing.T) {
	c := smallModels[0].c
	s := newInt8Engine(t, c, Options{Threads: 1}).NewSession()
	for _, b := range []struct {
		ids  []int32
		want string
	}{
		{nil, "a pass of 0 tokens"},
		{make([]int32, s.Chunk()+1), "want 1 to"},
		{[]int32{0, int32(c.VocabSize)}, "at place 1 is outside the vocabulary"},
	} {
		if err := s.Begin(b.ids); err == nil || !strings.Contains(err.Error(), b.want) {
			t.Errorf("%d ids: error %v, want %q", len(b.ids), err, b.want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("logits without a pass: no panic")
		}
	}()
	s.Logits()
}
