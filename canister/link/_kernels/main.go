// Command _kernels runs kernels for TestKernelInstructions, which counts what
// they take: each function does its work n times, on operands of the sizes of a
// model of width 512.
package main

import (
	"spinnet/algebra"
	"spinnet/kernel"
)

func main() {}

// Sizes of parts and of the rest of the model.
const (
	head, hidden, width = 64, 176, 512
	keys                = 256
	rows                = 1024 // of the vocabulary
)

var (
	octonion, walsh *kernel.Int8Linear
	mixer           *kernel.Int8Linear
	table           = kernel.NewInt8Table(make([]int8, rows*width), rows, width)

	q      = make([]int8, width)
	a      []int8
	c      []int32
	start  [8]int32
	work   kernel.Int8Scratch
	x, y   = make([]float32, rows), make([]float32, rows)
	ring   = make([]int8, keys*head)
	query  = make([]int8, kernel.Int8QueryLen(head))
	scores = make([]int32, keys+2*kernel.ExactBlock)
)

func init() {
	layer := func(name string, out int, ternary bool) *kernel.Int8Linear {
		t, err := algebra.ByName(name)
		if err != nil {
			panic(err)
		}
		return kernel.NewInt8Linear(t, head, ternary, kernel.Int8Weight{W: make([]int8, 8*out*head), Gain: make([]float32, out)})
	}
	octonion, walsh, mixer = layer("octonion", hidden, true), layer("walsh", hidden, true), layer("octonion", head, false)
	a, c = make([]int8, 8*mixer.Stride()), make([]int32, 8*octonion.CStride())
	for i := range x {
		x[i] = float32(i%7) - 3
	}
}

func multiply(l *kernel.Int8Linear, n int32) {
	for range n {
		l.Multiply(&work, c, a[:8*l.Stride()], start[:], 8, 0, l.Panels())
	}
}

//go:wasmexport octonion
func runOctonion(n int32) { multiply(octonion, n) }

//go:wasmexport walsh
func runWalsh(n int32) { multiply(walsh, n) }

//go:wasmexport mixer
func runMixer(n int32) { multiply(mixer, n) }

//go:wasmexport expand
func runExpand(n int32) {
	for range n {
		octonion.Expand(a[:8*octonion.Stride()], start[:], q)
	}
}

//go:wasmexport scale
func runScale(n int32) {
	for range n {
		kernel.ExactScaleInt32(y, hidden, c, octonion.CStride(), 5, 1, x[:hidden])
	}
}

//go:wasmexport vocabulary
func runVocabulary(n int32) {
	input := make([]int8, table.InputLen())
	table.Input(input, q)
	y := make([]int32, rows)
	for range n {
		table.MatVec(y, input, 0)
	}
}

//go:wasmexport keys
func runKeys(n int32) {
	for range n {
		kernel.Int8Scores(scores, ring, query, head, 0, keys)
	}
}

//go:wasmexport values
func runValues(n int32) {
	for range n {
		kernel.ExactValues8(y[:head], x[:keys], ring)
	}
}

//go:wasmexport softmax
func runSoftmax(n int32) {
	for range n {
		kernel.ExactExpScaled(y, x, 0, 1)
	}
}

//go:wasmexport swiglu
func runSwiGLU(n int32) {
	for range n {
		kernel.ExactSwiGLU(y, x, x)
	}
}

//go:wasmexport quantize
func runQuantize(n int32) {
	for range n {
		kernel.ExactQuantize8(q, x[:width])
	}
}

//go:wasmexport norm
func runNorm(n int32) {
	for range n {
		kernel.ExactRMSNorm(y[:width], x[:width], x[:width], 1e-6)
	}
}

//go:wasmexport rotate
func runRotate(n int32) {
	for range n {
		kernel.ExactRotate(y[:width], x[:head/2], x[:head/2])
	}
}

//go:wasmexport argmax
func runArgMax(n int32) {
	for range n {
		kernel.ArgMax(x)
	}
}
