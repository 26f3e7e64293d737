//go:build !amd64

package kernel

var groupedSets = [len(setNames)]*groupedKernels{setRef: refGrouped, setNEON: refGrouped, setSIMD128: refGrouped}
