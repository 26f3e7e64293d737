// Package configs holds the training recipes that ship with the program, so
// that "spinnet train demo" works from an installed binary. It imports
// nothing of ours.
package configs

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed *.toml
var files embed.FS

// Read gives the text of the recipe of that name, such as "demo". Without such a
// recipe the error is an fs.ErrNotExist.
func Read(name string) ([]byte, error) { return files.ReadFile(name + ".toml") }

// Names lists the recipes.
func Names() []string {
	entries, err := fs.Glob(files, "*.toml")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for i := range entries {
		entries[i] = strings.TrimSuffix(entries[i], ".toml")
	}
	return entries
}
