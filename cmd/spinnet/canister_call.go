package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"spinnet/canister/agent"
	"spinnet/canister/link"
	"spinnet/dataset"
)

// mainnet is where the Internet Computer answers.
const mainnet = "https://icp-api.io"

// networkFlags say which replica is meant.
type networkFlags struct {
	network, rootKey string
}

func (f *networkFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.network, "network", "local", "local, ic (the main network), or a replica's address")
	cmd.Flags().StringVar(&f.rootKey, "root-key", "", "what to check answers with, in hexadecimal (default: the main network's, or asked of a replica on this machine)")
}

// client makes a client of the network.
func (f *networkFlags) client(ctx context.Context) (*agent.Client, error) {
	c := &agent.Client{URL: f.network}
	switch f.network {
	case "local":
		c.URL = fmt.Sprintf("http://127.0.0.1:%d", link.LocalPort)
	case "ic":
		c.URL = mainnet
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("--network %q is neither local, ic, nor an address such as http://127.0.0.1:%d", f.network, link.LocalPort)
	}
	switch {
	case f.rootKey != "":
		if c.RootKey, err = hex.DecodeString(f.rootKey); err != nil {
			return nil, usagef("--root-key: %v", err)
		}
	case u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback():
		if err := c.FetchRootKey(ctx); err != nil {
			return nil, &dataset.HintError{Err: err, Text: "spinnet canister local runs a replica"}
		}
	default:
		c.RootKey = agent.MainnetRootKey
	}
	return c, nil
}

func newCanisterCallCmd() *cobra.Command {
	var f networkFlags
	var query, asJSON bool
	var identity, project string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "call CANISTER METHOD [ARGUMENTS]",
		Short: "Call a method of a canister",
		Long: `Call makes an update call, or with --query a query, and prints the answer as
Candid text. It checks the answer: the certificate of an update call, the
node's signature of a query.

CANISTER is a principal, or a name of the project that was deployed from
--project. ARGUMENTS are Candid text; numbers need their type, and optional
values opt. Without --identity the call is anonymous.`,
		Example: `  spinnet canister call spinnet health --query --project build
  spinnet canister call sgymv-uiaaa-aaaaa-aaaia-cai generate '(record { prompt = "Once"; max_tokens = opt (50 : nat32) })'`,
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			id, err := canisterNamed(args[0], project, f.network)
			if err != nil {
				return err
			}
			text := "()"
			if len(args) == 3 {
				text = args[2]
			}
			values, err := agent.ParseArgs(text)
			if err != nil {
				return &usageError{err, `for example '("Once upon a time", 50 : nat32)'`}
			}
			arg, err := agent.EncodeArgs(values...)
			if err != nil {
				return &usageError{err, ""}
			}
			c, err := f.client(ctx)
			if err != nil {
				return err
			}
			if err := signAs(c, identity); err != nil {
				return err
			}
			reply, err := callCanister(ctx, c, id, args[1], arg, query)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(agent.JSON(reply))
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), agent.FormatArgs(reply))
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&query, "query", false, "ask a query instead of making an update call")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the answer as a JSON array")
	cmd.Flags().StringVar(&identity, "identity", "", "PEM file with a private key: secp256k1 (as of icp), Ed25519 or P-256")
	cmd.Flags().StringVar(&project, "project", ".", "folder that icp deployed from, for names of canisters")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait for the answer")
	return cmd
}

// signAs lets a client sign with the key of a PEM file; "" is anonymous.
func signAs(c *agent.Client, path string) error {
	if path == "" {
		return nil
	}
	pem, err := readAtMost(path, 1<<20, "PEM file with a key")
	if err != nil {
		return err
	}
	id, err := agent.ParseIdentity(pem)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	c.Identity = *id
	return nil
}

// callCanister gives the decoded answer, with the names that the canister's
// interface has for its fields.
func callCanister(ctx context.Context, c *agent.Client, id agent.Principal, method string, arg []byte, query bool) ([]any, error) {
	call := c.Call
	if query {
		call = c.Query
	}
	reply, err := call(ctx, id, method, arg)
	if err != nil {
		return nil, err
	}
	var names map[uint32]string
	service, err := c.Read(ctx, id, "metadata", "candid:service")
	if err == nil {
		names = agent.FieldNames(string(service))
	}
	return agent.DecodeArgs(reply, names) // with numbers for names where there are none
}

// canisterNamed finds a canister by principal, or by its name in the files
// that icp keeps in a project.
func canisterNamed(name, project, network string) (agent.Principal, error) {
	id, err := agent.ParsePrincipal(name)
	if err == nil {
		return id, nil
	}
	if network != "ic" {
		network = "local" // icp's name for it, wherever it listens
	}
	why := ", from which nothing was deployed"
	for _, kept := range []string{"data", "cache"} {
		path := filepath.Join(project, ".icp", kept, "mappings", network+".ids.json")
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		why = ""
		ids := map[string]string{}
		if err := json.Unmarshal(text, &ids); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if ids[name] != "" {
			return agent.ParsePrincipal(ids[name])
		}
	}
	return nil, &usageError{fmt.Errorf("%q is no principal, and no canister of project %s on network %s%s", name, project, network, why),
		"--project names the folder with icp.yaml that was deployed"}
}
