package link

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spinnet/canister/host"
	"spinnet/canister/module"
)

// icWasm gives the path of ic-wasm, the Internet Computer's tool for modules.
func icWasm(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../peers/node_modules/@icp-sdk/ic-wasm-linux-x64/bin/ic-wasm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if path, err = exec.LookPath("ic-wasm"); err == nil {
		return path
	}
	if strings.Contains(os.Getenv("SPINNET_REQUIRE"), "peers") {
		t.Fatal("ic-wasm is not installed, and SPINNET_REQUIRE asks for it: npm --prefix canister/peers run setup")
	}
	t.Skip("ic-wasm is not installed: npm --prefix canister/peers run setup")
	return ""
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

// messages is what the meters are compared on.
var messages = []host.Message{
	{Export: "canister_init"},
}

// run sends messages to a module and gives the sum of the instructions.
func run(t *testing.T, wasm []byte, costs *module.Costs, messages ...host.Message) (*host.Canister, uint64, host.Reply) {
	t.Helper()
	ctx := context.Background()
	c, err := host.Load(ctx, wasm, costs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(ctx) })
	c.SetStable(make([]byte, 1<<16)) // where ic-wasm's code keeps its counters
	sum, last := uint64(0), host.Reply{}
	for _, m := range messages {
		if last, err = c.Call(ctx, m); err != nil {
			t.Fatalf("%s: %v", m.Export, err)
		}
		sum += last.Instructions
	}
	return c, sum, last
}

// The instructions that the meter counts are those that ic-wasm's counts.
func TestMeterAgainstPeer(t *testing.T) {
	tool := icWasm(t)
	runtime, info := runtime(t)
	canister, err := Canister(runtime, info, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.wasm"), filepath.Join(dir, "out.wasm")
	if err := os.WriteFile(in, canister, 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command(tool, in, "-o", out, "instrument").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	instrumented, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	_, got, _ := run(t, canister, icWasmCosts(), messages...)
	_, _, reply := run(t, instrumented, module.ICP, append(messages, host.Message{Export: "canister_query __get_cycles"})...)
	if len(reply.Data) < 8 {
		t.Fatalf("__get_cycles replied %x", reply.Data)
	}
	want := binary.LittleEndian.Uint64(reply.Data[len(reply.Data)-8:])
	_, icp, _ := run(t, canister, module.ICP, messages...)
	t.Logf("ic-wasm %d, ours by its table %d, by ICP's %d", want, got, icp)
	if diff := float64(got)/float64(want) - 1; diff > 0.01 || diff < -0.01 {
		t.Errorf("%d instructions, ic-wasm counts %d: %+.3f %%", got, want, 100*diff)
	}
}
