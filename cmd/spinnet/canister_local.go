package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"spinnet/canister/link"
	"spinnet/canister/replica"
)

func newCanisterLocalCmd() *cobra.Command {
	var host, state string
	var port int
	var asJSON, quiet bool
	cmd := &cobra.Command{
		Use:   "local",
		Short: "Run a local Internet Computer to try a canister on",
		Long: `Local runs a replica for development: the icp command line and @icp-sdk/core
deploy to it, call it and verify its certificates and signatures. It counts
instructions by ICP's published table, holds messages to ICP's limits (40 B an
update call, 5 B a query, 300 B an installation), undoes what a trap left, and
logs what each message cost.

It is one process with one key: no consensus, no cycles, no calls between
canisters. Without --state it forgets everything when it ends.

Stdout gets its address and its root key.`,
		Example: `  spinnet canister local --state replica
  spinnet canister local --port 0 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			if quiet {
				log = nil
			}
			r, err := replica.New(ctx, replica.Options{State: state, Log: log})
			if err != nil {
				return err
			}
			l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				return fmt.Errorf("canister local: %w", err)
			}
			at := struct {
				URL     string `json:"url"`
				RootKey string `json:"root_key"`
			}{"http://" + l.Addr().String(), hex.EncodeToString(r.RootKey())}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(at)
			} else {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "listening on %s\nroot key %s\n", at.URL, at.RootKey)
			}
			if err != nil {
				return err
			}
			return r.Serve(ctx, l)
		},
	}
	f := cmd.Flags()
	f.StringVar(&host, "host", "127.0.0.1", "address to listen on")
	f.IntVar(&port, "port", link.LocalPort, "port to listen on; 0 for one that is free")
	f.StringVar(&state, "state", "", "folder that keeps the canisters")
	f.BoolVar(&asJSON, "json", false, "print the address and the key as one JSON object")
	f.BoolVar(&quiet, "quiet", false, "do not log messages")
	return cmd
}
