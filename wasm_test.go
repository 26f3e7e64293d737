package spinnet

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// TestWebAssembly runs the bit-by-bit tests of package engine as WebAssembly:
// the same logits as on every other machine (SPEC §7).
func TestWebAssembly(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs a WebAssembly program")
	}
	module := filepath.Join(t.TempDir(), "engine.wasm")
	build := exec.Command("go", "test", "-c", "-o", module, "./engine")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	code, err := os.ReadFile(module)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	var out bytes.Buffer
	c := wazero.NewModuleConfig().WithArgs("engine.test", "-test.v", "-test.run=^(TestInt8Bits|TestInt8Chunks|TestSampler.*)$").
		WithStdout(&out).WithStderr(&out).WithSysNanotime().WithSysWalltime()
	_, err = r.InstantiateWithConfig(ctx, code, c)
	if exit, ok := err.(*sys.ExitError); ok && exit.ExitCode() == 0 {
		err = nil
	}
	if err != nil || !bytes.Contains(out.Bytes(), []byte("--- PASS: TestInt8Bits")) {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
}
