package link

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"spinnet/canister/module"
)

// Opcodes of the stubs.
const (
	opUnreachable = 0x00
	opBlock       = 0x02
	opLoop        = 0x03
	opIf          = 0x04
	opEnd         = 0x0b
	opBr          = 0x0c
	opBrIf        = 0x0d
	opI32Load     = 0x28
	opI64Load     = 0x29
	opI32Load8U   = 0x2d
	opI32Store    = 0x36
	opI64Store    = 0x37
	opI32Store8   = 0x3a
	opI64Store8   = 0x3c
	opI32Eqz      = 0x45
	opI32Eq       = 0x46
	opI32LtU      = 0x49
	opI32Add      = 0x6a
	opI32Sub      = 0x6b
	opI32Or       = 0x72
	opI64Add      = 0x7c
	opI64Mul      = 0x7e
	opI64Xor      = 0x85
	opI64ShrU     = 0x88
	opI32WrapI64  = 0xa7

	empty = 0x40 // the type of a block without a result
)

// The text of a panic is kept at the foot of memory, where Go puts nothing: it
// compares pointers below 4096 with nil.
const (
	panicText = 16
	panicMost = 1024
)

// ebadf is the error of a file that is not open. Go's start asks for open
// folders until it gets it.
const ebadf = 8

// imports of ic0 that the stubs need.
var needed = []module.Import{
	{Module: "ic0", Name: "debug_print"},
	{Module: "ic0", Name: "time"},
	{Module: "ic0", Name: "trap"},
}

// bind replaces the functions of WASI, which Go's runtime imports, by functions
// inside the module: there are no arguments, no environment and no files, the
// clock is ic0.time plus the time waited, what is printed goes to
// ic0.debug_print, and a panic's text to ic0.trap. Random numbers are a fixed
// sequence, since all replicas of a canister must agree; they seed Go's maps
// only.
func bind(m *module.Module) error {
	isWASI := func(im module.Import) bool { return im.Module == "wasi_snapshot_preview1" }
	old := m.Imports
	kept := slices.DeleteFunc(slices.Clone(old), isWASI)
	signatures := [][2][]module.ValType{{{module.I32, module.I32}, nil}, {nil, {module.I64}}, {{module.I32, module.I32}, nil}}
	host := map[string]uint32{}
	for i, im := range needed {
		at := slices.IndexFunc(kept, func(k module.Import) bool { return k.Module == im.Module && k.Name == im.Name })
		if at < 0 {
			im.Type = m.AddType(signatures[i][0], signatures[i][1])
			at, kept = len(kept), append(kept, im)
		}
		host[im.Name] = uint32(at)
	}
	names, err := m.FuncNames()
	if err != nil {
		return err
	}
	abort, exit := names["runtime.abort"], uint32(0)
	index := make([]uint32, len(old)) // of each old import
	next := uint32(0)
	stub := uint32(len(kept) + len(m.Funcs))
	for i, im := range old {
		switch {
		case im.Kind != module.KindFunc:
			return fmt.Errorf("link: the module imports %s.%s, which is not a function", im.Module, im.Name)
		case isWASI(im):
			index[i] = stub
			stub++
		case im.Module == "ic0":
			index[i] = next
			next++
		default:
			return fmt.Errorf("link: the module imports %s.%s, which neither ICP nor the page has", im.Module, im.Name)
		}
	}
	m.MapFuncs(func(f uint32) uint32 {
		if int(f) < len(old) {
			return index[f]
		}
		return f - uint32(len(old)) + uint32(len(kept))
	})
	m.Imports = kept
	w := wasi{host: host, random: m.AddGlobal(0x1234_5678_9abc_def), clock: m.AddGlobal(0), text: m.AddGlobal(0)}
	for _, im := range old {
		if isWASI(im) {
			locals, code := w.stub(im.Name)
			index := m.AddFunc(im.Type, locals, code)
			if im.Name == "proc_exit" {
				exit = index
			}
		}
	}
	// After a panic Go ends a program with an exit and a library, which is what
	// it calls a module without main, with an abort. Ours shall exit, whose trap
	// has a text.
	if abort < uint32(len(old)) || exit == 0 {
		return errors.New("link: there is no runtime.abort or no proc_exit: this is not the Go that the link step knows")
	}
	f := &m.Funcs[abort-uint32(len(old))]
	*f = module.NewFunc(f.Type, nil, new(module.Code).I32(2).Call(exit).Op(opUnreachable))
	return nil
}

// wasi writes the stubs. random, clock and text are globals: the state of the
// random numbers, how far the clock is before ic0.time in nanoseconds, and the
// length of the text at panicText.
type wasi struct {
	host                map[string]uint32
	random, clock, text uint32
}

// stub gives the local variables and the code of one function of WASI.
func (w wasi) stub(name string) ([]module.ValType, *module.Code) {
	c := new(module.Code)
	switch name {
	case "args_sizes_get", "environ_sizes_get": // (count, bytes *u32)
		return nil, c.LocalGet(0).I32(0).Mem(opI32Store, 0).LocalGet(1).I32(0).Mem(opI32Store, 0).I32(0)
	case "args_get", "environ_get", "sched_yield":
		return nil, c.I32(0)
	case "clock_time_get": // (id, precision u64, result *u64)
		// Readings within a message differ, or a loop that waits would not end.
		c.GlobalGet(w.clock).I64(1).Op(opI64Add).GlobalSet(w.clock)
		return nil, c.LocalGet(2).Call(w.host["time"]).GlobalGet(w.clock).Op(opI64Add).Mem(opI64Store, 0).I32(0)
	case "random_get": // (buf, n): splitmix64, a byte of each number
		const z = 2
		xorShift := func(n int64) { c.LocalGet(z).LocalGet(z).I64(n).Op(opI64ShrU, opI64Xor) }
		c.Op(opBlock, empty, opLoop, empty)
		c.LocalGet(1).Op(opI32Eqz, opBrIf, 1)
		c.GlobalGet(w.random).I64(-0x61c8864680b583eb).Op(opI64Add).GlobalSet(w.random)
		c.GlobalGet(w.random).LocalSet(z)
		xorShift(30)
		c.I64(-0x40a7b892e31b1a47).Op(opI64Mul).LocalSet(z)
		xorShift(27)
		c.I64(-0x6b2fb644ecceee15).Op(opI64Mul).LocalSet(z)
		c.LocalGet(0)
		xorShift(31)
		c.Mem(opI64Store8, 0)
		c.LocalGet(0).I32(1).Op(opI32Add).LocalSet(0)
		c.LocalGet(1).I32(1).Op(opI32Sub).LocalSet(1)
		return []module.ValType{module.I64}, c.Op(opBr, 0, opEnd, opEnd).I32(0)
	case "fd_write": // (fd, iovs, n, written *u32)
		return w.write(c)
	case "proc_exit":
		return nil, c.I32(panicText).GlobalGet(w.text).Op(opI32WrapI64).Call(w.host["trap"]).Op(opUnreachable)
	case "poll_oneoff": // (subscription, event *, n, events *u32)
		// Nothing else runs, so waiting is to put the clock on by the timeout.
		c.GlobalGet(w.clock).LocalGet(0).Mem(opI64Load, 24).Op(opI64Add).GlobalSet(w.clock)
		return nil, c.LocalGet(3).I32(1).Mem(opI32Store, 0).I32(0)
	}
	return nil, c.I32(ebadf)
}

// write prints each piece and appends it to the text that a trap would show,
// which begins anew at "panic" and "fatal".
func (w wasi) write(c *module.Code) ([]module.ValType, *module.Code) {
	const iovs, n, written, total, at, left = 1, 2, 3, 4, 5, 6
	first := func(word string) {
		c.LocalGet(at).Mem(opI32Load, 0).I32(int32(word[0]) | int32(word[1])<<8 | int32(word[2])<<16 | int32(word[3])<<24).Op(opI32Eq)
	}
	c.Op(opBlock, empty, opLoop, empty)
	c.LocalGet(n).Op(opI32Eqz, opBrIf, 1)
	c.LocalGet(iovs).Mem(opI32Load, 0).LocalSet(at)
	c.LocalGet(iovs).Mem(opI32Load, 4).LocalSet(left)
	c.LocalGet(at).LocalGet(left).Call(w.host["debug_print"])
	c.LocalGet(total).LocalGet(left).Op(opI32Add).LocalSet(total)
	first("pani")
	first("fata")
	c.Op(opI32Or, opIf, empty).I64(0).GlobalSet(w.text).Op(opEnd)
	c.Op(opBlock, empty, opLoop, empty)
	c.LocalGet(left).Op(opI32Eqz, opBrIf, 1)
	c.GlobalGet(w.text).Op(opI32WrapI64).I32(panicMost).Op(opI32LtU, opI32Eqz, opBrIf, 1)
	c.GlobalGet(w.text).Op(opI32WrapI64).LocalGet(at).Mem(opI32Load8U, 0).Mem(opI32Store8, panicText)
	c.GlobalGet(w.text).I64(1).Op(opI64Add).GlobalSet(w.text)
	c.LocalGet(at).I32(1).Op(opI32Add).LocalSet(at)
	c.LocalGet(left).I32(1).Op(opI32Sub).LocalSet(left)
	c.Op(opBr, 0, opEnd, opEnd)
	c.LocalGet(iovs).I32(8).Op(opI32Add).LocalSet(iovs)
	c.LocalGet(n).I32(1).Op(opI32Sub).LocalSet(n)
	c.Op(opBr, 0, opEnd, opEnd)
	return []module.ValType{module.I32, module.I32, module.I32}, c.LocalGet(written).LocalGet(total).Mem(opI32Store, 0).I32(0)
}

// rename gives the exports the names that ICP wants, which Go does not accept:
// canister_update:NAME becomes canister_update NAME. canister_init and
// canister_post_upgrade start Go's runtime first.
func rename(m *module.Module) error {
	start, ok := m.Export("_initialize", module.KindFunc)
	if !ok {
		return fmt.Errorf("link: the module does not export _initialize: build it with -buildmode=c-shared")
	}
	nothing := m.AddType(nil, nil)
	for _, name := range []string{"canister_init", "canister_post_upgrade"} {
		code := new(module.Code).Call(start)
		at := slices.IndexFunc(m.Exports, func(e module.Export) bool { return e.Name == name })
		if at >= 0 {
			code.Call(m.Exports[at].Index)
		} else {
			at, m.Exports = len(m.Exports), append(m.Exports, module.Export{Name: name})
		}
		m.Exports[at].Index = m.AddFunc(nothing, nil, code)
	}
	for i := range m.Exports {
		name := &m.Exports[i].Name
		if kind, method, ok := strings.Cut(*name, ":"); ok && strings.HasPrefix(kind, "canister_") {
			*name = kind + " " + method
		}
	}
	return nil
}
