package kernel

// machineSets lists the sets this machine runs, best last. NEON is part of
// every arm64.
func machineSets() []set { return []set{setRef, setNEON} }
