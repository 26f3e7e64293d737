//go:build !wasm

package kernel

// simdSets is indexed by set: other machines have layouts of their own.
var simdSets = [len(setNames)]*simdKernels{setRef: refSIMD, setAVX2: refSIMD, setAVX512: refSIMD, setNEON: refSIMD}
