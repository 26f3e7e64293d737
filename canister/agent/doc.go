// Package agent speaks the Internet Computer's HTTP interface: principals,
// request ids, signed envelopes, hash trees, certificates and Candid values,
// and a small Client made of them. The local replica (canister/replica) is
// the other side of the same wire and uses the same definitions.
//
// Source of all formats: "The Internet Computer Interface Specification".
package agent
