//go:build !amd64 && !arm64

package kernel

var int8TileSets = [len(setNames)]*int8TileSet{setRef: refInt8Tiles, setSIMD128: refInt8Tiles}

// peakInt8: without assembly there is nothing to compare with.
func peakInt8(int) (macs int) { return 0 }
