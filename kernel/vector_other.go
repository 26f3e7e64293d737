//go:build !amd64 && !arm64

package kernel

var vectorSets = [len(setNames)]vectorKernels{setRef: refVector}
