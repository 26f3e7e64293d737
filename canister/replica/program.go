package replica

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

// program is a module, compiled.
type program struct {
	wasm     []byte // as installed
	hash     [32]byte
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	globals  []string // exports of mutable globals, the counter apart
	methods  map[string]bool
	metadata map[string][]byte // icp:public NAME and icp:private NAME
}

// inflate unpacks a module that came in gzip. It refuses what would be larger
// than a module may be.
func inflate(wasm []byte) ([]byte, error) {
	if !bytes.HasPrefix(wasm, []byte{0x1f, 0x8b}) {
		return wasm, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(wasm))
	if err != nil {
		return nil, fmt.Errorf("the module's gzip: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("the module's gzip: %w", err)
	}
	return out, nil
}

// compile makes a program of a module from outside, gzip or not.
func compile(ctx context.Context, installed []byte) (*program, error) {
	wasm, err := inflate(installed)
	if err != nil {
		return nil, err
	}
	if len(wasm) > maxModule {
		return nil, fmt.Errorf("the module has more than %d MiB", maxModule>>20)
	}
	m, err := module.Parse(wasm)
	if err != nil {
		return nil, err
	}
	p := &program{wasm: installed, hash: sha256.Sum256(installed), methods: map[string]bool{}, metadata: map[string][]byte{}}
	if err := p.inspect(m); err != nil {
		return nil, err
	}
	if err := module.Instrument(m, module.ICP); err != nil {
		return nil, err
	}
	if err := p.findGlobals(m); err != nil {
		return nil, err
	}
	p.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCustomSections(false))
	if _, err := system(p.runtime).Instantiate(ctx); err != nil {
		return nil, errors.Join(err, p.close(ctx))
	}
	if p.compiled, err = p.runtime.CompileModule(ctx, m.Encode()); err != nil {
		return nil, errors.Join(fmt.Errorf("the module does not validate: %w", err), p.close(ctx))
	}
	return p, nil
}

func (p *program) close(ctx context.Context) error { return p.runtime.Close(ctx) }

// inspect checks what only ICP asks of a module, and notes methods and
// metadata.
func (p *program) inspect(m *module.Module) error {
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
	if len(m.Memories) > 1 {
		return fmt.Errorf("the module has %d memories, want at most 1", len(m.Memories))
	}
	for _, d := range m.Data {
		if d.Passive {
			return fmt.Errorf("the module has a passive data segment, which ICP refuses")
		}
	}
	for _, e := range m.Exports {
		if e.Kind != module.KindFunc || !strings.HasPrefix(e.Name, "canister_") {
			continue
		}
		t, err := m.FuncType(e.Index)
		if err != nil {
			return err
		}
		if len(t.Params)+len(t.Results) != 0 {
			return fmt.Errorf("the export %q has parameters or results", e.Name)
		}
		if _, method, ok := strings.Cut(e.Name, " "); ok {
			for _, kind := range []string{"update", "query", "composite_query"} {
				if p.methods["canister_"+kind+" "+method] {
					return fmt.Errorf("the method %q is exported twice", method)
				}
			}
		}
		p.methods[e.Name] = true
	}
	size := 0
	for _, c := range m.Customs {
		if kind, _, ok := strings.Cut(c.Name, " "); ok && (kind == "icp:public" || kind == "icp:private") {
			p.metadata[c.Name] = c.Bytes
			size += len(c.Name) + len(c.Bytes)
		}
	}
	if size > maxCustomSection {
		return fmt.Errorf("the module has %d bytes of metadata, want at most %d", size, maxCustomSection)
	}
	return nil
}

// findGlobals lists the state of a module besides its memory.
func (p *program) findGlobals(m *module.Module) error {
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

// instance is a program in memory.
type instance struct {
	program *program
	mod     api.Module
	counter api.MutableGlobal
	holds   *state // which it holds, if that is known
}

func (p *program) instantiate(ctx context.Context) (*instance, error) {
	mod, err := p.runtime.InstantiateModule(ctx, p.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, fmt.Errorf("the module cannot be instantiated: %w", err)
	}
	counter, ok := mod.ExportedGlobal(module.Counter).(api.MutableGlobal)
	if !ok {
		return nil, fmt.Errorf("the module has lost its counter")
	}
	return &instance{program: p, mod: mod, counter: counter}, nil
}

// memory is the whole linear memory, or nothing without one.
func (in *instance) memory() []byte {
	m := in.mod.Memory()
	if m == nil {
		return nil
	}
	b, _ := m.Read(0, m.Size())
	return b
}

func (in *instance) readGlobals() []uint64 {
	values := make([]uint64, len(in.program.globals))
	for i, name := range in.program.globals {
		values[i] = in.mod.ExportedGlobal(name).Get()
	}
	return values
}

// reset makes the instance hold a state. The memory of an instance only
// grows, so one that grew too far is replaced.
func (in *instance) reset(ctx context.Context, st *state) (*instance, error) {
	if in.holds == st {
		return in, nil
	}
	heap, globals := st.heap, st.globals
	if len(in.memory()) > len(heap)*pageSize {
		next, err := in.program.instantiate(ctx)
		if err != nil {
			return nil, err
		}
		if err := in.mod.Close(ctx); err != nil {
			return nil, err
		}
		in = next
	}
	if grow := len(heap)*pageSize - len(in.memory()); grow > 0 {
		if _, ok := in.mod.Memory().Grow(uint32(grow / wasmPage)); !ok {
			return nil, fmt.Errorf("the heap of %d MiB does not fit", len(heap)*pageSize>>20)
		}
	}
	mem := in.memory()
	for i, p := range heap {
		if have := mem[i*pageSize:][:pageSize]; !bytes.Equal(have, p.bytes()) {
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
func (in *instance) capture(old []*page) (heap []*page, changed int) {
	mem := in.memory()
	heap = make([]*page, len(mem)/pageSize)
	copy(heap, old)
	for i := range heap {
		now := mem[i*pageSize:][:pageSize]
		if bytes.Equal(now, heap[i].bytes()) {
			continue
		}
		changed++
		heap[i] = (*page)(bytes.Clone(now))
	}
	return heap, changed
}
