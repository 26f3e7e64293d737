package kernel

import (
	"math"
	"testing"
)

func TestExp(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	x := []float32{0, 1, -1, -87, -87.0001, -88, -1000, -inf, 88, 88.5, 88.8, 89, 90, 1000, inf, nan}
	for v := float32(-87); v < 88.7; v += 0.00217 {
		x = append(x, v)
	}
	for v := float32(-0.4); v < 0.4; v += 0.0000173 {
		x = append(x, v)
	}
	eachSet(t, func(t *testing.T) {
		y := make([]float32, len(x))
		Exp(y, x)
		worst := 0.0
		for i, v := range x {
			want := math.Exp(float64(v))
			got := float64(y[i])
			switch {
			case v != v:
				if got == got {
					t.Errorf("exp(NaN) = %v", got)
				}
			case v < expLow:
				if got != 0 {
					t.Errorf("exp(%v) = %v, want 0", v, got)
				}
			case want > math.MaxFloat32:
				if !math.IsInf(got, 1) {
					t.Errorf("exp(%v) = %v, want +Inf", v, got)
				}
			default:
				ulp := math.Ldexp(1, math.Ilogb(want)-23)
				worst = max(worst, math.Abs(got-want)/ulp)
			}
		}
		if worst > 2 {
			t.Errorf("error of %.2f ulp, want ≤ 2", worst)
		}
		t.Logf("worst error %.3f ulp", worst)
	})
}

func TestLog(t *testing.T) {
	worst := 0.0
	for x := float32(1e-37); x < 1e37; x *= 1.0003 {
		want := math.Log(float64(x))
		ulp := math.Ldexp(1, math.Ilogb(want)-23)
		worst = max(worst, math.Abs(float64(log32(x))-want)/ulp)
	}
	if worst > 2 {
		t.Errorf("error of %.2f ulp, want ≤ 2", worst)
	}
	for x, want := range map[float32]float64{0: math.Inf(-1), float32(math.Inf(1)): math.Inf(1), 1: 0} {
		if got := float64(log32(x)); got != want {
			t.Errorf("log(%v): got %v, want %v", x, got, want)
		}
	}
	if got := log32(-1); got == got {
		t.Errorf("log(−1): got %v, want NaN", got)
	}
}
