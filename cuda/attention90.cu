// The attention of attention.cu on sm_90a for heads of 32, 64, 96 and 128: the
// same results, layouts and masks, the products by wgmma. A block is one warpgroup
// (two that share what they read were slower at all widths); it owns 64 rows and
// keeps what it sums in registers; the other side streams through two stages of
// shared memory. Rows lie there in panels of 64 values, 128 bytes, swizzled as
// wgmma reads them. The suffix of a kernel is the width of its heads; all strides
// are multiples of 8.
#include "wgmma.cuh"

#ifdef HOPPER
namespace {

constexpr uint32_t kPanel = 64 * 128; // bytes of 64 rows
constexpr int kThreads = 128;

struct Shape {
  int T, heads, kv_heads, q_row, q_head, k_row, k_head;
};

// Of an operand whose rows lie as load_rows leaves them.
DEVICE uint64_t descriptor(uint32_t address) {
  return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
// The byte of 16-byte chunk c of row r of a panel.
DEVICE uint32_t chunk(int r, int c) { return r * 128 + ((c ^ (r & 7)) << 4); }

// How many panels a row of HD has, and how many steps of 16 panel p.
template <int HD>
constexpr int kPanels = (HD + 63) / 64;
template <int HD>
DEVICE constexpr int steps(int p) {
  return HD - 64 * p >= 64 ? 4 : (HD - 64 * p) / 16;
}

// Copies rows of HD, stride apart, into panels that are apart bytes from each
// other; rows from valid on become 0.
template <int HD, int ROWS>
DEVICE void load_rows(uint32_t dst, uint32_t apart, const bf16* src, int stride, int valid) {
  constexpr int C = HD / 8;
  if constexpr (kThreads % C == 0) {
    const int c = threadIdx.x % C, r0 = threadIdx.x / C;
    const uint32_t to = dst + c / 8 * apart;
    src += c * 8;
#pragma unroll
    for (int r = 0; r < ROWS; r += kThreads / C) {
      const bool ok = r0 + r < valid;
      if (ROWS % (kThreads / C) == 0 || r0 + r < ROWS) cp_async16(to + chunk(r0 + r, c % 8), src + (ok ? (size_t)(r0 + r) * stride : 0), ok ? 16 : 0);
    }
  } else {
#pragma unroll
    for (int i = 0; i < ROWS * C; i += kThreads) {
      const int r = (i + (int)threadIdx.x) / C, c = (i + (int)threadIdx.x) % C;
      const bool ok = r < valid;
      if (ROWS * C % kThreads == 0 || r < ROWS) cp_async16(dst + c / 8 * apart + chunk(r, c % 8), src + (ok ? (size_t)r * stride + c * 8 : 0), ok ? 16 : 0);
    }
  }
}

// A warp's 16 rows of a panel as left operands.
DEVICE void load_left(uint32_t (&a)[4][4], uint32_t rows) {
  const int l = threadIdx.x % 32;
#pragma unroll
  for (int ks = 0; ks < 4; ks++) ldmatrix(a[ks], rows + chunk(l & 15, ks * 2 + (l >> 4)));
}

// The accumulators of N = 64 or 32 columns.
template <int N>
DEVICE float (&columns(float (&c)[8][4]))[N / 8][4] {
  return *(float (*)[N / 8][4])&c;
}

// c[64, N] = a·bᵀ over HD, issued only: a has 64 rows, b N, in panels that are
// apartA and apartB bytes from each other. (With a in registers ptxas 12.4 and
// 13.0 gave the registers of a that lives through a loop to another left operand
// in that loop.)
template <int HD, int N>
DEVICE void multiply(float (&c)[8][4], uint32_t a, uint32_t apartA, uint32_t b, uint32_t apartB) {
#pragma unroll
  for (int ks = 0; ks < HD / 16; ks++)
    wgmma<0, 0>(columns<N>(c), descriptor(a + ks / 4 * apartA + ks % 4 * 32), descriptor(b + ks / 4 * apartB + ks % 4 * 32), ks);
}
// c[64, HD] += a·b, b of N rows.
template <int HD, int N>
DEVICE void multiply_rows(float (&c)[kPanels<HD>][8][4], const uint32_t (&a)[4][4], uint32_t b, uint32_t apart) {
#pragma unroll
  for (int ks = 0; ks < N / 16; ks++)
#pragma unroll
    for (int p = 0; p < kPanels<HD>; p++) {
      if (steps<HD>(p) == 4)
        wgmma_registers<1>(c[p], a[ks], descriptor(b + p * apart + ks * 2048), 1);
      else
        wgmma_registers<1>(columns<32>(c[p]), a[ks], descriptor(b + p * apart + ks * 2048), 1);
    }
}
template <int P>
DEVICE void all_done(float (&c)[P][8][4]) {
#pragma unroll
  for (int p = 0; p < P; p++) wgmma_done(c[p]);
}
template <int N>
DEVICE void as_left(uint32_t (&a)[4][4], const float (&p)[8][4]) {
#pragma unroll
  for (int ks = 0; ks < N / 16; ks++) {
    a[ks][0] = pack_bf16(p[2 * ks][0], p[2 * ks][1]), a[ks][1] = pack_bf16(p[2 * ks][2], p[2 * ks][3]);
    a[ks][2] = pack_bf16(p[2 * ks + 1][0], p[2 * ks + 1][1]), a[ks][3] = pack_bf16(p[2 * ks + 1][2], p[2 * ks + 1][3]);
  }
}
template <int P>
DEVICE void zero(float (&c)[P][8][4]) {
#pragma unroll
  for (int p = 0; p < P; p++)
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) c[p][n][e] = 0;
}

// A warp's 16 rows from panels in shared memory to global memory.
template <int HD>
DEVICE void store_rows(bf16* dst, int stride, const unsigned char* rows, int valid) {
  constexpr int C = HD / 8;
#pragma unroll
  for (int i = 0; i < 16 * C; i += 32) {
    const int r = (i + (int)threadIdx.x % 32) / C, c = (i + (int)threadIdx.x % 32) % C;
    if (r < valid) store8(dst + (size_t)r * stride + c * 8, load8((const bf16*)(rows + c / 8 * kPanel + chunk(r, c % 8))));
  }
}

// Scales a warp's sums, rotates them back if cos is not NULL (row r has position
// first + r) and writes them, through shared memory.
template <int HD>
DEVICE void finish(bf16* dst, int stride, unsigned char* rows, const float (&c)[kPanels<HD>][8][4], float scale, const float* cos, const float* sin,
                   int first, int T) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int row = r * 8 + g, at = min(first + row, T - 1) * (HD / 2) + t;
#pragma unroll
    for (int n = 0; n < HD / 8; n++) {
      float a = c[n / 8][n % 8][2 * r] * scale, b = c[n / 8][n % 8][2 * r + 1] * scale;
      if (cos) {
        float cs = cos[at + n * 4], sn = sin[at + n * 4], a0 = a;
        a = a0 * cs + b * sn;
        b = b * cs - a0 * sn;
      }
      *(uint32_t*)(rows + n / 8 * kPanel + chunk(row, n % 8) + t * 4) = pack_bf16(a, b);
    }
  }
  __syncwarp();
  store_rows<HD>(dst, stride, rows, T - first);
}

DEVICE unsigned char* align1024(unsigned char* shared) { return shared + (-shared_address(shared) & 1023); }

// ---- forward ----

template <int HD>
DEVICE void forward(unsigned char* raw, bf16* o, float* lse, bf16* q, const bf16* k, const bf16* v, const float* cos, const float* sin,
                    const uint32_t* mask, float keep, const Shape s) {
  constexpr int P = kPanels<HD>;
  constexpr uint32_t TILE = P * kPanel;
  unsigned char* const shared = align1024(raw);
  const int T = s.T, warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const uint32_t aq = shared_address(shared), stages = aq + TILE;
  const int q0 = ((int)gridDim.x - 1 - (int)blockIdx.x) * 64, h = blockIdx.y, b = blockIdx.z;
  const int i0 = q0 + warp * 16; // the warp's first row
  q += (size_t)b * T * s.q_row + (size_t)h * s.q_head;
  const size_t kv = (size_t)b * T * s.k_row + (size_t)(h / (s.heads / s.kv_heads)) * s.k_head;
  k += kv, v += kv;

  auto load = [&](int tile) {
    const uint32_t at = stages + (tile & 1) * 2 * TILE;
    const size_t from = (size_t)tile * 64 * s.k_row;
    load_rows<HD, 64>(at, kPanel, k + from, s.k_row, T - tile * 64);
    load_rows<HD, 64>(at + TILE, kPanel, v + from, s.k_row, T - tile * 64);
    cp_async_commit();
  };
  load_rows<HD, 64>(aq, kPanel, q + (size_t)q0 * s.q_row, s.q_row, T - q0);
  cp_async_commit();
  load(0);
  unsigned char* const rows = shared + warp * 16 * 128;
  if (cos) { // rotate q here and for the backward
    cp_async_wait<1>();
    __syncthreads();
#pragma unroll
    for (int p = 0; p < P; p++) {
      uint32_t a[4][4];
      load_left(a, aq + p * kPanel + warp * 16 * 128);
      __syncwarp(); // all lanes have read
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const int at = min(i0 + r * 8 + g, T - 1) * (HD / 2) + p * 32 + t;
#pragma unroll
        for (int n = 0; n < 8; n++) {
          if (n >= 2 * steps<HD>(p)) break;
          const uint32_t x = a[n / 2][n % 2 * 2 + r];
          const float cs = cos[at + n * 4], sn = sin[at + n * 4], x0 = low_float(x), x1 = high_float(x);
          *(uint32_t*)(rows + p * kPanel + chunk(r * 8 + g, n) + t * 4) = pack_bf16(x0 * cs - x1 * sn, x1 * cs + x0 * sn);
        }
      }
    }
    __syncwarp();
    store_rows<HD>(q + (size_t)i0 * s.q_row, s.q_row, rows, T - i0);
  }

  float acc[P][8][4], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  zero(acc);
  const float scale = rsqrtf((float)HD), c2 = scale * LOG2E;
  const int words = (T + 31) / 32;
  const size_t bh = (size_t)b * s.heads + h;
  const int tiles = q0 / 64 + 1;
  for (int tile = 0; tile < tiles; tile++) {
    cp_async_wait<0>();
    async_fence();
    __syncthreads();
    if (tile + 1 < tiles) load(tile + 1);
    const uint32_t at = stages + (tile & 1) * 2 * TILE;
    float p[8][4];
    wgmma_fence();
    multiply<HD, 64>(p, aq, kPanel, at, kPanel);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_done(p);
    if (tile + 1 == tiles) { // the diagonal
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (n * 8 + 2 * t + (e & 1) > warp * 16 + (e >> 1) * 8 + g) p[n][e] = -INFINITY;
    }
    float fade[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float m = top[r];
#pragma unroll
      for (int n = 0; n < 8; n++) m = fmaxf(m, fmaxf(p[n][2 * r], p[n][2 * r + 1]));
      m = fmaxf(m, shuffle_xor(m, 1));
      m = fmaxf(m, shuffle_xor(m, 2));
      fade[r] = exp2_fast((top[r] - m) * c2);
      const float mc = m * c2;
      top[r] = m;
      float l = 0;
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; e++) {
          p[n][e] = exp2_fast(p[n][e] * c2 - mc);
          l += p[n][e];
        }
      sum[r] = sum[r] * fade[r] + l;
    }
    if (warp_any(fade[0] != 1 || fade[1] != 1)) {
#pragma unroll
      for (int n = 0; n < HD / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) acc[n / 8][n % 8][e] *= fade[e >> 1];
    }
    if (mask) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const uint32_t* row = mask + (bh * T + min(i0 + r * 8 + g, T - 1)) * words + tile * 2;
#pragma unroll
        for (int w = 0; w < 2; w++) {
          const uint32_t bits = tile * 2 + w < words ? row[w] >> (2 * t) : 0;
#pragma unroll
          for (int n = 0; n < 4; n++) {
            if (!(bits >> (n * 8) & 1)) p[w * 4 + n][2 * r] = 0;
            if (!(bits >> (n * 8 + 1) & 1)) p[w * 4 + n][2 * r + 1] = 0;
          }
        }
      }
    }
    uint32_t pa[4][4];
    as_left<64>(pa, p);
    wgmma_fence();
    multiply_rows<HD, 64>(acc, pa, at + TILE, kPanel);
    wgmma_commit();
    wgmma_wait<0>();
    all_done(acc);
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float l = sum[r];
    l += shuffle_xor(l, 1);
    l += shuffle_xor(l, 2);
    const int i = i0 + r * 8 + g;
    if (t == 0 && i < T) lse[bh * T + i] = top[r] * scale + __logf(l);
    const float f = keep / l;
#pragma unroll
    for (int n = 0; n < HD / 8; n++) acc[n / 8][n % 8][2 * r] *= f, acc[n / 8][n % 8][2 * r + 1] *= f;
  }
  __syncthreads(); // all are done with q
  const int o_row = s.heads * HD;
  finish<HD>(o + ((size_t)b * T + i0) * o_row + (size_t)h * HD, o_row, rows, acc, 1, nullptr, nullptr, i0, T);
}

// ---- backward, queries: dq and δ ----

template <int HD>
DEVICE void backward_q(unsigned char* raw, bf16* dq, float* delta, const bf16* dout, const bf16* o, const float* lse, const bf16* q,
                       const bf16* k, const bf16* v, const float* cos, const float* sin, const uint32_t* mask, float keep, const Shape s) {
  constexpr int P = kPanels<HD>;
  constexpr uint32_t TILE = P * kPanel;
  unsigned char* const shared = align1024(raw);
  const int T = s.T, warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const uint32_t aq = shared_address(shared), ado = aq + TILE, stages = aq + 2 * TILE;
  const int q0 = ((int)gridDim.x - 1 - (int)blockIdx.x) * 64, h = blockIdx.y, b = blockIdx.z;
  const int i0 = q0 + warp * 16, o_row = s.heads * HD;
  const size_t qat = (size_t)b * T * s.q_row + (size_t)h * s.q_head, oat = (size_t)b * T * o_row + (size_t)h * HD, bh = (size_t)b * s.heads + h;
  const size_t kv = (size_t)b * T * s.k_row + (size_t)(h / (s.heads / s.kv_heads)) * s.k_head;
  k += kv, v += kv;

  auto load = [&](int tile) {
    const uint32_t at = stages + (tile & 1) * 2 * TILE;
    const size_t from = (size_t)tile * 64 * s.k_row;
    load_rows<HD, 64>(at, kPanel, k + from, s.k_row, T - tile * 64);
    load_rows<HD, 64>(at + TILE, kPanel, v + from, s.k_row, T - tile * 64);
    cp_async_commit();
  };
  load_rows<HD, 64>(aq, kPanel, q + qat + (size_t)q0 * s.q_row, s.q_row, T - q0);
  load_rows<HD, 64>(ado, kPanel, dout + oat + (size_t)q0 * o_row, o_row, T - q0);
  cp_async_commit();
  load(0);
  float del[2] = {0, 0}, lse2[2];
#pragma unroll
  for (int r = 0; r < 2; r++) lse2[r] = i0 + r * 8 + g < T ? lse[bh * T + i0 + r * 8 + g] * LOG2E : 0;
#pragma unroll
  for (int p = 0; p < P; p++) {
    uint32_t orow[2][8], d[4][4];
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
      for (int n = 0; n < 8; n++)
        if (n < 2 * steps<HD>(p)) orow[r][n] = *(const uint32_t*)(o + oat + (size_t)min(i0 + r * 8 + g, T - 1) * o_row + p * 64 + n * 8 + 2 * t);
    if (p == 0) {
      cp_async_wait<1>();
      __syncthreads();
    }
    load_left(d, ado + p * kPanel + warp * 16 * 128);
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
      for (int n = 0; n < 8; n++) {
        if (n >= 2 * steps<HD>(p)) break;
        const uint32_t x = d[n / 2][n % 2 * 2 + r], y = orow[r][n];
        del[r] += low_float(x) * low_float(y) + high_float(x) * high_float(y);
      }
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    del[r] += shuffle_xor(del[r], 1);
    del[r] += shuffle_xor(del[r], 2);
    if (t == 0 && i0 + r * 8 + g < T) delta[bh * T + i0 + r * 8 + g] = del[r];
  }

  float acc[P][8][4];
  zero(acc);
  const float scale = rsqrtf((float)HD), c2 = scale * LOG2E;
  const int words = (T + 31) / 32, tiles = q0 / 64 + 1;
  for (int tile = 0; tile < tiles; tile++) {
    cp_async_wait<0>();
    async_fence();
    __syncthreads();
    if (tile + 1 < tiles) load(tile + 1);
    const uint32_t at = stages + (tile & 1) * 2 * TILE;
    float p[8][4], dp[8][4];
    wgmma_fence();
    multiply<HD, 64>(p, aq, kPanel, at, kPanel);
    wgmma_commit();
    multiply<HD, 64>(dp, ado, kPanel, at + TILE, kPanel);
    wgmma_commit();
    wgmma_wait<1>();
    wgmma_done(p);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) p[n][e] = exp2_fast(p[n][e] * c2 - lse2[e >> 1]);
    if (tile + 1 == tiles) { // the diagonal
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (n * 8 + 2 * t + (e & 1) > warp * 16 + (e >> 1) * 8 + g) p[n][e] = 0;
    }
    wgmma_wait<0>();
    wgmma_done(dp);
    if (mask) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const uint32_t* row = mask + (bh * T + min(i0 + r * 8 + g, T - 1)) * words + tile * 2;
#pragma unroll
        for (int w = 0; w < 2; w++) {
          const uint32_t bits = tile * 2 + w < words ? row[w] >> (2 * t) : 0;
#pragma unroll
          for (int n = 0; n < 4; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
              float& y = dp[w * 4 + n][2 * r + e];
              y = bits >> (n * 8 + e) & 1 ? y * keep : 0;
            }
        }
      }
    }
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) p[n][e] *= dp[n][e] - del[e >> 1];
    uint32_t pa[4][4];
    as_left<64>(pa, p);
    wgmma_fence();
    multiply_rows<HD, 64>(acc, pa, at, kPanel);
    wgmma_commit();
    wgmma_wait<0>();
    all_done(acc);
  }
  __syncthreads(); // all are done with q
  finish<HD>(dq + qat + (size_t)i0 * s.q_row, s.q_row, shared + warp * 16 * 128, acc, scale, cos, sin, i0, T);
}

// ---- backward, keys and values ----

template <int HD, int BQ>
DEVICE void backward_kv(unsigned char* raw, bf16* dk, bf16* dv, const bf16* dout, const float* delta, const float* lse, const bf16* q, const bf16* k,
                        const bf16* v, const float* cos, const float* sin, const uint32_t* mask, float keep, const Shape s) {
  constexpr int P = kPanels<HD>;
  constexpr uint32_t TILE = P * kPanel, APART = BQ * 128, QUERIES = P * APART, STAGE = 2 * QUERIES + 1024; // queries, do, lse and δ
  unsigned char* const shared = align1024(raw);
  const int T = s.T, warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t ak = shared_address(shared), av = ak + TILE, stages = ak + 2 * TILE;
  // Batches in the other order than in backward_q: what that read last is still
  // in the cache.
  const int k0 = blockIdx.x * 64, kvh = blockIdx.y, b = gridDim.z - 1 - blockIdx.z;
  const int j0 = k0 + warp * 16; // the warp's first key
  const int o_row = s.heads * HD, heads = s.heads / s.kv_heads;
  const size_t kat = (size_t)b * T * s.k_row + (size_t)kvh * s.k_head;
  const int first = k0 / BQ, count = (T + BQ - 1) / BQ - first; // tiles of queries of one head

  auto load = [&](int it) {
    const int h = kvh * heads + it / count, i = (first + it % count) * BQ;
    const uint32_t at = stages + (it & 1) * STAGE;
    load_rows<HD, BQ>(at, APART, q + (size_t)b * T * s.q_row + (size_t)h * s.q_head + (size_t)i * s.q_row, s.q_row, T - i);
    load_rows<HD, BQ>(at + QUERIES, APART, dout + ((size_t)b * T + i) * o_row + (size_t)h * HD, o_row, T - i);
    if (kThreads == 2 * BQ || threadIdx.x < 2 * BQ) {
      const int r = threadIdx.x % BQ;
      const float* from = (threadIdx.x < BQ ? lse : delta) + ((size_t)b * s.heads + h) * T;
      cp_async4(at + 2 * QUERIES + threadIdx.x * 4, i + r < T ? from + i + r : from, i + r < T ? 4 : 0);
    }
    cp_async_commit();
  };
  load_rows<HD, 64>(ak, kPanel, k + kat + (size_t)k0 * s.k_row, s.k_row, T - k0);
  load_rows<HD, 64>(av, kPanel, v + kat + (size_t)k0 * s.k_row, s.k_row, T - k0);
  cp_async_commit();
  load(0);

  float dka[P][8][4], dva[P][8][4];
  zero(dka);
  zero(dva);
  const float scale = rsqrtf((float)HD), c2 = scale * LOG2E;
  const int words = (T + 31) / 32;
  for (int it = 0; it < count * heads; it++) {
    cp_async_wait<0>();
    async_fence();
    __syncthreads();
    if (it + 1 < count * heads) load(it + 1);
    const uint32_t stage = (it & 1) * STAGE, at = stages + stage;
    const float* const slse = (const float*)(shared + 2 * TILE + stage + 2 * QUERIES);
    const int i0 = (first + it % count) * BQ;
    float p[8][4], dp[8][4];
    wgmma_fence();
    multiply<HD, BQ>(p, ak, kPanel, at, APART);
    wgmma_commit();
    multiply<HD, BQ>(dp, av, kPanel, at + QUERIES, APART);
    wgmma_commit();
    uint32_t bits[BQ / 32]; // of queries i0 + 32w + lane for this warp's keys
#pragma unroll
    for (int w = 0; w < BQ / 32; w++) bits[w] = 0xffffffffu;
    if (mask) {
      const uint32_t* m = mask + ((size_t)b * s.heads + kvh * heads + it / count) * T * words + min(j0 / 32, words - 1);
#pragma unroll
      for (int w = 0; w < BQ / 32; w++) bits[w] = i0 + w * 32 + lane < T ? m[(size_t)(i0 + w * 32 + lane) * words] >> (j0 % 32) : 0;
    }
    wgmma_wait<1>();
    wgmma_done(p);
    uint32_t pa[4][4];
    uint32_t drop = 0; // bit 4n + e: weight dropped
#pragma unroll
    for (int n = 0; n < BQ / 8; n++) {
      const float2 l = *(const float2*)(slse + n * 8 + 2 * t);
      const float l0 = l.x * LOG2E, l1 = l.y * LOG2E;
#pragma unroll
      for (int e = 0; e < 4; e++) p[n][e] = exp2_fast(p[n][e] * c2 - (e & 1 ? l1 : l0));
      if (i0 < k0 + 64) { // on the diagonal
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (j0 + (e >> 1) * 8 + g > i0 + n * 8 + 2 * t + (e & 1)) p[n][e] = 0;
      }
      float d[4];
#pragma unroll
      for (int e = 0; e < 4; e++) d[e] = p[n][e];
      if (mask) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
          const uint32_t bit = ~shuffle(bits[n / 4], n % 4 * 8 + 2 * t + e) >> g;
          drop |= (bit & 1) << (4 * n + e) | (bit >> 8 & 1) << (4 * n + e + 2);
          if (bit & 1) d[e] = 0;
          if (bit >> 8 & 1) d[e + 2] = 0;
        }
      }
      pa[n / 2][n % 2 * 2] = pack_bf16(d[0], d[1]), pa[n / 2][n % 2 * 2 + 1] = pack_bf16(d[2], d[3]);
    }
    wgmma_fence();
    multiply_rows<HD, BQ>(dva, pa, at + QUERIES, APART);
    wgmma_commit();
    wgmma_wait<1>();
    wgmma_done(dp);
    uint32_t sa[4][4];
#pragma unroll
    for (int n = 0; n < BQ / 8; n++) {
      const float2 del = *(const float2*)(slse + BQ + n * 8 + 2 * t);
      float d[4];
#pragma unroll
      for (int e = 0; e < 4; e++) {
        float y = dp[n][e];
        if (mask) y = drop >> (4 * n + e) & 1 ? 0 : y * keep;
        d[e] = p[n][e] * (y - (e & 1 ? del.y : del.x));
      }
      sa[n / 2][n % 2 * 2] = pack_bf16(d[0], d[1]), sa[n / 2][n % 2 * 2 + 1] = pack_bf16(d[2], d[3]);
    }
    wgmma_fence();
    multiply_rows<HD, BQ>(dka, sa, at, APART);
    wgmma_commit();
    wgmma_wait<0>();
    all_done(dva);
    all_done(dka);
  }
  __syncthreads(); // all are done with k and v
  const size_t out = kat + (size_t)j0 * s.k_row;
  unsigned char* const rows = shared + warp * 16 * 128;
  finish<HD>(dk + out, s.k_row, rows, dka, scale, cos, sin, j0, T);
  finish<HD>(dv + out, s.k_row, rows + TILE, dva, keep, nullptr, nullptr, j0, T);
}

} // namespace
#define BODY(...) __VA_ARGS__
#else
#define BODY(...)
#endif

// attention90_forward_W: as attention_forward_W.
// launch: grid (⌈T/64⌉, heads, batch), block 128, dynamic shared 41·1024 bytes for
// W ≤ 64, else 81·1024; arguments as attention_forward_W.
#define FORWARD(W, BLOCKS)                                                                                                    \
  KERNEL(128, BLOCKS)                                                                                                        \
  attention90_forward_##W(bf16* o, float* lse, bf16* q, const bf16* k, const bf16* v, const float* cos, const float* sin,             \
                          const uint32_t* mask, float keep, int T, int heads, int kv_heads, int hd, int q_row, int q_head, int k_row, \
                          int k_head) {                                                                                               \
    BODY(DYNAMIC_SHARED(shared);                                                                                           \
         forward<W>(shared, o, lse, q, k, v, cos, sin, mask, keep, Shape{T, heads, kv_heads, q_row, q_head, k_row, k_head});)  \
  }
FORWARD(32, 5)
FORWARD(64, 4)
FORWARD(96, 2)
FORWARD(128, 2)

// attention90_dq_W: as attention_dq_W.
// launch: grid (⌈T/64⌉, heads, batch), block 128, dynamic shared 49·1024 bytes for
// W ≤ 64, else 97·1024; arguments as attention_dq_W.
#define BACKWARD_Q(W, BLOCKS)                                                                                               \
  KERNEL(128, BLOCKS)                                                                                                      \
  attention90_dq_##W(bf16* dq, float* delta, const bf16* dout, const bf16* o, const float* lse, const bf16* q, const bf16* k,       \
                     const bf16* v, const float* cos, const float* sin, const uint32_t* mask, float keep, int T, int heads,         \
                     int kv_heads, int hd, int q_row, int q_head, int k_row, int k_head) {                                          \
    BODY(DYNAMIC_SHARED(shared);                                                                                         \
         backward_q<W>(shared, dq, delta, dout, o, lse, q, k, v, cos, sin, mask, keep,                                      \
                               Shape{T, heads, kv_heads, q_row, q_head, k_row, k_head});)                                           \
  }
BACKWARD_Q(32, 4)
BACKWARD_Q(64, 3)
BACKWARD_Q(96, 2)
BACKWARD_Q(128, 2)

// attention90_dkv_W: as attention_dkv_W.
// launch: grid (⌈T/64⌉, kv_heads, batch), block 128, dynamic shared 51·1024 bytes
// for W ≤ 64, else 67·1024; arguments as attention_dkv_W.
#define BACKWARD_KV(W, BQ, BLOCKS)                                                                                          \
  KERNEL(128, BLOCKS)                                                                                                      \
  attention90_dkv_##W(bf16* dk, bf16* dv, const bf16* dout, const float* delta, const float* lse, const bf16* q, const bf16* k,     \
                      const bf16* v, const float* cos, const float* sin, const uint32_t* mask, float keep, int T, int heads,        \
                      int kv_heads, int hd, int q_row, int q_head, int k_row, int k_head) {                                         \
    BODY(DYNAMIC_SHARED(shared);                                                                                         \
         backward_kv<W, BQ>(shared, dk, dv, dout, delta, lse, q, k, v, cos, sin, mask, keep,                                \
                                    Shape{T, heads, kv_heads, q_row, q_head, k_row, k_head});)                                      \
  }
BACKWARD_KV(32, 64, 3)
BACKWARD_KV(64, 64, 2)
BACKWARD_KV(96, 32, 2)
BACKWARD_KV(128, 32, 2)
