package kernel

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Compilers for machines with fused multiply–add use it for x*y + z unless
// the product is converted, which is easy to forget: the plain exact steps
// must not have one, on any machine. The optimizer's, which may, shows that
// the test would see it.
func TestExactStepsAreNotFused(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the package for two machines")
	}
	golang, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	functions := regexp.MustCompile(`^spinnet/kernel\.(refExact\w*|Exact\w*|exact\w*N(EON)?|refSwiGLU|refExp|exp32|fold16|refScaleMul|refScale|refMaxOf|roundEven)$`)
	const control = "spinnet/kernel.refAdamW"
	fused := regexp.MustCompile(`\bV?FN?M(ADD|SUB)\w*|\bV?FML[AS]\b`)
	for _, env := range [][]string{{"GOARCH=arm64"}, {"GOARCH=amd64", "GOAMD64=v3"}} {
		t.Run(env[len(env)-1], func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "kernel.test")
			build := exec.Command(golang, "test", "-c", "-o", program, ".")
			build.Env = append(append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0"), env...)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			out, err := exec.Command(golang, "tool", "objdump", "-s", `^spinnet/kernel\.`, program).Output()
			if err != nil {
				t.Fatal(err)
			}
			seen, controlled, name := 0, false, ""
			for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
				line := lines.Text()
				if rest, ok := strings.CutPrefix(line, "TEXT "); ok {
					name, _, _ = strings.Cut(rest, "(")
					if functions.MatchString(name) {
						seen++
					}
				} else if fused.MatchString(line) {
					controlled = controlled || name == control
					if functions.MatchString(name) {
						t.Errorf("%s: %s", name, strings.TrimSpace(line))
					}
				}
			}
			if seen < 15 || !controlled {
				t.Errorf("found %d functions and a fused operation in %s: %v; is the pattern still right?", seen, control, controlled)
			}
		})
	}
}
