package kernel

// forcedSet: a canister and a browser have no environment.
func forcedSet() string { return "" }
