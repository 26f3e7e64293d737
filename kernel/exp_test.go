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
