package agent

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"

	secp "github.com/consensys/gnark-crypto/ecc/secp256k1/ecdsa"
)

// signer makes envelopes with a key of one kind.
type signer struct {
	der  []byte
	sign func(message []byte) []byte
}

func signers(t *testing.T) map[string]signer {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256der, err := x509.MarshalPKIXPublicKey(&p256.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	k1, err := secp.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x, y := k1.PublicKey.A.X.Bytes(), k1.PublicKey.A.Y.Bytes()
	k1der := append(append(append(derSecp256k1[:len(derSecp256k1):len(derSecp256k1)], 4), x[:]...), y[:]...)
	return map[string]signer{
		"Ed25519": {Ed25519DER(public), func(m []byte) []byte { return ed25519.Sign(private, m) }},
		"P-256": {p256der, func(m []byte) []byte {
			sum := sha256.Sum256(m)
			r, s, err := ecdsa.Sign(rand.Reader, p256, sum[:])
			if err != nil {
				t.Fatal(err)
			}
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}},
		"secp256k1": {k1der, func(m []byte) []byte {
			sig, err := k1.Sign(m, sha256.New())
			if err != nil {
				t.Fatal(err)
			}
			return sig
		}},
	}
}

func TestAuthenticate(t *testing.T) {
	const now = 1000
	target := Principal{1}
	for name, s := range signers(t) {
		content := func() Content { return Content{"sender": []byte(SelfAuthenticating(s.der)), "method_name": "m"} }
		seal := func(c Content, key []byte, sign func([]byte) []byte, d ...SignedDelegation) (Envelope, RequestID) {
			id, err := c.ID()
			if err != nil {
				t.Fatal(err)
			}
			return Envelope{c, key, sign(append(separated("ic-request"), id[:]...)), d}, id
		}
		good, id := seal(content(), s.der, s.sign)
		if err := good.Authenticate(id, now, target); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for what, change := range map[string]func(e *Envelope){
			"other request": func(e *Envelope) { id[0] ^= 1 },
			"no signature":  func(e *Envelope) { e.SenderSignature = nil },
			"short":         func(e *Envelope) { e.SenderSignature = e.SenderSignature[:63] },
			"changed":       func(e *Envelope) { e.SenderSignature[5] ^= 1 },
			"other sender":  func(e *Envelope) { e.Content["sender"] = []byte{1, 2} },
			"anonymous":     func(e *Envelope) { e.Content["sender"] = []byte{4} },
			"no sender":     func(e *Envelope) { delete(e.Content, "sender") },
			"truncated key": func(e *Envelope) { e.SenderPublicKey = s.der[:20] },
			"key of garbage": func(e *Envelope) {
				e.SenderPublicKey = append(s.der[:len(s.der)-32:len(s.der)-32], make([]byte, 32)...)
			},
		} {
			e, eid := seal(content(), s.der, s.sign)
			id = eid
			change(&e)
			if err := e.Authenticate(id, now, target); err == nil {
				t.Errorf("%s, %s: taken", name, what)
			}
		}

		// A session key that the user's key vouches for.
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		session := func(m []byte) []byte { return ed25519.Sign(private, m) }
		delegate := func(expires uint64, targets [][]byte) SignedDelegation {
			d := Delegation{Ed25519DER(public), expires, targets}
			fields := Content{"pubkey": d.PublicKey, "expiration": expires}
			if targets != nil {
				fields["targets"] = targets
			}
			sum, err := fields.ID()
			if err != nil {
				t.Fatal(err)
			}
			return SignedDelegation{d, s.sign(append(separated("ic-request-auth-delegation"), sum[:]...))}
		}
		for _, c := range []struct {
			what string
			d    []SignedDelegation
			ok   bool
		}{
			{"delegated", []SignedDelegation{delegate(now+1, nil)}, true},
			{"delegated for this canister", []SignedDelegation{delegate(now+1, [][]byte{{9}, target})}, true},
			{"expired", []SignedDelegation{delegate(now-1, nil)}, false},
			{"for another canister", []SignedDelegation{delegate(now+1, [][]byte{{9}})}, false},
			{"twice", []SignedDelegation{delegate(now+1, nil), delegate(now+1, nil)}, false},
			{"none", nil, false},
		} {
			e, id := seal(content(), s.der, session, c.d...)
			if err := e.Authenticate(id, now, target); (err == nil) != c.ok {
				t.Errorf("%s, %s: %v", name, c.what, err)
			}
		}
	}
}

func TestIdentity(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]any{"P-256": p256, "Ed25519": ed} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		id, err := ParseIdentity(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		env, sum, err := id.seal(Content{"x": "y"})
		if err != nil {
			t.Fatal(err)
		}
		if err := env.Authenticate(sum, 0, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, []byte("x"), pem.EncodeToMemory(&pem.Block{Bytes: []byte("x")}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})} {
		if _, err := ParseIdentity(bad); err == nil {
			t.Errorf("ParseIdentity(%q) is an identity", bad)
		}
	}
	if _, err := ParseSubnetKey(new(big.Int).Lsh(big.NewInt(1), 255).Bytes()); err == nil {
		t.Error("a number above the group's order is a subnet key")
	}
}
