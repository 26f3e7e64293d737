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
#define PARAM __grid_constant__ // a struct that stays where parameters are
DEVICE float load_fresh(const float* p) { return __ldcg(p); } // what another block has written
DEVICE float load_any(const float* p) { return *(const volatile float*)p; } // or what is in shared memory
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
#define PARAM
DEVICE float load_fresh(const float* p) { return *p; }
DEVICE float load_any(const float* p) { return *p; }
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
  for (int i = threadIdx.x; i < d; i += blockDim.x)
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
    const int lane = threadIdx.x % 32;
    gain = l.gain ? load_early(l.gain + r) : 1;
    words = (l.K + 15) / 16, first = lane % each;
    p = (const typename W::Word*)l.w + ((size_t)r * n + lane / each) * words;
#pragma unroll
    for (int s = 0; s < EARLY; s++)
      if (first + s * each < words) early[s] = W::early(p + first + s * each);
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

// Attention: a block of kThreads threads a head and token.
constexpr int kThreads = 512, kWarps = kThreads / 32;
constexpr int kAhead = 8; // values a thread has under way
constexpr int kStage = kThreads * kAhead;

// The shared memory of attention.
struct AttentionMemory {
  float *q, *k;  // the rotated query and the token's own key [hd], q 16-byte aligned
  float* p;      // weights [block]
  float* stage;  // [2][kStage]; of an int8 cache it begins with the rounded query and key
  float* scratch; // [64]
};

// The rotation of pair i by rot (cosines, then sines, [half] each).
DEVICE void rotate_pair(float* y, float a, float b, const float* rot, int half, int i) {
  const float c = rot[i], s = rot[half + i];
  y[2 * i] = add(mul(a, c), -mul(b, s)), y[2 * i + 1] = add(mul(b, c), mul(a, s));
}

// A key-value head's part of a cache.
struct CacheHead {
  const float *keys, *values, *key_scale, *value_scale;
  const int8_t *keys8, *values8; // instead
};
DEVICE CacheHead cache_head(const Cache& c, const Heads& w, int g) {
  CacheHead h = {};
  const size_t values = (size_t)g * w.ring * w.hd;
  if (c.key_scale) {
    h.keys8 = (const int8_t*)c.keys + (size_t)g * w.ring * ((w.hd + 15) / 16 * 16), h.values8 = (const int8_t*)c.values + values;
    h.key_scale = c.key_scale + (size_t)g * w.ring, h.value_scale = c.value_scale + (size_t)g * w.ring;
  } else {
    h.keys = (const float*)c.keys + (size_t)g * w.ring * ((w.hd + 3) / 4 * 4), h.values = (const float*)c.values + values;
  }
  return h;
}

// Puts key and value [hd] of a position into head g of a cache; an int8 one
// rounds them. For one warp.
DEVICE void store(const Cache& c, const Heads& w, int g, int slot, const float* key, const float* value) {
  const int lane = threadIdx.x % 32, hd = w.hd;
  if (!c.key_scale) {
    float *keys = (float*)c.keys + (size_t)g * w.ring * ((hd + 3) / 4 * 4), *values = (float*)c.values + ((size_t)g * w.ring + slot) * hd;
  #pragma unroll 1
  for (int e = lane; e < hd; e += 32) keys[((size_t)(e / 4) * w.ring + slot) * 4 + e % 4] = key[e], values[e] = load_fresh(value + e);
    return;
  }
  int8_t *keys = (int8_t*)c.keys + (size_t)g * w.ring * ((hd + 15) / 16 * 16), *values = (int8_t*)c.values + ((size_t)g * w.ring + slot) * hd;
  float a = 0, b = 0;
#pragma unroll 1
  for (int e = lane; e < hd; e += 32) a = fmaxf(a, fabsf(key[e])), b = fmaxf(b, fabsf(load_fresh(value + e)));
  a = warp_most(a), b = warp_most(b);
#pragma unroll 1
  for (int e = lane; e < hd; e += 32)
    keys[((size_t)(e / 16) * w.ring + slot) * 16 + e % 16] = rounded8(key[e], a), values[e] = rounded8(load_fresh(value + e), b);
  if (lane == 0) c.key_scale[(size_t)g * w.ring + slot] = scale8(a), c.value_scale[(size_t)g * w.ring + slot] = scale8(b);
}

// out = softmax(scale·q·Kᵀ)·V of channels c0 … c0 + width − 1 of a head, over the
// positions pos − block + 1 … pos. The rotated query is in s.q. Where the cache
// has not got the token's own key and value yet, the key is in s.k and own is the
// value [hd]; else own is NULL. All threads of a block.
DEVICE void attend(float* out, const CacheHead& cache, const Heads& w, const AttentionMemory& s, const float* own, int pos, int c0, int width) {
  const int hd = w.hd, ring = w.ring, t = threadIdx.x;
  const int first = max(0, pos - w.block + 1), n = pos - first + 1, start = first % ring, kept = own ? n - 1 : n;
  const bool rounded = cache.key_scale;
  auto slot = [&](int i) {
    const int at = start + i;
    return at >= ring ? at - ring : at;
  };
  // Values of the first stage are under way while the weights are made: a thread
  // has one channel of every step-th position.
  const int step = kThreads / width, i0 = t / width, c = c0 + t % width;
  float ahead[kAhead];
  float own_scale = 0; // of an int8 cache
  auto lift = [&](int from) {
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      const int i = from + i0 + u * step;
      if (i0 >= step || i >= kept)
        ahead[u] = 0;
      else
        ahead[u] = rounded ? (float)cache.values8[(size_t)slot(i) * hd + c] : cache.values[(size_t)slot(i) * hd + c];
    }
  };
  lift(0);
  float last = own ? load_fresh(own + c) : 0; // the token's own value
  __syncthreads(); // q and k
  const int hd16 = (hd + 15) / 16 * 16;
  int8_t* q8 = (int8_t*)s.stage;
  float factor = 0; // of an int8 query and the scale
  if (rounded) {
    if (t < 96 && (t < 32 || own)) {
      const float* x = t < 32 ? s.q : t < 64 ? s.k : own;
      float a = 0;
#pragma unroll 1
      for (int e = t % 32; e < hd; e += 32) a = fmaxf(a, fabsf(load_any(x + e)));
      a = warp_most(a);
#pragma unroll 1
      for (int e = t % 32; e < hd16; e += 32) q8[t / 32 * hd16 + e] = e < hd ? rounded8(load_any(x + e), a) : 0;
      if (t % 32 == 0) s.scratch[40 + t / 32] = scale8(a);
    }
    __syncthreads();
    factor = mul(s.scratch[40], w.scale);
  }
  // A thread a position, with the sixteen accumulators of its sum.
  float top = -INFINITY;
#pragma unroll 1
  for (int i = t; i < kept; i += kThreads) {
    float x;
    if (rounded) {
      int dot = 0;
      for (int e = 0; e < hd16; e += 16) {
        const int4 a = *(const int4*)(q8 + e), b = *(const int4*)(cache.keys8 + ((size_t)(e / 16) * ring + slot(i)) * 16);
        dot = dot4(a.x, b.x, dot4(a.y, b.y, dot4(a.z, b.z, dot4(a.w, b.w, dot))));
      }
      x = mul((float)dot, mul(factor, cache.key_scale[slot(i)]));
    } else {
      float a[16];
#pragma unroll
      for (int e = 0; e < 16; e++) a[e] = 0;
      const float* key = cache.keys + (size_t)slot(i) * 4;
      for (int e0 = 0; e0 < hd; e0 += 16) {
        float4 k[4];
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (e0 + 4 * e < hd) k[e] = *(const float4*)(key + (size_t)(e0 / 4 + e) * ring * 4);
#pragma unroll
        for (int e = 0; e < 4; e++) {
          if (e0 + 4 * e >= hd) continue;
          const float4 y = *(const float4*)(s.q + e0 + 4 * e);
          a[4 * e] = add(a[4 * e], mul(y.x, k[e].x)), a[4 * e + 1] = add(a[4 * e + 1], mul(y.y, k[e].y));
          if (e0 + 4 * e + 2 < hd) a[4 * e + 2] = add(a[4 * e + 2], mul(y.z, k[e].z)), a[4 * e + 3] = add(a[4 * e + 3], mul(y.w, k[e].w));
        }
      }
#pragma unroll
      for (int m = 8; m; m >>= 1)
#pragma unroll
        for (int e = 0; e < m; e++) a[e] = add(a[e], a[e + m]);
      x = mul(w.scale, a[0]);
    }
    s.p[i] = x, top = fmaxf(top, x);
  }
  if (own && t / 32 == kWarps - 1) { // the token's own key by a warp
    float x;
    if (rounded) {
      int dot = 0;
#pragma unroll 1
      for (int e = t % 32; e < hd; e += 32) dot += (int)q8[e] * q8[hd16 + e];
      x = mul((float)warp_add(dot), mul(factor, s.scratch[41]));
    } else {
      x = 0;
      for (int e = t % 16; e < hd; e += 16) x = add(x, mul(s.q[e], s.k[e]));
      x = mul(w.scale, fold16(x));
    }
    if (t % 32 == 0) s.p[n - 1] = x;
    top = fmaxf(top, x);
  }
  top = warp_max(top);
  if (t % 32 == 0) s.scratch[t / 32] = top;
  __syncthreads();
  top = warp_max(s.scratch[t % kWarps]);
#pragma unroll 1
  for (int i = t; i < n; i += kThreads) s.p[i] = exp_exact(add(s.p[i], -top));
  __syncthreads();
  if (t < 32) {
    float sum = 0;
#pragma unroll 8
    for (int i = t % 16; i < n; i += 16) sum = add(sum, s.p[i]);
    sum = fold16(sum);
    if (t == 0) s.scratch[32] = 1 / sum;
  }
  if (rounded && own) last = (float)q8[2 * hd16 + c], own_scale = s.scratch[42];
  __syncthreads();
  const float inv = s.scratch[32];
  // Products by all, stage by stage; one thread a channel adds them up in order.
  float sum = 0;
  for (int from = 0, turn = 0; from < n; from += kAhead * step, turn ^= 1) {
    float* stage = s.stage + turn * kStage;
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      const int i = from + i0 + u * step;
      if (i0 >= step || i >= n) continue;
      float p = mul(s.p[i], inv);
      if (rounded) p = mul(p, i < kept ? cache.value_scale[slot(i)] : own_scale);
      stage[(i - from) * width + c - c0] = mul(p, i < kept ? ahead[u] : last);
    }
    __syncthreads();
    if (from + kAhead * step < n) lift(from + kAhead * step);
    if (t < width) {
      const int count = min(kAhead * step, n - from);
      int i = 0;
      for (; i + 8 <= count; i += 8) {
        float x[8];
#pragma unroll
        for (int u = 0; u < 8; u++) x[u] = stage[(i + u) * width + t];
#pragma unroll
        for (int u = 0; u < 8; u++) sum = add(sum, x[u]);
      }
      for (; i < count; i++) sum = add(sum, stage[i * width + t]);
    }
  }
  if (t < width) out[c0 + t] = sum;
  __syncthreads(); // before s is written again
}

} // namespace
