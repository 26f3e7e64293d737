// Package interop moves models between files and memory. Open reads any
// supported model; the safetensors reader and writer also serve checkpoints.
// It imports arch, algebra, spinfile and tokenizer.
package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"

	"spinnet/arch"
	"spinnet/spinfile"
)

// Names of the files of a checkpoint directory.
const (
	WeightsFile = "model.safetensors"
	StateFile   = "state.json"
)

// State is what Open needs of a checkpoint's state.json; the trainer's own
// file holds more.
type State struct {
	Model     arch.Config            `json:"model"`
	Tokenizer spinfile.TokenizerInfo `json:"tokenizer"`
	Step      int                    `json:"step"`
}

// maxState bounds the size of a state.json that is read.
const maxState = 16 << 20

// Open reads the model at path: a run directory (its best checkpoint, else
// its last), a checkpoint directory, a .safetensors file with state.json
// beside it, or a .spinnet file. Latents are quantised. Meta holds "source"
// (the weights file), "step", and what a checkpoint says of its training.
func Open(path string) (*spinfile.Model, error) {
	if filepath.Ext(path) == ".spinnet" {
		return openSpinnet(path)
	}
	weights, err := Resolve(path)
	if err != nil {
		return nil, err
	}
	st, err := ReadState(filepath.Join(filepath.Dir(weights), StateFile))
	if err != nil {
		return nil, err
	}
	ts, _, err := ReadSafetensors(weights)
	if err != nil {
		return nil, err
	}
	m, err := assemble(weights, st, ts)
	if err == nil {
		maps.Copy(m.Meta, provenance(filepath.Join(filepath.Dir(weights), StateFile)))
	}
	return m, err
}

// assemble makes a model of a checkpoint's parts; weights is the name of the
// file, for errors and provenance.
func assemble(weights string, st State, ts SafeTensors) (*spinfile.Model, error) {
	if err := checkShapes(weights, st.Model, ts); err != nil {
		return nil, err
	}
	m, err := spinfile.FromLatents(st.Model, st.Tokenizer, func(name string) []float32 { return ts.Find(name).Data })
	if err != nil {
		return nil, fmt.Errorf("interop: %s: %w", weights, err)
	}
	m.Meta["source"] = weights
	m.Meta["step"] = strconv.Itoa(st.Step)
	return m, nil
}

// Resolve gives the weights file that Open would read for path.
func Resolve(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("interop: %w", err)
	}
	if !info.IsDir() {
		if filepath.Ext(path) != ".safetensors" {
			return "", fmt.Errorf("interop: %s: not a model file, want .safetensors with %s beside it, a checkpoint directory or a run directory", path, StateFile)
		}
		return path, nil
	}
	for _, sub := range []string{"", "checkpoints/best", "checkpoints/last", "best", "last"} {
		p := filepath.Join(path, filepath.FromSlash(sub), WeightsFile)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("interop: %w", err)
		}
	}
	return "", fmt.Errorf("interop: %s: no model in it: neither %s nor checkpoints/best nor checkpoints/last", path, WeightsFile)
}

// ReadState reads the model configuration, the tokenizer and the step of a
// state.json, fills the configuration's defaults and checks it.
func ReadState(path string) (State, error) { return ReadStateAnd(path, nil) }

// ReadStateAnd is ReadState, and decodes the same JSON into more unless that is
// nil.
func ReadStateAnd(path string, more any) (State, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, fmt.Errorf("interop: %s is missing: it holds the model's configuration and tokenizer", path)
	}
	if err != nil {
		return State{}, fmt.Errorf("interop: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return State{}, fmt.Errorf("interop: %w", err)
	}
	if len(b) > maxState {
		return State{}, fmt.Errorf("interop: %s: over %d bytes", path, maxState)
	}
	if more != nil {
		if err := json.Unmarshal(b, more); err != nil {
			return State{}, fmt.Errorf("interop: %s: %w", path, err)
		}
	}
	return parseState(path, b)
}

func parseState(path string, b []byte) (State, error) {
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		return st, fmt.Errorf("interop: %s: %w", path, err)
	}
	st.Model = st.Model.WithDefaults()
	if err := st.Model.Validate(); err != nil {
		return st, fmt.Errorf("interop: %s: %w", path, err)
	}
	return st, nil
}

// checkShapes compares the tensors of a file with the model's parameters:
// exactly those, each with its shape.
func checkShapes(file string, c arch.Config, ts SafeTensors) error {
	wanted := map[string]bool{}
	for _, p := range arch.Params(c) {
		wanted[p.Name] = true
		if _, err := ts.Need(file, p.Name, p.Shape); err != nil {
			return err
		}
	}
	for _, t := range ts {
		if !wanted[t.Name] {
			return &SafetensorsError{File: file, Tensor: t.Name, Offset: -1, Reason: "does not belong to the model of " + StateFile}
		}
	}
	return nil
}
