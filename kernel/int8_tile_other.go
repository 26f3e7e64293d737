//go:build !amd64

package kernel

var int8TileSets = [len(setNames)]*int8TileSet{setRef: refInt8Tiles, setNEON: refInt8Tiles}
