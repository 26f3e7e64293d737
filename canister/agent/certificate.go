package agent

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Certificate is a part of a subnet's state and the subnet's signature of
// its root hash.
type Certificate struct {
	Tree       *Tree       `cbor:"tree"`
	Signature  []byte      `cbor:"signature"`
	Delegation *delegation `cbor:"delegation,omitempty"`
}

// delegation is the root subnet's word for another subnet's key.
type delegation struct {
	Subnet      []byte `cbor:"subnet_id"`
	Certificate []byte `cbor:"certificate"`
}

// Certify signs shown, a state tree of which parts may be pruned, and gives the
// certificate in CBOR. The signature is of the root's hash, which pruning does not
// change.
func Certify(key *SubnetKey, shown *Tree) ([]byte, error) {
	hash := shown.Hash()
	sig, err := key.Sign(append(separated("ic-state-root"), hash[:]...))
	if err != nil {
		return nil, fmt.Errorf("agent: certificate: %w", err)
	}
	return Encode(Certificate{Tree: shown, Signature: sig})
}

// maxAge is how old a certificate may be, and how far in the future: agents
// and replicas agree on five minutes.
const maxAge = 5 * time.Minute

// OpenCertificate decodes a certificate and checks it: signed by the root
// key, or by a subnet that the root key vouches for and whose range holds the
// canister (nil for none), and not older than five minutes at now.
func OpenCertificate(data, rootKey []byte, canister Principal, now time.Time) (*Tree, error) {
	tree, err := openCertificate(data, rootKey, canister, true)
	if err != nil {
		return nil, err
	}
	at, err := certifiedTime(tree)
	if err != nil {
		return nil, err
	}
	if d := now.Sub(at).Abs(); d > maxAge {
		return nil, fmt.Errorf("agent: certificate of %s is %s away from this machine's clock", at.UTC().Format(time.RFC3339), d.Round(time.Second))
	}
	return tree, nil
}

func certifiedTime(tree *Tree) (time.Time, error) {
	raw, err := tree.Value([]byte("time"))
	if err != nil {
		return time.Time{}, err
	}
	nanos, n := binary.Uvarint(raw)
	if n <= 0 || nanos > 1<<62 {
		return time.Time{}, fmt.Errorf("agent: certificate without a time")
	}
	return time.Unix(0, int64(nanos)), nil
}

func openCertificate(data, rootKey []byte, canister Principal, mayDelegate bool) (*Tree, error) {
	var c Certificate
	if err := Decode(data, &c); err != nil {
		return nil, err
	}
	if c.Tree == nil {
		return nil, fmt.Errorf("agent: certificate without a tree")
	}
	key := rootKey
	if d := c.Delegation; d != nil {
		if !mayDelegate {
			return nil, fmt.Errorf("agent: certificate: a delegation in a delegation")
		}
		root, err := openCertificate(d.Certificate, rootKey, nil, false)
		if err != nil {
			return nil, fmt.Errorf("%w (delegation)", err)
		}
		if key, err = root.Value([]byte("subnet"), d.Subnet, []byte("public_key")); err != nil || key == nil {
			return nil, fmt.Errorf("agent: certificate: the delegation has no key of subnet %v", Principal(d.Subnet))
		}
		if canister != nil && !inRanges(root, d.Subnet, canister) {
			return nil, fmt.Errorf("agent: certificate: canister %v is not one of subnet %v", canister, Principal(d.Subnet))
		}
	}
	hash := c.Tree.Hash()
	if err := verifyBLS(key, append(separated("ic-state-root"), hash[:]...), c.Signature); err != nil {
		return nil, fmt.Errorf("%w (certificate)", err)
	}
	return c.Tree, nil
}

// inRanges reports whether a delegation lists the canister for a subnet: in
// the list below the subnet, or in the newer, divided one.
func inRanges(root *Tree, subnet, canister Principal) bool {
	lists := [][]byte{}
	if list, err := root.Value([]byte("subnet"), subnet, []byte("canister_ranges")); err == nil && list != nil {
		lists = append(lists, list)
	}
	if shards, err := root.At([]byte("canister_ranges"), subnet); err == nil && shards != nil {
		for _, label := range shards.Children() {
			if list, err := shards.Value(label); err == nil && list != nil {
				lists = append(lists, list)
			}
		}
	}
	for _, list := range lists {
		var ranges [][2][]byte
		if Decode(list, &ranges) != nil {
			continue
		}
		for _, r := range ranges {
			if string(r[0]) <= string(canister) && string(canister) <= string(r[1]) {
				return true
			}
		}
	}
	return false
}

// MainnetRootKey is the root key of the Internet Computer, in DER, as its
// documentation prints it.
var MainnetRootKey = unhex("308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100" +
	"814c0e6ec71fab583b08bd81373c255c3c371b2e84863c98a4f1e08b74235d14fb5d9c0cd546d9685f913a0c0b2cc534" +
	"1583bf4b4392e467db96d65b9bb4cb717112f8472e0d5a4d14505ffd7484b01291091c5f87b98883463f98091a0baaae")
