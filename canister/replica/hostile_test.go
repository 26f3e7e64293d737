package replica

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"spinnet/canister/agent"
	"spinnet/canister/host"
)

// post sends a body as it is and gives status and answer.
func (l *local) post(path string, body []byte) (int, string) {
	l.Helper()
	resp, err := http.Post(l.client.URL+path, "application/cbor", bytes.NewReader(body))
	if err != nil {
		l.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		l.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// envelope makes an anonymous call of inc; change spoils it.
func envelope(id agent.Principal, change func(c agent.Content, e map[string]any)) []byte {
	c := agent.Content{"request_type": "call", "canister_id": []byte(id), "method_name": "inc", "arg": []byte{}, "sender": []byte{4},
		"ingress_expiry": uint64(time.Now().Add(2 * time.Minute).UnixNano())}
	e := map[string]any{}
	change(c, e)
	if e["content"] == nil {
		e["content"] = map[string]any(c)
	}
	b, err := cbor.Marshal(e)
	if err != nil {
		panic(err)
	}
	return b
}

func TestHostileRequests(t *testing.T) {
	l := start(t, Options{})
	id := l.guest()
	url := "/api/v3/canister/" + id.String()
	deep := append(bytes.Repeat([]byte{0x81}, 100_000), 0)
	for name, c := range map[string]struct {
		path string
		body []byte
		code int
	}{
		"empty":              {"/call", nil, 400},
		"not CBOR":           {"/call", []byte("hello"), 400},
		"an array":           {"/call", []byte{0x80}, 400},
		"nested deeply":      {"/call", deep, 400},
		"a huge array":       {"/call", []byte{0x9b, 0, 0, 0, 1, 0, 0, 0, 0}, 400},
		"a huge byte string": {"/call", []byte{0xa1, 0x67, 'c', 'o', 'n', 't', 'e', 'n', 't', 0x5b, 0, 0, 1, 0, 0, 0, 0, 0}, 400},
		"too large":          {"/call", make([]byte, maxBody+1), 413},
		"no content":         {"/call", envelope(id, func(_ agent.Content, e map[string]any) { e["content"] = map[string]any{} }), 400},
		"content of text":    {"/call", envelope(id, func(_ agent.Content, e map[string]any) { e["content"] = "x" }), 400},
		"a query at call":    {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["request_type"] = "query" }), 400},
		"no sender":          {"/call", envelope(id, func(c agent.Content, _ map[string]any) { delete(c, "sender") }), 400},
		"sender of text":     {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["sender"] = "me" }), 400},
		"long sender":        {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["sender"] = make([]byte, 100) }), 403},
		"a sender unsigned":  {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["sender"] = []byte{1, 2, 3} }), 403},
		"a signed anonymous": {"/call", envelope(id, func(_ agent.Content, e map[string]any) { e["sender_sig"] = []byte{1} }), 403},
		"no expiry":          {"/call", envelope(id, func(c agent.Content, _ map[string]any) { delete(c, "ingress_expiry") }), 400},
		"expired": {"/call", envelope(id, func(c agent.Content, _ map[string]any) {
			c["ingress_expiry"] = uint64(time.Now().Add(-time.Second).UnixNano())
		}), 400},
		"far in the future": {"/call", envelope(id, func(c agent.Content, _ map[string]any) {
			c["ingress_expiry"] = uint64(time.Now().Add(time.Hour).UnixNano())
		}), 400},
		"expiry of 2⁶⁴−1":          {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["ingress_expiry"] = ^uint64(0) }), 400},
		"long nonce":               {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["nonce"] = make([]byte, 33) }), 400},
		"nonce of text":            {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["nonce"] = "x" }), 400},
		"a float inside":           {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["extra"] = 1.5 }), 400},
		"no method":                {"/call", envelope(id, func(c agent.Content, _ map[string]any) { delete(c, "method_name") }), 400},
		"long method":              {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["method_name"] = strings.Repeat("a", maxMethodName+1) }), 400},
		"a large argument":         {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["arg"] = make([]byte, host.MaxPayload+1) }), 400},
		"another canister":         {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["canister_id"] = []byte(canisterID(99)) }), 400},
		"bad management":           {"/call", envelope(id, func(c agent.Content, _ map[string]any) { c["canister_id"], c["method_name"] = []byte{}, "install_code" }), 400},
		"no such verb":             {"/shout", nil, 404},
		"read_state without paths": {"/read_state", envelope(id, func(c agent.Content, _ map[string]any) { c["request_type"] = "read_state" }), 400},
		"paths of numbers": {"/read_state", envelope(id, func(c agent.Content, _ map[string]any) {
			c["request_type"], c["paths"] = "read_state", []any{[]any{uint64(1)}}
		}), 400},
		"an empty path": {"/read_state", envelope(id, func(c agent.Content, _ map[string]any) { c["request_type"], c["paths"] = "read_state", []any{[]any{}} }), 400},
		"many paths": {"/read_state", envelope(id, func(c agent.Content, _ map[string]any) {
			c["request_type"], c["paths"] = "read_state", slicesRepeat([]any{[]byte("time")}, maxPaths+1)
		}), 400},
		"the root": {"/read_state", envelope(id, func(c agent.Content, _ map[string]any) {
			c["request_type"], c["paths"] = "read_state", []any{[]any{[]byte("canister")}}
		}), 400},
		"another canister's state": {"/read_state", envelope(id, func(c agent.Content, _ map[string]any) {
			c["request_type"], c["paths"] = "read_state", []any{[]any{[]byte("canister"), []byte(canisterID(99)), []byte("module_hash")}}
		}), 400},
		"a short request id": {"/read_state", envelope(id, func(c agent.Content, _ map[string]any) {
			c["request_type"], c["paths"] = "read_state", []any{[]any{[]byte("request_status"), []byte{1}}}
		}), 400},
	} {
		code, text := l.post(url+c.path, c.body)
		if code != c.code {
			t.Errorf("%s: status %d (%.100s), want %d", name, code, text, c.code)
		}
	}
	for _, path := range []string{"/api/v3/canister/x/call", "/api/v3/canister/" + id.String() + "x/call"} {
		if code, _ := l.post(path, nil); code != 400 {
			t.Errorf("%s: status %d, want 400", path, code)
		}
	}
	for _, path := range []string{"/api/v9/canister/" + id.String() + "/call", "/api/v2/subnet/" + id.String() + "/call", "/nothing"} {
		if code, _ := l.post(path, nil); code != 404 {
			t.Errorf("%s: status %d, want 404", path, code)
		}
	}
	l.counters(id, 0)
	l.call(id, "inc")
	l.counters(id, 1)
}

func slicesRepeat(v any, n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = v
	}
	return list
}

// A request that comes twice runs once, and its status is its sender's alone.
func TestReplay(t *testing.T) {
	l := start(t, Options{})
	id := l.guest()
	expiry := uint64(time.Now().Add(2 * time.Minute).UnixNano())
	body := envelope(id, func(c agent.Content, _ map[string]any) { c["ingress_expiry"] = expiry })
	for range 3 {
		if code, text := l.post("/api/v3/canister/"+id.String()+"/call", body); code != 200 {
			t.Fatalf("status %d: %s", code, text)
		}
	}
	l.counters(id, 1)

	c := agent.Content{"request_type": "call", "canister_id": []byte(id), "method_name": "inc", "arg": []byte{}, "sender": []byte{4}, "ingress_expiry": expiry}
	sum, err := c.ID()
	if err != nil {
		t.Fatal(err)
	}
	status := func(sender, key []byte, private ed25519.PrivateKey) int {
		content := agent.Content{"request_type": "read_state", "sender": sender, "ingress_expiry": expiry, "paths": []any{[]any{[]byte("request_status"), sum[:]}}}
		e := map[string]any{"content": map[string]any(content)}
		if key != nil {
			rid, err := content.ID()
			if err != nil {
				t.Fatal(err)
			}
			e["sender_pubkey"], e["sender_sig"] = key, ed25519.Sign(private, append([]byte("\x0aic-request"), rid[:]...))
		}
		b, err := cbor.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		code, _ := l.post("/api/v2/canister/"+id.String()+"/read_state", b)
		return code
	}
	if code := status([]byte{4}, nil, nil); code != 200 {
		t.Errorf("the sender gets status %d, want 200", code)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := agent.Ed25519DER(public)
	if code := status(agent.SelfAuthenticating(der), der, private); code != 403 {
		t.Errorf("a stranger gets status %d, want 403", code)
	}
}

// Modules that ICP would refuse, and files that are none.
func TestHostileModules(t *testing.T) {
	l := start(t, Options{})
	id := l.create()
	good := newGuest(t, 1)
	for name, wasm := range map[string][]byte{
		"nothing":        nil,
		"text":           []byte("hello"),
		"truncated":      good[:len(good)/2],
		"truncated gzip": {0x1f, 0x8b, 8, 0},
		"foreign import": []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02\x07\x01\x01a\x01b\x00\x00"),
	} {
		l.rejected(l.install(id, "install", wasm), 5, "not valid")
		_ = name
	}
	if err := l.install(id, "install", good); err != nil {
		t.Fatal(err)
	}
	// Bytes changed at random: an error, or a module that some change made.
	for i := range 200 {
		bad := bytes.Clone(good)
		bad[8+(i*7919)%(len(bad)-8)] ^= byte(1 + i%255)
		_ = l.install(id, "reinstall", bad)
	}
	if err := l.install(id, "reinstall", good); err != nil {
		t.Fatal(err)
	}
	l.counters(id, 0)
}

// FuzzRequest sends bodies to the handler without a network.
func FuzzRequest(f *testing.F) {
	ctx := context.Background()
	r, err := New(ctx, Options{Limits: Limits{Update: 1e6, Query: 1e6, Install: 1e6, Wait: 50 * time.Millisecond}})
	if err != nil {
		f.Fatal(err)
	}
	c, reject := r.create(nil)
	if reject != nil {
		f.Fatal(reject)
	}
	handler := r.Handler(ctx)
	f.Add(uint8(0), envelope(c.id, func(agent.Content, map[string]any) {}))
	f.Add(uint8(1), envelope(c.id, func(c agent.Content, _ map[string]any) { c["request_type"] = "query" }))
	f.Add(uint8(2), envelope(c.id, func(c agent.Content, _ map[string]any) {
		c["request_type"], c["paths"] = "read_state", []any{[]any{[]byte("time")}}
	}))
	f.Add(uint8(3), envelope(agent.Management, func(c agent.Content, _ map[string]any) {
		c["method_name"], c["arg"] = "canister_status", []byte("DIDL\x01\x6c\x01\xb3\xc4\xb1\xf2\x04\x68\x01\x00\x01\x0a\x00\x00\x00\x00\x00\x00\x00\x10\x01\x01")
	}))
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		verb := []string{"call", "query", "read_state"}[kind%3]
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/v2/canister/"+c.id.String()+"/"+verb, bytes.NewReader(body)))
		if w.Code >= 500 {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}
