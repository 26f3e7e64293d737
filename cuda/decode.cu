// Generation of one token: all layers in one launch, a second for the logits.
//
// Between two steps of a layer every value is needed by all, and a token has too
// little work for more than a few multiprocessors: what counts is how fast blocks
// meet. So a cluster of blocks goes through the layers together, exchanging what
// it must through L2; what is short (norms, rounding) each block does for itself.
// GPUs without clusters meet at a counter in global memory.
#include "decode.cuh"

#ifndef DECODE_BLOCKS
#define DECODE_BLOCKS 16
#endif

namespace {

constexpr int kThreads = 512, kWarps = kThreads / 32;
constexpr int kAhead = 8; // values of one stage of attention a thread
constexpr int kStage = kThreads * kAhead;

// All blocks meet; what they wrote before is there for load_fresh.
struct Meeting {
  unsigned* counter; // of blocks that came; 0 at the start of a launch
  unsigned target;
#ifndef EMULATED
  DEVICE void wait() {
#if __CUDA_ARCH__ >= 900 && !defined(DECODE_GRID)
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
    __syncthreads();
    target += gridDim.x;
    if (threadIdx.x == 0) {
      asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
      unsigned seen;
      do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
      while (seen < target);
    }
    __syncthreads();
#endif
  }
#else
  DEVICE void wait() { emu::grid_barrier(); }
#endif
};

// A block's shared memory.
template <class X>
struct Memory {
  Layer* layer;  // [2]: the current one and the next
  float *h, *z; // the residual stream [d], and a layer's input before rounding [max(d, hidden)]
  X *xd, *xh, *xm; // inputs of parts of d, of hidden, and of heads
  float *scratch; // [64]
  float *q, *k;   // attention: a head's query and key [hd]
  float *p;       // its weights [block]
  float *stage;   // [2][kStage]
};

template <class X>
DEVICE Memory<X> arrange(unsigned char* at, const Decode& m, int n) {
  Memory<X> s;
  auto take = [&](size_t bytes) {
    unsigned char* p = at;
    at += (bytes + 15) / 16 * 16;
    return p;
  };
  s.layer = (Layer*)take(2 * sizeof(Layer)), s.scratch = (float*)take(256), s.h = (float*)take(4 * m.d), s.z = (float*)take(4 * max(m.d, m.hidden));
  s.xd = (X*)take(sizeof(X) * padded_width(n, m.d / n)), s.xh = (X*)take(sizeof(X) * padded_width(n, m.hidden / n));
  s.xm = (X*)take(sizeof(X) * padded_width(m.heads, m.hd));
  s.q = (float*)take(4 * m.hd), s.k = (float*)take(4 * m.hd), s.p = (float*)take(4 * m.block), s.stage = (float*)take(8 * kStage);
  return s;
}

DEVICE float round_input(const Decode& m, const float* z, int8_t* x, int d, int K, float most, bool) { return quantize(x, z, d, K, most); }
DEVICE float round_input(const Decode& m, const float* z, float* x, int d, int K, float most, bool mixer) {
  return quantize(x, z, d, K, most, m.fake8 && !mixer);
}

// x = the rounded a [d] of parts of K. Returns the scale.
template <class X>
DEVICE float load_plain(const Decode& m, const Memory<X>& s, X* x, const float* a, int d, int K, bool mixer = false) {
  float most = 0;
  for (int i = threadIdx.x; i < d; i += kThreads) {
    const float v = load_fresh(a + i);
    s.z[i] = v, most = fmaxf(most, fabsf(v));
  }
  return round_input(m, s.z, x, d, K, block_most(most, s.scratch), mixer);
}

// h += t, unless that is NULL, and x = the rounded norm(h)·w. Returns the scale.
template <class X>
DEVICE float load_norm(const Decode& m, const Memory<X>& s, X* x, const float* t, const float* w, int K) {
  const float first = (int)threadIdx.x < m.d ? load_early(w + threadIdx.x) : 0;
  for (int i = threadIdx.x; i < m.d; i += kThreads)
    if (t) s.h[i] = add(s.h[i], load_fresh(t + i));
  const float r = norm_factor(s.h, m.d, m.eps, s.scratch + 32);
  float most = 0;
  for (int i = threadIdx.x; i < m.d; i += kThreads) {
    const float v = mul(mul(s.h[i], r), i < kThreads ? first : w[i]);
    s.z[i] = v, most = fmaxf(most, fabsf(v));
  }
  return round_input(m, s.z, x, m.d, K, block_most(most, s.scratch), false);
}

DEVICE float scaled(int sum, float scale, const float* gain, int r) { return mul((float)sum, mul(scale, gain[r])); }
DEVICE float scaled(float sum, float, const float* gain, int r) { return sum * gain[r]; }

// The rows of one layer, or of three one after another, of one input, of which
// load says how to get it: it returns the scale.
template <class W, int n, class X, class Load>
DEVICE void linear(const Linear* l, int count, float* y0, float* y1, float* y2, const X* x, uint32_t minus, Load load) {
  const int lane = threadIdx.x % 32, each = 32 / n, N0 = l[0].N, N1 = count > 1 ? l[1].N : 0, N2 = count > 1 ? l[2].N : 0;
  Row<W, n> row;
  float scale = 0;
  bool loaded = false;
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
    if (!loaded) scale = load(), loaded = true;
    if (!more) return;
    const auto sum = row.dot(x, minus);
    if (lane % each == 0) y[(size_t)(lane / each) * p->N + r] = scaled(sum, scale, p->gain, r);
  }
}

// act = silu(gate)∘up.
template <class W, int n, class X, class Load>
DEVICE void gate_up(const Linear& gate, const Linear& up, float* act, const X* x, uint32_t minus, Load load) {
  const int lane = threadIdx.x % 32, each = 32 / n;
  Row<W, n> a, b;
  float scale = 0;
  bool loaded = false;
  for (int r = threadIdx.x / 32 * gridDim.x + blockIdx.x;; r += gridDim.x * kWarps) {
    if (r < gate.N) a.open(gate, r), b.open(up, r);
    if (!loaded) scale = load(), loaded = true;
    if (r >= gate.N) return;
    const float g = scaled(a.dot(x, minus), scale, gate.gain, r), u = scaled(b.dot(x, minus), scale, up.gain, r);
    if (lane % each == 0) act[(size_t)(lane / each) * gate.N + r] = mul(silu(g), u);
  }
}

// The head mixer's rows of every group of n heads.
template <class W, int n, class X, class Load>
DEVICE void mix(const Decode& m, const Linear& l, const X* x, Load load) {
  const int lane = threadIdx.x % 32, each = 32 / n, groups = m.heads / n, width = padded_width(n, m.hd);
  Row<W, n> row;
  float scale = 0;
  bool loaded = false;
  const uint32_t minus = m.minus[lane / each];
  for (int i = threadIdx.x / 32 * gridDim.x + blockIdx.x;; i += gridDim.x * kWarps) {
    const bool more = i < groups * l.N;
    const int g = i / l.N, r = i % l.N;
    if (more) row.open(l, r);
    if (!loaded) scale = load(), loaded = true;
    if (!more) return;
    const auto sum = row.dot(x + g * width, minus);
    if (lane % each == 0) m.m[(size_t)(g * n + lane / each) * l.N + r] = scaled(sum, scale, l.gain, r);
  }
}

// The token's attention in one layer: a block takes a head, or where there are
// more blocks than heads, some of its channels of the values. It rotates query
// and key, puts key and value into the cache at slot position mod ring, and
// attends to the last block positions. Keys are float [kv_heads][⌈hd/4⌉][ring][4],
// values [kv_heads][ring][hd].
template <class X>
DEVICE void attend(const Decode& m, const Layer& l, const Memory<X>& s) {
  const int hd = m.hd, ring = m.ring, pos = m.state[1], t = threadIdx.x;
  const int share = m.heads / m.kv_heads, splits = max(1, (int)gridDim.x / m.heads);
  const int first = max(0, pos - m.block + 1), n = pos - first + 1, start = first % ring;
  const float* rot = (const float*)(m.state + 4);
  auto slot = [&](int i) {
    const int at = start + i;
    return at >= ring ? at - ring : at;
  };
  for (int unit = blockIdx.x; unit < m.heads * splits; unit += gridDim.x) {
    const int head = unit / splits, part = unit % splits, g = head / share;
    const int c0 = hd * part / splits, width = hd * (part + 1) / splits - c0;
    const float *q = m.q + (size_t)head * hd, *k = m.k + (size_t)g * hd, *v = m.v + (size_t)g * hd;
    float *keys = (float*)l.keys + (size_t)g * ring * ((hd + 3) / 4 * 4), *values = (float*)l.values + (size_t)g * ring * hd;
    // Values of the first stage are under way while the weights are made.
    const int step = width > 0 ? kThreads / width : 0, i0 = step ? t / width : 0, c = step ? c0 + t % width : 0;
    const bool lifts = step && i0 < step;
    float ahead[kAhead];
    auto lift = [&](int from) {
#pragma unroll
      for (int u = 0; u < kAhead; u++) {
        const int i = from + i0 + u * step;
        ahead[u] = !lifts || i >= n ? 0 : i == n - 1 ? load_fresh(v + c) : values[(size_t)slot(i) * hd + c];
      }
    };
    if (t < hd / 2) {
      const float a = load_fresh(q + 2 * t), b = load_fresh(q + 2 * t + 1), co = rot[t], si = rot[hd / 2 + t];
      s.q[2 * t] = add(mul(a, co), -mul(b, si)), s.q[2 * t + 1] = add(mul(b, co), mul(a, si));
    } else if (t >= 256 && t < 256 + hd / 2) {
      const int e = t - 256;
      const float a = load_fresh(k + 2 * e), b = load_fresh(k + 2 * e + 1), co = rot[e], si = rot[hd / 2 + e];
      s.k[2 * e] = add(mul(a, co), -mul(b, si)), s.k[2 * e + 1] = add(mul(b, co), mul(a, si));
    }
    lift(0);
    __syncthreads();
    if (part == 0 && head % share == 0)
      for (int e = t; e < hd; e += kThreads) {
        const int at = pos % ring;
        keys[((size_t)(e / 4) * ring + at) * 4 + e % 4] = s.k[e], values[(size_t)at * hd + e] = load_fresh(v + e);
      }
    // A thread a position, with the sixteen accumulators of its sum; the token's
    // own key by a warp.
    float top = -INFINITY;
    for (int i = t; i < n - 1; i += kThreads) {
      float a[16];
#pragma unroll
      for (int e = 0; e < 16; e++) a[e] = 0;
      const float* key = keys + (size_t)slot(i) * 4;
      for (int e0 = 0; e0 < hd; e0 += 16) {
        float4 x[4];
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (e0 + 4 * e < hd) x[e] = *(const float4*)(key + (size_t)(e0 / 4 + e) * ring * 4);
#pragma unroll
        for (int e = 0; e < 4; e++) {
          if (e0 + 4 * e >= hd) continue;
          const float4 y = *(const float4*)(s.q + e0 + 4 * e);
          a[4 * e] = add(a[4 * e], mul(y.x, x[e].x)), a[4 * e + 1] = add(a[4 * e + 1], mul(y.y, x[e].y));
          if (e0 + 4 * e + 2 < hd) a[4 * e + 2] = add(a[4 * e + 2], mul(y.z, x[e].z)), a[4 * e + 3] = add(a[4 * e + 3], mul(y.w, x[e].w));
        }
      }
#pragma unroll
      for (int w = 8; w; w >>= 1)
#pragma unroll
        for (int e = 0; e < w; e++) a[e] = add(a[e], a[e + w]);
      s.p[i] = mul(m.attention_scale, a[0]);
      top = fmaxf(top, s.p[i]);
    }
    if (t / 32 == kWarps - 1) {
      float a = 0;
      for (int e = t % 16; e < hd; e += 16) a = add(a, mul(s.q[e], s.k[e]));
      a = mul(m.attention_scale, fold16(a));
      if (t % 32 == 0) s.p[n - 1] = a;
      top = fmaxf(top, a);
    }
    top = warp_max(top);
    if (t % 32 == 0) s.scratch[t / 32] = top;
    __syncthreads();
    top = warp_max(s.scratch[t % kWarps]);
    for (int i = t; i < n; i += kThreads) s.p[i] = exp_exact(add(s.p[i], -top));
    __syncthreads();
    if (t < 32) {
      float sum = 0;
#pragma unroll 8
      for (int i = t % 16; i < n; i += 16) sum = add(sum, s.p[i]);
      sum = fold16(sum);
      if (t == 0) s.scratch[32] = 1 / sum;
    }
    __syncthreads();
    const float inv = s.scratch[32];
    // Products by all, stage by stage; one thread a channel adds them up in order.
    float sum = 0;
    for (int from = 0, turn = 0; from < n; from += kAhead * step, turn ^= 1) {
      if (!step) break;
      float* stage = s.stage + turn * kStage;
#pragma unroll
      for (int u = 0; u < kAhead; u++) {
        const int i = from + i0 + u * step;
        if (lifts && i < n) stage[(i - from) * width + c - c0] = mul(mul(s.p[i], inv), ahead[u]);
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
    if (t < width) m.o[(size_t)head * hd + c0 + t] = sum;
    __syncthreads(); // before the next unit's q, k and p
  }
}

template <class W, class M, int n, class X>
DEVICE void token(const Decode& m, unsigned* counter, unsigned char* shared) {
  const Memory<X> s = arrange<X>(shared, m, n);
  Meeting meeting = {counter, 0};
  const int K = m.d / n, t = threadIdx.x, k = t % 32 / (32 / n);
  const size_t id = m.state[0];
  for (int i = t; i < padded_width(n, m.hidden / n); i += kThreads) s.xh[i] = 0;
  for (int i = t; i < padded_width(n, K); i += kThreads) s.xd[i] = 0;
  for (int i = t; i < padded_width(m.heads, m.hd); i += kThreads) s.xm[i] = 0;
  for (int i = t; i < m.d; i += kThreads) s.h[i] = table_value(m.embedding, id, i, m.d);
  auto fetch = [&](int i) { // is there after the next barrier
    static_assert(sizeof(Layer) / 4 < kThreads, "a word a thread");
    if (t < (int)sizeof(Layer) / 4 && i < m.n_layer) ((uint32_t*)(s.layer + i % 2))[t] = ((const uint32_t*)(m.layers + i))[t];
  };
  fetch(0);
  __syncthreads();
  for (int i = 0; i < m.n_layer; i++) {
    const Layer& l = s.layer[i % 2];
    fetch(i + 1);
    const uint32_t minus = l.minus[k];
    const float* add_t = i ? m.t : nullptr;
    linear<W, n>(&l.q, 3, m.q, m.k, m.v, s.xd, minus, [&] { return load_norm(m, s, s.xd, add_t, l.attention_norm, K); });
    meeting.wait();
    attend(m, l, s);
    meeting.wait();
    const float* o = m.o;
    if (l.mixer.w) {
      auto load = [&] { return load_plain(m, s, s.xm, m.o, m.d, m.hd, true); };
      switch (m.mixer_n) {
      case 1: mix<M, 1>(m, l.mixer, s.xm, load); break;
      case 2: mix<M, 2>(m, l.mixer, s.xm, load); break;
      case 4: mix<M, 4>(m, l.mixer, s.xm, load); break;
      case 8: mix<M, 8>(m, l.mixer, s.xm, load); break;
      }
      meeting.wait();
      o = m.m;
    }
    linear<W, n>(&l.o, 1, m.t, m.t, m.t, s.xd, minus, [&] { return load_plain(m, s, s.xd, o, m.d, K); });
    meeting.wait();
    gate_up<W, n>(l.gate, l.up, m.act, s.xd, minus, [&] { return load_norm(m, s, s.xd, m.t, l.ffn_norm, K); });
    meeting.wait();
    linear<W, n>(&l.down, 1, m.t, m.t, m.t, s.xh, minus, [&] { return load_plain(m, s, s.xh, m.act, m.hidden, m.hidden / n); });
    meeting.wait();
  }
  // The output's input, by one block.
  if (blockIdx.x) return;
  if (sizeof(X) == 1) {
    const float scale = load_norm(m, s, (int8_t*)s.stage, m.t, m.norm, m.d);
    for (int i = t; i < m.d; i += kThreads) m.x[i] = ((const int8_t*)s.stage)[i];
    if (t == 0) *m.scale = scale;
  }
}

} // namespace

#if !defined(EMULATED) && !defined(DECODE_GRID)
#if __CUDA_ARCH__ >= 900
#define CLUSTER __cluster_dims__(DECODE_BLOCKS, 1, 1)
#endif
#endif
#ifndef CLUSTER
#define CLUSTER
#endif
#ifdef EMULATED
#define PARAM
#else
#define PARAM __grid_constant__
#endif

KERNEL(512, 1)
CLUSTER decode_layers_8(const PARAM Decode m, unsigned* counter) {
  DYNAMIC_SHARED(shared);
  token<Ternary, Bytes, 8, int8_t>(m, counter, shared);
}

// decode_logits: y = float32(table·q)·(scale·scales), table int8 [vocab, d] with
// d a multiple of 4 and 16-byte aligned rows where d is a multiple of 16.
// launch: grid ⌈vocab/32⌉, block 256, no dynamic shared; arguments (float* y,
// const int8* table, const float* scales, const int8* q, const float* scale, int
// vocab, int d).
KERNEL(256, 4)
decode_logits(float* y, const int8_t* table, const float* scales, const int8_t* q, const float* scale, int vocab, int d) {
  const int lane = threadIdx.x % 32, row0 = (blockIdx.x * 8 + threadIdx.x / 32) * 4;
  int acc[4] = {0, 0, 0, 0};
  if (d % 16 == 0) {
    for (int c = lane * 16; c < d; c += 512) {
      const int4 x = *(const int4*)(q + c);
#pragma unroll
      for (int r = 0; r < 4; r++) {
        if (row0 + r >= vocab) continue;
        const int4 w = *(const int4*)(table + (size_t)(row0 + r) * d + c);
        acc[r] = dot4(w.x, x.x, dot4(w.y, x.y, dot4(w.z, x.z, dot4(w.w, x.w, acc[r]))));
      }
    }
  } else {
    for (int c = lane * 4; c < d; c += 128)
      for (int r = 0; r < 4; r++)
        if (row0 + r < vocab) acc[r] = dot4(*(const int*)(table + (size_t)(row0 + r) * d + c), *(const int*)(q + c), acc[r]);
  }
#pragma unroll
  for (int r = 0; r < 4; r++) {
    const int sum = warp_sum(acc[r]);
    if (lane == 0 && row0 + r < vocab) y[row0 + r] = mul((float)sum, mul(*scale, scales[row0 + r]));
  }
}
