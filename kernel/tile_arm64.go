package kernel

// tileSets is indexed by set; the assembly is written by _avo/neon.go.
var tileSets = [...]*tileSet{setRef: refTiles, setNEON: {lanes: refLanes, rows: 6, wht: refWHT, pack: refGatherPack, run: tileTable{neonTiles, neonTiles}}}

var neonTiles = [2][]func(t *byte){
	{nil, tileN1x1, tileN2x1, tileN3x1, tileN4x1, tileN5x1, tileN6x1},
	{nil, tileN1x2, tileN2x2, tileN3x2, tileN4x2, tileN5x2, tileN6x2},
}

// prefetchLines does nothing: the tiles are small beside these caches.
func prefetchLines(p *byte, bytes int) {}

// peakFMA is not measured here.
func peakFMA(n int) (flops int) { return 0 }
