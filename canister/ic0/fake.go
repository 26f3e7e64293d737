//go:build !wasm

package ic0

import "bytes"

// Fake is the system outside of WebAssembly: what a test sets before it calls
// a canister's function, and what the function has done.
type Fake struct {
	Arg, Caller []byte
	Controllers [][]byte
	Time        uint64
	Counter     func(looks uint64) uint64 // instructions, of how often they were asked for; nil: 1000 each time
	Stable      []byte                    // whole pages
	MaxStable   int                       // pages; 0 means no limit, less than 0 none
	RefuseCalls bool                      // calls cannot be made
	Replies     [][]byte                  // given so far
	Rejections  []string
	Log         []string
	Calls       []FakeCall // made and not yet answered
	looks       uint64     // at the counter
}

// FakeCall is a call to another canister.
type FakeCall struct {
	Callee []byte
	Method string
	Arg    []byte
	id     int32
}

// A Trapped is what a trap panics with.
type Trapped string

// System is the fake in use.
var System Fake

// ResetCounter begins a new message: no instructions so far.
func (f *Fake) ResetCounter() { f.looks = 0 }

// Answer answers a call: with a reply, or with an error when err is not nil.
func (c *FakeCall) Answer(reply []byte, err *RejectError) {
	if err != nil {
		answer(c.id, nil, err)
		return
	}
	answer(c.id, reply, nil)
}

// Arg is the argument of the message, or what a call answered.
func Arg() []byte { return bytes.Clone(System.Arg) }

// Caller is the principal of the message's sender.
func Caller() []byte { return bytes.Clone(System.Caller) }

// Reply answers the message.
func Reply(data []byte) { System.Replies = append(System.Replies, bytes.Clone(data)) }

// Reject refuses the message. Changes of the canister's state stay.
func Reject(message string) { System.Rejections = append(System.Rejections, message) }

// Trap ends the message and undoes all changes of the canister's state, which
// the fake does not.
func Trap(message string) { panic(Trapped(message)) }

// Print writes to the canister's log.
func Print(message string) { System.Log = append(System.Log, message) }

// IsController reports whether a principal is among the canister's controllers.
func IsController(principal []byte) bool {
	for _, c := range System.Controllers {
		if bytes.Equal(c, principal) {
			return true
		}
	}
	return false
}

// Time is the time of the message, in nanoseconds since 1970.
func Time() uint64 { return System.Time }

// Counter is the number of instructions so far, of a kind.
func Counter(int) uint64 {
	System.looks++
	if System.Counter != nil {
		return System.Counter(System.looks)
	}
	return 1000 * System.looks
}

// StableSize is the size of the stable memory, in pages.
func StableSize() uint64 { return uint64(len(System.Stable) / PageSize) }

// StableGrow adds pages to the stable memory; false when it may not grow so
// far.
func StableGrow(pages uint64) bool {
	if most := System.MaxStable; most < 0 || most > 0 && StableSize()+pages > uint64(most) {
		return false
	}
	System.Stable = append(System.Stable, make([]byte, pages*PageSize)...)
	return true
}

// StableRead fills dst from stable memory. It traps beyond its end.
func StableRead(dst []byte, offset uint64) {
	if offset+uint64(len(dst)) > uint64(len(System.Stable)) {
		Trap("stable memory out of bounds")
	}
	copy(dst, System.Stable[offset:])
}

// StableWrite puts src into stable memory. It traps beyond its end.
func StableWrite(offset uint64, src []byte) {
	if offset+uint64(len(src)) > uint64(len(System.Stable)) {
		Trap("stable memory out of bounds")
	}
	copy(System.Stable[offset:], src)
}

// Call calls a method of another canister. done is called by FakeCall.Answer,
// with the reply or an error: a *RejectError. That a call cannot be made is
// told by the result, and then done is never called.
func Call(callee []byte, method string, arg []byte, done func(reply []byte, err error)) error {
	if System.RefuseCalls {
		return &RejectError{Message: "the call of " + method + " could not be made"}
	}
	System.Calls = append(System.Calls, FakeCall{callee, method, arg, wait(done)})
	return nil
}
