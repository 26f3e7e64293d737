package kernel

// forcedSet: a canister and a browser have no environment.
func forcedSet() string { return "" }

// machineSets lists the sets this machine runs, best last. Vectors of 128 bits
// are in every browser since 2023 and on the Internet Computer.
func machineSets() []set { return []set{setRef, setSIMD128} }
