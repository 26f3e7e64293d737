package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"spinnet/canister/link"
	"spinnet/dataset"
	"spinnet/engine"
	"spinnet/interop"
	"spinnet/spinfile"
	"spinnet/web"
)

func newWebCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Run a model in a web page",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newWebBuildCmd())
	return cmd
}

// webBuildFlags are the options of "spinnet web build".
type webBuildFlags struct {
	output, name, prompt string
	modelFlags
}

func newWebBuildCmd() *cobra.Command {
	var f webBuildFlags
	cmd := &cobra.Command{
		Use:   "build MODEL -o DIR",
		Short: "Make a folder that any web server can serve",
		Long: `Build writes a static page that runs MODEL in the browser: nothing is computed on
a server, and what a reader types stays with them. The folder can lie under any
path of any host; it makes no request to another. After the first visit the page
works offline.

A .spinnet file goes into the page as it is ("spinnet compress" makes it as small
as it gets); any other model is written with an int8 embedding. With the same
prompt and seed the page writes the text that "spinnet generate" writes.

DIR is made. One that holds an earlier page is renewed; another folder with
files in it is left alone.`,
		Example: `  spinnet web build demo.spinnet -o site --prompt "ROMEO:"
  python3 -m http.server --directory site     # http://localhost:8000`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runWebBuild(args[0], &f, cmd.ErrOrStderr())
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.output, "output", "o", "", "`DIR` to write (required)")
	fl.StringVar(&f.name, "name", "", "title of the page (default: the model's file name)")
	fl.StringVarP(&f.prompt, "prompt", "p", "", "prompt that the page begins with")
	f.add(cmd)
	return cmd
}

// runWebBuild is "spinnet web build".
func runWebBuild(model string, f *webBuildFlags, log io.Writer) error {
	if f.output == "" {
		return &usageError{errors.New("no folder to write"), "give one with -o DIR"}
	}
	given, err := f.modelFlags.options()
	if err != nil {
		return err
	}
	old, err := oldSite(f.output)
	if err != nil {
		return err
	}
	data, err := modelForWeb(model, given)
	if err != nil {
		return err
	}
	name := f.name
	if name == "" {
		name = nameOf(model)
	}
	runtime, _, err := link.Runtime()
	if err != nil {
		return err
	}
	if runtime, err = link.Browser(runtime); err != nil {
		return err
	}
	files, err := web.Site(buildVersion(), runtime, web.Model{Name: name, Prompt: f.prompt, Data: data})
	if err != nil {
		return err
	}
	if err := writeSite(f.output, files, old); err != nil {
		return err
	}
	total := 0
	for _, b := range files {
		total += len(b)
	}
	fmt.Fprintf(log, "%s: %d files, %s, of which the model is %s and the program %s\n", f.output, len(files), bytesText(total), bytesText(len(data)), bytesText(len(runtime)))
	fmt.Fprintf(log, "hint: try it with python3 -m http.server --directory %s, or put the folder on any static host\n", f.output)
	return nil
}

// nameOf is how a model is called after its path.
func nameOf(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}

// openWriter opens a model that can write text: one with a tokenizer that works.
func openWriter(path string, given interop.Options) (*spinfile.Model, error) {
	m, err := interop.OpenWith(path, given)
	if err != nil {
		return nil, err
	}
	if m.Tokenizer.Kind == "" {
		return nil, &dataset.HintError{Err: fmt.Errorf("%s: the model does not say how text becomes tokens", path), Text: "say it with --chars or --llama-tokenizer"}
	}
	if _, err := engine.NewTokenizer(m.Tokenizer); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// modelForWeb gives the .spinnet file of a model that can write text.
func modelForWeb(path string, given interop.Options) ([]byte, error) {
	m, err := openWriter(path, given)
	if err != nil {
		return nil, err
	}
	format, err := interop.Format(path)
	if err != nil {
		return nil, err
	}
	if format == interop.FormatSpinnet && given == (interop.Options{}) {
		return os.ReadFile(path)
	}
	data, _, err := spinfile.Encode(m.QuantizeEmbedding(8).Quantize())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// oldSite gives the files of the site in dir, which a new one replaces. A
// folder with other files in it is an error.
func oldSite(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "site.json"))
	if err != nil {
		return nil, &dataset.HintError{Err: fmt.Errorf("%s: it holds files, and not those of a page", dir), Text: "name a new folder"}
	}
	var site web.Index
	if err := json.Unmarshal(text, &site); err != nil {
		return nil, fmt.Errorf("%s: site.json: %w", dir, err)
	}
	return append(site.Files, site.Runtime.File, site.Model.File), nil
}

// writeSite writes the files of a site, site.json last, and removes those of
// the old one that it lacks. Without an old one site.json is the first, so that
// a build that broke off is known as one and can be done again.
func writeSite(dir string, files map[string][]byte, old []string) error {
	names := slices.Sorted(maps.Keys(files))
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	if last := len(names) - 1; old == nil {
		names = slices.Concat(names[last:], names[:last])
	}
	for _, name := range names {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		err := interop.WriteFile(path, func(w io.Writer) error {
			_, err := w.Write(files[name])
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, name := range old {
		if _, stays := files[name]; !stays && filepath.IsLocal(name) {
			if err := os.Remove(filepath.Join(dir, filepath.FromSlash(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// rank orders the files of a site so that what names others comes after them.
func rank(name string) int {
	return slices.Index([]string{"index.html", "site.json"}, name)
}
