//go:build !amd64 && !arm64 && !wasm

package kernel

var vectorSets = [len(setNames)]vectorKernels{setRef: refVector}
