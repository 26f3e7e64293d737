//go:build !amd64

package kernel

// tileSets is indexed by set.
var tileSets = [...]*tileSet{setRef: refTiles, setNEON: nil}
