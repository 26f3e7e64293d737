//go:build !amd64 && !arm64 && !wasm

package kernel

// exactSets: plain Go already gives the bits; the compilers of these machines
// make fast enough code of it.
var exactSets = [len(setNames)]exactKernels{setRef: refExact}
