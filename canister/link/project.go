package link

import (
	"encoding/json"
	"fmt"
)

// Project gives the files that let others deploy a canister: icp.yaml for the
// icp command and dfx.json for the older dfx. module is the name of the module's
// file beside them and hash its SHA-256 in hexadecimal.
func Project(name, module, candid, hash string) (map[string]string, error) {
	dfx, err := json.MarshalIndent(map[string]any{
		"version": 1,
		"canisters": map[string]any{
			name: map[string]any{"type": "custom", "wasm": module, "candid": candid, "build": []string{}},
		},
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"icp.yaml": fmt.Sprintf(`canisters:
  - name: %s
    build:
      steps:
        - type: pre-built
          path: %s
          sha256: %s
`, name, module, hash),
		"dfx.json": string(dfx) + "\n",
	}, nil
}
