package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"
)

func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPrincipalText(t *testing.T) {
	for _, c := range []struct{ hex, text string }{
		{"", "aaaaa-aa"},
		{"04", "2vxsx-fae"},
		{"abcd01", "em77e-bvlzu-aq"},
		{"00000000000000040101", "rkp4c-7iaaa-aaaaa-aaaca-cai"},
	} {
		p := Principal(fromHex(t, c.hex))
		if got := p.String(); got != c.text {
			t.Errorf("text of %s: got %q, want %q", c.hex, got, c.text)
		}
		got, err := ParsePrincipal(c.text)
		if err != nil || !got.Equal(p) {
			t.Errorf("ParsePrincipal(%q) = %x, %v, want %s", c.text, got, err, c.hex)
		}
	}
	for _, bad := range []string{"", "aaaaa", "2vxsx-faf", "2VXSX-FAE", "2vxsxfae", strings.Repeat("a", 100), "ä"} {
		if p, err := ParsePrincipal(bad); err == nil {
			t.Errorf("ParsePrincipal(%q) = %x, want an error", bad, p)
		}
	}
}

// The example of the interface specification.
func TestRequestID(t *testing.T) {
	c := Content{"request_type": "call", "canister_id": []byte{0, 0, 0, 0, 0, 0, 4, 0xd2}, "method_name": "hello", "arg": []byte("DIDL\x00\xfd*")}
	id, err := c.ID()
	if want := "8781291c347db32a9d8c10eb62b710fce5a93be676474c42babc74c51858f94b"; err != nil || hex.EncodeToString(id[:]) != want {
		t.Errorf("got %x, %v, want %s", id, err, want)
	}
	c["x"] = 1.5
	if _, err := c.ID(); err == nil {
		t.Error("a float has a hash")
	}
}

// The example of the interface specification.
func TestHashTree(t *testing.T) {
	leaf := func(s string) *Tree { return Leaf([]byte(s)) }
	tree := fork(
		fork(labeled([]byte("a"), fork(fork(labeled([]byte("x"), leaf("hello")), Empty()), labeled([]byte("y"), leaf("world")))),
			labeled([]byte("b"), leaf("good"))),
		fork(labeled([]byte("c"), Empty()), labeled([]byte("d"), leaf("morning"))))
	const root = "eb5c5b2195e62d996b84c9bcc8259d19a83786a2f59e0878cec84c811f669aa0"
	if h := tree.Hash(); hex.EncodeToString(h[:]) != root {
		t.Errorf("hash %x, want %s", h, root)
	}
	const wire = "8301830183024161830183018302417882034568656c6c6f810083024179820345776f726c6483024162820344676f6f648301830241638100830241648203476d6f726e696e67"
	if b, err := tree.MarshalCBOR(); err != nil || hex.EncodeToString(b) != wire {
		t.Errorf("wire %x, %v, want %s", b, err, wire)
	}
	var back Tree
	if err := back.UnmarshalCBOR(fromHex(t, wire)); err != nil || back.Hash() != tree.Hash() {
		t.Errorf("read back: %v, hash %x", err, back.Hash())
	}

	path := func(labels ...string) Path {
		var p Path
		for _, l := range labels {
			p = append(p, []byte(l))
		}
		return p
	}
	w := tree.Witness([]Path{path("a", "y"), path("bb"), path("d", "q")})
	if w.Hash() != tree.Hash() {
		t.Errorf("the witness hashes to %x", w.Hash())
	}
	for _, c := range []struct {
		path   Path
		want   string
		pruned bool
	}{
		{path("a", "y"), "world", false},
		{path("a", "x"), "", true},
		{path("b"), "", true},   // shown as a label, not what is below
		{path("bb"), "", false}, // proven absent
		{path("d"), "morning", false},
		{path("d", "q"), "", false},
		{path("aa"), "", false}, // between a and b
		{path("A"), "", false},
	} {
		got, err := w.Value(c.path...)
		if string(got) != c.want || errors.Is(err, ErrPruned) != c.pruned {
			t.Errorf("%q: got %q, %v, want %q, pruned %v", c.path, got, err, c.want, c.pruned)
		}
	}
	if _, err := tree.Witness([]Path{path("a", "x")}).Value([]byte("d")); !errors.Is(err, ErrPruned) {
		t.Errorf("a pruned label: %v, want ErrPruned", err)
	}
}

func TestCertificate(t *testing.T) {
	key, err := NewSubnetKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseSubnetKey(key.Bytes())
	if err != nil || !bytes.Equal(again.DER(), key.DER()) {
		t.Fatalf("the key does not survive: %v", err)
	}
	now := time.Unix(1_700_000_000, 0)
	stamp := binary.AppendUvarint(nil, uint64(now.UnixNano()))
	state := Dir(map[string]*Tree{"time": Leaf(stamp), "a": Leaf([]byte("1")), "b": Leaf([]byte("2"))})
	cert, err := Certify(key, state.Witness([]Path{{[]byte("a")}, {[]byte("time")}}))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := OpenCertificate(cert, key.DER(), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := tree.Value([]byte("a")); string(v) != "1" || err != nil {
		t.Errorf("a = %q, %v", v, err)
	}
	if _, err := OpenCertificate(cert, key.DER(), nil, now.Add(time.Hour)); err == nil {
		t.Error("an old certificate is taken")
	}
	other, err := NewSubnetKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCertificate(cert, other.DER(), nil, now); err == nil {
		t.Error("a certificate of another key is taken")
	}
	for _, at := range []int{10, 40, len(cert) - 5} {
		bad := bytes.Clone(cert)
		bad[at] ^= 1
		if _, err := OpenCertificate(bad, key.DER(), nil, now); err == nil {
			t.Errorf("a certificate with byte %d changed is taken", at)
		}
	}
}

// The main network's root key is a point of the group.
func TestMainnetKey(t *testing.T) {
	if err := verifyBLS(MainnetRootKey, []byte("x"), make([]byte, 48)); !errors.Is(err, errSignature) {
		t.Errorf("got %v, want a wrong signature", err)
	}
}
