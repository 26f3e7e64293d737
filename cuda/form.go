//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import "spinnet/tensor"

// form is how a layer is computed.
type form int

const (
	dense       form = iota // as the product with the signed matrix: any algebra
	inOne                   // Walsh, Hopper: transforms and products in one launch (walsh90_* of walsh.cu)
	transformed             // Walsh: launches for transforms and for 8 block products
	corrected               // octonions, Hopper: 30 block products and their transforms in one launch (octonion.cuh)
)

// From which width on, or up to which width of a part, a form is quickest, as
// measured on an H100 (docs/benchmarks-gpu.md).
const (
	walshFrom    = 2048
	fusedMost    = 448
	octonionFrom = 4096
)

// formOf chooses.
func (d *Device) formOf(w *tensor.Weight) form {
	hopper := d.info.Major == 9 && (w.In|w.Out)%8 == 0
	width := 8 * min(w.In, w.Out)
	switch {
	case w.Transposed:
	case w.Algebra.Name == "walsh" && hopper && max(w.In, w.Out) <= d.fusedMost:
		return inOne
	case w.Algebra.Name == "walsh" && width >= walshFrom:
		return transformed
	case w.Algebra.Name == "octonion" && hopper && width >= d.octonionFrom:
		return corrected
	}
	return dense
}

// matrix is the bytes of d, and of dg.
func (s *weight) matrix() int {
	blocks := [...]int{dense: s.n * s.n, inOne: 8, transformed: 8, corrected: 16}[s.form]
	return round(2 * blocks * s.out * s.in)
}

// kind is walsh of struct Layer of quantize.cu.
func (f form) kind() int32 { return [...]int32{dense: 0, inOne: 1, transformed: 1, corrected: 2}[f] }
