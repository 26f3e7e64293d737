package kernel

var vectorSets = [len(setNames)]vectorKernels{setRef: refVector, setSIMD128: refVector}
