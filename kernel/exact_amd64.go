package kernel

// exactSets are the implementations by set.
var exactSets = [len(setNames)]exactKernels{setRef: refExact, setAVX2: refExact, setAVX512: refExact}
