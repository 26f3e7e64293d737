package host

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"spinnet/canister/module"
)

// Indices of the imports of testCanister.
const (
	argSize = iota
	argCopy
	replyAppend
	reply
	trap
	counter
	stableGrow
	stableWrite
	stableRead
	now
	callNew
	callPerform
	rejectCode
)

// testCanister gives a module with a method for each thing a host does. Each
// is written as its instructions.
func testCanister() []byte {
	m := &module.Module{Memories: []module.Memory{{Min: 1, Max: -1}}}
	i32, i64 := module.I32, module.I64
	imported := func(name string, params, results []module.ValType) {
		m.Imports = append(m.Imports, module.Import{Module: "ic0", Name: name, Type: m.AddType(params, results)})
	}
	imported("msg_arg_data_size", nil, []byte{i32})
	imported("msg_arg_data_copy", []byte{i32, i32, i32}, nil)
	imported("msg_reply_data_append", []byte{i32, i32}, nil)
	imported("msg_reply", nil, nil)
	imported("trap", []byte{i32, i32}, nil)
	imported("performance_counter", []byte{i32}, []byte{i64})
	imported("stable64_grow", []byte{i64}, []byte{i64})
	imported("stable64_write", []byte{i64, i64, i64}, nil)
	imported("stable64_read", []byte{i64, i64, i64}, nil)
	imported("time", nil, []byte{i64})
	imported("call_new", []byte{i32, i32, i32, i32, i32, i32, i32, i32}, nil)
	imported("call_perform", nil, []byte{i32})
	imported("msg_reject_code", nil, []byte{i32})
	const drop, grow, store, store64, load8, add, loop, br, end = 0x1a, 0x40, 0x3a, 0x37, 0x2d, 0x6a, 0x03, 0x0c, 0x0b
	calls := m.AddGlobal(0)
	answer := func(c *module.Code, from, n int32) *module.Code {
		return c.I32(from).I32(n).Call(replyAppend).Call(reply)
	}
	method := func(name string, c *module.Code) {
		m.Exports = append(m.Exports, module.Export{Name: name, Index: m.AddFunc(m.AddType(nil, nil), nil, c)})
	}
	method("canister_init", new(module.Code).I64(2).Call(stableGrow).Op(drop))
	// echo: the argument, after counting calls in memory, a global and stable memory
	count := func() *module.Code {
		c := new(module.Code).I32(0).I32(0).Mem(load8, 100).I32(1).Op(add).Mem(store, 100)
		c.GlobalGet(calls).I64(1).Op(0x7c).GlobalSet(calls)
		return c.I64(5000).I64(100).I64(1).Call(stableWrite)
	}
	method("canister_update echo", answer(count().I32(200).I32(0).Call(argSize).Call(argCopy), 200, 3))
	method("canister_query peek", answer(count().I32(200).I32(0).Call(argSize).Call(argCopy), 200, 3))
	method("canister_update fail", count().I32(2).Op(grow, 0, drop).I64(1).Call(stableGrow).Op(drop).
		I64(2<<16+5000).I64(100).I64(1).Call(stableWrite).I32(100).I32(1).Call(trap))
	method("canister_update silent", count())
	method("canister_update spin", count().Op(loop, 0x40, br, 0, end))
	// state: the count in memory, in the global and in stable memory, the pages
	method("canister_query state", answer(new(module.Code).I32(0).GlobalGet(calls).Mem(store64, 101).
		I64(102).I64(5000).I64(1).Call(stableRead).I32(0).Op(0x3f, 0).Mem(store, 103), 100, 4))
	method("canister_query counter", answer(new(module.Code).I32(0).I32(0).Call(counter).Mem(store64, 300), 300, 8))
	method("canister_query outside", new(module.Code).I32(1<<20).I32(10).Call(replyAppend))
	method("canister_query late", new(module.Code).Call(reply).Call(reply))
	// ask: calls the method of the management canister that the argument names,
	// and answers with the length of its reply or the code of its rejection
	length := m.AddFunc(m.AddType([]byte{i32}, nil), nil, answer(new(module.Code).I32(300).Call(argSize).Mem(store, 0), 300, 1))
	code := m.AddFunc(m.AddType([]byte{i32}, nil), nil, answer(new(module.Code).I32(300).Call(rejectCode).Mem(store, 0), 300, 1))
	trapping := m.AddFunc(m.AddType([]byte{i32}, nil), nil, count().I32(100).I32(1).Call(trap))
	m.Tables = [][]byte{{0x70, 0, 3}}
	m.Elems = []module.Elem{{Head: []byte{0, 0x41, 0, 0x0b}, Funcs: []uint32{length, code, trapping}}}
	ask := func(reply, reject int32) *module.Code {
		c := count().I32(200).I32(0).Call(argSize).Call(argCopy)
		return c.I32(0).I32(0).I32(200).Call(argSize).I32(reply).I32(0).I32(reject).I32(0).Call(callNew).Call(callPerform).Op(drop)
	}
	method("canister_update ask", ask(0, 1))
	method("canister_update ask badly", ask(2, 9))
	method("canister_query time", answer(new(module.Code).I32(0).Call(now).Mem(store64, 300), 300, 8))
	return m.Encode()
}

func load(t *testing.T) *Canister {
	t.Helper()
	ctx := context.Background()
	c, err := Load(ctx, testCanister(), module.ICP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(ctx) })
	if _, err := c.Call(ctx, Message{Export: "canister_init"}); err != nil {
		t.Fatal(err)
	}
	return c
}

func state(t *testing.T, c *Canister) string {
	t.Helper()
	r, err := c.Call(context.Background(), Message{Export: "canister_query state"})
	if err != nil {
		t.Fatal(err)
	}
	return string(r.Data)
}

func TestMessagesAndRollback(t *testing.T) {
	c, ctx := load(t), context.Background()
	tests := []struct {
		export, want, trap string
		limit              uint64
		state              string
	}{
		{"canister_update echo", "abc", "", 0, "\x01\x01\x01\x01"},
		{"canister_query peek", "abc", "", 0, "\x01\x01\x01\x01"},
		{"canister_update fail", "", "\x02", 0, "\x01\x01\x01\x01"},
		{"canister_update silent", "", "it did not reply", 0, "\x02\x02\x02\x01"}, // it did not trap
		{"canister_update spin", "", "limit of 5000 instructions", 5000, "\x02\x02\x02\x01"},
		{"canister_query outside", "", "heap out of bounds: 10 bytes at 1048576", 0, "\x02\x02\x02\x01"},
		{"canister_query late", "", "answered already", 0, "\x02\x02\x02\x01"},
		{"canister_update echo", "abc", "", 0, "\x03\x03\x03\x01"},
	}
	for _, tt := range tests {
		r, err := c.Call(ctx, Message{Export: tt.export, Arg: []byte("abc"), Limit: tt.limit})
		var trapped *TrapError
		if errors.As(err, &trapped) != (tt.trap != "") || trapped != nil && !strings.Contains(trapped.Message, tt.trap) {
			t.Errorf("%s: got %v, want trap %q", tt.export, err, tt.trap)
		}
		if string(r.Data) != tt.want {
			t.Errorf("%s: got %q, want %q", tt.export, r.Data, tt.want)
		}
		if got := state(t, c); got != tt.state {
			t.Errorf("after %s: state %q, want %q", tt.export, got, tt.state)
		}
	}
	if _, err := c.Call(ctx, Message{Export: "canister_query none"}); err == nil || !strings.Contains(err.Error(), "no method") {
		t.Errorf("a method that does not exist: %v", err)
	}
}

func TestCalls(t *testing.T) {
	c, ctx := load(t), context.Background()
	tests := []struct{ export, arg, want, trap, state string }{
		{"canister_update ask", "raw_rand", "\x2a", "", "\x01\x01\x01\x01"}, // 10 bytes of candid, 32 random ones
		{"canister_update ask", "nothing", "\x03", "", "\x02\x02\x02\x01"},
		// What was done before the call stays when its callback traps.
		{"canister_update ask badly", "raw_rand", "", "\x04", "\x03\x03\x03\x01"},
		{"canister_update ask badly", "nothing", "", "there is no callback at 9 of its table", "\x04\x04\x04\x01"},
	}
	for _, tt := range tests {
		r, err := c.Call(ctx, Message{Export: tt.export, Arg: []byte(tt.arg)})
		var trapped *TrapError
		if errors.As(err, &trapped) != (tt.trap != "") || trapped != nil && !strings.Contains(trapped.Message, tt.trap) {
			t.Errorf("%s %s: got %v, want trap %q", tt.export, tt.arg, err, tt.trap)
		}
		if string(r.Data) != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.export, tt.arg, r.Data, tt.want)
		}
		if got := state(t, c); got != tt.state {
			t.Errorf("after %s %s: state %q, want %q", tt.export, tt.arg, got, tt.state)
		}
	}
}

// What a message costs, counted by hand.
func TestInstructions(t *testing.T) {
	c, ctx := load(t), context.Background()
	c.Time = func() time.Time { return time.Unix(0, 0x0102030405060708) }
	tests := []struct {
		export string
		want   uint64
	}{
		// 1 to enter; two constants, call, 20 + 200 for the counter; store;
		// then two constants and calls of 500 + 8 and 500.
		{"canister_query counter", 1 + 2 + 5 + 200 + 1 + 2 + 5 + 508 + 5 + 500},
		{"canister_query time", 1 + 1 + 5 + 500 + 1 + 2 + 5 + 508 + 5 + 500},
	}
	for _, tt := range tests {
		r, err := c.Call(ctx, Message{Export: tt.export})
		if err != nil || r.Instructions != tt.want {
			t.Errorf("%s: %d instructions (%v), want %d", tt.export, r.Instructions, err, tt.want)
		}
	}
	r, err := c.Call(ctx, Message{Export: "canister_query counter"})
	if err != nil {
		t.Fatal(err)
	}
	// The whole block is paid at its start.
	if got, want := uint64(r.Data[0])|uint64(r.Data[1])<<8, uint64(1+2+5+1+2+5+5+200); got != want {
		t.Errorf("performance_counter says %d, want %d", got, want)
	}
	r, _ = c.Call(ctx, Message{Export: "canister_query time"})
	if got, want := string(r.Data), "\x08\x07\x06\x05\x04\x03\x02\x01"; got != want {
		t.Errorf("time says %q, want %q", got, want)
	}
}

func TestLoadRefuses(t *testing.T) {
	start := uint32(0)
	foreign := &module.Module{Memories: []module.Memory{{Min: 1, Max: -1}}}
	foreign.Imports = []module.Import{{Module: "env", Name: "f", Type: foreign.AddType(nil, nil)}}
	starts := &module.Module{Memories: []module.Memory{{Min: 1, Max: -1}}, Start: &start}
	starts.AddFunc(starts.AddType(nil, nil), nil, new(module.Code))
	for name, wasm := range map[string][]byte{
		"nothing": nil, "foreign import": foreign.Encode(), "start function": starts.Encode(), "no memory": new(module.Module).Encode(),
	} {
		if c, err := Load(context.Background(), wasm, module.ICP); err == nil {
			c.Close(context.Background())
			t.Errorf("%s: no error", name)
		}
	}
}
