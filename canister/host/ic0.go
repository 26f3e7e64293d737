package host

import (
	"context"
	"fmt"
	"slices"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"spinnet/canister/module"
)

// Mode is what a message runs as; the system's functions work in some.
type Mode uint16

// The modes. Init is also that of canister_post_upgrade; a replicated query is a
// query method called as an update.
const (
	Init Mode = 1 << iota
	PreUpgrade
	Update
	Query
	ReplicatedQuery
	ReplyCallback
	RejectCallback
	Cleanup
	Inspect
	Timer

	modeAny      = 1<<iota - 1
	modeMessage  = Update | Query | ReplicatedQuery | ReplyCallback | RejectCallback // may answer
	modeCalls    = Update | ReplyCallback | RejectCallback | Timer
	modeArgument = Init | Update | Query | ReplicatedQuery | ReplyCallback | Inspect
	modeChanges  = Init | PreUpgrade | Update | ReplyCallback | RejectCallback | Timer | Cleanup
)

// systemCall is a function of ic0.
type systemCall struct {
	params, results string // of "i" (i32) and "I" (i64)
	in              Mode
	size            int // which parameter counts bytes, for the charge; -1 for none
	run             func(x *Execution, a []uint64)
}

type executionKey struct{}

// system builds the host module ic0. The execution that a call belongs to
// comes with the context.
func system(rt wazero.Runtime) wazero.HostModuleBuilder {
	b := rt.NewHostModuleBuilder("ic0")
	for name, call := range systemCalls {
		cost := module.SystemCalls[name]
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, _ api.Module, stack []uint64) {
			x := ctx.Value(executionKey{}).(*Execution)
			if x.Mode&call.in == 0 {
				x.trap(ContractViolation, "ic0.%s cannot be called here", name)
			}
			for i, p := range call.params {
				if p == 'i' { // the upper half of a slot is undefined
					stack[i] &= 1<<32 - 1
				}
			}
			charge := cost.Fixed
			if cost.PerByte && call.size >= 0 {
				charge += stack[call.size]
			}
			x.charge(charge)
			call.run(x, stack)
		}), types(call.params), types(call.results)).Export(name)
	}
	return b
}

func types(s string) []api.ValueType {
	out := make([]api.ValueType, len(s))
	for i, c := range s {
		out[i] = map[rune]api.ValueType{'i': api.ValueTypeI32, 'I': api.ValueTypeI64}[c]
	}
	return out
}

// source makes the functions NAME_size and NAME_copy of some bytes.
func source(calls map[string]systemCall, name string, in Mode, get func(x *Execution) []byte) {
	calls[name+"_size"] = systemCall{"", "i", in, -1, func(x *Execution, a []uint64) { a[0] = uint64(len(get(x))) }}
	calls[name+"_copy"] = systemCall{"iii", "", in, 2, func(x *Execution, a []uint64) { x.copyOut(a[0], a[1], a[2], get(x)) }}
}

// systemCalls is all of ic0 for 32-bit memory that this replica has.
var systemCalls = func() map[string]systemCall {
	c := map[string]systemCall{}
	source(c, "msg_arg_data", modeArgument, func(x *Execution) []byte { return x.Arg })
	source(c, "msg_caller", modeAny, func(x *Execution) []byte { return x.Caller })
	source(c, "msg_method_name", Inspect, func(x *Execution) []byte { return []byte(x.Method) })
	source(c, "msg_reject_msg", RejectCallback, func(x *Execution) []byte { return []byte(x.rejected().Message) })
	source(c, "canister_self", modeAny, func(x *Execution) []byte { return x.World.ID })
	source(c, "subnet_self", modeAny, func(x *Execution) []byte { return x.World.Subnet })
	source(c, "root_key", modeAny&^(Query|Inspect), func(x *Execution) []byte { return x.World.RootKey })
	source(c, "data_certificate", Query, func(x *Execution) []byte { return x.certificate() })
	c["data_certificate_present"] = systemCall{"", "i", modeAny, -1, func(x *Execution, a []uint64) { a[0] = boolean(x.Mode == Query) }}
	c["msg_reject_code"] = systemCall{"", "i", ReplyCallback | RejectCallback, -1, func(x *Execution, a []uint64) { a[0] = uint64(x.rejected().Code) }}
	c["msg_deadline"] = systemCall{"", "I", modeMessage, -1, func(x *Execution, a []uint64) { a[0] = 0 }}

	c["msg_reply_data_append"] = systemCall{"ii", "", modeMessage, 1, func(x *Execution, a []uint64) { x.appendReply(x.bytes(a[0], a[1])) }}
	c["msg_reply"] = systemCall{"", "", modeMessage, -1, func(x *Execution, _ []uint64) { x.answer(Answer{}) }}
	c["msg_reject"] = systemCall{"ii", "", modeMessage, 1, func(x *Execution, a []uint64) {
		x.answer(Answer{Reject: &RejectError{CanisterReject, MessageRefused, string(x.bytes(a[0], a[1]))}})
	}}
	c["accept_message"] = systemCall{"", "", Inspect, -1, func(x *Execution, _ []uint64) { x.Accepted = true }}

	c["call_new"] = systemCall{"iiiiiiii", "", modeCalls, -1, func(x *Execution, a []uint64) {
		x.draft = &Outcall{Callee: slices.Clone(x.bytes(a[0], a[1])), Method: string(x.bytes(a[2], a[3])),
			Reply: Closure{uint32(a[4]), uint32(a[5])}, Reject: Closure{uint32(a[6]), uint32(a[7])}}
	}}
	c["call_on_cleanup"] = systemCall{"ii", "", modeCalls, -1, func(x *Execution, a []uint64) {
		if x.preparing().Cleanup != nil {
			x.trap(ContractViolation, "ic0.call_on_cleanup was called twice")
		}
		x.draft.Cleanup = &Closure{uint32(a[0]), uint32(a[1])}
	}}
	c["call_data_append"] = systemCall{"ii", "", modeCalls, 1, func(x *Execution, a []uint64) {
		call := x.preparing()
		if call.Arg = append(call.Arg, x.bytes(a[0], a[1])...); len(call.Arg) > MaxPayload {
			x.trap(ContractViolation, "the argument of a call has more than %d bytes", MaxPayload)
		}
	}}
	c["call_cycles_add"] = systemCall{"I", "", modeCalls, -1, func(x *Execution, _ []uint64) { x.preparing() }}
	c["call_cycles_add128"] = systemCall{"II", "", modeCalls, -1, func(x *Execution, _ []uint64) { x.preparing() }}
	c["call_with_best_effort_response"] = systemCall{"i", "", modeCalls, -1, func(x *Execution, _ []uint64) { x.preparing() }}
	c["call_perform"] = systemCall{"", "i", modeCalls, -1, func(x *Execution, a []uint64) { a[0] = x.perform() }}

	for _, w := range []struct{ prefix, word string }{{"stable", "i"}, {"stable64", "I"}} {
		c[w.prefix+"_size"] = systemCall{"", w.word, modeAny, -1, func(x *Execution, a []uint64) { a[0] = x.stable.size() / wasmPage }}
		c[w.prefix+"_grow"] = systemCall{w.word, w.word, modeAny, -1, func(x *Execution, a []uint64) {
			before, ok := x.stable.grow(a[0])
			if !ok {
				before = ^uint64(0)
				if w.word == "i" {
					before = uint64(^uint32(0))
				}
			}
			a[0] = before
		}}
		c[w.prefix+"_read"] = systemCall{w.word + w.word + w.word, "", modeAny, 2, func(x *Execution, a []uint64) {
			x.checkStable(a[1], a[2])
			x.stable.read(x.bytes(a[0], a[2]), a[1])
		}}
		c[w.prefix+"_write"] = systemCall{w.word + w.word + w.word, "", modeAny, 2, func(x *Execution, a []uint64) {
			x.checkStable(a[0], a[2])
			src := x.bytes(a[1], a[2])
			x.charge(module.StablePage * x.stable.fresh(a[0], a[2]))
			x.stable.write(a[0], src)
		}}
	}

	c["time"] = systemCall{"", "I", modeAny, -1, func(x *Execution, a []uint64) { a[0] = x.Now }}
	c["performance_counter"] = systemCall{"i", "I", modeAny, -1, func(x *Execution, a []uint64) { a[0] = x.performance(a[0]) }}
	c["global_timer_set"] = systemCall{"I", "I", modeChanges, -1, func(x *Execution, a []uint64) { x.timer, a[0] = a[0], x.timer }}
	c["certified_data_set"] = systemCall{"ii", "", modeChanges, 1, func(x *Execution, a []uint64) {
		if a[1] > maxCertified {
			x.trap(ContractViolation, "certified data of %d bytes, want at most %d", a[1], maxCertified)
		}
		x.certified = slices.Clone(x.bytes(a[0], a[1]))
	}}
	c["canister_version"] = systemCall{"", "I", modeAny, -1, func(x *Execution, a []uint64) { a[0] = x.World.Version }}
	c["canister_status"] = systemCall{"", "i", modeAny, -1, func(x *Execution, a []uint64) { a[0] = uint64(x.World.Status) }}
	c["is_controller"] = systemCall{"ii", "i", modeAny, 1, func(x *Execution, a []uint64) {
		a[0] = boolean(x.World.Controls != nil && x.World.Controls(x.bytes(a[0], a[1])))
	}}
	c["in_replicated_execution"] = systemCall{"", "i", modeAny, -1, func(x *Execution, a []uint64) { a[0] = boolean(x.Mode&(Query|Inspect) == 0) }}
	c["debug_print"] = systemCall{"ii", "", modeAny, 1, func(x *Execution, a []uint64) { x.print(x.bytes(a[0], a[1])) }}
	c["trap"] = systemCall{"ii", "", modeAny, 1, func(x *Execution, a []uint64) {
		x.trap(CalledTrap, "Canister called `ic0.trap` with message: '%s'", x.bytes(a[0], a[1]))
	}}

	// Cycles: enough of them, always.
	c["canister_cycle_balance"] = systemCall{"", "I", modeAny, -1, func(_ *Execution, a []uint64) { a[0] = Cycles }}
	wide := func(v uint64) func(x *Execution, a []uint64) {
		return func(x *Execution, a []uint64) { x.write128(a[len(a)-1], v) }
	}
	c["canister_cycle_balance128"] = systemCall{"i", "", modeAny, -1, wide(Cycles)}
	c["canister_liquid_cycle_balance128"] = systemCall{"i", "", modeAny, -1, wide(Cycles)}
	c["msg_cycles_available"] = systemCall{"", "I", modeMessage, -1, func(_ *Execution, a []uint64) { a[0] = 0 }}
	c["msg_cycles_available128"] = systemCall{"i", "", modeMessage, -1, wide(0)}
	c["msg_cycles_accept"] = systemCall{"I", "I", modeMessage, -1, func(_ *Execution, a []uint64) { a[0] = 0 }}
	c["msg_cycles_accept128"] = systemCall{"IIi", "", modeMessage, -1, wide(0)}
	c["msg_cycles_refunded"] = systemCall{"", "I", ReplyCallback | RejectCallback, -1, func(_ *Execution, a []uint64) { a[0] = 0 }}
	c["msg_cycles_refunded128"] = systemCall{"i", "", ReplyCallback | RejectCallback, -1, wide(0)}
	c["cycles_burn128"] = systemCall{"IIi", "", modeAny, -1, wide(0)}
	c["env_var_count"] = systemCall{"", "i", modeAny, -1, func(_ *Execution, a []uint64) { a[0] = 0 }}
	c["env_var_name_exists"] = systemCall{"ii", "i", modeAny, -1, func(_ *Execution, a []uint64) { a[0] = 0 }}
	return c
}()

func boolean(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// Cycles is the balance of every canister.
const Cycles = 10_000_000_000_000

// bytes gives a part of the heap.
func (x *Execution) bytes(at, size uint64) []byte {
	mem := x.instance.memory()
	if size > uint64(len(mem)) || at > uint64(len(mem))-size {
		x.trap(Trapped, "heap out of bounds: %d bytes at %d of %d", size, at, len(mem))
	}
	return mem[at:][:size]
}

// copyOut copies a part of src to the heap.
func (x *Execution) copyOut(dst, offset, size uint64, src []byte) {
	if size > uint64(len(src)) || offset > uint64(len(src))-size {
		x.trap(ContractViolation, "%d bytes from %d of %d: more than there are", size, offset, len(src))
	}
	copy(x.bytes(dst, size), src[offset:])
}

func (x *Execution) checkStable(offset, size uint64) {
	if have := x.stable.size(); size > have || offset > have-size {
		x.trap(Trapped, "stable memory out of bounds: %d bytes at %d of %d", size, offset, have)
	}
}

func (x *Execution) write128(at, low uint64) {
	b := x.bytes(at, 16)
	for i := range b {
		b[i] = byte(low)
		low >>= 8
	}
}

// rejected is what a callback is told; nothing went wrong where it is code 0.
func (x *Execution) rejected() *RejectError {
	if x.Reject == nil {
		return &RejectError{}
	}
	return x.Reject
}

func (x *Execution) certificate() []byte {
	if x.World.Certificate == nil {
		x.trap(ContractViolation, "there is no certificate here")
	}
	b, err := x.World.Certificate()
	if err != nil {
		x.trap(ContractViolation, "no certificate: %v", err)
	}
	return b
}

// charge pays for instructions that the host executes.
func (x *Execution) charge(n uint64) {
	left := int64(x.instance.counter.Get())
	if n > uint64(max(left, 0)) {
		x.instance.counter.Set(^uint64(0))
		x.trap(InstructionLimit, "%s", x.tooMany())
	}
	x.instance.counter.Set(uint64(left) - n)
}

func (x *Execution) tooMany() string {
	return fmt.Sprintf("Canister exceeded the limit of %d instructions for single message execution.", x.Limit)
}

// spent counts the message's instructions so far.
func (x *Execution) spent() uint64 {
	return x.Limit - uint64(max(int64(x.instance.counter.Get()), 0))
}

func (x *Execution) performance(kind uint64) uint64 {
	switch kind {
	case 0:
		return x.spent()
	case 1:
		return x.Before + x.spent()
	}
	x.trap(ContractViolation, "there is no performance counter %d", kind)
	return 0
}

func (x *Execution) appendReply(b []byte) {
	if x.Answer != nil {
		x.trap(ContractViolation, "the message has been answered already")
	}
	if x.reply = append(x.reply, b...); len(x.reply) > MaxPayload {
		x.trap(ContractViolation, "a reply of more than %d bytes", MaxPayload)
	}
}

func (x *Execution) answer(a Answer) {
	if x.Answer != nil || x.Answered {
		x.trap(ContractViolation, "the message has been answered already")
	}
	if a.Reject == nil {
		a.Reply = x.reply
	}
	x.Answer = &a
}

// preparing is the call that is being put together.
func (x *Execution) preparing() *Outcall {
	if x.draft == nil {
		x.trap(ContractViolation, "ic0.call_new was not called before")
	}
	return x.draft
}

// perform queues the call; it is made when the message has succeeded.
func (x *Execution) perform() uint64 {
	call := x.preparing()
	x.draft = nil
	if len(x.Calls) >= maxOutstanding {
		return uint64(SysTransient)
	}
	x.Calls = append(x.Calls, call)
	return 0
}
