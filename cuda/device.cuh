// What all kernels share: bf16 as 16 raw bits, reductions in a fixed order, the
// counter-based generator of kernel/random.go, and the few instructions that the
// compiler does not write by itself: asynchronous copies and the tensor cores of
// sm_80 (wgmma.cuh has those of sm_90a). Nothing here needs a header of the
// toolkit. _test/emulator.h gives a host compiler the same functions; it defines
// EMULATED.
#pragma once
#include <stdint.h>

typedef uint16_t bf16; // the bits of one bfloat16

#define LOG2E 1.4426950408889634f

#ifndef EMULATED
// KERNEL(threads) or KERNEL(threads, blocks): of a block, and of blocks that are
// to fit on a multiprocessor.
#define KERNEL(...) extern "C" __global__ void __launch_bounds__(__VA_ARGS__)
#define DEVICE __device__ __forceinline__
#define SHARED __shared__
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define SWIZZLED_SHARED(name) extern __shared__ __align__(1024) unsigned char name[] // where boxes are swizzled
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER
#endif

// pack_bf16 rounds two floats to nearest even: lo to the lower 16 bits.
DEVICE uint32_t pack_bf16(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
DEVICE float exp2_fast(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE float shuffle_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEVICE double shuffle_xor(double x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEVICE int shuffle_xor(int x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEVICE uint32_t shuffle(uint32_t x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }
DEVICE bool warp_any(bool x) { return __any_sync(0xffffffffu, x); }
DEVICE int dot4(int a, int b, int c) { return __dp4a(a, b, c); }

// compiler_fence: loads are not moved across it.
DEVICE void compiler_fence() { asm volatile("" ::: "memory"); }

// Kernels that follow each other on the stream, sm_90: wait_for_others waits until
// those before have finished; let_others_start lets the next be made ready from
// here on, if package cuda launches it early (table.go): it waits itself.
DEVICE void wait_for_others() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
DEVICE void let_others_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// after_others is both. It comes before any access of memory.
DEVICE void after_others() { wait_for_others(), let_others_start(); }

// ---- asynchronous copies, sm_80 ----

// shared_address is a pointer to shared memory as the 32 bits that PTX wants.
DEVICE uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Starts a copy to shared memory of 16 bytes, or 4, of which all from bytes on are
// zero. Both addresses are multiples of 16, or 4.
DEVICE void cp_async16(uint32_t dst, const void* src, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(bytes) : "memory");
}
DEVICE void cp_async4(uint32_t dst, const void* src, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(src), "r"(bytes) : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// cp_async_wait waits until at most N of this thread's groups are under way.
template <int N>
DEVICE void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// store_shared16 writes 16 bytes at a shared address.
DEVICE void store_shared16(uint32_t dst, uint4 v) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(dst), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

// ---- tensor cores, sm_80 ----

// ldmatrix reads four 8×8 matrices of 16-bit values, lane l giving the address of
// row l%8 of matrix l/8. Lane l gets elements 2(l%4) and 2(l%4)+1 of row l/4; of
// the transposed matrices with ldmatrix_trans. Lanes that write what was read need
// __syncwarp first.
DEVICE void ldmatrix(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
DEVICE void ldmatrix_trans(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// mma_bf16 is d[16,8] += a[16,16]·b[16,8], float32 accumulators. Lane l holds of d
// rows l/4 (d[0], d[1]) and l/4+8 (d[2], d[3]), columns 2(l%4) and +1; of a the
// quarters (rows, columns) (0–7, 0–7), (8–15, 0–7), (0–7, 8–15), (8–15, 8–15) and
// of b the halves (rows 0–7), (8–15) as ldmatrix gives them (b from its transpose).
DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

// ---- bf16 ----

// A bf16 is the upper half of a float.
DEVICE float low_float(uint32_t x) { return __uint_as_float(x << 16); }
DEVICE float high_float(uint32_t x) { return __uint_as_float(x & 0xffff0000u); }
DEVICE float to_float(bf16 x) { return __uint_as_float((uint32_t)x << 16); }
DEVICE bf16 to_bf16(float x) { return (bf16)pack_bf16(x, 0.f); }

// Eight bf16 in 16 bytes.
DEVICE void unpack8(float (&f)[8], uint4 v) {
  f[0] = low_float(v.x), f[1] = high_float(v.x), f[2] = low_float(v.y), f[3] = high_float(v.y);
  f[4] = low_float(v.z), f[5] = high_float(v.z), f[6] = low_float(v.w), f[7] = high_float(v.w);
}
DEVICE uint4 pack8(const float (&f)[8]) {
  return make_uint4(pack_bf16(f[0], f[1]), pack_bf16(f[2], f[3]), pack_bf16(f[4], f[5]), pack_bf16(f[6], f[7]));
}

// Accesses of 16 or 8 bytes, aligned to as many.
DEVICE uint4 load8(const bf16* p) { return *(const uint4*)p; }
DEVICE void store8(bf16* p, uint4 v) { *(uint4*)p = v; }
DEVICE float4 load4(const float* p) { return *(const float4*)p; }
DEVICE float4 load4(const bf16* p) {
  uint2 u = *(const uint2*)p;
  return make_float4(low_float(u.x), high_float(u.x), low_float(u.y), high_float(u.y));
}
DEVICE void store4(float* p, float4 f) { *(float4*)p = f; }
DEVICE void store4(bf16* p, float4 f) { *(uint2*)p = make_uint2(pack_bf16(f.x, f.y), pack_bf16(f.z, f.w)); }
// The same for what nothing reads again before long: it leaves the cache first.
DEVICE uint4 load8_late(const bf16* p) { return __ldcs((const uint4*)p); }
DEVICE float4 load4_late(const float* p) { return __ldcs((const float4*)p); }
DEVICE float4 load4_late(const bf16* p) {
  uint2 u = __ldcs((const uint2*)p);
  return make_float4(low_float(u.x), high_float(u.x), low_float(u.y), high_float(u.y));
}
DEVICE void store4_late(float* p, float4 f) { __stcs((float4*)p, f); }

// ---- reductions ----
// Every thread gets the same bits, in every run.

template <class T>
DEVICE T warp_sum(T x) {
#pragma unroll
  for (int m = 16; m; m >>= 1) x += shuffle_xor(x, m);
  return x;
}
DEVICE float warp_max(float x) {
#pragma unroll
  for (int m = 16; m; m >>= 1) x = fmaxf(x, shuffle_xor(x, m));
  return x;
}
// Of a block of whole warps, at most 32, added in order. scratch is shared, of 32
// values, and may be used again after the next barrier.
template <class T>
DEVICE T block_sum(T x, T* scratch) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  T sum = 0;
  for (int i = 0; i < (int)blockDim.x / 32; i++) sum += scratch[i];
  return sum;
}
DEVICE float block_max(float x, float* scratch) {
  x = warp_max(x);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = scratch[0];
  for (int i = 1; i < (int)blockDim.x / 32; i++) x = fmaxf(x, scratch[i]);
  return x;
}

// Philox-4x32-10, block i of the stream {seed, step, layer, site} of
// kernel/random.go: word w is number 4i + w of the stream.
DEVICE void philox(uint32_t (&c)[4], uint64_t seed, uint64_t step, uint32_t layer, uint32_t site, uint64_t i) {
  c[0] = (uint32_t)i, c[1] = (uint32_t)(i >> 32) ^ (uint32_t)(step >> 32), c[2] = (uint32_t)step, c[3] = layer << 16 ^ site;
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma unroll
  for (int r = 0; r < 10; r++) {
    uint64_t p0 = (uint64_t)c[0] * 0xD2511F53u, p1 = (uint64_t)c[2] * 0xCD9E8D57u;
    c[0] = (uint32_t)(p1 >> 32) ^ c[1] ^ k0;
    c[1] = (uint32_t)p1;
    c[2] = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
    c[3] = (uint32_t)p0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
}
