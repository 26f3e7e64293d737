//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every kernel of the sources is one that Go can launch, and every kernel that Go
// knows is in the sources and is launched.
func TestKernelsOfSources(t *testing.T) {
	if _, err := os.Stat("table.go"); err != nil {
		t.Skip("the sources are not here")
	}
	used, text := identifiers(t)
	inTable := map[string]string{} // stem of a name
	for _, k := range kernelTable {
		inTable[k.name] = k.stem
	}
	inSources := map[string]bool{}
	for _, path := range glob(t, "*.cu") {
		stem := strings.TrimSuffix(path, ".cu")
		names := kernelsOf(t, path)
		if len(names) == 0 {
			t.Errorf("%s has no kernels", path)
		}
		for _, name := range names {
			inSources[name] = true
			switch named := slices.ContainsFunc(text, func(p *regexp.Regexp) bool { return p.MatchString(name) }); {
			case stem == "decode" || stem == "prefill": // sessions find theirs by name
				if !named {
					t.Errorf("%s: kernel %s: nothing in Go names it", path, name)
				}
			case inTable[name] != stem:
				t.Errorf("%s: kernel %s: in table.go its source is %q", path, name, inTable[name])
			}
		}
	}
	for name, stem := range inTable {
		if !inSources[name] {
			t.Errorf("table.go: %s.cu has no kernel %s", stem, name)
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "table.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ids := 0
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			name := s.(*ast.ValueSpec).Names[0].Name
			if ids++; name != "kernelCount" && !used[name] {
				t.Errorf("table.go: nothing launches %s", name)
			}
		}
	}
	if ids != int(kernelCount)+1 {
		t.Errorf("table.go: %d constants, want %d kernels and their number", ids, kernelCount)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %d files, error %v", pattern, len(paths), err)
	}
	return paths
}

// identifiers are those of the package's sources but table.go and tests, and their
// strings as patterns of names: numbers for %d, and any end or %s.
func identifiers(t *testing.T) (map[string]bool, []*regexp.Regexp) {
	t.Helper()
	used := map[string]bool{}
	var text []*regexp.Regexp
	name := regexp.MustCompile(`^(decode|prefill)_[a-z_%]+$`)
	for _, path := range glob(t, "*.go") {
		if path == "table.go" || strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				used[n.Name] = true
			case *ast.BasicLit:
				s, err := strconv.Unquote(n.Value)
				if err == nil && n.Kind == token.STRING && name.MatchString(s) {
					s = strings.TrimSuffix(s, "%s")
					text = append(text, regexp.MustCompile(`^`+strings.ReplaceAll(s, "%d", `\d+`)+`(_bytes|_floats?)?$`))
				}
			}
			return true
		})
	}
	return used, text
}

// kernelsOf are the names that KERNEL defines in a source, macros expanded.
func kernelsOf(t *testing.T, path string) []string {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile(`//[^\n]*`).ReplaceAllString(string(src), "")
	code = strings.ReplaceAll(code, "\\\n", " ")
	type macro struct {
		params []string
		body   string
	}
	macros := map[string]macro{}
	for _, m := range regexp.MustCompile(`(?m)^#define (\w+)\(([\w, ]+)\)(.*)$`).FindAllStringSubmatch(code, -1) {
		macros[m[1]] = macro{strings.Split(strings.ReplaceAll(m[2], " ", ""), ","), m[3]}
	}
	code = regexp.MustCompile(`(?m)^#.*$`).ReplaceAllString(code, "")
	call := regexp.MustCompile(`\b(\w+)\(([^()]*)\)`)
	for depth, more := 0, true; more && depth < 4; depth++ {
		more = false
		code = call.ReplaceAllStringFunc(code, func(s string) string {
			m := call.FindStringSubmatch(s)
			d, ok := macros[m[1]]
			if !ok {
				return s
			}
			more = true
			args := strings.Split(m[2], ",")
			body := d.body
			for i, p := range d.params {
				if i < len(args) {
					body = regexp.MustCompile(`\b`+p+`\b`).ReplaceAllLiteralString(body, strings.TrimSpace(args[i]))
				}
			}
			return "\n" + strings.ReplaceAll(body, "##", "") + "\n"
		})
	}
	var names []string
	for _, m := range regexp.MustCompile(`\bKERNEL\([^()]*\)\s*(?:CLUSTER\s+)?(\w+)\(`).FindAllStringSubmatch(code, -1) {
		names = append(names, m[1])
	}
	return names
}
