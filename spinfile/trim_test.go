package spinfile

import (
	"slices"
	"testing"

	"spinnet/arch"
)

func TestTrim(t *testing.T) {
	c := tiny
	c.VocabSize, c.UntiedOutput, c.NEmbd = 10, true, 48
	all := randomLatents(c)
	m, err := FromLatents(c, TokenizerInfo{}, func(n string) []float32 { return all[n] })
	if err != nil {
		t.Fatal(err)
	}
	rows := []int32{0, 3, 9}
	for _, m := range []*Model{m, m.Quantize(), m.QuantizeEmbedding(4)} {
		got, err := m.Trim(rows, TokenizerInfo{Kind: "chars", Chars: "abc"})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Encode(got); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"tok_embeddings.weight", arch.OutputName} {
			w, want := got.Tensor(name).Floats(), m.Tensor(name).Floats()
			for i, r := range rows {
				if !slices.Equal(w[i*48:(i+1)*48], want[r*48:(r+1)*48]) {
					t.Errorf("%s: row %d is not row %d of before", name, i, r)
				}
			}
		}
	}
	if _, err := m.Trim([]int32{10}, TokenizerInfo{}); err == nil {
		t.Error("a row outside the vocabulary was taken")
	}
	if m.Tensors[0].Shape[0] != 10 || m.Config.VocabSize != 10 {
		t.Error("the model itself was changed")
	}
}
