//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

// kernelID is one kernel.
type kernelID int

// The kernels, by stem.
const (
	kernelCount kernelID = iota
)

// kernelTable says where each kernel is: its source's stem and its name there.
var kernelTable = [kernelCount]struct{ stem, name string }{}
