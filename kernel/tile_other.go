//go:build !amd64 && !arm64

package kernel

// tileSets is indexed by set.
var tileSets = [...]*tileSet{setRef: refTiles, setSIMD128: refTiles}

// prefetchLines has no portable form.
func prefetchLines(p *byte, bytes int) {}

// peakFMA has no portable form.
func peakFMA(n int) (flops int) { return 0 }
