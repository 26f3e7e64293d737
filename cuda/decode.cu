// Generation of one token: all layers in one launch, a second for the logits.
//
// Between two steps of a layer every value is needed by all, and a token has too
// little work for more than a few multiprocessors: what counts is how fast blocks
// meet. So a cluster of blocks goes through the layers together, exchanging what
// it must through L2; what is short (norms, rounding) each block does for itself.
// Clusters are there from sm_90 on; for others, decode_layers_… is empty and
// prefill.cu does what it would.
#include "decode.cuh"

#if defined(EMULATED)
#define CLUSTERS
#define CLUSTER
#elif __CUDA_ARCH__ >= 900
#define CLUSTERS
#define CLUSTER __cluster_dims__(16, 1, 1)
#else
#define CLUSTER
#endif

#ifdef CLUSTERS
namespace {

// All blocks meet; what they wrote before is there for load_fresh.
DEVICE void meet() {
#ifdef EMULATED
  emu::grid_barrier();
#elif defined(CLUSTERS)
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// A block's shared memory.
template <class X>
struct Memory {
  Layer* layer;    // [2]: the current one and the next
  float *h, *z;    // the residual stream [d], and a layer's input before rounding [max(d, hidden)]
  float* squares;  // of norm_factor
  X *xd, *xh, *xm; // inputs of parts of d, of hidden, and of heads
  float* rot;      // [hd]
  AttentionMemory a;
};

template <class X>
DEVICE Memory<X> arrange(unsigned char* at, const Decode& m, int n) {
  Memory<X> s;
  auto take = [&](size_t bytes) {
    unsigned char* p = at;
    at += (bytes + 15) / 16 * 16;
    return p;
  };
  s.layer = (Layer*)take(2 * sizeof(Layer)), s.a.scratch = (float*)take(256), s.h = (float*)take(4 * m.d), s.z = (float*)take(4 * max(m.d, m.hidden));
  s.xd = (X*)take(sizeof(X) * padded_width(n, m.d / n)), s.xh = (X*)take(sizeof(X) * padded_width(n, m.hidden / n));
  s.xm = (X*)take(sizeof(X) * padded_width(m.heads.heads, m.heads.hd));
  const int hd = m.heads.hd;
  s.squares = (float*)take(64 * square_pitch(m.d)), s.rot = (float*)take(4 * hd);
  s.a.q = (float*)take(4 * whole64(hd)), s.a.k = (float*)take(4 * hd), s.a.p = (float*)take(4 * m.heads.block + 16);
  s.a.stage = (float*)take(8 * kStage + 32 * hd), s.a.q8 = (int8_t*)take(3 * whole64(hd));
  return s;
}

// Inputs of linear layers, in two parts: begin asks for what other blocks have
// written, of which finish makes x and returns its scale.

// x = the rounded a [d] in parts of K.
template <class X>
struct Plain {
  const Decode& m;
  const Memory<X>& s;
  X* x;
  const float* a;
  int d, K;
  bool mixer;
  float first;
  DEVICE void begin() { first = (int)threadIdx.x < d ? load_fresh(a + threadIdx.x) : 0; }
  DEVICE float finish() {
    float most = 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < d; i += kThreads) {
      const float v = i < kThreads ? first : load_fresh(a + i);
      s.z[i] = v, most = fmaxf(most, fabsf(v));
    }
    return quantize(x, s.z, d, K, block_most(most, s.a.scratch), m.fake8 && !mixer);
  }
};

// h += t, unless that is NULL, and x = the rounded norm(h)·w, for the output's
// table if last.
template <class X>
struct Normed {
  const Decode& m;
  const Memory<X>& s;
  X* x;
  const float *t, *w;
  int K;
  bool last;
  float first, weight;
  DEVICE void begin() {
    const int i = threadIdx.x;
    first = t && i < m.d ? load_fresh(t + i) : 0;
    weight = i < m.d ? load_early(w + i) : 0;
  }
  DEVICE float finish() {
#pragma unroll 1
    for (int i = threadIdx.x; i < m.d; i += kThreads) {
      float v = s.h[i];
      if (t) s.h[i] = v = add(v, i < kThreads ? first : load_fresh(t + i));
      square_place(s.squares, m.d, i, v);
    }
    const float r = norm_factor(s.squares, m.d, m.eps, s.a.scratch + 32);
    float most = 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < m.d; i += kThreads) {
      const float v = mul(mul(s.h[i], r), i < kThreads ? weight : w[i]);
      s.z[i] = v, most = fmaxf(most, fabsf(v));
    }
    return quantize(x, s.z, m.d, K, block_most(most, s.a.scratch), m.fake8 && !last);
  }
};

// The rows of one layer, or of three one after another, of one input.
template <class W, int n, class X, class Input>
DEVICE void linear(const Linear* l, int count, float* y0, float* y1, float* y2, const X* x, uint32_t minus, Input input) {
  const int lane = threadIdx.x % 32, each = 32 / n, N0 = l[0].N, N1 = count > 1 ? l[1].N : 0, N2 = count > 1 ? l[2].N : 0;
  Row<W, n> row;
  float scale = 0;
  bool loaded = false;
  input.begin();
  for (int i = threadIdx.x / 32 * gridDim.x + blockIdx.x;; i += gridDim.x * kWarps) {
    int r = i;
    float* y = y0;
    const Linear* p = l;
    if (i >= N0 + N1)
      r -= N0 + N1, y = y2, p += 2;
    else if (i >= N0)
      r -= N0, y = y1, p += 1;
    const bool more = i < N0 + N1 + N2;
    if (more) row.open(*p, r);
    if (!loaded) scale = input.finish(), loaded = true;
    if (!more) return;
    typename SumOf<X>::Type sum[1];
    row.dot(sum, x, 0, 1, minus);
    if (lane % each == 0) y[(size_t)(lane / each) * p->N + r] = scaled(sum[0], scale, row.gain);
  }
}

// act = silu(gate)∘up.
template <class W, int n, class X, class Input>
DEVICE void gate_up(const Linear& gate, const Linear& up, float* act, const X* x, uint32_t minus, Input input) {
  const int lane = threadIdx.x % 32, each = 32 / n;
  Row<W, n> a, b;
  float scale = 0;
  bool loaded = false;
  input.begin();
  for (int r = threadIdx.x / 32 * gridDim.x + blockIdx.x;; r += gridDim.x * kWarps) {
    if (r < gate.N) a.open(gate, r), b.open(up, r);
    if (!loaded) scale = input.finish(), loaded = true;
    if (r >= gate.N) return;
    typename SumOf<X>::Type sa[1], sb[1];
    a.dot(sa, x, 0, 1, minus), b.dot(sb, x, 0, 1, minus);
    const float g = scaled(sa[0], scale, a.gain), u = scaled(sb[0], scale, b.gain);
    if (lane % each == 0) act[(size_t)(lane / each) * gate.N + r] = mul(silu(g), u);
  }
}

// The head mixer's rows of every group of n heads.
template <class W, int n, class X, class Input>
DEVICE void mix(const Decode& m, const Linear& l, const X* x, Input input) {
  const int lane = threadIdx.x % 32, each = 32 / n, groups = m.heads.heads / n, width = padded_width(n, m.heads.hd);
  Row<W, n> row;
  float scale = 0;
  bool loaded = false;
  input.begin();
  const uint32_t minus = m.minus[lane / each];
  for (int i = threadIdx.x / 32 * gridDim.x + blockIdx.x;; i += gridDim.x * kWarps) {
    const bool more = i < groups * l.N;
    const int g = i / l.N, r = i % l.N;
    if (more) row.open(l, r);
    if (!loaded) scale = input.finish(), loaded = true;
    if (!more) return;
    typename SumOf<X>::Type sum[1];
    row.dot(sum, x + g * width, 0, 1, minus);
    if (lane % each == 0) m.m[(size_t)(g * n + lane / each) * l.N + r] = scaled(sum[0], scale, row.gain);
  }
}

// The share of a unit of attention, of heads in splits.
DEVICE Share share_of(const Heads& w, int unit, int splits) {
  const int head = unit / splits, part = unit % splits, c0 = w.hd * part / splits, width = w.hd * (part + 1) / splits - c0;
  return share(head, c0, width);
}

// The token's attention in one layer: a block takes a head, or where there are
// more blocks than heads, some of its channels of the values. It rotates query
// and key and puts key and value into the cache.
DEVICE void attention(const Decode& m, const Layer& l, const AttentionMemory& s, const float* rot, const Span& p, int slot, const Share& first) {
  const Heads& w = m.heads;
  const int hd = w.hd, half = hd / 2, t = threadIdx.x, per_key = w.heads / w.kv_heads, splits = max(1, (int)gridDim.x / w.heads);
  for (int unit = blockIdx.x; unit < w.heads * splits; unit += gridDim.x) {
    const Share h = unit == blockIdx.x ? first : share_of(w, unit, splits);
    if (!h.width) continue;
    const int g = per_key == 1 ? h.head : h.head / per_key;
    const float *q = m.q + (size_t)h.head * hd, *k = m.k + (size_t)g * hd, *v = m.v + (size_t)g * hd;
    if (t < half)
      rotate_pair(s.q, load_fresh(q + 2 * t), load_fresh(q + 2 * t + 1), rot, half, t);
    else if (t >= 256 && t < 256 + half)
      rotate_pair(s.k, load_fresh(k + 2 * (t - 256)), load_fresh(k + 2 * (t - 256) + 1), rot, half, t - 256);
    const CacheHead cache = cache_head(l.cache, w, g);
    float* o = m.o + (size_t)h.head * hd;
    const bool keep = g * per_key == h.head;
    if (cache.key_scale) attend<true>(o, cache, w, s, p, h, v, keep, slot);
    else attend<false>(o, cache, w, s, p, h, v, keep, slot);
  }
}

template <class W, class M, int n, class X>
DEVICE void token(const Decode& m, unsigned char* shared) {
  const Memory<X> s = arrange<X>(shared, m, n);
  const int K = m.d / n, t = threadIdx.x, k = t % 32 / (32 / n);
  let_others_start();
  const size_t id = m.state[0];
  const int pos = m.state[1], slot = pos % m.heads.ring, splits = max(1, (int)gridDim.x / m.heads.heads);
  const Span positions = span(m.heads, pos);
  const Share first = share_of(m.heads, min((int)blockIdx.x, m.heads.heads * splits - 1), splits);
  for (int i = m.heads.hd + t; i < whole64(m.heads.hd); i += kThreads) s.a.q[i] = 0;
#pragma unroll 1
  for (int i = t; i < m.heads.hd; i += kThreads) s.rot[i] = ((const float*)(m.state + 4))[i];
#pragma unroll 1
  for (int i = t; i < padded_width(n, m.hidden / n); i += kThreads) s.xh[i] = 0;
#pragma unroll 1
  for (int i = t; i < padded_width(n, K); i += kThreads) s.xd[i] = 0;
#pragma unroll 1
  for (int i = t; i < padded_width(m.heads.heads, m.heads.hd); i += kThreads) s.xm[i] = 0;
#pragma unroll 1
  for (int i = t; i < m.d; i += kThreads) s.h[i] = table_value(m.embedding, id, i, m.d);
  auto fetch = [&](int i) { // is there after the next barrier
    static_assert(sizeof(Layer) / 4 < kThreads, "a word a thread");
    if (t < (int)sizeof(Layer) / 4 && i < m.n_layer) ((uint32_t*)(s.layer + i % 2))[t] = ((const uint32_t*)(m.layers + i))[t];
  };
  fetch(0);
  __syncthreads();
  for (int i = 0; i < m.n_layer; i++) {
    const Layer& l = s.layer[i % 2];
    const uint32_t minus = l.minus[k];
    linear<W, n>(&l.q, 3, m.q, m.k, m.v, s.xd, minus, Normed<X>{m, s, s.xd, i ? m.t : nullptr, l.attention_norm, K});
    fetch(i + 1); // nobody reads the layer before any more
    meet();
    attention(m, l, s.a, s.rot, positions, slot, first);
    meet();
    const float* o = m.o;
    if (l.mixer.w) {
      const Plain<X> input = {m, s, s.xm, m.o, m.d, m.heads.hd, true};
      mix<M, 8>(m, l.mixer, s.xm, input);
      meet();
      o = m.m;
    }
    linear<W, n>(&l.o, 1, m.t, m.t, m.t, s.xd, minus, Plain<X>{m, s, s.xd, o, m.d, K});
    meet();
    gate_up<W, n>(l.gate, l.up, m.act, s.xd, minus, Normed<X>{m, s, s.xd, m.t, l.ffn_norm, K});
    meet();
    linear<W, n>(&l.down, 1, m.t, m.t, m.t, s.xh, minus, Plain<X>{m, s, s.xh, m.act, m.hidden, m.hidden / n});
    meet();
  }
  // The output's input, by one block.
  if (blockIdx.x) return;
  Normed<X> input = {m, s, s.xd, m.t, m.norm, m.d, true};
  input.begin();
  const float scale = input.finish();
#pragma unroll 1
  for (int i = t; i < m.d; i += kThreads) ((X*)m.x)[i] = s.xd[i];
  if (t == 0) *m.scale = scale;
}

} // namespace
#endif

// decode_layers_n: a token's way through the layers, of algebras of dimension n and
// mixers of 8, up to the input of the output's table. _float: with
// float numerics. All weights are ternary, those of mixers int8, or floats with
// float numerics. heads.hd is even and at most 512.
// launch: grid 16, one cluster; block 512; dynamic shared as arrange has it;
// argument Decode.
#ifdef CLUSTERS
#define LAYERS(name, n, M, X)               \
  KERNEL(512, 1)                            \
  CLUSTER name(const PARAM Decode m) {      \
    DYNAMIC_SHARED(shared);                 \
    token<Ternary, M, n, X>(m, shared);     \
  }
#else
#define LAYERS(name, n, M, X) \
  KERNEL(512, 1)              \
  name(const PARAM Decode m) {}
#endif
LAYERS(decode_layers_1, 1, Bytes, int8_t)
LAYERS(decode_layers_2, 2, Bytes, int8_t)
LAYERS(decode_layers_4, 4, Bytes, int8_t)
LAYERS(decode_layers_8, 8, Bytes, int8_t)
LAYERS(decode_layers_1_float, 1, Floats, float)
LAYERS(decode_layers_2_float, 2, Floats, float)
LAYERS(decode_layers_4_float, 4, Floats, float)
LAYERS(decode_layers_8_float, 8, Floats, float)

namespace {

// A lane's share of the products of an input with R rows of a table of bytes. The
// rows' beginning is asked for before the input is there.
template <int R>
DEVICE void table_dot(int (&acc)[R], const Table& t, size_t row0, size_t vocab, const int8_t* x, int d) {
  const int lane = threadIdx.x % 32;
  const int8_t* table = (const int8_t*)t.data;
  if (d % 16) {
    wait_for_others();
    for (int c = lane; c < d; c += 32)
      for (int r = 0; r < R; r++)
        if (row0 + r < vocab) acc[r] += (int)table[(row0 + r) * d + c] * load_fresh(x + c);
    return;
  }
  const int4* rows[R];
  int4 w[R];
#pragma unroll
  for (int r = 0; r < R; r++) {
    rows[r] = (const int4*)(table + (row0 + r < vocab ? row0 + r : vocab - 1) * d);
    if (lane * 16 < d) w[r] = load_early(rows[r] + lane);
  }
  wait_for_others();
  for (int c = lane; c < d / 16; c += 32) {
    const int4 a = load_fresh((const int4*)x + c);
#pragma unroll
    for (int r = 0; r < R; r++) {
      if (c >= 32) w[r] = load_early(rows[r] + c);
      acc[r] = dot4(w[r].x, a.x, dot4(w[r].y, a.y, dot4(w[r].z, a.z, dot4(w[r].w, a.w, acc[r]))));
    }
  }
}
// Groups: a lane a group of 32.
template <int R>
DEVICE void group_dot(int (&acc)[R], const Table& t, size_t row0, size_t vocab, const int8_t* x, int d) {
  const int lane = threadIdx.x % 32, groups = (d + 31) / 32, half = 1 << ((int)t.bits - 1);
  wait_for_others();
  for (int g = lane; g < groups; g += 32) {
    int a[8], sum = 0; // the input's group
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int c = 32 * g + 4 * i;
      if (d % 4 == 0) {
        a[i] = c < d ? load_fresh((const int*)(x + c)) : 0;
      } else {
        a[i] = 0;
        for (int e = 0; e < 4; e++)
          if (c + e < d) a[i] |= (int)(uint8_t)load_fresh(x + c + e) << (8 * e);
      }
      sum = dot4(0x01010101, a[i], sum);
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
      if (row0 + r >= vocab) continue;
      const size_t at = (row0 + r) * groups + g;
      const uint4 low = *(const uint4*)((const uint8_t*)t.data + 16 * at);
      const uint32_t l[4] = {low.x, low.y, low.z, low.w};
      uint32_t h[2] = {0, 0};
      if (t.bits == 6) {
        const uint2 high = *(const uint2*)(t.high + 8 * at);
        h[0] = high.x, h[1] = high.y;
      }
      int dot = 0;
#pragma unroll
      for (int i = 0; i < 8; i++) { // values 4i … 4i + 3
        const uint32_t u = (l[i % 4] >> (i / 4 * 4) & 0x0f0f0f0fu) | (h[i % 2] >> (i / 2 * 2) & 0x03030303u) << 4;
        dot = dot4((int)u, a[i], dot);
      }
      acc[r] += t.factor[at] * (dot - half * sum);
    }
  }
}
// Writes a block's 32 logits.
DEVICE void put_out(float* y, const float* out, int vocab) {
  __syncthreads();
  const int r = blockIdx.x * 32 + threadIdx.x;
  if (threadIdx.x < 32 && r < vocab) y[r] = out[threadIdx.x];
}

} // namespace

// decode_logits: y = float32(table·x)·(scale·the row's scale), exact but for that
// product; x [d], 16-byte aligned like the table.
// launch: grid (⌈vocab/32⌉, rows), block 256, no dynamic shared; arguments (float* y
// [rows][vocab], Table, const int8* x, [rows][stride], const float* scale [rows],
// int vocab, int d, int stride).
KERNEL(256, 4)
decode_logits(float* y, const PARAM Table table, const int8_t* x, const float* scale, int vocab, int d, int stride) {
  constexpr int R = 4;
  SHARED float out[32]; // y may be the host's memory, to which single values are slow
  const int lane = threadIdx.x % 32, row0 = (blockIdx.x * 8 + threadIdx.x / 32) * R;
  int acc[R] = {0, 0, 0, 0};
  x += (size_t)blockIdx.y * stride, y += (size_t)blockIdx.y * vocab, scale += blockIdx.y;
  if (table.bits == 8) table_dot<R>(acc, table, row0, vocab, x, d);
  else group_dot<R>(acc, table, row0, vocab, x, d);
  const float s = load_fresh(scale);
#pragma unroll
  for (int r = 0; r < R; r++) {
    const int sum = warp_add(acc[r]);
    if (lane == 0 && row0 + r < vocab) out[row0 % 32 + r] = mul((float)sum, mul(s, table.scale[row0 + r]));
  }
  put_out(y, out, vocab);
}

// decode_logits_float: y = table·x in float32, of any table.
// launch: as decode_logits; arguments the same, but float* x.
KERNEL(256, 4)
decode_logits_float(float* y, const PARAM Table table, const float* x, const float* scale, int vocab, int d, int stride) {
  const int lane = threadIdx.x % 32, row0 = (blockIdx.x * 8 + threadIdx.x / 32) * 4;
  SHARED float out[32];
  x += (size_t)blockIdx.y * stride, y += (size_t)blockIdx.y * vocab;
  float acc[4] = {0, 0, 0, 0};
  wait_for_others();
  for (int c = lane; c < d; c += 32)
#pragma unroll
    for (int r = 0; r < 4; r++)
      if (row0 + r < vocab) acc[r] += table_value(table, row0 + r, c, d) * load_fresh(x + c);
#pragma unroll
  for (int r = 0; r < 4; r++) {
    const float sum = warp_sum(acc[r]);
    if (lane == 0 && row0 + r < vocab) out[row0 % 32 + r] = sum;
  }
  put_out(y, out, vocab);
}
