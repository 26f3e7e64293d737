package kernel

// AlignedFloats returns n zeroed values that begin on a cache line.
func AlignedFloats(n int) []float32 { return alignedFloats(n) }
