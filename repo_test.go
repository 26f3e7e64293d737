package spinnet

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// imports says which packages of ours each package may import, tests apart.
// A package missing here fails. Move a line only with a reason in
// docs/rationale.md.
var imports = map[string]string{
	".":           "",
	"arch":        "",
	"algebra":     "",
	"tokenizer":   "",
	"runlog":      "",
	"pickle":      "",
	"configs":     "",
	"corpus":      "",
	"web":         "",
	"kernel":      "algebra",
	"tensor":      "algebra kernel",
	"spinfile":    "arch",
	"interop":     "arch algebra pickle spinfile tokenizer",
	"dataset":     "pickle tokenizer",
	"engine":      "arch algebra kernel spinfile tokenizer",
	"model":       "arch algebra tensor",
	"cuda":        "arch algebra tensor spinfile engine",
	"train":       "arch model tensor dataset tokenizer interop spinfile engine runlog",
	"cmd/spinnet": "*",

	"canister/ic0":     "",
	"canister/agent":   "canister/candid",
	"canister/module":  "",
	"canister/host":    "canister/module",
	"canister/link":    "arch canister/candid canister/host canister/module engine spinfile tokenizer",
	"canister/candid":  "",
	"canister/replica": "canister/agent canister/candid canister/host canister/module",
	"cmd/spinnet-wasm": "algebra arch engine spinfile tokenizer canister/ic0 canister/candid",
}

// Packages that go into a small WebAssembly module, and what would make it
// large.
var (
	small = []string{"arch", "algebra", "kernel", "tokenizer", "spinfile", "engine", "canister/ic0", "canister/candid", "cmd/spinnet-wasm"}
	heavy = []string{"fmt", "encoding/json", "regexp", "os"}
)

// goFile is one Go file of the repository.
type goFile struct {
	path    string // slash-separated, from the root
	src     []byte
	ast     *ast.File
	isTest  bool
	written bool // by hand
}

func (f goFile) dir() string { return path.Dir(f.path) }

// goFiles reads all Go files but those of testdata and of generators, which
// are modules of their own.
func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		name := d.Name()
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (name[0] == '.' || name[0] == '_' || slices.Contains([]string{"testdata", "bin", "runs", "datasets", "dist", "shared"}, name)) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), p, src, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, goFile{filepath.ToSlash(p), src, parsed, strings.HasSuffix(name, "_test.go"), !strings.HasPrefix(name, "z")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestImportTable(t *testing.T) {
	for _, f := range goFiles(t) {
		allowed, ok := imports[f.dir()]
		if !ok {
			t.Errorf("%s: package %s is not in the table of repo_test.go", f.path, f.dir())
			continue
		}
		if f.isTest || allowed == "*" {
			continue
		}
		for _, spec := range f.ast.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			ours, ok := strings.CutPrefix(p, "spinnet/")
			if ok && !slices.Contains(strings.Fields(allowed), ours) {
				t.Errorf("%s imports %s; %s may import: %s", f.path, ours, f.dir(), allowed)
			}
		}
	}
}

func TestNoHeavyImports(t *testing.T) {
	args := []string{"list", "-deps", "-f", "{{.ImportPath}}"}
	for _, p := range small {
		args = append(args, "./"+p)
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	deps, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, p := range strings.Fields(string(deps)) {
		if slices.Contains(heavy, p) {
			t.Errorf("%s is among what %v depend on, and too large for the WebAssembly module", p, small)
		}
	}
}

func TestPackageComments(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range goFiles(t) {
		if f.isTest {
			continue
		}
		documented[f.dir()] = documented[f.dir()] || f.ast.Doc != nil && strings.TrimSpace(f.ast.Doc.Text()) != ""
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no comment that says what it is", dir)
		}
	}
}

func TestExportedNamesDocumented(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.isTest || !f.written || f.ast.Name.Name == "main" {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					t.Errorf("%s: %s has no comment", f.path, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil {
						t.Errorf("%s: %s has no comment", f.path, ts.Name.Name)
					}
				}
			}
		}
	}
}

// exportedReceiver reports whether a function is one, or a method of an
// exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if p, ok := typ.(*ast.StarExpr); ok {
		typ = p.X
	}
	if g, ok := typ.(*ast.IndexExpr); ok {
		typ = g.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

func TestFileSize(t *testing.T) {
	const most = 800
	for _, f := range goFiles(t) {
		if n := bytes.Count(f.src, []byte("\n")); f.written && n > most {
			t.Errorf("%s has %d lines, want at most %d: split it by noun", f.path, n, most)
		}
	}
}

// A generated file says so and is named so, in both directions.
func TestGeneratedFilesAreNamedSo(t *testing.T) {
	generated := regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	for _, f := range goFiles(t) {
		if generated.Match(f.src) == f.written {
			t.Errorf("%s: a generated file's name begins with z and it holds the line that says so; others neither", f.path)
		}
	}
}

func TestNoDrawers(t *testing.T) {
	for dir := range imports {
		if slices.Contains([]string{"util", "utils", "common", "base", "helpers", "misc", "lib"}, path.Base(dir)) {
			t.Errorf("package %s: name it after what it is", dir)
		}
	}
}

// trackedText gives the text files in git, or skips without git.
func trackedText(t *testing.T) map[string][]byte {
	t.Helper()
	list, err := exec.Command("git", "ls-files", "-z").Output()
	if err != nil {
		t.Skip("not a git checkout:", err)
	}
	files := map[string][]byte{}
	for _, name := range strings.Split(strings.TrimRight(string(list), "\x00"), "\x00") {
		src, err := os.ReadFile(name)
		if err == nil && !bytes.Contains(src[:min(len(src), 8000)], []byte{0}) && len(src) < 1<<20 {
			files[name] = src
		}
	}
	return files
}

// No path of somebody's machine, no package mirror, gets into the repository.
func TestNoMachinePaths(t *testing.T) {
	bad := regexp.MustCompile(`/(home|Users|root|work|farm)/[a-z]|/tmp/[a-z]|C:\\\\?Users|(proxy\.golang|registry\.npmjs|deb\.debian)\.`)
	for name, src := range trackedText(t) {
		if name == "repo_test.go" || strings.HasSuffix(name, ".txt") {
			continue
		}
		for i, line := range bytes.Split(src, []byte("\n")) {
			if m := bad.Find(line); m != nil {
				t.Errorf("%s:%d: machine path or registry %q", name, i+1, m)
			}
		}
	}
}

// Links between our documents lead somewhere, those with an anchor to a heading.
func TestDocLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	unheard := regexp.MustCompile(`[^\pL\pN_ -]`) // what an anchor leaves out
	docs := trackedText(t)
	for name, src := range docs {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		for _, m := range link.FindAllSubmatch(src, -1) {
			to := name
			if len(m[1]) > 0 {
				to = path.Join(path.Dir(name), string(m[1]))
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: link to %s, which is not there", name, m[1])
			}
			found := len(m[2]) == 0
			for _, h := range heading.FindAllSubmatch(docs[to], -1) {
				text := unheard.ReplaceAllString(strings.ToLower(string(h[1])), "")
				found = found || "#"+strings.ReplaceAll(text, " ", "-") == string(m[2])
			}
			if !found {
				t.Errorf("%s: link to %s%s, and no such heading", name, m[1], m[2])
			}
		}
	}
}

// "SPEC §1" in a comment is a section of docs/spec.md.
func TestSpecSections(t *testing.T) {
	spec, err := os.ReadFile("docs/spec.md")
	if err != nil {
		t.Fatal(err)
	}
	cited := regexp.MustCompile(`SPEC §([0-9]+)`)
	for name, src := range trackedText(t) {
		for _, m := range cited.FindAllSubmatch(src, -1) {
			if !bytes.Contains(spec, []byte("\n## "+string(m[1])+". ")) {
				t.Errorf("%s cites %s, which docs/spec.md has not", name, m[0])
			}
		}
	}
}

// The compiled kernels are of the sources beside them, and all of one run of
// cuda/build.sh.
func TestCompiledKernelsFresh(t *testing.T) {
	hash := func(patterns ...string) (paths []string, sum string) {
		var lines strings.Builder // as sha256sum prints them
		for _, pattern := range patterns {
			found, _ := filepath.Glob(pattern) // patterns are constant
			paths = append(paths, found...)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&lines, "%x  %s\n", sha256.Sum256(b), filepath.Base(p))
		}
		return paths, fmt.Sprintf("%x", sha256.Sum256([]byte(lines.String())))
	}
	text, err := os.ReadFile("cuda/kernels/kernels.json")
	if err != nil {
		t.Fatal(err)
	}
	var made struct{ Compiler, Flags, Sources, Kernels string }
	if err := json.Unmarshal(text, &made); err != nil {
		t.Fatalf("kernels.json: %v", err)
	}
	if !strings.HasPrefix(made.Compiler, "nvcc 1") || made.Flags == "" {
		t.Errorf("kernels.json does not say by what the kernels were compiled: %s", text)
	}
	if _, want := hash("cuda/*.cu", "cuda/*.cuh"); made.Sources != want {
		t.Errorf("cuda/kernels are of other sources (%s) than cuda/*.cu (%s): run cuda/build.sh where nvcc is", made.Sources, want)
	}
	kernels, want := hash("cuda/kernels/*.fatbin")
	if made.Kernels != want {
		t.Errorf("cuda/kernels/*.fatbin (%s) are not those that kernels.json was written with (%s): take all of one run of cuda/build.sh", want, made.Kernels)
	}
	sources, _ := hash("cuda/*.cu")
	if len(kernels) != len(sources) {
		t.Errorf("%d compiled kernels of %d sources", len(kernels), len(sources))
	}
	for _, p := range kernels {
		if info, err := os.Stat(p); err != nil || info.Size() > 4<<20 {
			t.Errorf("%s: %d bytes (%v), want at most 4 MiB", p, info.Size(), err)
		}
	}
}

// A build of the kernels that fails changes none of them, and not what
// kernels.json says of them.
func TestFailedBuildOfKernels(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil { //nolint:gosec // some are programs
			t.Fatal(err)
		}
	}
	script, err := os.ReadFile("cuda/build.sh")
	if err != nil {
		t.Fatal(err)
	}
	write("build.sh", string(script))
	for _, name := range []string{"good.cu", "bad.cu", "all.cuh"} {
		write(name, "")
	}
	build := func(out string) (string, error) {
		cmd := exec.Command("bash", filepath.Join(dir, "build.sh"), filepath.Join(dir, out)) //nolint:gosec // ours
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	if _, err := exec.LookPath("bash"); err != nil || runtime.GOOS != "linux" {
		t.Skip("the script is for bash on Linux")
	}
	if _, err := exec.LookPath("nvcc"); err != nil {
		if text, err := build("out"); err == nil || !strings.Contains(text, "no nvcc") {
			t.Errorf("without nvcc: %v, %s", err, text)
		}
	}
	compiler := func(condition string) {
		write("nvcc", `#!/bin/sh
if [ "$1" = --version ]; then echo "Cuda compilation tools, release 13.0, V13.0.88"; exit; fi
`+condition+`
while [ "$1" != -o ]; do shift; done
echo "code of $3" >"$2"
`)
	}
	compiler("")
	if text, err := build("out"); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	read := func() (all string) {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, "out", e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			all += e.Name() + ": " + string(b)
		}
		return all
	}
	before := read()
	if !strings.Contains(before, "good.fatbin: code of good.cu") || !strings.Contains(before, `"compiler": "nvcc 13.0.88"`) || strings.Contains(before, ".log") {
		t.Errorf("built %s", before)
	}
	write("good.cu", "changed")
	compiler(`case "$*" in *bad.cu*) echo "error: bad"; exit 1 ;; esac`)
	text, err := build("out")
	if err == nil || !strings.Contains(text, "bad.cu does not compile") || !strings.Contains(text, "error: bad") {
		t.Errorf("a source that does not compile: %v, %s", err, text)
	}
	if after := read(); after != before {
		t.Errorf("a build that failed left %s, want %s", after, before)
	}
}

// The page in web/dist is of the sources beside it (make web).
func TestPageFresh(t *testing.T) {
	names := []string{"index.html", "package-lock.json", "package.json", "tsconfig.json", "vite.config.ts"}
	src, err := os.ReadDir("web/src")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range src {
		names = append(names, "src/"+f.Name())
	}
	slices.Sort(names)
	var lines strings.Builder // as sha256sum prints them
	for _, name := range names {
		b, err := os.ReadFile(path.Join("web", name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%x  %s\n", sha256.Sum256(b), name)
	}
	text, err := os.ReadFile("web/sources.json")
	if err != nil {
		t.Fatal(err)
	}
	var made struct{ Sources string }
	if err := json.Unmarshal(text, &made); err != nil {
		t.Fatalf("sources.json: %v", err)
	}
	if want := fmt.Sprintf("%x", sha256.Sum256([]byte(lines.String()))); made.Sources != want {
		t.Errorf("web/dist is of other sources (%s) than those in web (%s): run make web", made.Sources, want)
	}
}

// The generated files are what their generators write. Building avo takes
// its time, so only "make check" and CI ask for it (SPINNET_GENERATE=1).
func TestGeneratedFilesFresh(t *testing.T) {
	if os.Getenv("SPINNET_GENERATE") == "" {
		t.Skip("set SPINNET_GENERATE=1 to run the generators (make check does)")
	}
	dir := t.TempDir() // stands for kernel/: the files quote the command, so it must be the same
	if err := os.CopyFS(filepath.Join(dir, "_avo"), os.DirFS("kernel/_avo")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", ".", "-dir", "..")
	cmd.Dir = filepath.Join(dir, "_avo")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	made, err := filepath.Glob(filepath.Join(dir, "z*"))
	if err != nil || len(made) == 0 {
		t.Fatalf("the generator wrote nothing: %v", err)
	}
	if have, _ := filepath.Glob("kernel/z*"); len(have) != len(made) {
		t.Errorf("kernel/ holds %v, the generator writes %d files", have, len(made))
	}
	for _, p := range made {
		want, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(filepath.Join("kernel", filepath.Base(p))); !bytes.Equal(got, want) {
			t.Errorf("kernel/%s is not what kernel/_avo writes; run make generate", filepath.Base(p))
		}
	}
}
