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

// Links between our documents lead somewhere.
func TestDocLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for name, src := range trackedText(t) {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		for _, m := range link.FindAllSubmatch(src, -1) {
			to := path.Join(path.Dir(name), string(m[1]))
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: link to %s, which is not there", name, m[1])
			}
		}
	}
}

// The compiled kernels are of the sources beside them (cuda/build.sh).
func TestCompiledKernelsFresh(t *testing.T) {
	var lines strings.Builder                // as sha256sum prints them
	sources, _ := filepath.Glob("cuda/*.cu") // patterns are constant
	headers, _ := filepath.Glob("cuda/*.cuh")
	for _, p := range slices.Concat(sources, headers) {
		src, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%x  %s\n", sha256.Sum256(src), filepath.Base(p))
	}
	text, err := os.ReadFile("cuda/kernels/kernels.json")
	if err != nil {
		t.Fatal(err)
	}
	var made struct{ Compiler, Flags, Sources string }
	if err := json.Unmarshal(text, &made); err != nil {
		t.Fatalf("kernels.json: %v", err)
	}
	if made.Sources == "" {
		t.Skip("no kernels are compiled: run cuda/build.sh where nvcc is")
	}
	if want := fmt.Sprintf("%x", sha256.Sum256([]byte(lines.String()))); made.Sources != want {
		t.Errorf("cuda/kernels are of other sources (%s) than cuda/*.cu (%s): run cuda/build.sh where nvcc is", made.Sources, want)
	}
	for _, p := range sources {
		stem := strings.TrimSuffix(filepath.Base(p), ".cu")
		info, err := os.Stat("cuda/kernels/" + stem + ".fatbin")
		if err != nil {
			t.Error(err)
		} else if info.Size() > 4<<20 {
			t.Errorf("%s.fatbin has %d bytes, want at most 4 MiB", stem, info.Size())
		}
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
