// Generation of one token: all layers in one launch, a second for the logits.
//
// Between two steps of a layer every value is needed by all, and a token has too
// little work for more than a few multiprocessors: what counts is how fast blocks
// meet. So a cluster of blocks goes through the layers together. What a block has
// computed it sends into the shared memory of all others, which wait for the last
// byte: no barrier, and nothing goes through L2. What is short (norms, rounding)
// each block does for itself. Keys and values of the positions before do not wait
// for the token: they are copied to shared memory while the steps before go on.
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
#include "decode_cluster.cuh"

namespace {

// What a step's input needs of a thread's first value, asked for before the values
// are there: where it is, and the norm's weight.
struct Early {
  int place;
  float weight;
};
template <class X>
DEVICE Early early(const Step<X>& p, const float* w) {
  const int t = thread();
  return {t < p.d ? p.place[t] : 0, w && t < p.d ? load_early(w + t) : 0};
}

// Waits for the vector that a step reads, makes of it the rounded input x and
// returns its scale. With w it is added to the residual stream and the input is
// norm(h)·w. A negative turn: there is none to add yet.
template <class X>
DEVICE float finish(const Memory<X>& s, const Step<X>& p, int turn, const float* w, Early e) {
  const int t = thread(), d = p.d;
  const float* in = p.from.in;
  float most = 0;
  if (turn >= 0) receive(p.from, turn);
  if (w) {
#pragma unroll 1
    for (int i = t; i < d; i += kThreads) {
      float v = s.h[i];
      if (turn >= 0) s.h[i] = v = add(v, in[i < kThreads ? e.place : p.place[i]]);
      square_place(s.squares, d, i, v);
    }
    const float r = norm_factor(s.squares, d, s.eps, s.scratch + 32);
#pragma unroll 1
    for (int i = t; i < d; i += kThreads) {
      const float v = mul(mul(s.h[i], r), i < kThreads ? e.weight : w[i]);
      s.z[i] = v, most = fmaxf(most, fabsf(v));
    }
  } else {
#pragma unroll 1
    for (int i = t; i < d; i += kThreads) {
      const float v = in[i < kThreads ? e.place : p.place[i]];
      s.z[i] = v, most = fmaxf(most, fabsf(v));
    }
  }
  return quantize(p.x, s.z, d, p.K, block_most(most, s.scratch), p.fake8);
}

// A block's rows of one layer, or of three one after another, of one input.
template <class W, int n, class X>
DEVICE void linear(const Memory<X>& s, const Step<X>& p, const Linear* l, int count, uint32_t minus, int turn, const float* w) {
  const int lane = thread() % 32, each = 32 / n, rows0 = rows_of(l[0].N), rows1 = count > 1 ? rows_of(l[1].N) : 0;
  Row<W, n> row = {}; // so that nothing of an earlier step stays in registers
  float scale = 0;
  bool loaded = false;
  const Early e = early(p, w);
#pragma unroll 1
  for (int i = thread() / 32;; i += kWarps) {
    int j = i, at = 0, rows = rows0;
    const Linear* q = l;
    if (i >= rows0 + rows1)
      j -= rows0 + rows1, at = n * (whole4(rows0) + whole4(rows1)), q += 2, rows = rows1;
    else if (i >= rows0)
      j -= rows0, at = n * whole4(rows0), q += 1, rows = rows1;
    const int r = block() * rows + j;
    const bool more = i < rows0 + 2 * rows1, mine = more && r < q->N;
    if (mine) row.open(*q, r);
    if (!loaded) scale = finish(s, p, turn, w, e), loaded = true;
    if (!more) break;
    if (!mine) continue;
    typename SumOf<X>::Type sum[1];
    row.dot(sum, (const X*)p.x, 0, 1, minus);
    if (lane % each == 0) s.out[at + lane / each * whole4(rows) + j] = scaled(sum[0], scale, row.gain);
  }
  send(p.to, s.out);
}

// silu(gate)∘up.
template <class W, int n, class X>
DEVICE void gate_up(const Memory<X>& s, const Step<X>& p, const Linear& gate, const Linear& up, uint32_t minus, int turn, const float* w) {
  const int lane = thread() % 32, each = 32 / n, rows = rows_of(gate.N);
  Row<W, n> a = {}, b = {};
  float scale = 0;
  bool loaded = false;
  const Early e = early(p, w);
#pragma unroll 1
  for (int j = thread() / 32;; j += kWarps) {
    const int r = block() * rows + j;
    const bool mine = j < rows && r < gate.N;
    if (mine) a.open(gate, r), b.open(up, r);
    if (!loaded) scale = finish(s, p, turn, w, e), loaded = true;
    if (!mine) break;
    typename SumOf<X>::Type sa[1], sb[1];
    a.dot(sa, (const X*)p.x, 0, 1, minus), b.dot(sb, (const X*)p.x, 0, 1, minus);
    const float g = scaled(sa[0], scale, a.gain), u = scaled(sb[0], scale, b.gain);
    if (lane % each == 0) s.out[lane / each * whole4(rows) + j] = mul(silu(g), u);
  }
  send(p.to, s.out);
}

// The head mixer's rows of every group of n heads, as rows of one layer.
template <class W, int n, class X>
DEVICE void mix(const Memory<X>& s, const Step<X>& p, const Linear& l, uint32_t minus, int turn) {
  const Heads& h = s.heads;
  const int lane = thread() % 32, each = 32 / n, N = h.heads / n * l.N, rows = rows_of(N), width = padded_width(n, h.hd);
  Row<W, n> row = {}; // so that nothing of an earlier step stays in registers
  float scale = 0;
  bool loaded = false;
  const Early e = early(p, nullptr);
#pragma unroll 1
  for (int j = thread() / 32;; j += kWarps) {
    const int i = block() * rows + j;
    const bool mine = j < rows && i < N;
    if (mine) row.open(l, i % l.N);
    if (!loaded) scale = finish(s, p, turn, nullptr, e), loaded = true;
    if (!mine) break;
    typename SumOf<X>::Type sum[1];
    row.dot(sum, (const X*)p.x + i / l.N * width, 0, 1, minus);
    if (lane % each == 0) s.out[lane / each * whole4(rows) + j] = scaled(sum[0], scale, row.gain);
  }
  send(p.to, s.out);
}

template <class W, class M, int n, class X>
DEVICE void token(const Decode& m, unsigned char* shared) {
  Memory<X>& s = *(Memory<X>*)shared;
  const Heads& w = m.heads;
  const int K = m.d / n, t = thread(), k = t % 32 / (32 / n), units = w.heads * splits_of(w);
  // The host's memory is far: what does not need the state is done meanwhile.
  const uint32_t* state = (const uint32_t*)m.state;
  const size_t id = load_early(state);
  const int pos = (int)load_early(state + 1);
  const float rot = t < w.hd ? load_early((const float*)(state + 4) + t) : 0;
  let_others_start();
  if (t == 0) {
    arrange(s, m, n);
    for (int i = 0; i < 6; i++) {
      const Exchange& e = i == 0 ? s.qkv : i == 1 ? s.o : i == 2 ? s.m : i == 3 ? s.act : s.t[i - 4];
      mbarrier_init(e.bar, 1), expect(e);
    }
    mbarrier_init(s.scores, 1), mbarrier_init(s.copies, 1), mbarrier_init(s.copies + 8, 1);
    mbarrier_fence();
  }
  __syncthreads();
  begin_cluster();
  auto fetch = [&](int i) { // is there after the next barrier
    static_assert(sizeof(Layer) / 4 < kThreads, "a word a thread");
    if (t < (int)sizeof(Layer) / 4 && i < m.n_layer) ((uint32_t*)(s.layer + i % 2))[t] = ((const uint32_t*)(m.layers + i))[t];
  };
  fetch(0);
#pragma unroll 1
  for (int i = w.hd + t; i < whole64(w.hd); i += kThreads) s.q[i] = 0;
#pragma unroll 1
  for (int i = t; i < padded_width(n, m.hidden / n); i += kThreads) s.xh[i] = 0;
#pragma unroll 1
  for (int i = t; i < padded_width(n, K); i += kThreads) s.xd[i] = 0;
#pragma unroll 1
  for (int i = t; i < padded_width(w.heads, w.hd); i += kThreads) s.xm[i] = 0;
#pragma unroll 1
  for (int i = t; i < whole4(m.d); i += kThreads) {
    const int c = min(i, m.d - 1); // behind the end, anything
    s.place_o[i] = unit_place(w, c, s.o.chunk), s.place_t[i] = linear_place(c, K, s.t[0].chunk);
    if (m.mixer_n) s.place_m[i] = mixer_place(w, m.mixer_n, c, s.m.chunk);
  }
#pragma unroll 1
  for (int i = t; i < whole4(m.hidden); i += kThreads) s.place_act[i] = linear_place(min(i, m.hidden - 1), m.hidden / n, s.act.chunk);
  if (block() < units) find_own(s, w, n, block());
#pragma unroll 1
  for (int i = t; i < whole4(m.d); i += kThreads) s.h[i] = i < m.d ? table_value(m.embedding, id, i, m.d) : 0;
  if (t < w.hd) s.rot[t] = rot;
  const int slot = pos % w.ring;
  const Span positions = span(w, pos);
  __syncthreads();
  const bool rounded = s.layer[0].cache.key_scale;
  if (block() < units) {
    if (t == 0) {
      if (rounded) describe<true>(s.unit, m, positions, block());
      else describe<false>(s.unit, m, positions, block());
      if (const int bytes = scores_of_others(s.unit)) mbarrier_expect(s.scores, bytes);
    }
    __syncthreads();
    prepare(s, w, s.layer[0].cache);
  }
  meet_cluster();
  Turns turns = {};
  for (int i = 0; i < m.n_layer; i++) {
    const Layer& l = s.layer[i % 2];
    const uint32_t minus = l.minus[k];
    linear<W, n>(s, s.steps[kQKV], &l.q, 3, minus, i - 1, l.attention_norm);
    fetch(i + 1); // nobody reads the layer before any more
    if (rounded) attention<true>(m, s, i, n, positions, slot, turns);
    else attention<false>(m, s, i, n, positions, slot, turns);
    if (l.mixer.w) mix<M, 8>(s, s.steps[kMix], l.mixer, m.minus[t % 32 / 4], i);
    linear<W, n>(s, s.steps[kO], &l.o, 1, minus, i, nullptr);
    gate_up<W, n>(s, s.steps[kGateUp], l.gate, l.up, minus, i, l.ffn_norm);
    linear<W, n>(s, s.steps[kDown], &l.down, 1, minus, i, nullptr);
  }
  // The output's input, by one block. A block ends when all that is sent to it
  // has come.
  if (block()) return receive(s.t[1], m.n_layer - 1);
  const Step<X>& last = s.steps[kLast];
  const float scale = finish(s, last, m.n_layer - 1, m.norm, early(last, m.norm));
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
// The same for an input in float, with the rows' scales; d is a multiple of 16.
template <int R>
DEVICE void table_dot(float (&acc)[R], const Table& t, size_t row0, size_t vocab, const float* x, int d) {
  const int lane = threadIdx.x % 32;
  const int4* rows[R];
  int4 w[R];
#pragma unroll
  for (int r = 0; r < R; r++) {
    rows[r] = (const int4*)((const int8_t*)t.data + (row0 + r < vocab ? row0 + r : vocab - 1) * d);
    if (lane * 16 < d) w[r] = load_early(rows[r] + lane);
  }
  after_others();
  for (int c = lane; c < d / 16; c += 32) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const float4 a = load_fresh((const float4*)x + 4 * c + e);
#pragma unroll
      for (int r = 0; r < R; r++) {
        if (e == 0 && c >= 32) w[r] = load_early(rows[r] + c);
        const int u = e == 0 ? w[r].x : e == 1 ? w[r].y : e == 2 ? w[r].z : w[r].w;
        acc[r] += (float)(int8_t)u * a.x + (float)(int8_t)(u >> 8) * a.y + (float)(int8_t)(u >> 16) * a.z + (float)(u >> 24) * a.w;
      }
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++)
    if (row0 + r < vocab) acc[r] *= t.scale[row0 + r];
}
// Of any table.
template <int R>
DEVICE void any_dot(float (&acc)[R], const Table& t, size_t row0, size_t vocab, const float* x, int d) {
  after_others();
  for (int c = threadIdx.x % 32; c < d; c += 32)
#pragma unroll
    for (int r = 0; r < R; r++)
      if (row0 + r < vocab) acc[r] += table_value(t, row0 + r, c, d) * load_fresh(x + c);
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
// Writes a block's 32 logits, and if tops is not NULL once more for decode_weigh,
// with their greatest.
DEVICE void put_out(float* y, float* again, float* tops, const float* out, int vocab) {
  __syncthreads();
  const int r = blockIdx.x * 32 + threadIdx.x;
  if (threadIdx.x >= 32) return;
  const float v = r < vocab ? out[threadIdx.x] : -INFINITY;
  if (r < vocab) y[r] = v;
  if (!tops) return;
  if (r < vocab) again[r] = v;
  const float top = warp_max(v);
  if (threadIdx.x == 0) tops[blockIdx.x] = top;
}

} // namespace

// decode_logits: y = float32(table·x)·(scale·the row's scale), exact but for that
// product; x [d], 16-byte aligned like the table.
// For one row, again and tops if not NULL are what decode_weigh reads.
// launch: grid (⌈vocab/32⌉, rows), block 256, no dynamic shared; arguments (float* y
// [rows][vocab], float* again [vocab], float* tops [⌈vocab/32⌉], Table, const int8* x, [rows][stride], const float* scale [rows],
// int vocab, int d, int stride).
KERNEL(256, 4)
decode_logits(float* y, float* again, float* tops, const PARAM Table table, const int8_t* x, const float* scale, int vocab, int d, int stride) {
  constexpr int R = 4;
  let_others_start();
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
  put_out(y, again, tops, out, vocab);
}

// decode_logits_float: y = table·x in float32, of any table.
// launch: as decode_logits; arguments the same, but float* x.
KERNEL(256, 4)
decode_logits_float(float* y, float* again, float* tops, const PARAM Table table, const float* x, const float* scale, int vocab, int d, int stride) {
  constexpr int R = 4;
  let_others_start();
  SHARED float out[32];
  const int lane = threadIdx.x % 32, row0 = (blockIdx.x * 8 + threadIdx.x / 32) * R;
  x += (size_t)blockIdx.y * stride, y += (size_t)blockIdx.y * vocab;
  float acc[R] = {0, 0, 0, 0};
  if (table.bits == 8 && d % 16 == 0) table_dot<R>(acc, table, row0, vocab, x, d);
  else any_dot<R>(acc, table, row0, vocab, x, d);
#pragma unroll
  for (int r = 0; r < R; r++) {
    const float sum = warp_sum(acc[r]);
    if (lane == 0 && row0 + r < vocab) out[row0 % 32 + r] = sum;
  }
  put_out(y, again, tops, out, vocab);
}

// decode_weigh: what the choice of a token needs of the first n logits (engine.Summary):
// of every 64 the greatest, NaN if one is NaN, and Σ exp((y − top)·inv) in the order
// of kernel.ExactExpScaled, where top is the greatest of all. n and inv are state[2]
// and, by its bits, state[3]; without n it does nothing.
// launch: grid ⌈⌈vocab/64⌉/32⌉, block 256, no dynamic shared; arguments (float* maxima,
// float* sums, const float* y, const float* tops, const int* state).
KERNEL(256, 1)
decode_weigh(float* maxima, float* sums, const float* y, const float* tops, const int* state) {
  SHARED float scratch[32], out[2][32];
  const int n = state[2], t = threadIdx.x, lane = t % 32, blocks = (n + 63) / 64, first = blockIdx.x * 32;
  const float inv = __uint_as_float((uint32_t)state[3]);
  after_others();
  if (first >= blocks) return;
  float top = -INFINITY;
#pragma unroll 4
  for (int i = t; i < n / 32; i += 256) top = fmaxf(top, load_fresh(tops + i));
  if (t < n % 32) top = fmaxf(top, load_fresh(y + n / 32 * 32 + t));
  top = block_max(top, scratch);
#pragma unroll
  for (int u = 0; u < 4; u++) {
    const int at = t / 32 * 4 + u, i = (first + at) * 64 + lane;
    const float a = i < n ? load_fresh(y + i) : -INFINITY, b = i + 32 < n ? load_fresh(y + i + 32) : -INFINITY;
    float most = warp_max(fmaxf(a, b));
    if (warp_any(a != a || b != b)) most = __uint_as_float(0x7fc00000);
    const float e = exp_exact(mul(add(a, -top), inv)), f = exp_exact(mul(add(b, -top), inv));
    const float sum = fold16(add(add(add(e, shuffle_xor(e, 16)), f), shuffle_xor(f, 16)));
    if (lane == 0) out[0][at] = most, out[1][at] = sum;
  }
  __syncthreads();
  if (t < 64 && first + lane < blocks) (t < 32 ? maxima : sums)[first + lane] = out[t / 32][lane];
}
