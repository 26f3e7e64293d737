package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental/table"
)

// Reject codes, and error codes as ICP gives them.
const (
	SysFatal           = 1
	SysTransient       = 2
	DestinationInvalid = 3
	CanisterReject     = 4
	CanisterError      = 5

	QueueFull         = "IC0204"
	CanisterNotFound  = "IC0301"
	MessageRefused    = "IC0406"
	Trapped           = "IC0502"
	CalledTrap        = "IC0503"
	ContractViolation = "IC0504"
	NoReply           = "IC0506"
	CanisterStopped   = "IC0508"
	CanisterStopping  = "IC0509"
	NotController     = "IC0512"
	InstructionLimit  = "IC0522"
	MethodNotFound    = "IC0536"
	NoModule          = "IC0537"
)

// RejectError is an answer that something did not work.
type RejectError struct {
	Code    int    // SysFatal …
	ID      string // IC0…
	Message string
}

// Error gives the message.
func (r *RejectError) Error() string { return r.Message }

// Rejectf makes a rejection.
func Rejectf(code int, id, format string, args ...any) *RejectError {
	return &RejectError{code, id, fmt.Sprintf(format, args...)}
}

// Answer is a reply or a rejection.
type Answer struct {
	Reply  []byte
	Reject *RejectError
}

// Closure is a function of a canister's table and its argument.
type Closure struct{ Function, Env uint32 }

// Outcall is a call that a canister makes, and what runs when it is answered.
type Outcall struct {
	Callee        []byte
	Method        string
	Arg           []byte
	Reply, Reject Closure
	Cleanup       *Closure
}

// World is what a canister can ask about itself and where it is.
type World struct {
	ID, Subnet, RootKey []byte
	Version             uint64
	Status              int // 1 running, 2 stopping, 3 stopped
	Controls            func(principal []byte) bool
	Certificate         func() ([]byte, error) // of the certified data, in a query
}

// Execution is one message. What it is comes first, and what became of it
// after.
type Execution struct {
	Mode     Mode
	State    *State // before
	World    *World
	Export   string   // the function; or
	Callback *Closure // the callback
	Caller   []byte
	Method   string
	Arg      []byte
	Reject   *RejectError // of the call that a callback is about
	Answered bool         // by an earlier message of the call
	Limit    uint64       // of instructions
	Before   uint64       // instructions of the call's earlier messages
	Now      uint64       // nanoseconds since 1970

	Answer      *Answer
	Accepted    bool // by canister_inspect_message
	Calls       []*Outcall
	Printed     []string
	Spent       uint64 // instructions
	HeapPages   int    // that changed
	StablePages int    // that were written

	instance  *Instance
	stable    *stable
	reply     []byte
	draft     *Outcall // that is being put together
	timer     uint64
	certified []byte
	trapped   *RejectError
}

// trap ends the message. wazero turns the panic into an error.
func (x *Execution) trap(id, format string, args ...any) {
	x.trapped = Rejectf(CanisterError, id, format, args...)
	panic(x.trapped)
}

// print logs what a canister says, in bounds.
func (x *Execution) print(b []byte) {
	if len(x.Printed) < 1000 {
		x.Printed = append(x.Printed, strings.ToValidUTF8(string(b[:min(len(b), 4096)]), "�"))
	}
}

// Run executes the message on an instance that holds its state (see Acquire)
// and gives the state after it; a *RejectError when it traps, which leaves
// nothing behind. A query's state is to be thrown away.
func (x *Execution) Run(ctx context.Context, in *Instance) (*State, *RejectError) {
	f, args := in.mod.ExportedFunction(x.Export), []uint64(nil)
	if x.Callback != nil {
		args = []uint64{uint64(x.Callback.Env)}
		var ok bool
		if f, ok = in.callback(x.Callback.Function); !ok {
			return nil, Rejectf(CanisterError, Trapped, "Canister trapped: there is no callback at %d of its table", x.Callback.Function)
		}
	}
	_, next, reject := x.call(ctx, in, f, args)
	return next, reject
}

// callback finds a function of type (i32) -> () in the table. wazero panics
// where there is none.
func (in *Instance) callback(index uint32) (f api.Function, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return table.LookupFunction(in.mod, 0, index, types("i"), nil), true
}

// call executes a function of the instance.
func (x *Execution) call(ctx context.Context, in *Instance, f api.Function, args []uint64) ([]uint64, *State, *RejectError) {
	x.instance, x.stable = in, newStable(x.State.Stable)
	x.timer, x.certified = x.State.Timer, x.State.Certified
	in.counter.Set(x.Limit)
	in.holds = nil
	results, err := f.Call(context.WithValue(ctx, executionKey{}, x), args...)
	x.Spent = x.spent()
	if err != nil {
		x.Answer, x.Calls = nil, nil
		return nil, nil, x.explain(err)
	}
	next := *x.State
	next.Heap, x.HeapPages = in.capture(x.State.Heap)
	if cost := uint64(x.HeapPages) * heapPage; x.Mode&(Query|Inspect) == 0 && cost > x.Limit-x.Spent {
		x.Answer, x.Calls = nil, nil
		return nil, nil, Rejectf(CanisterError, InstructionLimit, "%s (%d of them for %d pages of the heap)", x.tooMany(), cost, x.HeapPages)
	}
	x.StablePages = len(x.stable.wrote)
	next.Globals, next.Stable = in.readGlobals(), x.stable.commit()
	next.Timer, next.Certified = x.timer, x.certified
	in.holds = &next
	return results, &next, nil
}

// explain makes a rejection of an error of wazero.
func (x *Execution) explain(err error) *RejectError {
	if x.trapped != nil {
		return x.trapped
	}
	if int64(x.instance.counter.Get()) < 0 {
		return Rejectf(CanisterError, InstructionLimit, "%s", x.tooMany())
	}
	if r, ok := errors.AsType[*RejectError](err); ok {
		return r
	}
	// The first line says what happened; the others are the stack.
	lines := strings.Split(err.Error(), "\n")
	what := strings.TrimPrefix(lines[0], "wasm error: ")
	stack := slices.DeleteFunc(lines[1:], func(l string) bool { return strings.TrimSpace(l) == "wasm stack trace:" })
	if len(stack) > 0 {
		what += " at" + strings.TrimRight(strings.Join(stack[:min(len(stack), 6)], ","), ", ")
	}
	return Rejectf(CanisterError, Trapped, "Canister trapped: %s", strings.ReplaceAll(what, "\t", " "))
}
