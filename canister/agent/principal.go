package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// Principal names a canister, a user or a subnet: at most 29 bytes.
type Principal []byte

// MaxPrincipal is the length of the longest principal, in bytes.
const MaxPrincipal = 29

// Anonymous is the caller of requests without a signature, and Management
// the canister that creates and changes canisters.
var (
	Anonymous  = Principal{4}
	Management = Principal{}
)

var principalText = base32.StdEncoding.WithPadding(base32.NoPadding)

// String gives the textual form: a checksum and the bytes in base 32, in
// groups of five characters.
func (p Principal) String() string {
	raw := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(p))
	text := strings.ToLower(principalText.EncodeToString(append(raw, p...)))
	var groups []string
	for len(text) > 5 {
		groups, text = append(groups, text[:5]), text[5:]
	}
	return strings.Join(append(groups, text), "-")
}

// Equal reports whether two principals are the same.
func (p Principal) Equal(q Principal) bool { return bytes.Equal(p, q) }

// ParsePrincipal reads the textual form and checks its checksum.
func ParsePrincipal(text string) (Principal, error) {
	raw, err := principalText.DecodeString(strings.ToUpper(strings.ReplaceAll(text, "-", "")))
	if err != nil || len(raw) < 4 || len(raw) > 4+MaxPrincipal {
		return nil, fmt.Errorf("agent: %q is not a principal", text)
	}
	p := Principal(raw[4:])
	if p.String() != text {
		return nil, fmt.Errorf("agent: principal %q has a wrong checksum or grouping", text)
	}
	return p, nil
}

// SelfAuthenticating gives the principal of a public key in DER.
func SelfAuthenticating(der []byte) Principal {
	sum := sha256.Sum224(der)
	return append(sum[:], 2)
}
