//go:build !amd64 && !arm64

package kernel

// machineSets lists the sets this machine runs, best last.
func machineSets() []set { return []set{setRef} }
