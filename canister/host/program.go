package host

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"spinnet/canister/module"
)

// Program is a module, compiled.
type Program struct {
	Wasm     []byte            // as installed
	Hash     [32]byte          // SHA-256 of it
	Metadata map[string][]byte // sections icp:public NAME and icp:private NAME

	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	globals  []string        // exports of mutable globals, the counter apart
	exports  map[string]bool // of functions
}

// Inflate unpacks a module that came in gzip. It refuses what would be larger
// than a module may be.
func Inflate(wasm []byte) ([]byte, error) {
	if !bytes.HasPrefix(wasm, []byte{0x1f, 0x8b}) {
		return wasm, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(wasm))
	if err != nil {
		return nil, fmt.Errorf("the module's gzip: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(r, MaxModule+1))
	if err != nil {
		return nil, fmt.Errorf("the module's gzip: %w", err)
	}
	if len(out) > MaxModule {
		return nil, fmt.Errorf("the module has more than %d MiB", MaxModule>>20)
	}
	return out, nil
}

// Compile makes a program of a module from outside, gzip or not, that counts
// its instructions by costs. It must be closed.
func Compile(ctx context.Context, installed []byte, costs *module.Costs) (*Program, error) {
	wasm, err := Inflate(installed)
	if err != nil {
		return nil, err
	}
	m, err := module.Parse(wasm)
	if err != nil {
		return nil, err
	}
	p := &Program{Wasm: installed, Hash: sha256.Sum256(installed), exports: map[string]bool{}, Metadata: map[string][]byte{}}
	if err := p.inspect(m); err != nil {
		return nil, err
	}
	if err := module.Instrument(m, costs); err != nil {
		return nil, err
	}
	if err := p.findGlobals(m); err != nil {
		return nil, err
	}
	p.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCustomSections(false))
	if _, err := system(p.runtime).Instantiate(ctx); err != nil {
		return nil, errors.Join(err, p.Close(ctx))
	}
	if p.compiled, err = p.runtime.CompileModule(ctx, m.Encode()); err != nil {
		return nil, errors.Join(fmt.Errorf("the module does not validate: %w", err), p.Close(ctx))
	}
	return p, nil
}

// Close frees the program and its instances.
func (p *Program) Close(ctx context.Context) error { return p.runtime.Close(ctx) }

// Globals is the number of a state's globals.
func (p *Program) Globals() int { return len(p.globals) }

// Has reports whether the module exports a function, such as "canister_init".
func (p *Program) Has(export string) bool { return p.exports[export] }

// inspect refuses what cannot run here, and notes exports and metadata.
// module.Measure has all of ICP's rules.
func (p *Program) inspect(m *module.Module) error {
	for _, i := range m.Imports {
		if i.Module != "ic0" || i.Kind != module.KindFunc {
			return fmt.Errorf("the module imports %s.%s; a canister imports functions of ic0 alone", i.Module, i.Name)
		}
		if _, ok := systemCalls[i.Name]; !ok {
			return fmt.Errorf("the module imports ic0.%s, which this replica does not have", i.Name)
		}
	}
	if m.Start != nil {
		return fmt.Errorf("the module has a start function, which this replica does not run: use canister_init")
	}
	if len(m.Memories) != 1 {
		return fmt.Errorf("the module has %d memories, want 1", len(m.Memories))
	}
	for _, d := range m.Data {
		if d.Passive {
			return fmt.Errorf("the module has a passive data segment, which ICP refuses")
		}
	}
	for _, e := range m.Exports {
		if e.Kind == module.KindFunc {
			p.exports[e.Name] = true
		}
	}
	for _, c := range m.Customs {
		if kind, _, ok := strings.Cut(c.Name, " "); ok && (kind == "icp:public" || kind == "icp:private") {
			p.Metadata[c.Name] = c.Bytes
		}
	}
	return nil
}

// State is a canister's memory between two messages. It does not change.
type State struct {
	Program   *Program
	Heap      []*Page
	Globals   []uint64
	Stable    []*Page
	Certified []byte
	Timer     uint64 // nanoseconds since 1970; 0 for none
}

// sameMemory reports whether two states share heap and globals. Each message
// makes new lists, so their first elements tell.
func (s *State) sameMemory(o *State) bool {
	return s != nil && s.Program == o.Program && sameList(s.Heap, o.Heap) && sameList(s.Globals, o.Globals)
}

func sameList[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// findGlobals lists the state of a module besides its memory.
func (p *Program) findGlobals(m *module.Module) error {
	var seen []uint32
	for _, e := range m.Exports {
		if e.Kind != module.KindGlobal || e.Name == module.Counter || slices.Contains(seen, e.Index) {
			continue
		}
		// Imports are functions alone, so indices are those of m.Globals.
		if int(e.Index) >= len(m.Globals) {
			return fmt.Errorf("the export %q is of global %d of %d", e.Name, e.Index, len(m.Globals))
		}
		g := m.Globals[e.Index]
		if !g.Mutable {
			continue
		}
		if g.Type == module.V128 {
			return fmt.Errorf("the module has a global of 128 bits, which this replica cannot roll back")
		}
		seen = append(seen, e.Index)
		p.globals = append(p.globals, e.Name)
	}
	return nil
}

// Instance is a program in memory. It runs one message at a time.
type Instance struct {
	program *Program
	mod     api.Module
	counter api.MutableGlobal
	holds   *State // which it holds, if that is known
}

// Instantiate gives an instance and the state that it begins with. None of the
// module's code has run: canister_init is a message like others.
func (p *Program) Instantiate(ctx context.Context) (*Instance, *State, error) {
	in, err := p.instantiate(ctx)
	if err != nil {
		return nil, nil, err
	}
	st := &State{Program: p, Globals: in.readGlobals()}
	st.Heap, _ = in.capture(nil) // what the data segments made
	in.holds = st
	return in, st, nil
}

func (p *Program) instantiate(ctx context.Context) (*Instance, error) {
	mod, err := p.runtime.InstantiateModule(ctx, p.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, fmt.Errorf("the module cannot be instantiated: %w", err)
	}
	counter, ok := mod.ExportedGlobal(module.Counter).(api.MutableGlobal)
	if !ok {
		return nil, fmt.Errorf("the module has lost its counter")
	}
	return &Instance{program: p, mod: mod, counter: counter}, nil
}

// Acquire gives an instance that holds a state: in, or a new one where in is nil
// or of another program.
func Acquire(ctx context.Context, in *Instance, st *State) (*Instance, error) {
	if in == nil || in.program != st.Program {
		next, err := st.Program.instantiate(ctx)
		if err != nil {
			return nil, err
		}
		in = next
	}
	return in.reset(ctx, st)
}

// memory is the whole linear memory.
func (in *Instance) memory() []byte {
	m := in.mod.Memory()
	b, _ := m.Read(0, m.Size())
	return b
}

func (in *Instance) readGlobals() []uint64 {
	values := make([]uint64, len(in.program.globals))
	for i, name := range in.program.globals {
		values[i] = in.mod.ExportedGlobal(name).Get()
	}
	return values
}

// reset makes the instance hold a state. The memory of an instance only
// grows, so one that grew too far is replaced.
func (in *Instance) reset(ctx context.Context, st *State) (*Instance, error) {
	if in.holds.sameMemory(st) {
		return in, nil
	}
	heap, globals := st.Heap, st.Globals
	if len(in.memory()) > len(heap)*PageSize {
		next, err := in.program.instantiate(ctx)
		if err != nil {
			return nil, err
		}
		if err := in.mod.Close(ctx); err != nil {
			return nil, err
		}
		in = next
	}
	if grow := len(heap)*PageSize - len(in.memory()); grow > 0 {
		if _, ok := in.mod.Memory().Grow(uint32(grow / wasmPage)); !ok {
			return nil, fmt.Errorf("the heap of %d MiB does not fit", len(heap)*PageSize>>20)
		}
	}
	mem := in.memory()
	for i, p := range heap {
		if have := mem[i*PageSize:][:PageSize]; !bytes.Equal(have, p.bytes()) {
			copy(have, p.bytes())
		}
	}
	for i, name := range in.program.globals {
		in.mod.ExportedGlobal(name).(api.MutableGlobal).Set(globals[i])
	}
	in.holds = st
	return in, nil
}

// capture gives the pages after a message: the old ones where nothing
// changed. changed counts the others.
func (in *Instance) capture(old []*Page) (heap []*Page, changed int) {
	mem := in.memory()
	heap = make([]*Page, len(mem)/PageSize)
	copy(heap, old)
	for i := range heap {
		now := mem[i*PageSize:][:PageSize]
		if bytes.Equal(now, heap[i].bytes()) {
			continue
		}
		changed++
		heap[i] = (*Page)(bytes.Clone(now))
	}
	return heap, changed
}
