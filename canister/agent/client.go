package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Client calls canisters and checks what it is told: certificates of update
// calls, and the node's signature of queries.
type Client struct {
	URL      string   // http://127.0.0.1:4943
	RootKey  []byte   // in DER; FetchRootKey asks the replica
	Identity Identity // anonymous when zero
	HTTP     *http.Client
}

// RejectError is a canister's, or the subnet's, refusal.
type RejectError struct {
	Code    uint64
	ID      string // IC0…, where known
	Message string
}

// Error gives code, id and message.
func (e *RejectError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("rejected (code %d) %s", e.Code, e.ID)) + ": " + e.Message
}

const (
	maxAnswer   = 16 << 20        // bytes of an HTTP body
	requestLife = 4 * time.Minute // below the five minutes that replicas accept
	pollEvery   = 500 * time.Millisecond
)

// send posts an envelope (or gets, without one) and gives the status and the
// body.
func (c *Client) send(ctx context.Context, path string, env *Envelope) (int, []byte, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if env != nil {
		data, err := Encode(env)
		if err != nil {
			return 0, nil, err
		}
		method, body = http.MethodPost, bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.URL, "/")+path, body)
	if err != nil {
		return 0, nil, fmt.Errorf("agent: %w", err)
	}
	req.Header.Set("Content-Type", "application/cbor")
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("agent: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("agent: %s: %w", path, err)
	}
	if len(data) > maxAnswer {
		return 0, nil, fmt.Errorf("agent: %s: an answer of more than %d MiB", path, maxAnswer>>20)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return 0, nil, fmt.Errorf("agent: %s: %s: %s", path, resp.Status, strings.TrimSpace(string(data[:min(len(data), 500)])))
	}
	return resp.StatusCode, data, nil
}

// FetchRootKey takes the key from the replica. Only a replica of one's own
// can be trusted with that: the key is what answers are checked with.
func (c *Client) FetchRootKey(ctx context.Context) error {
	_, data, err := c.send(ctx, "/api/v2/status", nil)
	if err != nil {
		return err
	}
	var status struct {
		RootKey []byte `cbor:"root_key"`
	}
	if err := Decode(data, &status); err != nil {
		return err
	}
	if len(status.RootKey) == 0 {
		return fmt.Errorf("agent: %s tells no root key", c.URL)
	}
	c.RootKey = status.RootKey
	return nil
}

func (c *Client) content(kind string) (Content, error) {
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return Content{"request_type": kind, "nonce": nonce, "ingress_expiry": uint64(time.Now().Add(requestLife).UnixNano())}, nil
}

func (c *Client) envelope(kind string, canister Principal, method string, arg []byte) (Envelope, RequestID, error) {
	content, err := c.content(kind)
	if err != nil {
		return Envelope{}, RequestID{}, err
	}
	content["canister_id"], content["method_name"], content["arg"] = append([]byte{}, canister...), method, append([]byte{}, arg...)
	return c.Identity.seal(content)
}

// Call makes an update call with arg, Candid in binary, and waits for its certified
// answer, Candid too, as long as ctx lasts. A refusal is a *RejectError.
func (c *Client) Call(ctx context.Context, canister Principal, method string, arg []byte) ([]byte, error) {
	return c.call(ctx, canister, canister, method, arg)
}

// Manage calls the management canister about a canister.
func (c *Client) Manage(ctx context.Context, about Principal, method string, arg []byte) ([]byte, error) {
	return c.call(ctx, about, Management, method, arg)
}

// call sends a call for callee to the URL of canister.
func (c *Client) call(ctx context.Context, canister, callee Principal, method string, arg []byte) ([]byte, error) {
	env, id, err := c.envelope("call", callee, method, arg)
	if err != nil {
		return nil, err
	}
	code, data, err := c.send(ctx, "/api/v3/canister/"+canister.String()+"/call", &env)
	if err != nil {
		return nil, err
	}
	if code == http.StatusOK {
		var now struct {
			Certificate []byte `cbor:"certificate"`
			Code        uint64 `cbor:"reject_code"`
			Message     string `cbor:"reject_message"`
			ID          string `cbor:"error_code"`
		}
		if err := Decode(data, &now); err != nil {
			return nil, err
		}
		if now.Certificate == nil {
			return nil, &RejectError{now.Code, now.ID, now.Message}
		}
		if reply, done, err := c.outcome(now.Certificate, canister, id); done || err != nil {
			return reply, err
		}
	}
	return c.poll(ctx, canister, id)
}

// poll asks for a call's answer until it is there.
func (c *Client) poll(ctx context.Context, canister Principal, id RequestID) ([]byte, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("agent: waiting for request %x: %w", id, ctx.Err())
		case <-time.After(pollEvery):
		}
		cert, err := c.readState(ctx, canister, Path{[]byte("request_status"), id[:]})
		if err != nil {
			return nil, err
		}
		if reply, done, err := c.outcome(cert, canister, id); done || err != nil {
			return reply, err
		}
	}
}

// outcome reads a request's status from a certificate.
func (c *Client) outcome(cert []byte, canister Principal, id RequestID) (reply []byte, done bool, err error) {
	tree, err := OpenCertificate(cert, c.RootKey, canister, time.Now())
	if err != nil {
		return nil, false, err
	}
	at, err := tree.At([]byte("request_status"), id[:])
	if err != nil || at == nil {
		return nil, false, err
	}
	get := func(label string) []byte {
		v, e := at.Value([]byte(label))
		if e != nil && err == nil {
			err = e
		}
		return v
	}
	switch status := string(get("status")); status {
	case "replied":
		reply = get("reply")
		return reply, err == nil, err
	case "rejected":
		e := &RejectError{Message: string(get("reject_message")), ID: string(get("error_code"))}
		for _, b := range get("reject_code") {
			e.Code = e.Code<<8 | uint64(b)
		}
		if err != nil {
			return nil, false, err
		}
		return nil, true, e
	case "done":
		return nil, true, fmt.Errorf("agent: the answer to request %x is no longer kept", id)
	}
	return nil, false, err
}

// readState gives a certificate of a path.
func (c *Client) readState(ctx context.Context, canister Principal, path Path) ([]byte, error) {
	content, err := c.content("read_state")
	if err != nil {
		return nil, err
	}
	content["paths"] = []Path{path}
	env, _, err := c.Identity.seal(content)
	if err != nil {
		return nil, err
	}
	_, data, err := c.send(ctx, "/api/v2/canister/"+canister.String()+"/read_state", &env)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Certificate []byte `cbor:"certificate"`
	}
	err = Decode(data, &answer)
	return answer.Certificate, err
}

// Read gives a certified value below /canister/ID: nil when it is absent.
func (c *Client) Read(ctx context.Context, canister Principal, labels ...string) ([]byte, error) {
	path := Path{[]byte("canister"), canister}
	for _, l := range labels {
		path = append(path, []byte(l))
	}
	cert, err := c.readState(ctx, canister, path)
	if err != nil {
		return nil, err
	}
	tree, err := OpenCertificate(cert, c.RootKey, canister, time.Now())
	if err != nil {
		return nil, err
	}
	return tree.Value(path...)
}

// Query asks a query method and checks the node's signature.
func (c *Client) Query(ctx context.Context, canister Principal, method string, arg []byte) ([]byte, error) {
	env, id, err := c.envelope("query", canister, method, arg)
	if err != nil {
		return nil, err
	}
	_, data, err := c.send(ctx, "/api/v2/canister/"+canister.String()+"/query", &env)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status string `cbor:"status"`
		Reply  struct {
			Arg []byte `cbor:"arg"`
		} `cbor:"reply"`
		Code       uint64 `cbor:"reject_code"`
		Message    string `cbor:"reject_message"`
		ID         string `cbor:"error_code"`
		Signatures []struct {
			Timestamp uint64 `cbor:"timestamp"`
			Signature []byte `cbor:"signature"`
			Node      []byte `cbor:"identity"`
		} `cbor:"signatures"`
	}
	if err := Decode(data, &answer); err != nil {
		return nil, err
	}
	if len(answer.Signatures) != 1 {
		return nil, fmt.Errorf("agent: a query's answer with %d signatures, want 1", len(answer.Signatures))
	}
	sig := answer.Signatures[0]
	signed := Content{"request_id": id[:], "timestamp": sig.Timestamp, "status": answer.Status}
	switch answer.Status {
	case "replied":
		signed["reply"] = Content{"arg": answer.Reply.Arg}
	case "rejected":
		signed["reject_code"], signed["reject_message"] = answer.Code, answer.Message
		if answer.ID != "" {
			signed["error_code"] = answer.ID
		}
	default:
		return nil, fmt.Errorf("agent: a query's status %q", answer.Status)
	}
	if d := time.Since(time.Unix(0, int64(sig.Timestamp))).Abs(); d > maxAge {
		return nil, fmt.Errorf("agent: the answer to a query is %s away from this machine's clock", d.Round(time.Second))
	}
	if err := c.checkNode(ctx, canister, sig.Node, signed, sig.Signature); err != nil {
		return nil, err
	}
	if answer.Status == "rejected" {
		return nil, &RejectError{answer.Code, answer.ID, answer.Message}
	}
	return answer.Reply.Arg, nil
}

// checkNode checks a signature with the key that the subnet certifies for a
// node.
func (c *Client) checkNode(ctx context.Context, canister Principal, node []byte, signed Content, signature []byte) error {
	sum, err := signed.ID()
	if err != nil {
		return err
	}
	cert, err := c.readState(ctx, canister, Path{[]byte("subnet")})
	if err != nil {
		return err
	}
	tree, err := OpenCertificate(cert, c.RootKey, canister, time.Now())
	if err != nil {
		return err
	}
	subnets, err := tree.At([]byte("subnet"))
	if err != nil || subnets == nil {
		return fmt.Errorf("agent: the certificate names no subnet: %v", err)
	}
	for _, subnet := range subnets.Children() {
		der, err := subnets.Value(subnet, []byte("node"), node, []byte("public_key"))
		if err != nil || der == nil {
			continue
		}
		key, ok := bytes.CutPrefix(der, derEd25519)
		if !ok || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, QueryMessage(sum), signature) {
			return fmt.Errorf("%w (of node %v, on a query)", errSignature, Principal(node))
		}
		return nil
	}
	return fmt.Errorf("agent: node %v is not of the canister's subnet", Principal(node))
}
