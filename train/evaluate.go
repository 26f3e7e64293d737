package train

import (
	"context"
	"math"

	"spinnet/tensor"
)

// trainEvalBatches is how many batches estimate the training loss when
// eval_iters is 0, that is, when the validation split is read whole.
const trainEvalBatches = 10

// evaluate measures the training loss on random batches, the same ones at
// every evaluation, and the validation loss on eval_iters such batches or,
// when that is 0, on the whole split in consecutive windows.
func (t *Trainer) evaluate(ctx context.Context) (trainLoss, valLoss float64, err error) {
	batches := t.cfg.EvalIters
	if batches == 0 {
		batches = trainEvalBatches
	}
	if trainLoss, err = t.randomLoss(ctx, t.evalTrain, batches); err != nil {
		return 0, 0, err
	}
	switch {
	case t.evalVal == nil:
		return trainLoss, math.NaN(), nil
	case t.cfg.EvalIters > 0:
		valLoss, err = t.randomLoss(ctx, t.evalVal, batches)
	default:
		valLoss, err = t.wholeLoss(ctx, t.evalVal)
	}
	return trainLoss, valLoss, err
}

// randomLoss is the mean loss over random windows.
func (t *Trainer) randomLoss(ctx context.Context, l *loader, batches int) (float64, error) {
	var sum float64
	for i := range batches {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := l.random(t.evalBatch, tensor.Key{Seed: t.cfg.Seed, Step: uint64(i), Site: tensor.SiteEval}); err != nil {
			return 0, err
		}
		loss, err := t.evalLoss()
		if err != nil {
			return 0, err
		}
		sum += loss / float64(len(t.losses))
	}
	return sum / float64(batches), nil
}

// wholeLoss is the mean loss over a split, each token predicted once
// (SPEC §3).
func (t *Trainer) wholeLoss(ctx context.Context, l *loader) (float64, error) {
	var sum float64
	total := 0
	for w := int64(0); w < l.windows(t.evalBatch.T); w += int64(t.evalBatch.Rows) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := l.consecutive(t.evalBatch, w)
		if err != nil {
			return 0, err
		}
		loss, err := t.evalLoss()
		if err != nil {
			return 0, err
		}
		sum += loss
		total += n
	}
	return sum / float64(total), nil
}

// evalLoss runs the evaluation batch and adds up its losses.
func (t *Trainer) evalLoss() (float64, error) {
	t.evalPass()
	t.model.Device.Read(t.losses, t.evalBatch.Losses)
	return sumLosses(t.losses), t.sync()
}

func sumLosses(losses []float32) (sum float64) {
	for _, l := range losses {
		sum += float64(l)
	}
	return sum
}
