package replica

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"spinnet/canister/agent"
)

// status of a canister, as ic0.canister_status gives it.
type status int

const (
	running status = 1 + iota
	stopping
	stopped
)

func (s status) String() string { return [...]string{"", "running", "stopping", "stopped"}[s] }

// state is a canister between two messages. It does not change.
type state struct {
	controllers []agent.Principal
	settings    agent.Record // others, as given
	status      status
	version     uint64
	program     *program // nil without a module

	heap      []*page
	globals   []uint64
	stable    []*page
	certified []byte
	timer     uint64 // nanoseconds since 1970; 0 for none
}

func (s *state) controls(p agent.Principal) bool {
	return slices.ContainsFunc(s.controllers, p.Equal)
}

// call is a call context: a request from outside, or a timer, and what it
// set off.
type call struct {
	caller      agent.Principal
	deliver     func(answer) // nil when nobody waits
	answered    bool
	outstanding int
	spent       uint64 // instructions
	program     *program
}

// canister is one canister and what is on its way to it.
type canister struct {
	r  *Replica
	id agent.Principal

	current atomic.Pointer[state]
	queue   atomic.Int64 // messages that wait or run

	exec  sync.Mutex // held by the one message that may change the state
	live  *instance  // guarded by exec
	open  int        // calls without an answer; guarded by exec
	idle  chan struct{}
	alarm *time.Timer // guarded by exec

	query   sync.Mutex // held by the one query
	queried *instance  // guarded by query

	saving sync.Mutex // held while the state is written

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
	if st.timer != old.timer || st.program != old.program {
		c.setAlarm(st)
	}
	c.r.changed(c)
}

// ready checks that messages are taken.
func (c *canister) ready(st *state) *rejection {
	switch {
	case st.status == stopped:
		return rejectf(rejectError, errStopped, "Canister %v is stopped and therefore does not have a CallContextManager", c.id)
	case st.status == stopping:
		return rejectf(rejectError, errStopping, "Canister %v is not running", c.id)
	case st.program == nil:
		return rejectf(rejectError, errNoModule, "Canister %v contains no Wasm module", c.id)
	}
	return nil
}

// method finds the export that answers a method.
func (c *canister) method(p *program, name string, query bool) (export string, m mode, r *rejection) {
	if !query && p.methods["canister_update "+name] {
		return "canister_update " + name, modeUpdate, nil
	}
	m = modeReplicatedQuery
	if query {
		m = modeQuery
	}
	if p.methods["canister_query "+name] {
		return "canister_query " + name, m, nil
	}
	if query && p.methods["canister_composite_query "+name] {
		return "canister_composite_query " + name, m, nil
	}
	kind := "update or query"
	if query {
		kind = "query"
	}
	return "", 0, rejectf(rejectDestination, errNoMethod, "Canister %v has no %s method '%s'", c.id, kind, name)
}

// acquire gives an instance that holds the state: in, or a new one.
func acquire(ctx context.Context, in *instance, st *state) (*instance, error) {
	if in == nil || in.program != st.program {
		next, err := st.program.instantiate(ctx)
		if err != nil {
			return nil, err
		}
		in = next
	}
	return in.reset(ctx, st)
}

// execute runs a message on the canister. exec is held.
func (c *canister) execute(ctx context.Context, x *execution, export string, callback *closure) (*state, *rejection) {
	start := time.Now()
	in, err := acquire(ctx, c.live, x.state)
	if err != nil {
		c.live = nil
		return nil, rejectf(rejectSysFatal, errTrapped, "%v", err)
	}
	c.live = in
	next, reject := x.run(ctx, in, export, callback)
	c.report(x, export, start, reject)
	return next, reject
}

// update runs an update call: deliver gets its answer, at once or when the
// calls it made have been answered.
func (c *canister) update(ctx context.Context, caller agent.Principal, method string, arg []byte, deliver func(answer)) {
	if c.queue.Add(1) > maxQueue {
		c.queue.Add(-1)
		deliver(answer{reject: rejectf(rejectSysTransient, errQueueFull, "%d messages wait for canister %v", maxQueue, c.id)})
		return
	}
	c.exec.Lock()
	defer c.exec.Unlock()
	defer c.queue.Add(-1)
	st := c.current.Load()
	reject := c.ready(st)
	if reject != nil {
		deliver(answer{reject: reject})
		return
	}
	export, mode, reject := c.method(st.program, method, false)
	if reject != nil {
		deliver(answer{reject: reject})
		return
	}
	ctxt := &call{caller: caller, deliver: deliver, program: st.program}
	c.open++
	x := &execution{canister: c, mode: mode, state: st, limit: c.r.limits.Update, now: c.r.nanos(), caller: caller, method: method, arg: arg}
	c.finish(ctxt, c.step(ctx, ctxt, x, export, nil))
}

// step runs one message of a call and settles what it leaves: the state, the
// calls it makes, its answer. exec is held.
func (c *canister) step(ctx context.Context, ctxt *call, x *execution, export string, callback *closure) *rejection {
	x.before, x.wasAnswered = ctxt.spent, ctxt.answered
	next, reject := c.execute(ctx, x, export, callback)
	ctxt.spent += x.spent()
	if reject == nil {
		if x.mode != modeReplicatedQuery {
			c.set(next)
		}
		for _, out := range x.calls {
			ctxt.outstanding++
			go c.follow(ctx, ctxt, out)
		}
		if x.answered != nil {
			c.settle(ctxt, *x.answered)
		}
	}
	return reject
}

// finish closes a call that waits for nothing any more. exec is held.
func (c *canister) finish(ctxt *call, reject *rejection) {
	if ctxt.outstanding > 0 {
		return
	}
	if reject == nil {
		reject = rejectf(rejectError, errNoReply, "Canister %v did not reply to the call", c.id)
	}
	c.settle(ctxt, answer{reject: reject})
	if c.open--; c.open == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// settle gives a call its answer, if it has none.
func (c *canister) settle(ctxt *call, a answer) {
	if ctxt.answered {
		return
	}
	ctxt.answered = true
	if ctxt.deliver != nil {
		ctxt.deliver(a)
	}
}

// follow makes a call that a message asked for and runs the callback.
func (c *canister) follow(ctx context.Context, ctxt *call, out *outcall) {
	a := c.r.answerCanister(ctx, c, out)
	c.exec.Lock()
	defer c.exec.Unlock()
	ctxt.outstanding--
	st := c.current.Load()
	if st.program != ctxt.program {
		// The table that the closure points into is gone.
		c.finish(ctxt, rejectf(rejectCanister, errRejected, "Canister %v was installed anew before the call was answered", c.id))
		return
	}
	x := &execution{canister: c, mode: modeReply, state: st, limit: c.r.limits.Update, now: c.r.nanos(), caller: ctxt.caller, method: out.method + " reply", arg: a.reply}
	back := out.reply
	if a.reject != nil {
		x.mode, x.reject, x.arg, back = modeReject, *a.reject, nil, out.reject
		x.method = out.method + " reject"
	}
	reject := c.step(ctx, ctxt, x, "", &back)
	if reject != nil && out.cleanup != nil {
		y := &execution{canister: c, mode: modeCleanup, state: c.current.Load(), limit: c.r.limits.Update, now: c.r.nanos(), caller: ctxt.caller, method: out.method + " cleanup"}
		if next, failed := c.execute(ctx, y, "", out.cleanup); failed == nil {
			c.set(next)
		}
	}
	c.finish(ctxt, reject)
}

// ask answers a query from the last state, beside whatever message runs.
func (c *canister) ask(ctx context.Context, caller agent.Principal, method string, arg []byte) answer {
	c.query.Lock()
	defer c.query.Unlock()
	st := c.current.Load()
	if reject := c.ready(st); reject != nil {
		return answer{reject: reject}
	}
	export, mode, reject := c.method(st.program, method, true)
	if reject != nil {
		return answer{reject: reject}
	}
	x := &execution{canister: c, mode: mode, state: st, limit: c.r.limits.Query, now: c.r.nanos(), caller: caller, method: method, arg: arg}
	if reject := c.peek(ctx, x, export); reject != nil {
		return answer{reject: reject}
	}
	if x.answered == nil {
		return answer{reject: rejectf(rejectError, errNoReply, "Canister %v did not reply to the call", c.id)}
	}
	return *x.answered
}

// peek runs a message whose changes are thrown away. query is held.
func (c *canister) peek(ctx context.Context, x *execution, export string) *rejection {
	start := time.Now()
	in, err := acquire(ctx, c.queried, x.state)
	if err != nil {
		c.queried = nil
		return rejectf(rejectSysFatal, errTrapped, "%v", err)
	}
	c.queried = in
	_, reject := x.run(ctx, in, export, nil)
	in.holds = nil
	c.report(x, export, start, reject)
	return reject
}

// admit asks canister_inspect_message, if there is one, whether a request
// from outside may come in.
func (c *canister) admit(ctx context.Context, caller agent.Principal, method string, arg []byte) *rejection {
	st := c.current.Load()
	if reject := c.ready(st); reject != nil {
		return reject
	}
	if !st.program.methods["canister_inspect_message"] {
		return nil
	}
	c.query.Lock()
	defer c.query.Unlock()
	x := &execution{canister: c, mode: modeInspect, state: st, limit: inspectLimit, now: c.r.nanos(), caller: caller, method: method, arg: arg}
	if reject := c.peek(ctx, x, "canister_inspect_message"); reject != nil {
		return reject
	}
	if !x.accepted {
		return rejectf(rejectCanister, errRefused, "Canister %v rejected the message", c.id)
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
	if st.timer == 0 || st.program == nil || !st.program.methods["canister_global_timer"] {
		return
	}
	wait := time.Duration(0)
	if now := c.r.nanos(); st.timer > now {
		wait = time.Duration(min(st.timer-now, uint64(24*365*time.Hour)))
	}
	c.alarm = time.AfterFunc(wait, func() { c.ring(context.Background(), st.timer) })
}

// ring runs canister_global_timer, unless the timer was set anew.
func (c *canister) ring(ctx context.Context, due uint64) {
	c.exec.Lock()
	defer c.exec.Unlock()
	st := c.current.Load()
	if st.timer != due || c.ready(st) != nil {
		return
	}
	off := *st
	off.timer = 0
	c.set(&off)
	ctxt := &call{caller: agent.Management, program: st.program}
	c.open++
	x := &execution{canister: c, mode: modeTimer, state: &off, limit: c.r.limits.Update, now: c.r.nanos(), method: "canister_global_timer"}
	c.finish(ctxt, c.step(ctx, ctxt, x, "canister_global_timer", nil))
}

// report logs what a message cost.
func (c *canister) report(x *execution, export string, start time.Time, reject *rejection) {
	if export == "" {
		export = "callback " + x.method
	}
	for _, line := range x.printed {
		c.print(line)
	}
	spent := x.spent()
	what := "ok"
	switch {
	case reject != nil:
		what = reject.id + " " + reject.message
	case x.answered != nil && x.answered.reject != nil:
		what = "reject " + x.answered.reject.message
	}
	c.r.logf("%v %s: %s instructions (%.1f %% of %s), %d pages changed, %s: %s", c.id, export, grouped(spent),
		100*float64(spent)/float64(x.limit), short(x.limit), x.pages, time.Since(start).Round(time.Millisecond), what)
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
		return fmt.Sprintf("%g B", float64(n)/1e9)
	}
	return fmt.Sprintf("%g M", float64(n)/1e6)
}
