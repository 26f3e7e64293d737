// Package host runs a canister's module as the Internet Computer (ICP) would
// run one message at a time: it gives the functions of ic0, counts instructions
// by ICP's table, stops a message at its limit, and takes back everything that
// a message did when it traps, or when it was a query. The engine is wazero.
//
// Other canisters are a function, Others. Cycles, timers and certified data are
// not here: a module that imports those functions does not load.
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"spinnet/canister/module"
)

// pageBits are those of the size of a page: module.PageSize.
const pageBits = 12

// Canister is a module with its memory. It serves one message at a time.
type Canister struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	instance api.Module
	counter  api.MutableGlobal
	methods  map[string]bool
	names    []string // of its mutable globals
	globals  []api.MutableGlobal

	// What the last message that was kept left behind.
	memory []byte
	values []uint64
	stable []byte

	StableLimit uint64                      // most bytes of stable memory
	Time        func() time.Time            // what ic0.time says
	Print       func(text []byte)           // what ic0.debug_print does; nil drops it
	Controller  func(principal []byte) bool // what ic0.is_controller says; nil says no
	Other       Others                      // other canisters; nil is Management
	ID          []byte                      // what ic0.canister_self says

	call      *call             // the message at hand
	undo      map[uint64][]byte // pages of stable memory before it
	oldStable uint64            // its size before it
}

// Message is one call of an export.
type Message struct {
	Export string // such as "canister_update generate"
	Arg    []byte
	Caller []byte // principal; nil is the anonymous one
	Limit  uint64 // of instructions; 0 is that of the kind of call
}

// Reply is what a message gave.
type Reply struct {
	Data         []byte
	Rejected     bool   // it called msg_reject; Data is the text
	Instructions uint64 // by ICP's table
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

// call is the message that runs, with the answers to its calls.
type call struct {
	Message
	reply    []byte
	answered bool
	rejected bool
	trap     string
	spent    uint64 // by what ran before
	mayReply bool
	query    bool

	building *outcall
	out      []*outcall
	code     uint32 // why another canister did not answer
	text     []byte
}

// Load compiles a module, meters it by costs and instantiates it. It runs none
// of its code: canister_init is a message like others.
func Load(ctx context.Context, wasm []byte, costs *module.Costs) (*Canister, error) {
	m, err := module.Parse(wasm)
	if err != nil {
		return nil, err
	}
	if m.Start != nil {
		return nil, errors.New("host: the module has a start function, which is not supported")
	}
	if len(m.Memories) == 0 {
		return nil, errors.New("host: the module has no memory")
	}
	if err := module.Instrument(m, costs); err != nil {
		return nil, err
	}
	c := &Canister{StableLimit: 4 << 30, Time: time.Now, methods: map[string]bool{}}
	imported := m.Imported(module.KindGlobal)
	for _, e := range m.Exports {
		switch {
		case e.Kind == module.KindFunc:
			c.methods[e.Name] = true
		case e.Kind == module.KindGlobal && e.Name != module.Counter && e.Index >= imported && m.Globals[e.Index-imported].Mutable:
			c.names = append(c.names, e.Name)
		}
	}
	c.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCloseOnContextDone(false))
	if err := c.imports(ctx); err != nil {
		return nil, err
	}
	if c.compiled, err = c.runtime.CompileModule(ctx, m.Encode()); err != nil {
		c.Close(ctx)
		return nil, fmt.Errorf("host: %w", err)
	}
	if err := c.instantiate(ctx); err != nil {
		c.Close(ctx)
		return nil, err
	}
	c.save()
	return c, nil
}

// Close frees the canister.
func (c *Canister) Close(ctx context.Context) error { return c.runtime.Close(ctx) }

// Stable gives the stable memory. It is the canister's own: do not change it.
func (c *Canister) Stable() []byte { return c.stable }

// SetStable gives the canister a stable memory, before an upgrade for example.
func (c *Canister) SetStable(b []byte) { c.stable = b }

func (c *Canister) instantiate(ctx context.Context) error {
	var err error
	c.instance, err = c.runtime.InstantiateModule(ctx, c.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	c.counter = c.instance.ExportedGlobal(module.Counter).(api.MutableGlobal)
	c.globals = c.globals[:0]
	for _, name := range c.names {
		c.globals = append(c.globals, c.instance.ExportedGlobal(name).(api.MutableGlobal))
	}
	return nil
}

func (c *Canister) heap() []byte {
	b, _ := c.instance.Memory().Read(0, c.instance.Memory().Size())
	return b
}

// save makes the state what a later trap goes back to. It gives the number of
// changed pages.
func (c *Canister) save() int {
	heap, changed := c.heap(), 0
	if len(c.memory) < len(heap) {
		c.memory = append(c.memory, make([]byte, len(heap)-len(c.memory))...)
	}
	for at := 0; at < len(heap); at += module.PageSize {
		if old, now := c.memory[at:at+module.PageSize], heap[at:at+module.PageSize]; !bytes.Equal(old, now) {
			copy(old, now)
			changed++
		}
	}
	c.values = c.values[:0]
	for _, g := range c.globals {
		c.values = append(c.values, g.Get())
	}
	return changed
}

// restore goes back to what was saved.
func (c *Canister) restore(ctx context.Context) error {
	if len(c.heap()) != len(c.memory) {
		c.instance.Close(ctx)
		if err := c.instantiate(ctx); err != nil {
			return err
		}
		mem := c.instance.Memory()
		if _, ok := mem.Grow(uint32((len(c.memory) - len(c.heap())) >> 16)); !ok {
			return errors.New("host: no memory to go back to the state before a trap")
		}
	}
	heap := c.heap()
	for at := 0; at < len(heap); at += module.PageSize {
		if old, now := c.memory[at:at+module.PageSize], heap[at:at+module.PageSize]; !bytes.Equal(old, now) {
			copy(now, old)
		}
	}
	for i, g := range c.globals {
		g.Set(c.values[i])
	}
	c.stable = c.stable[:c.oldStable]
	for page, old := range c.undo {
		if old != nil { // it was there before
			copy(c.stable[page<<pageBits:], old)
		}
	}
	return nil
}

// Call runs a message, with the answers to the calls that it makes. A trap is a
// *TrapError; other errors are the host's.
func (c *Canister) Call(ctx context.Context, msg Message) (Reply, error) {
	if !c.methods[msg.Export] {
		return Reply{}, fmt.Errorf("host: the canister has no method %q", msg.Export)
	}
	query := strings.HasPrefix(msg.Export, "canister_query ") || strings.HasPrefix(msg.Export, "canister_composite_query ")
	update := strings.HasPrefix(msg.Export, "canister_update ")
	if msg.Limit == 0 {
		switch {
		case query:
			msg.Limit = module.QueryLimit
		case update:
			msg.Limit = module.UpdateLimit
		default:
			msg.Limit = module.InstallLimit
		}
	}
	if msg.Caller == nil {
		msg.Caller = []byte{4}
	}
	c.call = &call{Message: msg, mayReply: query || update, query: query}
	defer func() { c.call = nil }()
	var reply Reply
	err := c.execute(ctx, &reply, c.instance.ExportedFunction(msg.Export))
	for err == nil && len(c.call.out) > 0 {
		out := c.call.out[0]
		c.call.out = c.call.out[1:]
		err = c.answer(ctx, &reply, out)
	}
	reply.Data, reply.Rejected = c.call.reply, c.call.rejected
	if trap := (*TrapError)(nil); errors.As(err, &trap) && c.call.answered { // after the answer
		err = nil
	}
	if err != nil {
		reply.Data = nil
	}
	return reply, err
}

// execute runs one function as a message and adds what it took to reply. If it
// traps the state is as before it.
func (c *Canister) execute(ctx context.Context, reply *Reply, f api.Function, args ...uint64) error {
	c.undo, c.oldStable = map[uint64][]byte{}, uint64(len(c.stable))
	before := *c.call
	c.counter.Set(c.call.Limit)
	_, err := f.Call(ctx, args...)
	left := int64(c.counter.Get())
	spent := c.call.Limit - uint64(left)
	reply.Instructions += spent
	before.spent += spent
	c.call.spent = before.spent
	if err == nil && c.call.mayReply && !c.call.answered && len(c.call.out) == 0 {
		c.call.trap, err = "it did not reply", errors.New("no reply")
	}
	if err != nil {
		trap := &TrapError{Message: c.call.trap, Instructions: reply.Instructions}
		if left < 0 {
			trap.Message, trap.OutOfLimit = fmt.Sprintf("it exceeded the limit of %d instructions", c.call.Limit), true
		} else if trap.Message == "" {
			trap.Message = firstLine(err.Error())
		}
		*c.call = before // nor did it answer or call anyone
		return errors.Join(trap, c.restore(ctx))
	}
	if c.call.query {
		return c.restore(ctx)
	}
	reply.StablePages += len(c.undo)
	reply.HeapPages += c.save()
	return nil
}

// CallExport runs an export that is no message, such as one for tests, with
// arguments and a result as they are; what it changes stays. It gives the
// instructions beside the result.
func (c *Canister) CallExport(ctx context.Context, name string, args ...uint64) ([]uint64, uint64, error) {
	f := c.instance.ExportedFunction(name)
	if f == nil {
		return nil, 0, fmt.Errorf("host: the module exports no function %q", name)
	}
	c.call = &call{Message: Message{Limit: module.InstallLimit}}
	c.undo, c.oldStable = map[uint64][]byte{}, uint64(len(c.stable))
	defer func() { c.call = nil }()
	c.counter.Set(module.InstallLimit)
	res, err := f.Call(ctx, args...)
	n := module.InstallLimit - c.counter.Get()
	if err != nil {
		if c.call.trap != "" {
			err = errors.New(c.call.trap)
		}
		return nil, n, errors.Join(fmt.Errorf("host: %s: %w", name, err), c.restore(ctx))
	}
	c.save()
	return res, n, nil
}

// Read gives n bytes of the heap, or false outside it.
func (c *Canister) Read(address, n uint32) ([]byte, bool) {
	return c.instance.Memory().Read(address, n)
}

// Write changes the heap.
func (c *Canister) Write(address uint32, b []byte) bool {
	return c.instance.Memory().Write(address, b)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
