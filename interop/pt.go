package interop

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"spinnet/arch"
	"spinnet/pickle"
	"spinnet/spinfile"
)

// Limits of what is read of a PyTorch file beside its tensors.
const (
	maxPickle = 64 << 20
	// maxInflated bounds compressed entries: PyTorch itself writes none.
	maxInflated = 64 << 20
	// zipEnd is the size of the record that ends an archive, before its comment.
	zipEnd = 22
)

// storages are PyTorch's storage classes that hold numbers we read, and the
// types of their elements.
var storages = map[string]string{
	"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
	// Tensors of these are passed over.
	"LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
	"BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128",
}

// allowTorch says what a checkpoint's pickle may name: rebuilding a tensor,
// the storages, and the types of elements.
func allowTorch(module, name string) bool {
	switch module {
	case "torch._utils":
		return name == "_rebuild_tensor_v2"
	case "torch":
		return storages[name] != "" || slices.Contains([]string{"float32", "float16", "bfloat16", "float64", "int64", "int32", "bool"}, name)
	}
	return false
}

// ptArchive is the zip of a PyTorch file.
type ptArchive struct {
	*Latents
	entries map[string]*zip.File // by name without the archive's own folder
	budget  int64                // bytes of tensors that may still be opened
}

// openPyTorch opens a checkpoint of the original program (SPEC §4).
func (l *Latents) openPyTorch(o Options) error {
	a, err := openArchive(l)
	if err != nil {
		return err
	}
	data, err := a.whole("data.pkl", maxPickle)
	if err != nil {
		return err
	}
	top, err := pickle.Load(data, allowTorch)
	if err != nil {
		return l.fail("", -1, "data.pkl: %s", strings.TrimPrefix(err.Error(), "pickle: "))
	}
	checkpoint, _ := top.(*pickle.Dict)
	if checkpoint == nil {
		return l.fail("", -1, "it holds no dict")
	}
	state, _ := checkpoint.Get("model").(*pickle.Dict)
	args, _ := checkpoint.Get("model_args").(*pickle.Dict)
	if state == nil || args == nil {
		return l.fail("", -1, `it lacks the dict "model" or "model_args" of a checkpoint`)
	}
	if err := l.originalConfig(args); err != nil {
		return err
	}
	if l.Tokenizer, err = o.tokenizer(l.File, l.Config.VocabSize, spinfile.TokenizerInfo{}, originalTokenizer); err != nil {
		return err
	}
	if step, ok := checkpoint.Get("iter_num").(int64); ok && step >= 0 {
		l.setStep(int(step))
	}
	return a.openState(state)
}

// openArchive reads the directory of the zip.
func openArchive(l *Latents) (*ptArchive, error) {
	z, err := zip.NewReader(l.file, l.Size)
	if err != nil {
		return nil, l.fail("", -1, "not a whole zip archive, as torch.save writes since version 1.6: %v", err)
	}
	// The reader puts up with what follows the end of the archive.
	var end [4]byte
	at := l.Size - zipEnd - int64(len(z.Comment))
	if _, err := l.file.ReadAt(end[:], max(0, at)); err != nil || string(end[:]) != "PK\x05\x06" {
		return nil, l.fail("", -1, "bytes after the end of the zip archive")
	}
	a := &ptArchive{Latents: l, entries: make(map[string]*zip.File, len(z.File)), budget: l.Size}
	root := ""
	for _, f := range z.File {
		if dir, ok := strings.CutSuffix(f.Name, "data.pkl"); ok && strings.Count(dir, "/") <= 1 {
			root = dir
		}
		if f.Method == zip.Deflate {
			a.budget = 8*l.Size + maxInflated
		}
	}
	for _, f := range z.File {
		name := strings.TrimPrefix(f.Name, root)
		if a.entries[name] != nil {
			return nil, l.fail("", -1, "entry %s is there twice", quoted(f.Name))
		}
		a.entries[name] = f
	}
	if order, err := a.whole("byteorder", 16); err == nil && string(order) != "little" {
		return nil, l.fail("", -1, "byte order %q, want little", order)
	}
	return a, nil
}

// whole reads a small entry.
func (a *ptArchive) whole(name string, limit uint64) ([]byte, error) {
	f := a.entries[name]
	switch {
	case f == nil:
		return nil, a.fail("", -1, "no entry %q: not a file of torch.save", name)
	case f.UncompressedSize64 > limit:
		return nil, a.fail("", -1, "entry %q has %d bytes, want at most %d", name, f.UncompressedSize64, limit)
	}
	r, err := f.Open()
	if err != nil {
		return nil, a.fail("", -1, "entry %q: %v", name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)))
	if err != nil {
		return nil, a.fail("", -1, "entry %q: %v", name, err)
	}
	return b, nil
}

// originalConfig reads model_args.
func (l *Latents) originalConfig(args *pickle.Dict) error {
	c := arch.Config{Algebra: "octonion", Quantizer: arch.Classic}
	for _, f := range []struct {
		key  string
		into *int
	}{{"n_layer", &c.NLayer}, {"n_head", &c.NHead}, {"n_embd", &c.NEmbd}, {"block_size", &c.BlockSize}, {"vocab_size", &c.VocabSize}} {
		v, ok := args.Get(f.key).(int64)
		if !ok || v < 1 || v > math.MaxInt32 {
			return l.fail("", -1, "model_args: %s is no positive number", f.key)
		}
		*f.into = int(v)
	}
	if bias := args.Get("bias"); bias != nil && bias != false {
		return l.fail("", -1, "model_args: bias is not False; layers with a bias are not supported")
	}
	switch v := args.Get("octonion_attention").(type) {
	case nil:
	case bool:
		c.OctonionAttention = v
	default:
		return l.fail("", -1, "model_args: octonion_attention is neither True nor False")
	}
	switch v := args.Get("dropout").(type) {
	case nil:
	case int64:
		c.Dropout = float64(v)
	case float64:
		c.Dropout = v
	default:
		return l.fail("", -1, "model_args: dropout is no number")
	}
	l.Config = c.WithDefaults()
	if err := l.Config.Validate(); err != nil {
		return l.fail("", -1, "model_args: %v", err)
	}
	return nil
}

// openState opens the tensors of a state dict.
func (a *ptArchive) openState(state *pickle.Dict) error {
	output := -1
	var embedding any // where its data is
	for i, k := range state.Keys {
		source, ok := k.(string)
		if !ok {
			return a.fail("", -1, "a parameter whose name is not text")
		}
		name := source
		for strings.HasPrefix(name, "_orig_mod.") { // torch.compile puts it there
			name = name[len("_orig_mod."):]
		}
		if name == "freqs_cis" || strings.HasSuffix(name, ".head_mixer.signs") || strings.HasSuffix(name, ".head_mixer.widx") {
			continue // computed, not learned
		}
		if name == arch.OutputName {
			output = i
			continue
		}
		t, place, err := a.tensor(name, source, state.Values[i])
		if err != nil {
			return err
		}
		if name == "tok_embeddings.weight" {
			embedding = place
		}
		a.Tensors = append(a.Tensors, t)
	}
	if output < 0 {
		return nil
	}
	// The original shares the output's table with the embedding: both names
	// are the same data, or, in files that other programs wrote, equal data.
	if place, err := placeOf(state.Values[output]); err == nil && place == embedding {
		return nil
	}
	t, _, err := a.tensor(arch.OutputName, state.Keys[output].(string), state.Values[output])
	if err != nil {
		return err
	}
	a.Tensors = append(a.Tensors, t)
	a.Config.UntiedOutput = true
	return a.tie()
}

// ptPlace is where a tensor's data is.
type ptPlace struct {
	storage, key string
	numel        int64 // of the storage
	offset       int64 // of the tensor in it
}

// placeOf reads what a tensor is rebuilt from.
func placeOf(v any) (p ptPlace, err error) {
	call, _ := v.(*pickle.Call)
	if call == nil || call.Func.Name != "_rebuild_tensor_v2" || len(call.Args) < 4 {
		return p, errors.New("not a tensor")
	}
	ref, _ := call.Args[0].(pickle.Persistent)
	id, _ := ref.ID.(pickle.Tuple)
	if len(id) < 5 || id[0] != "storage" {
		return p, errors.New("a tensor without a storage")
	}
	class, ok1 := id[1].(pickle.Global)
	key, ok2 := id[2].(string)
	numel, ok3 := id[4].(int64)
	offset, ok4 := call.Args[1].(int64)
	if !ok1 || !ok2 || !ok3 || !ok4 || numel < 0 || offset < 0 || class.Module != "torch" {
		return p, errors.New("a damaged reference to its storage")
	}
	return ptPlace{class.Name, key, numel, offset}, nil
}

// tensor opens one tensor: it must lie in its storage without gaps.
func (a *ptArchive) tensor(name, source string, v any) (t Stored, p ptPlace, err error) {
	if p, err = placeOf(v); err != nil {
		return t, p, a.fail(name, -1, "%v", err)
	}
	args := v.(*pickle.Call).Args
	t = Stored{Name: name, Source: source, Type: storages[p.storage], Offset: -1}
	width := dtypeWidth(t.Type)
	if width == 0 {
		return t, p, a.fail(name, -1, "its values are in a %s, want floats of 16, 32 or 64 bits", p.storage)
	}
	shape, ok1 := args[2].(pickle.Tuple)
	strides, ok2 := args[3].(pickle.Tuple)
	if !ok1 || !ok2 || len(shape) != len(strides) {
		return t, p, a.fail(name, -1, "a damaged shape")
	}
	count := int64(1)
	for _, d := range slices.Backward(shape) {
		n, ok := d.(int64)
		if !ok || n < 1 || n > math.MaxInt32 || count > math.MaxInt64/8/n {
			return t, p, a.fail(name, -1, "a shape with the size %s", pickled(d))
		}
		i := len(shape) - 1 - len(t.Shape)
		if stride, ok := strides[i].(int64); !ok || n > 1 && stride != count {
			return t, p, a.fail(name, -1, "stride %s where %d is wanted: its values do not lie in a row", pickled(strides[i]), count)
		}
		t.Shape = append(t.Shape, int(n))
		count *= n
	}
	slices.Reverse(t.Shape)
	f := a.entries["data/"+p.key]
	switch {
	case f == nil:
		return t, p, a.fail(name, -1, "no entry %s for its values", quoted("data/"+p.key))
	case p.numel > math.MaxInt64/8 || uint64(p.numel*width) != f.UncompressedSize64:
		return t, p, a.fail(name, -1, "entry %s has %d bytes, want %d values of %s", quoted(f.Name), f.UncompressedSize64, p.numel, t.Type)
	case p.offset > p.numel || count > p.numel-p.offset:
		return t, p, a.fail(name, -1, "%d values from %d on, in a storage of %d", count, p.offset, p.numel)
	}
	t.Bytes = count * width
	if a.budget -= t.Bytes; a.budget < 0 {
		return t, p, a.fail(name, -1, "the tensors are larger than the file")
	}
	if f.Method == zip.Store {
		if t.Offset, err = f.DataOffset(); err != nil {
			return t, p, a.fail(name, -1, "entry %q: %v", f.Name, err)
		}
		t.Offset += p.offset * width
	}
	t.read = func(dst []float32) error { return readEntry(dst, f, p.offset*width, t.Type, width) }
	return t, p, nil
}

// pickled shows a number of a pickle. Other values are not written out: a few
// bytes of a pickle can stand for a text that no memory holds.
func pickled(v any) string {
	if n, ok := v.(int64); ok {
		return strconv.FormatInt(n, 10)
	}
	return "that is no number"
}

// readEntry fills dst with the values from offset on, and checks the sum of
// the whole entry.
func readEntry(dst []float32, f *zip.File, offset int64, dtype string, width int64) error {
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("entry %q: %w", f.Name, err)
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, offset); err != nil {
		return fmt.Errorf("entry %q: %w", f.Name, err)
	}
	buf := make([]byte, 1<<16)
	for len(dst) > 0 {
		n := min(len(dst), len(buf)/int(width))
		if _, err := io.ReadFull(r, buf[:n*int(width)]); err != nil {
			return fmt.Errorf("entry %q: %w", f.Name, err)
		}
		decodeValues(dst[:n], buf, dtype)
		dst = dst[n:]
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("entry %q: %w", f.Name, err)
	}
	return nil
}
