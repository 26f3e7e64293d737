package spinnet

import (
	"bytes"
	"testing"

	"spinnet/canister/link"
)

// The committed WebAssembly runtime was made from the sources at hand.
func TestRuntimeSources(t *testing.T) {
	_, info, err := link.Runtime()
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := link.Sources(t.Context(), ".")
	if err != nil {
		t.Fatal(err)
	}
	if info.Sources != want {
		t.Errorf("canister/link/runtime.wasm.gz was made from sources %.12s…, these are %.12s…: run make wasm", info.Sources, want)
	}
}

// And whoever makes it anew gets the same bytes, with the same wasm-opt.
func TestRuntimeReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the module")
	}
	needPeer(t, "wasm-opt")
	committed, info, err := link.Runtime()
	if err != nil {
		t.Fatal(err)
	}
	version, err := link.WasmOptVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if version != info.WasmOpt {
		t.Skipf("the runtime was made with %s, here is %s", info.WasmOpt, version)
	}
	made, again, err := link.Make(t.Context(), ".")
	if err != nil {
		t.Fatal(err)
	}
	if again != info || !bytes.Equal(made, committed) {
		t.Errorf("made anew, the runtime is another: %+v, committed %+v: run make wasm", again, info)
	}
}
