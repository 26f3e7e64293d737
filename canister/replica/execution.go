package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero/experimental/table"

	"spinnet/canister/agent"
)

// Reject codes, and error codes as ICP gives them.
const (
	rejectSysFatal     = 1
	rejectSysTransient = 2
	rejectDestination  = 3
	rejectCanister     = 4
	rejectError        = 5

	errQueueFull    = "IC0204"
	errNotFound     = "IC0301"
	errRefused      = "IC0406"
	errRejected     = "IC0406"
	errTrapped      = "IC0502"
	errCalledTrap   = "IC0503"
	errContract     = "IC0504"
	errNoReply      = "IC0506"
	errStopped      = "IC0508"
	errStopping     = "IC0509"
	errController   = "IC0512"
	errInstructions = "IC0522"
	errNoMethod     = "IC0536"
	errNoModule     = "IC0537"
)

// rejection is an answer that something did not work.
type rejection struct {
	code    int
	id      string // IC0…
	message string
}

func (r *rejection) Error() string { return r.message }

func rejectf(code int, id, format string, args ...any) *rejection {
	return &rejection{code, id, fmt.Sprintf(format, args...)}
}

// answer is a reply or a rejection.
type answer struct {
	reply  []byte
	reject *rejection
}

// closure is a function of a canister's table and its argument.
type closure struct{ function, env uint32 }

// outcall is a call that a canister makes.
type outcall struct {
	callee        agent.Principal
	method        string
	arg           []byte
	reply, reject closure
	cleanup       *closure
}

// execution is one message while it runs on an instance.
type execution struct {
	canister *canister
	instance *instance
	mode     mode
	state    *state // before
	stable   *stable
	limit    uint64 // of instructions
	before   uint64 // instructions of the call's earlier messages
	now      uint64 // nanoseconds since 1970

	caller      agent.Principal
	method      string
	arg         []byte
	reject      rejection // of the call that a callback is about
	wasAnswered bool      // by an earlier message of the call

	reply     []byte
	answered  *answer
	accepted  bool
	call      *outcall
	calls     []*outcall
	timer     uint64
	certified []byte
	printed   []string
	trapped   *rejection
	pages     int // of the heap that changed
}

// trap ends the message. wazero turns the panic into an error.
func (x *execution) trap(id, format string, args ...any) {
	code := rejectError
	x.trapped = rejectf(code, id, format, args...)
	panic(x.trapped)
}

// print logs what a canister says, in bounds.
func (x *execution) print(b []byte) {
	if len(x.printed) < 1000 {
		x.printed = append(x.printed, strings.ToValidUTF8(string(b[:min(len(b), 4096)]), "�"))
	}
}

// run executes an exported function, or the closure of a callback, on an
// instance that holds the state. It gives the state after the message.
func (x *execution) run(ctx context.Context, in *instance, export string, callback *closure) (*state, *rejection) {
	x.instance, x.stable = in, newStable(x.state.stable)
	x.timer, x.certified = x.state.timer, x.state.certified
	in.counter.Set(x.limit)
	in.holds = nil
	err := x.invoke(context.WithValue(ctx, executionKey{}, x), export, callback)
	if err != nil {
		return nil, x.explain(err)
	}
	heap, changed := in.capture(x.state.heap)
	x.pages = changed
	if cost := uint64(changed) * heapPage; x.mode&(modeQuery|modeInspect) == 0 && cost > x.limit-x.spent() {
		return nil, rejectf(rejectError, errInstructions, "%s (%d of them for %d pages of the heap)", x.tooMany(), cost, changed)
	}
	next := *x.state
	next.heap, next.globals, next.stable = heap, in.readGlobals(), x.stable.commit()
	next.timer, next.certified = x.timer, x.certified
	next.version++
	in.holds = &next
	return &next, nil
}

func (x *execution) invoke(ctx context.Context, export string, callback *closure) (err error) {
	if callback == nil {
		_, err = x.instance.mod.ExportedFunction(export).Call(ctx)
		return err
	}
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("the callback is no function of the canister's table: %v", e)
		}
	}()
	fn := table.LookupFunction(x.instance.mod, 0, callback.function, types("i"), nil)
	_, err = fn.Call(ctx, uint64(callback.env))
	return err
}

// explain makes a rejection of an error of wazero.
func (x *execution) explain(err error) *rejection {
	if x.trapped != nil {
		return x.trapped
	}
	if int64(x.instance.counter.Get()) < 0 {
		return rejectf(rejectError, errInstructions, "%s", x.tooMany())
	}
	if r, ok := errors.AsType[*rejection](err); ok {
		return r
	}
	// The first line says what happened; the others are the stack.
	lines := strings.Split(err.Error(), "\n")
	what := strings.TrimPrefix(lines[0], "wasm error: ")
	stack := slices.DeleteFunc(lines[1:], func(l string) bool { return strings.TrimSpace(l) == "wasm stack trace:" })
	if len(stack) > 0 {
		what += " at" + strings.TrimRight(strings.Join(stack[:min(len(stack), 6)], ","), ", ")
	}
	return rejectf(rejectError, errTrapped, "Canister trapped: %s", strings.ReplaceAll(what, "\t", " "))
}
