package kernel

// simdSets is indexed by set; the assembly is written by _avo/wasm_simd.go.
var simdSets = [len(setNames)]*simdKernels{setRef: refSIMD, setSIMD128: {
	linear: simdLinearPanels, table: simdTablePanels, hadamard: simdHadamard, terms: simdOctonionTerms,
	transform: refTransformInt8, tables: refTermTables, widen: refWidenInt8,
}}
