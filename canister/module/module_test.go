package module

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// body gives the code of a function that consists of these bytes.
func body(b ...byte) []byte { return append(b, opEnd) }

// small is a module with something in every section.
func small() *Module {
	start := uint32(1)
	m := &Module{
		Imports:  []Import{{Module: "ic0", Name: "msg_reply", Kind: KindFunc}},
		Tables:   [][]byte{{0x70, 1, 2, 2}},
		Memories: []Memory{{1, 4}},
		Exports:  []Export{{"canister_query q", KindFunc, 2}, {"memory", KindMemory, 0}},
		Start:    &start,
		Elems: []Elem{
			{Head: []byte{0, opI32Const, 0, opEnd}, Funcs: []uint32{1, 2}},
			{Head: []byte{5, 0x70}, Exprs: [][]byte{{opRefFunc, 2, opEnd}, {opRefNull, 0x70, opEnd}}},
		},
		Data:     []Data{NewData(16, []byte("abc")), {Passive: true, Bytes: []byte("passive")}},
		HasCount: true,
		Customs:  []Custom{{"name", []byte{}}, {"icp:public candid:service", []byte("service : {}")}},
	}
	nothing := m.AddType(nil, nil)
	m.Imports[0].Type = nothing
	m.AddFunc(nothing, nil, new(Code))
	g := m.AddGlobal(-5)
	m.AddFunc(nothing, []ValType{I32, V128}, new(Code).Call(0).GlobalGet(g).GlobalSet(g).I32(-1).LocalSet(0).
		Op(opBlock, 0x40, opLoop, 0x40, opBr, 1, opEnd, opEnd).Call(1))
	return m
}

func TestRoundTrip(t *testing.T) {
	want := small()
	wasm := want.Encode()
	got, err := Parse(wasm)
	if err != nil {
		t.Fatal(err)
	}
	if *got.Start != *want.Start {
		t.Errorf("start %d, want %d", *got.Start, *want.Start)
	}
	got.Start, want.Start = nil, nil
	if got, want := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); got != want { // nil is empty
		t.Errorf("got %s\nwant %s", got, want)
	}
	start := uint32(1)
	got.Start = &start
	if again := got.Encode(); !bytes.Equal(again, wasm) {
		t.Errorf("encoded again: %x\nwant %x", again, wasm)
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "0061736d01000000"
	tests := []struct{ name, hex, want string }{
		{"nothing", "", "not a WebAssembly module"},
		{"another version", "0061736d02000000", "not a WebAssembly module"},
		{"a section that ends early", head + "0105", "5 elements in 0 bytes"},
		{"a section of an unknown kind", head + "0d00", "section 13 is unknown"},
		{"a repeated section", head + "01010001 0100", "repeated or out of order"},
		{"sections out of order", head + "03010001 0100", "out of order"},
		{"more elements than bytes", head + "0105 ffffffff0f", "4294967295 elements in 0 bytes"},
		{"a number beyond 32 bits", head + "0105 ffffffff1f", "too large"},
		{"a number without end", head + "0106 808080808080", "too large"},
		{"not a function type", head + "0102 0150", "not a function type"},
		{"a type that does not exist", head + "0302 0100 0a04 010200 0b", "does not exist"},
		{"functions without bodies", head + "01040160 0000 0302 0100", "1 functions are declared and 0 defined"},
		{"a body that does not end", head + "01040160 0000 0302 0100 0a05 01030001 01", "ends too early"},
		{"a body with more after its end", head + "01040160 0000 0302 0100 0a06 0104000b 010b", "bytes after its end"},
		{"an unknown instruction", head + "01040160 0000 0302 0100 0a06 010400ff 0b0b", "unknown instruction 0xff"},
		{"an atomic instruction", head + "01040160 0000 0302 0100 0a06 010400fe 000b", "unknown instruction 0xfe"},
		{"an unknown SIMD instruction", head + "01040160 0000 0302 0100 0a08 010600fd ff7f0b0b", "unknown instruction 0x3fff"},
		{"too many local variables", head + "01040160 0000 0302 0100 0a0a 010801ff ffff0f7f0b0b", "local variables"},
		{"a call of nothing", head + "01040160 0000 0302 0100 0a06 01040010 070b", "refers to 7"},
		{"an export of nothing", head + "0705 01016100 03", "refers to 3"},
		{"a name that is not UTF-8", head + "0705 0101ff00 03", "not UTF-8"},
		{"two memories", head + "0505 02 0001 0001", "more than one memory"},
		{"a shared memory", head + "0504 01 030101", "limits of kind 3"},
		{"a global that is computed", head + "0607 01 7f00 4100 6a0b", "not a constant expression"},
		{"a miscounted data section", head + "0c0103", "3 data segments are counted and 0 defined"},
		{"a start of nothing", head + "080105", "refers to 5"},
	}
	for _, tt := range tests {
		wasm, err := hex.DecodeString(strings.ReplaceAll(tt.hex, " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if _, err := Parse(wasm); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	// Every truncation is an error or a shorter module.
	wasm := small().Encode()
	for n := range wasm {
		Parse(wasm[:n])
	}
}

func TestMergeData(t *testing.T) {
	type seg struct {
		at uint32
		b  string
	}
	tests := []struct {
		in, want []seg
		err      string
	}{
		{nil, nil, ""},
		{[]seg{{8, "ab"}, {10, "cd"}, {13, "e"}}, []seg{{8, "abcd\x00e"}}, ""},
		{[]seg{{100, "far"}, {8, "ab"}, {13, "x"}}, []seg{{8, "ab"}, {13, "x"}, {100, "far"}}, ""},
		{[]seg{{1 << 31, "high"}, {1 << 20, "low"}}, []seg{{1 << 20, "low"}, {1 << 31, "high"}}, ""},
		{[]seg{{8, "abc"}, {10, "cd"}}, nil, "before the end of another"},
		{[]seg{{1<<32 - 2, "abc"}}, nil, "beyond 4 GiB"},
	}
	for _, tt := range tests {
		m := &Module{}
		for _, s := range tt.in {
			m.Data = append(m.Data, NewData(s.at, []byte(s.b)))
		}
		err := m.MergeData(2)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v: got %v, want %q", tt.in, err, tt.err)
			}
			continue
		}
		var got []seg
		for _, d := range m.Data {
			at, _ := d.offset()
			got = append(got, seg{at, string(d.Bytes)})
		}
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%v: got %v (%v), want %v", tt.in, got, err, tt.want)
		}
	}
	if err := (&Module{Data: []Data{{Passive: true}}}).MergeData(0); err == nil {
		t.Error("a passive segment gave no error")
	}
}

func TestRewrites(t *testing.T) {
	m := &Module{Funcs: []Func{{Code: body(opNop, opCall, 1, opNop, opNop, opRefFunc, 200, 1, 0x1a, opCall, 0)}},
		Exports: []Export{{"f", KindFunc, 1}, {"memory", KindMemory, 1}}}
	if got := m.DropNops(); got != 3 {
		t.Errorf("dropped %d nops, want 3", got)
	}
	m.MapFuncs(func(i uint32) uint32 {
		if i == 0 {
			return 0
		}
		return i + 100
	})
	if got, want := m.Funcs[0].Code, body(opCall, 101, opRefFunc, 0xac, 2, 0x1a, opCall, 0); !bytes.Equal(got, want) {
		t.Errorf("code %x, want %x", got, want)
	}
	if m.Exports[0].Index != 101 || m.Exports[1].Index != 1 {
		t.Errorf("exports %v", m.Exports)
	}
}

// Loads are fused where nothing lies between, with offsets of any length.
func TestFuseLoads(t *testing.T) {
	load := func(op ...byte) []byte { return append([]byte{0x20, 0}, op...) }
	for name, c := range map[string]struct{ code, want []byte }{
		"low":        {load(0xfd, 0, 4, 16, 0xfd, 0x87, 1, 0x1a), load(0xfd, 1, 0, 16, 0x1a)},
		"high":       {load(0xfd, 0, 4, 0xf8, 1, 0xfd, 0x88, 1, 0x1a), load(0xfd, 1, 0, 0x80, 2, 0x1a)},
		"int16":      {load(0xfd, 0, 0, 0, 0xfd, 0xa8, 1, 0x1a), load(0xfd, 3, 0, 8, 0x1a)},
		"splat":      {load(0x28, 2, 5, 0xfd, 17, 0x1a), load(0xfd, 9, 0, 5, 0x1a)},
		"float":      {load(0x2a, 2, 5, 0xfd, 19, 0x1a), load(0xfd, 9, 0, 5, 0x1a)},
		"twice":      {load(0x29, 3, 5, 0xfd, 18, 0xfd, 0x87, 1, 0x1a), load(0xfd, 1, 0, 5, 0x1a)},
		"in between": {load(0xfd, 0, 4, 16, 0x22, 1, 0xfd, 0x87, 1, 0x1a), nil},
		"other":      {load(0x28, 2, 5, 0xfd, 18, 0x1a), nil},
		"too high":   {load(0xfd, 0, 4, 0xff, 0xff, 0xff, 0xff, 15, 0xfd, 0x88, 1, 0x1a), nil},
	} {
		m := &Module{Funcs: []Func{{Code: body(c.code...)}}}
		want, fused := c.want, 1
		if want == nil {
			want, fused = c.code, 0
		} else if name == "twice" {
			fused = 2
		}
		if got := m.FuseLoads(); got != fused || !bytes.Equal(m.Funcs[0].Code, body(want...)) {
			t.Errorf("%s: fused %d into %x, want %d into %x", name, got, m.Funcs[0].Code, fused, body(want...))
		}
	}
}

func TestInjections(t *testing.T) {
	memoryFill := []byte{prefixMisc, 11, 0}
	tests := []struct {
		name string
		code []byte
		want string // position:cost of each point; ! checks the limit, # pays a size
	}{
		{"empty", body(), "0:1!"},
		{"straight", body(0x41, 1, 0x1a), "0:3!"},
		{"if", body(0x41, 1, opIf, 0x40, 0x41, 1, 0x1a, opElse, 0x41, 1, 0x1a, opEnd, opNop), "0:4! 4:2 8:2 12:1"},
		{"loop", body(opLoop, 0x40, 0x41, 1, opBrIf, 0, opEnd), "0:1! 2:3!"},
		{"bulk", body(0x41, 1, 0x41, 1, 0x41, 1, memoryFill[0], memoryFill[1], memoryFill[2], opNop), "0:105! 6#"},
		{"after a return", body(opReturn, opNop), "0:2! 1:1"},
		{"call", body(opCall, 0, opCall, 0), "0:11!"},
	}
	for _, tt := range tests {
		if err := checkBody(tt.code); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		var got []string
		for _, p := range injections(tt.code, ICP) {
			switch {
			case p.size:
				got = append(got, fmt.Sprintf("%d#", p.at))
			case p.check:
				got = append(got, fmt.Sprintf("%d:%d!", p.at, p.cost))
			default:
				got = append(got, fmt.Sprintf("%d:%d", p.at, p.cost))
			}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, s, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(small().Encode())
	m := small()
	if err := Instrument(m, ICP); err != nil {
		f.Fatal(err)
	}
	f.Add(m.Encode())
	f.Add([]byte("\x00asm\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		m, err := Parse(wasm)
		if err != nil {
			return
		}
		// What parses can be changed, and parses again afterwards.
		once := m.Encode()
		again, err := Parse(once)
		if err != nil {
			t.Fatalf("encoded: %v", err)
		}
		if !bytes.Equal(again.Encode(), once) {
			t.Fatal("encoded twice, it differs")
		}
		m.DropNops()
		m.FuseLoads()
		m.MapFuncs(func(i uint32) uint32 { return i })
		m.FuncNames()
		Measure(m, wasm)
		if err := m.MergeData(16); err == nil && len(m.Data) > len(again.Data) {
			t.Fatal("merging made more segments")
		}
		if err := Instrument(m, ICP); err != nil {
			return
		}
		if _, err := Parse(m.Encode()); err != nil {
			t.Fatalf("instrumented: %v", err)
		}
	})
}
