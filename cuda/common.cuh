// What all kernels share: bf16 as 16 raw bits, reductions in a fixed order,
// and the few PTX instructions that the compiler does not write by itself
// (asynchronous copies and the tensor cores of sm_80; gemm90.cuh has those of
// sm_90a). Nothing here needs a header of the toolkit.
//
// Code that must run without a GPU (_test/emulator.h) defines SPINNET_EMULATE
// and its own versions of everything under "#ifndef SPINNET_EMULATE".
#pragma once
#include <stdint.h>

#ifndef SPINNET_EMULATE
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void
#endif

// ---- bf16 ----------------------------------------------------------------

typedef uint16_t bf16;

// to_float: a bf16 is the upper half of a float.
DEVICE float to_float(bf16 v) { return __uint_as_float((uint32_t)v << 16); }
DEVICE float low_float(uint32_t v) { return __uint_as_float(v << 16); }
DEVICE float high_float(uint32_t v) { return __uint_as_float(v & 0xffff0000u); }

#ifndef SPINNET_EMULATE
// pack_bf16 rounds two floats to nearest even: lo to the lower 16 bits.
DEVICE uint32_t pack_bf16(float lo, float hi) {
    uint32_t v;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(hi), "f"(lo));
    return v;
}
#endif
DEVICE bf16 to_bf16(float v) { return (bf16)pack_bf16(v, 0.f); }

// Eight bf16 in 16 bytes.
DEVICE void unpack8(float f[8], uint4 v) {
    f[0] = low_float(v.x), f[1] = high_float(v.x), f[2] = low_float(v.y), f[3] = high_float(v.y);
    f[4] = low_float(v.z), f[5] = high_float(v.z), f[6] = low_float(v.w), f[7] = high_float(v.w);
}
DEVICE uint4 pack8(const float f[8]) {
    return make_uint4(pack_bf16(f[0], f[1]), pack_bf16(f[2], f[3]), pack_bf16(f[4], f[5]), pack_bf16(f[6], f[7]));
}

// ---- reductions ----------------------------------------------------------
// Butterflies: every lane gets the same bits, in every run.

DEVICE float warp_sum(float v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}
DEVICE float warp_max(float v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}
DEVICE double warp_sum(double v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}
DEVICE int warp_sum(int v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

// block_sum adds up over a block of whole warps, at most 32; scratch is
// shared, of 32 values. Every thread gets the sum. Warps are added in order.
template <class T> DEVICE T block_sum(T v, T *scratch) {
    v = warp_sum(v);
    __syncthreads(); // scratch may still be read from the call before
    if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = v;
    __syncthreads();
    T sum = 0;
    for (int i = 0; i < (int)(blockDim.x >> 5); i++) sum += scratch[i];
    return sum;
}

#ifndef SPINNET_EMULATE

// compiler_fence: loads are not moved across it.
DEVICE void compiler_fence() { asm volatile("" ::: "memory"); }

// after_others waits until the kernels before have finished. Package cuda lets
// kernels that begin with it start while the one before still ends, on sm_90
// (early of table.go); so the next may be made ready from here on. It comes
// before any access of memory.
DEVICE void after_others() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\ngriddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- asynchronous copies, sm_80 ------------------------------------------

// shared_address is a pointer to shared memory as the 32 bits that PTX wants.
DEVICE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// cp_async16 starts a copy of 16 bytes to shared memory, of which the last
// 16 − bytes are zero. Both addresses are multiples of 16.
DEVICE void cp_async16(uint32_t dst, const void *src, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(bytes) : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// cp_async_wait waits until at most N of this thread's groups are under way.
template <int N> DEVICE void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// store_shared16 writes 16 bytes at a shared address.
DEVICE void store_shared16(uint32_t dst, uint4 v) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(dst), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

// ---- tensor cores, sm_80 -------------------------------------------------

// ldmatrix reads four 8×8 matrices of 16-bit values, lane l giving the
// address of row l%8 of matrix l/8. Lane l gets elements 2(l%4) and 2(l%4)+1
// of row l/4; of the transposed matrices with ldmatrix_trans.
DEVICE void ldmatrix(uint32_t r[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
DEVICE void ldmatrix_trans(uint32_t r[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// mma_bf16 is d[16×8] += a[16×16]·b[16×8], float32 accumulators. Lane l holds
// of d rows l/4 (d[0], d[1]) and l/4+8 (d[2], d[3]), columns 2(l%4) and +1; of
// a the quarters (rows, columns) (0–7, 0–7), (8–15, 0–7), (0–7, 8–15),
// (8–15, 8–15) and of b the halves (rows 0–7), (8–15) as ldmatrix gives them
// (b from its transpose).
DEVICE void mma_bf16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
