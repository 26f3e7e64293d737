// Command spinnet-wasm is the one WebAssembly module that runs models: as a
// canister of the Internet Computer (this file and the others but web.go) and
// in a web page (the exports web_* of web.go). It is built with GOOS=wasip1
// GOARCH=wasm -buildmode=c-shared, and canister/link makes the two modules of
// what comes out.
//
// A canister serves one message at a time. Each has a budget of instructions;
// the work on a text stops between two of its pieces when the budget is used
// up, and the caller goes on with another message. The methods are those of
// spinnet.did; docs/canister-api.md explains them.
package main

// model is where the link step puts a model: its length in bytes in the first
// four, and from modelStart on the model itself, an image or a .spinnet file.
// Untouched it is zero and takes no room, neither in the module nor in memory.
var model [96 << 20]byte

// modelStart is where in model the bytes begin: aligned as images need it.
const modelStart = 16

// modelCapacity is how many bytes fit.
const modelCapacity = len(model) - modelStart

func main() {}
