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
DEVICE float4 load_fresh(const float4* p) { return __ldcg(p); }
DEVICE int4 load_fresh(const int4* p) { return __ldcg(p); }
DEVICE int load_fresh(const int* p) { return __ldcg(p); }
DEVICE int8_t load_fresh(const int8_t* p) { return (int8_t)__ldcg((const signed char*)p); }
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
template <class T>
DEVICE T load_fresh(const T* p) { return *p; }
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

// 1/√(mean(z²) + eps) of z [d], of whose element i a thread with i = thread mod
// threads has the square: place puts it where the sixteen sums find theirs in
// order, squares [16][d/16 + 4]; factor begins and ends with a barrier. scratch
// holds one value.
DEVICE int square_pitch(int d) { return (d + 63) / 64 * 4 + 4; }
DEVICE void square_place(float* squares, int d, int i, float z) { squares[i % 16 * square_pitch(d) + i / 16] = mul(z, z); }
DEVICE float norm_factor(const float* squares, int d, float eps, float* scratch) {
  __syncthreads();
  if (threadIdx.x < 32) {
    const float* own = squares + threadIdx.x % 16 * square_pitch(d);
    const int count = (d - (int)threadIdx.x % 16 + 15) / 16;
    float s = 0;
    int i = 0;
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
constexpr int kStage = 8 * kThreads; // values of which a thread has eight under way

// The shared memory of attention.
struct AttentionMemory {
  float *q, *k;   // the rotated query, with zeros up to whole 64, and the token's own key [hd]
  float* p;       // weights [block + 4]
  float* stage;   // 2·kStage + 8·hd
  int8_t* q8;     // of an int8 cache: the rounded query, with zeros up to whole 64, key and value
  float* scratch; // [64]
};
DEVICE int whole64(int n) { return (n + 63) / 64 * 64; }

// What the last block positions are for a token.
struct Span {
  int n, start; // how many, and the slot of the first
};
DEVICE Span span(const Heads& w, int pos) {
  const int n = min(pos + 1, w.block);
  return {n, (pos - n + 1) % w.ring};
}

// A block's share of a head: channels c0 … c0 + width − 1; a thread has channel c0
// + c and, of every 4·groups positions, four.
struct Share {
  int head, c0, width, groups, group, c;
};
DEVICE Share share(int head, int c0, int width) {
  const int groups = kThreads / width;
  return {head, c0, width, groups, (int)threadIdx.x / width, (int)threadIdx.x % width};
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
  if (c.key_scale) return {(int8_t*)c.keys + at * hd16, (int8_t*)c.values + at * w.hd, c.key_scale + at, c.value_scale + at};
  return {(float*)c.keys + at * hd16, (float*)c.values + at * w.hd, nullptr, nullptr};
}
// Where value e of a slot's key is.
template <class T>
DEVICE size_t key_place(int ring, int slot, int e) {
  constexpr int each = 16 / sizeof(T);
  return ((size_t)(e / each) * ring + slot) * each + e % each;
}

// Puts key and value [hd] of a position into the cache; an int8 one rounds them.
// For one warp.
DEVICE void store(const CacheHead& c, const Heads& w, int slot, const float* key, const float* value) {
  const int lane = threadIdx.x % 32, hd = w.hd;
  if (!c.key_scale) {
    for (int e = lane; e < hd; e += 32)
      ((float*)c.keys)[key_place<float>(w.ring, slot, e)] = key[e], ((float*)c.values)[(size_t)slot * hd + e] = value[e];
    return;
  }
  float a = 0, b = 0;
  for (int e = lane; e < hd; e += 32) a = fmaxf(a, fabsf(key[e])), b = fmaxf(b, fabsf(value[e]));
  a = warp_most(a), b = warp_most(b);
  for (int e = lane; e < hd; e += 32)
    ((int8_t*)c.keys)[key_place<int8_t>(w.ring, slot, e)] = rounded8(key[e], a), ((int8_t*)c.values)[(size_t)slot * hd + e] = rounded8(value[e], b);
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

// out = softmax(scale·q·Kᵀ)·V of a share of a head's channels, over the positions
// of a span. The rotated query is in m.q. Where the cache has not got the token's
// own key and value yet, the key is in m.k and own is the value [hd], and keep
// says to put them into the cache, at slot; else own is NULL. All threads of a
// block, which read and write m after a barrier at the beginning.
template <bool ROUNDED>
DEVICE void attend(float* out, const CacheHead& cache, const Heads& w, const AttentionMemory& m, const Span& p, const Share& s, const float* own, bool keep,
                   int slot) {
  typedef Kept<ROUNDED> T;
  const int hd = w.hd, ring = w.ring, t = threadIdx.x, n = p.n, kept = own ? n - 1 : n, hd16 = (hd + 15) / 16 * 16;
  const typename T::Value* values = (const typename T::Value*)cache.values + s.c0 + s.c;
  auto place = [&](int i) { // the slot of position i, or of the last there is
    const int at = p.start + max(0, min(i, kept - 1));
    return at >= ring ? at - ring : at;
  };
  // Values of the first stage are under way while the weights are made.
  const int positions = 8 * s.groups, pitch = positions + 4;
  float v[2][4], scale[2][4];
  auto lift = [&](int from) {
#pragma unroll
    for (int u = 0; u < 2; u++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int at = place(from + 4 * (s.group + u * s.groups) + e);
        v[u][e] = (float)load_fresh(values + (size_t)at * hd);
        if (ROUNDED) scale[u][e] = load_fresh(cache.value_scale + at);
      }
  };
  lift(0);
  float last = own ? load_fresh(own + s.c0 + s.c) : 0, last_scale = 0; // the token's own value
  __syncthreads();
  float factor = w.scale;
  if (ROUNDED) {
    const int pitch8 = whole64(hd);
    if (t < 96 && (t < 32 || own)) {
      const float* x = t < 32 ? m.q : t < 64 ? m.k : own;
      float a = 0;
#pragma unroll 1
      for (int e = t % 32; e < hd; e += 32) a = fmaxf(a, fabsf(load_any(x + e)));
      a = warp_most(a);
#pragma unroll 1
      for (int e = t % 32; e < pitch8; e += 32) m.q8[t / 32 * pitch8 + e] = e < hd ? rounded8(load_any(x + e), a) : 0;
      if (t % 32 == 0) m.scratch[40 + t / 32] = scale8(a);
    }
    __syncthreads();
    factor = mul(m.scratch[40], w.scale);
    last = (float)m.q8[2 * pitch8 + s.c0 + s.c], last_scale = m.scratch[42];
  }
  if (keep && t < s.width) { // nobody reads the slot before the next token
    const int e = s.c0 + t;
    if (ROUNDED)
      ((int8_t*)cache.keys)[key_place<int8_t>(ring, slot, e)] = m.q8[whole64(hd) + e], ((int8_t*)cache.values)[(size_t)slot * hd + e] = (int8_t)(int)last;
    else
      ((float*)cache.keys)[key_place<float>(ring, slot, e)] = m.k[e], ((float*)cache.values)[(size_t)slot * hd + e] = last;
    if (ROUNDED && e == 0) cache.key_scale[slot] = m.scratch[41], cache.value_scale[slot] = m.scratch[42];
  }
  // Four lanes a position, each with four of the sixteen accumulators; 256
  // positions are under way at a time. Behind the end of q are zeros.
  const int quarter = t % 32 / 8;
  float top = -INFINITY;
  for (int i0 = t / 32 * 8; i0 < kept; i0 += 16 * kWarps) {
    const int at[2] = {place(i0 + t % 8), place(i0 + 8 * kWarps + t % 8)};
    typename T::Sums a[2] = {};
    float key_scale[2];
    if (ROUNDED) key_scale[0] = load_fresh(cache.key_scale + at[0]), key_scale[1] = load_fresh(cache.key_scale + at[1]);
    constexpr int PER = ROUNDED ? 1 : 4;
    const int steps = hd16 * (int)sizeof(typename T::Value) / 16; // of 16 bytes of a key
    for (int e0 = 0; e0 < steps; e0 += 4 * PER) {
      typename T::Keys k[2][PER];
#pragma unroll
      for (int u = 0; u < 2; u++)
#pragma unroll
        for (int e = 0; e < PER; e++)
          k[u][e] = load_fresh((const typename T::Keys*)cache.keys + (size_t)min(e0 + 4 * e + quarter, steps - 1) * ring + at[u]);
#pragma unroll
      for (int e = 0; e < PER; e++) {
        const typename T::Keys q = ((const typename T::Keys*)(ROUNDED ? (const void*)m.q8 : (const void*)m.q))[e0 + 4 * e + quarter];
        key_step(a[0], q, k[0][e]), key_step(a[1], q, k[1][e]);
      }
    }
#pragma unroll
    for (int u = 0; u < 2; u++) {
      const int i = i0 + 8 * kWarps * u + t % 8;
      const float x = mul((float)key_fold(a[u]), ROUNDED ? mul(factor, key_scale[u]) : factor);
      if (i < kept) {
        top = fmaxf(top, x);
        if (quarter == 0) m.p[i] = x;
      }
    }
  }
  if (own && t / 32 == kWarps - 1) { // the token's own key by a warp
    float x = 0;
    if (ROUNDED) {
      int dot = 0;
#pragma unroll 1
      for (int e = t % 32; e < hd; e += 32) dot += (int)m.q8[e] * m.q8[whole64(hd) + e];
      x = mul((float)warp_add(dot), mul(factor, m.scratch[41]));
    } else {
#pragma unroll 1
      for (int e = t % 16; e < hd; e += 16) x = add(x, mul(m.q[e], m.k[e]));
      x = mul(factor, fold16(x));
    }
    if (t % 32 == 0) m.p[n - 1] = x;
    top = fmaxf(top, x);
  }
  top = warp_max(top);
  if (t % 32 == 0) m.scratch[t / 32] = top;
  __syncthreads();
  top = warp_max(m.scratch[t % kWarps]);
#pragma unroll 1
  for (int i = t; i < n; i += kThreads) m.p[i] = exp_exact(add(m.p[i], -top));
  __syncthreads();
  if (t < 32) {
    float sum = 0;
#pragma unroll 8
    for (int i = t % 16; i < n; i += 16) sum = add(sum, m.p[i]);
    sum = fold16(sum);
    if (t == 0) m.scratch[32] = 1 / sum;
  }
  __syncthreads();
  const float inv = m.scratch[32];
  // Products by all, stage by stage [width][positions]; one thread a channel adds
  // them up in order.
  float sum = 0;
  for (int from = 0, turn = 0; from < n; from += positions, turn ^= 1) {
    float* stage = m.stage + turn * (kStage + 4 * hd);
#pragma unroll
    for (int u = 0; u < 2; u++) {
      const int at = 4 * (s.group + u * s.groups), i = from + at;
      if (s.group >= s.groups || i >= n) continue;
      const float4 x = *(const float4*)(m.p + i);
      float y[4] = {mul(x.x, inv), mul(x.y, inv), mul(x.z, inv), mul(x.w, inv)};
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const bool mine = i + e >= kept;
        if (ROUNDED) y[e] = mul(y[e], mine ? last_scale : scale[u][e]);
        y[e] = mul(y[e], mine ? last : v[u][e]);
      }
      *(float4*)(stage + s.c * pitch + at) = make_float4(y[0], y[1], y[2], y[3]);
    }
    __syncthreads();
    if (from + positions < n) lift(from + positions);
    if (t < s.width) {
      const float* row = stage + t * pitch;
      const int count = min(positions, n - from);
      int i = 0;
      for (; i + 16 <= count; i += 16) {
        float4 x[4];
#pragma unroll
        for (int u = 0; u < 4; u++) x[u] = *(const float4*)(row + i + 4 * u);
#pragma unroll
        for (int u = 0; u < 4; u++) sum = add(add(add(add(sum, x[u].x), x[u].y), x[u].z), x[u].w);
      }
#pragma unroll 1
      for (; i < count; i++) sum = add(sum, row[i]);
    }
  }
  if (t < s.width) out[s.c0 + t] = sum;
}

} // namespace
