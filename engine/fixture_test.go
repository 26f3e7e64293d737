package engine

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"

	"spinnet/interop"
	"spinnet/kernel"
	"spinnet/spinfile"
)

const seedTiny = "../model/testdata/seed_tiny"

// expected holds the original implementation's results (SPEC §6).
type expected struct {
	IDs          []int32   `json:"ids"`
	Loss         float64   `json:"loss"`
	SpinnetLoss  float64   `json:"spinnet_loss"` // of the file compressed from it
	LastLogits   []float32 `json:"last_logits"`
	GreedyFrom16 []int32   `json:"greedy_from_16"`
}

func openSeedTiny(t testing.TB) (*spinfile.Model, expected) {
	t.Helper()
	m, err := interop.Open(seedTiny)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(seedTiny + "/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var want expected
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	return m, want
}

func newEngine(t testing.TB, m *spinfile.Model, threads int) *Engine {
	t.Helper()
	e, err := New(m, Options{Threads: threads, Numeric: Float})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// relL2 is |got − want| / |want|.
func relL2(got, want []float32) float64 {
	var diff, norm float64
	for i := range want {
		d := float64(got[i]) - float64(want[i])
		diff += d * d
		norm += float64(want[i]) * float64(want[i])
	}
	return math.Sqrt(diff / norm)
}

// The original's compressed file, as it is and in version 5, gives the loss
// that the original found.
func TestSeedTinyFile(t *testing.T) {
	_, want := openSeedTiny(t)
	four, err := interop.Open("../spinfile/testdata/seed_tiny.spinnet")
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := spinfile.Encode(four)
	if err != nil {
		t.Fatal(err)
	}
	five, err := spinfile.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*spinfile.Model{"version 4": four, "version 5": five} {
		got, err := newEngine(t, m, 1).Score(context.Background(), want.IDs, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rel := math.Abs(got.Loss-want.SpinnetLoss) / want.SpinnetLoss; !(rel <= 1e-6) {
			t.Errorf("%s: loss %v, want %v: relative error %.2g", name, got.Loss, want.SpinnetLoss, rel)
		}
	}
}

func TestSeedTiny(t *testing.T) {
	m, want := openSeedTiny(t)
	for _, threads := range []int{1, 3} {
		e := newEngine(t, m, threads)
		got, err := e.Score(context.Background(), want.IDs, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rel := math.Abs(got.Loss-want.Loss) / want.Loss; !(rel <= 1e-6) {
			t.Errorf("loss %v, want %v: relative error %.2g", got.Loss, want.Loss, rel)
		} else {
			t.Logf("loss: relative error %.2g", rel)
		}
		if rel := relL2(got.Logits, want.LastLogits); !(rel <= 5e-6) {
			t.Errorf("last logits: relative error %.2g", rel)
		} else {
			t.Logf("last logits: relative error %.2g", rel)
		}
		s := e.NewSession()
		ids := slices.Clone(want.IDs[:16])
		logits, err := s.Prefill(ids)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			id := int32(kernel.ArgMax(logits))
			ids = append(ids, id)
			logits = s.Step(id)
		}
		if !slices.Equal(ids, want.GreedyFrom16) {
			t.Errorf("greedy: got %v, want %v", ids, want.GreedyFrom16)
		}
	}
}
