package main

import "github.com/spf13/cobra"

func newPrepareCmd() *cobra.Command { return &cobra.Command{Use: "prepare"} }
