package link

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"spinnet/canister/module"
)

// TestKernelInstructions counts what kernels take by ICP's table, for each
// product or element, when they are linked as Make links them. The product of
// octonions counts those of the dense matrix that it stands for.
func TestKernelInstructions(t *testing.T) {
	peer(t, "wasm-opt", "", "it is in the package binaryen")
	const file = "testdata/kernels.json"
	dir := t.TempDir()
	m, err := compile(t.Context(), ".", "./_kernels", filepath.Join(dir, "go.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	m.DropNops()
	m.FuseLoads()
	if m, err = optimise(t.Context(), m.Encode(), dir); err != nil {
		t.Fatal(err)
	}
	if err := module.Instrument(m, module.ICP); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	instance, err := r.InstantiateWithConfig(ctx, m.Encode(), wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	left := instance.ExportedGlobal(module.Counter).(api.MutableGlobal)
	took := func(name string, n ...uint64) uint64 {
		left.Set(module.InstallLimit)
		if _, err := instance.ExportedFunction(name).Call(ctx, n...); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return module.InstallLimit - left.Get()
	}
	took("_initialize")
	got, want := map[string]float64{}, map[string]float64{}
	for name, each := range map[string]int{ // how many products or elements a run has
		"octonion": 64 * 176 * 64, "walsh": 64 * 176 * 64, "mixer": 64 * 64 * 64, "vocabulary": 1024 * 512, "keys": 256 * 64, "values": 256 * 64,
		"expand": 512, "scale": 5 * 176, "softmax": 1024, "swiglu": 1024, "quantize": 512, "norm": 512, "rotate": 512, "argmax": 1024,
	} {
		took(name, 1)
		one, four := took(name, 1), took(name, 4)
		got[name] = math.Round(1000*float64(four-one)/float64(3*each)) / 1000
	}
	if most := 0.60; got["octonion"] > most {
		t.Errorf("a product of octonions takes %v instructions, want at most %v", got["octonion"], most)
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		b, err := json.MarshalIndent(got, "", "  ")
		if err == nil {
			err = os.WriteFile(file, append(b, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	for name, n := range got {
		if n > want[name]*1.02+0.001 {
			t.Errorf("%s takes %v instructions, more than 2 %% above %v", name, n, want[name])
		}
	}
}
