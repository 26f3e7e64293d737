// Package ic0 is the system interface of the Internet Computer as far as the
// canister needs it: the message at hand, replies, stable memory, the
// instruction counter and calls to other canisters. It imports nothing of
// ours.
//
// In a WebAssembly module the functions are imports of the module "ic0", after
// the Interface Specification's section "System API". Elsewhere they are those
// of Fake, so that a canister's logic runs in ordinary tests.
package ic0

// PageSize is the size of a page of stable memory.
const PageSize = 1 << 16

// Kinds of performance counters.
const (
	CounterMessage = 0 // instructions since this message or callback began
	CounterContext = 1 // of the whole call, with the callbacks before
)

// A RejectError is why another canister did not answer a call.
type RejectError struct {
	Code    int // 1 to 6; 0 when the call could not be made
	Message string
}

// Error is the other side's message.
func (e *RejectError) Error() string { return e.Message }

// callback is what waits for the answer to a call.
type callback func(reply []byte, err error)

// waiting holds the callbacks of calls under way, by number.
var (
	waiting  = map[int32]callback{}
	nextCall int32
)

// wait keeps a callback and gives its number.
func wait(f callback) int32 {
	nextCall = (nextCall + 1) & (1<<30 - 1)
	waiting[nextCall] = f
	return nextCall
}

// answer gives the answer to a call to its callback.
func answer(id int32, reply []byte, err error) {
	if f := waiting[id]; f != nil {
		delete(waiting, id)
		f(reply, err)
	}
}

// ManagementCanister is the principal of the system's own canister.
var ManagementCanister = []byte{}
