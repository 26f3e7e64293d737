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

namespace {

// The shared memory of attention, which begins with scratch [64].
constexpr int kStage = 4096; // values under way
struct AttentionMemory {
  float* scratch;
  float* stage; // [2][kStage + 4·hd16]
  float* q;     // the rotated query, with zeros up to whole 64
  int8_t* q8;   // of an int8 cache: the same, rounded
  float* p;     // weights [block + 4]
};

// out [hd] = softmax(scale·q·Kᵀ)·V over the positions of a span, all in the cache.
// All threads of a block.
template <bool ROUNDED>
DEVICE void attend(float* out, const CacheHead& cache, const Heads& w, const AttentionMemory& m, const Span& p) {
  typedef Kept<ROUNDED> T;
  typedef typename T::Value Value;
  constexpr int EACH = 16 / sizeof(Value), PER = ROUNDED ? 1 : 4;
  const int hd = w.hd, ring = w.ring, t = threadIdx.x, n = p.n, hd16 = (hd + 15) / 16 * 16, rows = hd16 / EACH;
  auto place = [&](int i) { // the slot of position i, or of the last there is
    const int at = p.start + min(i, n - 1);
    return at >= ring ? at - ring : at;
  };
  // A stage of values: [hd16][positions] at a pitch; a thread has a row of some
  // positions, which are under way while the weights are made.
  constexpr int ITEMS = kStage / EACH / kThreads > 1 ? kStage / EACH / kThreads : 1;
  const int positions = kStage / hd16 / 4 * 4, pitch = positions + 4;
  typename T::Keys v[ITEMS];
  float scale[ITEMS];
  auto lift = [&](int from) {
#pragma unroll
    for (int u = 0; u < ITEMS; u++) {
      const int item = t + u * kThreads, at = place(from + item % positions);
      if (item >= rows * positions) continue;
      v[u] = load_fresh((const typename T::Keys*)cache.values + (size_t)(item / positions) * ring + at);
      if (ROUNDED) scale[u] = load_fresh(cache.value_scale + at);
    }
  };
  lift(0);
  __syncthreads();
  float factor = w.scale;
  if (ROUNDED) {
    if (t < 32) {
      float a = 0;
#pragma unroll 1
      for (int e = t; e < hd; e += 32) a = fmaxf(a, fabsf(m.q[e]));
      a = warp_most(a);
#pragma unroll 1
      for (int e = t; e < whole64(hd); e += 32) m.q8[e] = e < hd ? rounded8(m.q[e], a) : 0;
      if (t == 0) m.scratch[40] = scale8(a);
    }
    __syncthreads();
    factor = mul(m.scratch[40], w.scale);
  }
  // Four lanes a position, each with four of the sixteen accumulators; 256
  // positions are under way at a time. Behind the end of q are zeros.
  const int quarter = t % 32 / 8;
  float top = -INFINITY;
  for (int i0 = t / 32 * 8; i0 < n; i0 += 16 * kWarps) {
    const int at[2] = {place(i0 + t % 8), place(i0 + 8 * kWarps + t % 8)};
    typename T::Sums a[2] = {};
    float key_scale[2];
    if (ROUNDED) key_scale[0] = load_fresh(cache.key_scale + at[0]), key_scale[1] = load_fresh(cache.key_scale + at[1]);
    for (int e0 = 0; e0 < rows; e0 += 4 * PER) {
      typename T::Keys k[2][PER];
#pragma unroll
      for (int u = 0; u < 2; u++)
#pragma unroll
        for (int e = 0; e < PER; e++) k[u][e] = load_fresh((const typename T::Keys*)cache.keys + (size_t)min(e0 + 4 * e + quarter, rows - 1) * ring + at[u]);
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
      if (i < n) {
        top = fmaxf(top, x);
        if (quarter == 0) m.p[i] = x;
      }
    }
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
  // Products by all, stage by stage; one thread a channel adds them up in order.
  float sum = 0;
  for (int from = 0, turn = 0; from < n; from += positions, turn ^= 1) {
    float* stage = m.stage + turn * (kStage + 4 * hd16);
#pragma unroll
    for (int u = 0; u < ITEMS; u++) {
      const int item = t + u * kThreads, i = item % positions;
      if (item >= rows * positions || from + i >= n) continue;
      float x = mul(m.p[from + i], inv);
      if (ROUNDED) x = mul(x, scale[u]);
      const Value* y = (const Value*)&v[u];
#pragma unroll
      for (int e = 0; e < EACH; e++) stage[(item / positions * EACH + e) * pitch + i] = mul(x, (float)y[e]);
    }
    __syncthreads();
    if (from + positions < n) lift(from + positions);
    if (t < hd) {
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
  if (t < hd) out[t] = sum;
}

} // namespace

// prefill_attend: o [rows][heads][hd] of rotated queries, with keys and values in
// the cache.
// launch: grid (heads, rows), block 512, dynamic shared 256 + 32768 + 32·hd16 + 8·hd64
// + 4·block + 16 where hd16 and hd64 are hd rounded up to those; arguments (float* o, const
// float* q, const int* state, Cache, Heads).
KERNEL(512, 1)
prefill_attend(float* o, const float* q, const int* state, const PARAM Cache cache, const PARAM Heads w) {
  DYNAMIC_SHARED(shared);
  const int hd16 = (w.hd + 15) / 16 * 16, hd64 = whole64(w.hd), h = blockIdx.x, row = blockIdx.y;
  float* stage = (float*)shared + 64;
  float* at = stage + 2 * (kStage + 4 * hd16);
  const AttentionMemory s = {(float*)shared, stage, at, (int8_t*)(at + hd64), at + 2 * hd64};
  q += ((size_t)row * w.heads + h) * w.hd, o += ((size_t)row * w.heads + h) * w.hd;
  for (int i = threadIdx.x; i < hd64; i += kThreads) s.q[i] = i < w.hd ? q[i] : 0;
  const CacheHead head = cache_head(cache, w, h / (w.heads / w.kv_heads));
  if (head.key_scale) attend<true>(o, head, w, s, span(w, state[1] + row));
  else attend<false>(o, head, w, s, span(w, state[1] + row));
}
