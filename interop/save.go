package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"strconv"

	"spinnet/arch"
	"spinnet/spinfile"
)

// WriteLatents writes parameters as training has them to one safetensors file
// that needs no state.json: its metadata holds the configuration, the
// tokenizer, the step and Meta. Values become float32.
func WriteLatents(w io.Writer, l *Latents) error {
	ts, err := l.ReadAll()
	if err != nil {
		return err
	}
	return writeState(w, State{Model: l.Config, Tokenizer: l.Tokenizer}, l.Meta, ts)
}

// WriteModel writes a finished model to a safetensors file like that of
// WriteLatents. Its ternary weights are written as −1, 0 and 1 with their
// scales as beta, and it becomes a model of the quantizer classic, which
// computes the same: a finished model has no latents any more.
func WriteModel(w io.Writer, m *spinfile.Model) error {
	if err := m.Validate(); err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	st := State{Model: m.Config, Tokenizer: m.Tokenizer}
	var ts []SafeTensor
	for i := range m.Tensors {
		t := &m.Tensors[i]
		if t.Trits == nil {
			ts = append(ts, SafeTensor{t.Name, t.Shape, t.Floats()})
			continue
		}
		st.Model.Quantizer = arch.Classic
		values := make([]float32, len(t.Trits))
		for j, q := range t.Trits {
			values[j] = float32(q)
		}
		ts = append(ts, SafeTensor{t.Name, t.Shape, values})
		ts = append(ts, SafeTensor{betaName(t.Name), t.Shape[1:2], t.Scale})
	}
	return writeState(w, st, m.Meta, ts)
}

// betaName is the name of the scale of a layer, by that of its weight.
func betaName(weight string) string { return weight[:len(weight)-len("weight")] + "beta" }

// writeState writes tensors with what belongs to them as metadata: all but
// "source", so that the same model gives the same bytes wherever it lies.
func writeState(w io.Writer, st State, meta map[string]string, ts []SafeTensor) error {
	st.Step, _ = strconv.Atoi(meta["step"]) // 0 where it is not known
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	meta = maps.Clone(meta)
	maps.DeleteFunc(meta, func(key, _ string) bool { return key == "source" || key == "step" })
	if meta == nil {
		meta = map[string]string{}
	}
	meta[stateKey] = string(b)
	return WriteSafetensors(w, ts, meta)
}
