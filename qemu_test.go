package spinnet

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

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

// The kernels and the engine pass their tests on arm64 too, in an emulator.
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
			test := exec.Command(qemu, binary, "-test.short")
			test.Dir = dir
			if out, err := test.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
