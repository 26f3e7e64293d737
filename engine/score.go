package engine

import (
	"context"
	"errors"
	"math"

	"spinnet/tokenizer"
)

// Score is how well a model predicts a text.
type Score struct {
	Loss     float64   // mean over the predicted tokens, in nats
	Tokens   int       // predicted: all but the first
	LogProbs []float32 // of ids[1:], natural logarithm
	Logits   []float32 // [vocab] after the last id but one, whose prediction is the last id
}

// Score measures ids on the CPU, with ScoreIDs.
func (e *Engine) Score(ctx context.Context, ids []int32, progress func(done int)) (Score, error) {
	return ScoreIDs(ctx, e.NewSession(), ids, progress)
}

// ScoreIDs measures ids in consecutive windows of block_size inputs that do not
// overlap, each with an empty cache: window w reads ids[w·T : w·T+T] and
// predicts ids[w·T+1 : w·T+T+1], so every token but the first is predicted
// once (SPEC §3). It takes at least two ids. What s has read before is
// forgotten. progress, if not nil, is told how many tokens are done.
func ScoreIDs(ctx context.Context, s Text, ids []int32, progress func(done int)) (Score, error) {
	c := s.Config()
	if len(ids) < 2 {
		return Score{}, errors.New("engine: a text to score needs at least 2 tokens, this one has " + itoa(len(ids)))
	}
	if err := CheckIDs(ids, c.VocabSize); err != nil {
		return Score{}, err
	}
	n := len(ids) - 1
	r := Score{Tokens: n, LogProbs: make([]float32, n)}
	for at := 0; at < n; {
		if err := ctx.Err(); err != nil {
			return Score{}, err
		}
		if at%c.BlockSize == 0 {
			s.Reset()
		}
		windowEnd := min(n, at-s.Pos()+c.BlockSize)
		m := min(prefillChunk, windowEnd-at)
		var err error
		if r.Logits, err = s.Score(r.LogProbs[at:at+m], ids[at:at+m], ids[at+1:at+1+m]); err != nil {
			return Score{}, err
		}
		at += m
		if progress != nil {
			progress(at)
		}
	}
	for _, l := range r.LogProbs {
		r.Loss -= float64(l)
	}
	r.Loss /= float64(n)
	return r, nil
}

// BitsPerByte is the score in bits for each byte of the predicted text, the
// tokens ids[1:]; 0 when they hold no bytes.
func (r *Score) BitsPerByte(tok tokenizer.Tokenizer, ids []int32) (float64, error) {
	var buf []byte
	bytes := 0
	for i, id := range ids[1:] {
		var err error
		if buf, err = tokenizer.AppendAfter(tok, buf[:0], ids[i], id); err != nil {
			return 0, err
		}
		bytes += len(buf)
	}
	if bytes == 0 {
		return 0, nil
	}
	return r.Loss * float64(r.Tokens) / math.Ln2 / float64(bytes), nil
}
