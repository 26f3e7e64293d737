package replica

import (
	"context"
	"time"

	"spinnet/canister/agent"
	"spinnet/canister/host"
	"spinnet/canister/module"
)

// installMode is how an installation treats what is there.
type installMode struct {
	upgrade, reinstall, skipPre bool
}

func modeOf(in agent.Record) (m installMode, reject *host.RejectError) {
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
				return m, host.Rejectf(host.CanisterError, host.ContractViolation, "this replica cannot keep the heap in an upgrade: keep state in stable memory")
			}
		}
	default:
		return m, host.Rejectf(host.CanisterError, host.ContractViolation, "the mode of an installation is install, reinstall or upgrade")
	}
	return m, nil
}

// install gives a canister a module: all of it happens, or nothing.
func (c *canister) install(ctx context.Context, caller agent.Principal, in agent.Record, wasm []byte) *host.RejectError {
	m, reject := modeOf(in)
	if reject != nil {
		return reject
	}
	arg, _ := in.Get("arg").([]byte)
	start := time.Now()
	next, cost, err := admitModule(ctx, wasm)
	if err != nil {
		return host.Rejectf(host.CanisterError, host.ContractViolation, "Canister's Wasm module is not valid: %v", err)
	}
	c.r.logf("%v compiled %d bytes: %s instructions, %s", c.id, len(wasm), grouped(cost), time.Since(start).Round(time.Millisecond))

	c.exec.Lock()
	defer c.exec.Unlock()
	reject = c.replace(ctx, caller, m, next, cost, arg)
	if reject != nil {
		if err := next.Close(ctx); err != nil {
			c.r.logf("%v: %v", c.id, err)
		}
		return reject
	}
	if err := c.r.saveNow(c); err != nil {
		return host.Rejectf(host.SysFatal, host.Trapped, "%v", err)
	}
	return nil
}

// admitModule holds a module to ICP's rules and compiles it. cost is what the
// installation pays for that, in instructions.
func admitModule(ctx context.Context, installed []byte) (p *host.Program, cost uint64, err error) {
	wasm, err := host.Inflate(installed)
	if err != nil {
		return nil, 0, err
	}
	m, err := module.Parse(wasm)
	if err != nil {
		return nil, 0, err
	}
	figures, err := module.Measure(m, wasm)
	if err != nil {
		return nil, 0, err
	}
	for _, f := range figures {
		if f.Name == module.CompileFigure {
			cost = f.Value
		}
	}
	p, err = host.Compile(ctx, installed, module.ICP)
	return p, cost, err
}

// replace runs the hooks of an installation and makes its outcome the state.
// exec is held.
func (c *canister) replace(ctx context.Context, caller agent.Principal, m installMode, next *host.Program, cost uint64, arg []byte) *host.RejectError {
	old := c.current.Load()
	if old.Program != nil && !m.upgrade && !m.reinstall {
		return host.Rejectf(host.CanisterError, "IC0514", "Canister %v is not empty: upgrade it, or reinstall it and lose its state", c.id)
	}
	if old.Program == nil && m.upgrade {
		return host.Rejectf(host.CanisterError, host.NoModule, "Canister %v has no module to upgrade", c.id)
	}
	st, limit := old, c.r.limits.Install
	if cost > limit {
		return host.Rejectf(host.CanisterError, host.InstructionLimit, "compiling the module takes %d instructions of %d", cost, limit)
	}
	limit -= cost
	hook := "canister_init"
	if m.upgrade {
		hook = "canister_post_upgrade"
		if old.Program.Has("canister_pre_upgrade") && !m.skipPre {
			x := c.message(old, host.PreUpgrade, "canister_pre_upgrade", limit)
			x.Caller = caller
			after, reject := c.execute(ctx, old, x)
			if reject != nil {
				return reject
			}
			st, limit = after, limit-x.Spent
		}
	}
	fresh, memory, err := next.Instantiate(ctx)
	if err != nil {
		return host.Rejectf(host.CanisterError, host.ContractViolation, "%v", err)
	}
	if m.upgrade {
		memory.Stable, memory.Certified = st.Stable, st.Certified
	}
	st = st.with(memory)
	before := c.live
	c.live = fresh
	if next.Has(hook) {
		x := c.message(st, host.Init, hook, limit)
		x.Caller, x.Arg = caller, arg
		after, reject := c.execute(ctx, st, x)
		if reject != nil {
			c.live = before
			return reject
		}
		st = after
	}
	c.adopt(ctx, st, old.Program)
	return nil
}

// adopt makes a state with another program current and closes the old one,
// which no query uses any more. exec is held.
func (c *canister) adopt(ctx context.Context, st *state, old *host.Program) {
	c.set(st)
	c.query.Lock()
	c.queried = nil
	c.query.Unlock()
	if old != nil {
		if err := old.Close(ctx); err != nil {
			c.r.logf("%v: %v", c.id, err)
		}
	}
}

// uninstall takes module and state away.
func (c *canister) uninstall(ctx context.Context) *host.RejectError {
	c.exec.Lock()
	defer c.exec.Unlock()
	old := c.current.Load()
	c.live = nil
	c.adopt(ctx, &state{controllers: old.controllers, status: old.status, version: old.version + 1}, old.Program)
	if err := c.r.saveNow(c); err != nil {
		return host.Rejectf(host.SysFatal, host.Trapped, "%v", err)
	}
	return nil
}

// remove deletes a canister that has been stopped.
func (r *Replica) remove(ctx context.Context, c *canister) *host.RejectError {
	if st := c.current.Load(); st.status != stopped {
		return host.Rejectf(host.CanisterError, "IC0510", "Canister %v must be stopped before it is deleted", c.id)
	}
	if reject := c.uninstall(ctx); reject != nil {
		return reject
	}
	r.mu.Lock()
	delete(r.canisters, string(c.id))
	delete(r.dirty, c)
	r.mu.Unlock()
	if err := r.forget(c); err != nil {
		return host.Rejectf(host.SysFatal, host.Trapped, "%v", err)
	}
	return nil
}
