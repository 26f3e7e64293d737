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
	"errors"
	"fmt"
	"math/big"

	secp "github.com/consensys/gnark-crypto/ecc/secp256k1"
	secpecdsa "github.com/consensys/gnark-crypto/ecc/secp256k1/ecdsa"
	"github.com/consensys/gnark-crypto/ecc/secp256k1/fr"
)

// Identity signs requests. The zero value is anonymous.
type Identity struct {
	sign func(message []byte) ([]byte, error)
	der  []byte // the public key
}

// ParseIdentity reads a private key in PEM: Ed25519, or ECDSA on P-256 or on
// secp256k1, which icp's identities have; in PKCS #8, ECDSA also in SEC 1.
func ParseIdentity(text []byte) (*Identity, error) {
	for {
		block, rest := pem.Decode(text)
		switch {
		case block == nil:
			return nil, fmt.Errorf("agent: identity: no PEM with a private key")
		case block.Type == "EC PARAMETERS": // openssl writes them before the key
			text = rest
			continue
		}
		id, err := identityOf(block)
		if err != nil {
			return nil, fmt.Errorf("agent: identity: %w; want an Ed25519, P-256 or secp256k1 key in PKCS #8", err)
		}
		return id, nil
	}
}

func identityOf(block *pem.Block) (*Identity, error) {
	if scalar, ok := secp256k1Key(block.Bytes); ok {
		return secp256k1Identity(scalar)
	}
	if block.Type == "EC PRIVATE KEY" {
		key, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		return p256Identity(key)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case ed25519.PrivateKey:
		sign := func(message []byte) ([]byte, error) { return ed25519.Sign(key, message), nil }
		return &Identity{sign, Ed25519DER(key.Public().(ed25519.PublicKey))}, nil
	case *ecdsa.PrivateKey:
		return p256Identity(key)
	}
	return nil, fmt.Errorf("a key of type %T", key)
}

func p256Identity(key *ecdsa.PrivateKey) (*Identity, error) {
	if key.Curve != elliptic.P256() {
		return nil, errors.New("an ECDSA key on another curve")
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return &Identity{func(message []byte) ([]byte, error) {
		sum := sha256.Sum256(message)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			return nil, fmt.Errorf("agent: identity: %w", err)
		}
		sig := make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
		return sig, nil
	}, der}, nil
}

// Object identifiers of RFC 5480 and SEC 2.
var (
	oidECKey     = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidSecp256k1 = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
)

// sec1Key is ECPrivateKey of RFC 5915.
type sec1Key struct {
	Version int
	Scalar  []byte
	Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
	Public  asn1.BitString        `asn1:"optional,explicit,tag:1"`
}

// secp256k1Key gives the scalar of a private key on secp256k1, which package
// x509 does not know: ECPrivateKey, in PKCS #8 or alone. ok is false for keys of
// other kinds, and for what is no key.
func secp256k1Key(der []byte) (scalar []byte, ok bool) {
	var outer struct {
		Version   int
		Algorithm struct{ Kind, Curve asn1.ObjectIdentifier }
		Key       []byte
	}
	curve := asn1.ObjectIdentifier{}
	if rest, err := asn1.Unmarshal(der, &outer); err == nil && len(rest) == 0 && outer.Algorithm.Kind.Equal(oidECKey) {
		der, curve = outer.Key, outer.Algorithm.Curve
	}
	var key sec1Key
	if rest, err := asn1.Unmarshal(der, &key); err != nil || len(rest) > 0 || key.Version != 1 {
		return nil, false
	}
	if key.Curve != nil {
		curve = key.Curve
	}
	return key.Scalar, curve.Equal(oidSecp256k1)
}

func secp256k1Identity(scalar []byte) (*Identity, error) {
	n := new(big.Int).SetBytes(scalar)
	if len(scalar) > 32 || n.Sign() == 0 || n.Cmp(fr.Modulus()) >= 0 {
		return nil, errors.New("a secp256k1 key that is not below the curve's order")
	}
	var public secp.G1Affine
	public.ScalarMultiplicationBase(n)
	raw := public.RawBytes()
	var key secpecdsa.PrivateKey
	if _, err := key.SetBytes(append(raw[:], n.FillBytes(make([]byte, 32))...)); err != nil {
		return nil, err
	}
	return &Identity{func(message []byte) ([]byte, error) {
		sig, err := key.Sign(message, sha256.New())
		if err != nil {
			return nil, fmt.Errorf("agent: identity: %w", err)
		}
		return sig, nil
	}, append(append(bytes.Clone(derSecp256k1), 4), raw[:]...)}, nil
}

// Principal is who the identity is.
func (id *Identity) Principal() Principal {
	if id.sign == nil {
		return Anonymous
	}
	return SelfAuthenticating(id.der)
}

// seal wraps content in an envelope that the identity signs.
func (id *Identity) seal(c Content) (Envelope, RequestID, error) {
	c["sender"] = []byte(id.Principal())
	sum, err := c.ID()
	if err != nil {
		return Envelope{}, sum, err
	}
	env := Envelope{Content: c}
	if id.sign != nil {
		env.SenderPublicKey = id.der
		env.SenderSignature, err = id.sign(append(separated("ic-request"), sum[:]...))
	}
	return env, sum, err
}
