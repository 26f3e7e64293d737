// The attention of attention.cu for heads of 64 on sm_90a: the same results,
// layouts and masks, the products by wgmma. A warpgroup owns 64 rows and keeps
// what it sums in registers; the other side streams through two stages of
// shared memory in rows of 128 bytes, swizzled as wgmma reads them. hd is 64 and
// all strides are multiples of 8.
#include "device.cuh"

#ifdef HOPPER
namespace {

constexpr uint32_t kTile = 64 * 128; // bytes of 64 rows

struct Shape {
  int T, heads, kv_heads, q_row, q_head, k_row, k_head;
};

// Of an operand whose rows lie as load_rows leaves them.
DEVICE uint64_t descriptor(uint32_t address) {
  return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
// The byte of 16-byte chunk c of row r.
DEVICE uint32_t chunk(int r, int c) { return r * 128 + ((c ^ (r & 7)) << 4); }

template <int ROWS, int THREADS>
DEVICE void load_rows(uint32_t dst, const bf16* src, int stride, int valid) {
  const int c = threadIdx.x % 8, r0 = threadIdx.x / 8;
  const uint32_t to = dst + chunk(r0, c);
  src += c * 8;
#pragma unroll
  for (int r = 0; r < ROWS; r += THREADS / 8) {
    bool ok = r0 + r < valid;
    cp_async16(to + r * 128, src + (ok ? (size_t)(r0 + r) * stride : 0), ok ? 16 : 0);
  }
}

// A warp's 16 rows as left operands.
DEVICE void load_left(uint32_t (&a)[4][4], uint32_t rows) {
  const int l = threadIdx.x % 32;
#pragma unroll
  for (int ks = 0; ks < 4; ks++) ldmatrix(a[ks], rows + chunk(l & 15, ks * 2 + (l >> 4)));
}

// c = a·bᵀ, issued only, of 64 rows each in shared memory. (With a in registers
// ptxas 12.4 and 13.0 gave the registers of a that lives through a loop to
// another left operand in that loop.)
DEVICE void multiply(float (&c)[8][4], uint32_t a, uint32_t b) {
#pragma unroll
  for (int ks = 0; ks < 4; ks++) wgmma<0>(c, descriptor(a + ks * 32), descriptor(b + ks * 32), ks);
}
// c += a·b.
DEVICE void multiply_rows(float (&c)[8][4], const uint32_t (&a)[4][4], uint32_t b) {
#pragma unroll
  for (int ks = 0; ks < 4; ks++) wgmma<1>(c, a[ks], descriptor(b + ks * 2048), 1);
}
DEVICE void as_left(uint32_t (&a)[4][4], const float (&p)[8][4]) {
#pragma unroll
  for (int ks = 0; ks < 4; ks++) {
    a[ks][0] = pack(p[2 * ks][0], p[2 * ks][1]), a[ks][1] = pack(p[2 * ks][2], p[2 * ks][3]);
    a[ks][2] = pack(p[2 * ks + 1][0], p[2 * ks + 1][1]), a[ks][3] = pack(p[2 * ks + 1][2], p[2 * ks + 1][3]);
  }
}
DEVICE void zero(float (&c)[8][4]) {
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) c[n][e] = 0;
}

// A warp's 16 rows from shared to global memory.
DEVICE void store_rows(bf16* dst, int stride, const unsigned char* rows, int valid) {
  const int l = threadIdx.x % 32, c = l % 8;
#pragma unroll
  for (int r = l / 8; r < 16; r += 4)
    if (r < valid) store8(dst + (size_t)r * stride + c * 8, load8((const bf16*)(rows + chunk(r, c))));
}

// Scales a warp's sums, rotates them back if cos is not NULL (row r has position
// first + r) and writes them, through shared memory.
DEVICE void finish(bf16* dst, int stride, unsigned char* rows, const float (&c)[8][4], float scale, const float* cos, const float* sin, int first,
                   int T) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int row = r * 8 + g, at = min(first + row, T - 1) * 32 + t;
#pragma unroll
    for (int n = 0; n < 8; n++) {
      float a = c[n][2 * r] * scale, b = c[n][2 * r + 1] * scale;
      if (cos) {
        float cs = cos[at + n * 4], sn = sin[at + n * 4], a0 = a;
        a = a0 * cs + b * sn;
        b = b * cs - a0 * sn;
      }
      *(uint32_t*)(rows + chunk(row, n) + t * 4) = pack(a, b);
    }
  }
  __syncwarp();
  store_rows(dst, stride, rows, T - first);
}

DEVICE unsigned char* align1024(unsigned char* shared) { return shared + (-shared_address(shared) & 1023); }

} // namespace
#endif

// attention90_forward: as attention_forward_64.
// launch: grid (⌈T/64⌉, heads, batch), block 128, dynamic shared 41984 bytes;
// arguments as attention_forward_64.
KERNEL(128, 4)
attention90_forward(bf16* o, float* lse, bf16* q, const bf16* k, const bf16* v, const float* cos, const float* sin, const uint32_t* mask, float keep,
                    int T, int heads, int kv_heads, int hd, int q_row, int q_head, int k_row, int k_head) {
#ifdef HOPPER
  DYNAMIC_SHARED(raw);
  unsigned char* const shared = align1024(raw);
  const uint32_t aq = shared_address(shared), stages = aq + kTile;
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int q0 = ((int)gridDim.x - 1 - (int)blockIdx.x) * 64, h = blockIdx.y, b = blockIdx.z, i0 = q0 + warp * 16; // the warp's first row
  q += (size_t)b * T * q_row + (size_t)h * q_head + (size_t)q0 * q_row;
  const size_t kv = (size_t)b * T * k_row + (size_t)(h / (heads / kv_heads)) * k_head;
  k += kv, v += kv;

  auto load = [&](int tile) {
    const uint32_t at = stages + (tile & 1) * 2 * kTile;
    const size_t from = (size_t)tile * 64 * k_row;
    load_rows<64, 128>(at, k + from, k_row, T - tile * 64);
    load_rows<64, 128>(at + kTile, v + from, k_row, T - tile * 64);
    cp_async_commit();
  };
  load_rows<64, 128>(aq, q, q_row, T - q0);
  cp_async_commit();
  load(0);
  unsigned char* const rows = shared + warp * 16 * 128;
  if (cos) { // rotate q here and for the backward
    cp_async_wait<1>();
    __syncthreads();
    uint32_t a[4][4];
    load_left(a, aq + warp * 16 * 128);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int at = min(i0 + r * 8 + g, T - 1) * 32 + t;
#pragma unroll
      for (int n = 0; n < 8; n++) {
        uint32_t& x = a[n / 2][n % 2 * 2 + r];
        const float cs = cos[at + n * 4], sn = sin[at + n * 4], x0 = low(x), x1 = high(x);
        x = pack(x0 * cs - x1 * sn, x1 * cs + x0 * sn);
      }
    }
    __syncwarp(); // all lanes have read
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int r = 0; r < 2; r++) *(uint32_t*)(rows + chunk(r * 8 + g, n) + t * 4) = a[n / 2][n % 2 * 2 + r];
    __syncwarp();
    store_rows(q + (size_t)warp * 16 * q_row, q_row, rows, T - i0);
  }

  float acc[8][4], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  zero(acc);
  const float scale = 0.125f, c2 = scale * LOG2E;
  const int words = (T + 31) / 32;
  const size_t bh = (size_t)b * heads + h;
  const int tiles = q0 / 64 + 1;
  for (int tile = 0; tile < tiles; tile++) {
    cp_async_wait<0>();
    async_proxy_fence();
    __syncthreads();
    if (tile + 1 < tiles) load(tile + 1);
    const uint32_t at = stages + (tile & 1) * 2 * kTile;
    float p[8][4];
    wgmma_fence();
    multiply(p, aq, at);
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
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) acc[n][e] *= fade[e >> 1];
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
    as_left(pa, p);
    wgmma_fence();
    multiply_rows(acc, pa, at + kTile);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_done(acc);
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
    for (int n = 0; n < 8; n++) acc[n][2 * r] *= f, acc[n][2 * r + 1] *= f;
  }
  __syncthreads(); // all are done with q
  const int o_row = heads * 64;
  finish(o + ((size_t)b * T + i0) * o_row + (size_t)h * 64, o_row, rows, acc, 1, nullptr, nullptr, i0, T);
#endif
}

// attention90_dq: as attention_dq_64.
// launch: grid (⌈T/64⌉, heads, batch), block 128, dynamic shared 50176 bytes;
// arguments as attention_dq_64.
KERNEL(128, 3)
attention90_dq(bf16* dq, float* delta, const bf16* dout, const bf16* o, const float* lse, const bf16* q, const bf16* k, const bf16* v,
               const float* cos, const float* sin, const uint32_t* mask, float keep, int T, int heads, int kv_heads, int hd, int q_row, int q_head,
               int k_row, int k_head) {
#ifdef HOPPER
  DYNAMIC_SHARED(raw);
  unsigned char* const shared = align1024(raw);
  const uint32_t aq = shared_address(shared), ado = aq + kTile, stages = aq + 2 * kTile;
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int q0 = ((int)gridDim.x - 1 - (int)blockIdx.x) * 64, h = blockIdx.y, b = blockIdx.z, i0 = q0 + warp * 16;
  const size_t qat = (size_t)b * T * q_row + (size_t)h * q_head + (size_t)q0 * q_row;
  const int o_row = heads * 64;
  const size_t oat = ((size_t)b * T + q0) * o_row + (size_t)h * 64, bh = (size_t)b * heads + h;
  const size_t kv = (size_t)b * T * k_row + (size_t)(h / (heads / kv_heads)) * k_head;
  k += kv, v += kv;

  auto load = [&](int tile) {
    const uint32_t at = stages + (tile & 1) * 2 * kTile;
    const size_t from = (size_t)tile * 64 * k_row;
    load_rows<64, 128>(at, k + from, k_row, T - tile * 64);
    load_rows<64, 128>(at + kTile, v + from, k_row, T - tile * 64);
    cp_async_commit();
  };
  load_rows<64, 128>(aq, q + qat, q_row, T - q0);
  load_rows<64, 128>(ado, dout + oat, o_row, T - q0);
  cp_async_commit();
  load(0);
  uint32_t orow[2][8];
  float del[2], lse2[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int i = i0 + r * 8 + g;
    lse2[r] = i < T ? lse[bh * T + i] * LOG2E : 0;
    const bf16* p = o + oat + (size_t)(min(i, T - 1) - q0) * o_row + 2 * t;
#pragma unroll
    for (int n = 0; n < 8; n++) orow[r][n] = *(const uint32_t*)(p + n * 8);
  }
  cp_async_wait<1>();
  __syncthreads();
  uint32_t d[4][4];
  load_left(d, ado + warp * 16 * 128);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int i = i0 + r * 8 + g;
    float s = 0;
#pragma unroll
    for (int n = 0; n < 8; n++) {
      const uint32_t x = d[n / 2][n % 2 * 2 + r], y = orow[r][n];
      s += low(x) * low(y) + high(x) * high(y);
    }
    s += shuffle_xor(s, 1);
    s += shuffle_xor(s, 2);
    del[r] = s;
    if (t == 0 && i < T) delta[bh * T + i] = s;
  }

  float acc[8][4];
  zero(acc);
  const float scale = 0.125f, c2 = scale * LOG2E;
  const int words = (T + 31) / 32;
  const int tiles = q0 / 64 + 1;
  for (int tile = 0; tile < tiles; tile++) {
    cp_async_wait<0>();
    async_proxy_fence();
    __syncthreads();
    if (tile + 1 < tiles) load(tile + 1);
    const uint32_t at = stages + (tile & 1) * 2 * kTile;
    float p[8][4], dp[8][4];
    wgmma_fence();
    multiply(p, aq, at);
    wgmma_commit();
    multiply(dp, ado, at + kTile);
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
    as_left(pa, p);
    wgmma_fence();
    multiply_rows(acc, pa, at);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_done(acc);
  }
  __syncthreads(); // all are done with q
  finish(dq + qat + (size_t)warp * 16 * q_row, q_row, shared + warp * 16 * 128, acc, scale, cos, sin, i0, T);
#endif
}

// attention90_dkv: as attention_dkv_64.
// launch: grid (⌈T/64⌉, kv_heads, batch), block 128, dynamic shared 52224 bytes;
// arguments as attention_dkv_64.
KERNEL(128, 2)
attention90_dkv(bf16* dk, bf16* dv, const bf16* dout, const float* delta, const float* lse, const bf16* q, const bf16* k, const bf16* v,
                const float* cos, const float* sin, const uint32_t* mask, float keep, int T, int heads, int kv_heads, int hd, int q_row, int q_head,
                int k_row, int k_head) {
#ifdef HOPPER
  constexpr uint32_t STAGE = 2 * kTile + 1024; // queries, do, lse and δ
  DYNAMIC_SHARED(raw);
  unsigned char* const shared = align1024(raw);
  const uint32_t ak = shared_address(shared), av = ak + kTile, stages = ak + 2 * kTile;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int k0 = blockIdx.x * 64, kvh = blockIdx.y, b = blockIdx.z, j0 = k0 + warp * 16; // the warp's first key
  const int o_row = heads * 64, group = heads / kv_heads;
  const size_t kat = (size_t)b * T * k_row + (size_t)kvh * k_head + (size_t)k0 * k_row;
  const int first = blockIdx.x, count = (T + 63) / 64 - first; // tiles of queries of one head

  auto load = [&](int it) {
    const int h = kvh * group + it / count, i = (first + it % count) * 64;
    const uint32_t at = stages + (it & 1) * STAGE;
    load_rows<64, 128>(at, q + (size_t)b * T * q_row + (size_t)h * q_head + (size_t)i * q_row, q_row, T - i);
    load_rows<64, 128>(at + kTile, dout + ((size_t)b * T + i) * o_row + (size_t)h * 64, o_row, T - i);
    const int r = threadIdx.x % 64;
    const float* from = (threadIdx.x < 64 ? lse : delta) + ((size_t)b * heads + h) * T;
    cp_async4(at + 2 * kTile + threadIdx.x * 4, i + r < T ? from + i + r : from, i + r < T ? 4 : 0);
    cp_async_commit();
  };
  load_rows<64, 128>(ak, k + kat, k_row, T - k0);
  load_rows<64, 128>(av, v + kat, k_row, T - k0);
  cp_async_commit();
  load(0);

  float dka[8][4], dva[8][4];
  zero(dka);
  zero(dva);
  const float scale = 0.125f, c2 = scale * LOG2E;
  const int words = (T + 31) / 32;
  for (int it = 0; it < count * group; it++) {
    cp_async_wait<0>();
    async_proxy_fence();
    __syncthreads();
    if (it + 1 < count * group) load(it + 1);
    const uint32_t stage = (it & 1) * STAGE, at = stages + stage;
    const float* const slse = (const float*)(shared + 2 * kTile + stage + 2 * kTile);
    const int i0 = (first + it % count) * 64;
    float p[8][4], dp[8][4];
    wgmma_fence();
    multiply(p, ak, at);
    wgmma_commit();
    multiply(dp, av, at + kTile);
    wgmma_commit();
    uint32_t bits[2] = {0xffffffffu, 0xffffffffu}; // of queries i0 + lane and i0 + 32 + lane for this warp's keys
    if (mask) {
      const uint32_t* m = mask + ((size_t)b * heads + kvh * group + it / count) * T * words + min(j0 / 32, words - 1);
#pragma unroll
      for (int w = 0; w < 2; w++) bits[w] = i0 + w * 32 + lane < T ? m[(size_t)(i0 + w * 32 + lane) * words] >> (j0 % 32) : 0;
    }
    wgmma_wait<1>();
    wgmma_done(p);
    uint32_t pa[4][4];
    uint32_t drop = 0; // bit 4n + e: weight dropped
#pragma unroll
    for (int n = 0; n < 8; n++) {
      const float2 l = *(const float2*)(slse + n * 8 + 2 * t);
      const float l0 = l.x * LOG2E, l1 = l.y * LOG2E;
#pragma unroll
      for (int e = 0; e < 4; e++) p[n][e] = exp2_fast(p[n][e] * c2 - (e & 1 ? l1 : l0));
      if (i0 == k0) {
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (warp * 16 + (e >> 1) * 8 + g > n * 8 + 2 * t + (e & 1)) p[n][e] = 0;
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
      pa[n / 2][n % 2 * 2] = pack(d[0], d[1]), pa[n / 2][n % 2 * 2 + 1] = pack(d[2], d[3]);
    }
    wgmma_fence();
    multiply_rows(dva, pa, at + kTile);
    wgmma_commit();
    wgmma_wait<1>();
    wgmma_done(dp);
    uint32_t sa[4][4];
#pragma unroll
    for (int n = 0; n < 8; n++) {
      const float2 del = *(const float2*)(slse + 64 + n * 8 + 2 * t);
      float d[4];
#pragma unroll
      for (int e = 0; e < 4; e++) {
        float y = dp[n][e];
        if (mask) y = drop >> (4 * n + e) & 1 ? 0 : y * keep;
        d[e] = p[n][e] * (y - (e & 1 ? del.y : del.x));
      }
      sa[n / 2][n % 2 * 2] = pack(d[0], d[1]), sa[n / 2][n % 2 * 2 + 1] = pack(d[2], d[3]);
    }
    wgmma_fence();
    multiply_rows(dka, sa, at);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_done(dva);
    wgmma_done(dka);
  }
  __syncthreads(); // all are done with k and v
  const size_t out = kat + (size_t)warp * 16 * k_row;
  finish(dk + out, k_row, shared + warp * 16 * 128, dka, scale, cos, sin, j0, T);
  finish(dv + out, k_row, shared + kTile + warp * 16 * 128, dva, keep, nullptr, nullptr, j0, T);
#endif
}
