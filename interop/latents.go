package interop

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"spinnet/arch"
	"spinnet/spinfile"
)

// Formats of model files, as they stand in errors and reports.
const (
	FormatSafetensors = "safetensors"
	FormatPyTorch     = "PyTorch"
	FormatLlama2C     = "llama2.c"
	FormatGGUF        = "GGUF"
	FormatSpinnet     = "spinnet"
)

// Options say what a file itself does not. They hold for every format; a file
// that says something else is an error.
type Options struct {
	Chars     string // character vocabulary, sorted and distinct, of a model that carries none
	Tokenizer string // path of a llama2.c tokenizer; "" looks beside a model of llama's
}

// Stored is a parameter as it lies in a file.
type Stored struct {
	Name   string // as in arch.Params
	Source string // in the file
	Type   string // of its elements in the file, such as "F16"
	Shape  []int  // in the file, row-major
	Offset int64  // of its data in the file; −1 when it is compressed there
	Bytes  int64  // that its data takes in the file
	// read fills dst, Param.Len() values, in the layout of arch.Params.
	read func(dst []float32) error
}

// Latents is a file of parameters as training has them, opened: everything
// but the values, which are read one tensor at a time. The configuration is
// valid, and Tensors are exactly its parameters, each with its shape.
type Latents struct {
	File      string // path of the weights
	Format    string
	Size      int64 // of the file
	Config    arch.Config
	Tokenizer spinfile.TokenizerInfo
	Meta      map[string]string // provenance: "source", "step", what the file says of itself
	Tensors   []Stored          // in the order of arch.Params

	file io.ReaderAt
}

// OpenLatents opens a model that holds parameters as training has them: what
// Open takes, but for .spinnet files, which hold finished weights.
func OpenLatents(path string, o Options) (*Latents, error) {
	f, size, weights, err := openModel(path)
	if err != nil {
		return nil, err
	}
	l, err := openLatents(f, size, weights, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// openModel opens the weights file that path leads to.
func openModel(path string) (f *os.File, size int64, weights string, err error) {
	if weights, err = Resolve(path); err != nil {
		return nil, 0, "", err
	}
	f, size, err = openRegular(weights)
	return f, size, weights, err
}

// openRegular opens a file that has a size.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("interop: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("interop: %w", err)
	}
	return f, info.Size(), nil
}

// openLatents opens a file of size bytes whatever its format.
func openLatents(r io.ReaderAt, size int64, path string, o Options) (*Latents, error) {
	format, err := detect(r, size, path)
	if err != nil {
		return nil, err
	}
	l := &Latents{File: path, Format: format, Size: size, Meta: map[string]string{"source": path}, file: r}
	switch format {
	case FormatSafetensors:
		err = l.openSafetensors(o)
	case FormatPyTorch:
		err = l.openPyTorch(o)
	case FormatLlama2C:
		err = l.openLlama2C(o)
	case FormatGGUF:
		err = l.openGGUF(o)
	default:
		err = l.fail("", -1, "it holds finished weights, not parameters as training has them")
	}
	if err != nil {
		return nil, err
	}
	return l, l.check()
}

// Close closes the file.
func (l *Latents) Close() error {
	if c, ok := l.file.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (l *Latents) fail(tensor string, offset int64, reason string, args ...any) error {
	return failing(l.File, l.Format)(tensor, offset, reason, args...)
}

// setStep notes the training step, if there was one.
func (l *Latents) setStep(step int) {
	l.Meta["step"] = strconv.Itoa(step)
}

// check compares what is in the file with the configuration: exactly its
// parameters, each with its shape. It puts them in order.
func (l *Latents) check() error {
	if err := l.Config.Validate(); err != nil {
		return l.fail("", -1, "%v", err)
	}
	have := make(map[string]int, len(l.Tensors))
	for i := range l.Tensors {
		name := l.Tensors[i].Name
		if _, twice := have[name]; twice {
			return l.fail(name, -1, "twice in the file")
		}
		have[name] = i
	}
	params := arch.Params(l.Config)
	ordered := make([]Stored, 0, len(l.Tensors))
	for _, p := range params {
		i, ok := have[p.Name]
		if !ok {
			return l.fail(p.Name, -1, "missing")
		}
		t := l.Tensors[i]
		if want := storedShape(p, len(t.Shape)); !slices.Equal(t.Shape, want) {
			return l.fail(p.Name, t.Offset, "shape %s, the configuration wants %v", cut(fmt.Sprint(t.Shape), maxQuoted), want)
		}
		delete(have, p.Name)
		ordered = append(ordered, t)
	}
	if len(have) > 0 {
		names := make([]string, 0, len(have))
		for name := range have {
			names = append(names, name)
		}
		return l.fail(slices.Min(names), -1, "does not belong to the model of the configuration")
	}
	l.Tensors = ordered
	return nil
}

// tie drops the output's own table where it equals the embedding: many files
// hold a shared table twice.
func (l *Latents) tie() error {
	if !l.Config.UntiedOutput {
		return nil
	}
	if err := l.check(); err != nil {
		return err
	}
	in, err := l.Values("tok_embeddings.weight")
	if err != nil {
		return err
	}
	out, err := l.Values(arch.OutputName)
	if err != nil {
		return err
	}
	if slices.Equal(in, out) {
		l.Config.UntiedOutput = false
		l.Tensors = slices.DeleteFunc(l.Tensors, func(t Stored) bool { return t.Name == arch.OutputName })
	}
	return nil
}

// storedShape is a parameter's shape in a file that gives it the rank: dense
// matrices may lack the first dimension of the algebra of real numbers, 1.
func storedShape(p arch.Param, rank int) []int {
	if p.Kind == arch.Ternary && p.Shape[0] == 1 && rank == 2 {
		return p.Shape[1:]
	}
	return p.Shape
}

// Values reads the parameter of that name. Its length is that of the
// parameter; values may be infinite or NaN.
func (l *Latents) Values(name string) ([]float32, error) {
	i := slices.IndexFunc(l.Tensors, func(t Stored) bool { return t.Name == name })
	if i < 0 {
		return nil, l.fail(name, -1, "missing")
	}
	t := &l.Tensors[i]
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	values := make([]float32, n)
	if err := t.read(values); err != nil {
		if _, ok := err.(*FormatError); ok {
			return nil, err
		}
		return nil, l.fail(name, t.Offset, "%v", err)
	}
	return values, nil
}

// ReadAll reads all parameters, in the order and shapes of arch.Params.
func (l *Latents) ReadAll() (SafeTensors, error) {
	var ts SafeTensors
	for _, p := range arch.Params(l.Config) {
		values, err := l.Values(p.Name)
		if err != nil {
			return nil, err
		}
		ts = append(ts, SafeTensor{Name: p.Name, Shape: p.Shape, Data: values})
	}
	return ts, nil
}

// Model reads the parameters and quantises them as the configuration says.
func (l *Latents) Model() (*spinfile.Model, error) {
	var failed error
	m, err := spinfile.FromLatents(l.Config, l.Tokenizer, func(name string) []float32 {
		if failed != nil {
			return nil
		}
		var values []float32
		values, failed = l.Values(name)
		return values
	})
	if failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, l.fail("", -1, "%s", strings.TrimPrefix(err.Error(), "spinfile: "))
	}
	for k, v := range l.Meta {
		m.Meta[k] = v
	}
	return m, nil
}
