package spinnet

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
	"golang.org/x/sys/cpu"
)

// The same tests on other machines than the one at hand.

// needPeer gives the path of another program that a test compares with. Where
// there is none the test is skipped, or fails if SPINNET_REQUIRE has "peers".
func needPeer(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	switch {
	case err == nil:
		return path
	case strings.Contains(os.Getenv("SPINNET_REQUIRE"), "peers"):
		t.Fatalf("%s is not installed, and SPINNET_REQUIRE asks for it: %v", program, err)
	default:
		t.Skipf("%s is not installed", program)
	}
	return ""
}

// The kernels and the engine pass their tests on arm64 too, in an emulator:
// of a machine with the dot products of ARMv8.2, and of one without.
func TestARM64(t *testing.T) {
	if runtime.GOARCH == "arm64" {
		t.Skip("this is arm64: their own tests tell")
	}
	if testing.Short() {
		t.Skip("takes minutes")
	}
	qemu := needPeer(t, "qemu-aarch64")
	for _, dir := range []string{"kernel", "engine"} {
		t.Run(dir, func(t *testing.T) {
			binary := filepath.Join(t.TempDir(), dir+".test")
			build := exec.Command("go", "test", "-c", "-o", binary, "./"+dir)
			build.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for cpu, tests := range map[string]string{"max": ".", "cortex-a53": "Int8|Exact|Nothing"} {
				test := exec.Command(qemu, "-cpu", cpu, binary, "-test.short", "-test.run", tests)
				test.Dir = dir
				if out, err := test.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", cpu, err, out)
				}
			}
		})
	}
}

// TestNewerAMD64 runs the bit-by-bit tests as compiled for processors with
// AVX2 and fused multiply–adds, which the compiler then uses where it may.
func TestNewerAMD64(t *testing.T) {
	if runtime.GOARCH != "amd64" || !cpu.X86.HasAVX2 || !cpu.X86.HasFMA {
		t.Skip("not a processor of GOAMD64=v3")
	}
	if testing.Short() {
		t.Skip("builds anew")
	}
	for dir, tests := range map[string]string{"engine": "Int8", "kernel": "Exact"} {
		test := exec.Command("go", "test", "-short", "-run", tests, "./"+dir)
		test.Env = append(os.Environ(), "GOAMD64=v3", "CGO_ENABLED=0")
		if out, err := test.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", dir, err, out)
		}
	}
}

// TestWebAssembly runs the tests of the kernels as WebAssembly, and the
// bit-by-bit tests of package engine: the same logits as on every other machine
// (SPEC §7).
func TestWebAssembly(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs WebAssembly programs")
	}
	for dir, tests := range map[string]string{"kernel": "Int8|Exact|SIMD", "engine": "^(TestInt8Bits|TestInt8Chunks|TestSampler.*)$"} {
		t.Run(dir, func(t *testing.T) {
			module := filepath.Join(t.TempDir(), dir+".wasm")
			build := exec.Command("go", "test", "-c", "-o", module, "./"+dir)
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
			c := wazero.NewModuleConfig().WithArgs(dir+".test", "-test.v", "-test.short", "-test.run="+tests).
				WithStdout(&out).WithStderr(&out).WithSysNanotime().WithSysWalltime()
			_, err = r.InstantiateWithConfig(ctx, code, c)
			if exit, ok := err.(*sys.ExitError); ok && exit.ExitCode() == 0 {
				err = nil
			}
			if err != nil || !bytes.Contains(out.Bytes(), []byte("--- PASS: TestInt8")) {
				t.Fatalf("%v\n%s", err, out.Bytes())
			}
		})
	}
}
