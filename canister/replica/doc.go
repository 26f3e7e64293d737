// Package replica is a local Internet Computer for development: one process
// that accepts the HTTP requests of real clients (the icp command line,
// @icp-sdk/core) for canisters of its own, and answers with certificates and
// signatures they verify. It runs canisters on wazero, counts instructions by
// ICP's published table and holds messages to ICP's limits.
//
// A canister is an immutable state (module, heap, globals, stable memory,
// settings) and the message that makes the next one of it: a trap keeps the
// old one, a query throws the new one away. Heap and stable memory are lists
// of pages that states share, so a state costs what differs.
//
// What it is not: there is no consensus (one key signs alone, the clock is
// the machine's), cycles are not counted, canisters call no other canister
// than the management canister, and a canister's tables are not rolled back.
// It listens where it is told and trusts whoever reaches it no more than a
// subnet would, but its bounds are for development, not for the public.
package replica
