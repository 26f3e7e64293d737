package replica

import (
	"context"
	"time"

	"spinnet/canister/agent"
)

// installMode is how an installation treats what is there.
type installMode struct {
	upgrade, reinstall, skipPre bool
}

func modeOf(in agent.Record) (m installMode, reject *rejection) {
	v, ok := in.Get("mode").(agent.Variant)
	switch {
	case ok && v.Is("install"):
	case ok && v.Is("reinstall"):
		m.reinstall = true
	case ok && v.Is("upgrade"):
		m.upgrade = true
		o, _ := v.Value.(agent.Opt)
		options, _ := o.Value.(agent.Record)
		if skip, ok := options.Get("skip_pre_upgrade").(agent.Opt); ok && skip.Set {
			m.skipPre, _ = skip.Value.(bool)
		}
		if keep, ok := options.Get("wasm_memory_persistence").(agent.Opt); ok && keep.Set {
			if how, _ := keep.Value.(agent.Variant); !how.Is("replace") {
				return m, rejectf(rejectError, errContract, "this replica cannot keep the heap in an upgrade: keep state in stable memory")
			}
		}
	default:
		return m, rejectf(rejectError, errContract, "the mode of an installation is install, reinstall or upgrade")
	}
	return m, nil
}

// install gives a canister a module: all of it happens, or nothing.
func (c *canister) install(ctx context.Context, caller agent.Principal, in agent.Record, wasm []byte) *rejection {
	m, reject := modeOf(in)
	if reject != nil {
		return reject
	}
	arg, _ := in.Get("arg").([]byte)
	start := time.Now()
	next, err := compile(ctx, wasm)
	if err != nil {
		return rejectf(rejectError, errContract, "Canister's Wasm module is not valid: %v", err)
	}
	c.r.logf("%v compiled %d bytes in %s", c.id, len(wasm), time.Since(start).Round(time.Millisecond))

	c.exec.Lock()
	defer c.exec.Unlock()
	reject = c.replace(ctx, caller, m, next, arg)
	if reject != nil {
		if err := next.close(ctx); err != nil {
			c.r.logf("%v: %v", c.id, err)
		}
		return reject
	}
	if err := c.r.saveNow(c); err != nil {
		return rejectf(rejectSysFatal, errTrapped, "%v", err)
	}
	return nil
}

// replace runs the hooks of an installation and makes its outcome the state.
// exec is held.
func (c *canister) replace(ctx context.Context, caller agent.Principal, m installMode, next *program, arg []byte) *rejection {
	old := c.current.Load()
	if old.program != nil && !m.upgrade && !m.reinstall {
		return rejectf(rejectError, "IC0514", "Canister %v is not empty: upgrade it, or reinstall it and lose its state", c.id)
	}
	if old.program == nil && m.upgrade {
		return rejectf(rejectError, errNoModule, "Canister %v has no module to upgrade", c.id)
	}
	st, limit := *old, c.r.limits.Install
	hook := "canister_init"
	if m.upgrade {
		hook = "canister_post_upgrade"
		if old.program.methods["canister_pre_upgrade"] && !m.skipPre {
			x := &execution{canister: c, mode: modePreUpgrade, state: old, limit: limit, now: c.r.nanos(), caller: caller}
			after, reject := c.execute(ctx, x, "canister_pre_upgrade", nil)
			if reject != nil {
				return reject
			}
			limit -= x.spent()
			st = *after
		}
	} else {
		st.stable, st.certified = nil, nil
	}
	st.program, st.timer = next, 0
	fresh, err := next.instantiate(ctx)
	if err != nil {
		return rejectf(rejectError, errContract, "%v", err)
	}
	st.heap, _ = fresh.capture(nil) // what the data segments made
	st.globals = fresh.readGlobals()
	fresh.holds = &st
	before := c.live
	c.live = fresh
	after := &st
	if next.methods[hook] {
		x := &execution{canister: c, mode: modeInit, state: &st, limit: limit, now: c.r.nanos(), caller: caller, arg: arg}
		var reject *rejection
		if after, reject = c.execute(ctx, x, hook, nil); reject != nil {
			c.live = before
			return reject
		}
	}
	c.adopt(ctx, after, old.program)
	return nil
}

// adopt makes a state with another program current and closes the old one,
// which no query uses any more. exec is held.
func (c *canister) adopt(ctx context.Context, st *state, old *program) {
	c.set(st)
	c.query.Lock()
	c.queried = nil
	c.query.Unlock()
	if old != nil {
		if err := old.close(ctx); err != nil {
			c.r.logf("%v: %v", c.id, err)
		}
	}
}

// uninstall takes module and state away.
func (c *canister) uninstall(ctx context.Context) *rejection {
	c.exec.Lock()
	defer c.exec.Unlock()
	old := c.current.Load()
	c.live = nil
	c.adopt(ctx, &state{controllers: old.controllers, status: old.status, version: old.version + 1}, old.program)
	if err := c.r.saveNow(c); err != nil {
		return rejectf(rejectSysFatal, errTrapped, "%v", err)
	}
	return nil
}

// remove deletes a canister that has been stopped.
func (r *Replica) remove(ctx context.Context, c *canister) *rejection {
	if st := c.current.Load(); st.status != stopped {
		return rejectf(rejectError, "IC0510", "Canister %v must be stopped before it is deleted", c.id)
	}
	if reject := c.uninstall(ctx); reject != nil {
		return reject
	}
	r.mu.Lock()
	delete(r.canisters, string(c.id))
	delete(r.dirty, c)
	r.mu.Unlock()
	if err := r.forget(c); err != nil {
		return rejectf(rejectSysFatal, errTrapped, "%v", err)
	}
	return nil
}
