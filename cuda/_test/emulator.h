// Runs kernels on the CPU, to test their indexing, shared memory and barriers
// where there is no GPU: include it before a .cu file and compile as C++. Every
// thread of a block is a fiber (emulator.cc); barriers, shuffles and the
// instructions of warps are meeting points. Fibers go on in an order that changes
// from round to round, so that a missing barrier shows; shared memory begins as
// NaN, and asynchronous copies happen as late as the program allows. PTX and the
// ordering of memory are not checked. x86-64, GNU.
//
// It takes the place of the primitives in device.cuh, wgmma.cuh and gemm90.cuh.
#pragma once
#define EMULATED
#define HOPPER
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <functional>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static
#define __align__(n)
#define DEVICE inline
#define SHARED static
#define KERNEL(...) extern "C" void
#define DYNAMIC_SHARED(name) unsigned char* name = emu::shared
#define SWIZZLED_SHARED(name) unsigned char* name = emu::shared

struct uint3 { unsigned x, y, z; };
struct uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static inline uint2 make_uint2(unsigned a, unsigned b) { return {a, b}; }
static inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }
static inline float2 make_float2(float a, float b) { return {a, b}; }
static inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }

extern uint3 threadIdx, blockIdx, gridDim, blockDim;

namespace emu {
extern unsigned char* shared; // of the running block, at a multiple of 1024
unsigned char* shared_of(unsigned block); // of one that runs together with it

// Those who meet: a warp, the first 256 threads, a block, all blocks.
enum Kind { WARP, COMPUTING, BLOCK, GRID };
// Waits for all that still run; the last to come calls act with what each brought,
// by its number in the meeting.
void meet(Kind kind, void* brought, void (*act)(void** all, void* context), void* context);
inline void grid_barrier() { meet(GRID, nullptr, nullptr, nullptr); } // of blocks that run together
// Lets the others run, for those who wait for memory to change.
void yield();
void changed(); // says that it did, so that waiting is no deadlock

struct Copy {
  uint32_t to;
  const void* from;
  int bytes, size; // the rest of size becomes 0
};
void copy(Copy c);
void commit();
void wait(int groups);

// Runs f for every thread; together: all blocks at the same time.
void run(uint3 grid, int threads, size_t shared, bool together, const std::function<void()>& f);

// The first 1024 addresses are nobody's.
inline unsigned char* at(uint32_t address) { return shared + (address - 1024); }
template <class F>
void warp(void* brought, F act) {
  meet(WARP, brought, [](void** all, void* f) { (*(F*)f)(all); }, &act);
}
[[noreturn]] inline void fail(const char* what) {
  fprintf(stderr, "emulator: %s\n", what);
  abort();
}
} // namespace emu

// ---- the language --------------------------------------------------------

static inline void __syncthreads() { emu::meet(emu::BLOCK, nullptr, nullptr, nullptr); }
static inline void __syncwarp() { emu::meet(emu::WARP, nullptr, nullptr, nullptr); }
static inline void compiler_fence() {}
static inline void wait_for_others() {}
static inline void let_others_start() {}
static inline void after_others() {}
static inline float __uint_as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t __float_as_uint(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
#define __logf logf
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
template <class T>
static inline T atomicAdd(T* p, T v) { T old = *p; *p += v; return old; }
template <class T>
static inline T __ldcs(const T* p) { return *p; }
template <class T>
static inline void __stcs(T* p, T x) { *p = x; }

// Every lane gets what lane from of it brought.
template <class T>
static inline T emu_exchange(T v, int from) {
  struct Lane { T in, out; int from; } me = {v, v, from};
  emu::warp(&me, [](void** all) {
    for (int i = 0; i < 32; i++)
      if (all[i] && all[((Lane*)all[i])->from]) ((Lane*)all[i])->out = ((Lane*)all[((Lane*)all[i])->from])->in;
  });
  return me.out;
}
static inline int emu_lane() { return threadIdx.x % 32; }
template <class T>
static inline T __shfl_sync(uint32_t, T v, int lane) { return emu_exchange(v, lane % 32); }
template <class T>
static inline T __shfl_xor_sync(uint32_t, T v, int mask) { return emu_exchange(v, emu_lane() ^ mask); }
static inline bool __any_sync(uint32_t, bool x) {
  struct Lane { bool in, out; } me = {x, x};
  emu::warp(&me, [](void** all) {
    bool any = false;
    for (int i = 0; i < 32; i++) any |= all[i] && ((Lane*)all[i])->in;
    for (int i = 0; i < 32; i++)
      if (all[i]) ((Lane*)all[i])->out = any;
  });
  return me.out;
}
static inline float shuffle_xor(float x, int m) { return __shfl_xor_sync(~0u, x, m); }
static inline double shuffle_xor(double x, int m) { return __shfl_xor_sync(~0u, x, m); }
static inline int shuffle_xor(int x, int m) { return __shfl_xor_sync(~0u, x, m); }
static inline uint32_t shuffle(uint32_t x, int lane) { return __shfl_sync(~0u, x, lane); }
static inline bool warp_any(bool x) { return __any_sync(~0u, x); }
static inline int dot4(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += (int)(int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
  return c;
}

// ---- bf16 ----------------------------------------------------------------

static inline uint32_t emu_bf16(float f) {
  uint32_t u = __float_as_uint(f);
  return f != f ? 0x7fc0 : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
static inline float emu_half(uint32_t pair, int i) { return __uint_as_float(i ? pair & 0xffff0000u : pair << 16); }
static inline uint32_t pack_bf16(float lo, float hi) { return emu_bf16(lo) | emu_bf16(hi) << 16; }
static inline float exp2_fast(float x) { return exp2f(x); }

// ---- copies --------------------------------------------------------------

static inline uint32_t shared_address(const void* p) { return (uint32_t)((const unsigned char*)p - emu::shared) + 1024; }
static inline void cp_async16(uint32_t dst, const void* src, int bytes) {
  if (dst % 16 || (bytes && (uintptr_t)src % 16)) emu::fail("a 16-byte copy is not aligned");
  emu::copy({dst, src, bytes, 16});
}
static inline void cp_async4(uint32_t dst, const void* src, int bytes) {
  if (dst % 4 || (bytes && (uintptr_t)src % 4)) emu::fail("a 4-byte copy is not aligned");
  emu::copy({dst, src, bytes, 4});
}
static inline void cp_async_commit() { emu::commit(); }
template <int N>
static inline void cp_async_wait() { emu::wait(N); }
static inline void store_shared16(uint32_t dst, uint4 v) { memcpy(emu::at(dst), &v, 16); }

// ---- tensor cores, sm_80 -------------------------------------------------

static inline void emu_ldmatrix(uint32_t* r, uint32_t address, bool trans) {
  if (address % 16) emu::fail("ldmatrix is not aligned");
  struct Lane { uint32_t* r; uint32_t address; } me = {r, address};
  emu::warp(&me, [trans](void** all) {
    for (int q = 0; q < 4; q++) {
      uint16_t m[8][8];
      for (int i = 0; i < 8; i++) memcpy(m[i], emu::at(((Lane*)all[8 * q + i])->address), 16);
      for (int l = 0; l < 32; l++) {
        int row = l / 4, col = 2 * (l % 4);
        ((Lane*)all[l])->r[q] = trans ? m[col][row] | m[col + 1][row] << 16 : m[row][col] | m[row][col + 1] << 16;
      }
    }
  });
}
static inline void ldmatrix(uint32_t r[4], uint32_t address) { emu_ldmatrix(r, address, false); }
static inline void ldmatrix_trans(uint32_t r[4], uint32_t address) { emu_ldmatrix(r, address, true); }

// What the lanes of a warp hold of a[16,16].
static inline void emu_left(float (&m)[16][16], const uint32_t* const (&a)[32]) {
  for (int l = 0; l < 32; l++)
    for (int e = 0; e < 2; e++) {
      int g = l / 4, t = 2 * (l % 4) + e;
      m[g][t] = emu_half(a[l][0], e), m[g + 8][t] = emu_half(a[l][1], e);
      m[g][t + 8] = emu_half(a[l][2], e), m[g + 8][t + 8] = emu_half(a[l][3], e);
    }
}
static inline void mma_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  struct Lane { float* c; const uint32_t* a; uint32_t b[2]; } me = {c, a, {b0, b1}};
  emu::warp(&me, [](void** all) {
    float left[16][16], right[16][8];
    const uint32_t* a[32];
    for (int l = 0; l < 32; l++) {
      Lane* x = (Lane*)all[l];
      a[l] = x->a;
      for (int k = 0; k < 4; k++) right[2 * (l % 4) + k % 2 + k / 2 * 8][l / 4] = emu_half(x->b[k / 2], k % 2);
    }
    emu_left(left, a);
    for (int l = 0; l < 32; l++)
      for (int e = 0; e < 4; e++) {
        float sum = 0;
        for (int k = 0; k < 16; k++) sum += left[l / 4 + e / 2 * 8][k] * right[k][2 * (l % 4) + e % 2];
        ((Lane*)all[l])->c[e] += sum;
      }
  });
}

// ---- sm_90a --------------------------------------------------------------

struct EmuMap { const uint16_t* p; int64_t dim[3], stride[3]; }; // elements
struct EmuBarrier { int16_t expected, left; int32_t pending : 24; uint32_t phase : 8; };
static_assert(sizeof(EmuBarrier) == 8, "a barrier has 8 bytes");

static inline EmuBarrier* emu_barrier(uint32_t bar) { return (EmuBarrier*)emu::at(bar); }
static inline void emu_arrived(EmuBarrier* b) {
  emu::changed();
  if (b->left == 0 && b->pending == 0) b->left = b->expected, b->phase ^= 1;
  if (b->left < 0) emu::fail("too many arrivals");
}
static inline void mbarrier_init(uint32_t bar, int count) { *emu_barrier(bar) = {(int16_t)count, (int16_t)count, 0, 0}; }
static inline void mbarrier_fence() {}
static inline void mbarrier_arrive(uint32_t bar) { emu_barrier(bar)->left--, emu_arrived(emu_barrier(bar)); }
static inline void mbarrier_expect(uint32_t bar, int bytes) {
  emu_barrier(bar)->pending += bytes, emu_barrier(bar)->left--, emu_arrived(emu_barrier(bar));
}
static inline void mbarrier_wait(uint32_t bar, uint32_t parity) {
  while ((emu_barrier(bar)->phase & 1) == parity) emu::yield();
}
static inline void computing_barrier() { emu::meet(emu::COMPUTING, nullptr, nullptr, nullptr); }

struct TensorMap;
static inline void tma_prefetch(const TensorMap*) {}
static inline void tma_load(uint32_t dst, const TensorMap* map, uint32_t bar, int c, int z, int r) {
  const EmuMap* m = (const EmuMap*)map;
  if (dst % 1024) emu::fail("a swizzled box is not at a multiple of 1024");
  for (int i = 0; i < 64; i++)
    for (int j = 0; j < 64; j++) {
      uint16_t v = 0;
      int64_t x = c + j, y = r + i;
      if (x < m->dim[0] && z < m->dim[1] && y < m->dim[2]) v = m->p[x + z * m->stride[1] + y * m->stride[2]];
      memcpy(emu::at(dst + i * 128 + ((j / 8 ^ i % 8) << 4) + 2 * (j % 8)), &v, 2);
    }
  emu_barrier(bar)->pending -= 8192;
  emu_arrived(emu_barrier(bar));
}

// A box of 16 rows on its way out is read at once, so a missing wait is not seen.
static inline void tma_store(const TensorMap* map, uint32_t src, int c, int z, int r) {
  const EmuMap* m = (const EmuMap*)map;
  if (src % 1024) emu::fail("a swizzled box is not at a multiple of 1024");
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 64; j++) {
      int64_t x = c + j, y = r + i;
      if (x < m->dim[0] && z < m->dim[1] && y < m->dim[2])
        memcpy((void*)(m->p + x + z * m->stride[1] + y * m->stride[2]), emu::at(src + i * 128 + ((j / 8 ^ i % 8) << 4) + 2 * (j % 8)), 2);
    }
}
static inline void tma_commit() {}
template <int N>
static inline void tma_wait_read() {}
static inline void tma_wait() {}
static inline void stmatrix(uint32_t address, const uint32_t (&r)[4]) {
  if (address % 16) emu::fail("stmatrix is not aligned");
  struct Lane { const uint32_t* r; uint32_t address; } me = {r, address};
  emu::warp(&me, [](void** all) {
    for (int q = 0; q < 4; q++)
      for (int l = 0; l < 32; l++) memcpy(emu::at(((Lane*)all[8 * q + l / 4])->address + 4 * (l % 4)), &((Lane*)all[l])->r[q], 4);
  });
}
template <int N>
static inline void registers_up() {}
template <int N>
static inline void registers_down() {}

// Products happen when they are issued, warp by warp: a missing fence or wait is
// not seen.
static inline void async_fence() {}
static inline void tma_fence() {}
static inline void wait_count(const int* counter, int least) {
  while (*counter < least) emu::yield();
}
static inline void count_up(int* counter) { ++*counter, emu::changed(); }
static inline void wgmma_fence() {}
static inline void wgmma_commit() {}
template <int N>
static inline void wgmma_wait() {}
template <int NB>
static inline void wgmma_done(float (&)[NB][4]) {}

// Element (mn, k) of the operand of a descriptor with the 128-byte swizzle, which
// acts on bits of the address. trans: its rows are those of the contraction.
static inline float emu_operand(uint64_t desc, int mn, int k, bool trans) {
  if (desc >> 62 != 1) emu::fail("a descriptor without the 128-byte swizzle");
  const uint32_t start = (desc & 0x3fff) << 4, lbo = (desc >> 16 & 0x3fff) << 4, sbo = (desc >> 32 & 0x3fff) << 4;
  uint32_t at = trans ? start + mn / 64 * lbo + k / 8 * sbo + k % 8 * 128 + mn % 64 * 2 : start + mn / 8 * sbo + mn % 8 * 128 + k * 2;
  at ^= (at >> 7 & 7) << 4;
  uint16_t v;
  memcpy(&v, emu::at(at), 2);
  return emu_half(v, 0);
}
// d[64, N] (+)= a·b of a warp's 16 rows; a in registers, or if NULL in shared
// memory.
static inline void emu_wgmma(float (*d)[4], int N, const uint32_t* registers, uint64_t a, bool transA, uint64_t b, bool transB, int add) {
  struct Lane { float (*d)[4]; const uint32_t* a; } me = {d, registers};
  const int first = threadIdx.x / 32 % 4 * 16;
  emu::warp(&me, [=](void** all) {
    float left[16][16], right[16][256];
    if (registers) {
      const uint32_t* lanes[32];
      for (int l = 0; l < 32; l++) lanes[l] = ((Lane*)all[l])->a;
      emu_left(left, lanes);
    }
    for (int k = 0; k < 16; k++) {
      for (int r = 0; r < 16 && !registers; r++) left[r][k] = emu_operand(a, first + r, k, transA);
      for (int c = 0; c < N; c++) right[k][c] = emu_operand(b, c, k, transB);
    }
    float out[16][256];
    for (int r = 0; r < 16; r++) {
      for (int c = 0; c < N; c++) out[r][c] = 0;
      for (int k = 0; k < 16; k++)
        for (int c = 0; c < N; c++) out[r][c] += left[r][k] * right[k][c];
    }
    for (int l = 0; l < 32; l++)
      for (int n = 0; n < N / 8; n++)
        for (int e = 0; e < 4; e++) {
          float &to = ((Lane*)all[l])->d[n][e], sum = out[l / 4 + e / 2 * 8][8 * n + 2 * (l % 4) + e % 2];
          to = add ? to + sum : sum;
        }
  });
}
template <int TA, int TB, int NB>
static inline void wgmma(float (&d)[NB][4], uint64_t a, uint64_t b, int add) { emu_wgmma(d, 8 * NB, nullptr, a, TA, b, TB, add); }
template <int TB, int NB>
static inline void wgmma_registers(float (&d)[NB][4], const uint32_t (&a)[4], uint64_t b, int add) { emu_wgmma(d, 8 * NB, a, 0, false, b, TB, add); }
