package module

import "fmt"

// Counter is the exported global that Instrument adds, as ICP names it. It
// counts down; below zero the module traps.
const Counter = "canister counter_instructions"

// GlobalPrefix begins the names under which Instrument exports the module's
// mutable globals, so that a host can save them and put them back.
const GlobalPrefix = "__persistent_mutable_global_"

// injection is code that counts, to be put before position at.
type injection struct {
	at    int
	cost  uint64
	check bool // trap below zero: at the start of functions and loops
	size  bool // count the size on the stack, of a bulk instruction
}

// injections finds where a body counts, as `injections` of ICP's
// instrumentation.rs does, so that the counter holds at every call what it
// would hold there: each basic block is paid at its start, an empty function
// costs 1, and bulk instructions pay their size just before.
func injections(code []byte, costs *Costs) []injection {
	var out []injection
	cur := injection{cost: 1, check: true}
	cut := func(at int, check bool) {
		if cur.check || cur.cost > 0 {
			out = append(out, cur)
		}
		cur = injection{at: at, check: check}
	}
	var bulk []injection // within the current block
	each(code, func(in instr) {
		cur.cost += uint64(costs[in.op])
		switch in.op {
		case opLoop:
			cut(in.end, true)
		case opIf, opElse, opBr, opBrIf, opBrTable, opEnd, opReturn, opUnreachable, opReturnCall, opReturnCallIndirect:
			cut(in.end, false)
		case opMemoryFill, opMemoryCopy, opMemoryInit, opTableFill, opTableCopy, opTableInit:
			bulk = append(bulk, injection{at: in.pos, size: true})
			return
		default:
			return
		}
		out = append(out, bulk...)
		bulk = bulk[:0]
	})
	return out
}

// Instrument makes the module count what it executes by the table costs. The
// counter is a mutable global of type i64, exported as Counter, which the host
// sets before a call; what it is less after the call is the number of
// instructions. A function or a loop that begins with the counter below zero
// executes `unreachable`. All other mutable globals are exported too.
func Instrument(m *Module, costs *Costs) error {
	for _, e := range m.Exports {
		if e.Name == Counter {
			return fmt.Errorf("module: it exports %q already: it is instrumented", Counter)
		}
	}
	exported := map[uint32]bool{}
	for _, e := range m.Exports {
		exported[e.Index] = exported[e.Index] || e.Kind == KindGlobal
	}
	imported := m.Imported(KindGlobal)
	for i, g := range m.Globals {
		if index := imported + uint32(i); g.Mutable && !exported[index] {
			m.Exports = append(m.Exports, Export{fmt.Sprint(GlobalPrefix, index), KindGlobal, index})
		}
	}
	counter := m.AddGlobal(0)
	m.Exports = append(m.Exports, Export{Counter, KindGlobal, counter})

	// The function that pays for a size and gives it back.
	const i64ExtendI32U, i64LtS, i64Sub, empty = 0xad, 0x53, 0x7d, 0x40
	check := new(Code).GlobalGet(counter).I64(0).Op(i64LtS, opIf, empty, opUnreachable, opEnd).b
	pay := new(Code).GlobalGet(counter).LocalGet(0).Op(i64ExtendI32U, i64Sub).GlobalSet(counter).Op(check...).LocalGet(0)
	n := len(m.Funcs)
	size := m.AddFunc(m.AddType([]ValType{I32}, []ValType{I32}), nil, pay)

	for i := range m.Funcs[:n] {
		code := m.Funcs[i].Code
		points := injections(code, costs)
		out := Code{b: make([]byte, 0, len(code)+14*len(points))}
		copied := 0
		for _, p := range points {
			out.Op(code[copied:p.at]...)
			copied = p.at
			if p.size {
				out.Call(size)
				continue
			}
			out.GlobalGet(counter).I64(int64(p.cost)).Op(i64Sub).GlobalSet(counter)
			if p.check {
				out.Op(check...)
			}
		}
		m.Funcs[i].Code = append(out.b, code[copied:]...)
	}
	return nil
}
