// Command _make writes the committed runtime module anew; run it in the
// repository's root: make wasm.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"spinnet/canister/link"
)

func main() {
	wasm, info, err := link.Make(context.Background(), ".")
	if err != nil {
		log.Fatal(err)
	}
	packed, err := link.Gzip(wasm)
	if err != nil {
		log.Fatal(err)
	}
	described, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("canister/link/runtime.wasm.gz", packed, 0o644); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("canister/link/runtime.json", append(described, '\n'), 0o644); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("canister/link/runtime.wasm.gz: %d bytes, %d gzipped; a small model takes %d instructions a token, %d before %s\n",
		len(wasm), len(packed), info.Token, info.TokenBefore, info.WasmOpt)
}
