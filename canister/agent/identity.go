package agent

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// Identity signs requests. The zero value is anonymous.
type Identity struct {
	key crypto.Signer
	der []byte
}

// ParseIdentity reads a private key, Ed25519 or P-256, in PEM (PKCS #8).
func ParseIdentity(text []byte) (*Identity, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("agent: no PEM in the identity")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("agent: identity: %w; want an Ed25519 or P-256 key in PKCS #8", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("agent: identity: a key of type %T", key)
	}
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("agent: identity: %w", err)
	}
	id := &Identity{signer, der}
	if _, err := id.sign([]byte("probe")); err != nil {
		return nil, err
	}
	return id, nil
}

// Principal is who the identity is.
func (id *Identity) Principal() Principal {
	if id.key == nil {
		return Anonymous
	}
	return SelfAuthenticating(id.der)
}

func (id *Identity) sign(message []byte) ([]byte, error) {
	switch key := id.key.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(key, message), nil
	case *ecdsa.PrivateKey:
		if key.Curve != elliptic.P256() {
			return nil, fmt.Errorf("agent: identity: an ECDSA key that is not on P-256")
		}
		sum := sha256.Sum256(message)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			return nil, fmt.Errorf("agent: identity: %w", err)
		}
		sig := make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
		return sig, nil
	}
	return nil, fmt.Errorf("agent: identity: keys of type %T cannot sign here", id.key)
}

// seal wraps content in an envelope that the identity signs.
func (id *Identity) seal(c Content) (Envelope, RequestID, error) {
	c["sender"] = []byte(id.Principal())
	sum, err := c.ID()
	if err != nil {
		return Envelope{}, sum, err
	}
	env := Envelope{Content: c}
	if id.key != nil {
		env.SenderPublicKey = id.der
		env.SenderSignature, err = id.sign(append(separated("ic-request"), sum[:]...))
	}
	return env, sum, err
}
