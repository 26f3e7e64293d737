package module

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Figure is one property of a module beside what ICP accepts at most.
type Figure struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
	Limit uint64 `json:"limit"`
}

// CompileFigure names the figure that an installation pays.
const CompileFigure = "instructions to compile it"

// systemMethods are the exports named canister_… that are no methods.
var systemMethods = []string{"canister_init", "canister_pre_upgrade", "canister_post_upgrade", "canister_inspect_message",
	"canister_heartbeat", "canister_global_timer", "canister_on_low_wasm_memory"}

// Measure gives every figure of a module that ICP limits, and an error that
// names each rule it breaks. wasm is m encoded. The limits and rules are those
// of rs/embedders/src/wasm_utils/validation.rs and rs/config/src/embedders.rs
// in github.com/dfinity/ic, and of the parser used there for local variables
// and data segments. Parse has refused what ICP does not decode: threads,
// further memories, 64-bit memory; relaxed SIMD is refused here.
func Measure(m *Module, wasm []byte) ([]Figure, error) {
	var errs []error
	broken := func(format string, args ...any) { errs = append(errs, fmt.Errorf("module: "+format, args...)) }

	var instructions, longest, hardest, locals, relaxed uint64
	for _, f := range m.Funcs {
		var n, complexity, own uint64
		each(f.Code, func(in instr) {
			n++
			complexity += uint64(complexities[in.op])
			if in.op >= simdRelaxed {
				relaxed++
			}
		})
		r := reader{b: f.Locals}
		r.vector(func() {
			own += uint64(r.u32())
			r.byte()
		})
		instructions += n
		longest, hardest, locals = max(longest, n), max(hardest, complexity), max(locals, own)
	}
	if relaxed > 0 {
		broken("it has %d relaxed SIMD instructions, which ICP refuses", relaxed)
	}

	methods, names := uint64(0), uint64(0)
	seen := map[string]bool{}
	for _, e := range m.Exports {
		if e.Kind != KindFunc || !strings.HasPrefix(e.Name, "canister") {
			continue
		}
		kind, name, isMethod := strings.Cut(e.Name, " ")
		isMethod = isMethod && slices.Contains([]string{"canister_update", "canister_query", "canister_composite_query"}, kind)
		switch {
		case isMethod && seen[name]:
			broken("method %s is exported twice", name)
		case isMethod:
			seen[name] = true
			methods++
			names += uint64(len(name))
		case e.Name == Counter || e.Name == "canister_start":
			broken("it exports %q, which is reserved", e.Name)
		case !strings.HasPrefix(e.Name, "canister_"):
			continue
		case !slices.Contains(systemMethods, e.Name):
			broken("it exports %q: names beginning with canister_ are reserved", e.Name)
		}
		if t, err := m.FuncType(e.Index); err != nil || len(t.Params)+len(t.Results) > 0 {
			broken("%s has parameters or results", e.Name)
		}
	}
	for _, im := range m.Imports {
		if _, known := SystemCalls[im.Name]; im.Kind != KindFunc || im.Module != "ic0" || !known {
			broken("it imports %s.%s, which ICP does not have", im.Module, im.Name)
		}
	}

	customs, customBytes := uint64(0), uint64(0)
	for _, c := range m.Customs {
		rest, ok := strings.CutPrefix(c.Name, "icp:")
		if !ok {
			continue
		}
		scope, name, spaced := strings.Cut(rest, " ")
		if !spaced || scope != "public" && scope != "private" {
			broken("custom section %q is neither icp:public nor icp:private", c.Name)
		}
		customs++
		customBytes += uint64(len(c.Bytes) + len(name))
	}

	heap, dataEnd, dataBytes := uint64(0), uint64(0), uint64(0)
	if len(m.Memories) > 0 {
		heap = m.Memories[0].Min << 16
	}
	for i, d := range m.Data {
		at, ok := d.offset()
		if !d.Passive && !ok {
			broken("data segment %d has no constant address", i)
		}
		if !d.Passive {
			dataEnd = max(dataEnd, uint64(at)+uint64(len(d.Bytes)))
		}
		dataBytes += uint64(len(d.Bytes))
	}
	if dataEnd > heap {
		broken("data ends at %d, outside the memory of %d bytes that it begins with", dataEnd, heap)
	}

	figures := []Figure{
		{"module bytes", uint64(len(wasm)), 100 << 20},
		{"code section bytes", uint64(len(m.CodeSection())), 10 << 20},
		{"functions", uint64(len(m.Funcs)), 50_000},
		{"globals", uint64(len(m.Globals)), 1_000},
		{"instructions of the longest function", longest, 1_000_000},
		{"complexity of the hardest function", hardest, 1_000_000},
		{"local variables of a function", locals, 50_000},
		{"methods", methods, 1_000},
		{"bytes of method names", names, 20_000},
		{"custom sections", customs, 16},
		{"bytes of custom sections", customBytes, 1 << 20},
		{"data segments", uint64(len(m.Data)), 100_000},
		{"heap bytes at the start", heap, 4 << 30},
		{CompileFigure, instructions * CompiledInstruction, InstallLimit},
	}
	for _, f := range figures {
		if f.Value > f.Limit {
			broken("%s: %d, and ICP accepts %d", f.Name, f.Value, f.Limit)
		}
	}
	return figures, errors.Join(errs...)
}

// complexities weighs instructions as wasm_function_complexity of
// validation.rs does.
var complexities = newComplexities()

func newComplexities() *[opCount]uint8 {
	var c [opCount]uint8
	span := func(weight uint8, first, last Op) {
		for op := first; op <= last; op++ {
			c[op] = weight
		}
	}
	set := func(weight uint8, ops ...Op) {
		for _, op := range ops {
			c[op] = weight
		}
	}
	span(1, 0, opCount-1)
	set(50, opBlock, opLoop, opIf, opBr, opBrIf, opBrTable, opCall, opCallIndirect, opMemoryGrow, opTableGrow)
	set(14, opTableGet)
	set(8, opRefFunc)
	set(7, opTableSet)
	set(6, opRefIsNull)
	span(3, 0x28, 0x35) // loads
	span(2, 0x36, 0x3e) // stores
	span(2, 0x45, 0x66) // comparisons
	set(3, 0x61)        // f64.eq
	set(2, opGlobalGet, opSelect, opMemorySize, 0x69, 0x7b)
	span(3, 0x6d, 0x70) // i32 division
	span(3, 0x7f, 0x82) // i64 division
	set(4, 0x8b, 0x8c, 0x99, 0x9a)
	set(2, 0x8d, 0x8e, 0x8f, 0x91, 0x9b, 0x9c, 0x9d, 0x9f) // rounding, square roots
	set(3, 0x98, 0xa6)                                     // copysign
	span(5, 0xa8, 0xba)                                    // conversions
	set(2, 0xa7, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4)
	span(3, misc, misc+7)
	set(5, opTableFill)
	set(4, opTableCopy, opTableInit, opMemoryCopy)
	set(3, opMemoryFill)
	return &c
}
