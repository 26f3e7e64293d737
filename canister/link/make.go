package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"spinnet/canister/host"
	"spinnet/canister/module"
)

// dataGap is the number of zeros that two data segments are joined over. A
// segment costs about ten bytes, and compressed zeros next to nothing.
const dataGap = 64

// candidFile describes the methods of cmd/spinnet-wasm.
const candidFile = "cmd/spinnet-wasm/spinnet.did"

// wasmOpt are the options of wasm-opt that name the proposals which ICP and all
// browsers have.
var wasmOpt = []string{"--enable-simd", "--enable-bulk-memory", "--enable-nontrapping-float-to-int", "--enable-sign-ext", "--enable-mutable-globals"}

// Make builds the runtime module from cmd/spinnet-wasm in the repository at
// root, and describes it. It runs the Go tool and wasm-opt.
func Make(ctx context.Context, root string) (wasm []byte, info Info, err error) {
	dir, err := os.MkdirTemp("", "spinnet-wasm-")
	if err != nil {
		return nil, info, err
	}
	defer os.RemoveAll(dir)
	if info.Sources, info.Go, err = Sources(ctx, root); err != nil {
		return nil, info, err
	}
	if info.WasmOpt, err = WasmOptVersion(ctx); err != nil {
		return nil, info, err
	}
	m, err := compile(ctx, root, "./cmd/spinnet-wasm", filepath.Join(dir, "go.wasm"))
	if err != nil {
		return nil, info, err
	}
	if err := errors.Join(bind(m), rename(m)); err != nil {
		return nil, info, err
	}
	info.Nops, info.Fused = m.DropNops(), m.FuseLoads()
	m.Customs = nil
	if err := errors.Join(m.MergeData(dataGap), dropLines(m)); err != nil {
		return nil, info, err
	}
	wasm = m.Encode()
	if info.Address, info.Capacity, err = modelPlace(ctx, wasm); err != nil {
		return nil, info, err
	}
	image, err := gainImage()
	if err != nil {
		return nil, info, err
	}
	if info.TokenBefore, err = instructionsPerToken(ctx, wasm, info, image); err != nil {
		return nil, info, err
	}

	if m, err = optimise(ctx, wasm, dir); err != nil {
		return nil, info, err
	}
	candid, err := os.ReadFile(filepath.Join(root, candidFile))
	if err != nil {
		return nil, info, fmt.Errorf("link: %w", err)
	}
	m.Customs = []module.Custom{{Name: CandidSection, Bytes: candid}}
	if err := m.MergeData(dataGap); err != nil {
		return nil, info, err
	}
	m.Exports = without(m.Exports, "model_")
	wasm = m.Encode()
	info.Token, err = instructionsPerToken(ctx, wasm, info, image)
	return wasm, info, err
}

// compile runs the Go tool in a folder. It writes the module to path, and what
// it writes does not depend on where the folder is.
func compile(ctx context.Context, dir, pkg, path string) (*module.Module, error) {
	build := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-o", path, pkg)
	build.Dir = dir
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=", "GOWASM=")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("link: go build: %w\n%s", err, out)
	}
	wasm, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return module.Parse(wasm)
}

// optimise runs wasm-opt on a module, in a folder of its own.
func optimise(ctx context.Context, wasm []byte, dir string) (*module.Module, error) {
	from, to := filepath.Join(dir, "from.wasm"), filepath.Join(dir, "to.wasm")
	if err := os.WriteFile(from, wasm, 0o644); err != nil {
		return nil, err
	}
	opt := exec.CommandContext(ctx, "wasm-opt", append(slices.Clone(wasmOpt), "-O3", from, "-o", to)...)
	if out, err := opt.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("link: wasm-opt: %w\n%s", err, out)
	}
	wasm, err := os.ReadFile(to)
	if err != nil {
		return nil, err
	}
	return module.Parse(wasm)
}

// WasmOptVersion gives the version of the wasm-opt that is installed.
func WasmOptVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "wasm-opt", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("link: wasm-opt (of binaryen) does not run: %w", err)
	}
	return string(bytes.TrimSpace(out)), nil
}

// modelPlace asks a module where the model goes and how many bytes fit.
func modelPlace(ctx context.Context, wasm []byte) (address, capacity uint32, err error) {
	c, err := host.Load(ctx, wasm, module.ICP)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close(ctx)
	if _, err := c.Call(ctx, host.Message{Export: "canister_init"}); err != nil {
		return 0, 0, err
	}
	for name, to := range map[string]*uint32{"model_address": &address, "model_capacity": &capacity} {
		res, _, err := c.CallExport(ctx, name)
		if err != nil {
			return 0, 0, err
		}
		*to = uint32(res[0])
	}
	return address, capacity, nil
}

// Sources gives a hash of everything that Make reads in the repository (the
// packages of cmd/spinnet-wasm and of this step, with the versions of other modules),
// and the version of Go. The runtime is fresh if it was made from this.
func Sources(ctx context.Context, root string) (hash, version string, err error) {
	run := func(env []string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), env...)
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("link: go %s: %w", args[0], err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	wasm := []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS="}
	const files = `{{if and .Module .Module.Main}}{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .SFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .HFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .EmbedFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{else if .Module}}+{{.Module.Path}}@{{.Module.Version}}{{"\n"}}{{end}}`
	list, err := run(wasm, "list", "-deps", "-f", files, "./cmd/spinnet-wasm")
	if err != nil {
		return "", "", err
	}
	if version, err = run(nil, "env", "GOVERSION"); err != nil {
		return "", "", err
	}
	paths := strings.Fields(list)
	for _, own := range []string{candidFile, "canister/module/decode.go", "canister/module/encode.go", "canister/module/fuse.go", "canister/module/instr.go", "canister/module/module.go",
		"canister/module/rewrite.go", "canister/link/gain.go", "canister/link/lines.go", "canister/link/make.go", "canister/link/wasi.go"} {
		paths = append(paths, filepath.Join(root, own))
	}
	h := sha256.New()
	fmt.Fprintln(h, version)
	for _, p := range paths {
		if p[0] == '+' { // a package of another module
			fmt.Fprintln(h, p)
			continue
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return "", "", fmt.Errorf("link: %w", err)
		}
		fmt.Fprintf(h, "%s %x\n", filepath.Base(p), sha256.Sum256(b))
	}
	return hex.EncodeToString(h.Sum(nil)), version, nil
}
