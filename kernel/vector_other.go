//go:build !amd64

package kernel

var vectorSets = [len(setNames)]vectorKernels{setRef: refVector, setNEON: refVector}
