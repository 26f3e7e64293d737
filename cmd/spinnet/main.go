// Command spinnet trains, runs and studies ternary hypercomplex language
// models.
package main

import (
	"os"

	"github.com/spf13/cobra"
)

func main() {
	root := &cobra.Command{Use: "spinnet"}
	root.AddCommand(newPrepareCmd(), newTokenizeCmd(), newTrainCmd(), newGenerateCmd(), newScoreCmd(), newBenchCmd(), newVersionCmd())
	if root.Execute() != nil {
		os.Exit(1)
	}
}
