// Package link makes the two modules that run a model, for the Internet
// Computer (ICP) and for browsers, from one runtime module: cmd/spinnet-wasm as
// Go compiled it, committed here ready to use. Both have the same code, byte
// for byte; they differ in their exports, and the canister holds its model and
// the description of its methods.
package link

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"spinnet/canister/module"
)

// Info describes the runtime module; runtime.json holds it.
type Info struct {
	Go       string `json:"go"`       // the version that compiled it
	WasmOpt  string `json:"wasm_opt"` // the version that optimised it
	Sources  string `json:"sources"`  // SHA-256 of what it is made from: Sources
	Nops     int    `json:"nops"`     // instructions of Go's that do nothing, dropped
	Fused    int    `json:"fused"`    // loads made one with what followed
	Address  uint32 `json:"address"`  // where the header and the model go
	Capacity uint32 `json:"capacity"` // most bytes of a model

	// Instructions of a token of a small model, as ICP counts, before wasm-opt
	// and after.
	TokenBefore uint64 `json:"token_before"`
	Token       uint64 `json:"token"`
}

// HeaderSize is the distance from Info.Address to the model. The first four
// bytes hold the model's length, little-endian, and the others are zero.
const HeaderSize = 16

// CandidSection is the custom section that describes a canister's methods.
const CandidSection = "icp:public candid:service"

//go:embed runtime.wasm.gz
var packed []byte

//go:embed runtime.json
var described []byte

// Runtime gives the committed runtime module.
func Runtime() ([]byte, Info, error) {
	var info Info
	if err := json.Unmarshal(described, &info); err != nil {
		return nil, info, fmt.Errorf("link: runtime.json: %w", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, info, fmt.Errorf("link: runtime.wasm.gz: %w", err)
	}
	wasm, err := io.ReadAll(z)
	if err != nil {
		return nil, info, fmt.Errorf("link: runtime.wasm.gz: %w", err)
	}
	return wasm, info, nil
}

// Candid gives the description of the canister's methods, which the runtime
// carries in CandidSection.
func Candid(runtime []byte) (string, error) {
	m, err := module.Parse(runtime)
	if err != nil {
		return "", fmt.Errorf("link: the runtime: %w", err)
	}
	for _, c := range m.Customs {
		if c.Name == CandidSection {
			return string(c.Bytes), nil
		}
	}
	return "", fmt.Errorf("link: the runtime has no section %q", CandidSection)
}

// Canister makes the module that is installed on ICP: the runtime with a model,
// or with none if it is empty; then it must be uploaded.
func Canister(runtime []byte, info Info, model []byte) ([]byte, error) {
	m, err := module.Parse(runtime)
	if err != nil {
		return nil, fmt.Errorf("link: the runtime: %w", err)
	}
	m.Exports = without(m.Exports, "web_", "ic0_", "_initialize")
	if len(model) > 0 {
		if len(model) > int(info.Capacity) {
			return nil, fmt.Errorf("link: the model takes %d bytes; %d fit into the module", len(model), info.Capacity)
		}
		segment := make([]byte, HeaderSize, HeaderSize+len(model))
		binary.LittleEndian.PutUint32(segment, uint32(len(model)))
		m.Data = append(m.Data, module.NewData(info.Address, append(segment, model...)))
		if err := m.MergeData(0); err != nil {
			return nil, fmt.Errorf("link: %w", err)
		}
	}
	return m.Encode(), nil
}

// Browser makes the module that a web page runs. It has no model: the page
// loads one.
func Browser(runtime []byte) ([]byte, error) {
	m, err := module.Parse(runtime)
	if err != nil {
		return nil, fmt.Errorf("link: the runtime: %w", err)
	}
	m.Exports = without(m.Exports, "canister_", "ic0_")
	m.Customs = nil
	return m.Encode(), nil
}

// Gzip compresses a module, which ICP accepts as it is. The result depends on
// the input alone.
func Gzip(wasm []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(wasm); err != nil {
		return nil, err
	}
	err = z.Close()
	return out.Bytes(), err
}

// without gives the exports whose names have none of the prefixes.
func without(exports []module.Export, prefixes ...string) []module.Export {
	var out []module.Export
next:
	for _, e := range exports {
		for _, p := range prefixes {
			if strings.HasPrefix(e.Name, p) {
				continue next
			}
		}
		out = append(out, e)
	}
	return out
}
