package link

import (
	"encoding/json"
	"fmt"
)

// LocalPort is where "spinnet canister local" listens unless it is told
// otherwise, and where the project files look for it.
const LocalPort = 4943

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
networks:
  - name: local
    mode: connected
    url: http://127.0.0.1:%d
    root-key: fetch
`, name, module, hash, LocalPort),
		"dfx.json": string(dfx) + "\n",
	}, nil
}
