package kernel

// Keys of attention in int8: rows that come one at a time and are multiplied,
// all of them or a range, with one query. Most kernel sets have them one after
// another; in LayoutSIMD128 they are a matrix of keyPanels.

// keyPanels are of ExactBlock rows.
var keyPanels = panelShape{4, 8}

// Int8KeysLen is the length of memory for rows keys of a width, rows a multiple
// of ExactBlock. What of it belongs to the first of them, up to a multiple of
// ExactBlock, comes first.
func Int8KeysLen(rows, width int) int {
	if NativeLayout() == LayoutSIMD128 {
		return keyPanels.size(rows, width)
	}
	return rows * width
}

// SetInt8Key puts key q into a row of keys.
func SetInt8Key(keys []int8, row int, q []int8) {
	if NativeLayout() != LayoutSIMD128 {
		copy(keys[row*len(q):], q)
		return
	}
	whole, step := len(q)&^15, 16*ExactBlock // a step has 16 columns
	at := keys[keyPanels.at(row, 0, len(q)):]
	if whole > 0 {
		simd().setKey(at[:whole/16*step-step+58], q[:whole])
	}
	for c, v := range q[whole:] {
		at[whole/16*step+keyPanels.at(0, c, 16)] = v
	}
}

// refSetKey spreads whole groups of 16 values from the place of the first on.
func refSetKey(keys, q []int8) {
	for c, v := range q {
		keys[keyPanels.at(0, c, len(q))] = v
	}
}

// Int8QueryLen is the length of an Int8Query.
func Int8QueryLen(width int) int { return 2 * keyPanels.width(width) }

// Int8Query arranges a query q for Int8Scores.
func Int8Query(query, q []int8) {
	if NativeLayout() != LayoutSIMD128 {
		copy(query, q)
		return
	}
	x := int16s(query[:Int8QueryLen(len(q))])
	simd().widen(x[:len(q)], q, 0)
	clear(x[len(q):])
}

// Int8Scores gives the products of n keys from row on, of a width, with an
// Int8Query, in y, which has room for n + 2·ExactBlock values.
func Int8Scores(y []int32, keys, query []int8, width, row, n int) []int32 {
	if NativeLayout() != LayoutSIMD128 {
		MatVecInt8(y, keys[row*width:], query[:width], n, width)
		return y[:n]
	}
	x := int16s(query[:Int8QueryLen(width)])
	first, blocks := row/ExactBlock, (row+n+ExactBlock-1)/ExactBlock-row/ExactBlock
	size := ExactBlock * len(x)
	simd().keys(y[:blocks*ExactBlock], uint8s(keys[first*size:(first+blocks)*size]), x)
	return y[row%ExactBlock:][:n]
}
