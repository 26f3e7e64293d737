package kernel

import "golang.org/x/sys/cpu"

var vectorSets = [len(setNames)]vectorKernels{setRef: refVector, setNEON: neonVector()}

// neonVector is the plain Go but for int8.
func neonVector() vectorKernels {
	v := refVector
	v.matVecInt8 = matVecInt8NEON
	if cpu.ARM64.HasASIMDDP {
		v.matVecInt8 = matVecInt8DotN
	}
	return v
}

//go:noescape
func matVecInt8NEON(y []int32, w, x []int8)
