//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"testing"

	"github.com/ebitengine/purego"
)

// TestPlanOfAMovingStack: what cuBLASLt writes arrives even when the caller's
// stack moves during the call.
func TestPlanOfAMovingStack(t *testing.T) {
	useFake(t, new(fake))
	dev, err := Open(0)
	if err != nil {
		t.Fatal(err)
	}
	d := dev.(*Device)
	addr, own := cuBLASLt.addr, d.blas
	defer func() {
		cuBLASLt.addr, d.blas = addr, own
		d.Close()
	}()
	nothing := purego.NewCallback(func() uintptr { return 0 })
	for f := range cuBLASLt.addr {
		cuBLASLt.addr[f] = nothing
	}
	cuBLASLt.addr[blasHeuristic] = purego.NewCallback(func(_, _, _, _, _, _, _, _, _, count uintptr) uintptr {
		deep(1000)
		*at[int32](count) = 1
		return 0
	})
	d.blas = &blas{plans: map[product]*blasPlan{}, workspaces: map[uintptr]uintptr{}, one: 1}
	done := make(chan bool)
	go func() { // on a small stack
		done <- d.plan(product{kind: nt, m: 128, n: 128, k: 128, batch: 1}) != nil
	}()
	if !<-done {
		t.Error("what the library found was lost")
	}
}

// deep makes the stack grow.
func deep(n int) (sum byte) {
	var b [1024]byte
	if b[n%1024] = byte(n); n > 0 {
		sum = deep(n - 1)
	}
	return sum + b[n%1024]
}

// TestPlansAreGivenBack: what the library makes for plans goes back to it, of
// those that it cannot do, too.
func TestPlansAreGivenBack(t *testing.T) {
	useFake(t, new(fake))
	dev, err := Open(0)
	if err != nil {
		t.Fatal(err)
	}
	d := dev.(*Device)
	addr := cuBLASLt.addr
	defer func() { cuBLASLt.addr = addr }()
	held, found := 0, int32(1)
	create := purego.NewCallback(func(to uintptr) uintptr {
		held++
		*at[uintptr](to) = 1
		return 0
	})
	destroy := purego.NewCallback(func(uintptr) uintptr { held--; return 0 })
	nothing := purego.NewCallback(func() uintptr { return 0 })
	for f := range cuBLASLt.addr {
		switch blasFunction(f) {
		case blasDescCreate, blasLayoutCreate, blasPreferenceCreate:
			cuBLASLt.addr[f] = create
		case blasDescDestroy, blasLayoutDestroy, blasPreferenceDestroy:
			cuBLASLt.addr[f] = destroy
		case blasHeuristic:
			cuBLASLt.addr[f] = purego.NewCallback(func(_, _, _, _, _, _, _, _, _, count uintptr) uintptr {
				*at[int32](count) = found
				return 0
			})
		default:
			cuBLASLt.addr[f] = nothing
		}
	}
	d.blas = &blas{plans: map[product]*blasPlan{}, workspaces: map[uintptr]uintptr{}, one: 1}
	for _, found = range []int32{1, 0} {
		if q := d.plan(product{kind: tn, m: 128, n: 128, k: 128 + int(found), batch: 1}); (q != nil) != (found == 1) {
			t.Errorf("%d ways found: plan %v", found, q)
		}
	}
	if held != 4 {
		t.Errorf("one plan holds %d objects, want 4", held)
	}
	d.Close()
	if held != 0 {
		t.Errorf("%d objects were not given back", held)
	}
}
