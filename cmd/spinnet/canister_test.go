package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"spinnet/arch"
	"spinnet/interop"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// peer gives a tool of the Internet Computer that npm installs in
// canister/peers; where there is none, the test is skipped, or fails if
// SPINNET_REQUIRE has "peers".
func peer(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../canister/peers/node_modules/@icp-sdk", path))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		const how = "npm --prefix canister/peers run setup"
		if strings.Contains(os.Getenv("SPINNET_REQUIRE"), "peers") {
			t.Fatalf("%v, and SPINNET_REQUIRE asks for it: %s", err, how)
		}
		t.Skipf("%v: %s", err, how)
	}
	return path
}

// localReplica is "spinnet canister local" while it runs.
type localReplica struct {
	URL     string `json:"url"`
	RootKey string `json:"root_key"`
	stop    func()
}

func startLocal(t *testing.T, args ...string) *localReplica {
	t.Helper()
	cmd := spinnetCommand(t, t.TempDir(), append([]string{"canister", "local", "--port", "0", "--json", "--quiet"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	l := &localReplica{stop: func() {
		if stopped {
			return
		}
		stopped = true
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		kill := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("canister local: %v\n%s", err, &errs)
		}
	}}
	t.Cleanup(l.stop)
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("canister local says nothing: %v\n%s", err, &errs)
	}
	if err := json.Unmarshal(line, l); err != nil {
		t.Fatal(err)
	}
	return l
}

// smallModel writes a model of random weights.
func smallModel(t *testing.T) string {
	t.Helper()
	c := arch.Config{NLayer: 2, NHead: 2, NEmbd: 64, HiddenDim: 96, BlockSize: 128, VocabSize: 256, ActBits: 8, Quantizer: arch.AbsMean}.WithDefaults()
	m, err := randomModel(c, spinfile.TokenizerInfo{Kind: tokenizer.KindBytes})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "small.spinnet")
	data, _, err := spinfile.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The walk of docs/canister.md with the tools that it names.
func TestCanisterWithPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("installs a canister with other programs")
	}
	icp := peer(t, "icp-cli-linux-x64/bin/icp")
	if err := os.Chmod(icp, 0o755); err != nil { // npm unpacks it without
		t.Log(err)
	}
	peer(t, "core/package.json")
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	model := smallModel(t)
	home, state := t.TempDir(), t.TempDir()
	project := filepath.Join(t.TempDir(), "build")
	spinnet := func(args ...string) string {
		t.Helper()
		out, err := spinnetCommand(t, home, args...).Output()
		if err != nil {
			if e, ok := err.(*exec.ExitError); ok {
				err = &exec.Error{Name: string(e.Stderr), Err: err}
			}
			t.Fatalf("spinnet %s: %v", strings.Join(args, " "), err)
		}
		return string(out)
	}
	run := func(args ...string) (string, error) {
		cmd := exec.Command(icp, args...)
		cmd.Dir = project
		cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home, "DO_NOT_TRACK=1", "RUST_BACKTRACE=0")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	mustRun := func(args ...string) string {
		t.Helper()
		out, err := run(args...)
		if err != nil {
			t.Fatalf("icp %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}

	spinnet("canister", "build", model, "-o", project)
	local := startLocal(t, "--state", state)
	pointAt(t, project, local.URL)
	const prompt = "Once upon a time"
	var native struct{ Text string }
	if err := json.Unmarshal([]byte(spinnet("generate", model, "--json", "--prompt", prompt, "--max-tokens", "20", "--temperature", "0")), &native); err != nil {
		t.Fatal(err)
	}
	want := native.Text

	// Install in chunks, look, call, query, upgrade.
	mustRun("deploy", "--yes")
	status := mustRun("canister", "status", "spinnet")
	hash := regexp.MustCompile(`sha256: ([0-9a-f]{64})`).FindStringSubmatch(readFile(t, filepath.Join(project, "icp.yaml")))
	if len(hash) != 2 || !strings.Contains(status, hash[1]) || !strings.Contains(status, "Running") {
		t.Errorf("icp canister status:\n%s\nwant Running and the module's hash %v", status, hash)
	}
	call := []string{"canister", "call", "spinnet", "generate", `(record { prompt = "` + prompt + `"; max_tokens = opt 20; temperature = opt 0.0 })`}
	if out := mustRun(call...); !strings.Contains(out, "finish_reason = \"length\"") {
		t.Errorf("icp canister call: %s", out)
	}
	if out := mustRun("canister", "call", "--query", "spinnet", "health", "()"); !strings.Contains(out, `status = "ok"`) {
		t.Errorf("icp canister call --query: %s", out)
	}
	if out, err := run("canister", "call", "spinnet", "nothing", "()"); err == nil || !strings.Contains(out, "nothing") {
		t.Errorf("a method that is not there: %v\n%s", err, out)
	}
	mustRun("deploy", "--yes")
	mustRun("identity", "new", "alice", "--storage", "plaintext")
	mustRun(append(call, "--identity", "alice")...)
	if out, err := run("canister", "stop", "spinnet", "--identity", "alice"); err == nil {
		t.Errorf("a stranger stops the canister:\n%s", out)
	}

	// Our own client, and after it the JavaScript one.
	args := []string{"canister", "call", "spinnet", "generate", `(record { prompt = "` + prompt + `"; max_tokens = opt (20 : nat32); temperature = opt (0 : float64) })`,
		"--project", project, "--network", local.URL, "--json"}
	var answer []struct {
		OK struct {
			Text   string
			Reason string `json:"finish_reason"`
		}
	}
	if err := json.Unmarshal([]byte(spinnet(args...)), &answer); err != nil {
		t.Fatal(err)
	}
	if answer[0].OK.Text != want || answer[0].OK.Reason != "length" {
		t.Errorf("the canister wrote %q (%s), the command line %q", answer[0].OK.Text, answer[0].OK.Reason, want)
	}
	id := regexp.MustCompile(`[a-z0-9-]+-cai`).FindString(status)
	javaScript(t, node, local, id, prompt, want)

	// The replica begins anew with what it had.
	local.stop()
	local = startLocal(t, "--state", state)
	pointAt(t, project, local.URL)
	javaScript(t, node, local, id, prompt, want)
}

// javaScript runs canister/peers/client.mjs.
func javaScript(t *testing.T, node string, local *localReplica, id, prompt, want string) {
	t.Helper()
	cmd := exec.Command(node, "../../canister/peers/client.mjs", local.URL, local.RootKey, id, prompt, "20")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("client.mjs: %v\n%s", err, &errs)
	}
	var got struct {
		Anonymous, Ed25519, Secp256k1 struct{ Text, Health, Nothing string }
		WrongKey                      string
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	for name, g := range map[string]struct{ Text, Health, Nothing string }{"anonymous": got.Anonymous, "ed25519": got.Ed25519, "secp256k1": got.Secp256k1} {
		if g.Text != want || g.Health != "ok" || !strings.Contains(g.Nothing, "nothing") {
			t.Errorf("@icp-sdk/core, %s: %+v, want the text %q", name, g, want)
		}
	}
	if got.WrongKey == "" {
		t.Error("@icp-sdk/core believes a replica whose key it does not have")
	}
}

// pointAt changes where a project looks for the local replica.
func pointAt(t *testing.T, project, url string) {
	t.Helper()
	path := filepath.Join(project, "icp.yaml")
	text := regexp.MustCompile(`url: http://127\.0\.0\.1:\d+`).ReplaceAllString(readFile(t, path), "url: "+url)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A model without a tokenizer makes neither a canister nor a page.
func TestMuteModel(t *testing.T) {
	data, err := os.ReadFile("../../spinfile/testdata/seed_tiny.spinnet")
	if err != nil {
		t.Fatal(err)
	}
	m, err := spinfile.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	m.Tokenizer = spinfile.TokenizerInfo{}
	mute, _, err := spinfile.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mute.spinnet")
	if err := os.WriteFile(path, mute, 0o600); err != nil {
		t.Fatal(err)
	}
	const want = "does not say how text becomes tokens"
	if _, _, err := canisterImage(path, "float", &modelFlags{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("canisterImage: %v, want %q", err, want)
	}
	if _, err := modelForWeb(path, interop.Options{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("modelForWeb: %v, want %q", err, want)
	}
}
