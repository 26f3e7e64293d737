package main

import (
	"bytes"
	stdsha256 "crypto/sha256"
	"math/rand/v2"
	"strings"
	"testing"

	"spinnet/canister/candid"
	"spinnet/canister/ic0"
	"spinnet/engine"
	"spinnet/spinfile"
)

func TestSHA256(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 300 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		h := newSHA256()
		for rest := b; len(rest) > 0; {
			k := min(len(rest), rng.IntN(100))
			h.write(rest[:k])
			h.sum() // changes nothing
			rest = rest[k:]
		}
		if got, want := h.sum(), stdsha256.Sum256(b); got != want {
			t.Fatalf("%d bytes: got %x, want %x", n, got, want)
		}
	}
}

// imageOf is the image of a model.
func imageOf(t testing.TB, m *spinfile.Model) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := engine.WriteImage(&b, m, engine.Options{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// variant gives the text of err, or "" for ok.
func variant(t testing.TB, name string, args ...candid.Value) string {
	t.Helper()
	tag, a, err := call(t, name, args...).Variant()
	if err != nil {
		t.Fatal(err)
	}
	if tag == candid.Hash("ok") {
		return ""
	}
	s, err := a.Text()
	if err != nil || s == "" {
		t.Fatal(s, err)
	}
	return s
}

func uploadBegin(t testing.TB, size int, sum []byte) string {
	t.Helper()
	return variant(t, "upload_begin", candid.RecordValue(candid.Field{Name: "size", Value: candid.Nat64Value(uint64(size))}, candid.Field{Name: "sha256", Value: candid.BlobValue(sum)}))
}

func uploadChunk(t testing.TB, offset int, data []byte) string {
	t.Helper()
	return variant(t, "upload_chunk", candid.RecordValue(candid.Field{Name: "offset", Value: candid.Nat64Value(uint64(offset))}, candid.Field{Name: "data", Value: candid.BlobValue(data)}))
}

// upload uploads all of b in chunks.
func upload(t testing.TB, b []byte, chunk int) {
	t.Helper()
	sum := stdsha256.Sum256(b)
	if err := uploadBegin(t, len(b), sum[:]); err != "" {
		t.Fatal(err)
	}
	for at := 0; at < len(b); at += chunk {
		if err := uploadChunk(t, at, b[at:min(len(b), at+chunk)]); err != "" {
			t.Fatal(err)
		}
	}
}

// controller makes the caller a controller.
func controller() { ic0.System.Controllers = [][]byte{ic0.System.Caller} }

// otherModel is a model that is not testModel.
func otherModel(t testing.TB) *spinfile.Model {
	m := testModel(t)
	m.Meta = map[string]string{"note": "another"}
	for i, v := range m.Tensors[0].Int8 {
		m.Tensors[0].Int8[i] = -v
	}
	return m
}

func TestUpload(t *testing.T) {
	m, other := testModel(t), otherModel(t)
	install(t, m)
	controller()
	o := engine.GenerateOptions{MaxTokens: 20}
	before, after := native(t, m, "Once", o), native(t, other, "Once", o)
	if before == after {
		t.Fatal("the two models write the same")
	}
	write := func() string { return callText(t, "generate_full", candid.TextValue("Once"), nat32(20)) }
	b := imageOf(t, other)
	upload(t, b, 1000)
	if got := write(); got != before {
		t.Errorf("before the commit: got %q, want %q", got, before)
	}
	if err := variant(t, "upload_commit"); err != "" {
		t.Fatal(err)
	}
	if n := sessionsOf(t); n != 0 {
		t.Errorf("%d sessions of the other model are left", n)
	}
	if got := write(); got != after {
		t.Errorf("after the commit: got %q, want %q", got, after)
	}
	// It survives an upgrade, with the session.
	upgrade(t)
	if got := callText(t, "get_result"); got != "Once"+after {
		t.Errorf("after an upgrade: got %q", got)
	}
	if got := write(); got != after {
		t.Errorf("after an upgrade: got %q, want %q", got, after)
	}
	if reply, _ := send(t, "health", candid.Encode()); !bytes.Contains(reply, []byte("upload")) {
		t.Errorf("health: %q", reply)
	}
	// Committed again it is the same model: the session stays.
	upload(t, b, 1<<20)
	if err := variant(t, "upload_commit"); err != "" {
		t.Fatal(err)
	}
	if n := sessionsOf(t); n != 1 {
		t.Errorf("%d sessions after the same model again, want 1", n)
	}
	controller()
	if err := variant(t, "remove_model"); err != "" {
		t.Fatal(err)
	}
	if got := write(); got != before {
		t.Errorf("after remove_model: got %q, want %q", got, before)
	}
	upgrade(t)
	if got := write(); got != before {
		t.Errorf("after remove_model and an upgrade: got %q, want %q", got, before)
	}
	if err := variant(t, "remove_model"); !strings.Contains(err, "no uploaded model") {
		t.Errorf("remove_model again: %q", err)
	}
}

// TestUploadInPieces: an upgrade in the middle of an upload, and chunks that
// come twice.
func TestUploadInPieces(t *testing.T) {
	install(t, nil)
	controller()
	m := testModel(t)
	b := imageOf(t, m)
	sum := stdsha256.Sum256(b)
	if err := uploadBegin(t, len(b), sum[:]); err != "" {
		t.Fatal(err)
	}
	half := len(b)/2 + 7
	if err := uploadChunk(t, 0, b[:half]); err != "" {
		t.Fatal(err)
	}
	upgrade(t)
	if err := variant(t, "upload_commit"); !strings.Contains(err, "have come") {
		t.Errorf("commit in the middle: %q", err)
	}
	for _, c := range [][2]int{{0, 100}, {half - 100, half}, {half - 100, half + 100}, {half - 200, half + 50}} {
		if err := uploadChunk(t, c[0], b[c[0]:c[1]]); err != "" {
			t.Errorf("chunk %v again: %s", c, err)
		}
	}
	if err := uploadChunk(t, half+101, b[:1]); !strings.Contains(err, "want "+itoa(half+100)) {
		t.Errorf("a gap: %q", err)
	}
	if err := uploadChunk(t, half, make([]byte, len(b))); !strings.Contains(err, "of a model of") {
		t.Errorf("beyond the end: %q", err)
	}
	if err := uploadChunk(t, half+100, b[half+100:]); err != "" {
		t.Error(err)
	}
	if err := variant(t, "upload_commit"); err != "" {
		t.Error(err)
	}
	if got, want := callText(t, "generate_full", candid.TextValue("Once"), nat32(20)), native(t, m, "Once", engine.GenerateOptions{MaxTokens: 20}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUploadBad(t *testing.T) {
	m := testModel(t)
	install(t, m)
	controller()
	want := native(t, m, "Once", engine.GenerateOptions{MaxTokens: 20})
	good := imageOf(t, otherModel(t))
	sum := stdsha256.Sum256(good)
	if err := uploadChunk(t, 0, good); !strings.Contains(err, "upload_begin comes first") {
		t.Errorf("chunk first: %q", err)
	}
	if err := variant(t, "upload_commit"); !strings.Contains(err, "upload_begin comes first") {
		t.Errorf("commit first: %q", err)
	}
	if err := variant(t, "upload_abort"); !strings.Contains(err, "no upload") {
		t.Errorf("abort first: %q", err)
	}
	for _, c := range []struct {
		size int
		sum  []byte
		want string
	}{{0, sum[:], "want 1 to"}, {maxModel + 1, sum[:], "want 1 to"}, {len(good), sum[:31], "want 32"}, {len(good), nil, "want 32"}} {
		if err := uploadBegin(t, c.size, c.sum); !strings.Contains(err, c.want) {
			t.Errorf("begin %d, %d bytes: %q", c.size, len(c.sum), err)
		}
	}
	ic0.System.MaxStable = 2
	if err := uploadBegin(t, 10<<20, sum[:]); !strings.Contains(err, "no stable memory") {
		t.Errorf("no stable memory: %q", err)
	}
	ic0.System.MaxStable = 0
	for name, b := range map[string][]byte{
		"foreign":           []byte("this is not a model, though it is long enough to be one"),
		"truncated":         good[:len(good)-100],
		"a byte":            {0},
		"another version":   append([]byte("SPNI\x09"), good[5:]...),
		"a .spinnet's head": []byte("SPIN\x05\x00and so on and so on and so on and so on"),
	} {
		upload(t, b, 1<<20)
		if err := variant(t, "upload_commit"); err == "" {
			t.Errorf("%s: no error", name)
		}
	}
	upload(t, append([]byte("SPIN\x05\x00"), make([]byte, 4<<20)...), 1<<20)
	if err := variant(t, "upload_commit"); !strings.Contains(err, "upload an image") {
		t.Errorf("a large file that is no image: %q", err)
	}
	upload(t, good, 500)
	h := readHeader()
	h.want[0]++
	h.write()
	if err := variant(t, "upload_commit"); !strings.Contains(err, "SHA-256") {
		t.Errorf("another hash: %q", err)
	}
	if err := variant(t, "upload_abort"); err != "" {
		t.Error(err)
	}
	if got := callText(t, "generate_full", candid.TextValue("Once"), nat32(20)); got != want {
		t.Errorf("after all that: got %q, want %q", got, want)
	}
	ic0.System.Controllers = nil
	for name, m := range methods {
		if _, rejected := send(t, name, candid.Encode()); m.controllers != strings.Contains(rejected, "for the canister's controllers only") {
			t.Errorf("%s by another: rejected with %q", name, rejected)
		}
	}
}
