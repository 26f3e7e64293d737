package kernel

// tileSets is indexed by set.
var tileSets = [...]*tileSet{
	setRef: refTiles,
	setAVX2: {lanes: 8, rows: 6, pack: gatherPackY, wht: &whtSet{whtInY, whtInRawY, whtGatherY, whtGatherRawY, whtOutY, whtOutAccY}, run: tileTable{
		{{nil, tileY1x1, tileY2x1, tileY3x1, tileY4x1, tileY5x1, tileY6x1},
			{nil, tileY1x2, tileY2x2, tileY3x2, tileY4x2, tileY5x2, tileY6x2}},
		{{nil, tileY1x1T, tileY2x1T, tileY3x1T, tileY4x1T, tileY5x1T, tileY6x1T},
			{nil, tileY1x2T, tileY2x2T, tileY3x2T, tileY4x2T, tileY5x2T, tileY6x2T}},
	}},
	setAVX512: {lanes: 16, rows: 14, pack: gatherPackZ, wht: &whtSet{whtInZ, whtInRawZ, whtGatherZ, whtGatherRawZ, whtOutZ, whtOutAccZ}, run: tileTable{
		{{nil, tileZ1x1, tileZ2x1, tileZ3x1, tileZ4x1, tileZ5x1, tileZ6x1, tileZ7x1, tileZ8x1, tileZ9x1, tileZ10x1, tileZ11x1, tileZ12x1, tileZ13x1, tileZ14x1},
			{nil, tileZ1x2, tileZ2x2, tileZ3x2, tileZ4x2, tileZ5x2, tileZ6x2, tileZ7x2, tileZ8x2, tileZ9x2, tileZ10x2, tileZ11x2, tileZ12x2, tileZ13x2, tileZ14x2}},
		{{nil, tileZ1x1T, tileZ2x1T, tileZ3x1T, tileZ4x1T, tileZ5x1T, tileZ6x1T, tileZ7x1T, tileZ8x1T, tileZ9x1T, tileZ10x1T, tileZ11x1T, tileZ12x1T, tileZ13x1T, tileZ14x1T},
			{nil, tileZ1x2T, tileZ2x2T, tileZ3x2T, tileZ4x2T, tileZ5x2T, tileZ6x2T, tileZ7x2T, tileZ8x2T, tileZ9x2T, tileZ10x2T, tileZ11x2T, tileZ12x2T, tileZ13x2T, tileZ14x2T}},
	}},
}

// peakFMA runs n rounds of 12 independent multiply-adds of whole vectors.
func peakFMA(n int) (flops int) {
	if active == setAVX512 {
		peakFMAZ(n)
		return n * 12 * 16 * 2
	}
	peakFMAY(n)
	return n * 12 * 8 * 2
}
