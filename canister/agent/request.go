package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// RequestID is the hash that names a request.
type RequestID [32]byte

// Content is what an envelope signs: field names to text, bytes, naturals,
// arrays and maps of them.
type Content map[string]any

// ID hashes the content, independent of its representation.
func (c Content) ID() (RequestID, error) {
	return hashMap(c)
}

func hashMap(m map[string]any) (sum [32]byte, err error) {
	rows := make([][]byte, 0, len(m))
	for k, v := range m {
		name := sha256.Sum256([]byte(k))
		value, err := hashValue(v)
		if err != nil {
			return sum, fmt.Errorf("%w (field %q)", err, k)
		}
		rows = append(rows, append(name[:], value[:]...))
	}
	slices.SortFunc(rows, bytes.Compare)
	return sha256.Sum256(bytes.Join(rows, nil)), nil
}

func hashValue(v any) (sum [32]byte, err error) {
	switch v := v.(type) {
	case string:
		return sha256.Sum256([]byte(v)), nil
	case []byte:
		return sha256.Sum256(v), nil
	case Principal:
		return sha256.Sum256(v), nil
	case uint64:
		return sha256.Sum256(binary.AppendUvarint(nil, v)), nil
	case Path:
		return hashList(v)
	case []Path:
		return hashList(v)
	case [][]byte:
		return hashList(v)
	case []any:
		return hashList(v)
	case map[string]any:
		return hashMap(v)
	case Content:
		return hashMap(v)
	case map[any]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			name, ok := k.(string)
			if !ok {
				return sum, fmt.Errorf("agent: request: a key that is no text")
			}
			m[name] = e
		}
		return hashMap(m)
	}
	return sum, fmt.Errorf("agent: request: a value of type %T cannot be hashed", v)
}

func hashList[T any](list []T) (sum [32]byte, err error) {
	var hashes []byte
	for _, e := range list {
		h, err := hashValue(e)
		if err != nil {
			return sum, err
		}
		hashes = append(hashes, h[:]...)
	}
	return sha256.Sum256(hashes), nil
}

// Text, Bytes and Nat read a field of the content; false when it is absent
// or of another type.
func (c Content) Text(name string) (string, bool) { v, ok := c[name].(string); return v, ok }

// Bytes reads a field of bytes.
func (c Content) Bytes(name string) ([]byte, bool) { v, ok := c[name].([]byte); return v, ok }

// Nat reads a natural number.
func (c Content) Nat(name string) (uint64, bool) { v, ok := c[name].(uint64); return v, ok }

// Delegation lets another key sign for a user.
type Delegation struct {
	PublicKey  []byte   `cbor:"pubkey"`
	Expiration uint64   `cbor:"expiration"` // nanoseconds since 1970
	Targets    [][]byte `cbor:"targets,omitempty"`
}

// SignedDelegation is a Delegation and the signature of the key before it.
type SignedDelegation struct {
	Delegation Delegation `cbor:"delegation"`
	Signature  []byte     `cbor:"signature"`
}

// Envelope is a request with its signature.
type Envelope struct {
	Content         Content            `cbor:"content"`
	SenderPublicKey []byte             `cbor:"sender_pubkey,omitempty"`
	SenderSignature []byte             `cbor:"sender_sig,omitempty"`
	Delegations     []SignedDelegation `cbor:"sender_delegation,omitempty"`
}

// maxDelegations is the specification's limit on a chain.
const maxDelegations = 20

// Authenticate checks that the sender signed the request: with its own key,
// or one it delegated to. now is in nanoseconds since 1970; target is the
// canister asked.
func (e *Envelope) Authenticate(id RequestID, now uint64, target Principal) error {
	sender, ok := e.Content.Bytes("sender")
	if !ok || len(sender) > MaxPrincipal {
		return fmt.Errorf("agent: request has no sender")
	}
	if Anonymous.Equal(sender) {
		if e.SenderPublicKey != nil || e.SenderSignature != nil || e.Delegations != nil {
			return fmt.Errorf("agent: an anonymous request carries a signature")
		}
		return nil
	}
	if len(e.SenderPublicKey) == 0 || len(e.SenderSignature) == 0 {
		return fmt.Errorf("agent: request of %v has no signature", Principal(sender))
	}
	if !SelfAuthenticating(e.SenderPublicKey).Equal(sender) {
		return fmt.Errorf("agent: the public key is not that of sender %v", Principal(sender))
	}
	key := e.SenderPublicKey
	if len(e.Delegations) > maxDelegations {
		return fmt.Errorf("agent: %d delegations, want at most %d", len(e.Delegations), maxDelegations)
	}
	for i, d := range e.Delegations {
		fields := Content{"pubkey": d.Delegation.PublicKey, "expiration": d.Delegation.Expiration}
		if d.Delegation.Targets != nil {
			fields["targets"] = d.Delegation.Targets
		}
		sum, err := hashMap(fields)
		if err != nil {
			return err
		}
		if err := VerifyKey(key, append(separated("ic-request-auth-delegation"), sum[:]...), d.Signature); err != nil {
			return fmt.Errorf("agent: delegation %d: %w", i, err)
		}
		if d.Delegation.Expiration < now {
			return fmt.Errorf("agent: delegation %d has expired", i)
		}
		if d.Delegation.Targets != nil && !slices.ContainsFunc(d.Delegation.Targets, func(t []byte) bool { return target.Equal(t) }) {
			return fmt.Errorf("agent: delegation %d does not reach canister %v", i, target)
		}
		key = d.Delegation.PublicKey
	}
	return VerifyKey(key, append(separated("ic-request"), id[:]...), e.SenderSignature)
}
