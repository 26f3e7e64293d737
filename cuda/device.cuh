// Primitives of the kernels in attention.cu, loss.cu, norm.cu, swiglu.cu,
// embedding.cu and elementwise.cu: bf16 in registers, reductions in a fixed
// order, asynchronous copies, the tensor cores' 16×8×16 product, and the
// counter-based generator of kernel/random.go. All PTX of those files is here;
// _test/emulator.h gives the same functions to a host compiler.
#pragma once
#include <stdint.h>

typedef uint16_t bf16;                  // the bits of one bfloat16
typedef struct { uint32_t x[4]; } vec8; // eight bf16 in 16 bytes, the lower index in the lower half

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f

#ifndef EMULATED
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define DEVICE __device__ __forceinline__
#define SHARED __shared__
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

// lo goes to the lower 16 bits; both rounded to nearest even.
DEVICE uint32_t pack(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
DEVICE float exp2_fast(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Copies bytes (16 or 0; 4 or 0) and fills the rest with zeros.
DEVICE void cp_async16(uint32_t dst, const void* src, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(bytes) : "memory");
}
DEVICE void cp_async4(uint32_t dst, const void* src, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(src), "r"(bytes) : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
DEVICE void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four 8×8 matrices of bf16; lanes 8i … 8i+7 give the rows of matrix i.
DEVICE void ldmatrix(uint32_t (&r)[4], uint32_t addr) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(addr) : "memory");
}
DEVICE void ldmatrix_trans(uint32_t (&r)[4], uint32_t addr) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(addr) : "memory");
}
// c[16,8] += a[16,16]·b[16,8]. Lane l holds, with g = l/4 and t = l%4, of c
// (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1).
DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEVICE float shuffle_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEVICE double shuffle_xor(double x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEVICE int shuffle_xor(int x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEVICE uint32_t shuffle(uint32_t x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }
DEVICE bool warp_any(bool x) { return __any_sync(0xffffffffu, x); }
DEVICE int dot4(int a, int b, int c) { return __dp4a(a, b, c); }

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER
// What ordinary stores and copies left in shared memory becomes visible to
// wgmma: after the wait for it, before the barrier.
DEVICE void async_proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
DEVICE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

#define ROW(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
// d[64,N] = a[64,16]·b[16,N], added to d if add, of a warpgroup, N = 64 or 32:
// warp w has rows 16w … 16w+15, a and d laid out as for mma. b is a descriptor of
// shared memory; TRANS: its rows are those of the contraction, else its columns'.
template <int TRANS, int N>
DEVICE void wgmma_registers(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b, int add) {
  if constexpr (N == 64) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}\n"
        : ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(TRANS));
  } else {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %21, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, {%16, %17, %18, %19}, %20, p, 1, 1, %22;\n}\n"
        : ROW(0), ROW(1), ROW(2), ROW(3)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(TRANS));
  }
}
// The same with a in shared memory, by rows.
template <int TRANS, int N>
DEVICE void wgmma_shared(float (&d)[8][4], uint64_t a, uint64_t b, int add) {
  if constexpr (N == 64) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, p, 1, 1, 0, %35;\n}\n"
        : ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7)
        : "l"(a), "l"(b), "r"(add), "n"(TRANS));
  } else {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, p, 1, 1, 0, %19;\n}\n"
        : ROW(0), ROW(1), ROW(2), ROW(3)
        : "l"(a), "l"(b), "r"(add), "n"(TRANS));
  }
}
#undef ROW
// Keeps the compiler from touching sums that a wgmma is still writing.
DEVICE void wgmma_done(float (&d)[8][4]) {
#pragma unroll
  for (int i = 0; i < 8; i++) asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}
#endif
#endif

DEVICE float low(uint32_t x) { return __uint_as_float(x << 16); }
DEVICE float high(uint32_t x) { return __uint_as_float(x & 0xffff0000u); }
DEVICE float to_float(bf16 x) { return __uint_as_float((uint32_t)x << 16); }
DEVICE bf16 to_bf16(float x) { return (bf16)pack(x, 0.f); }

DEVICE void unpack(float (&f)[8], const vec8& v) {
#pragma unroll
  for (int i = 0; i < 4; i++) f[2 * i] = low(v.x[i]), f[2 * i + 1] = high(v.x[i]);
}
DEVICE vec8 pack(const float (&f)[8]) {
  vec8 v;
#pragma unroll
  for (int i = 0; i < 4; i++) v.x[i] = pack(f[2 * i], f[2 * i + 1]);
  return v;
}
// 16-byte accesses; p is 16-byte aligned.
DEVICE vec8 load8(const bf16* p) {
  uint4 u = *(const uint4*)p;
  vec8 v = {{u.x, u.y, u.z, u.w}};
  return v;
}
DEVICE void store8(bf16* p, const vec8& v) { *(uint4*)p = make_uint4(v.x[0], v.x[1], v.x[2], v.x[3]); }
DEVICE void store4(bf16* p, float4 f) { *(uint2*)p = make_uint2(pack(f.x, f.y), pack(f.z, f.w)); }
DEVICE float4 load4(const bf16* p) {
  uint2 u = *(const uint2*)p;
  return make_float4(low(u.x), high(u.x), low(u.y), high(u.y));
}
DEVICE float4 load4(const float* p) { return *(const float4*)p; }
// The same for what nothing reads again before long: it leaves the cache first.
DEVICE float4 load4_late(const float* p) { return __ldcs((const float4*)p); }
DEVICE float4 load4_late(const bf16* p) {
  uint2 u = __ldcs((const uint2*)p);
  return make_float4(low(u.x), high(u.x), low(u.y), high(u.y));
}
DEVICE vec8 load8_late(const bf16* p) {
  uint4 u = __ldcs((const uint4*)p);
  vec8 v = {{u.x, u.y, u.z, u.w}};
  return v;
}
DEVICE void store4_late(float* p, float4 f) { __stcs((float4*)p, f); }
DEVICE void store4(float* p, float4 f) { *(float4*)p = f; }

// Reductions over a warp; every lane gets the result.
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
// Sum over a block of at most 1024 threads; every thread gets the result.
// scratch holds 32 values and may be used again after the next barrier.
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
