package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"spinnet/canister/host"
	"spinnet/canister/module"
)

func runtime(t *testing.T) ([]byte, Info) {
	t.Helper()
	wasm, info, err := Runtime()
	if err != nil {
		t.Fatal(err)
	}
	return wasm, info
}

// Both modules have the runtime's code, byte for byte.
func TestSameCode(t *testing.T) {
	wasm, info := runtime(t)
	canister, err := Canister(wasm, info, []byte("a model"))
	if err != nil {
		t.Fatal(err)
	}
	browser, err := Browser(wasm)
	if err != nil {
		t.Fatal(err)
	}
	want := parse(t, wasm).CodeSection()
	for name, b := range map[string][]byte{"canister": canister, "browser": browser} {
		if !bytes.Equal(parse(t, b).CodeSection(), want) {
			t.Errorf("%s: the code is not the runtime's", name)
		}
		if !bytes.Contains(b, want) {
			t.Errorf("%s: the code is not in the file", name)
		}
	}
	for _, e := range parse(t, canister).Exports {
		if e.Kind == module.KindFunc && !strings.HasPrefix(e.Name, "canister_") {
			t.Errorf("the canister exports %s", e.Name)
		}
	}
	for _, e := range parse(t, browser).Exports {
		if strings.HasPrefix(e.Name, "canister_") {
			t.Errorf("the browser module exports %s", e.Name)
		}
	}
	again, err := Canister(wasm, info, []byte("a model"))
	if err != nil || !bytes.Equal(again, canister) {
		t.Errorf("the same input gave another module (%v)", err)
	}
}

func parse(t *testing.T, wasm []byte) *module.Module {
	t.Helper()
	m, err := module.Parse(wasm)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestModelPlace(t *testing.T) {
	wasm, info := runtime(t)
	model := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	canister, err := Canister(wasm, info, model)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	c, err := host.Load(ctx, canister, module.ICP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	got, ok := c.Read(info.Address, uint32(HeaderSize+len(model)))
	if !ok || binary.LittleEndian.Uint32(got) != uint32(len(model)) || !bytes.Equal(got[HeaderSize:], model) {
		t.Errorf("the model is not at %d", info.Address)
	}
	if _, err := Canister(wasm, info, make([]byte, info.Capacity+1)); err == nil {
		t.Error("a model that does not fit gave no error")
	}
}
