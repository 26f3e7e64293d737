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
	"strings"

	"spinnet/canister/host"
	"spinnet/canister/module"
)

// dataGap is the number of zeros that two data segments are joined over. A
// segment costs about ten bytes, and compressed zeros next to nothing.
const dataGap = 64

// candidFile describes the methods of cmd/spinnet-wasm.
const candidFile = "cmd/spinnet-wasm/spinnet.did"

// optimise are the options of wasm-opt: those of the proposals that ICP and all
// browsers have, and the level.
var optimise = []string{"-O3", "--enable-simd", "--enable-bulk-memory", "--enable-nontrapping-float-to-int", "--enable-sign-ext", "--enable-mutable-globals"}

// Make builds the runtime module from cmd/spinnet-wasm in the repository at
// root, and describes it. It runs the Go tool and wasm-opt. tags are build
// tags, for tests.
func Make(ctx context.Context, root string, tags ...string) ([]byte, Info, error) {
	dir, err := os.MkdirTemp("", "spinnet-wasm-")
	if err != nil {
		return nil, Info{}, err
	}
	defer os.RemoveAll(dir)
	raw := filepath.Join(dir, "raw.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false",
		"-tags="+strings.Join(tags, ","), "-o", raw, "./cmd/spinnet-wasm")
	build.Dir = root
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=", "GOWASM=")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, Info{}, fmt.Errorf("link: go build: %w\n%s", err, out)
	}
	wasm, err := os.ReadFile(raw)
	if err != nil {
		return nil, Info{}, err
	}
	m, err := module.Parse(wasm)
	if err != nil {
		return nil, Info{}, err
	}
	if err := errors.Join(bind(m), rename(m)); err != nil {
		return nil, Info{}, err
	}
	info := Info{Nops: m.DropNops(), Fused: m.FuseLoads()}
	m.Customs = nil
	if err := errors.Join(m.MergeData(dataGap), dropLines(m)); err != nil {
		return nil, Info{}, err
	}
	if info.Sources, info.Go, err = Sources(ctx, root); err != nil {
		return nil, Info{}, err
	}
	bound, optimised := filepath.Join(dir, "bound.wasm"), filepath.Join(dir, "optimised.wasm")
	wasm = m.Encode()
	if err := os.WriteFile(bound, wasm, 0o644); err != nil {
		return nil, Info{}, err
	}
	if info.Address, info.Capacity, err = modelPlace(ctx, wasm); err != nil {
		return nil, Info{}, err
	}
	image, err := gainImage()
	if err != nil {
		return nil, Info{}, err
	}
	if info.TokenBefore, err = instructionsPerToken(ctx, wasm, info, image); err != nil {
		return nil, Info{}, err
	}
	if info.WasmOpt, err = WasmOptVersion(ctx); err != nil {
		return nil, Info{}, err
	}
	opt := exec.CommandContext(ctx, "wasm-opt", append(optimise, bound, "-o", optimised)...)
	if out, err := opt.CombinedOutput(); err != nil {
		return nil, Info{}, fmt.Errorf("link: wasm-opt: %w\n%s", err, out)
	}
	if wasm, err = os.ReadFile(optimised); err != nil {
		return nil, Info{}, err
	}
	if m, err = module.Parse(wasm); err != nil {
		return nil, Info{}, err
	}
	candid, err := os.ReadFile(filepath.Join(root, candidFile))
	if err != nil {
		return nil, Info{}, fmt.Errorf("link: %w", err)
	}
	m.Customs = []module.Custom{{Name: CandidSection, Bytes: candid}}
	if err := m.MergeData(dataGap); err != nil {
		return nil, Info{}, err
	}
	m.Exports = without(m.Exports, "model_")
	wasm = m.Encode()
	info.Token, err = instructionsPerToken(ctx, wasm, info, image)
	return wasm, info, err
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
