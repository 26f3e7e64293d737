package link

import (
	"bytes"
	"context"
	"math/rand/v2"

	"spinnet/arch"
	"spinnet/canister/candid"
	"spinnet/canister/host"
	"spinnet/canister/module"
	"spinnet/engine"
	"spinnet/spinfile"
	"spinnet/tokenizer"
)

// sampleModel has normal latents, which is all that the instructions depend on.
func sampleModel(c arch.Config, info spinfile.TokenizerInfo) (*spinfile.Model, error) {
	rng := rand.New(rand.NewPCG(1, 2))
	latents := map[string][]float32{}
	for _, p := range arch.Params(c.WithDefaults()) {
		w := make([]float32, p.Len())
		for i := range w {
			w[i] = 1
			if p.Kind != arch.Norm && p.Kind != arch.Beta {
				w[i] = float32(rng.NormFloat64())
			}
		}
		latents[p.Name] = w
	}
	m, err := spinfile.FromLatents(c, info, func(name string) []float32 { return latents[name] })
	if err != nil {
		return nil, err
	}
	return m.QuantizeEmbedding(8).Quantize(), nil
}

// gainImage is a model of the layers that the benchmarks have, but two of them
// and a vocabulary of bytes.
func gainImage() ([]byte, error) {
	m, err := sampleModel(arch.Config{NLayer: 2, NHead: 8, NEmbd: 512, HiddenDim: 1408, BlockSize: 64, VocabSize: 256,
		Quantizer: arch.AbsMean, ActBits: 8}, spinfile.TokenizerInfo{Kind: tokenizer.KindBytes})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = engine.WriteImage(&b, m, engine.Options{})
	return b.Bytes(), err
}

// instructionsPerToken runs that model in a module.
func instructionsPerToken(ctx context.Context, wasm []byte, info Info, image []byte) (uint64, error) {
	wasm, err := Canister(wasm, info, image)
	if err != nil {
		return 0, err
	}
	c, err := host.Load(ctx, wasm, module.ICP)
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	if _, err := c.Call(ctx, host.Message{Export: "canister_init"}); err != nil {
		return 0, err
	}
	const few, many = 4, 20
	var took [2]uint64
	for i, tokens := range []uint32{few, many} {
		r, err := c.Call(ctx, host.Message{Export: "canister_update generate", Arg: candid.Encode(candid.RecordValue(
			candid.Field{Name: "prompt", Value: candid.TextValue("Once")},
			candid.Field{Name: "max_tokens", Value: candid.OptValue(candid.Nat32Value(tokens))},
			candid.Field{Name: "temperature", Value: candid.OptValue(candid.Float64Value(0))},
		))})
		if err != nil {
			return 0, err
		}
		took[i] = r.Instructions
	}
	return (took[1] - took[0]) / (many - few), nil
}
