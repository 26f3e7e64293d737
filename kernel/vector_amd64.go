package kernel

var vectorSets = [len(setNames)]vectorKernels{setRef: refVector, setAVX2: refVector, setAVX512: refVector}
