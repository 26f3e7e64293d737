package interop

import (
	"fmt"

	"spinnet/arch"
	"spinnet/spinfile"
)

// Description is what a model file holds.
type Description struct {
	File      string
	Format    string // one of the Format constants
	Version   int    // of a .spinnet file, or 0
	Size      int64  // of the file
	Config    arch.Config
	Tokenizer spinfile.TokenizerInfo
	Meta      map[string]string
	Tensors   []TensorDescription // in the order of the file or of arch.Params
}

// TensorDescription is a tensor as it lies in a file.
type TensorDescription struct {
	Name   string // as in arch.Params
	Source string // in the file
	Kind   string // as arch.Kind, or "rotations" for what the model does without
	Type   string // of its values in the file, such as "F16" or "bitmask"
	Shape  []int  // in the file
	Values int
	Offset int64 // of its data in the file; −1 when it is compressed there
	Bytes  int64 // in the file
	Zeros  int   // among ternary weights, latents as they would be quantised; −1 for others
}

// Inspect opens a model file of any format and describes it. Everything is
// read and checked as Open does, checksums and values included; only the
// engine is missing.
func Inspect(path string, o Options) (*Description, error) {
	f, size, weights, err := openModel(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	format, err := detect(f, size, weights)
	if err != nil {
		return nil, err
	}
	if format == FormatSpinnet {
		m, data, err := openFinished(weights, o)
		if err != nil {
			return nil, err
		}
		return describeFinished(m, data, weights)
	}
	l, err := openLatents(f, size, weights, o)
	if err != nil {
		return nil, err
	}
	m, err := l.Model()
	if err != nil {
		return nil, err
	}
	d := &Description{File: weights, Format: format, Size: size, Config: m.Config, Tokenizer: m.Tokenizer, Meta: m.Meta}
	for i, p := range arch.Params(m.Config) {
		t := &l.Tensors[i]
		d.Tensors = append(d.Tensors, TensorDescription{Name: p.Name, Source: t.Source, Kind: kindOf(p, m.Config), Type: t.Type, Shape: t.Shape,
			Values: p.Len(), Offset: t.Offset, Bytes: t.Bytes, Zeros: zerosOf(m, p.Name)})
	}
	return d, nil
}

// describeFinished describes a .spinnet file, by its sections.
func describeFinished(m *spinfile.Model, data []byte, path string) (d *Description, err error) {
	d = &Description{File: path, Format: FormatSpinnet, Size: int64(len(data)), Config: m.Config, Tokenizer: m.Tokenizer, Meta: m.Meta}
	var sections []spinfile.Section
	if d.Version, sections, err = spinfile.Sections(data); err != nil {
		return nil, fmt.Errorf("interop: %s: %w", path, err)
	}
	params := map[string]arch.Param{}
	for _, p := range arch.Params(m.Config) {
		params[p.Name] = p
	}
	for _, s := range sections {
		if s.Encoding == "" {
			continue
		}
		t := TensorDescription{Name: s.Name, Source: s.Name, Kind: "rotations", Type: s.Encoding, Offset: s.Offset, Bytes: s.Bytes, Zeros: zerosOf(m, s.Name)}
		if p, ok := params[s.Name]; ok {
			t.Kind, t.Shape, t.Values = kindOf(p, m.Config), p.Shape, p.Len()
		}
		d.Tensors = append(d.Tensors, t)
	}
	return d, nil
}

// kindOf names a parameter's kind: weights that could be ternary and are not
// are "linear".
func kindOf(p arch.Param, c arch.Config) string {
	if p.Kind == arch.Ternary && c.Quantizer == arch.None {
		return "linear"
	}
	return p.Kind.String()
}

// zerosOf counts the zeros of a ternary tensor, −1 for another.
func zerosOf(m *spinfile.Model, name string) int {
	if t := m.Tensor(name); t != nil && t.Trits != nil {
		return t.Zeros()
	}
	return -1
}
