package replica

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"spinnet/canister/agent"
	"spinnet/canister/host"
)

// Options of a replica; the zero value is ICP's limits and no memory.
type Options struct {
	State  string       // folder that keeps the canisters; none when empty
	Log    *slog.Logger // nil for none
	Limits Limits       // ICP when zero
}

// Replica is a subnet of one node.
type Replica struct {
	limits Limits
	log    *slog.Logger
	store  *store // nil without a folder

	key     *agent.SubnetKey
	subnet  agent.Principal
	nodeKey ed25519.PrivateKey
	nodeDER []byte
	node    agent.Principal

	queries chan struct{} // one token for each query that runs

	mu        sync.Mutex
	canisters map[string]*canister
	nextID    uint64
	requests  map[agent.RequestID]*request
	kept      int // bytes of the replies of requests
	dirty     map[*canister]bool
	wake      chan struct{} // the saver
}

// New makes a replica, with the canisters that its folder holds.
func New(ctx context.Context, o Options) (*Replica, error) {
	r := &Replica{limits: o.Limits, log: o.Log, queries: make(chan struct{}, maxQueries), canisters: map[string]*canister{},
		nextID: firstCanister, requests: map[agent.RequestID]*request{}, dirty: map[*canister]bool{}, wake: make(chan struct{}, 1)}
	if r.limits == (Limits{}) {
		r.limits = ICP
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if o.State != "" {
		var err error
		if r.store, err = openStore(o.State); err != nil {
			return nil, err
		}
		found, err := r.store.load(ctx, r)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("replica: %s: %w", o.State, err), r.store.lock.Close())
		}
		if found {
			return r, nil
		}
	}
	key, err := agent.NewSubnetKey()
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	_, node, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	r.setKeys(key, node)
	return r, r.saveIndex()
}

func (r *Replica) setKeys(key *agent.SubnetKey, node ed25519.PrivateKey) {
	r.key, r.subnet = key, agent.SelfAuthenticating(key.DER())
	r.nodeKey, r.nodeDER = node, agent.Ed25519DER(node.Public().(ed25519.PublicKey))
	r.node = agent.SelfAuthenticating(r.nodeDER)
}

// RootKey is the public key, in DER, that clients check certificates with.
func (r *Replica) RootKey() []byte { return r.key.DER() }

// nanos is the time as canisters see it.
func (r *Replica) nanos() uint64 { return uint64(time.Now().UnixNano()) }

func (r *Replica) logf(format string, args ...any) { r.log.Info(oneLine(fmt.Sprintf(format, args...))) }

// oneLine keeps what a canister says from looking like lines of the log.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return ' '
		}
		return c
	}, s[:min(len(s), 2000)])
}

// Canisters have 10-byte ids: a number, and 1, 1. Those of this replica lie
// in one range.
const (
	firstCanister = 16
	lastCanister  = 1 << 20
)

func canisterID(n uint64) agent.Principal {
	return append(binary.BigEndian.AppendUint64(nil, n), 1, 1)
}

// create makes an empty canister.
func (r *Replica) create(controllers []agent.Principal) (*canister, *host.RejectError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.canisters) >= maxCanisters || r.nextID >= lastCanister {
		return nil, host.Rejectf(host.SysTransient, host.QueueFull, "this replica has %d canisters, the most it holds", len(r.canisters))
	}
	c := newCanister(r, canisterID(r.nextID), controllers)
	r.nextID++
	r.canisters[string(c.id)] = c
	return c, nil
}

// find gives a canister.
func (r *Replica) find(id agent.Principal) (*canister, *host.RejectError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.canisters[string(id)]
	if c == nil {
		return nil, host.Rejectf(host.DestinationInvalid, host.CanisterNotFound, "Canister %v not found", id)
	}
	return c, nil
}

// answerCanister answers a call that a canister made.
func (r *Replica) answerCanister(ctx context.Context, from *canister, out *host.Outcall) host.Answer {
	if len(out.Callee) > 0 {
		return host.Answer{Reject: host.Rejectf(host.DestinationInvalid, host.CanisterNotFound, "Canister %v not found: this replica carries no calls between canisters", agent.Principal(out.Callee))}
	}
	reply, reject := r.manage(ctx, from.id, out.Method, out.Arg)
	return host.Answer{Reply: reply, Reject: reject}
}

// request is a call from outside while it is remembered.
type request struct {
	sender agent.Principal
	target agent.Principal // the canister in the URL
	until  time.Time       // forgotten after
	done   chan struct{}   // closed when answered

	// Guarded by the replica's lock.
	result  host.Answer
	at      time.Time // of the answer
	dropped bool      // the answer is no longer kept
}

// remember notes a request. A request that is known is given back: it does
// not run twice.
func (r *Replica) remember(id agent.RequestID, req *request) (known *request, reject *host.RejectError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.requests[id]; known != nil {
		return known, nil
	}
	if len(r.requests) >= maxRequests/2 {
		now := time.Now()
		for id, q := range r.requests {
			if now.After(q.until) && q.answered() {
				r.kept -= len(q.result.Reply)
				delete(r.requests, id)
			}
		}
	}
	if len(r.requests) >= maxRequests {
		return nil, host.Rejectf(host.SysTransient, host.QueueFull, "%d requests are under way or remembered", maxRequests)
	}
	r.requests[id] = req
	return nil, nil
}

// deliver keeps the answer to a request. When answers take too much memory,
// the oldest are dropped; their requests are still known to be done.
func (r *Replica) deliver(q *request, a host.Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q.result, q.at = a, time.Now()
	close(q.done)
	if r.kept += len(a.Reply); r.kept <= maxKept {
		return
	}
	var list []*request
	for _, q := range r.requests {
		if q.answered() && len(q.result.Reply) > 0 {
			list = append(list, q)
		}
	}
	slices.SortFunc(list, func(a, b *request) int { return a.at.Compare(b.at) })
	for _, old := range list {
		if r.kept <= maxKept/2 || old == q {
			break
		}
		r.kept -= len(old.result.Reply)
		old.result, old.dropped = host.Answer{}, true
	}
}

func (q *request) answered() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

// tree is the request's part of the certified state. The replica's lock is
// held.
func (q *request) tree() *agent.Tree {
	if !q.answered() {
		return agent.Dir(map[string]*agent.Tree{"status": agent.Leaf([]byte("processing"))})
	}
	if q.dropped {
		return agent.Dir(map[string]*agent.Tree{"status": agent.Leaf([]byte("done"))})
	}
	if e := q.result.Reject; e != nil {
		return agent.Dir(map[string]*agent.Tree{
			"status":         agent.Leaf([]byte("rejected")),
			"reject_code":    agent.Leaf([]byte{byte(e.Code)}),
			"reject_message": agent.Leaf([]byte(e.Message)),
			"error_code":     agent.Leaf([]byte(e.ID)),
		})
	}
	return agent.Dir(map[string]*agent.Tree{"status": agent.Leaf([]byte("replied")), "reply": agent.Leaf(q.result.Reply)})
}

// certificate signs the parts of the state at the paths, and the time.
func (r *Replica) certificate(paths []agent.Path) ([]byte, error) {
	root := map[string]*agent.Tree{"time": agent.Leaf(binary.AppendUvarint(nil, r.nanos()))}
	requests, canisters := map[string]*agent.Tree{}, map[string]*agent.Tree{}
	ranges := must(agent.Encode([][2][]byte{{canisterID(0), canisterID(lastCanister)}}))
	for _, p := range paths {
		if len(p) < 2 {
			continue
		}
		switch string(p[0]) {
		case "request_status":
			r.mu.Lock()
			if q := r.requests[agent.RequestID(fixed(p[1]))]; q != nil {
				requests[string(p[1])] = q.tree()
			}
			r.mu.Unlock()
		case "canister":
			if c, _ := r.find(p[1]); c != nil {
				canisters[string(p[1])] = c.tree()
			}
		}
	}
	root["request_status"], root["canister"] = agent.Dir(requests), agent.Dir(canisters)
	root["subnet"] = agent.Dir(map[string]*agent.Tree{string(r.subnet): agent.Dir(map[string]*agent.Tree{
		"public_key":      agent.Leaf(r.key.DER()),
		"canister_ranges": agent.Leaf(ranges),
		"type":            agent.Leaf([]byte("application")),
		"node":            agent.Dir(map[string]*agent.Tree{string(r.node): agent.Dir(map[string]*agent.Tree{"public_key": agent.Leaf(r.nodeDER)})}),
	})})
	root["canister_ranges"] = agent.Dir(map[string]*agent.Tree{string(r.subnet): agent.Dir(map[string]*agent.Tree{string(canisterID(0)): agent.Leaf(ranges)})})
	return agent.Certify(r.key, agent.Dir(root).Witness(append(slices.Clone(paths), agent.Path{[]byte("time")})))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // of a constant
	}
	return v
}

// fixed makes a request id of a label; one of another length is none.
func fixed(label []byte) (id [32]byte) {
	if len(label) == len(id) {
		copy(id[:], label)
	}
	return id
}

// tree is the canister's part of the certified state.
func (c *canister) tree() *agent.Tree {
	st := c.current.Load()
	ids := make([][]byte, len(st.controllers))
	for i, p := range st.controllers {
		ids[i] = p
	}
	entries := map[string]*agent.Tree{"controllers": agent.Leaf(must(agent.Encode(ids)))}
	if len(st.Certified) > 0 {
		entries["certified_data"] = agent.Leaf(st.Certified)
	}
	if st.Program != nil {
		entries["module_hash"] = agent.Leaf(st.Program.Hash[:])
		metadata := map[string]*agent.Tree{}
		for name, b := range st.Program.Metadata {
			_, name, _ = strings.Cut(name, " ")
			metadata[name] = agent.Leaf(b)
		}
		entries["metadata"] = agent.Dir(metadata)
	}
	return agent.Dir(entries)
}
