package model

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"spinnet/arch"
	"spinnet/interop"
	"spinnet/tensor"
)

// expected is what the original computed (SPEC §6).
type expected struct {
	IDs         []int32   `json:"ids"`
	Loss        float64   `json:"loss"`
	LastLogits  []float32 `json:"last_logits"`
	TrainLoss48 float64   `json:"train_loss_48"`
}

func seedTiny(t *testing.T, threads int) (*Model, expected) {
	t.Helper()
	const dir = "testdata/seed_tiny/"
	st, err := interop.ReadState(dir + "state.json")
	if err != nil {
		t.Fatal(err)
	}
	ts, _, err := interop.ReadSafetensors(dir + "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	dev := tensor.NewCPU(threads)
	t.Cleanup(dev.Close)
	m, err := New(dev, st.Model)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Params {
		dev.Write(p.Value, ts.Find(p.Name).Data)
	}
	text, err := os.ReadFile(dir + "expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var e expected
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	return m, e
}

func (m *Model) set(b *Batch, ids []int32) {
	n := b.Rows * b.T
	m.Device.WriteInts(b.IDs, ids[:n])
	m.Device.WriteInts(b.Targets, ids[1:n+1])
}

func meanLoss(b *Batch) float64 {
	var sum float64
	for _, l := range b.Losses.Data {
		sum += float64(l)
	}
	return sum / float64(len(b.Losses.Data))
}

func TestLossOfTheOriginal(t *testing.T) {
	m, e := seedTiny(t, 1)
	b := m.NewBatch(1, len(e.IDs)-1)
	tape := m.Record(b, Options{})
	m.set(b, e.IDs)
	m.Refresh(false)
	tape.Forward()
	if got, want := meanLoss(b), e.Loss; math.Abs(got/want-1) > 1e-6 {
		t.Errorf("loss %.9f, want %.9f", got, want)
	}
}

func TestGradientsOfTheOriginal(t *testing.T) {
	want, _, err := interop.ReadSafetensors("testdata/seed_tiny/grads_48.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for _, recompute := range []bool{false, true} {
		m, e := seedTiny(t, 2)
		b := m.NewBatch(1, 48)
		tape := m.Record(b, Options{Train: true, Recompute: recompute, GradScale: 1.0 / 48})
		m.set(b, e.IDs)
		m.Refresh(true)
		for range 2 { // the second replay must not see the first
			m.ZeroGradients()
			tape.Forward()
			tape.Backward()
		}
		m.FinishGradients()
		if got, want := meanLoss(b), e.TrainLoss48; math.Abs(got/want-1) > 1e-6 {
			t.Errorf("loss %.9f, want %.9f", got, want)
		}
		for _, p := range m.Params {
			if d := relL2(p.Grad.Data, want.Find(p.Name).Data); !(d < 2e-5) {
				t.Errorf("recompute %v: gradient of %s: relative distance %.2g, want under 2e-5", recompute, p.Name, d)
			}
		}
	}
}

func relL2(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var d, n float64
	for i, w := range want {
		d += float64(got[i]-w) * float64(got[i]-w)
		n += float64(w) * float64(w)
	}
	return math.Sqrt(d / n)
}

// gradients runs one step of a small random model and returns every gradient.
func gradients(t *testing.T, c arch.Config, threads int, recompute bool) ([]float32, float64) {
	t.Helper()
	dev := tensor.NewCPU(threads)
	defer dev.Close()
	m, err := New(dev, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(InitScaled, 7); err != nil {
		t.Fatal(err)
	}
	b := m.NewBatch(3, c.BlockSize)
	r := tensor.MakeRandom(tensor.Key{Seed: 3, Site: tensor.SiteBatch})
	ids := make([]int32, 3*c.BlockSize+1)
	for i := range ids {
		ids[i] = int32(r.Below(int64(c.VocabSize)))
	}
	tape := m.Record(b, Options{Train: true, Recompute: recompute, Seed: 5, GradScale: 1 / float32(len(ids)-1)})
	m.set(b, ids)
	m.Refresh(true)
	tape.Forward()
	tape.Backward()
	m.FinishGradients()
	var all []float32
	for _, p := range m.Params {
		all = append(all, p.Grad.Data...)
	}
	return all, meanLoss(b)
}

var small = arch.Config{NLayer: 3, NHead: 8, NEmbd: 64, HiddenDim: 128, BlockSize: 20, VocabSize: 31,
	Algebra: "octonion,walsh,quaternion", Quantizer: arch.AbsMean, OctonionAttention: true, Dropout: 0.1, ActBits: 8}

// TestRecomputeAndThreadsGiveTheSameBits: neither recomputing activations nor
// the number of threads may change a single bit of a gradient.
func TestRecomputeAndThreadsGiveTheSameBits(t *testing.T) {
	for _, quantizer := range []string{arch.AbsMean, arch.Classic, arch.None} {
		c := small
		c.Quantizer = quantizer
		want, wantLoss := gradients(t, c, 1, false)
		for _, threads := range []int{1, 2, 3} {
			for _, recompute := range []bool{false, true} {
				got, loss := gradients(t, c, threads, recompute)
				if loss != wantLoss {
					t.Errorf("%s, %d threads, recompute %v: loss %v, want %v", quantizer, threads, recompute, loss, wantLoss)
				}
				for i := range got {
					if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
						t.Errorf("%s, %d threads, recompute %v: gradient %d is %v, want %v", quantizer, threads, recompute, i, got[i], want[i])
						break
					}
				}
			}
		}
	}
}

// TestGradientsAgainstFiniteDifferences perturbs parameters of unquantised
// models, whose loss is differentiable, one direction a parameter.
func TestGradientsAgainstFiniteDifferences(t *testing.T) {
	for name, change := range map[string]func(*arch.Config){
		"octonion": func(c *arch.Config) { c.Algebra = "octonion" },
		"walsh":    func(c *arch.Config) { c.Algebra = "walsh"; c.MixerAlgebra = "walsh" },
		"mixed":    func(c *arch.Config) { c.Algebra = "random:3,quaternion,real" },
		"grouped":  func(c *arch.Config) { c.Algebra = "complex"; c.NKVHead = 2 },
		"plain":    func(c *arch.Config) { c.Algebra = "octonion"; c.OctonionAttention = false },
	} {
		t.Run(name, func(t *testing.T) {
			c := small
			c.Quantizer, c.ActBits, c.Dropout, c.BlockSize = arch.None, 0, 0, 6
			change(&c)
			dev := tensor.NewCPU(2)
			defer dev.Close()
			m, err := New(dev, c)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Init(InitScaled, 7); err != nil {
				t.Fatal(err)
			}
			b := m.NewBatch(2, c.BlockSize)
			r := tensor.MakeRandom(tensor.Key{Seed: 3, Site: tensor.SiteBatch})
			ids := make([]int32, 2*c.BlockSize+1)
			for i := range ids {
				ids[i] = int32(r.Below(int64(c.VocabSize)))
			}
			tape := m.Record(b, Options{Train: true, GradScale: 1 / float32(len(ids)-1)})
			m.set(b, ids)
			loss := func() float64 {
				m.Refresh(true)
				tape.Forward()
				return meanLoss(b)
			}
			m.ZeroGradients()
			loss()
			tape.Backward()
			m.FinishGradients()
			for _, p := range m.Params {
				// Mostly along the gradient, to be well above rounding, and as
				// long as the parameter itself.
				dir := make([]float32, p.Len())
				var gg, vv, slope float64
				for i, g := range p.Grad.Data {
					gg += float64(g) * float64(g)
					vv += float64(p.Value.Data[i]) * float64(p.Value.Data[i])
				}
				size := math.Sqrt(vv / float64(len(dir)))
				for i, g := range p.Grad.Data {
					dir[i] = float32(size * (0.3*r.Normal() + float64(g)*math.Sqrt(float64(len(dir))/gg)))
					slope += float64(g) * float64(dir[i])
				}
				saved := append([]float32(nil), p.Value.Data...)
				const h = 3e-3
				at := func(s float32) float64 {
					for i := range saved {
						p.Value.Data[i] = saved[i] + s*dir[i]
					}
					return loss()
				}
				got := (at(h) - at(-h)) / (2 * h)
				copy(p.Value.Data, saved)
				if math.Abs(got-slope) > 0.01*math.Abs(slope)+2e-4 {
					t.Errorf("%s: finite difference %.6f, gradient %.6f", p.Name, got, slope)
				}
			}
		})
	}
}

// TestAbsMeanIsItsQuantisedWeights: the layers compute with γ·Wq, rounded half
// to even, and the latents get the gradient of γ·Wq as it is (SPEC §1).
func TestAbsMeanIsItsQuantisedWeights(t *testing.T) {
	dev := tensor.NewCPU(2)
	defer dev.Close()
	pass := func(quantizer string, change func(p *Param)) (*Model, float64) {
		c := small
		c.Quantizer, c.ActBits, c.Dropout = quantizer, 0, 0
		m, err := New(dev, c)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Init(InitScaled, 7); err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Params {
			change(p)
		}
		b := m.NewBatch(2, c.BlockSize)
		ids := make([]int32, 2*c.BlockSize+1)
		for i := range ids {
			ids[i] = int32(i * i % c.VocabSize)
		}
		tape := m.Record(b, Options{Train: true, GradScale: 1 / float32(len(ids)-1)})
		m.set(b, ids)
		m.Refresh(true)
		tape.Forward()
		tape.Backward()
		m.FinishGradients()
		return m, meanLoss(b)
	}
	got, gotLoss := pass(arch.AbsMean, func(*Param) {})
	want, wantLoss := pass(arch.None, func(p *Param) {
		if p.Kind != arch.Ternary {
			return
		}
		var sum float64
		for _, w := range p.Value.Data {
			sum += math.Abs(float64(w))
		}
		gamma := float32(sum / float64(p.Len()))
		for i, w := range p.Value.Data {
			p.Value.Data[i] = gamma * float32(max(-1, min(1, math.RoundToEven(float64(w/gamma)))))
		}
	})
	if math.Abs(gotLoss/wantLoss-1) > 1e-6 {
		t.Errorf("loss %v, of the quantised weights %v", gotLoss, wantLoss)
	}
	for i, p := range got.Params {
		if d := relL2(p.Grad.Data, want.Params[i].Grad.Data); !(d < 2e-5) {
			t.Errorf("gradient of %s: relative distance %.2g", p.Name, d)
		}
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	dev := tensor.NewCPU(2)
	defer dev.Close()
	m, err := New(dev, small)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(InitScaled, 1); err != nil {
		t.Fatal(err)
	}
	b := m.NewBatch(2, small.BlockSize)
	tape := m.Record(b, Options{Train: true, GradScale: 1})
	got := testing.AllocsPerRun(3, func() {
		m.ZeroGradients()
		m.Refresh(true)
		tape.Forward()
		tape.Backward()
		m.FinishGradients()
	})
	if got != 0 {
		t.Errorf("%v allocations a step, want 0", got)
	}
}

func TestNewRefusesBadShapes(t *testing.T) {
	dev := tensor.NewCPU(1)
	defer dev.Close()
	c := small
	c.NHead, c.NEmbd, c.HiddenDim = 4, 64, 128
	if _, err := New(dev, c); err == nil {
		t.Error("a head mixer over 4 heads was accepted")
	}
}
