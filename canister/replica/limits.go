package replica

import (
	"time"

	"spinnet/canister/module"
)

// Limits of messages, in instructions, and of waiting.
type Limits struct {
	Update, Query, Install uint64
	// Wait is how long a call's answer is waited for before the client is
	// told to ask again.
	Wait time.Duration
}

// ICP is what application subnets allow.
var ICP = Limits{
	Update:  module.UpdateLimit,
	Query:   module.QueryLimit,
	Install: module.InstallLimit,
	Wait:    10 * time.Second,
}

// Sizes and counts that ICP's interface specification, or rs/config of
// github.com/dfinity/ic, limits.
const (
	maxBody        = 4 << 20 // bytes of an HTTP body: a payload and its envelope
	maxChunk       = 1 << 20 // bytes of a chunk of a module
	maxChunkStore  = 100     // chunks a canister may hold
	maxControllers = 10
	maxMethodName  = 20_000          // bytes; as the interface specification
	maxPaths       = 1000            // of a read_state
	maxNonce       = 32              // bytes
	maxLabels      = 127             // of a path
	maxQueue       = 500             // messages that wait for a canister
	maxLog         = 64 << 10        // bytes of a canister's log
	maxTTL         = 5 * time.Minute // of a request
	permittedDrift = time.Minute     // of a client's clock
	maxRequests    = 20_000          // remembered at once
	maxKept        = 256 << 20       // bytes of their answers
	maxCanisters   = 1000
	maxQueries     = 64              // at once, all canisters together
	stopTimeout    = 5 * time.Minute // of a canister that is being stopped
)
