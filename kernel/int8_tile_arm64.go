package kernel

import "golang.org/x/sys/cpu"

// int8TileSets is indexed by set; the assembly is written by
// _avo/neon_int8.go.
var int8TileSets = [len(setNames)]*int8TileSet{setRef: refInt8Tiles, setNEON: int8TilesNEON(cpu.ARM64.HasASIMDDP)}

// int8TilesNEON uses the dot products of ARMv8.2 where the machine has them.
func int8TilesNEON(dot bool) *int8TileSet {
	s := &int8TileSet{lanes: 8, bias: 0, pack: int8PackN, expand: int8ExpandN, sum: int8SumN,
		narrow: []func(*byte){nil, int8TileNarrowN1, int8TileNarrowN2, int8TileNarrowN3},
		wide:   []func(*byte){nil, int8TileWideN1, int8TileWideN2},
	}
	if dot {
		s.wide = []func(*byte){nil, int8TileDotN1, int8TileDotN2, int8TileDotN3, int8TileDotN4, int8TileDotN5, int8TileDotN6}
		s.narrow = s.wide
	}
	return s
}

// peakInt8 is not measured here.
func peakInt8(int) (macs int) { return 0 }
