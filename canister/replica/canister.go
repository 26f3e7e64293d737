package replica

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"spinnet/canister/agent"
	"spinnet/canister/host"
)

// status of a canister, as ic0.canister_status gives it.
type status int

const (
	running status = 1 + iota
	stopping
	stopped
)

func (s status) String() string { return [...]string{"", "running", "stopping", "stopped"}[s] }

// state is a canister between two messages: what it remembers, and how it is
// set. It does not change.
type state struct {
	host.State
	controllers []agent.Principal
	status      status
	version     uint64
}

// with is the state after a message.
func (s *state) with(memory *host.State) *state {
	next := *s
	next.State = *memory
	next.version++
	return &next
}

func (s *state) controls(p agent.Principal) bool {
	return slices.ContainsFunc(s.controllers, p.Equal)
}

// call is a call context: a request from outside, or a timer, and what it
// set off.
type call struct {
	caller      agent.Principal
	deliver     func(host.Answer) // nil when nobody waits
	answered    bool
	outstanding int
	spent       uint64 // instructions
	program     *host.Program
}

// canister is one canister and what is on its way to it.
type canister struct {
	r  *Replica
	id agent.Principal

	current atomic.Pointer[state]
	queue   atomic.Int64 // messages that wait or run

	exec  sync.Mutex     // held by the one message that may change the state
	live  *host.Instance // guarded by exec
	open  int            // calls without an answer; guarded by exec
	idle  chan struct{}
	alarm *time.Timer // guarded by exec

	query   sync.Mutex     // held by the one query
	queried *host.Instance // guarded by query

	mu     sync.Mutex
	chunks map[[32]byte][]byte
	log    logRing
}

func newCanister(r *Replica, id agent.Principal, controllers []agent.Principal) *canister {
	c := &canister{r: r, id: id, chunks: map[[32]byte][]byte{}}
	c.current.Store(&state{controllers: controllers, status: running})
	return c
}

// set makes st the state. exec is held.
func (c *canister) set(st *state) {
	old := c.current.Swap(st)
	if st.Timer != old.Timer || st.Program != old.Program {
		c.setAlarm(st)
	}
	c.r.changed(c)
}

// ready checks that messages are taken.
func (c *canister) ready(st *state) *host.RejectError {
	switch {
	case st.status == stopped:
		return host.Rejectf(host.CanisterError, host.CanisterStopped, "Canister %v is stopped and therefore does not have a CallContextManager", c.id)
	case st.status == stopping:
		return host.Rejectf(host.CanisterError, host.CanisterStopping, "Canister %v is not running", c.id)
	case st.Program == nil:
		return host.Rejectf(host.CanisterError, host.NoModule, "Canister %v contains no Wasm module", c.id)
	}
	return nil
}

// method finds the export that answers a method.
func (c *canister) method(p *host.Program, name string, query bool) (export string, m host.Mode, r *host.RejectError) {
	if !query && p.Has("canister_update "+name) {
		return "canister_update " + name, host.Update, nil
	}
	m = host.ReplicatedQuery
	if query {
		m = host.Query
	}
	if p.Has("canister_query " + name) {
		return "canister_query " + name, m, nil
	}
	if query && p.Has("canister_composite_query "+name) {
		return "canister_composite_query " + name, m, nil
	}
	kind := "update or query"
	if query {
		kind = "query"
	}
	return "", 0, host.Rejectf(host.DestinationInvalid, host.MethodNotFound, "Canister %v has no %s method '%s'", c.id, kind, name)
}

// message prepares one that begins with a state.
func (c *canister) message(st *state, mode host.Mode, export string, limit uint64) *host.Execution {
	return &host.Execution{Mode: mode, Export: export, State: &st.State, Limit: limit, Now: c.r.nanos(), World: &host.World{
		ID: c.id, Subnet: c.r.subnet, RootKey: c.r.key.DER(), Version: st.version, Status: int(st.status),
		Controls: func(p []byte) bool { return st.controls(p) },
		Certificate: func() ([]byte, error) {
			return c.r.certificate([]agent.Path{{[]byte("canister"), c.id, []byte("certified_data")}})
		},
	}}
}

// execute runs a message on the canister. exec is held.
func (c *canister) execute(ctx context.Context, st *state, x *host.Execution) (*state, *host.RejectError) {
	start := time.Now()
	in, err := host.Acquire(ctx, c.live, &st.State)
	if c.live = in; err != nil {
		return nil, host.Rejectf(host.SysFatal, host.Trapped, "%v", err)
	}
	memory, reject := x.Run(ctx, in)
	c.report(x, start, reject)
	if reject != nil {
		return nil, reject
	}
	return st.with(memory), nil
}

// update runs an update call: deliver gets its answer, at once or when the
// calls it made have been answered.
func (c *canister) update(ctx context.Context, caller agent.Principal, method string, arg []byte, deliver func(host.Answer)) {
	if c.queue.Add(1) > maxQueue {
		c.queue.Add(-1)
		deliver(host.Answer{Reject: host.Rejectf(host.SysTransient, host.QueueFull, "%d messages wait for canister %v", maxQueue, c.id)})
		return
	}
	c.exec.Lock()
	defer c.exec.Unlock()
	defer c.queue.Add(-1)
	st := c.current.Load()
	reject := c.ready(st)
	if reject != nil {
		deliver(host.Answer{Reject: reject})
		return
	}
	export, mode, reject := c.method(st.Program, method, false)
	if reject != nil {
		deliver(host.Answer{Reject: reject})
		return
	}
	ctxt := &call{caller: caller, deliver: deliver, program: st.Program}
	c.open++
	x := c.message(st, mode, export, c.r.limits.Update)
	x.Method, x.Arg = method, arg
	c.finish(ctxt, c.step(ctx, ctxt, st, x))
}

// step runs one message of a call and settles what it leaves: the state, the
// calls it makes, its answer. exec is held.
func (c *canister) step(ctx context.Context, ctxt *call, st *state, x *host.Execution) *host.RejectError {
	x.Caller, x.Before, x.Answered = ctxt.caller, ctxt.spent, ctxt.answered
	next, reject := c.execute(ctx, st, x)
	ctxt.spent += x.Spent
	if reject != nil {
		return reject
	}
	if x.Mode != host.ReplicatedQuery {
		c.set(next)
	}
	for _, out := range x.Calls {
		ctxt.outstanding++
		go c.follow(ctx, ctxt, out)
	}
	if x.Answer != nil {
		c.settle(ctxt, *x.Answer)
	}
	return nil
}

// finish closes a call that waits for nothing any more. exec is held.
func (c *canister) finish(ctxt *call, reject *host.RejectError) {
	if ctxt.outstanding > 0 {
		return
	}
	if reject == nil {
		reject = host.Rejectf(host.CanisterError, host.NoReply, "Canister %v did not reply to the call", c.id)
	}
	c.settle(ctxt, host.Answer{Reject: reject})
	if c.open--; c.open == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// settle gives a call its answer, if it has none.
func (c *canister) settle(ctxt *call, a host.Answer) {
	if ctxt.answered {
		return
	}
	ctxt.answered = true
	if ctxt.deliver != nil {
		ctxt.deliver(a)
	}
}

// follow makes a call that a message asked for and runs the callback.
func (c *canister) follow(ctx context.Context, ctxt *call, out *host.Outcall) {
	a := c.r.answerCanister(ctx, c, out)
	c.exec.Lock()
	defer c.exec.Unlock()
	ctxt.outstanding--
	st := c.current.Load()
	if st.Program != ctxt.program {
		// The table that the closure points into is gone.
		c.finish(ctxt, host.Rejectf(host.CanisterReject, host.MessageRefused, "Canister %v was installed anew before the call was answered", c.id))
		return
	}
	x := c.message(st, host.ReplyCallback, "", c.r.limits.Update)
	x.Method, x.Callback, x.Arg = out.Method, &out.Reply, a.Reply
	if a.Reject != nil {
		x.Mode, x.Callback, x.Arg, x.Reject = host.RejectCallback, &out.Reject, nil, a.Reject
	}
	reject := c.step(ctx, ctxt, st, x)
	if reject != nil && out.Cleanup != nil {
		y := c.message(st, host.Cleanup, "", c.r.limits.Update)
		y.Method, y.Caller, y.Callback = out.Method, ctxt.caller, out.Cleanup
		if next, failed := c.execute(ctx, st, y); failed == nil {
			c.set(next)
		}
	}
	c.finish(ctxt, reject)
}

// ask answers a query from the last state, beside whatever message runs.
func (c *canister) ask(ctx context.Context, caller agent.Principal, method string, arg []byte) host.Answer {
	c.query.Lock()
	defer c.query.Unlock()
	st := c.current.Load()
	if reject := c.ready(st); reject != nil {
		return host.Answer{Reject: reject}
	}
	export, mode, reject := c.method(st.Program, method, true)
	if reject != nil {
		return host.Answer{Reject: reject}
	}
	x := c.message(st, mode, export, c.r.limits.Query)
	x.Caller, x.Method, x.Arg = caller, method, arg
	if reject := c.peek(ctx, st, x); reject != nil {
		return host.Answer{Reject: reject}
	}
	if x.Answer == nil {
		return host.Answer{Reject: host.Rejectf(host.CanisterError, host.NoReply, "Canister %v did not reply to the call", c.id)}
	}
	return *x.Answer
}

// peek runs a message whose changes are thrown away. query is held.
func (c *canister) peek(ctx context.Context, st *state, x *host.Execution) *host.RejectError {
	start := time.Now()
	in, err := host.Acquire(ctx, c.queried, &st.State)
	if c.queried = in; err != nil {
		return host.Rejectf(host.SysFatal, host.Trapped, "%v", err)
	}
	_, reject := x.Run(ctx, in)
	c.report(x, start, reject)
	return reject
}

// admit asks canister_inspect_message, if there is one, whether a request
// from outside may come in.
func (c *canister) admit(ctx context.Context, caller agent.Principal, method string, arg []byte) *host.RejectError {
	st := c.current.Load()
	if reject := c.ready(st); reject != nil {
		return reject
	}
	if !st.Program.Has("canister_inspect_message") {
		return nil
	}
	c.query.Lock() // the program of before may have been closed meanwhile
	defer c.query.Unlock()
	if st = c.current.Load(); c.ready(st) != nil || !st.Program.Has("canister_inspect_message") {
		return c.ready(st)
	}
	x := c.message(st, host.Inspect, "canister_inspect_message", inspectLimit)
	x.Caller, x.Method, x.Arg = caller, method, arg
	if reject := c.peek(ctx, st, x); reject != nil {
		return reject
	}
	if !x.Accepted {
		return host.Rejectf(host.CanisterReject, host.MessageRefused, "Canister %v rejected the message", c.id)
	}
	return nil
}

// inspectLimit is what ICP allows canister_inspect_message.
const inspectLimit = 200_000_000

// setAlarm arms the timer that the canister set. exec is held.
func (c *canister) setAlarm(st *state) {
	if c.alarm != nil {
		c.alarm.Stop()
		c.alarm = nil
	}
	if st.Timer == 0 || st.Program == nil || !st.Program.Has("canister_global_timer") {
		return
	}
	wait := time.Duration(0)
	if now := c.r.nanos(); st.Timer > now {
		wait = time.Duration(min(st.Timer-now, uint64(24*365*time.Hour)))
	}
	c.alarm = time.AfterFunc(wait, func() { c.ring(context.Background(), st.Timer) })
}

// ring runs canister_global_timer, unless the timer was set anew.
func (c *canister) ring(ctx context.Context, due uint64) {
	c.exec.Lock()
	defer c.exec.Unlock()
	st := c.current.Load()
	if st.Timer != due || c.ready(st) != nil {
		return
	}
	off := *st
	off.Timer = 0
	c.set(&off)
	ctxt := &call{caller: agent.Management, program: st.Program}
	c.open++
	c.finish(ctxt, c.step(ctx, ctxt, &off, c.message(&off, host.Timer, "canister_global_timer", c.r.limits.Update)))
}

// report logs what a message cost.
func (c *canister) report(x *host.Execution, start time.Time, reject *host.RejectError) {
	for _, line := range x.Printed {
		c.print(line)
	}
	name, what := x.Export, "ok"
	if x.Callback != nil {
		name = "callback of " + x.Method
	}
	switch {
	case reject != nil:
		what = reject.ID + " " + reject.Message
	case x.Answer != nil && x.Answer.Reject != nil:
		what = "reject " + x.Answer.Reject.Message
	}
	c.r.logf("%v %s: %s instructions (%.1f %% of %s), %d pages changed, %s: %s", c.id, name, grouped(x.Spent),
		100*float64(x.Spent)/float64(x.Limit), short(x.Limit), x.HeapPages, time.Since(start).Round(time.Millisecond), what)
}

// grouped writes a number with commas, short in billions or millions.
func grouped(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func short(n uint64) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.4g B", float64(n)/1e9)
	}
	return fmt.Sprintf("%.4g M", float64(n)/1e6)
}
