package host

import "crypto/rand"

// Management answers as the management canister does, whose only method here
// is raw_rand.
func Management(callee []byte, method string, _ []byte) ([]byte, error) {
	if len(callee) > 0 || method != "raw_rand" {
		return nil, Rejectf(DestinationInvalid, MethodNotFound, "there is no method %q of canister %x here", method, callee)
	}
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return nil, Rejectf(SysTransient, Trapped, "raw_rand: %v", err)
	}
	return append([]byte("DIDL\x01\x6d\x7b\x01\x00\x20"), random...), nil // a blob
}
