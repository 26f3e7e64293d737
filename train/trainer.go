package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"time"

	"spinnet/dataset"
	"spinnet/model"
	"spinnet/runlog"
	"spinnet/tensor"
)

// ErrInterrupted is what Run returns, after saving, when its context ends.
var ErrInterrupted = errors.New("train: interrupted")

// Options are what a run needs beside its recipe.
type Options struct {
	Threads int // worker threads; 0: one a core
	// Device computes; nil: the CPU with Threads. The Trainer closes it, and
	// so does New when it fails.
	Device tensor.Device
}

// Trainer holds one training run: the model, the optimizer's state and the
// recorded passes. One step goes from random windows of the dataset through
// the tape's Forward and Backward to one AdamW update; see Run.
type Trainer struct {
	cfg     Config
	data    *dataset.Dataset
	model   *model.Model
	dev     tensor.Device
	threads int

	batch     *model.Batch
	tape      *tensor.Tape
	train     *loader
	evalBatch *model.Batch
	evalTape  *tensor.Tape
	evalTrain *loader
	evalVal   *loader // nil without a validation split
	losses    []float32
	adam      tensor.AdamW // of every parameter, in the order of model.Params

	// The parts of a step and of an evaluation, as the device recorded them.
	begin, pass, update, evalPass func()

	step      int           // updates done
	elapsed   time.Duration // training time over all resumes, without evaluations
	smooth    float64
	last      EvalInfo
	bestVal   float64
	bestStep  int // of the evaluation that gave bestVal, −1 for none
	savedStep int // of the newest checkpoint, −1 for none
	savedEval int // the step of last that it holds
	resumed   bool
	overwrite bool
	log       *runlog.Writer
	held      *os.File // out_dir, locked; nil: not
}

// New builds a run: the model with fresh weights, and its passes recorded. A
// dataset that is too small for the recipe, a vocabulary larger than the
// recipe's, and too little memory on the device are errors.
func New(cfg Config, data *dataset.Dataset, opts Options) (t *Trainer, err error) {
	if opts.Threads == 0 {
		opts.Threads = runtime.GOMAXPROCS(0)
	}
	dev := opts.Device
	defer func() {
		if err != nil && dev != nil {
			dev.Close()
		}
	}()
	if err := checkData(&cfg, data); err != nil {
		return nil, err
	}
	if dev == nil {
		dev = tensor.NewCPU(opts.Threads)
	}
	t = &Trainer{cfg: cfg, data: data, dev: dev, threads: opts.Threads, savedStep: -1, savedEval: -1, bestVal: math.NaN(), bestStep: -1}
	t.last = EvalInfo{Step: -1, Train: math.NaN(), Val: math.NaN()}
	if err := t.build(); err != nil {
		return nil, err
	}
	if err := t.model.Init(cfg.Init, cfg.Seed); err != nil {
		return nil, err
	}
	t.model.Refresh(true)
	if err := t.dev.Sync(); err != nil {
		return nil, err
	}
	return t, nil
}

// checkData refuses a dataset that is too small for the recipe.
func checkData(cfg *Config, data *dataset.Dataset) error {
	if v := cfg.Arch(data.VocabSize).VocabSize; v < data.VocabSize {
		return fmt.Errorf("train: vocab_size = %d is smaller than the %d tokens of dataset %s", v, data.VocabSize, data.Name)
	}
	if n := data.Train.Len(); n < int64(cfg.BlockSize)+1 {
		return fmt.Errorf("train: block_size = %d needs at least %d training tokens; dataset %s has %d", cfg.BlockSize, cfg.BlockSize+1, data.Name, n)
	}
	if v := data.Val.Len(); cfg.EvalIters > 0 && v >= 2 && v < int64(cfg.BlockSize)+1 {
		return fmt.Errorf("train: eval_iters = %d draws windows of block_size = %d, but the validation split of %s has %d tokens; set eval_iters = 0", cfg.EvalIters, cfg.BlockSize, data.Name, v)
	}
	return nil
}

// Measure does what takes memory in a run, on a device that only counts it
// (cuda.Measure makes one): the parts of a step and an evaluation, without
// weights or tokens. Its errors are those of New.
func Measure(cfg Config, data *dataset.Dataset, dev tensor.Device) error {
	if err := checkData(&cfg, data); err != nil {
		return err
	}
	t := &Trainer{cfg: cfg, data: data, dev: dev, savedStep: -1}
	if err := t.build(); err != nil {
		return err
	}
	t.model.Refresh(true)
	t.begin()
	t.pass()
	t.setUpdate()
	t.update()
	t.evalPass()
	return dev.Sync()
}

// build allocates the model and records its passes.
func (t *Trainer) build() (err error) {
	cfg, data := &t.cfg, t.data
	if t.model, err = model.New(t.dev, cfg.Arch(data.VocabSize)); err != nil {
		return err
	}
	o := &t.adam
	*o = tensor.AdamW{Beta1: float32(cfg.Beta1), Beta2: float32(cfg.Beta2), Eps: 1e-8, Clip: cfg.GradClip,
		Groups: make([]tensor.AdamWGroup, len(t.model.Params)), Loss: t.dev.AllocScalar(), Squares: t.dev.AllocScalar()}
	for _, p := range t.model.Params {
		o.W, o.G = append(o.W, p.Value), append(o.G, p.Grad)
		o.M, o.V = append(o.M, t.dev.Alloc(p.Shape...)), append(o.V, t.dev.Alloc(p.Shape...))
	}
	t.batch = t.model.NewBatch(cfg.BatchSize, cfg.BlockSize)
	t.losses = make([]float32, cfg.BatchSize*cfg.BlockSize)
	t.train = newLoader(t.dev, data.Train, cfg.BatchSize, cfg.BlockSize)
	t.tape = t.model.Record(t.batch, model.Options{Train: true, Recompute: cfg.Recompute, Seed: cfg.Seed,
		GradScale: 1 / float32(cfg.TokensPerStep())})
	t.evalBatch = t.model.NewBatch(cfg.BatchSize, cfg.BlockSize)
	t.evalTape = t.model.Record(t.evalBatch, model.Options{})
	t.evalTrain = newLoader(t.dev, data.Train, cfg.BatchSize, cfg.BlockSize)
	if v := data.Val; v.Len() >= 2 {
		t.evalVal = newLoader(t.dev, v, cfg.BatchSize, cfg.BlockSize)
	}
	t.begin = t.dev.Record(t.beginStep)
	t.pass = t.dev.Record(t.trainPass)
	t.update = t.dev.Record(t.updateModel)
	t.evalPass = t.dev.Record(t.evalTape.Forward)
	return t.dev.Sync() // that there is the memory
}

// Close closes the device, which New was given or made, and lets another run have
// out_dir.
func (t *Trainer) Close() {
	t.unlock()
	t.dev.Close()
}

// Step is the number of updates done.
func (t *Trainer) Step() int { return t.step }

// Last is the newest evaluation; its Step is −1 before the first.
func (t *Trainer) Last() EvalInfo { return t.last }

// Run trains to max_iters: steps, log lines, evaluations, samples and
// checkpoints. When ctx ends it saves and returns ErrInterrupted. A loss or a
// gradient that is not finite, a folder that holds another run, and a file that
// cannot be written end it with an error; the last checkpoint stays.
func (t *Trainer) Run(ctx context.Context, o Observer) (err error) {
	o = o.fill()
	defer t.unlock()
	if err := t.openFolder(ctx, o); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.log.Close()) }()
	if t.step > 0 && t.due(t.cfg.EvalInterval) && t.last.Step != t.step { // what an interruption cut short
		if err := t.afterStep(ctx, o, nil); err != nil {
			return err
		}
	}
	start, first := time.Now(), t.step
	for t.step < t.cfg.MaxIters {
		if ctx.Err() != nil {
			return t.interrupted(o)
		}
		began := time.Now()
		loss, norm, err := t.TrainStep(ctx)
		if stopped(ctx, err) {
			return t.interrupted(o)
		}
		if err != nil {
			return err
		}
		now := time.Now()
		info := StepInfo{Step: t.step, MaxSteps: t.cfg.MaxIters, Tokens: t.cfg.TokensPerStep(),
			Loss: loss, Smooth: t.smooth, LR: t.cfg.LRAt(t.step - 1), GradNorm: norm, Zeros: t.model.ZeroFraction(),
			TokensPerSecond: float64(t.cfg.TokensPerStep()) / now.Sub(began).Seconds(), Elapsed: now.Sub(start)}
		info.ETA = info.Elapsed / time.Duration(t.step-first) * time.Duration(t.cfg.MaxIters-t.step)
		t.elapsed += now.Sub(began)
		o.Step(info)
		if err := t.afterStep(ctx, o, &info); err != nil {
			return err
		}
	}
	return nil
}

// stopped tells whether err is ctx's end, not a failure.
func stopped(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err())
}

// due tells whether something done every interval steps (0: only at the end)
// is to be done after this one.
func (t *Trainer) due(interval int) bool {
	return t.step >= t.cfg.MaxIters || interval > 0 && t.step%interval == 0
}

// afterStep evaluates, samples, logs and saves where the recipe says so. info
// is nil when the step was logged before. An evaluation that ctx's end stops
// is made up for when the run is resumed.
func (t *Trainer) afterStep(ctx context.Context, o Observer, info *StepInfo) error {
	evaluated := t.due(t.cfg.EvalInterval)
	if evaluated {
		err := t.evaluateStep(ctx)
		if stopped(ctx, err) {
			if err := t.logStep(info, false); err != nil {
				return err
			}
			return t.interrupted(o)
		}
		if err != nil {
			return err
		}
	}
	if err := t.logStep(info, evaluated); err != nil {
		return err
	}
	best := evaluated && t.last.Best
	if evaluated {
		o.Eval(t.last)
		if text, err := t.sample(ctx); err == nil && text != "" {
			o.Sample(t.step, text)
		} else if err != nil && !stopped(ctx, err) {
			o.Note("no sample: " + err.Error())
		}
	}
	if evaluated && (best || t.cfg.CheckInterval == 0 || info == nil) || t.due(t.cfg.CheckInterval) {
		return t.checkpoint(best, o)
	}
	return nil
}

// evaluateStep evaluates the model as it is after this step.
func (t *Trainer) evaluateStep(ctx context.Context) error {
	trainLoss, valLoss, err := t.evaluate(ctx)
	switch {
	case err != nil:
		return err
	case !finite(trainLoss):
		return t.diverged(t.step, "training loss of the evaluation", trainLoss)
	case t.evalVal != nil && !finite(valLoss):
		return t.diverged(t.step, "validation loss", valLoss)
	}
	best := valLoss < t.bestVal || math.IsNaN(t.bestVal) && !math.IsNaN(valLoss)
	if best {
		t.bestVal, t.bestStep = valLoss, t.step
	}
	t.last = EvalInfo{Step: t.step, Train: trainLoss, Val: valLoss, Best: best}
	return nil
}

// logStep writes one line of metrics.jsonl, or adds the evaluation to the line
// that is there.
func (t *Trainer) logStep(s *StepInfo, evaluated bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("train: step %d not logged: %w; %s", t.step, err, t.kept())
		}
	}()
	switch {
	case s == nil && !evaluated:
		return nil
	case s == nil:
		return t.log.AddEval(t.step, runlog.Eval{Train: t.last.Train, Val: t.last.Val})
	}
	r := runlog.Record{Step: s.Step, Loss: s.Loss, Smooth: s.Smooth, LR: s.LR, GradNorm: s.GradNorm, Zeros: s.Zeros,
		TokensPerSecond: s.TokensPerSecond, Elapsed: t.elapsed.Seconds()}
	if evaluated {
		r.Eval = &runlog.Eval{Train: t.last.Train, Val: t.last.Val}
	}
	return t.log.Write(r)
}

func (t *Trainer) checkpoint(best bool, o Observer) error {
	if err := t.sync(); err != nil {
		return err
	}
	for _, p := range t.model.Params {
		if !allFinite(t.host(p.Value)) { // the update that did it came after the loss was seen
			return t.diverged(t.step, "parameter "+p.Name, math.NaN())
		}
	}
	dir, err := t.save(best)
	if err != nil {
		return err
	}
	o.Checkpoint(t.step, dir)
	return nil
}

// interrupted saves before the run ends early.
func (t *Trainer) interrupted(o Observer) error {
	if err := t.checkpoint(false, o); err != nil {
		return err
	}
	return ErrInterrupted
}

// TrainStep makes one update and returns the mean loss of its tokens in nats
// and the gradient's norm before clipping. When either is not finite it
// changes nothing and returns an error that names the tensor at fault; when ctx
// ends before the last micro-batch, it changes nothing and returns ctx.Err().
func (t *Trainer) TrainStep(ctx context.Context) (loss, gradNorm float64, err error) {
	dev := t.model.Device
	t.begin()
	for micro := range t.cfg.GradAccum {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		if err := t.fill(t.step, micro); err != nil {
			return 0, 0, err
		}
		dev.SetStep(uint64(t.step*t.cfg.GradAccum + micro))
		t.pass()
	}
	t.setUpdate()
	t.update()
	// The next batch while the device works, in whose order it is copied; an
	// error comes again with it.
	_ = t.fill(t.step+1, 0)
	if err := t.sync(); err != nil {
		return 0, 0, err
	}
	loss = t.adam.Loss.Value / float64(t.cfg.TokensPerStep())
	if !finite(loss) {
		return 0, 0, t.diverged(t.step+1, "loss", loss)
	}
	gradNorm = math.Sqrt(t.adam.Squares.Value)
	if !finite(gradNorm) {
		return 0, 0, t.diverged(t.step+1, "gradient norm", gradNorm)
	}
	t.step++
	if t.smooth == 0 {
		t.smooth = loss
	}
	t.smooth += 0.05 * (loss - t.smooth)
	return loss, gradNorm, nil
}

// fill puts a micro-batch into the batch, if it is not there yet.
func (t *Trainer) fill(step, micro int) error {
	key := t.batchKey(step, micro)
	if t.train.holds(key) {
		return nil
	}
	return t.train.random(t.batch, key)
}

// batchKey is the stream that draws a micro-batch.
func (t *Trainer) batchKey(step, micro int) tensor.Key {
	return tensor.Key{Seed: t.cfg.Seed, Step: uint64(step), Layer: uint32(micro), Site: tensor.SiteBatch}
}

// beginStep clears what the micro-batches of a step add to.
func (t *Trainer) beginStep() {
	t.model.ZeroGradients()
	t.model.Device.ZeroScalar(t.adam.Loss)
}

// trainPass does one micro-batch.
func (t *Trainer) trainPass() {
	t.tape.Forward()
	t.tape.Backward()
	t.model.Device.AddSum(t.adam.Loss, t.batch.Losses)
}

// setUpdate fills in the numbers of this step's update.
func (t *Trainer) setUpdate() {
	lr := t.cfg.LRAt(t.step)
	for i, p := range t.model.Params {
		scale, decay := t.cfg.Group(p.Param)
		t.adam.Groups[i] = tensor.AdamWGroup{LR: float32(lr * scale), WeightDecay: float32(decay)}
	}
	t.adam.Step = t.step + 1
	t.model.Device.SetUpdate(&t.adam)
}

// updateModel is AdamW with the gradient clipped to grad_clip, then the
// weights quantised anew.
func (t *Trainer) updateModel() {
	t.model.FinishGradients()
	t.model.Device.Update(&t.adam)
	t.model.Refresh(true)
}

// diverged says where a value that is not finite came from first.
func (t *Trainer) diverged(step int, what string, value float64) error {
	place := "no tensor of the last pass is at fault"
	if name := t.firstBad(); name != "" {
		place = "first bad tensor: " + name
	}
	return fmt.Errorf("train: %s is %v at step %d; %s; %s; a lower learning_rate or grad_clip may help", what, value, step, place, t.kept())
}

// kept says what a run that fails leaves.
func (t *Trainer) kept() string {
	if t.savedStep < 0 {
		return "no checkpoint was saved"
	}
	return fmt.Sprintf("the checkpoint of step %d in %s is good", t.savedStep, t.checkpointsDir())
}

// sync waits for the device. Its failure ends the run.
func (t *Trainer) sync() error {
	if err := t.model.Device.Sync(); err != nil {
		return fmt.Errorf("train: after step %d: %w; %s", t.step, err, t.kept())
	}
	return nil
}

func (t *Trainer) firstBad() string {
	if err := t.fill(t.step, t.cfg.GradAccum-1); err != nil { // it may hold the next already
		return ""
	}
	bad := func(x *tensor.Tensor) bool { return !allFinite(t.host(x)) }
	for _, p := range t.model.Params {
		if bad(p.Value) {
			return "parameter " + p.Name
		}
	}
	if name := t.tape.FirstBad(bad); name != "" {
		return "activation " + name
	}
	for i := len(t.model.Params) - 1; i >= 0; i-- { // the backward's order
		if p := t.model.Params[i]; bad(p.Grad) {
			return "gradient of " + p.Name
		}
	}
	return ""
}

// host gives a tensor's values in host memory; not to be written to.
func (t *Trainer) host(x *tensor.Tensor) []float32 {
	if x.Data != nil {
		return x.Data
	}
	out := make([]float32, x.Len())
	t.model.Device.Read(out, x)
	return out
}

func allFinite(x []float32) bool {
	for _, v := range x {
		if v-v != 0 { // NaN for infinities and NaN
			return false
		}
	}
	return true
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
