package replica

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"spinnet/canister/agent"
	"spinnet/canister/host"
)

// local is a running replica and a client of it, who controls its canisters.
type local struct {
	*testing.T
	replica *Replica
	client  *agent.Client
	stop    func()
}

func start(t *testing.T, o Options) *local {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := New(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, l) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return &local{t, r, &agent.Client{URL: "http://" + l.Addr().String(), RootKey: r.RootKey()}, stop}
}

// as is the client with a new identity.
func (l *local) as() *agent.Client {
	l.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		l.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		l.Fatal(err)
	}
	id, err := agent.ParseIdentity(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		l.Fatal(err)
	}
	return &agent.Client{URL: l.client.URL, RootKey: l.client.RootKey, Identity: *id}
}

func (l *local) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	l.Cleanup(cancel)
	return ctx
}

// manage calls the management canister for a canister, through the client.
func manage(l *local, c *agent.Client, id agent.Principal, method string, arg ...agent.Field) ([]any, error) {
	l.Helper()
	args, err := agent.EncodeArgs(agent.Record(arg))
	if err != nil {
		l.Fatal(err)
	}
	env, err := c.Manage(l.context(), id, method, args)
	if err != nil {
		return nil, err
	}
	values, err := agent.DecodeArgs(env, nil)
	if err != nil {
		l.Fatal(err)
	}
	return values, nil
}

func (l *local) create() agent.Principal {
	l.Helper()
	out, err := manage(l, l.client, agent.Management, "provisional_create_canister_with_cycles")
	if err != nil {
		l.Fatal(err)
	}
	return out[0].(agent.Record).Get("canister_id").(agent.Principal)
}

func (l *local) install(id agent.Principal, mode string, wasm []byte) error {
	l.Helper()
	var how any
	if mode == "upgrade" {
		how = agent.None
	}
	_, err := manage(l, l.client, id, "install_code", agent.F("canister_id", id), agent.F("mode", agent.V(mode, how)), agent.F("wasm_module", wasm), agent.F("arg", []byte("DIDL\x00\x00")))
	return err
}

// guest makes a canister with the test module.
func (l *local) guest() agent.Principal {
	l.Helper()
	id := l.create()
	if err := l.install(id, "install", newGuest(l.T, 1)); err != nil {
		l.Fatal(err)
	}
	return id
}

func (l *local) call(id agent.Principal, method string, arg ...byte) []byte {
	l.Helper()
	reply, err := l.client.Call(l.context(), id, method, arg)
	if err != nil {
		l.Fatalf("%s: %v", method, err)
	}
	return reply
}

func (l *local) query(id agent.Principal, method string) []byte {
	l.Helper()
	reply, err := l.client.Query(l.context(), id, method, nil)
	if err != nil {
		l.Fatalf("%s: %v", method, err)
	}
	return reply
}

// rejected calls and wants a rejection with a code and words.
func (l *local) rejected(err error, code uint64, words string) {
	l.Helper()
	e, ok := errors.AsType[*agent.RejectError](err)
	if !ok || e.Code != code || !strings.Contains(e.Error(), words) {
		l.Errorf("got %v, want code %d and %q", err, code, words)
	}
}

func (l *local) refuse(id agent.Principal, method string, code uint64, words string) {
	l.Helper()
	_, err := l.client.Call(l.context(), id, method, nil)
	l.rejected(err, code, words)
}

func (l *local) counters(id agent.Principal, want uint32) {
	l.Helper()
	if got := counters(l.T, l.query(id, "get")); got != [3]uint32{want, want, want} {
		l.Errorf("counters (heap, stable, global) %v, want %d", got, want)
	}
}

func TestMessages(t *testing.T) {
	l := start(t, Options{})
	id := l.guest()
	for want := uint32(1); want <= 3; want++ {
		if got := counters(t, l.call(id, "inc")); got != [3]uint32{want, want, want} {
			t.Errorf("inc: %v, want %d", got, want)
		}
	}
	if got := counters(t, l.query(id, "mutate")); got != [3]uint32{4, 4, 4} {
		t.Errorf("a query sees %v of its own changes, want 4", got)
	}
	l.counters(id, 3)
	if got := counters(t, l.call(id, "mutate")); got != [3]uint32{4, 4, 4} {
		t.Errorf("a query method as an update call: %v, want 4", got)
	}
	l.counters(id, 3)
	if got := l.call(id, "echo", 1, 2, 3); !bytes.Equal(got, []byte{1, 2, 3}) {
		t.Errorf("echo: %v", got)
	}
	if got := l.call(id, "whoami"); !agent.Anonymous.Equal(got) {
		t.Errorf("whoami: %v", agent.Principal(got))
	}
	alice := l.as()
	got, err := alice.Call(l.context(), id, "whoami", nil)
	if err != nil || !alice.Identity.Principal().Equal(got) {
		t.Errorf("whoami: %v, %v, want %v", agent.Principal(got), err, alice.Identity.Principal())
	}
	if v, err := l.client.Read(l.context(), id, "metadata", "candid:service"); string(v) != "service : {}" || err != nil {
		t.Errorf("candid:service is %q, %v", v, err)
	}
	want := sha256.Sum256(newGuest(t, 1))
	if v, err := l.client.Read(l.context(), id, "module_hash"); !bytes.Equal(v, want[:]) || err != nil {
		t.Errorf("module_hash is %x, %v, want %x", v, err, want)
	}
	if v, err := alice.Read(l.context(), id, "metadata", "secret"); err == nil {
		t.Errorf("private metadata is %q to a stranger", v)
	}
	if v, err := l.client.Read(l.context(), id, "metadata", "secret"); string(v) != "hidden" || err != nil {
		t.Errorf("private metadata is %q, %v to a controller", v, err)
	}
	l.call(id, "certify")
	if cert := l.query(id, "certified"); len(cert) > 0 {
		tree, err := agent.OpenCertificate(cert, l.replica.RootKey(), id, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if v, err := tree.Value([]byte("canister"), id, []byte("certified_data")); string(v) != "raw_" || err != nil {
			t.Errorf("certified data %q, %v, want raw_", v, err)
		}
	}
}

// What a trap did is undone: heap, its size, globals, stable memory, its size.
func TestTrap(t *testing.T) {
	l := start(t, Options{Limits: Limits{Update: 2_000_000, Query: 1_000_000, Install: 10_000_000, Wait: 10 * time.Second}})
	id := l.guest()
	l.call(id, "inc")
	for _, c := range []struct {
		method, words string
		code          uint64
	}{
		{"trap", "IC0503: Canister called `ic0.trap` with message: 'stop'", 5},
		{"unreachable", "IC0502", 5},
		{"spin", "IC0522: Canister exceeded the limit of 2000000 instructions", 5},
		{"noreply", "IC0506", 5},
		{"twice", "IC0504", 5},
		{"outside", "IC0502", 5},
		{"outside_stable", "IC0502", 5},
		{"perform_alone", "IC0504", 5},
		{"nothing of the kind", "IC0536", 3},
		{"reject", "stop", 4},
		{"not_let_in", "rejected the message", 4},
	} {
		l.refuse(id, c.method, c.code, c.words)
		want := uint32(1)
		if c.method == "noreply" { // it ran to its end: what it did stays
			l.counters(id, 2)
			if err := l.install(id, "reinstall", newGuest(t, 1)); err != nil {
				t.Fatal(err)
			}
			l.call(id, "inc")
		}
		l.counters(id, want)
	}
	_, err := l.client.Query(l.context(), id, "spin_query", nil)
	l.rejected(err, 5, "limit of 1000000 instructions")
	_, err = l.client.Query(l.context(), id, "inc", nil)
	l.rejected(err, 3, "no query method")
	c, reject := l.replica.find(id)
	if reject != nil {
		t.Fatal(reject)
	}
	if st := c.current.Load(); len(st.Heap) != 16 || len(st.Stable) != 16 {
		t.Errorf("%d pages of heap and %d of stable memory are left, want %d", len(st.Heap), len(st.Stable), 16)
	}
	l.call(id, "inc")
	l.counters(id, 2)
}

func TestManagementCalls(t *testing.T) {
	l := start(t, Options{})
	id := l.guest()
	reply := l.call(id, "rand")
	values, err := agent.DecodeArgs(reply, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := values[0].([]byte); !ok || len(b) != 32 || bytes.Equal(b, make([]byte, 32)) {
		t.Errorf("raw_rand gave %v", values)
	}
	l.counters(id, 1)
	// The callback traps: what it did is undone, and the cleanup runs.
	l.refuse(id, "rand_trap", 5, "IC0502")
	l.counters(id, 3)
	l.refuse(id, "rand_wrong_table", 5, "callback")
	l.counters(id, 4)
	// The reject callback of a call that fails traps.
	l.refuse(id, "call_nothing", 5, "IC0503")
	l.counters(id, 5)
	_, err = l.client.Manage(l.context(), agent.Management, "raw_rand", []byte("DIDL\x00\x00"))
	l.rejected(err, 4, "raw_rand")
}

func TestTimer(t *testing.T) {
	l := start(t, Options{})
	id := l.guest()
	l.call(id, "arm")
	for deadline := time.Now().Add(10 * time.Second); counters(t, l.query(id, "get"))[0] == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the timer did not go off")
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.counters(id, 1)
}

func TestUpgrade(t *testing.T) {
	l := start(t, Options{})
	id := l.guest()
	l.call(id, "inc")
	l.rejected(l.install(id, "install", newGuest(t, 2)), 5, "not empty")
	l.rejected(l.install(id, "upgrade", []byte("no module")), 5, "not valid")
	if err := l.install(id, "upgrade", newGuest(t, 2)); err != nil {
		t.Fatal(err)
	}
	if v := l.query(id, "version"); v[0] != 2 {
		t.Errorf("version %d after the upgrade, want 2", v[0])
	}
	// The global is gone, heap and stable memory come from stable memory.
	if got := counters(t, l.query(id, "get")); got != [3]uint32{1, 1, 0} {
		t.Errorf("counters %v after an upgrade, want 1 1 0", got)
	}
	if err := l.install(id, "reinstall", newGuest(t, 3)); err != nil {
		t.Fatal(err)
	}
	l.counters(id, 0)

	stranger := l.as()
	for _, method := range []string{"install_code", "canister_status", "stop_canister", "update_settings", "delete_canister", "upload_chunk"} {
		_, err := manage(l, stranger, id, method, agent.F("canister_id", id))
		l.rejected(err, 5, "IC0512")
	}
	_, err := manage(l, l.client, id, "update_settings", agent.F("canister_id", id), agent.F("settings",
		agent.Record{agent.F("controllers", agent.Some(agent.Vec{stranger.Identity.Principal()}))}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = manage(l, l.client, id, "stop_canister", agent.F("canister_id", id))
	l.rejected(err, 5, "IC0512")
	if _, err := manage(l, stranger, id, "delete_canister", agent.F("canister_id", id)); err == nil {
		t.Error("a running canister can be deleted")
	}
	if _, err := manage(l, stranger, id, "stop_canister", agent.F("canister_id", id)); err != nil {
		t.Fatal(err)
	}
	l.refuse(id, "inc", 5, "stopped")
	if _, err := manage(l, stranger, id, "delete_canister", agent.F("canister_id", id)); err != nil {
		t.Fatal(err)
	}
	l.refuse(id, "inc", 3, "not found")
}

func TestChunks(t *testing.T) {
	l := start(t, Options{})
	id := l.create()
	wasm := newGuest(t, 7)
	var list agent.Vec
	for rest := wasm; len(rest) > 0; {
		n := min(1000, len(rest))
		out, err := manage(l, l.client, id, "upload_chunk", agent.F("canister_id", id), agent.F("chunk", rest[:n]))
		if err != nil {
			t.Fatal(err)
		}
		list, rest = append(list, out[0]), rest[n:]
	}
	out, err := manage(l, l.client, id, "stored_chunks", agent.F("canister_id", id))
	if err != nil || len(out[0].(agent.Vec)) != len(list) {
		t.Fatalf("stored_chunks: %v, %v", out, err)
	}
	sum := sha256.Sum256(wasm)
	install := func(hash []byte) error {
		_, err := manage(l, l.client, id, "install_chunked_code", agent.F("target_canister", id), agent.F("store_canister", agent.None), agent.F("mode", agent.V("install", nil)),
			agent.F("chunk_hashes_list", list), agent.F("wasm_module_hash", hash), agent.F("arg", []byte{}))
		return err
	}
	l.rejected(install(make([]byte, 32)), 5, "hash to")
	if err := install(sum[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := manage(l, l.client, id, "clear_chunk_store", agent.F("canister_id", id)); err != nil {
		t.Fatal(err)
	}
	l.rejected(install(sum[:]), 5, "not in the store")
	l.counters(id, 0)
	_, err = manage(l, l.client, id, "upload_chunk", agent.F("canister_id", id), agent.F("chunk", make([]byte, maxChunk+1)))
	l.rejected(err, 5, "at most")
}

// A replica that ends and begins anew has the same canisters.
func TestState(t *testing.T) {
	dir := t.TempDir()
	l := start(t, Options{State: dir})
	id, empty := l.guest(), l.create()
	l.call(id, "inc")
	l.call(id, "certify")
	l.stop()
	for range 2 {
		l = start(t, Options{State: dir})
		l.counters(id, 1)
		l.refuse(empty, "inc", 5, "no Wasm module")
		if got := counters(t, l.call(id, "mutate")); got[0] != 2 {
			t.Errorf("after a restart: %v", got)
		}
		l.stop()
	}
	l = start(t, Options{State: dir})
	if other := l.create(); other.Equal(id) || other.Equal(empty) {
		t.Errorf("the new canister has the id of an old one: %v", other)
	}
	l.stop()
}

// What lies in the folder at any moment is a state that was: as if the power
// failed then.
func TestStateAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	l := start(t, Options{State: dir})
	id := l.guest()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 20 {
				if _, err := l.client.Call(l.context(), id, "inc", nil); err != nil {
					t.Error(err)
				}
				if err := l.replica.Save(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	last := uint32(0)
	for range 10 {
		cut := t.TempDir()
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			b, err := os.ReadFile(filepath.Join(dir, n.Name()))
			if errors.Is(err, os.ErrNotExist) { // a file that was being written
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(cut, n.Name()), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		c := start(t, Options{State: cut})
		got := counters(t, c.query(id, "get"))
		if got[0] != got[1] || got[2] != got[0] || got[0] < last || got[0] > 40 {
			t.Errorf("counters %v after %d", got, last)
		}
		last = got[0]
		c.stop()
	}
	wg.Wait()
}

// A folder that is in use, or damaged, is refused, and says why.
func TestStateRefused(t *testing.T) {
	dir := t.TempDir()
	l := start(t, Options{State: dir})
	id := l.guest()
	if r, err := New(l.context(), Options{State: dir}); err == nil {
		t.Errorf("two replicas keep their state in one folder: %v", r.Close())
	}
	l.stop()
	name := filepath.Join(dir, id.String()+".canister")
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string][]byte{
		"empty":     nil,
		"truncated": good[:len(good)-100],
		"longer":    append(bytes.Clone(good), 1),
		"changed":   append(append(bytes.Clone(good[:len(good)-2000]), 0xff), good[len(good)-1999:]...),
		"foreign":   []byte("hello, this is no canister"),
		"header":    append([]byte(canisterMagic), 0xff, 0xff, 0xff, 0xff),
	} {
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := New(l.context(), Options{State: dir}); err == nil {
			t.Errorf("%s: a replica starts: %v", what, r.Close())
		} else if !strings.Contains(err.Error(), ".canister") {
			t.Errorf("%s: %v, want the file's name", what, err)
		}
	}
	if err := os.WriteFile(name, good, 0o600); err != nil {
		t.Fatal(err)
	}
	l = start(t, Options{State: dir})
	l.counters(id, 0)
}

// A long call: the client is told to ask again and does, and queries are
// answered meanwhile.
func TestLongCall(t *testing.T) {
	l := start(t, Options{Limits: Limits{Update: 3_000_000_000, Query: 1_000_000, Install: 10_000_000, Wait: time.Millisecond}})
	id := l.guest()
	ended := make(chan error, 1)
	go func() {
		_, err := l.client.Call(l.context(), id, "busy", nil)
		ended <- err
	}()
	c, reject := l.replica.find(id)
	if reject != nil {
		t.Fatal(reject)
	}
	for deadline := time.Now().Add(10 * time.Second); c.queue.Load() == 0 && time.Now().Before(deadline); { // until it runs
		time.Sleep(time.Millisecond)
	}
	l.counters(id, 0)
	select {
	case err := <-ended:
		t.Errorf("the call ended before a query beside it: %v", err)
	default:
	}
	l.rejected(<-ended, 5, "IC0522")
	l.call(id, "inc")
	l.counters(id, 1)
}

// Answers do not pile up: the oldest are dropped, and their requests done.
func TestAnswersAreDropped(t *testing.T) {
	l := start(t, Options{})
	big := make([]byte, 2<<20)
	var all []*request
	for i := range maxKept/len(big) + 10 {
		q := &request{done: make(chan struct{}), until: time.Now().Add(time.Minute)}
		if _, reject := l.replica.remember(agent.RequestID{byte(i), byte(i >> 8)}, q); reject != nil {
			t.Fatal(reject)
		}
		l.replica.deliver(q, host.Answer{Reply: big})
		all = append(all, q)
	}
	first, last := all[0], all[len(all)-1]
	if !first.dropped || last.dropped || l.replica.kept > maxKept {
		t.Errorf("first dropped: %v, last dropped: %v, %d bytes kept of at most %d", first.dropped, last.dropped, l.replica.kept, maxKept)
	}
	if v, err := first.tree().Value([]byte("status")); string(v) != "done" || err != nil {
		t.Errorf("the status of a dropped answer is %q, %v, want done", v, err)
	}
}

func TestMessagesAtOnce(t *testing.T) {
	l := start(t, Options{})
	id := l.guest()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if _, err := l.client.Call(l.context(), id, "inc", nil); err != nil {
					t.Error(err)
				}
				if _, err := l.client.Query(l.context(), id, "mutate", nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	l.counters(id, 40)
}

// Canisters that are made and installed at the same time are all there after a
// restart: their files and the index are written one after another.
func TestStateAtOnce(t *testing.T) {
	dir := t.TempDir()
	l := start(t, Options{State: dir})
	wasm := newGuest(t, 1)
	var mu sync.Mutex
	var made []agent.Principal
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 3 {
				out, err := manage(l, l.client, agent.Management, "provisional_create_canister_with_cycles")
				if err != nil {
					t.Error(err)
					return
				}
				id := out[0].(agent.Record).Get("canister_id").(agent.Principal)
				if err := l.install(id, "install", wasm); err != nil {
					t.Error(err)
				}
				mu.Lock()
				made = append(made, id)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	l.stop()
	l = start(t, Options{State: dir})
	for _, id := range made {
		l.counters(id, 0)
	}
}

// What could not be written is written later.
func TestStateTriedAgain(t *testing.T) {
	dir := t.TempDir()
	l := start(t, Options{State: dir})
	id := l.guest()
	l.call(id, "inc")
	blocked := filepath.Join(dir, id.String()+".canister.tmp")
	if err := os.MkdirAll(filepath.Join(blocked, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.replica.saveNow(l.replica.canisters[string(id)]); err == nil {
		t.Error("a folder in the way is no error")
	}
	if err := os.RemoveAll(blocked); err != nil {
		t.Fatal(err)
	}
	l.stop()
	l = start(t, Options{State: dir})
	l.counters(id, 1)
}
