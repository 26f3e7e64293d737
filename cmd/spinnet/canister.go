package main

import "github.com/spf13/cobra"

// newCanisterCmd is the parent of what concerns the Internet Computer.
func newCanisterCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "canister",
		Short: "Run a model on the Internet Computer",
		Long: `A canister is a program on the Internet Computer (ICP): a WebAssembly module
with its memory. These commands make one of a model and run it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCanisterBuildCmd(), newCanisterLocalCmd(), newCanisterDeployCmd(), newCanisterCallCmd(), newCanisterUploadCmd())
	return cmd
}
