package arch

// Kind says how a parameter is used, initialised, decayed and stored.
type Kind int

const (
	Embedding   Kind = iota // [vocab, d]: the table of the tokens, and that of the output where it is untied
	Ternary                 // [n, N, K] weight of a hypercomplex linear layer
	Beta                    // [N] output scale of a linear layer
	MixerWeight             // [n, head_dim, head_dim], float
	MixerBeta               // [head_dim]
	Norm                    // [d]
)

// String is the kind's name in reports.
func (k Kind) String() string {
	return [...]string{"embedding", "ternary", "beta", "mixer", "mixer beta", "norm"}[k]
}

// OutputName is the output's table in a model that does not share the
// embedding with it.
const OutputName = "output.weight"

// Param is one learned tensor of a model.
type Param struct {
	Name    string // as in the original's checkpoints (SPEC §4)
	Kind    Kind
	Shape   []int
	Algebra string // of Ternary, Beta and MixerWeight parameters
	Layer   int    // −1 outside the layers
}

// Len is the number of elements.
func (p Param) Len() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// Decayed reports whether weight decay applies: to two or more dimensions
// only (SPEC §3).
func (p Param) Decayed() bool { return len(p.Shape) >= 2 }

// Params lists a model's parameters in the original's state-dict order.
// The configuration must be valid.
func Params(c Config) []Param {
	d := c.NEmbd
	ps := []Param{{"tok_embeddings.weight", Embedding, []int{c.VocabSize, d}, "", -1}}
	algebras := c.algebras()
	for i := range c.NLayer {
		pre := "layers." + itoa(i) + "."
		alg := algebras[i%len(algebras)]
		n := AlgebraDim(alg)
		linear := func(name string, out, in int) {
			ps = append(ps, Param{pre + name + ".weight", Ternary, []int{n, out / n, in / n}, alg, i})
			if c.HasBeta() {
				ps = append(ps, Param{pre + name + ".beta", Beta, []int{out / n}, alg, i})
			}
		}
		ps = append(ps, Param{pre + "attention_norm.weight", Norm, []int{d}, "", i})
		linear("attention.wq", d, d)
		linear("attention.wk", c.KVDim(), d)
		linear("attention.wv", c.KVDim(), d)
		linear("attention.wo", d, d)
		if c.OctonionAttention {
			hd := c.HeadDim()
			nm := AlgebraDim(c.MixerAlgebra)
			ps = append(ps,
				Param{pre + "attention.head_mixer.W", MixerWeight, []int{nm, hd, hd}, c.MixerAlgebra, i},
				Param{pre + "attention.head_mixer.beta", MixerBeta, []int{hd}, c.MixerAlgebra, i})
		}
		ps = append(ps, Param{pre + "ffn_norm.weight", Norm, []int{d}, "", i})
		linear("feed_forward.gate_proj", c.HiddenDim, d)
		linear("feed_forward.up_proj", c.HiddenDim, d)
		linear("feed_forward.down_proj", d, c.HiddenDim)
	}
	ps = append(ps, Param{"norm.weight", Norm, []int{d}, "", -1})
	if c.UntiedOutput {
		ps = append(ps, Param{OutputName, Embedding, []int{c.VocabSize, d}, "", -1})
	}
	return ps
}

// Counts summarises a model's size.
type Counts struct {
	Ternary int // weights that become −1, 0, +1 (0 when the quantizer is none)
	Float   int // all other weights
	// StoredBytes estimates a compressed file: 1.6 bits a trit (five trits a
	// byte), int8 embedding and mixers with their scales, float16 for the rest.
	StoredBytes int
	// MACs is multiply–accumulates a token in the linear layers, mixers and
	// output as the dense matrices they stand for.
	MACs int
}

// Count adds up the parameters of a valid configuration.
func Count(c Config) Counts {
	var n Counts
	for _, p := range Params(c) {
		l := p.Len()
		switch p.Kind {
		case Ternary:
			n.MACs += l * p.Shape[0]
			if c.Quantizer == None {
				n.Float += l
				n.StoredBytes += 2 * l
				continue
			}
			n.Ternary += l
			n.StoredBytes += (l+4)/5 + 4
		case Embedding:
			n.MACs += l
			n.Float += l
			n.StoredBytes += l + 4*p.Shape[0]
		case MixerWeight:
			n.MACs += l * c.NHead
			n.Float += l
			n.StoredBytes += l + 4*p.Shape[1]*p.Shape[0]
		default:
			n.Float += l
			n.StoredBytes += 2 * l
		}
	}
	return n
}
