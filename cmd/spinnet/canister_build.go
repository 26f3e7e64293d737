package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spinnet/canister/link"
	"spinnet/canister/module"
	"spinnet/dataset"
	"spinnet/engine"
	"spinnet/interop"
	"spinnet/spinfile"
)

// canisterBuildFlags are the options of "spinnet canister build".
type canisterBuildFlags struct {
	output, name, kvCache string
	noModel, json         bool
	modelFlags
}

func newCanisterBuildCmd() *cobra.Command {
	var f canisterBuildFlags
	cmd := &cobra.Command{
		Use:   "build MODEL -o DIR",
		Short: "Make a canister of a model, ready to deploy",
		Long: `Build writes a folder that icp (or dfx) deploys as it is:

  spinnet.wasm      the module: the program and the model, laid out as it computes
  spinnet.wasm.gz   the same compressed, which is what is installed
  spinnet.did       its methods, in candid
  icp.yaml          the project of icp      dfx.json   and that of dfx

The module holds models of up to about 96 MB; --no-model makes one for a larger
model, which spinnet canister upload brings afterwards. It computes in int8.
Every limit of ICP is printed with what the module takes of it. The same model
gives the same module: its hash is the one that ICP shows after the installation.`,
		Example: `  spinnet canister build demo.spinnet -o canister
  cd canister && icp deploy`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runCanisterBuild(cmd, args, &f) },
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.output, "output", "o", "", "`DIR` to write to (required)")
	fl.StringVar(&f.name, "name", "spinnet", "name of the canister in its project")
	fl.StringVar(&f.kvCache, "kv-cache", "float", "keep keys and values as float or, with fewer instructions, int8")
	fl.BoolVar(&f.noModel, "no-model", false, "leave the model out, to be uploaded")
	fl.BoolVar(&f.json, "json", false, "print the report as one JSON object")
	f.add(cmd)
	return cmd
}

// canisterName is what icp and dfx accept.
var canisterName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,63}$`)

func (f *canisterBuildFlags) check(args []string) error {
	switch {
	case f.output == "":
		return &usageError{errors.New("no folder to write to"), "give one with -o DIR"}
	case f.noModel == (len(args) == 1):
		return usagef("want a MODEL or --no-model")
	case f.kvCache != "float" && f.kvCache != "int8":
		return usagef("--kv-cache %s: want float or int8", f.kvCache)
	case !canisterName.MatchString(f.name):
		return usagef("--name %q: want a letter, then letters, digits, _ or -", f.name)
	}
	return nil
}

// canisterReport is what was built.
type canisterReport struct {
	Dir        string          `json:"dir"`
	Model      string          `json:"model,omitempty"`
	Image      int             `json:"model_bytes"`
	Bytes      int             `json:"module_bytes"`
	Gzip       int             `json:"gzip_bytes"`
	Hash       string          `json:"sha256"`      // of spinnet.wasm
	Installed  string          `json:"module_hash"` // of spinnet.wasm.gz, as ICP shows it
	Runtime    link.Info       `json:"runtime"`
	Limits     []module.Figure `json:"limits"`
	activation bool            // the model was trained in other arithmetic
}

func runCanisterBuild(cmd *cobra.Command, args []string, f *canisterBuildFlags) error {
	if err := f.check(args); err != nil {
		return err
	}
	r := canisterReport{Dir: f.output}
	var image []byte
	if !f.noModel {
		var err error
		r.Model = args[0]
		if image, r.activation, err = canisterImage(r.Model, f.kvCache, &f.modelFlags); err != nil {
			return err
		}
	}
	r.Image = len(image)
	runtime, info, err := link.Runtime()
	if err != nil {
		return err
	}
	r.Runtime = info
	if len(image) > int(info.Capacity) {
		return &dataset.HintError{
			Err:  fmt.Errorf("%s takes %s as a canister keeps it, and %s fit into the module", r.Model, sizeOf(len(image)), sizeOf(int(info.Capacity))),
			Text: "build with --no-model and bring the model with spinnet canister upload, or make it smaller with spinnet compress --trim-vocab",
		}
	}
	wasm, err := link.Canister(runtime, info, image)
	if err != nil {
		return err
	}
	m, err := module.Parse(wasm)
	if err != nil {
		return err
	}
	if r.Limits, err = module.Measure(m, wasm); err != nil {
		return err
	}
	packed, err := link.Gzip(wasm)
	if err != nil {
		return err
	}
	r.Bytes, r.Gzip, r.Hash, r.Installed = len(wasm), len(packed), hashOf(wasm), hashOf(packed)
	candid, err := link.Candid(runtime)
	if err != nil {
		return err
	}
	files, err := link.Project(f.name, "spinnet.wasm.gz", "spinnet.did", r.Installed)
	if err != nil {
		return err
	}
	files["spinnet.wasm"], files["spinnet.wasm.gz"], files["spinnet.did"] = string(wasm), string(packed), candid
	if err := ownProject(f.output); err != nil {
		return err
	}
	if err := os.MkdirAll(f.output, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		err := interop.WriteFile(filepath.Join(f.output, name), func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		})
		if err != nil {
			return err
		}
	}
	if f.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(&r)
	}
	return r.print(cmd.ErrOrStderr())
}

// ownProject complains about a folder with the project files of another
// canister, which build would write over.
func ownProject(dir string) error {
	for _, name := range []string{"icp.yaml", "dfx.json"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !bytes.Contains(text, []byte("spinnet.wasm.gz")) {
			return &dataset.HintError{Err: fmt.Errorf("%s: a project of another canister", filepath.Join(dir, name)), Text: "name a folder of its own with -o DIR"}
		}
	}
	return nil
}

// canisterImage opens a model and lays it out as the module computes with it.
// other reports that it was trained in other arithmetic.
func canisterImage(path, kvCache string, f *modelFlags) (image []byte, other bool, err error) {
	o, err := f.options()
	if err != nil {
		return nil, false, err
	}
	m, err := openWriter(path, o)
	if err != nil {
		return nil, false, err
	}
	// As "spinnet compress" does, and by its file, so that a model and what was
	// compressed of it give the same module.
	data, _, err := spinfile.Encode(m.QuantizeEmbedding(8).Quantize())
	if err == nil {
		m, err = spinfile.Decode(data)
	}
	var b bytes.Buffer
	if err == nil {
		err = engine.WriteImage(&b, m, engine.Options{Int8Cache: kvCache == "int8"})
	}
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", path, err)
	}
	return b.Bytes(), m.Config.ActBits != 8, nil
}

func hashOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func sizeOf(n int) string { return fmt.Sprintf("%.2f MB", float64(n)/1e6) }

// print writes the figures beside ICP's limits.
func (r *canisterReport) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "limit\tmodule\tICP accepts\t\n")
	for _, l := range r.Limits {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f %%\n", l.Name, thousands(int(l.Value)), thousands(int(l.Limit)), 100*float64(l.Value)/float64(l.Limit))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	model := "no model: upload one"
	if r.Image > 0 {
		model = fmt.Sprintf("the model takes %s", sizeOf(r.Image))
	}
	fmt.Fprintf(w, "\n%s: %s, gzipped %s; %s\n", filepath.Join(r.Dir, "spinnet.wasm"), sizeOf(r.Bytes), sizeOf(r.Gzip), model)
	fmt.Fprintf(w, "program %s, optimised by %s already: %.0f %% fewer instructions\n", r.Runtime.Go, r.Runtime.WasmOpt,
		100*(1-float64(r.Runtime.Token)/float64(max(1, r.Runtime.TokenBefore))))
	fmt.Fprintf(w, "sha256 %s  spinnet.wasm\nsha256 %s  spinnet.wasm.gz, the module's hash on ICP\n", r.Hash, r.Installed)
	if r.activation {
		fmt.Fprintln(w, "note: the model was not trained for int8 arithmetic, in which a canister computes; spinnet score --numeric int8 tells what that costs")
	}
	fmt.Fprintf(w, "hint: cd %s && icp deploy\n", r.Dir)
	return nil
}
