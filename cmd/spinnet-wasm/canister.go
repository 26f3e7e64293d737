package main

import (
	"errors"
	"math/rand/v2"

	"spinnet/canister/candid"
	"spinnet/canister/ic0"
)

// canister is all that the canister knows.
type canister struct {
	model    *loaded // nil: there is none, for the reason of modelErr
	modelErr error
	sessions sessions
	limits   limits
	paused   bool
	costs    costs
	random   *rand.ChaCha8 // seeds; nil until raw_rand has answered
	stats    stats
}

// app is the canister.
var app = newCanister()

func newCanister() *canister { return &canister{limits: defaultLimits()} }

// method is a method of the canister.
type method struct {
	query       bool
	controllers bool // only they may call it
	run         func(c *canister, r *request) ([]candid.Value, error)
}

// methods by name: those of spinnet.did.
var methods map[string]method

func init() {
	methods = map[string]method{
		"generate":    {run: (*canister).generate},
		"resume":      {run: (*canister).resume},
		"end_session": {run: (*canister).endSession},
		"session":     {query: true, run: (*canister).session},
		"sessions":    {query: true, run: (*canister).listSessions},

		"start_generation":    {run: (*canister).startGeneration},
		"start_forward":       {run: (*canister).startForward},
		"process_layers":      {run: (*canister).processLayers},
		"finish_forward":      {run: (*canister).finishForward},
		"generate_next_token": {run: (*canister).generateNextToken},
		"generate_n_tokens":   {run: (*canister).generateNTokens},
		"generate_full":       {run: (*canister).generateFull},
		"get_result":          {query: true, run: (*canister).getResult},
		"generation_status":   {query: true, run: (*canister).generationStatus},
		"get_config":          {query: true, run: (*canister).getConfig},
		"generate_quick":      {query: true, run: (*canister).generateQuick},

		"health":         {query: true, run: (*canister).health},
		"metrics":        {query: true, run: (*canister).metrics},
		"get_limits":     {query: true, run: (*canister).getLimits},
		"set_limits":     {controllers: true, run: (*canister).setLimits},
		"pause_service":  {controllers: true, run: (*canister).pauseService},
		"resume_service": {controllers: true, run: (*canister).resumeService},

		"upload_begin":  {controllers: true, run: (*canister).uploadBegin},
		"upload_chunk":  {controllers: true, run: (*canister).uploadChunk},
		"upload_commit": {controllers: true, run: (*canister).uploadCommit},
		"upload_abort":  {controllers: true, run: (*canister).uploadAbort},
		"upload_status": {query: true, run: (*canister).uploadStatus},
		"remove_model":  {controllers: true, run: (*canister).removeModel},
	}
}

// request is a message that is being served.
type request struct {
	caller string // principal
	arg    *candid.Decoder
	now    uint64 // nanoseconds since 1970
	budget budget
}

// anonymous is the principal of callers without a key.
const anonymous = "\x04"

// errLater says that a request is answered by a later message.
var errLater = errors.New("later")

// serve answers a message.
func serve(name string) {
	m := methods[name]
	r := &request{caller: string(ic0.Caller()), now: ic0.Time(), budget: app.limits.budget(m.query)}
	values, err := app.run(m, name, r)
	if !errors.Is(err, errLater) {
		answer(values, err)
	}
}

// run does what a method does.
func (c *canister) run(m method, name string, r *request) (values []candid.Value, err error) {
	if m.controllers && !ic0.IsController([]byte(r.caller)) {
		return nil, errors.New("spinnet: " + name + " is for the canister's controllers only")
	}
	if r.arg, err = candid.NewDecoder(ic0.Arg()); err != nil {
		return nil, err
	}
	return m.run(c, r)
}

// answer replies, or rejects the message: for arguments of wrong types and
// callers who may not, what has an error in its result tells it there.
func answer(values []candid.Value, err error) {
	app.stats.instructions += ic0.Counter(ic0.CounterMessage)
	app.stats.calls++
	if err != nil {
		app.stats.errors++
		ic0.Reject(err.Error())
		return
	}
	ic0.Reply(candid.Encode(values...))
}

// one is a result of one value.
func one(v candid.Value) ([]candid.Value, error) { return []candid.Value{v}, nil }

// text is a result of a text.
func text(s string) ([]candid.Value, error) { return one(candid.TextValue(s)) }

// okOr is the result variant {ok; err: text}.
func okOr(v candid.Value, err error) ([]candid.Value, error) {
	if err != nil {
		app.stats.errors++
		return one(candid.VariantValue("err", candid.TextValue(err.Error())))
	}
	return one(candid.VariantValue("ok", v))
}

// start begins the canister's life, or goes on after an upgrade.
func start() {
	app = newCanister()
	app.load()
	app.restore()
}
