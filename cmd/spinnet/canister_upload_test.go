package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spinnet/canister/agent"
)

// TestCanisterUpload: a model comes to a canister without one, which then
// writes what the command line writes; again it is there at once.
func TestCanisterUpload(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a replica")
	}
	home := t.TempDir()
	model, build := smallModel(t), filepath.Join(t.TempDir(), "build")
	run := func(args ...string) (stdout, stderr string, err error) {
		var out, errs bytes.Buffer
		cmd := spinnetCommand(t, home, args...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		err = cmd.Run()
		return out.String(), errs.String(), err
	}
	must := func(args ...string) (stdout, stderr string) {
		t.Helper()
		stdout, stderr, err := run(args...)
		if err != nil {
			t.Fatalf("spinnet %s: %v\n%s", strings.Join(args, " "), err, stderr)
		}
		return stdout, stderr
	}
	must("canister", "build", "--no-model", "-o", build)
	wasm, err := os.ReadFile(filepath.Join(build, "spinnet.wasm.gz"))
	if err != nil {
		t.Fatal(err)
	}
	local := startLocal(t)
	c := &agent.Client{URL: local.URL}
	if err := c.FetchRootKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	manage := func(about agent.Principal, method string, fields ...agent.Field) any {
		t.Helper()
		arg, err := agent.EncodeArgs(agent.Record(fields))
		if err != nil {
			t.Fatal(err)
		}
		reply, err := c.Manage(t.Context(), about, method, arg)
		if err != nil {
			t.Fatal(err)
		}
		values, err := agent.DecodeArgs(reply, nil)
		if err != nil || len(values) == 0 {
			return nil
		}
		return values[0]
	}
	id := manage(agent.Management, "provisional_create_canister_with_cycles").(agent.Record).Get("canister_id").(agent.Principal)
	manage(id, "install_code", agent.F("canister_id", id), agent.F("mode", agent.V("install", nil)), agent.F("wasm_module", wasm), agent.F("arg", []byte("DIDL\x00\x00")))

	ask := []string{"canister", "call", id.String(), "generate_full", `("Once", 20 : nat32)`, "--network", local.URL, "--json"}
	if out, _ := must(ask...); !strings.Contains(out, "holds no model") {
		t.Errorf("before the upload: %s", out)
	}
	if _, errs, err := run("canister", "upload", id.String(), filepath.Join(home, "nothing.spinnet"), "--network", local.URL); err == nil || !strings.Contains(errs, "nothing.spinnet") {
		t.Errorf("a model that is not there: %v, %s", err, errs)
	}
	for range 2 {
		if _, errs := must("canister", "upload", id.String(), model, "--network", local.URL); !strings.Contains(errs, "writes with the model, sha256") {
			t.Errorf("upload: %s", errs)
		}
		var got []string
		out, _ := must(ask...)
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		var want struct{ Text string }
		out, _ = must("generate", model, "--json", "--prompt", "Once", "--max-tokens", "20", "--temperature", "0")
		if err := json.Unmarshal([]byte(out), &want); err != nil {
			t.Fatal(err)
		}
		if got[0] != want.Text {
			t.Errorf("the canister wrote %q, the command line %q", got[0], want.Text)
		}
	}
	// A stranger may not.
	key := filepath.Join(home, "key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, err := run("canister", "upload", id.String(), model, "--network", local.URL, "--identity", key); err == nil || !strings.Contains(errs, "controllers only") {
		t.Errorf("a stranger's upload: %v, %s", err, errs)
	}
}
