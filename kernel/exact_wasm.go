package kernel

// exactSets are the implementations by set.
var exactSets = [len(setNames)]exactKernels{setRef: refExact, setSIMD128: refExact}
