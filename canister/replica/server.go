package replica

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"spinnet/canister/agent"
	"spinnet/canister/host"
)

// Serve answers requests on a listener until the context ends, then saves and
// lets go of the folder. The replica is of no use afterwards.
func (r *Replica) Serve(ctx context.Context, l net.Listener) error {
	run, stop := context.WithCancel(ctx)
	defer stop()
	saved := make(chan struct{})
	go func() { r.saver(run); close(saved) }()
	server := &http.Server{
		Handler:           r.Handler(ctx),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		err = server.Shutdown(limit)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close() // requests that still wait
		}
	}
	stop()
	<-saved
	return errors.Join(err, r.Close())
}

// Handler answers the interface's requests. What they start ends with ctx,
// not with the request.
func (r *Replica) Handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v2/status", r.serveStatus)
	mux.HandleFunc("POST /api/{version}/{kind}/{id}/{verb}", func(w http.ResponseWriter, req *http.Request) {
		r.serveCBOR(ctx, w, req)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "spinnet local replica: see /api/v2/status\n")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		// Pages on other origins are clients too, as on the main network.
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Headers", "*")
		w.Header().Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
		if req.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		mux.ServeHTTP(w, req)
	})
}

func (r *Replica) serveStatus(w http.ResponseWriter, _ *http.Request) {
	r.reply(w, http.StatusOK, map[string]any{
		"root_key":              r.key.DER(),
		"replica_health_status": "healthy",
		"impl_version":          "spinnet",
	})
}

// reply sends CBOR.
func (r *Replica) reply(w http.ResponseWriter, code int, v any) {
	b, err := agent.Encode(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/cbor")
	w.WriteHeader(code)
	if _, err := w.Write(b); err != nil {
		r.logf("a client went away: %v", err)
	}
}

// incoming is a request that has been read and authenticated.
type incoming struct {
	id      agent.RequestID
	content agent.Content
	sender  agent.Principal
	target  agent.Principal // from the URL
	expiry  time.Time
}

func (r *Replica) serveCBOR(ctx context.Context, w http.ResponseWriter, req *http.Request) {
	version, kind, verb := req.PathValue("version"), req.PathValue("kind"), req.PathValue("verb")
	allowed := map[string][]string{"call": {"v2", "v3", "v4"}, "query": {"v2", "v3"}, "read_state": {"v2", "v3"}}[verb]
	if !slices.Contains(allowed, version) || kind != "canister" && (kind != "subnet" || verb != "read_state") {
		http.NotFound(w, req)
		return
	}
	target, err := agent.ParsePrincipal(req.PathValue("id"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	in, code, err := r.read(w, req, target, verb)
	if err != nil {
		r.logf("%s refused: %v", req.URL.Path, err)
		http.Error(w, err.Error(), code)
		return
	}
	switch verb {
	case "call":
		r.serveCall(ctx, w, req, version, in)
	case "query":
		r.serveQuery(ctx, w, in)
	case "read_state":
		r.serveReadState(w, kind, in)
	}
}

// read reads an envelope and checks it: form, expiry and signature.
func (r *Replica) read(w http.ResponseWriter, req *http.Request, target agent.Principal, verb string) (*incoming, int, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("the body has more than %d bytes", maxBody)
		}
		return nil, http.StatusBadRequest, err
	}
	var env agent.Envelope
	if err := agent.Decode(body, &env); err != nil {
		return nil, http.StatusBadRequest, err
	}
	in := &incoming{content: env.Content, target: target}
	if kind, _ := env.Content.Text("request_type"); kind != verb {
		return nil, http.StatusBadRequest, fmt.Errorf("a request of type %q at %s", kind, verb)
	}
	sender, ok := env.Content.Bytes("sender")
	nanos, hasExpiry := env.Content.Nat("ingress_expiry")
	if !ok || !hasExpiry || nanos > 1<<62 {
		return nil, http.StatusBadRequest, fmt.Errorf("the request has no sender or no ingress_expiry")
	}
	in.sender, in.expiry = sender, time.Unix(0, int64(nanos))
	if nonce, ok := env.Content["nonce"]; ok {
		if b, isBytes := nonce.([]byte); !isBytes || len(b) > maxNonce {
			return nil, http.StatusBadRequest, fmt.Errorf("a nonce that is not at most %d bytes", maxNonce)
		}
	}
	now := time.Now()
	if in.expiry.Before(now) || in.expiry.After(now.Add(maxTTL+permittedDrift)) {
		return nil, http.StatusBadRequest, fmt.Errorf("ingress_expiry %s is not within the %s from now, %s: is the clock right?",
			in.expiry.UTC().Format(time.RFC3339), maxTTL, now.UTC().Format(time.RFC3339))
	}
	if in.id, err = env.Content.ID(); err != nil {
		return nil, http.StatusBadRequest, err
	}
	if err := env.Authenticate(in.id, r.nanos(), target); err != nil {
		return nil, http.StatusForbidden, err
	}
	return in, 0, nil
}

// callFields reads what calls and queries have.
func (in *incoming) callFields() (id agent.Principal, method string, arg []byte, err error) {
	raw, ok1 := in.content.Bytes("canister_id")
	method, ok2 := in.content.Text("method_name")
	arg, ok3 := in.content.Bytes("arg")
	switch {
	case !ok1 || !ok2 || !ok3 || len(raw) > agent.MaxPrincipal || len(method) > maxMethodName:
		return nil, "", nil, errors.New("canister_id, method_name or arg is missing, or too long")
	case len(arg) > host.MaxPayload:
		return nil, "", nil, fmt.Errorf("an argument of %d bytes, want at most %d", len(arg), host.MaxPayload)
	}
	return raw, method, arg, nil
}

// checkTarget compares the URL's canister with the request's.
func (in *incoming) checkTarget(id agent.Principal, method string, arg []byte) error {
	want := id
	if id.Equal(agent.Management) {
		var err error
		if want, err = manageTarget(method, arg); err != nil || want == nil {
			return err
		}
	}
	if !in.target.Equal(want) {
		return fmt.Errorf("the request is for canister %v, and its URL for %v", want, in.target)
	}
	return nil
}

// serveCall takes an update call in and waits a while for its answer.
func (r *Replica) serveCall(ctx context.Context, w http.ResponseWriter, req *http.Request, version string, in *incoming) {
	id, method, arg, err := in.callFields()
	if err == nil {
		err = in.checkTarget(id, method, arg)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q := &request{sender: in.sender, target: in.target, until: in.expiry.Add(maxTTL), done: make(chan struct{})}
	refuse := func(e *host.RejectError) {
		m := map[string]any{"status": "non_replicated_rejection", "reject_code": uint64(e.Code), "reject_message": e.Message, "error_code": e.ID}
		if version == "v2" {
			delete(m, "status")
		}
		r.reply(w, http.StatusOK, m)
	}
	known := r.lookup(in.id)
	var reject *host.RejectError
	if known == nil {
		if reject = r.admit(ctx, id, in.sender, method, arg); reject == nil {
			known, reject = r.remember(in.id, q)
		}
	}
	if reject != nil {
		refuse(reject)
		return
	}
	if known != nil {
		q = known
	} else {
		go r.dispatch(ctx, q, id, method, arg)
	}
	if version == "v2" {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	select {
	case <-q.done:
	case <-req.Context().Done():
		return
	case <-time.After(r.limits.Wait):
		w.WriteHeader(http.StatusAccepted)
		return
	}
	cert, err := r.certificate([]agent.Path{{[]byte("request_status"), in.id[:]}})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	r.reply(w, http.StatusOK, map[string]any{"status": "replied", "certificate": cert})
}

// lookup finds a request that is remembered.
func (r *Replica) lookup(id agent.RequestID) *request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests[id]
}

// admit decides whether a call comes in at all.
func (r *Replica) admit(ctx context.Context, id, sender agent.Principal, method string, arg []byte) *host.RejectError {
	if id.Equal(agent.Management) {
		if method == "raw_rand" {
			return host.Rejectf(host.CanisterReject, host.MessageRefused, "Only canisters can call ic00 method raw_rand")
		}
		return nil
	}
	if isLedger(id) {
		return nil
	}
	c, reject := r.find(id)
	if reject != nil {
		return reject
	}
	return c.admit(ctx, sender, method, arg)
}

// dispatch runs a call that has come in.
func (r *Replica) dispatch(ctx context.Context, q *request, id agent.Principal, method string, arg []byte) {
	deliver := func(a host.Answer) { r.deliver(q, a) }
	switch {
	case id.Equal(agent.Management):
		reply, reject := r.manage(ctx, q.sender, method, arg)
		deliver(host.Answer{Reply: reply, Reject: reject})
	case isLedger(id):
		deliver(r.ledger(id, q.sender, method, arg))
	default:
		c, reject := r.find(id)
		if reject != nil {
			deliver(host.Answer{Reject: reject})
			return
		}
		c.update(ctx, q.sender, method, arg, deliver)
	}
}

// serveQuery answers a query with the node's signature.
func (r *Replica) serveQuery(ctx context.Context, w http.ResponseWriter, in *incoming) {
	id, method, arg, err := in.callFields()
	if err == nil {
		err = in.checkTarget(id, method, arg)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case r.queries <- struct{}{}:
		defer func() { <-r.queries }()
	default:
		http.Error(w, "too many queries at once", http.StatusTooManyRequests)
		return
	}
	var a host.Answer
	switch {
	case id.Equal(agent.Management) && !slices.Contains([]string{"canister_status", "fetch_canister_logs", "stored_chunks"}, method):
		a.Reject = host.Rejectf(host.DestinationInvalid, host.MethodNotFound, "Management canister has no query method '%s'", method)
	case id.Equal(agent.Management):
		a.Reply, a.Reject = r.manage(ctx, in.sender, method, arg)
	case isLedger(id):
		if method == "create_canister" {
			a.Reject = host.Rejectf(host.DestinationInvalid, host.MethodNotFound, "create_canister is no query")
		} else {
			a = r.ledger(id, in.sender, method, arg)
		}
	default:
		c, reject := r.find(id)
		if a.Reject = reject; reject == nil {
			a = c.ask(ctx, in.sender, method, arg)
		}
	}
	r.replyQuery(w, in.id, a)
}

func (r *Replica) replyQuery(w http.ResponseWriter, id agent.RequestID, a host.Answer) {
	now := r.nanos()
	signed := agent.Content{"request_id": id[:], "timestamp": now}
	out := map[string]any{}
	if a.Reject == nil {
		reply := map[string]any{"arg": nonNil(a.Reply)}
		out["status"], out["reply"] = "replied", reply
		signed["status"], signed["reply"] = "replied", reply
	} else {
		for name, v := range map[string]any{"status": "rejected", "reject_code": uint64(a.Reject.Code), "reject_message": a.Reject.Message, "error_code": a.Reject.ID} {
			out[name], signed[name] = v, v
		}
	}
	sum, err := signed.ID()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	sig := ed25519.Sign(r.nodeKey, agent.QueryMessage(sum))
	out["signatures"] = []any{map[string]any{"timestamp": now, "signature": sig, "identity": []byte(r.node)}}
	r.reply(w, http.StatusOK, out)
}

// nonNil makes the empty bytes of nothing, which CBOR would write as null.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// serveReadState certifies parts of the state that the sender may see.
func (r *Replica) serveReadState(w http.ResponseWriter, kind string, in *incoming) {
	paths, err := readPaths(in.content)
	if err == nil {
		err = r.mayRead(kind, in, paths)
	}
	if err != nil {
		code := http.StatusBadRequest
		if _, forbidden := errors.AsType[forbiddenError](err); forbidden {
			code = http.StatusForbidden
		}
		r.logf("read_state refused: %v", err)
		http.Error(w, err.Error(), code)
		return
	}
	cert, err := r.certificate(paths)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	r.reply(w, http.StatusOK, map[string]any{"certificate": cert})
}

// readPaths reads the paths of a read_state.
func readPaths(c agent.Content) ([]agent.Path, error) {
	list, ok := c["paths"].([]any)
	if !ok || len(list) > maxPaths {
		return nil, fmt.Errorf("read_state wants at most %d paths", maxPaths)
	}
	var paths []agent.Path
	for _, v := range list {
		labels, ok := v.([]any)
		if !ok || len(labels) == 0 || len(labels) > maxLabels {
			return nil, fmt.Errorf("a path of read_state has 1 to %d labels", maxLabels)
		}
		var p agent.Path
		for _, l := range labels {
			b, ok := l.([]byte)
			if !ok {
				return nil, errors.New("a label of a path is no bytes")
			}
			p = append(p, b)
		}
		paths = append(paths, p)
	}
	return paths, nil
}

type forbiddenError struct{ string }

func (e forbiddenError) Error() string { return e.string }

// mayRead checks each path: what the interface specification lets anybody
// read, and what only the one it is about.
func (r *Replica) mayRead(kind string, in *incoming, paths []agent.Path) error {
	var asked []byte
	for _, p := range paths {
		switch first := string(p[0]); {
		case first == "time" && len(p) == 1, first == "subnet", first == "canister_ranges":
		case first == "request_status" && kind == "canister" && len(p) >= 2:
			if asked != nil && string(asked) != string(p[1]) {
				return errors.New("read_state of the status of two requests")
			}
			if asked = p[1]; len(asked) != len(agent.RequestID{}) {
				return fmt.Errorf("a request id of %d bytes", len(asked))
			}
			q := r.lookup(agent.RequestID(asked))
			if q != nil && (!q.sender.Equal(in.sender) || !q.target.Equal(in.target)) {
				return forbiddenError{"the request is of another sender or canister"}
			}
		case first == "canister" && kind == "canister" && len(p) >= 3:
			if !in.target.Equal(p[1]) {
				return fmt.Errorf("read_state of canister %v at the URL of %v", agent.Principal(p[1]), in.target)
			}
			if err := r.mayReadCanister(in.sender, p); err != nil {
				return err
			}
		default:
			return fmt.Errorf("the path %q cannot be read", first)
		}
	}
	return nil
}

func (r *Replica) mayReadCanister(sender agent.Principal, p agent.Path) error {
	what := string(p[2])
	switch {
	case len(p) == 3 && (what == "module_hash" || what == "controllers"):
		return nil
	case what != "metadata" || len(p) != 4:
		return fmt.Errorf("the path canister/…/%s cannot be read", strings.ToValidUTF8(what, "?"))
	}
	c, reject := r.find(p[1])
	if reject != nil {
		return nil // its absence is certified
	}
	st := c.current.Load()
	if st.Program != nil && st.Program.Metadata["icp:private "+string(p[3])] != nil && !st.controls(sender) {
		return forbiddenError{"the metadata is private to controllers"}
	}
	return nil
}
