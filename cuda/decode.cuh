// What decode.cu and prefill.cu share: the steps of int8 inference (SPEC §7) in the order of kernel/exact.go. No product
// is fused with an addition there, so that given the same weights the results
// are those of the CPU, bit for bit. Models of float numerics take the same way
// with fused products; their sums differ from the CPU's in the last digits.
#pragma once
#include "decode_types.cuh"
#include "device.cuh"

namespace {

DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
DEVICE float add(float a, float b) { return __fadd_rn(a, b); }

#ifndef EMULATED
DEVICE float load_fresh(const float* p) { return __ldcg(p); } // what another block has written
DEVICE uint32_t load_early(const uint32_t* p) { // now, not where the value is needed
  uint32_t x;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(x) : "l"(p));
  return x;
}
DEVICE float load_early(const float* p) { return __uint_as_float(load_early((const uint32_t*)p)); }
DEVICE int4 load_early(const int4* p) {
  int4 x;
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(p));
  return x;
}
DEVICE int warp_add(int x) { return __reduce_add_sync(0xffffffffu, x); }
DEVICE float warp_most(float x) { return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(x))); } // x ≥ 0
#else
DEVICE float load_fresh(const float* p) { return *p; }
DEVICE uint32_t load_early(const uint32_t* p) { return *p; }
DEVICE float load_early(const float* p) { return *p; }
DEVICE int4 load_early(const int4* p) { return *p; }
DEVICE int warp_add(int x) { return warp_sum(x); }
DEVICE float warp_most(float x) { return warp_max(x); }
#endif

// kernel.exp32.
DEVICE float pow2(int n) { return __uint_as_float((uint32_t)(n + 127) << 23); }
DEVICE float exp_exact(float x) {
  if (x < -87.f) return 0;
  if (x > 89.f) x = 89.f;
  if (x != x) return x;
  const float n = rintf(mul(x, 1.44269504088896341f));
  float r = add(x, -mul(n, 0.693359375f));
  r = add(r, -mul(n, -2.12194440e-4f));
  float p = 1.9875691500e-4f;
  p = add(mul(p, r), 1.3981999507e-3f);
  p = add(mul(p, r), 8.3334519073e-3f);
  p = add(mul(p, r), 4.1665795894e-2f);
  p = add(mul(p, r), 1.6666665459e-1f);
  p = add(mul(p, r), 5.0000001201e-1f);
  const float y = add(add(mul(mul(p, r), r), r), 1);
  const int i = (int)n;
  return mul(mul(y, pow2(i >> 1)), pow2(i - (i >> 1)));
}
DEVICE float silu(float g) { return g / add(1, exp_exact(-g)); }

// The sixteen accumulators' fold; lanes 0 … 15 and 16 … 31 fold apart.
DEVICE float fold16(float s) {
#pragma unroll
  for (int m = 8; m; m >>= 1) s = add(s, shuffle_xor(s, m));
  return s;
}

// Most of a block's values ≥ 0; every thread gets it. scratch holds 32 and may
// be used again after the next barrier.
DEVICE float block_most(float x, float* scratch) {
  x = warp_most(x);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = scratch[threadIdx.x % 32 < blockDim.x / 32 ? threadIdx.x % 32 : 0];
  return warp_most(x);
}

// 1/√(mean(z²) + eps) of z [d] in shared memory; scratch holds one value. Begins
// and ends with a barrier.
DEVICE float norm_factor(const float* z, int d, float eps, float* scratch) {
  __syncthreads();
  if (threadIdx.x < 32) {
    float s = 0;
#pragma unroll 8
    for (int i = threadIdx.x % 16; i < d; i += 16) s = add(s, mul(z[i], z[i]));
    s = fold16(s);
    if (threadIdx.x == 0) *scratch = 1 / sqrtf(add(s / (float)d, eps));
  }
  __syncthreads();
  return *scratch;
}

// Where column c of an input of parts of K stands when each is padded to whole
// words.
DEVICE int padded_place(int c, int K) { return K % 16 == 0 ? c : c / K * ((K + 15) / 16 * 16) + c % K; }
DEVICE int padded_width(int parts, int K) { return parts * ((K + 15) / 16 * 16); }

// kernel.ExactQuantize8 of z [d], with most = max|z|, into parts of K, of which
// the padding stays as it is. Returns the scale. Ends with a barrier.
DEVICE float quantize(int8_t* q, const float* z, int d, int K, float most) {
  const bool none = most < 4e-37f;
  const float inv = none ? 0 : 127 / most;
  for (int i = threadIdx.x; i < d; i += blockDim.x)
    q[padded_place(i, K)] = none ? 0 : (int8_t)(int)rintf(fminf(fmaxf(mul(z[i], inv), -127.f), 127.f));
  __syncthreads();
  return none ? 0 : most / 127;
}
// The same into floats: as they are, or for fake8 (kernel.FakeQuant8) rounded.
DEVICE float quantize(float* q, const float* z, int d, int K, float most, bool fake8) {
  const bool none = most < 4e-37f;
  const float inv = none ? 0 : 127 / most, scale = none ? 0 : most / 127;
  for (int i = threadIdx.x; i < d; i += blockDim.x)
    q[padded_place(i, K)] = fake8 ? mul(scale, rintf(fminf(fmaxf(mul(z[i], inv), -127.f), 127.f))) : z[i];
  __syncthreads();
  return 1;
}

// Sixteen columns of weights, by what they are stored as.
struct Ternary {
  typedef uint32_t Word;
  // Four columns 4e … 4e + 3, a byte each.
  static DEVICE int bytes(uint32_t u, int e) { return (int)((((u >> (2 * e)) & 0x03030303u) | 0x80808080u) - 0x01010101u ^ 0x80808080u); }
  // 2²³ + w + 1 is exact.
  static DEVICE float value(uint32_t u, int e, int b) { return __uint_as_float((u >> (8 * b + 2 * e) & 3u) | 0x4b000000u) - 8388609.f; }
  static DEVICE uint32_t early(const uint32_t* p) { return load_early(p); }
};
struct Bytes {
  typedef int4 Word;
  static DEVICE int bytes(const int4& u, int e) { return e == 0 ? u.x : e == 1 ? u.y : e == 2 ? u.z : u.w; }
  static DEVICE int4 early(const int4* p) { return load_early(p); }
};
struct alignas(16) Float16 {
  float x[16];
};
struct Floats {
  typedef Float16 Word;
  static DEVICE float value(const Float16& u, int e, int b) { return u.x[4 * e + b]; }
  static DEVICE Float16 early(const Float16* p) { return *p; }
};

template <class W, int n>
DEVICE void accumulate(int (&acc)[n], const typename W::Word& u, const int8_t* x, int words, int i) {
  int v[4];
#pragma unroll
  for (int e = 0; e < 4; e++) v[e] = W::bytes(u, e);
#pragma unroll
  for (int j = 0; j < n; j++) {
    const int4 a = *(const int4*)(x + (j * words + i) * 16);
    acc[j] = dot4(v[0], a.x, dot4(v[1], a.y, dot4(v[2], a.z, dot4(v[3], a.w, acc[j]))));
  }
}
template <class W, int n>
DEVICE void accumulate(float (&acc)[n], const typename W::Word& u, const float* x, int words, int i) {
#pragma unroll
  for (int e = 0; e < 4; e++) {
    const float v0 = W::value(u, e, 0), v1 = W::value(u, e, 1), v2 = W::value(u, e, 2), v3 = W::value(u, e, 3);
#pragma unroll
    for (int j = 0; j < n; j++) {
      const float4 a = *(const float4*)(x + (j * words + i) * 16 + 4 * e);
      acc[j] += v0 * a.x + v1 * a.y + v2 * a.z + v3 * a.w;
    }
  }
}

// What a part's products add up in.
DEVICE int sum_of(const int8_t*) { return 0; }
DEVICE float sum_of(const float*) { return 0; }

// Lane l has, for block k = l/(32/n), the sums acc[j] of its columns with part j.
// Returns to each of them output k: Σ_j s[k][j]·x_j·W[k xor j]. Lane k's acc[j]
// is for output k xor j, so that what two lanes exchange has the same index in
// both.
template <int n, class T>
DEVICE T collect(T (&acc)[n], uint32_t minus) {
  constexpr int each = 32 / n;
#pragma unroll
  for (int j = 0; j < n; j++)
    if (minus >> j & 1) acc[j] = -acc[j];
#pragma unroll
  for (int t = n / 2; t; t >>= 1)
#pragma unroll
    for (int j = 0; j < t; j++) acc[j] += shuffle_xor(acc[j + t], t * each);
#pragma unroll
  for (int m = each / 2; m; m >>= 1) acc[0] += shuffle_xor(acc[0], m);
  return acc[0];
}

// One row of weights in a warp: the words of the row's first steps are asked for
// before the input is there.
template <class W, int n>
struct Row {
  static constexpr int EARLY = sizeof(typename W::Word) == 4 ? 3 : 1, each = 32 / n;
  const typename W::Word* p;
  typename W::Word early[EARLY];
  int words, first;
  DEVICE void open(const Linear& l, int r) {
    const int lane = threadIdx.x % 32;
    words = (l.K + 15) / 16, first = lane % each;
    p = (const typename W::Word*)l.w + ((size_t)r * n + lane / each) * words;
#pragma unroll
    for (int s = 0; s < EARLY; s++)
      if (first + s * each < words) early[s] = W::early(p + first + s * each);
  }
  // The product with x, n parts of words·16 values: output lane/each, in each lane.
  template <class X>
  DEVICE auto dot(const X* x, uint32_t minus) {
    decltype(sum_of(x)) acc[n];
#pragma unroll
    for (int j = 0; j < n; j++) acc[j] = 0;
#pragma unroll
    for (int s = 0; s < EARLY; s++)
      if (first + s * each < words) accumulate<W, n>(acc, early[s], x, words, first + s * each);
    for (int i = first + EARLY * each; i < words; i += each) accumulate<W, n>(acc, p[i], x, words, i);
    return collect<n>(acc, minus);
  }
};

// Value c of row id of a table.
DEVICE float table_value(const Table& t, size_t id, int c, int d) {
  if (t.bits == 32) return ((const float*)t.data)[id * d + c];
  int q;
  if (t.bits == 8) {
    q = ((const int8_t*)t.data)[id * d + c];
  } else {
    const size_t g = id * ((d + 31) / 32) + c / 32;
    const int j = c % 32;
    q = ((const uint8_t*)t.data)[16 * g + j % 16] >> (j / 16 * 4) & 15;
    if (t.bits == 6) q |= (t.high[8 * g + j % 8] >> (j / 8 * 2) & 3) << 4;
    q = t.factor[g] * (q - (1 << ((int)t.bits - 1)));
  }
  return mul(t.scale[id], (float)q);
}

} // namespace
