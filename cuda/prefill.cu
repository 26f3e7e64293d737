// The layers for many tokens, a step a launch: prompts, scoring, and single
// tokens where decode.cu has no kernel (GPUs without clusters, algebras of
// dimension 16, weights that are not ternary). Every step gives the same bits
// as decode.cu's. Rows are tokens; row i is position state[1] + i.
#include "decode.cuh"

// prefill_embed: h [rows][d] = the rows ids of a table.
// launch: grid (⌈d/256⌉, rows), block 256, no dynamic shared; arguments (float* h,
// Table, const int* ids, int d).
KERNEL(256, 1)
prefill_embed(float* h, const PARAM Table table, const int* ids, int d) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i < d) h[(size_t)blockIdx.y * d + i] = table_value(table, ids[blockIdx.y], i, d);
}

namespace {

enum { kPlain = 0, kNorm = 1, kSwiGLU = 2 };

template <class X>
DEVICE void input(X* x, float* scale, int kind, float* a, const float* b, const float* w, int d, int K, float eps, int fake8, unsigned char* shared) {
  SHARED float scratch[64];
  float *z = (float*)shared, *squares = z + (d + 3) / 4 * 4;
  const int row = blockIdx.x, words = (K + 15) / 16;
  a += (size_t)row * d, b = b ? b + (size_t)row * d : b;
  x += (size_t)row * (d / K) * words * 16;
  float most = 0;
  for (int i = threadIdx.x; i < d; i += blockDim.x) {
    float v = a[i];
    if (kind == kNorm) {
      if (b) a[i] = v = add(v, b[i]);
      square_place(squares, d, i, v);
    }
    if (kind == kSwiGLU) v = mul(silu(v), b[i]);
    z[i] = v, most = fmaxf(most, fabsf(v));
  }
  if (kind == kNorm) {
    const float r = norm_factor(squares, d, eps, scratch + 32);
    most = 0;
    for (int i = threadIdx.x; i < d; i += blockDim.x) {
      const float v = mul(mul(z[i], r), w[i]);
      z[i] = v, most = fmaxf(most, fabsf(v));
    }
  }
  most = block_most(most, scratch);
  const float s = quantize(x, z, d, K, most, fake8);
  if (threadIdx.x == 0) scale[row] = s;
  for (int i = threadIdx.x; K % 16 && i < d / K * (words * 16 - K); i += blockDim.x) {
    const int pad = words * 16 - K;
    x[i / pad * words * 16 + K + i % pad] = 0;
  }
}

} // namespace

// prefill_input: what a linear layer reads, rounded, in parts of K columns each
// padded with zeros to whole words: x [rows][d/K][16·⌈K/16⌉] and its scales
// [rows]. By kind: 0 a, 1 RMSNorm(a + b)·w with the sum left in a and b maybe
// NULL, 2 silu(a)∘b; a, b [rows][d]. _float: x is float, rounded to int8 levels
// if fake8.
// launch: grid rows, block 256, dynamic shared 4·d rounded up to 16 and for a norm
// 64·square_pitch(d) more; arguments (x, float* scale, int
// kind, float* a, const float* b, const float* w, int d, int K, float eps, int
// fake8).
KERNEL(256, 1)
prefill_input(int8_t* x, float* scale, int kind, float* a, const float* b, const float* w, int d, int K, float eps, int fake8) {
  DYNAMIC_SHARED(shared);
  input(x, scale, kind, a, b, w, d, K, eps, fake8, shared);
}
KERNEL(256, 1)
prefill_input_float(float* x, float* scale, int kind, float* a, const float* b, const float* w, int d, int K, float eps, int fake8) {
  DYNAMIC_SHARED(shared);
  input(x, scale, kind, a, b, w, d, K, eps, fake8, shared);
}

namespace {

constexpr int kTokens = 4; // whose sums a warp has in registers
constexpr int kTokenBlock = 16;

template <class W, int n, class X>
DEVICE void products(float* y, const Linear& l, const X* x, const float* scale, const uint32_t* minus, int rows, int groups) {
  const int lane = threadIdx.x % 32, each = 32 / n, r = blockIdx.x * 8 + threadIdx.x / 32, from = blockIdx.y * kTokenBlock;
  if (r >= l.N) return;
  Row<W, n> row;
  row.open(l, r);
  const size_t stride = (size_t)n * row.words * 16;
  const uint32_t m = minus[lane / each];
  for (int t0 = from; t0 < min(rows, from + kTokenBlock); t0 += kTokens) {
    typename SumOf<X>::Type sum[kTokens];
    row.dot(sum, x + t0 * stride, stride, rows - t0, m);
#pragma unroll
    for (int t = 0; t < kTokens; t++)
      if (t0 + t < rows && lane % each == 0)
        y[(size_t)(t0 + t) * n * l.N + (size_t)(lane / each) * l.N + r] = scaled(sum[t], scale[(t0 + t) / groups], row.gain);
  }
}

} // namespace

// prefill_linear_n: y [rows][n][N] = the products of an input of prefill_input with
// the weights of a layer, with an algebra of dimension n whose signs are minus (as
// in Layer). _bytes, _float, _floats: int8 weights; float numerics with ternary
// weights; with float weights. A head mixer's rows are groups of n heads, groups
// a token.
// launch: grid (⌈N/8⌉, ⌈rows/16⌉), block 256, no dynamic shared; arguments (float* y,
// Linear, x, const float* scale, const uint32* minus, int rows, int groups).
#define PRODUCTS(name, W, n, X)                                                                                                             \
  KERNEL(256, 1)                                                                                                                            \
  name(float* y, const PARAM Linear l, const X* x, const float* scale, const uint32_t* minus, int rows, int groups) {                       \
    products<W, n>(y, l, x, scale, minus, rows, groups);                                                                                    \
  }
#define ALL_PRODUCTS(n)                                     \
  PRODUCTS(prefill_linear_##n, Ternary, n, int8_t)          \
  PRODUCTS(prefill_linear_##n##_bytes, Bytes, n, int8_t)    \
  PRODUCTS(prefill_linear_##n##_float, Ternary, n, float)   \
  PRODUCTS(prefill_linear_##n##_floats, Floats, n, float)
ALL_PRODUCTS(1)
ALL_PRODUCTS(2)
ALL_PRODUCTS(4)
ALL_PRODUCTS(8)
ALL_PRODUCTS(16)

// prefill_store: rotates queries, and puts rotated keys and values into the cache.
// q [rows][heads][hd], k and v [rows][kv_heads][hd], rot [rows][hd] cosines, then
// sines.
// launch: grid (heads, rows), block 32, dynamic shared 4·hd; arguments (float* q,
// const float* k, const float* v, const float* rot, const int* state, Cache,
// Heads).
KERNEL(32, 1)
prefill_store(float* q, const float* k, const float* v, const float* rot, const int* state, const PARAM Cache cache, const PARAM Heads w) {
  DYNAMIC_SHARED(shared);
  float* key = (float*)shared;
  const int hd = w.hd, half = hd / 2, h = blockIdx.x, row = blockIdx.y;
  q += ((size_t)row * w.heads + h) * hd, rot += (size_t)row * hd;
  for (int i = threadIdx.x; i < half; i += 32) rotate_pair(q, q[2 * i], q[2 * i + 1], rot, half, i);
  if (h >= w.kv_heads) return;
  k += ((size_t)row * w.kv_heads + h) * hd, v += ((size_t)row * w.kv_heads + h) * hd;
  for (int i = threadIdx.x; i < half; i += 32) rotate_pair(key, k[2 * i], k[2 * i + 1], rot, half, i);
  __syncwarp();
  store(cache_head(cache, w, h), w, (state[1] + row) % w.ring, key, v);
}

// prefill_attend: o [rows][heads][hd] of rotated queries, with keys and values in
// the cache.
// launch: grid (heads, rows), block 512, dynamic shared 256 + 32768 + 32·hd + 16·hd64
// + 4·block + 16 where hd64 is hd rounded up to 64; arguments (float* o, const
// float* q, const int* state, Cache, Heads).
KERNEL(512, 1)
prefill_attend(float* o, const float* q, const int* state, const PARAM Cache cache, const PARAM Heads w) {
  DYNAMIC_SHARED(shared);
  AttentionMemory s = {};
  const int hd64 = whole64(w.hd), h = blockIdx.x, row = blockIdx.y;
  s.scratch = (float*)shared, s.stage = s.scratch + 64, s.q = s.stage + 2 * kStage + 8 * w.hd, s.q8 = (int8_t*)(s.q + hd64), s.p = s.q + 2 * hd64;
  const size_t at = ((size_t)row * w.heads + h) * w.hd;
  for (int i = threadIdx.x; i < hd64; i += kThreads) s.q[i] = i < w.hd ? q[at + i] : 0;
  const CacheHead head = cache_head(cache, w, h / (w.heads / w.kv_heads));
  const Span p = span(w, state[1] + row);
  if (head.key_scale) attend<true>(o + at, head, w, s, p, share(h, 0, w.hd), nullptr, false, 0);
  else attend<false>(o + at, head, w, s, p, share(h, 0, w.hd), nullptr, false, 0);
}
