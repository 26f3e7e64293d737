// Runs kernels on the CPU: include before a .cu file and compile as C++. Every
// thread of a block is a fiber; barriers, shuffles and the warp's matrix
// instructions are meeting points. Slow, but exact about indexing, shared
// memory and synchronisation: fibers run in an order that changes from barrier
// to barrier, so that a missing one shows. x86-64, GNU.
#pragma once
#ifndef EMULATED
#define EMULATED
#endif
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define __device__
#define __forceinline__ inline
#define KERNEL(threads, blocks) extern "C" void
#define DEVICE inline
#define SHARED static
#define __shared__ static
#define DYNAMIC_SHARED(name) unsigned char* name = emu::dynamic
#define __launch_bounds__(...)

struct uint3 { unsigned x, y, z; };
struct uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }
static inline uint2 make_uint2(unsigned a, unsigned b) { return {a, b}; }
static inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
static inline float __uint_as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t __float_as_uint(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
#define __logf logf
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline int atomicAdd(int* p, int x) { int old = *p; *p += x; return old; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

extern uint3 threadIdx, blockIdx, gridDim, blockDim;

namespace emu {
extern unsigned char* dynamic;
struct Lane { uint32_t w[8]; float f[4]; double d; const void* p; };
extern Lane* lanes; // of the running warp
void grid_barrier(); // of blocks that run together
void block_barrier();
void warp_barrier();
} // namespace emu
template <class T>
static inline T __ldcs(const T* p) { return *p; }
template <class T>
static inline void __stcs(T* p, T x) { *p = x; }
static inline void __syncthreads() { emu::block_barrier(); }
static inline void __syncwarp() { emu::warp_barrier(); }

static inline uint32_t bf16_bits(float f) {
  uint32_t u = __float_as_uint(f);
  if (f != f) return 0x7fc0;
  return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
static inline uint32_t pack(float lo, float hi) { return bf16_bits(lo) | bf16_bits(hi) << 16; }
static inline float exp2_fast(float x) { return exp2f(x); }
static inline uint32_t shared_address(const void* p) { return (uint32_t)((const unsigned char*)p - emu::dynamic); }
// Copies arrive at once: a missing wait is not seen, a wrong address is.
static inline void cp_async16(uint32_t dst, const void* src, int bytes) {
  if (dst % 16 || (bytes && (uintptr_t)src % 16)) { fprintf(stderr, "misaligned 16-byte copy\n"); abort(); }
  memset(emu::dynamic + dst, 0, 16);
  memcpy(emu::dynamic + dst, src, bytes);
}
static inline void cp_async4(uint32_t dst, const void* src, int bytes) {
  if (dst % 4 || (bytes && (uintptr_t)src % 4)) { fprintf(stderr, "misaligned 4-byte copy\n"); abort(); }
  memset(emu::dynamic + dst, 0, 4);
  memcpy(emu::dynamic + dst, src, bytes);
}
static inline void cp_async_commit() {}
template <int N>
static inline void cp_async_wait() {}

static inline unsigned lane_id() { return threadIdx.x % 32; }
static inline void ldmatrix_any(uint32_t (&r)[4], uint32_t addr, bool trans) {
  if (addr % 16) { fprintf(stderr, "misaligned ldmatrix\n"); abort(); }
  emu::lanes[lane_id()].p = emu::dynamic + addr;
  emu::warp_barrier();
  int g = lane_id() / 4, t = lane_id() % 4;
  for (int i = 0; i < 4; i++) {
    uint16_t e[2];
    for (int j = 0; j < 2; j++)
      e[j] = trans ? ((const uint16_t*)emu::lanes[8 * i + 2 * t + j].p)[g] : ((const uint16_t*)emu::lanes[8 * i + g].p)[2 * t + j];
    r[i] = e[0] | (uint32_t)e[1] << 16;
  }
  emu::warp_barrier();
}
static inline void ldmatrix(uint32_t (&r)[4], uint32_t addr) { ldmatrix_any(r, addr, false); }
static inline void ldmatrix_trans(uint32_t (&r)[4], uint32_t addr) { ldmatrix_any(r, addr, true); }
static inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emu::Lane& me = emu::lanes[lane_id()];
  for (int i = 0; i < 4; i++) me.w[i] = a[i];
  me.w[4] = b0, me.w[5] = b1;
  emu::warp_barrier();
  auto half = [](uint32_t w, int i) { return __uint_as_float(i ? w & 0xffff0000u : w << 16); };
  int g = lane_id() / 4, t = lane_id() % 4;
  for (int e = 0; e < 4; e++) {
    int row = e / 2, col = 2 * t + e % 2;
    float s = 0;
    for (int k = 0; k < 16; k++) {
      float x = half(emu::lanes[g * 4 + k % 8 / 2].w[row + k / 8 * 2], k % 2);
      float y = half(emu::lanes[col * 4 + k % 8 / 2].w[4 + k / 8], k % 2);
      s += x * y;
    }
    c[e] += s;
  }
  emu::warp_barrier();
}
template <class T>
static inline T exchange(T x, int from) {
  memcpy(&emu::lanes[lane_id()].d, &x, sizeof x);
  emu::warp_barrier();
  T y;
  memcpy(&y, &emu::lanes[from % 32].d, sizeof y);
  emu::warp_barrier();
  return y;
}
static inline float shuffle_xor(float x, int m) { return exchange(x, lane_id() ^ m); }
static inline double shuffle_xor(double x, int m) { return exchange(x, lane_id() ^ m); }
static inline int shuffle_xor(int x, int m) { return exchange(x, lane_id() ^ m); }
static inline uint32_t shuffle(uint32_t x, int lane) { return exchange(x, lane); }
static inline bool warp_any(bool x) {
  emu::lanes[lane_id()].w[7] = x;
  emu::warp_barrier();
  bool y = false;
  for (int i = 0; i < 32; i++) y |= emu::lanes[i].w[7] != 0;
  emu::warp_barrier();
  return y;
}
#define HOPPER
// Products happen when they are issued: a missing fence or wait is not seen.
static inline void async_proxy_fence() {}
static inline void wgmma_fence() {}
static inline void wgmma_commit() {}
template <int N>
static inline void wgmma_wait() {}
template <int TRANS, int N>
static inline void wgmma_registers(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b, int add) {
  for (int i = 0; i < 4; i++) emu::lanes[lane_id()].w[i] = a[i];
  emu::warp_barrier();
  auto half = [](uint32_t w, int i) { return __uint_as_float(i ? w & 0xffff0000u : w << 16); };
  const uint32_t start = (b & 0x3fff) << 4, sbo = (b >> 32 & 0x3fff) << 4;
  if (b >> 62 != 1) { fprintf(stderr, "wgmma: not the 128-byte swizzle\n"); abort(); }
  int g = lane_id() / 4, t = lane_id() % 4;
  for (int n = 0; n < N / 8; n++)
    for (int e = 0; e < 4; e++) {
      int row = e / 2, col = n * 8 + 2 * t + e % 2;
      float s = 0;
      for (int k = 0; k < 16; k++) {
        float x = half(emu::lanes[g * 4 + k % 8 / 2].w[row + k / 8 * 2], k % 2);
        uint32_t at = TRANS ? start + k / 8 * sbo + k % 8 * 128 + col * 2 : start + col / 8 * sbo + col % 8 * 128 + k * 2;
        at ^= (at >> 7 & 7) << 4;
        s += x * __uint_as_float((uint32_t)*(uint16_t*)(emu::dynamic + at) << 16);
      }
      d[n][e] = add ? d[n][e] + s : s;
    }
  emu::warp_barrier();
}
template <int TRANS, int N>
static inline void wgmma_shared(float (&d)[8][4], uint64_t a, uint64_t b, int add) {
  const uint32_t start = (a & 0x3fff) << 4, sbo = (a >> 32 & 0x3fff) << 4;
  uint32_t r[4];
  int g = lane_id() / 4, t = lane_id() % 4, warp = threadIdx.x / 32 % 4;
  for (int i = 0; i < 4; i++) {
    int row = warp * 16 + g + i % 2 * 8, k = 2 * t + i / 2 * 8;
    uint32_t at = start + row / 8 * sbo + row % 8 * 128 + k * 2;
    r[i] = *(uint32_t*)(emu::dynamic + (at ^ (at >> 7 & 7) << 4));
  }
  wgmma_registers<TRANS, N>(d, r, b, add);
}
static inline void wgmma_done(float (&)[8][4]) {}
static inline int dot4(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += (int)(int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
  return c;
}
