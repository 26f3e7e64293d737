// Package host runs canisters as the Internet Computer (ICP) would run one
// message at a time: it gives the functions of ic0, counts instructions by a
// table of costs, stops a message at its limit, and leaves nothing of a message
// that traps. The engine is wazero.
//
// A Program is a compiled module and an Instance a program in memory. A State is
// what a canister remembers, and does not change: an Execution makes the next
// one of it. States share the pages that are the same, so rolling back, queries
// beside an update and saving are all "take another state". Canister puts these
// together for one canister alone; canister/replica for many, with the network
// around them.
package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"spinnet/canister/module"
)

// Canister is a module with its memory. It serves one message at a time.
type Canister struct {
	program  *Program
	instance *Instance
	state    *State

	Time       func() time.Time            // what ic0.time says
	Print      func(text []byte)           // what ic0.debug_print does; nil drops it
	Controller func(principal []byte) bool // what ic0.is_controller says; nil says no
	ID         []byte                      // what ic0.canister_self says
	Other      Others                      // answers its calls of others; nil is Management
}

// Message is one call of an export.
type Message struct {
	Export string // such as "canister_update generate"
	Arg    []byte
	Caller []byte // principal; nil is the anonymous one
	Limit  uint64 // of instructions; 0 is that of the kind of call
}

// Reply is what a message gave, with the answers to the calls it made.
type Reply struct {
	Data         []byte
	Rejected     bool   // it called msg_reject; Data is the text
	Instructions uint64 // by the table of costs
	HeapPages    int    // of 4 KiB whose contents it changed
	StablePages  int    // of 4 KiB that it wrote
}

// TrapError is the error of a message that trapped; its state is as before it.
type TrapError struct {
	Message      string
	OutOfLimit   bool   // it used all instructions it may
	Instructions uint64 // spent until then
}

// Error gives the message.
func (t *TrapError) Error() string { return "canister trapped: " + t.Message }

// Load compiles a module, meters it by costs and instantiates it. It runs none
// of its code: canister_init is a message like others.
func Load(ctx context.Context, wasm []byte, costs *module.Costs) (*Canister, error) {
	p, err := Compile(ctx, wasm, costs)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	in, st, err := p.Instantiate(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("host: %w", err), p.Close(ctx))
	}
	return &Canister{program: p, instance: in, state: st, Time: time.Now}, nil
}

// Close frees the canister.
func (c *Canister) Close(ctx context.Context) error { return c.program.Close(ctx) }

// Stable gives the stable memory.
func (c *Canister) Stable() []byte {
	s := newStable(c.state.Stable)
	b := make([]byte, s.size())
	s.read(b, 0)
	return b
}

// SetStable gives the canister a stable memory of whole pages of 64 KiB, before
// an upgrade for example.
func (c *Canister) SetStable(b []byte) {
	s := newStable(nil)
	s.grow((uint64(len(b)) + wasmPage - 1) / wasmPage)
	s.write(0, b)
	next := *c.state
	next.Stable = s.commit()
	c.state = &next
}

// Call runs a message, with the answers to the calls that it makes. A trap is a
// *TrapError; other errors are the host's.
func (c *Canister) Call(ctx context.Context, msg Message) (Reply, error) {
	if !c.program.Has(msg.Export) {
		return Reply{}, fmt.Errorf("host: the canister has no method %q", msg.Export)
	}
	mode, limit := Init, uint64(module.InstallLimit)
	switch kind, _, _ := strings.Cut(msg.Export, " "); kind {
	case "canister_query", "canister_composite_query":
		mode, limit = Query, module.QueryLimit
	case "canister_update":
		mode, limit = Update, module.UpdateLimit
	case "canister_pre_upgrade":
		mode = PreUpgrade
	case "canister_global_timer":
		mode, limit = Timer, module.UpdateLimit
	case "canister_inspect_message":
		mode, limit = Inspect, module.QueryLimit
	}
	if msg.Limit == 0 {
		msg.Limit = limit
	}
	if msg.Caller == nil {
		msg.Caller = []byte{4}
	}
	var r Reply
	var answer *Answer
	queue := []*Execution{{Mode: mode, Export: msg.Export, Arg: msg.Arg}}
	for len(queue) > 0 {
		x := queue[0]
		x.Caller, x.Limit, x.Before, x.Answered = msg.Caller, msg.Limit, r.Instructions, answer != nil
		if err := c.run(ctx, x, &r); err != nil {
			if answer != nil { // what comes after the answer nobody hears of
				break
			}
			return Reply{Instructions: r.Instructions}, err
		}
		if x.Answer != nil {
			answer = x.Answer
		}
		queue = queue[1:]
		for _, out := range x.Calls {
			queue = append(queue, c.callback(out))
		}
	}
	switch {
	case answer == nil && mode&(Query|Update) != 0:
		return r, &TrapError{Message: "it did not reply", Instructions: r.Instructions}
	case answer != nil && answer.Reject != nil:
		r.Data, r.Rejected = []byte(answer.Reject.Message), true
	case answer != nil:
		r.Data = answer.Reply
	}
	return r, nil
}

// run executes one message and keeps its state, unless it is a query.
func (c *Canister) run(ctx context.Context, x *Execution, r *Reply) error {
	in, err := Acquire(ctx, c.instance, c.state)
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	c.instance = in
	x.State, x.Now = c.state, uint64(c.Time().UnixNano())
	x.World = &World{ID: c.ID, Status: 1, Controls: c.Controller}
	next, reject := x.Run(ctx, in)
	r.Instructions += x.Spent
	for _, line := range x.Printed {
		if c.Print != nil {
			c.Print([]byte(line))
		}
	}
	if reject != nil {
		return &TrapError{reject.Message, reject.ID == InstructionLimit, r.Instructions}
	}
	if x.Mode&(Query|Inspect) == 0 {
		c.state = next
		r.HeapPages, r.StablePages = r.HeapPages+x.HeapPages, r.StablePages+x.StablePages
	}
	return nil
}

// Others answers the calls of a canister to others. An error is a rejection;
// its code is that of a *RejectError, or CanisterReject.
type Others func(callee []byte, method string, arg []byte) (reply []byte, err error)

// callback is the message that the answer to a call makes.
func (c *Canister) callback(out *Outcall) *Execution {
	others := c.Other
	if others == nil {
		others = Management
	}
	reply, err := others(out.Callee, out.Method, out.Arg)
	if err == nil {
		return &Execution{Mode: ReplyCallback, Callback: &out.Reply, Arg: reply}
	}
	reject, ok := errors.AsType[*RejectError](err)
	if !ok {
		reject = Rejectf(CanisterReject, MessageRefused, "%v", err)
	}
	return &Execution{Mode: RejectCallback, Callback: &out.Reject, Reject: reject}
}

// CallExport runs an export that is no message, such as one for tests, with
// arguments and results as they are; what it changes stays. It gives the
// instructions beside the results.
func (c *Canister) CallExport(ctx context.Context, name string, args ...uint64) ([]uint64, uint64, error) {
	in, err := Acquire(ctx, c.instance, c.state)
	if err != nil {
		return nil, 0, fmt.Errorf("host: %w", err)
	}
	c.instance = in
	f := in.mod.ExportedFunction(name)
	if f == nil {
		return nil, 0, fmt.Errorf("host: the module exports no function %q", name)
	}
	x := &Execution{Mode: Init, State: c.state, World: &World{ID: c.ID}, Limit: module.InstallLimit}
	results, next, reject := x.call(ctx, in, f, args)
	if reject != nil {
		return nil, x.Spent, fmt.Errorf("host: %s: %w", name, reject)
	}
	c.state = next
	return results, x.Spent, nil
}

// Read gives n bytes of the heap, or false outside it.
func (c *Canister) Read(address, n uint32) ([]byte, bool) {
	return c.instance.mod.Memory().Read(address, n)
}
