package main

import "github.com/spf13/cobra"

func newTokenizeCmd() *cobra.Command { return &cobra.Command{Use: "tokenize"} }
