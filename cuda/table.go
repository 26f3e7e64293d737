//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

// kernelID is one kernel.
type kernelID int

// The kernels; what each does, and how it is launched, stands in its source.
const (
	gemmNTBF16 kernelID = iota
	gemmNTF32
	gemmNNBF16
	gemmNNF32
	gemmTNF32
	gemm90NTBF16128
	gemm90NTBF16256
	gemm90NTBF16192
	gemm90NTBF16Turns
	gemm90NTBF16Resident
	gemm90NTF32128
	gemm90NTF32256
	gemm90NTF32192
	gemm90NTF32Turns
	gemm90NTF32Resident
	gemm90NNBF16128
	gemm90NNBF16256
	gemm90NNBF16192
	gemm90NNBF16Turns
	gemm90NNBF16Resident
	gemm90NNF32128
	gemm90NNF32256
	gemm90NNF32192
	gemm90NNF32Turns
	gemm90NNF32Resident
	gemm90TNF32128
	gemm90TNF32256
	gemm90TNF32192
	gemm90TNF32Turns
	gemm90Gated
	octonion90NT
	octonion90NN
	octonion90TN
	fold
	foldWalsh
	walshBF16
	walsh90NT
	walsh90NN
	refreshSums
	refresh
	finishGradient
	attentionForward32
	attentionForward64
	attentionForward96
	attentionForward128
	attentionDQ32
	attentionDQ64
	attentionDQ96
	attentionDQ128
	attentionDKV32
	attentionDKV64
	attentionDKV96
	attentionDKV128
	attention90Forward32
	attention90Forward64
	attention90Forward96
	attention90Forward128
	attention90DQ32
	attention90DQ64
	attention90DQ96
	attention90DQ128
	attention90DKV32
	attention90DKV64
	attention90DKV96
	attention90DKV128
	rope
	attentionMask
	addF32BF16
	addF32
	addBF16
	toBF16F32
	sumSquares
	clipNorm
	adamW
	embedding
	embeddingSegments
	embeddingJoin
	crossEntropyBF16
	crossEntropyNarrowF32
	rmsNorm512
	rmsNorm1024
	rmsNorm2048
	rmsNormAny
	rmsNormBackward512
	rmsNormBackward1024
	rmsNormBackward2048
	rmsNormBackward4096
	rmsNormBackwardAny
	rmsNormDW
	fakeQuant8
	swiGLU
	swiGLUQuant2048
	swiGLUQuant4096
	swiGLUQuantAny
	swiGLUBackward
	zeroTensors
	addSum
	guard
	kernelCount // how many there are
)

// kernelTable says where each kernel is: its source's stem and its name there.
var kernelTable = [kernelCount]struct{ stem, name string }{
	gemmNTBF16: {"linear", "gemm_nt_bf16"}, gemmNTF32: {"linear", "gemm_nt_f32"},
	gemmNNBF16: {"linear", "gemm_nn_bf16"}, gemmNNF32: {"linear", "gemm_nn_f32"}, gemmTNF32: {"linear", "gemm_tn_f32"},
	gemm90NTBF16128: {"linear", "gemm90_nt_bf16_128"}, gemm90NTBF16256: {"linear", "gemm90_nt_bf16_256"},
	gemm90NTBF16192:   {"linear", "gemm90_nt_bf16_192"},
	gemm90NTBF16Turns: {"linear", "gemm90_nt_bf16_128p"}, gemm90NTBF16Resident: {"linear", "gemm90_nt_bf16_128r"},
	gemm90NTF32128: {"linear", "gemm90_nt_f32_128"}, gemm90NTF32256: {"linear", "gemm90_nt_f32_256"},
	gemm90NTF32192:   {"linear", "gemm90_nt_f32_192"},
	gemm90NTF32Turns: {"linear", "gemm90_nt_f32_128p"}, gemm90NTF32Resident: {"linear", "gemm90_nt_f32_128r"},
	gemm90NNBF16128: {"linear", "gemm90_nn_bf16_128"}, gemm90NNBF16256: {"linear", "gemm90_nn_bf16_256"},
	gemm90NNBF16192:   {"linear", "gemm90_nn_bf16_192"},
	gemm90NNBF16Turns: {"linear", "gemm90_nn_bf16_128p"}, gemm90NNBF16Resident: {"linear", "gemm90_nn_bf16_128r"},
	gemm90NNF32128: {"linear", "gemm90_nn_f32_128"}, gemm90NNF32256: {"linear", "gemm90_nn_f32_256"},
	gemm90NNF32192:   {"linear", "gemm90_nn_f32_192"},
	gemm90NNF32Turns: {"linear", "gemm90_nn_f32_128p"}, gemm90NNF32Resident: {"linear", "gemm90_nn_f32_128r"},
	gemm90TNF32128: {"linear", "gemm90_tn_f32_128"}, gemm90TNF32256: {"linear", "gemm90_tn_f32_256"},
	gemm90TNF32192:   {"linear", "gemm90_tn_f32_192"},
	gemm90TNF32Turns: {"linear", "gemm90_tn_f32_128p"}, gemm90Gated: {"linear", "gemm90_gated"},
	octonion90NT: {"linear", "octonion90_nt"}, octonion90NN: {"linear", "octonion90_nn"},
	octonion90TN: {"linear", "octonion90_tn"},
	fold:         {"linear", "fold"}, foldWalsh: {"linear", "fold_walsh"},
	walshBF16: {"walsh", "walsh_bf16"}, walsh90NT: {"walsh", "walsh90_nt"}, walsh90NN: {"walsh", "walsh90_nn"},
	refreshSums: {"quantize", "refresh_sums"}, refresh: {"quantize", "refresh"}, finishGradient: {"quantize", "finish_gradient"},
	attentionForward32: {"attention", "attention_forward_32"}, attentionForward64: {"attention", "attention_forward_64"},
	attentionForward96: {"attention", "attention_forward_96"}, attentionForward128: {"attention", "attention_forward_128"},
	attentionDQ32: {"attention", "attention_dq_32"}, attentionDQ64: {"attention", "attention_dq_64"},
	attentionDQ96: {"attention", "attention_dq_96"}, attentionDQ128: {"attention", "attention_dq_128"},
	attentionDKV32: {"attention", "attention_dkv_32"}, attentionDKV64: {"attention", "attention_dkv_64"},
	attentionDKV96: {"attention", "attention_dkv_96"}, attentionDKV128: {"attention", "attention_dkv_128"},
	attention90Forward32: {"attention90", "attention90_forward_32"}, attention90Forward64: {"attention90", "attention90_forward_64"},
	attention90Forward96: {"attention90", "attention90_forward_96"}, attention90Forward128: {"attention90", "attention90_forward_128"},
	attention90DQ32: {"attention90", "attention90_dq_32"}, attention90DQ64: {"attention90", "attention90_dq_64"},
	attention90DQ96: {"attention90", "attention90_dq_96"}, attention90DQ128: {"attention90", "attention90_dq_128"},
	attention90DKV32: {"attention90", "attention90_dkv_32"}, attention90DKV64: {"attention90", "attention90_dkv_64"},
	attention90DKV96: {"attention90", "attention90_dkv_96"}, attention90DKV128: {"attention90", "attention90_dkv_128"},
	rope: {"attention", "rope"}, attentionMask: {"attention", "attention_mask"},
	addF32BF16: {"elementwise", "add_f32_bf16"}, addF32: {"elementwise", "add_f32"}, addBF16: {"elementwise", "add_bf16"},
	toBF16F32:  {"elementwise", "to_bf16_f32"},
	sumSquares: {"elementwise", "sum_squares"}, clipNorm: {"elementwise", "clip"}, adamW: {"elementwise", "adamw"},
	embedding:         {"embedding", "embedding"},
	embeddingSegments: {"embedding", "embedding_segments"}, embeddingJoin: {"embedding", "embedding_join"},
	crossEntropyBF16: {"loss", "cross_entropy_bf16"}, crossEntropyNarrowF32: {"loss", "cross_entropy_narrow_f32"},
	rmsNorm512: {"norm", "rmsnorm_512"}, rmsNorm1024: {"norm", "rmsnorm_1024"}, rmsNorm2048: {"norm", "rmsnorm_2048"}, rmsNormAny: {"norm", "rmsnorm_any"}, rmsNormBackward512: {"norm", "rmsnorm_backward_512"},
	rmsNormBackward1024: {"norm", "rmsnorm_backward_1024"}, rmsNormBackward2048: {"norm", "rmsnorm_backward_2048"}, rmsNormBackward4096: {"norm", "rmsnorm_backward_4096"},
	rmsNormBackwardAny: {"norm", "rmsnorm_backward_any"}, rmsNormDW: {"norm", "rmsnorm_dw"}, fakeQuant8: {"norm", "fake_quant8"},
	swiGLU: {"swiglu", "swiglu"}, swiGLUQuant2048: {"swiglu", "swiglu_quant8_2048"},
	swiGLUQuant4096: {"swiglu", "swiglu_quant8_4096"}, swiGLUQuantAny: {"swiglu", "swiglu_quant8_any"}, swiGLUBackward: {"swiglu", "swiglu_backward"},
	zeroTensors: {"step", "zero_tensors"}, addSum: {"step", "add_sum"}, guard: {"step", "guard"},
}

// startsEarly says whether a kernel may start while the one before still ends: it
// waits itself (after_others of device.cuh), in Hopper's image. Those of walsh.cu
// wait too, but a step of them is 4 % quicker when they do not start early.
func startsEarly(k kernelID) bool {
	stem := kernelTable[k].stem
	return stem == "linear" || stem == "quantize"
}
