package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestInterface: the methods of spinnet.did, those of the table and those that
// the module exports are the same.
func TestInterface(t *testing.T) {
	did, err := os.ReadFile("spinnet.did")
	if err != nil {
		t.Fatal(err)
	}
	_, service, ok := strings.Cut(string(did), "\nservice : {\n")
	if !ok {
		t.Fatal("spinnet.did has no service")
	}
	service = regexp.MustCompile(`//.*`).ReplaceAllString(service, "")
	described := map[string]bool{} // and whether it is a query
	for _, m := range regexp.MustCompile(`(?s)\n  (\w+) : \(.*?\) -> \(.*?\)( query)?;`).FindAllStringSubmatch(service, -1) {
		described[m[1]] = m[2] != ""
	}
	src, err := os.ReadFile("exports_wasm.go")
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]bool{}
	for _, m := range regexp.MustCompile(`//go:wasmexport canister_(update|query):(\w+)\nfunc \w+\(\) \{ serve\("(\w+)"\) \}`).FindAllStringSubmatch(string(src), -1) {
		if m[2] != m[3] {
			t.Errorf("the export %s serves %s", m[2], m[3])
		}
		exported[m[2]] = m[1] == "query"
	}
	for name, m := range methods {
		if query, ok := described[name]; !ok || query != m.query {
			t.Errorf("spinnet.did: %s is there %v, query %v, want query %v", name, ok, query, m.query)
		}
		if query, ok := exported[name]; !ok || query != m.query {
			t.Errorf("exports: %s is there %v, query %v, want query %v", name, ok, query, m.query)
		}
	}
	if len(described) != len(methods) || len(exported) != len(methods) {
		t.Errorf("%d methods are described, %d exported, %d served", len(described), len(exported), len(methods))
	}
}
