package replica

import (
	"encoding/binary"
	"testing"

	"spinnet/canister/module"
)

// guest is a canister that does what a test asks, assembled here: it keeps a
// counter in the heap (at 0), in a global and in stable memory.
type guest struct {
	m       module.Module
	index   map[string]uint32 // of imports
	counter uint32            // global
}

const (
	i32Load, i32Store, i32Add, i64Add = 0x28, 0x36, 0x6a, 0x7c
	drop, unreachable, end            = 0x1a, 0x00, 0x0b
	blockLoop, br, emptyType          = 0x03, 0x0c, 0x40
	memoryGrow, i32Eq, ifOp           = 0x40, 0x46, 0x04
	i64ExtendU                        = 0xad
	scratch                           = 256 // where arguments and texts go
)

func (g *guest) sys(c *module.Code, name string) *module.Code { return c.Call(g.index[name]) }

// bump adds 1 to all three counters.
func (g *guest) bump(c *module.Code) *module.Code {
	c.I32(0).I32(0).Mem(i32Load, 0).I32(1).Op(i32Add).Mem(i32Store, 0)
	c.GlobalGet(g.counter).I64(1).Op(i64Add).GlobalSet(g.counter)
	// stable[0] = heap[0], in 4 bytes
	return g.sys(c.I64(0).I64(0).I64(4), "stable64_write")
}

// show replies with the counters: heap, stable, global, 4 bytes each.
func (g *guest) show(c *module.Code) *module.Code {
	g.sys(c.I64(4).I64(0).I64(4), "stable64_read")
	c.I32(8).GlobalGet(g.counter).Op(0xa7).Mem(i32Store, 0) // i32.wrap_i64
	g.sys(c.I32(0).I32(12), "msg_reply_data_append")
	return g.sys(c, "msg_reply")
}

func (g *guest) replyArg(c *module.Code) *module.Code {
	g.sys(c.I32(scratch).I32(0), "msg_arg_data_size")
	g.sys(c, "msg_arg_data_copy")
	g.sys(g.sys(c.I32(scratch), "msg_arg_data_size"), "msg_reply_data_append")
	return g.sys(c, "msg_reply")
}

func (g *guest) export(name string, c *module.Code) {
	f := g.m.AddFunc(g.m.AddType(nil, nil), nil, c)
	g.m.Exports = append(g.m.Exports, module.Export{Name: name, Kind: module.KindFunc, Index: f})
}

// newGuest builds the module. version is what its query "version" says.
func newGuest(t *testing.T, version byte) []byte {
	t.Helper()
	g := &guest{index: map[string]uint32{}}
	for _, f := range []struct{ name, params, results string }{
		{"msg_arg_data_size", "", "i"}, {"msg_arg_data_copy", "iii", ""}, {"msg_caller_size", "", "i"}, {"msg_caller_copy", "iii", ""},
		{"msg_reply_data_append", "ii", ""}, {"msg_reply", "", ""}, {"msg_reject", "ii", ""}, {"trap", "ii", ""}, {"debug_print", "ii", ""},
		{"stable64_grow", "I", "I"}, {"stable64_read", "III", ""}, {"stable64_write", "III", ""},
		{"call_new", "iiiiiiii", ""}, {"call_perform", "", "i"}, {"call_on_cleanup", "ii", ""},
		{"time", "", "I"}, {"global_timer_set", "I", "I"}, {"accept_message", "", ""}, {"msg_method_name_size", "", "i"}, {"performance_counter", "i", "I"},
		{"certified_data_set", "ii", ""}, {"data_certificate_size", "", "i"}, {"data_certificate_copy", "iii", ""},
	} {
		types := func(s string) (out []module.ValType) {
			for _, c := range s {
				out = append(out, map[rune]module.ValType{'i': module.I32, 'I': module.I64}[c])
			}
			return out
		}
		g.index[f.name] = uint32(len(g.m.Imports))
		g.m.Imports = append(g.m.Imports, module.Import{Module: "ic0", Name: f.name, Kind: module.KindFunc, Type: g.m.AddType(types(f.params), types(f.results))})
	}
	g.m.Memories = []module.Memory{{Min: 1, Max: -1}}
	g.counter = g.m.AddGlobal(0)
	code := func() *module.Code { return new(module.Code) }

	g.export("canister_init", g.sys(g.sys(code().I64(1), "stable64_grow").Op(drop).I64(0).I64(0).I64(4), "stable64_write"))
	g.export("canister_pre_upgrade", code())
	g.export("canister_post_upgrade", g.sys(code().I64(0).I64(0).I64(4), "stable64_read")) // the heap's counter comes back
	g.export("canister_update inc", g.show(g.bump(code())))
	g.export("canister_query get", g.show(code()))
	g.export("canister_query mutate", g.show(g.bump(code())))
	g.export("canister_query version", g.sys(g.sys(code().I32(12).I32(int32(version)).Mem(0x3a, 0).I32(12).I32(1), "msg_reply_data_append"), "msg_reply"))
	grown := g.sys(g.bump(code()).I32(3).Op(memoryGrow, 0, drop).I64(3), "stable64_grow").Op(drop)
	g.export("canister_update trap", g.sys(g.bump(grown).I32(scratch).I32(4), "trap"))
	g.export("canister_update unreachable", g.bump(code()).Op(unreachable))
	g.export("canister_update spin", g.bump(code()).Op(blockLoop, emptyType, br, 0, end))
	// It asks the host in its loop, and so lets Go's collector stop the world.
	g.export("canister_update busy", g.sys(g.bump(code()).Op(blockLoop, emptyType).I32(0), "performance_counter").Op(drop, br, 0, end))
	g.export("canister_query spin_query", code().Op(blockLoop, emptyType, br, 0, end))
	g.export("canister_update noreply", g.bump(code()))
	g.export("canister_update twice", g.sys(g.sys(code(), "msg_reply"), "msg_reply"))
	g.export("canister_update echo", g.replyArg(code()))
	g.export("canister_update not_let_in", g.show(code()))
	g.export("canister_update outside", g.sys(code().I32(-10).I32(100), "msg_reply_data_append"))
	g.export("canister_update outside_stable", g.sys(code().I64(0).I64(-5).I64(100), "stable64_read"))
	g.export("canister_update reject", g.sys(code().I32(scratch).I32(4), "msg_reject"))
	g.export("canister_update print", g.show(g.sys(code().I32(scratch).I32(4), "debug_print")))
	g.export("canister_update whoami", g.sys(g.sys(g.sys(g.sys(code().I32(scratch).I32(0), "msg_caller_size"), "msg_caller_copy").I32(scratch), "msg_caller_size"), "msg_reply_data_append").Call(g.index["msg_reply"]))
	g.export("canister_update arm", g.show(g.sys(g.sys(code(), "time").I64(1).Op(i64Add), "global_timer_set").Op(drop)))
	g.export("canister_update certify", g.show(g.sys(code().I32(512).I32(4), "certified_data_set")))
	g.export("canister_query certified", g.sys(g.sys(g.sys(g.sys(code().I32(scratch).I32(0), "data_certificate_size"), "data_certificate_copy").I32(scratch), "data_certificate_size"), "msg_reply_data_append").Call(g.index["msg_reply"]))
	g.export("canister_global_timer", g.bump(code()))
	// Everything comes in but methods whose name has 10 letters: "not_let_in".
	g.export("canister_inspect_message", g.sys(g.sys(code(), "msg_method_name_size").I32(10).Op(i32Eq, ifOp, emptyType, 0x05), "accept_message").Op(end))

	// Callbacks: table entries 0 (reply: pass the argument on), 1 (reject:
	// trap), 2 (cleanup: bump), 3 (reply: bump and trap).
	callback := g.m.AddType([]module.ValType{module.I32}, nil)
	table := []uint32{
		g.m.AddFunc(callback, nil, g.replyArg(code())),
		g.m.AddFunc(callback, nil, g.sys(code().I32(scratch).I32(4), "trap")),
		g.m.AddFunc(callback, nil, g.bump(code())),
		g.m.AddFunc(callback, nil, g.bump(code()).Op(unreachable)),
	}
	g.m.Tables = [][]byte{{0x70, 0, byte(len(table))}}
	g.m.Elems = []module.Elem{{Head: []byte{0, 0x41, 0, end}, Funcs: table}}
	// call asks the management canister; the method's name lies at 512.
	call := func(length, onReply, onReject int32, cleanup bool) *module.Code {
		c := g.bump(code()).I32(0).I32(0).I32(512).I32(length).I32(onReply).I32(0).I32(onReject).I32(0)
		g.sys(c, "call_new")
		if cleanup {
			g.sys(c.I32(2).I32(0), "call_on_cleanup")
		}
		return g.sys(c, "call_perform").Op(drop)
	}
	g.export("canister_update rand", call(8, 0, 1, false))
	g.export("canister_update rand_trap", call(8, 3, 1, true))
	g.export("canister_update rand_wrong_table", call(8, 99, 1, false))
	g.export("canister_update call_nothing", call(3, 0, 1, false))
	g.export("canister_update perform_alone", g.sys(code(), "call_perform").Op(drop))
	g.m.Data = []module.Data{module.NewData(scratch, []byte("stop")), module.NewData(512, []byte("raw_rand"))}
	g.m.Customs = []module.Custom{{Name: "icp:public candid:service", Bytes: []byte("service : {}")}, {Name: "icp:private secret", Bytes: []byte("hidden")}}
	return g.m.Encode()
}

// counters reads what show replies.
func counters(t *testing.T, reply []byte) [3]uint32 {
	t.Helper()
	if len(reply) != 12 {
		t.Fatalf("a reply of %d bytes, want 12", len(reply))
	}
	le := binary.LittleEndian
	return [3]uint32{le.Uint32(reply), le.Uint32(reply[4:]), le.Uint32(reply[8:])}
}
