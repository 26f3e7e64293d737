package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"spinnet/canister/module"
	"spinnet/dataset"
)

// Fees of application subnets of 13 nodes, in cycles: rs/config/src/
// subnet_config.rs of github.com/dfinity/ic. A trillion cycles is one XDR.
const (
	feeCreation    = 500e9
	feeBase        = 10_000  // of a canister, a second
	feeStorage     = 317_500 // of a GiB, a second
	feeMessage     = 5e6     // of an update message
	feeIngress     = 1.2e6   // of a message from outside
	feeByte        = 2_000   // of it
	feeInstruction = 1
	usualFunding   = 2e12 // what icp gives a new canister
	yearSeconds    = 365 * 24 * 3600
	sessionRoom    = 64 << 20 // bytes of heap that callers' texts may take
)

func newCanisterDeployCmd() *cobra.Command {
	var network, icp, identity string
	var yes bool
	cmd := &cobra.Command{
		Use:   "deploy DIR",
		Short: "Deploy a canister with icp, to the local replica or the main network",
		Long: `Deploy runs "icp deploy" in a folder that "spinnet canister build" made, on the
local replica or on the main network (ic), which costs cycles: without --yes it
prints an estimate and stops. icp is ICP's own command line; it holds your
identity and your cycles.`,
		Example: `  spinnet canister deploy build
  spinnet canister deploy build --network ic --identity me`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			dir := args[0]
			if network != "local" && network != "ic" {
				return usagef("--network %q: deploy knows local and ic", network)
			}
			if _, err := os.Stat(filepath.Join(dir, "icp.yaml")); err != nil {
				return &dataset.HintError{Err: fmt.Errorf("canister deploy: %w", err), Text: "spinnet canister build MODEL -o " + dir + " makes it"}
			}
			program, err := exec.LookPath(icp)
			if err != nil {
				return &dataset.HintError{Err: fmt.Errorf("canister deploy: %w", err), Text: "npm install -g @icp-sdk/icp-cli; or --icp names the program"}
			}
			if network == "ic" {
				if err := estimate(cmd.ErrOrStderr(), dir); err != nil {
					return err
				}
				if !yes {
					return &usageError{errors.New("deploying to the main network spends cycles"), "--yes deploys"}
				}
			} else if err := localAnswers(ctx); err != nil {
				return err
			}
			run := []string{"deploy", "--environment", network, "--yes"}
			if identity != "" {
				run = append(run, "--identity", identity)
			}
			c := exec.CommandContext(ctx, program, run...)
			c.Dir, c.Stdout, c.Stderr, c.Stdin = dir, cmd.OutOrStdout(), cmd.ErrOrStderr(), os.Stdin
			c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
			if err := c.Run(); err != nil {
				return fmt.Errorf("canister deploy: icp %s: %w", strings.Join(run, " "), err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&network, "network", "local", "local or ic")
	cmd.Flags().StringVar(&icp, "icp", "icp", "the icp program")
	cmd.Flags().StringVar(&identity, "identity", "", "icp's identity to deploy as")
	cmd.Flags().BoolVar(&yes, "yes", false, "deploy to the main network, which spends cycles")
	return cmd
}

// localAnswers checks that there is a local replica.
func localAnswers(ctx context.Context) error {
	f := networkFlags{network: "local"}
	_, err := f.client(ctx)
	return err
}

// estimate prints what a module costs on the main network: bounds from the
// published fees, since what calls will be made is not known.
func estimate(w io.Writer, dir string) error {
	path := filepath.Join(dir, "spinnet.wasm.gz")
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("canister deploy: %w", err)
	}
	wasm, err := os.ReadFile(filepath.Join(dir, "spinnet.wasm"))
	if err != nil {
		return fmt.Errorf("canister deploy: %w", err)
	}
	m, err := module.Parse(wasm)
	if err != nil {
		return err
	}
	const gib = 1 << 30
	upload := float64(info.Size())*feeByte + float64(info.Size()/(1<<20)+4)*(feeIngress+feeMessage)
	// An instruction takes about two bytes.
	compiled := float64(len(m.CodeSection())) / 2 * module.CompiledInstruction * feeInstruction
	heap := 0.0
	if len(m.Memories) > 0 {
		heap = float64(m.Memories[0].Min) * (64 << 10)
	}
	kept := (float64(info.Size()) + heap + sessionRoom) / gib
	year := yearSeconds * (feeBase + kept*feeStorage)
	full := 0.6 * module.UpdateLimit
	call := feeIngress + 500*feeByte + feeMessage + full*feeInstruction
	_, err = fmt.Fprintf(w, `estimated cost on the main network (13 nodes), in cycles; 1 T = 1 XDR:
  %-52s %8s
  %-52s %8s
  %-52s %8s
  %-52s %8s
  %-52s %8s
icp gives a new canister %s of your cycles.
`, "making the canister", trillions(feeCreation),
		fmt.Sprintf("uploading %.1f MB", float64(info.Size())/1e6), trillions(upload),
		"compiling it", trillions(compiled),
		fmt.Sprintf("a year of keeping about %.2f GiB", kept), trillions(year),
		"a generate call of 24 B instructions (60 % of 40 B)", trillions(call), trillions(usualFunding))
	return err
}

func trillions(cycles float64) string { return fmt.Sprintf("%.3f T", cycles/1e12) }
