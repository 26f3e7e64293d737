// Command avo writes the assembly of package kernel: for each entry of
// generators a file zNAME_amd64.s with its Go declarations in
// zNAME_amd64.go, for each of neonFiles the same for arm64, and for each of wasmFiles for
// WebAssembly. Run by go generate in kernel/.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/mmcloughlin/avo/build"
)

// generators lists the files by name; each function adds the functions of
// its file to avo's global context.
var generators = []struct {
	name string
	add  func()
}{
	{"exact", exact},
	{"gemm", gemm},
	{"grouped", groupedKernels},
	{"int8", int8Tiles},
	{"linear", linear},
	{"vector", vector},
}

func main() {
	dir := flag.String("dir", "", "folder of package kernel")
	one := flag.String("one", "", "generate this file only, in this process")
	flag.Parse()
	if *one == "" {
		// avo keeps one global file a process.
		for _, g := range generators {
			base := filepath.Join(*dir, "z"+g.name+"_amd64")
			cmd := exec.Command(os.Args[0], "-one", g.name, "-out", base+".s", "-stubs", base+".go", "-pkg", "kernel")
			cmd.Stderr = os.Stderr
			if err := cmd.Run(); err != nil {
				fmt.Fprintln(os.Stderr, "avo:", g.name+":", err)
				os.Exit(1)
			}
		}
		if err := writeNEON(*dir); err != nil {
			fmt.Fprintln(os.Stderr, "neon:", err)
			os.Exit(1)
		}
		if err := writeWasm(*dir); err != nil {
			fmt.Fprintln(os.Stderr, "wasm:", err)
			os.Exit(1)
		}
		return
	}
	for _, g := range generators {
		if g.name == *one {
			g.add()
		}
	}
	build.Generate()
}
