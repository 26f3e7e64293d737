package agent

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// The wire is CBOR behind the self-describing tag. Limits keep a short
// message from asking for much memory; duplicate keys would let two readers
// see two requests in one.
var (
	decoder = must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:  200, // a hash tree of a large subnet is deep
		MaxArrayElements: 1 << 16,
		MaxMapPairs:      1 << 10,
		IndefLength:      cbor.IndefLengthAllowed,
		IntDec:           cbor.IntDecConvertNone,
	}.DecMode())
	selfDescribed uint64 = 55799
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // constant options
	}
	return v
}

// Decode reads CBOR from outside, with or without the self-describing tag, into
// what v points to. How deep and how large it may be is bounded.
func Decode(data []byte, v any) error {
	if len(data) >= 3 && data[0] == 0xd9 && data[1] == 0xd9 && data[2] == 0xf7 {
		data = data[3:]
	}
	if err := decoder.Unmarshal(data, v); err != nil {
		return fmt.Errorf("agent: cbor: %w", err)
	}
	return nil
}

// Encode writes CBOR behind the self-describing tag.
func Encode(v any) ([]byte, error) {
	data, err := cbor.Marshal(cbor.Tag{Number: selfDescribed, Content: v})
	if err != nil {
		return nil, fmt.Errorf("agent: cbor: %w", err)
	}
	return data, nil
}
