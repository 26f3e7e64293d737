package kernel

// simdSets is indexed by set; the assembly is written by _avo/wasm_simd.go.
var simdSets = [len(setNames)]*simdKernels{setRef: refSIMD, setSIMD128: {
	linear: simdLinearPanels, table: simdTablePanels, keys: simdKeyPanels,
	hadamard: simdHadamard, terms: simdOctonionTerms,
	transform: simdTransformWhole, tables: simdTermTablesWhole, widen: simdWidenWhole, setKey: simdSetKey,
}}

// simdTransformWhole leaves parts of other widths than multiples of eight to
// the definition.
func simdTransformWhole(x []int16, q []int8, part, width, minus int) {
	if part%8 != 0 {
		refTransformInt8(x, q, part, width, minus)
		return
	}
	simdTransform(x, q, part, width, minus)
	for at := part; part < width && at < len(x); at += width {
		clear(x[at : at+width-part])
	}
}

func simdTermTablesWhole(tables, q []int8, part int) {
	if part%8 != 0 {
		refTermTables(tables, q, part)
		return
	}
	simdTermTables(tables, q, part)
}

func simdWidenWhole(x []int16, q []int8, minus int) {
	n := len(q) &^ 15
	simdWiden(x[:n], q, minus)
	refWidenInt8(x[n:], q[n:], minus)
}
