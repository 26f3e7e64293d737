// What decode.cu and prefill.cu share: the steps of int8 inference (SPEC §7) in
// the order of kernel/exact.go. No product is fused with an addition there, so
// that given the same weights the results are those of the CPU, bit for bit.
// Models of float numerics take the same way with fused products in the linear
// layers, whose sums differ from the CPU's in the last digits.
#pragma once
#include "decode_types.cuh"
#include "device.cuh"

namespace {

DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
DEVICE float add(float a, float b) { return __fadd_rn(a, b); }

#ifndef EMULATED
// The place of a thread and of a block, asked for anew in every step: what follows
// from it would else be kept in registers through all steps, of which there are too
// few.
DEVICE int thread() {
  int i;
  asm volatile("mov.u32 %0, %tid.x;" : "=r"(i));
  return i;
}
DEVICE int block() {
  int i;
  asm volatile("mov.u32 %0, %ctaid.x;" : "=r"(i));
  return i;
}
#define PARAM __grid_constant__ // a struct that stays where parameters are
DEVICE float load_fresh(const float* p) { return __ldcg(p); } // what another block has written
DEVICE float4 load_fresh(const float4* p) { return __ldcg(p); }
DEVICE int4 load_fresh(const int4* p) { return __ldcg(p); }
DEVICE int load_fresh(const int* p) { return __ldcg(p); }
DEVICE int8_t load_fresh(const int8_t* p) { return (int8_t)__ldcg((const signed char*)p); }
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
DEVICE int thread() { return (int)threadIdx.x; }
DEVICE int block() { return (int)blockIdx.x; }
#define PARAM
template <class T>
DEVICE T load_fresh(const T* p) { return *p; }
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
  if (thread() % 32 == 0) scratch[thread() / 32] = x;
  __syncthreads();
  x = scratch[thread() % 32 < blockDim.x / 32 ? thread() % 32 : 0];
  return warp_most(x);
}

// 1/√(mean(z²) + eps) of z [d], of whose element i a thread with i = thread mod
// threads has the square: place puts it where the sixteen sums find theirs in
// order, squares [16][d/16 + 4]; factor begins and ends with a barrier. scratch
// holds one value.
DEVICE int square_pitch(int d) { return (d + 63) / 64 * 4 + 4; }
DEVICE void square_place(float* squares, int d, int i, float z) { squares[i % 16 * square_pitch(d) + i / 16] = mul(z, z); }
DEVICE float norm_of(const float* squares, int d, float eps) { // for a warp
  const float* own = squares + thread() % 16 * square_pitch(d);
  const int count = (d - thread() % 16 + 15) / 16;
  float s = 0;
  int i = 0;
#pragma unroll 1
  for (; i + 16 <= count; i += 16) {
    float4 x[4];
#pragma unroll
    for (int u = 0; u < 4; u++) x[u] = *(const float4*)(own + i + 4 * u);
#pragma unroll
    for (int u = 0; u < 4; u++) s = add(add(add(add(s, x[u].x), x[u].y), x[u].z), x[u].w);
  }
#pragma unroll 1
  for (; i < count; i++) s = add(s, own[i]);
  s = fold16(s);
  // By a power of two a product is as exact, and sooner there.
  const float mean = d & (d - 1) ? s / (float)d : mul(s, __uint_as_float(0x7f000000u - __float_as_uint((float)d)));
  return 1 / sqrtf(add(mean, eps));
}
DEVICE float norm_factor(const float* squares, int d, float eps, float* scratch) {
  __syncthreads();
  if (thread() < 32) {
    const float r = norm_of(squares, d, eps);
    if (thread() == 0) *scratch = r;
  }
  __syncthreads();
  return *scratch;
}

// Where column c of an input of parts of K stands when each is padded to whole
// words.
DEVICE int padded_place(int c, int K) { return K % 16 == 0 ? c : c / K * ((K + 15) / 16 * 16) + c % K; }
DEVICE int padded_width(int parts, int K) { return parts * ((K + 15) / 16 * 16); }

// kernel.ExactQuantize8 of one value, and its scale, with most = max|x|.
DEVICE int8_t rounded8(float x, float most) {
  return most < 4e-37f ? 0 : (int8_t)(int)rintf(fminf(fmaxf(mul(x, 127 / most), -127.f), 127.f));
}
DEVICE float scale8(float most) { return most < 4e-37f ? 0 : most / 127; }

// kernel.ExactQuantize8 of z [d], with most = max|z|, into parts of K, of which
// the padding stays as it is. Returns the scale. Ends with a barrier.
DEVICE float quantize(int8_t* q, const float* z, int d, int K, float most, bool) {
  const bool none = most < 4e-37f;
  const float inv = none ? 0 : 127 / most;
#pragma unroll 1
  for (int i = thread(); i < d; i += blockDim.x)
    q[padded_place(i, K)] = none ? 0 : (int8_t)(int)rintf(fminf(fmaxf(mul(z[i], inv), -127.f), 127.f));
  __syncthreads();
  return none ? 0 : most / 127;
}
// The same for float numerics: values as they are, or for fake8 rounded
// (kernel.FakeQuant8).
DEVICE float quantize(float* q, const float* z, int d, int K, float most, bool fake8) {
  const bool none = most < 4e-37f;
  const float inv = none ? 0 : 127 / most, scale = none ? 0 : most / 127;
#pragma unroll 1
  for (int i = thread(); i < d; i += blockDim.x)
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

// What products of inputs X add up in.
template <class X>
struct SumOf;
template <>
struct SumOf<int8_t> {
  typedef int Type;
};
template <>
struct SumOf<float> {
  typedef float Type;
};

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
  float gain;
  DEVICE void open(const Linear& l, int r) {
    const int lane = thread() % 32;
    gain = l.gain ? load_early(l.gain + r) : 1;
    words = (l.K + 15) / 16, first = lane % each;
    p = (const typename W::Word*)l.w + ((size_t)r * n + lane / each) * words;
#pragma unroll
    for (int s = 0; s < EARLY; s++) early[s] = first + s * each < words ? W::early(p + first + s * each) : typename W::Word(); // not what was there before
  }
  // The products with tokens rows of x, stride apart, of n parts of words·16
  // values: output lane/each, in each lane. Rows behind count are left out.
  template <int tokens, class X, class T>
  DEVICE void dot(T (&y)[tokens], const X* x, size_t stride, int count, uint32_t minus) {
    T acc[tokens][n];
#pragma unroll
    for (int t = 0; t < tokens; t++)
#pragma unroll
      for (int j = 0; j < n; j++) acc[t][j] = 0;
    auto step = [&](const typename W::Word& u, int i) {
#pragma unroll
      for (int t = 0; t < tokens; t++)
        if (tokens == 1 || t < count) accumulate<W, n>(acc[t], u, x + t * stride, words, i);
    };
#pragma unroll
    for (int s = 0; s < EARLY; s++)
      if (first + s * each < words) step(early[s], first + s * each);
#pragma unroll 1
    for (int i = first + EARLY * each; i < words; i += each) step(p[i], i);
#pragma unroll
    for (int t = 0; t < tokens; t++) y[t] = collect<n>(acc[t], minus);
  }
};

// A sum in its scale: int8 sums are exact.
DEVICE float scaled(int sum, float scale, float gain) { return mul((float)sum, mul(scale, gain)); }
DEVICE float scaled(float sum, float, float gain) { return sum * gain; }

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

// Attention: a block of kThreads threads a head, or a part of one, and token.
constexpr int kThreads = 512, kWarps = kThreads / 32;
DEVICE int whole64(int n) { return (n + 63) / 64 * 64; }

// What the last block positions are for a token.
struct Span {
  int n, start; // how many, and the slot of the first
};
DEVICE Span span(const Heads& w, int pos) {
  const int n = min(pos + 1, w.block);
  return {n, (pos - n + 1) % w.ring};
}

// The rotation of pair i by rot (cosines, then sines, [half] each).
DEVICE void rotate_pair(float* y, float a, float b, const float* rot, int half, int i) {
  const float c = rot[i], s = rot[half + i];
  y[2 * i] = add(mul(a, c), -mul(b, s)), y[2 * i + 1] = add(mul(b, c), mul(a, s));
}

// A key-value head's part of a cache.
struct CacheHead {
  void *keys, *values;
  float *key_scale, *value_scale;
};
DEVICE CacheHead cache_head(const Cache& c, const Heads& w, int g) {
  const size_t at = (size_t)g * w.ring, hd16 = (w.hd + 15) / 16 * 16;
  if (c.key_scale) return {(int8_t*)c.keys + at * hd16, (int8_t*)c.values + at * hd16, c.key_scale + at, c.value_scale + at};
  return {(float*)c.keys + at * hd16, (float*)c.values + at * hd16, nullptr, nullptr};
}
// Where element e of a slot's key or value is.
template <class T>
DEVICE size_t cache_place(int ring, int slot, int e) {
  constexpr int each = 16 / sizeof(T);
  return ((size_t)(e / each) * ring + slot) * each + e % each;
}

// Puts key and value [hd] of a position into the cache; an int8 one rounds them.
// For one warp.
DEVICE void store(const CacheHead& c, const Heads& w, int slot, const float* key, const float* value) {
  const int lane = thread() % 32, hd = w.hd;
  if (!c.key_scale) {
    for (int e = lane; e < hd; e += 32) {
      const size_t at = cache_place<float>(w.ring, slot, e);
      ((float*)c.keys)[at] = key[e], ((float*)c.values)[at] = value[e];
    }
    return;
  }
  float a = 0, b = 0;
  for (int e = lane; e < hd; e += 32) a = fmaxf(a, fabsf(key[e])), b = fmaxf(b, fabsf(value[e]));
  a = warp_most(a), b = warp_most(b);
  for (int e = lane; e < hd; e += 32) {
    const size_t at = cache_place<int8_t>(w.ring, slot, e);
    ((int8_t*)c.keys)[at] = rounded8(key[e], a), ((int8_t*)c.values)[at] = rounded8(value[e], b);
  }
  if (lane == 0) c.key_scale[slot] = scale8(a), c.value_scale[slot] = scale8(b);
}

// A part of a query's product with keys: T's accumulators are four of the sixteen
// floats, or one integer.
DEVICE void key_step(float (&a)[4], const float4& q, const float4& k) {
  a[0] = add(a[0], mul(q.x, k.x)), a[1] = add(a[1], mul(q.y, k.y)), a[2] = add(a[2], mul(q.z, k.z)), a[3] = add(a[3], mul(q.w, k.w));
}
DEVICE void key_step(int (&a)[1], const int4& q, const int4& k) { a[0] = dot4(q.x, k.x, dot4(q.y, k.y, dot4(q.z, k.z, dot4(q.w, k.w, a[0])))); }
// The fold over lanes l, l xor 8, l xor 16.
DEVICE float key_fold(float (&a)[4]) {
#pragma unroll
  for (int m = 16; m >= 8; m >>= 1)
#pragma unroll
    for (int e = 0; e < 4; e++) a[e] = add(a[e], shuffle_xor(a[e], m));
  return add(add(a[0], a[2]), add(a[1], a[3]));
}
DEVICE int key_fold(int (&a)[1]) {
  a[0] += shuffle_xor(a[0], 16);
  return a[0] + shuffle_xor(a[0], 8);
}

template <bool ROUNDED>
struct Kept; // types of a cache
template <>
struct Kept<false> {
  typedef float Value;
  typedef float4 Keys;
  typedef float Sums[4];
};
template <>
struct Kept<true> {
  typedef int8_t Value;
  typedef int4 Keys;
  typedef int Sums[1];
};

} // namespace
