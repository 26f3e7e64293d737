package link

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spinnet/canister/host"
	"spinnet/canister/module"
)

// peer gives the path of another program: what npm installed, or the PATH's.
func peer(t *testing.T, name, installed, how string) string {
	t.Helper()
	if path, err := filepath.Abs(filepath.Join("../peers/node_modules", installed)); err == nil && installed != "" {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case strings.Contains(os.Getenv("SPINNET_REQUIRE"), "peers"):
		t.Fatalf("%s is not installed, and SPINNET_REQUIRE asks for it: %s", name, how)
	default:
		t.Skipf("%s is not installed: %s", name, how)
	}
	return ""
}

// icWasm gives the path of ic-wasm, the Internet Computer's tool for modules.
func icWasm(t *testing.T) string {
	t.Helper()
	return peer(t, "ic-wasm", "@icp-sdk/ic-wasm-linux-x64/bin/ic-wasm", "npm --prefix canister/peers run setup")
}

// wasm-opt, which checks what it reads, finds nothing wrong with the modules.
func TestValidByPeer(t *testing.T) {
	tool := peer(t, "wasm-opt", "", "it is in the package binaryen")
	wasm, _ := runtime(t)
	browser, err := Browser(wasm)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"canister": canisterOf(t, []byte("a model")), "browser": browser} {
		in := filepath.Join(t.TempDir(), "in.wasm")
		if err := os.WriteFile(in, b, 0o644); err != nil {
			t.Fatal(err)
		}
		check := exec.Command(tool, append(slices.Clone(wasmOpt), in, "-o", filepath.Join(t.TempDir(), "out.wasm"))...)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// icWasmCosts is the table of ic-wasm 0.11.1 (instr_cost in its src/utils.rs),
// which is older than ICP's: it charges 20 for most instructions of floats and 1
// for all of SIMD and for saturating conversions.
func icWasmCosts() *module.Costs {
	c := *module.ICP
	for op := range c {
		switch {
		case op >= 0x200, op >= 0x100 && op <= 0x107: // SIMD, saturating conversions
			c[op] = 1
		case op == 0x8b || op == 0x8c || op == 0x99 || op == 0x9a: // abs, neg
			c[op] = 2
		case op >= 0x8d && op <= 0x97 || op >= 0x9b && op <= 0xa5: // the rest of floats but copysign
			c[op] = 20
		case op == 0x98 || op == 0xa6:
			c[op] = 2
		}
	}
	c[0x12], c[0x13] = 1, 1 // tail calls
	return &c
}

// run sends messages to a module and gives the sum of the instructions, and the
// last reply.
func run(t *testing.T, wasm []byte, costs *module.Costs, messages ...host.Message) (uint64, host.Reply) {
	t.Helper()
	c, err := host.Load(t.Context(), wasm, costs)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	c.SetStable(make([]byte, 66<<16)) // the last two pages are for ic-wasm
	c.Time = func() time.Time { return time.Unix(1e9, 0) }
	sum, last := uint64(0), host.Reply{}
	for _, m := range messages {
		if last, err = c.Call(t.Context(), m); err != nil {
			t.Fatalf("%s: %v", m.Export, err)
		}
		sum += last.Instructions
	}
	return sum, last
}

// The instructions that the meter counts are those that ic-wasm's counts.
func TestMeterAgainstPeer(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles three modules")
	}
	tool := icWasm(t)
	canister := canisterOf(t, image(t, testModel(t)))
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.wasm"), filepath.Join(dir, "out.wasm")
	if err := os.WriteFile(in, canister, 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command(tool, in, "-o", out, "instrument", "--start-page", "64", "--page-limit", "2").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	instrumented, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	messages := []host.Message{{Export: "canister_init"}, {Export: "canister_update generate", Arg: generateArg("Once", 12)}}
	got, _ := run(t, canister, icWasmCosts(), messages...)
	icp, _ := run(t, canister, module.ICP, messages...)
	_, reply := run(t, instrumented, module.ICP, append(messages, host.Message{Export: "canister_query __get_cycles"})...)
	if len(reply.Data) < 8 {
		t.Fatalf("__get_cycles replied %x", reply.Data)
	}
	want := binary.LittleEndian.Uint64(reply.Data[len(reply.Data)-8:])
	t.Logf("ic-wasm counts %d, ours by its table %d, by ICP's %d", want, got, icp)
	if diff := float64(got)/float64(want) - 1; diff > 0.01 || diff < -0.01 {
		t.Errorf("%d instructions, ic-wasm counts %d: %+.3f %%", got, want, 100*diff)
	}
}

// The methods of the module are those of its candid section, by ic-wasm.
func TestEndpointsAgainstPeer(t *testing.T) {
	tool := icWasm(t)
	canister := canisterOf(t, nil)
	var lifecycle []string // which candid does not describe
	for _, e := range parse(t, canister).Exports {
		if e.Kind == module.KindFunc && !strings.Contains(e.Name, " ") {
			lifecycle = append(lifecycle, e.Name)
		}
	}
	dir := t.TempDir()
	in, hidden := filepath.Join(dir, "in.wasm"), filepath.Join(dir, "hidden.txt")
	for path, text := range map[string]string{in: string(canister), hidden: strings.Join(lifecycle, "\n")} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := exec.Command(tool, in, "check-endpoints", "--hidden", hidden).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
}
