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
	maxPayload       = 2 << 20   // bytes of an argument or a reply
	maxBody          = 4 << 20   // bytes of an HTTP body: a payload and its envelope
	maxModule        = 100 << 20 // bytes of a module, uncompressed
	maxChunk         = 1 << 20   // bytes of a chunk of a module
	maxChunkStore    = 100       // chunks a canister may hold
	maxControllers   = 10
	maxMethodName    = 20_000   // bytes; as the interface specification
	maxPaths         = 1000     // of a read_state
	maxNonce         = 32       // bytes
	maxLabels        = 127      // of a path
	maxQueue         = 500      // messages that wait for a canister
	maxOutstanding   = 500      // calls of a canister without an answer
	maxCertified     = 32       // bytes of certified data
	maxLog           = 64 << 10 // bytes of a canister's log
	maxStablePages   = 8 << 30 / pageSize
	maxTTL           = 5 * time.Minute // of a request
	permittedDrift   = time.Minute     // of a client's clock
	maxRequests      = 20_000          // remembered at once
	maxCanisters     = 1000
	maxQueries       = 64              // at once, all canisters together
	stopTimeout      = 5 * time.Minute // of a canister that is being stopped
	wasmPage         = 64 << 10
	maxHeapPages     = 4 << 30 / pageSize
	maxCustomSection = 1 << 20 // bytes of all public and private metadata
)

// heapPage is charged for each page of 4 KiB of the heap that a message
// changes, after the message: the cost of the page fault and of the copy that
// a node makes of it. Messages feel it as part of their limit, not in
// ic0.performance_counter.
const heapPage = 10_000
