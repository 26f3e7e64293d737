package kernel

var int8TileSets = [len(setNames)]*int8TileSet{setRef: refInt8Tiles, setAVX2: refInt8Tiles, setAVX512: refInt8Tiles}
