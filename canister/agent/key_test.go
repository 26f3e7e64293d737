package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
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
	// Keys that icp identity export and openssl ecparam -genkey have made, with
	// the principals that icp gives them.
	parameters := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: unhex("06052b8104000a")})
	for name, key := range map[string]struct {
		before         []byte
		kind           string
		der, principal string
	}{
		"icp": {nil, "PRIVATE KEY", "308184020100301006072a8648ce3d020106052b8104000a046d306b0201010420259cc83454ac0e03abda1048c4d7d1ad62c8d807b374d02c5ebe5997ece32c6fa14403420004b657ee5df87fbb14f0017f036f5063f51816a247806311e540ddccc9c54131a8a876c270cc1550971cd9281a34fe3607a2ace84764a0f02dd132cd49c82a5687",
			"22lwf-645oz-katcg-rzrpq-wzdzz-lngoa-naymk-ifsep-a4e3w-3teqp-cae"},
		"openssl": {parameters, "EC PRIVATE KEY", "3074020101042048e999e6c3e32716be212afe470f58762816517b37c8c2ae5555f8b216181cd6a00706052b8104000aa144034200043f27b666cda42039fec82dca7522e16a282bbefec64b8b3813c9312d693717b14de32a27a7c84143ca5c202e2b31611ea58ca79312871aabeb3a1705e07ce6c5",
			"oqm4x-pjvst-kl2rd-bcgjs-kkp7q-lanyi-d6dap-nloce-walej-34pai-5qe"},
	} {
		id, err := ParseIdentity(append(key.before, pem.EncodeToMemory(&pem.Block{Type: key.kind, Bytes: unhex(key.der)})...))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := id.Principal().String(); got != key.principal {
			t.Errorf("%s: principal %s, want %s", name, got, key.principal)
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
	secp256k1 := func(scalar []byte) []byte {
		der, err := asn1.Marshal(sec1Key{Version: 1, Scalar: scalar, Curve: oidSecp256k1})
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	}
	if _, err := ParseIdentity(secp256k1([]byte{1})); err != nil {
		t.Errorf("a short scalar: %v", err)
	}
	for _, bad := range [][]byte{secp256k1(nil), secp256k1(make([]byte, 32)), secp256k1(bytes.Repeat([]byte{0xff}, 32)), secp256k1(append(make([]byte, 32), 1)),
		nil, []byte("x"), pem.EncodeToMemory(&pem.Block{Bytes: []byte("x")}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), parameters} {
		if _, err := ParseIdentity(bad); err == nil {
			t.Errorf("ParseIdentity(%q) is an identity", bad)
		}
	}
	if _, err := ParseSubnetKey(new(big.Int).Lsh(big.NewInt(1), 255).Bytes()); err == nil {
		t.Error("a number above the group's order is a subnet key")
	}
}
