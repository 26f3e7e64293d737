package replica

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"spinnet/canister/agent"
	"spinnet/canister/candid"
	"spinnet/canister/host"
)

// manage runs a method of the management canister for a caller.
func (r *Replica) manage(ctx context.Context, caller agent.Principal, method string, arg []byte) ([]byte, *host.RejectError) {
	var in agent.Record
	if method != "raw_rand" {
		values, err := agent.DecodeArgs(arg, nil)
		if err != nil {
			return nil, host.Rejectf(host.CanisterError, host.ContractViolation, "%s: %v", method, err)
		}
		if len(values) > 0 {
			in, _ = values[0].(agent.Record)
		}
	}
	var out any
	var reject *host.RejectError
	switch method {
	case "raw_rand":
		b := make([]byte, 32)
		if _, err := rand.Read(b); err != nil {
			return nil, host.Rejectf(host.SysTransient, host.Trapped, "raw_rand: %v", err)
		}
		out = b
	case "provisional_create_canister_with_cycles", "create_canister":
		out, reject = r.createCanister(caller, in)
	default:
		out, reject = r.manageCanister(ctx, caller, method, in)
	}
	if reject == nil {
		r.logf("management %s for %v: ok", method, caller)
		values := []any{out}
		if out == nil {
			values = nil
		}
		reply, err := agent.EncodeArgs(values...)
		if err != nil {
			return nil, host.Rejectf(host.SysFatal, host.Trapped, "%s: %v", method, err)
		}
		return reply, nil
	}
	r.logf("management %s for %v: %s %s", method, caller, reject.ID, reject.Message)
	return nil, reject
}

// manageTarget gives the canister that an argument of the management canister
// is about, as its URL must name it; nil for those about none.
func manageTarget(method string, arg []byte) (agent.Principal, error) {
	switch method {
	case "raw_rand", "provisional_create_canister_with_cycles", "create_canister":
		return nil, nil
	}
	values, err := agent.DecodeArgs(arg, nil)
	if err != nil {
		return nil, err
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("%s without an argument", method)
	}
	in, _ := values[0].(agent.Record)
	return targetOf(method, in)
}

func targetOf(method string, in agent.Record) (agent.Principal, error) {
	field := "canister_id"
	if method == "install_chunked_code" {
		field = "target_canister"
	}
	id, ok := in.Get(field).(agent.Principal)
	if !ok {
		return nil, fmt.Errorf("%s without %s", method, field)
	}
	return id, nil
}

// createCanister makes a canister with settings.
func (r *Replica) createCanister(caller agent.Principal, in agent.Record) (any, *host.RejectError) {
	st := state{controllers: []agent.Principal{slices.Clone(caller)}, status: running}
	if o, ok := in.Get("settings").(agent.Opt); ok && o.Set {
		settings, _ := o.Value.(agent.Record)
		if err := st.apply(settings); err != nil {
			return nil, host.Rejectf(host.CanisterError, host.ContractViolation, "create_canister: %v", err)
		}
	}
	c, reject := r.create(st.controllers)
	if reject != nil {
		return nil, reject
	}
	c.exec.Lock()
	c.set(&st)
	c.exec.Unlock()
	if err := r.saveIndex(); err != nil {
		return nil, host.Rejectf(host.SysFatal, host.Trapped, "%v", err)
	}
	return agent.Record{agent.F("canister_id", c.id)}, nil
}

// manageCanister runs a method about a canister, which takes a controller.
func (r *Replica) manageCanister(ctx context.Context, caller agent.Principal, method string, in agent.Record) (any, *host.RejectError) {
	id, err := targetOf(method, in)
	if err != nil {
		return nil, host.Rejectf(host.CanisterError, host.ContractViolation, "%v", err)
	}
	c, reject := r.find(id)
	if reject != nil {
		return nil, reject
	}
	self := method == "canister_status" && caller.Equal(c.id)
	if !self && !c.current.Load().controls(caller) {
		return nil, host.Rejectf(host.CanisterError, host.NotController, "Only controllers of canister %v can call ic00 method %s; %v is none", c.id, method, caller)
	}
	switch method {
	case "canister_status":
		return c.statusRecord(), nil
	case "fetch_canister_logs":
		return c.logs(), nil
	case "install_code":
		module, _ := in.Get("wasm_module").([]byte)
		return nil, c.install(ctx, caller, in, module)
	case "install_chunked_code":
		module, err := r.assemble(c, in)
		if err != nil {
			return nil, host.Rejectf(host.CanisterError, host.ContractViolation, "install_chunked_code: %v", err)
		}
		return nil, c.install(ctx, caller, in, module)
	case "upload_chunk":
		chunk, _ := in.Get("chunk").([]byte)
		return c.upload(chunk)
	case "clear_chunk_store":
		c.mu.Lock()
		clear(c.chunks)
		c.mu.Unlock()
		return nil, nil
	case "stored_chunks":
		return c.storedChunks(), nil
	case "update_settings":
		settings, _ := in.Get("settings").(agent.Record)
		return nil, c.change(func(st *state) error { return st.apply(settings) })
	case "start_canister":
		return nil, c.change(func(st *state) error { st.status = running; return nil })
	case "stop_canister":
		return nil, c.stop(ctx)
	case "uninstall_code":
		return nil, c.uninstall(ctx)
	case "delete_canister":
		return nil, r.remove(ctx, c)
	case "deposit_cycles", "provisional_top_up_canister":
		return nil, nil // cycles are not counted
	}
	return nil, host.Rejectf(host.DestinationInvalid, host.MethodNotFound, "Management canister has no method '%s' in this replica", method)
}

// change makes a state that differs in a setting.
func (c *canister) change(f func(*state) error) *host.RejectError {
	c.exec.Lock()
	defer c.exec.Unlock()
	st := *c.current.Load()
	if err := f(&st); err != nil {
		return host.Rejectf(host.CanisterError, host.ContractViolation, "%v", err)
	}
	st.version++
	c.set(&st)
	return nil
}

// apply takes over settings: controllers, and the others as they are.
func (s *state) apply(settings agent.Record) error {
	for _, f := range settings {
		o, ok := f.Value.(agent.Opt)
		if !ok {
			return fmt.Errorf("settings: field %d is no opt", f.ID)
		}
		if !o.Set {
			continue
		}
		if f.ID == candid.Hash("controllers") {
			list, ok := o.Value.(agent.Vec)
			if !ok || len(list) > maxControllers {
				return fmt.Errorf("settings: controllers are at most %d principals", maxControllers)
			}
			controllers := []agent.Principal{}
			for _, v := range list {
				p, ok := v.(agent.Principal)
				if !ok {
					return fmt.Errorf("settings: a controller is no principal")
				}
				controllers = append(controllers, slices.Clone(p))
			}
			s.controllers = controllers
		}
	}
	return nil
}

// stop stops a canister when its calls have been answered.
func (c *canister) stop(ctx context.Context) *host.RejectError {
	if reject := c.change(func(st *state) error {
		if st.status == running {
			st.status = stopping
		}
		return nil
	}); reject != nil {
		return reject
	}
	c.exec.Lock()
	var idle chan struct{}
	if c.open > 0 {
		if c.idle == nil {
			c.idle = make(chan struct{})
		}
		idle = c.idle
	}
	c.exec.Unlock()
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
			return host.Rejectf(host.SysTransient, host.CanisterStopping, "the replica ends")
		case <-time.After(stopTimeout):
			return host.Rejectf(host.SysTransient, host.CanisterStopping, "canister %v has not answered its calls in %s", c.id, stopTimeout)
		}
	}
	return c.change(func(st *state) error {
		if st.status == stopping {
			st.status = stopped
		}
		return nil
	})
}

// upload keeps a chunk of a module.
func (c *canister) upload(chunk []byte) (any, *host.RejectError) {
	if len(chunk) > maxChunk {
		return nil, host.Rejectf(host.CanisterError, host.ContractViolation, "a chunk of %d bytes, want at most %d", len(chunk), maxChunk)
	}
	sum := sha256.Sum256(chunk)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.chunks[sum]; !ok && len(c.chunks) >= maxChunkStore {
		return nil, host.Rejectf(host.CanisterError, host.ContractViolation, "the chunk store holds %d chunks, the most it can: clear_chunk_store empties it", maxChunkStore)
	}
	c.chunks[sum] = slices.Clone(chunk)
	return agent.Record{agent.F("hash", sum[:])}, nil
}

func (c *canister) storedChunks() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := agent.Vec{}
	for sum := range c.chunks {
		list = append(list, agent.Record{agent.F("hash", slices.Clone(sum[:]))})
	}
	return list
}

// assemble joins the chunks that an installation names.
func (r *Replica) assemble(target *canister, in agent.Record) ([]byte, error) {
	store := target
	if o, ok := in.Get("store_canister").(agent.Opt); ok && o.Set {
		id, _ := o.Value.(agent.Principal)
		c, reject := r.find(id)
		if reject != nil {
			return nil, reject
		}
		if !slices.EqualFunc(c.current.Load().controllers, target.current.Load().controllers, agent.Principal.Equal) {
			return nil, fmt.Errorf("the store canister %v has other controllers", id)
		}
		store = c
	}
	store.mu.Lock()
	defer store.mu.Unlock()
	list, _ := in.Get("chunk_hashes_list").(agent.Vec)
	var module []byte
	for i, v := range list {
		sum, ok := v.([]byte)
		if rec, isRecord := v.(agent.Record); isRecord {
			sum, ok = rec.Get("hash").([]byte)
		}
		chunk, found := store.chunks[fixed(sum)]
		if !ok || !found {
			return nil, fmt.Errorf("chunk %d, %x, is not in the store", i, sum)
		}
		if module = append(module, chunk...); len(module) > host.MaxModule {
			return nil, fmt.Errorf("the chunks have more than %d MiB", host.MaxModule>>20)
		}
	}
	want, _ := in.Get("wasm_module_hash").([]byte)
	if sum := sha256.Sum256(module); string(want) != string(sum[:]) {
		return nil, fmt.Errorf("the chunks hash to %x, want %x", sum, want)
	}
	return module, nil
}

// statusRecord is the answer to canister_status: every field that the newest
// clients ask for.
func (c *canister) statusRecord() agent.Record {
	st := c.current.Load()
	zero, hash := agent.N(0), agent.None
	wasm := 0
	if st.Program != nil {
		hash = agent.Some(st.Program.Hash[:])
		wasm = len(st.Program.Wasm)
	}
	controllers := agent.Vec{}
	for _, p := range st.controllers {
		controllers = append(controllers, p)
	}
	c.mu.Lock()
	chunks := 0
	for _, chunk := range c.chunks {
		chunks += len(chunk)
	}
	c.mu.Unlock()
	heap, stable := len(st.Heap)*host.PageSize, len(st.Stable)*host.PageSize
	size := func(n int) agent.Nat { return agent.N(uint64(n)) }
	visible := agent.V("controllers", nil)
	return agent.Record{
		agent.F("status", agent.V(st.status.String(), nil)),
		agent.F("memory_size", size(heap+stable+wasm+chunks)),
		agent.F("cycles", agent.N(host.Cycles)),
		agent.F("reserved_cycles", zero),
		agent.F("idle_cycles_burned_per_day", zero),
		agent.F("module_hash", hash),
		agent.F("ready_for_migration", false),
		agent.F("version", st.version),
		agent.F("settings", agent.Record{
			agent.F("controllers", controllers),
			agent.F("compute_allocation", zero),
			agent.F("memory_allocation", zero),
			agent.F("freezing_threshold", agent.N(30*24*3600)),
			agent.F("reserved_cycles_limit", agent.N(5_000_000_000_000)),
			agent.F("wasm_memory_limit", agent.N(3<<30)),
			agent.F("wasm_memory_threshold", zero),
			agent.F("log_visibility", visible),
			agent.F("log_memory_limit", agent.N(maxLog)),
			agent.F("snapshot_visibility", visible),
			agent.F("status_visibility", visible),
			agent.F("minimum_incoming_canister_call_cycles", zero),
			agent.F("environment_variables", agent.Vec{}),
		}),
		agent.F("query_stats", agent.Record{
			agent.F("num_calls_total", zero),
			agent.F("num_instructions_total", zero),
			agent.F("request_payload_bytes_total", zero),
			agent.F("response_payload_bytes_total", zero),
		}),
		agent.F("memory_metrics", agent.Record{
			agent.F("wasm_memory_size", size(heap)),
			agent.F("stable_memory_size", size(stable)),
			agent.F("global_memory_size", size(8*len(st.Globals))),
			agent.F("wasm_binary_size", size(wasm)),
			agent.F("custom_sections_size", zero),
			agent.F("canister_history_size", zero),
			agent.F("wasm_chunk_store_size", size(chunks)),
			agent.F("snapshots_size", zero),
			agent.F("log_memory_store_size", zero),
		}),
	}
}
