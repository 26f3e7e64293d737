package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"

	bls "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	secp "github.com/consensys/gnark-crypto/ecc/secp256k1"
	secpecdsa "github.com/consensys/gnark-crypto/ecc/secp256k1/ecdsa"
)

// DER prefixes of public keys: a SubjectPublicKeyInfo up to the key itself.
// The algorithms and their curves are constant, so the prefixes are, and an
// encoding with anything else in it is not one of these keys.
var (
	derEd25519   = unhex("302a300506032b6570032100")
	derSecp256k1 = unhex("3056301006072a8648ce3d020106052b8104000a034200")
	derP256      = unhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
	derBLS       = unhex("308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100")
)

func unhex(s string) []byte { return must(hex.DecodeString(s)) }

var errSignature = errors.New("agent: the signature is wrong")

// VerifyKey checks a user's signature: Ed25519, or ECDSA with SHA-256 on
// P-256 or secp256k1 (64 bytes, r then s).
func VerifyKey(der, message, signature []byte) error {
	if key, ok := bytes.CutPrefix(der, derEd25519); ok && len(key) == ed25519.PublicKeySize {
		if len(signature) != ed25519.SignatureSize || !ed25519.Verify(key, message, signature) {
			return errSignature
		}
		return nil
	}
	if key, ok := bytes.CutPrefix(der, derP256); ok && len(key) == 65 {
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), key)
		if err != nil {
			return fmt.Errorf("agent: P-256 key: %w", err)
		}
		sum := sha256.Sum256(message)
		if len(signature) != 64 || !ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
			return errSignature
		}
		return nil
	}
	if key, ok := bytes.CutPrefix(der, derSecp256k1); ok && len(key) == 65 && key[0] == 4 {
		var public secpecdsa.PublicKey
		var point secp.G1Affine
		point.X.SetBytes(key[1:33])
		point.Y.SetBytes(key[33:])
		if point.IsInfinity() || !point.IsOnCurve() {
			return fmt.Errorf("agent: secp256k1 key: the point is not on the curve")
		}
		public.A = point
		if len(signature) != 64 {
			return errSignature
		}
		if ok, err := public.Verify(signature, message, sha256.New()); err != nil || !ok {
			return errSignature
		}
		return nil
	}
	return fmt.Errorf("agent: a public key of %d bytes is neither Ed25519 nor ECDSA on P-256 or secp256k1; other schemes are not supported", len(der))
}

// The signature scheme of certificates: BLS12-381, signatures in G1.
var blsDomain = []byte("BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_")

// SubnetKey signs certificates.
type SubnetKey struct {
	scalar fr.Element
	der    []byte
}

// NewSubnetKey makes a key at random.
func NewSubnetKey() (*SubnetKey, error) {
	var seed [48]byte // 128 bits more than the order has, so that the bias is nothing
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, err
	}
	var scalar fr.Element
	scalar.SetBytes(seed[:])
	return subnetKey(scalar)
}

// ParseSubnetKey reads what Bytes gave.
func ParseSubnetKey(b []byte) (*SubnetKey, error) {
	var scalar fr.Element
	if err := scalar.SetBytesCanonical(b); err != nil {
		return nil, fmt.Errorf("agent: subnet key: %w", err)
	}
	return subnetKey(scalar)
}

func subnetKey(scalar fr.Element) (*SubnetKey, error) {
	if scalar.IsZero() {
		return nil, fmt.Errorf("agent: subnet key: zero")
	}
	_, _, _, g2 := bls.Generators()
	var public bls.G2Affine
	public.ScalarMultiplication(&g2, scalar.BigInt(new(big.Int)))
	raw := public.Bytes()
	return &SubnetKey{scalar, append(bytes.Clone(derBLS), raw[:]...)}, nil
}

// Bytes is the secret key, 32 bytes.
func (k *SubnetKey) Bytes() []byte { b := k.scalar.Bytes(); return b[:] }

// DER is the public key.
func (k *SubnetKey) DER() []byte { return k.der }

// Sign signs a message.
func (k *SubnetKey) Sign(message []byte) ([]byte, error) {
	point, err := bls.HashToG1(message, blsDomain)
	if err != nil {
		return nil, err
	}
	point.ScalarMultiplication(&point, k.scalar.BigInt(new(big.Int)))
	sig := point.Bytes()
	return sig[:], nil
}

// verifyBLS checks a subnet's signature.
func verifyBLS(der, message, signature []byte) error {
	raw, ok := bytes.CutPrefix(der, derBLS)
	if !ok || len(raw) != bls.SizeOfG2AffineCompressed {
		return fmt.Errorf("agent: a subnet's key of %d bytes is no BLS12-381 key", len(der))
	}
	var public bls.G2Affine
	if _, err := public.SetBytes(raw); err != nil {
		return fmt.Errorf("agent: subnet's key: %w", err)
	}
	var sig bls.G1Affine
	if len(signature) != bls.SizeOfG1AffineCompressed {
		return errSignature
	}
	if _, err := sig.SetBytes(signature); err != nil {
		return errSignature
	}
	point, err := bls.HashToG1(message, blsDomain)
	if err != nil {
		return err
	}
	_, _, _, g2 := bls.Generators()
	var minus bls.G2Affine
	minus.Neg(&g2)
	// e(H(m), pk) = e(sig, g2)
	good, err := bls.PairingCheck([]bls.G1Affine{point, sig}, []bls.G2Affine{public, minus})
	if err != nil || !good || public.IsInfinity() {
		return errSignature
	}
	return nil
}

// Ed25519DER is the public key in DER.
func Ed25519DER(key ed25519.PublicKey) []byte { return append(bytes.Clone(derEd25519), key...) }

// QueryMessage is what a node signs of an answer to a query, by its hash.
func QueryMessage(hash [32]byte) []byte { return append(separated("ic-response"), hash[:]...) }
