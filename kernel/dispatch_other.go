//go:build !amd64 && !arm64 && !wasm

package kernel

// machineSets lists the sets this machine runs, best last.
func machineSets() []set { return []set{setRef} }
