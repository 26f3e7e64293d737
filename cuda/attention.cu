// Rotary causal attention with grouped-query heads, forward and backward:
// kernel/attention_ref.go on the tensor cores.
//
//	q, k rotated by their position;  S = q·kᵀ/√hd;  P = softmax of the row up to the diagonal
//	o = (P∘D)v, lse = log Σ exp S;  D = keep·[draw ≥ threshold] (dropout)
//	dv = (P∘D)ᵀdo;  dS = P∘(D∘(do·vᵀ) − δ), δ = do·o;  dq = dS·k/√hd;  dk = dSᵀ·q/√hd
//
// Activations are bf16, accumulation, softmax, lse and δ float32. One block
// has 4 warps and owns 64 or 128 rows (queries; in attention_dkv keys); a warp
// owns 16 or 32 of them, so that what it sums stays in its registers in one
// order. The other side streams through two stages of shared memory.
//
// Shapes. q, dq: head h of token r at q + r·q_row + h·q_head; k, v, dk, dv
// likewise with k_row, k_head and kv_heads. o, do: [tokens, heads·hd], dense.
// lse, delta: float [batch, heads, T]. Tokens are batch·T. cos, sin: float
// [≥ T, hd/2]. hd is even; with hd and all strides multiples of 8 (and 16-byte
// aligned bases) copies are 16 bytes wide, otherwise 4. The suffix of a kernel
// is the width it computes with: use the least of 32, 64, 96, 128 that is not
// below hd.
//
// mask: NULL, or the bits that attention_mask wrote: uint32 [batch·heads, T,
// ⌈T/32⌉], bit j%32 of word j/32 of row i set where weight (i, j) is kept. keep
// is 1/(1−p), 1 without a mask.
#include "device.cuh"

namespace {

constexpr int kThreads = 128, kWarps = 4;

// What is the same for all kernels of one attention.
struct Shape {
  int T, heads, kv_heads, hd, q_row, q_head, k_row, k_head;
  DEVICE bool wide() const { return ((hd | q_row | q_head | k_row | k_head) & 7) == 0; }
};

// Copies rows of hd bf16, stride apart, to rows of HDP + 8; what lies beyond
// hd or beyond the last valid row becomes 0.
template <int HDP, int ROWS>
DEVICE void load_tile(uint32_t dst, const bf16* src, int stride, int valid, int hd, bool wide) {
  constexpr int LD = HDP + 8;
  if (wide) {
    constexpr int C = HDP / 8;
#pragma unroll
    for (int i0 = 0; i0 < ROWS * C; i0 += kThreads) {
      int i = i0 + threadIdx.x, r = i / C, c = i % C * 8;
      if (ROWS * C % kThreads != 0 && i >= ROWS * C) break;
      bool ok = r < valid && c < hd;
      cp_async16(dst + (r * LD + c) * 2, ok ? src + (size_t)r * stride + c : src, ok ? 16 : 0);
    }
  } else {
    for (int i = threadIdx.x; i < ROWS * HDP / 2; i += kThreads) {
      int r = i / (HDP / 2), c = i % (HDP / 2) * 2;
      bool ok = r < valid && c < hd;
      cp_async4(dst + (r * LD + c) * 2, ok ? src + (size_t)r * stride + c : src, ok ? 4 : 0);
    }
  }
}

// Writes a warp's rows from shared memory to global memory.
template <int HDP>
DEVICE void store_rows(bf16* dst, int stride, const bf16* rows, int count, int valid, int hd, bool wide) {
  constexpr int LD = HDP + 8;
  int lane = threadIdx.x % 32;
  valid = min(valid, count);
  if (wide) {
    for (int i = lane; i < valid * (HDP / 8); i += 32) {
      int r = i / (HDP / 8), c = i % (HDP / 8) * 8;
      if (c < hd) store8(dst + (size_t)r * stride + c, load8(rows + r * LD + c));
    }
  } else {
    for (int i = lane; i < valid * (HDP / 2); i += 32) {
      int r = i / (HDP / 2), c = i % (HDP / 2) * 2;
      if (c < hd) *(uint32_t*)(dst + (size_t)r * stride + c) = *(const uint32_t*)(rows + r * LD + c);
    }
  }
}

// The rotation of two adjacent values, a complex number, and of eight.
DEVICE uint32_t rotate2(uint32_t x, float c, float s) {
  float a = low_float(x), b = high_float(x);
  return pack_bf16(a * c - b * s, b * c + a * s);
}
DEVICE uint4 rotate8(uint4 x, float4 c, float4 s) {
  return make_uint4(rotate2(x.x, c.x, s.x), rotate2(x.y, c.y, s.y), rotate2(x.z, c.z, s.z), rotate2(x.w, c.w, s.w));
}

// Addresses of a lane's row for ldmatrix: of a 16×16 piece that is the left
// operand or, transposed, the right one; and of 16 rows of a right operand
// that is stored by columns.
template <int LD>
DEVICE uint32_t lane_left(uint32_t base) {
  int l = threadIdx.x % 32;
  return base + ((l & 15) * LD + (l >> 4) * 8) * 2;
}
template <int LD>
DEVICE uint32_t lane_right(uint32_t base) {
  int l = threadIdx.x % 32;
  return base + (((l & 7) + (l >> 4) * 8) * LD + ((l >> 3) & 1) * 8) * 2;
}

// Two neighbouring 16×8 products as the left operand of the next.
DEVICE void as_left(uint32_t (&a)[4], const float (&c0)[4], const float (&c1)[4]) {
  a[0] = pack_bf16(c0[0], c0[1]), a[1] = pack_bf16(c0[2], c0[3]);
  a[2] = pack_bf16(c1[0], c1[1]), a[3] = pack_bf16(c1[2], c1[3]);
}

// c[MT·16, NT·8] += a·bᵀ over HDP, both in shared memory by rows.
template <int HDP, int MT, int NT>
DEVICE void product(float (&c)[MT][NT][4], uint32_t a_lane, uint32_t b_lane) {
  constexpr int LD = HDP + 8;
#pragma unroll
  for (int ks = 0; ks < HDP / 16; ks++) {
    uint32_t a[MT][4];
#pragma unroll
    for (int mt = 0; mt < MT; mt++) ldmatrix(a[mt], a_lane + (mt * 16 * LD + ks * 16) * 2);
#pragma unroll
    for (int np = 0; np < NT / 2; np++) {
      uint32_t b[4];
      ldmatrix(b, b_lane + (np * 16 * LD + ks * 16) * 2);
#pragma unroll
      for (int mt = 0; mt < MT; mt++) {
        mma_bf16(c[mt][2 * np], a[mt], b[0], b[1]);
        mma_bf16(c[mt][2 * np + 1], a[mt], b[2], b[3]);
      }
    }
  }
}
// The same with a in registers.
template <int HDP, int MT, int NT>
DEVICE void product(float (&c)[MT][NT][4], const uint32_t (&a)[MT][HDP / 16][4], uint32_t b_lane) {
  constexpr int LD = HDP + 8;
#pragma unroll
  for (int ks = 0; ks < HDP / 16; ks++)
#pragma unroll
    for (int np = 0; np < NT / 2; np++) {
      uint32_t b[4];
      ldmatrix(b, b_lane + (np * 16 * LD + ks * 16) * 2);
#pragma unroll
      for (int mt = 0; mt < MT; mt++) {
        mma_bf16(c[mt][2 * np], a[mt][ks], b[0], b[1]);
        mma_bf16(c[mt][2 * np + 1], a[mt][ks], b[2], b[3]);
      }
    }
}
// c[MT·16, HDP] += p·b for p [MT·16, NT·8] in registers and b [NT·8, HDP] in
// shared memory by rows.
template <int HDP, int MT, int NT>
DEVICE void product_rows(float (&c)[MT][HDP / 8][4], const float (&p)[MT][NT][4], uint32_t b_lane) {
  constexpr int LD = HDP + 8;
#pragma unroll
  for (int ks = 0; ks < NT / 2; ks++) {
    uint32_t a[MT][4];
#pragma unroll
    for (int mt = 0; mt < MT; mt++) as_left(a[mt], p[mt][2 * ks], p[mt][2 * ks + 1]);
#pragma unroll
    for (int np = 0; np < HDP / 16; np++) {
      uint32_t b[4];
      ldmatrix_trans(b, b_lane + (ks * 16 * LD + np * 16) * 2);
#pragma unroll
      for (int mt = 0; mt < MT; mt++) {
        mma_bf16(c[mt][2 * np], a[mt], b[0], b[1]);
        mma_bf16(c[mt][2 * np + 1], a[mt], b[2], b[3]);
      }
    }
  }
}

template <int A, int B>
DEVICE void zero(float (&c)[A][B][4]) {
#pragma unroll
  for (int i = 0; i < A; i++)
#pragma unroll
    for (int j = 0; j < B; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) c[i][j][e] = 0;
}

// Scales a warp's sums, rotates them back if cos is not NULL (row r of the
// warp has position first + r), and leaves them as bf16 in shared memory.
template <int HDP, int MT>
DEVICE void finish(bf16* rows, float (&c)[MT][HDP / 8][4], float scale, const float* cos, const float* sin, int first, const Shape& s) {
  constexpr int LD = HDP + 8;
  int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int mt = 0; mt < MT; mt++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      int row = mt * 16 + r * 8 + g;
      size_t at = (size_t)min(first + row, s.T - 1) * (s.hd / 2) + t;
#pragma unroll
      for (int n = 0; n < HDP / 8; n++) {
        float a = c[mt][n][2 * r] * scale, b = c[mt][n][2 * r + 1] * scale;
        if (cos && n * 8 + 2 * t < s.hd) {
          float cs = cos[at + n * 4], sn = sin[at + n * 4], a0 = a;
          a = a0 * cs + b * sn;
          b = b * cs - a0 * sn;
        }
        *(uint32_t*)(rows + row * LD + n * 8 + 2 * t) = pack_bf16(a, b);
      }
    }
}

// ---- forward ----

template <int HDP, int MT, int BN>
DEVICE void forward(unsigned char* shared, bf16* o, float* lse, bf16* q, const bf16* k, const bf16* v, const float* cos, const float* sin,
                    const uint32_t* mask, float keep, const Shape s) {
  constexpr int BM = kWarps * 16 * MT, LD = HDP + 8, NT = BN / 8;
  constexpr uint32_t STAGE = 2 * BN * LD * 2, V = BN * LD * 2;
  bf16* const sq = (bf16*)shared;
  const uint32_t aq = shared_address(shared), stages = aq + BM * LD * 2;
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int q0 = ((int)gridDim.x - 1 - (int)blockIdx.x) * BM, h = blockIdx.y, b = blockIdx.z;
  const int w0 = warp * 16 * MT, i0 = q0 + w0; // the warp's first row
  const bool wide = s.wide();
  q += (size_t)b * s.T * s.q_row + (size_t)h * s.q_head + (size_t)q0 * s.q_row;
  const size_t kv = (size_t)b * s.T * s.k_row + (size_t)(h / (s.heads / s.kv_heads)) * s.k_head;
  k += kv, v += kv;

  auto load = [&](int tile) {
    uint32_t at = stages + (tile & 1) * STAGE;
    size_t from = (size_t)tile * BN * s.k_row;
    load_tile<HDP, BN>(at, k + from, s.k_row, s.T - tile * BN, s.hd, wide);
    load_tile<HDP, BN>(at + V, v + from, s.k_row, s.T - tile * BN, s.hd, wide);
    cp_async_commit();
  };
  load_tile<HDP, BM>(aq, q, s.q_row, s.T - q0, s.hd, wide);
  load(0);
  if (cos) { // rotate q here and for the backward
    cp_async_wait<0>();
    __syncthreads();
    const int half = s.hd / 2, rows = min(BM, s.T - q0);
    if (wide) {
      const int c8 = s.hd / 8;
      for (int i = threadIdx.x; i < rows * c8; i += kThreads) {
        int r = i / c8, c = i % c8;
        size_t at = (size_t)(q0 + r) * half + c * 4;
        uint4 x = rotate8(load8(sq + r * LD + c * 8), *(const float4*)(cos + at), *(const float4*)(sin + at));
        store8(sq + r * LD + c * 8, x);
        store8(q + (size_t)r * s.q_row + c * 8, x);
      }
    } else {
      for (int i = threadIdx.x; i < rows * half; i += kThreads) {
        int r = i / half, c = i % half;
        size_t at = (size_t)(q0 + r) * half + c;
        uint32_t* p = (uint32_t*)(sq + r * LD + c * 2);
        *p = rotate2(*p, cos[at], sin[at]);
        *(uint32_t*)(q + (size_t)r * s.q_row + c * 2) = *p;
      }
    }
  }

  float acc[MT][HDP / 8][4], top[MT][2], sum[MT][2];
  zero(acc);
#pragma unroll
  for (int mt = 0; mt < MT; mt++) top[mt][0] = top[mt][1] = -INFINITY, sum[mt][0] = sum[mt][1] = 0;
  const float scale = rsqrtf((float)s.hd), c2 = scale * LOG2E;
  const int words = (s.T + 31) / 32;
  const size_t bh = (size_t)b * s.heads + h;
  uint32_t aqf[HDP <= 64 ? MT : 1][HDP / 16][4];

  const int tiles = (min(s.T, q0 + BM) + BN - 1) / BN;
  for (int tile = 0; tile < tiles; tile++) {
    cp_async_wait<0>();
    __syncthreads();
    if (tile + 1 < tiles) load(tile + 1);
    if constexpr (HDP <= 64) {
      if (tile == 0) {
#pragma unroll
        for (int mt = 0; mt < MT; mt++)
#pragma unroll
          for (int ks = 0; ks < HDP / 16; ks++) ldmatrix(aqf[mt][ks], lane_left<LD>(aq + w0 * LD * 2) + (mt * 16 * LD + ks * 16) * 2);
      }
    }
    const int j0 = tile * BN;
    if (j0 > i0 + 16 * MT - 1) continue; // above the diagonal
    const uint32_t at = stages + (tile & 1) * STAGE;
    float p[MT][NT][4];
    zero(p);
    if constexpr (HDP <= 64)
      product<HDP, MT, NT>(p, aqf, lane_right<LD>(at));
    else
      product<HDP, MT, NT>(p, lane_left<LD>(aq + w0 * LD * 2), lane_right<LD>(at));
    if (j0 + BN - 1 > i0) {
#pragma unroll
      for (int mt = 0; mt < MT; mt++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
          for (int e = 0; e < 4; e++)
            if (j0 + n * 8 + 2 * t + (e & 1) > i0 + mt * 16 + (e >> 1) * 8 + g) p[mt][n][e] = -INFINITY;
    }
#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float m = top[mt][r];
#pragma unroll
        for (int n = 0; n < NT; n++) m = fmaxf(m, fmaxf(p[mt][n][2 * r], p[mt][n][2 * r + 1]));
        m = fmaxf(m, shuffle_xor(m, 1));
        m = fmaxf(m, shuffle_xor(m, 2));
        const float fade = exp2_fast((top[mt][r] - m) * c2), mc = m * c2;
        top[mt][r] = m;
        float l = 0;
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
          for (int e = 2 * r; e < 2 * r + 2; e++) {
            p[mt][n][e] = exp2_fast(p[mt][n][e] * c2 - mc);
            l += p[mt][n][e];
          }
        sum[mt][r] = sum[mt][r] * fade + l;
#pragma unroll
        for (int n = 0; n < HDP / 8; n++) acc[mt][n][2 * r] *= fade, acc[mt][n][2 * r + 1] *= fade;
        if (mask) {
          const uint32_t* row = mask + (bh * s.T + min(i0 + mt * 16 + r * 8 + g, s.T - 1)) * words + j0 / 32;
#pragma unroll
          for (int w = 0; w < BN / 32; w++) {
            uint32_t bits = j0 / 32 + w < words ? row[w] >> (2 * t) : 0;
#pragma unroll
            for (int n = 0; n < 4; n++) {
              if (!(bits >> (n * 8) & 1)) p[mt][w * 4 + n][2 * r] = 0;
              if (!(bits >> (n * 8 + 1) & 1)) p[mt][w * 4 + n][2 * r + 1] = 0;
            }
          }
        }
      }
    product_rows<HDP, MT, NT>(acc, p, lane_left<LD>(at + V));
  }

#pragma unroll
  for (int mt = 0; mt < MT; mt++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float l = sum[mt][r];
      l += shuffle_xor(l, 1);
      l += shuffle_xor(l, 2);
      int i = i0 + mt * 16 + r * 8 + g;
      if (t == 0 && i < s.T) lse[bh * s.T + i] = top[mt][r] * scale + __logf(l);
      const float f = keep / l;
#pragma unroll
      for (int n = 0; n < HDP / 8; n++) acc[mt][n][2 * r] *= f, acc[mt][n][2 * r + 1] *= f;
    }
  __syncwarp(); // a warp reads only its own rows of q; now all its lanes have
  bf16* rows = sq + w0 * LD;
  finish<HDP, MT>(rows, acc, 1, nullptr, nullptr, i0, s);
  __syncwarp();
  store_rows<HDP>(o + ((size_t)b * s.T + i0) * s.heads * s.hd + (size_t)h * s.hd, s.heads * s.hd, rows, 16 * MT, s.T - i0, s.hd, wide);
}

// ---- backward, queries: dq and δ ----

template <int HDP, int MT, int BN>
DEVICE void backward_q(unsigned char* shared, bf16* dq, float* delta, const bf16* dout, const bf16* o, const float* lse, const bf16* q,
                       const bf16* k, const bf16* v, const float* cos, const float* sin, const uint32_t* mask, float keep, const Shape s) {
  constexpr int BM = kWarps * 16 * MT, LD = HDP + 8, NT = BN / 8;
  constexpr uint32_t STAGE = 2 * BN * LD * 2, V = BN * LD * 2;
  bf16* const sq = (bf16*)shared;
  bf16* const sdo = sq + BM * LD;
  const uint32_t aq = shared_address(shared), ado = aq + BM * LD * 2, stages = ado + BM * LD * 2;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int q0 = ((int)gridDim.x - 1 - (int)blockIdx.x) * BM, h = blockIdx.y, b = blockIdx.z;
  const int w0 = warp * 16 * MT, i0 = q0 + w0;
  const bool wide = s.wide();
  const size_t qat = (size_t)b * s.T * s.q_row + (size_t)h * s.q_head + (size_t)q0 * s.q_row;
  const int o_row = s.heads * s.hd;
  const size_t oat = ((size_t)b * s.T + q0) * o_row + (size_t)h * s.hd;
  const size_t kv = (size_t)b * s.T * s.k_row + (size_t)(h / (s.heads / s.kv_heads)) * s.k_head;
  const size_t bh = (size_t)b * s.heads + h;
  k += kv, v += kv;

  auto load = [&](int tile) {
    uint32_t at = stages + (tile & 1) * STAGE;
    size_t from = (size_t)tile * BN * s.k_row;
    load_tile<HDP, BN>(at, k + from, s.k_row, s.T - tile * BN, s.hd, wide);
    load_tile<HDP, BN>(at + V, v + from, s.k_row, s.T - tile * BN, s.hd, wide);
    cp_async_commit();
  };
  load_tile<HDP, BM>(aq, q + qat, s.q_row, s.T - q0, s.hd, wide);
  load_tile<HDP, BM>(ado, dout + oat, o_row, s.T - q0, s.hd, wide);
  load(0);
  cp_async_wait<0>();
  __syncthreads();

  float del[MT][2], lse2[MT][2];
#pragma unroll
  for (int mt = 0; mt < MT; mt++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      int i = i0 + mt * 16 + r * 8 + g;
      lse2[mt][r] = i < s.T ? lse[bh * s.T + i] * LOG2E : 0;
      // The quad that owns a row sums its products, 4 bytes a lane at a time.
      float d = 0;
      if (i < s.T) {
        const bf16* orow = o + oat + (size_t)(i - q0) * o_row;
        const bf16* drow = sdo + (i - q0) * LD;
#pragma unroll
        for (int n = 0; n < HDP / 8; n++) {
          int c = n * 8 + 2 * t;
          if (c < s.hd) {
            uint32_t x = *(const uint32_t*)(orow + c), y = *(const uint32_t*)(drow + c);
            d += low_float(x) * low_float(y) + high_float(x) * high_float(y);
          }
        }
      }
      d += shuffle_xor(d, 1);
      d += shuffle_xor(d, 2);
      del[mt][r] = d;
      if (t == 0 && i < s.T) delta[bh * s.T + i] = d;
    }

  float acc[MT][HDP / 8][4];
  zero(acc);
  const float scale = rsqrtf((float)s.hd), c2 = scale * LOG2E;
  const int words = (s.T + 31) / 32;
  const uint32_t lq = lane_left<LD>(aq + w0 * LD * 2), ldo = lane_left<LD>(ado + w0 * LD * 2);
  const int tiles = (min(s.T, q0 + BM) + BN - 1) / BN;
  for (int tile = 0; tile < tiles; tile++) {
    cp_async_wait<0>();
    __syncthreads();
    if (tile + 1 < tiles) load(tile + 1);
    const int j0 = tile * BN;
    if (j0 > i0 + 16 * MT - 1) continue;
    const uint32_t at = stages + (tile & 1) * STAGE;
    float p[MT][NT][4], dp[MT][NT][4];
    zero(p);
    product<HDP, MT, NT>(p, lq, lane_right<LD>(at));
    zero(dp);
    product<HDP, MT, NT>(dp, ldo, lane_right<LD>(at + V));
    const bool diagonal = j0 + BN - 1 > i0;
#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const int i = i0 + mt * 16 + r * 8 + g;
        const float d = del[mt][r], l = lse2[mt][r];
#pragma unroll
        for (int w = 0; w < BN / 32; w++) {
          uint32_t bits = 0xffffffffu;
          if (mask) bits = j0 / 32 + w < words ? mask[(bh * s.T + min(i, s.T - 1)) * words + j0 / 32 + w] >> (2 * t) : 0;
#pragma unroll
          for (int n = 0; n < 4; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
              float& x = p[mt][w * 4 + n][2 * r + e];
              float y = dp[mt][w * 4 + n][2 * r + e];
              if (mask) y = bits >> (n * 8 + e) & 1 ? y * keep : 0;
              x = exp2_fast(x * c2 - l) * (y - d);
              if (diagonal && j0 + w * 32 + n * 8 + 2 * t + e > i) x = 0;
            }
        }
      }
    product_rows<HDP, MT, NT>(acc, p, lane_left<LD>(at));
  }
  __syncwarp(); // a warp reads only its own rows of q; now all its lanes have
  bf16* rows = sq + w0 * LD;
  finish<HDP, MT>(rows, acc, scale, cos, sin, i0, s);
  __syncwarp();
  store_rows<HDP>(dq + qat + (size_t)w0 * s.q_row, s.q_row, rows, 16 * MT, s.T - i0, s.hd, wide);
}

// ---- backward, keys: dk and dv ----

// The products are those of Sᵀ, whose rows are keys: queries stream in tiles
// of BQ, 32 at a time.
template <int HDP, int MT, int BQ>
DEVICE void backward_kv(unsigned char* shared, bf16* dk, bf16* dv, const bf16* dout, const float* delta, const float* lse, const bf16* q,
                        const bf16* k, const bf16* v, const float* cos, const float* sin, const uint32_t* mask, float keep, const Shape s) {
  constexpr int BK = kWarps * 16 * MT, LD = HDP + 8, QS = 32, NT = QS / 8;
  constexpr uint32_t DO = BQ * LD * 2, LSE = 2 * DO, STAGE = LSE + 2 * BQ * 4;
  bf16* const sk = (bf16*)shared;
  bf16* const sv = sk + BK * LD;
  const uint32_t ak = shared_address(shared), av = ak + BK * LD * 2, stages = av + BK * LD * 2;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int k0 = blockIdx.x * BK, kvh = blockIdx.y, b = blockIdx.z;
  const int w0 = warp * 16 * MT, j0 = k0 + w0; // the warp's first key
  const bool wide = s.wide();
  const int o_row = s.heads * s.hd, group = s.heads / s.kv_heads;
  const size_t kat = (size_t)b * s.T * s.k_row + (size_t)kvh * s.k_head + (size_t)k0 * s.k_row;
  const int first = k0 / BQ, count = (s.T + BQ - 1) / BQ - first; // tiles of queries of one head

  auto load = [&](int it) {
    const int h = kvh * group + it / count, i = (first + it % count) * BQ;
    uint32_t at = stages + (it & 1) * STAGE;
    load_tile<HDP, BQ>(at, q + (size_t)b * s.T * s.q_row + (size_t)h * s.q_head + (size_t)i * s.q_row, s.q_row, s.T - i, s.hd, wide);
    load_tile<HDP, BQ>(at + DO, dout + ((size_t)b * s.T + i) * o_row + (size_t)h * s.hd, o_row, s.T - i, s.hd, wide);
    if (threadIdx.x < 2 * BQ) {
      int r = threadIdx.x % BQ;
      const float* from = (threadIdx.x < BQ ? lse : delta) + ((size_t)b * s.heads + h) * s.T;
      cp_async4(at + LSE + threadIdx.x * 4, i + r < s.T ? from + i + r : from, i + r < s.T ? 4 : 0);
    }
    cp_async_commit();
  };
  load_tile<HDP, BK>(ak, k + kat, s.k_row, s.T - k0, s.hd, wide);
  load_tile<HDP, BK>(av, v + kat, s.k_row, s.T - k0, s.hd, wide);
  load(0);

  float dka[MT][HDP / 8][4], dva[MT][HDP / 8][4];
  zero(dka);
  zero(dva);
  const float scale = rsqrtf((float)s.hd), c2 = scale * LOG2E;
  const int words = (s.T + 31) / 32;
  const uint32_t lk = lane_left<LD>(ak + w0 * LD * 2), lv = lane_left<LD>(av + w0 * LD * 2);
  for (int it = 0; it < count * group; it++) {
    cp_async_wait<0>();
    __syncthreads();
    if (it + 1 < count * group) load(it + 1);
    const uint32_t stage = (it & 1) * STAGE;
    const float* const slse = (const float*)(shared + (stages - ak) + stage + LSE);
    const size_t bh = (size_t)b * s.heads + kvh * group + it / count;
#pragma unroll 1
    for (int sub = 0; sub < BQ; sub += QS) {
      const int i0 = (first + it % count) * BQ + sub; // the first query
      if (j0 > i0 + QS - 1) continue;                 // above the diagonal
      const uint32_t at = stages + stage + sub * LD * 2;
      float p[MT][NT][4], d[MT][NT][4];
      zero(p);
      product<HDP, MT, NT>(p, lk, lane_right<LD>(at));
      const bool diagonal = j0 + 16 * MT - 1 > i0;
      uint32_t bits = 0xffffffffu; // of query i0 + lane for this warp's keys
      if (mask) bits = i0 + lane < s.T ? mask[(bh * s.T + i0 + lane) * words + min(j0 / 32, words - 1)] >> (j0 % 32) : 0;
#pragma unroll
      for (int n = 0; n < NT; n++) {
        const float2 l = *(const float2*)(slse + sub + n * 8 + 2 * t);
        uint32_t bit[2] = {0, 0};
        if (mask) bit[0] = shuffle(bits, n * 8 + 2 * t) >> g, bit[1] = shuffle(bits, n * 8 + 2 * t + 1) >> g;
#pragma unroll
        for (int mt = 0; mt < MT; mt++)
#pragma unroll
          for (int e = 0; e < 4; e++) {
            float x = exp2_fast(p[mt][n][e] * c2 - (e & 1 ? l.y : l.x) * LOG2E);
            if (diagonal && j0 + mt * 16 + (e >> 1) * 8 + g > i0 + n * 8 + 2 * t + (e & 1)) x = 0;
            p[mt][n][e] = x;
            d[mt][n][e] = mask && !(bit[e & 1] >> (mt * 16 + (e >> 1) * 8) & 1) ? 0 : x;
          }
      }
      product_rows<HDP, MT, NT>(dva, d, lane_left<LD>(at + DO));
      float dp[MT][NT][4];
      zero(dp);
      product<HDP, MT, NT>(dp, lv, lane_right<LD>(at + DO));
#pragma unroll
      for (int n = 0; n < NT; n++) {
        const float2 del = *(const float2*)(slse + BQ + sub + n * 8 + 2 * t);
        uint32_t bit[2] = {0, 0};
        if (mask) bit[0] = shuffle(bits, n * 8 + 2 * t) >> g, bit[1] = shuffle(bits, n * 8 + 2 * t + 1) >> g;
#pragma unroll
        for (int mt = 0; mt < MT; mt++)
#pragma unroll
          for (int e = 0; e < 4; e++) {
            float y = dp[mt][n][e];
            if (mask) y = bit[e & 1] >> (mt * 16 + (e >> 1) * 8) & 1 ? y * keep : 0;
            p[mt][n][e] *= y - (e & 1 ? del.y : del.x);
          }
      }
      product_rows<HDP, MT, NT>(dka, p, lane_left<LD>(at));
    }
  }
  __syncwarp(); // a warp reads only its own rows of k and v; now all its lanes have
  bf16 *rk = sk + w0 * LD, *rv = sv + w0 * LD;
  finish<HDP, MT>(rk, dka, scale, cos, sin, j0, s);
  finish<HDP, MT>(rv, dva, keep, nullptr, nullptr, j0, s);
  __syncwarp();
  const size_t out = kat + (size_t)w0 * s.k_row;
  store_rows<HDP>(dk + out, s.k_row, rk, 16 * MT, s.T - j0, s.hd, wide);
  store_rows<HDP>(dv + out, s.k_row, rv, 16 * MT, s.T - j0, s.hd, wide);
}

} // namespace

// attention_forward_W rotates q in place when cos is not NULL (k must be
// rotated before: rope), then o and lse. Rows a block BM = 128.
// launch: grid (⌈T/128⌉, heads, batch), block 128, dynamic shared
// (128 + 4·BN)·(W + 8)·2 bytes with BN = 64, for W = 128: 32 (32: 30720,
// 64: 55296, 96: 79872, 128: 69632); arguments (bf16* o, float* lse, bf16* q,
// const bf16* k, const bf16* v, const float* cos, const float* sin, const
// uint32* mask, float keep, int T, int heads, int kv_heads, int hd, int q_row,
// int q_head, int k_row, int k_head).
#define FORWARD(W, MT, BN, BLOCKS)                                                                                                  \
  KERNEL(128, BLOCKS)                                                                                                               \
  attention_forward_##W(bf16* o, float* lse, bf16* q, const bf16* k, const bf16* v, const float* cos, const float* sin,             \
                        const uint32_t* mask, float keep, int T, int heads, int kv_heads, int hd, int q_row, int q_head, int k_row, \
                        int k_head) {                                                                                               \
    DYNAMIC_SHARED(shared);                                                                                                         \
    forward<W, MT, BN>(shared, o, lse, q, k, v, cos, sin, mask, keep, Shape{T, heads, kv_heads, hd, q_row, q_head, k_row, k_head}); \
  }
FORWARD(32, 2, 64, 2)
FORWARD(64, 2, 64, 2)
FORWARD(96, 2, 64, 2)
FORWARD(128, 2, 32, 2)

// attention_dq_W: dq, rotated back when cos is not NULL, and delta. q and k
// are rotated. Run it before attention_dkv_W, which reads delta.
// launch: grid (⌈T/BM⌉, heads, batch) with BM = 128, for W = 128: 64; block
// 128, dynamic shared (2·BM + 128)·(W + 8)·2 bytes (32: 30720, 64: 55296, 96:
// 79872, 128: 69632); arguments (bf16* dq, float* delta, const bf16* do, const
// bf16* o, const float* lse, const bf16* q, const bf16* k, const bf16* v, const
// float* cos, const float* sin, const uint32* mask, float keep, int T, int
// heads, int kv_heads, int hd, int q_row, int q_head, int k_row, int k_head).
#define BACKWARD_Q(W, MT, BN, BLOCKS)                                                                                              \
  KERNEL(128, BLOCKS)                                                                                                              \
  attention_dq_##W(bf16* dq, float* delta, const bf16* dout, const bf16* o, const float* lse, const bf16* q, const bf16* k,        \
                   const bf16* v, const float* cos, const float* sin, const uint32_t* mask, float keep, int T, int heads,          \
                   int kv_heads, int hd, int q_row, int q_head, int k_row, int k_head) {                                           \
    DYNAMIC_SHARED(shared);                                                                                                        \
    backward_q<W, MT, BN>(shared, dq, delta, dout, o, lse, q, k, v, cos, sin, mask, keep,                                          \
                          Shape{T, heads, kv_heads, hd, q_row, q_head, k_row, k_head});                                            \
  }
BACKWARD_Q(32, 2, 32, 2)
BACKWARD_Q(64, 2, 32, 2)
BACKWARD_Q(96, 2, 32, 2)
BACKWARD_Q(128, 1, 32, 2)

// attention_dkv_W: dk, rotated back when cos is not NULL, and dv.
// launch: grid (⌈T/BK⌉, kv_heads, batch) with BK = 128, for W = 96 and 128: 64;
// block 128, dynamic shared (2·BK + 4·BQ)·(W + 8)·2 + 16·BQ bytes with BQ = 64,
// for W = 128: 32 (32: 41984, 64: 74752, 96: 80896, 128: 70144); arguments
// (bf16* dk, bf16* dv, const bf16* do, const float* delta, const float* lse,
// const bf16* q, const bf16* k, const bf16* v, const float* cos, const float*
// sin, const uint32* mask, float keep, int T, int heads, int kv_heads, int hd,
// int q_row, int q_head, int k_row, int k_head).
#define BACKWARD_KV(W, MT, BQ, BLOCKS)                                                                                             \
  KERNEL(128, BLOCKS)                                                                                                              \
  attention_dkv_##W(bf16* dk, bf16* dv, const bf16* dout, const float* delta, const float* lse, const bf16* q, const bf16* k,      \
                    const bf16* v, const float* cos, const float* sin, const uint32_t* mask, float keep, int T, int heads,         \
                    int kv_heads, int hd, int q_row, int q_head, int k_row, int k_head) {                                          \
    DYNAMIC_SHARED(shared);                                                                                                        \
    backward_kv<W, MT, BQ>(shared, dk, dv, dout, delta, lse, q, k, v, cos, sin, mask, keep,                                        \
                           Shape{T, heads, kv_heads, hd, q_row, q_head, k_row, k_head});                                           \
  }
BACKWARD_KV(32, 2, 64, 2)
BACKWARD_KV(64, 2, 64, 2)
BACKWARD_KV(96, 1, 64, 2)
BACKWARD_KV(128, 1, 32, 2)

// rope rotates q [rows, heads] and k [rows, kv_heads] in place by the position
// row mod T; heads = 0 leaves q alone (attention_forward rotates it).
// launch: grid ⌈n/256⌉ with n = rows·(heads + kv_heads)·(hd/8 if hd and all
// strides are multiples of 8, else hd/2), block 256, no dynamic shared;
// arguments (bf16* q, bf16* k, const float* cos, const float* sin, int rows,
// int T, int heads, int kv_heads, int hd, int q_row, int q_head, int k_row, int
// k_head).
KERNEL(256, 4)
rope(bf16* q, bf16* k, const float* cos, const float* sin, int rows, int T, int heads, int kv_heads, int hd, int q_row, int q_head,
     int k_row, int k_head) {
  const bool wide = ((hd | q_row | q_head | k_row | k_head) & 7) == 0;
  const int width = wide ? hd / 8 : hd / 2, all = heads + kv_heads;
  size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
  if (i >= (size_t)rows * all * width) return;
  const int c = i % width, h = i / width % all, row = (int)(i / width / all);
  bf16* x = h < heads ? q + (size_t)row * q_row + (size_t)h * q_head : k + (size_t)row * k_row + (size_t)(h - heads) * k_head;
  const size_t at = (size_t)(row % T) * (hd / 2);
  if (wide)
    store8(x + c * 8, rotate8(load8(x + c * 8), *(const float4*)(cos + at + c * 4), *(const float4*)(sin + at + c * 4)));
  else
    *(uint32_t*)(x + c * 2) = rotate2(*(const uint32_t*)(x + c * 2), cos[at + c], sin[at + c]);
}

// attention_mask draws the bits of the weights up to the diagonal, with number
// (row·T + j) of the stream {seed, *step, layer, site 1} for weight j of row
// (b·heads + h)·T + i: kept where it is ≥ threshold = min(p·2³², 2³²−1). Words
// that lie wholly above the diagonal are not written.
// launch: grid (⌈W/8⌉, W, batch·heads) with W = ⌈T/32⌉, block 256, no dynamic
// shared; arguments (uint32* mask, const uint64* step, uint64 seed, uint32
// layer, uint32 threshold, int T).
KERNEL(256, 4)
attention_mask(uint32_t* mask, const uint64_t* step, uint64_t seed, uint32_t layer, uint32_t threshold, int T) {
  // Rows 32y … 32y+31 have y+1 words each.
  const int words = (T + 31) / 32, each = blockIdx.y + 1, n = blockIdx.x * 256 + threadIdx.x;
  const int i = blockIdx.y * 32 + n / each, w = n % each;
  if (n >= 32 * each || i >= T) return;
  const uint64_t row = (uint64_t)blockIdx.z * T + i, at = row * T + w * 32, key = *step;
  const int lead = at % 4;
  uint64_t bits = 0;
#pragma unroll 4
  for (int n = 0; n < 8; n++) {
    uint32_t u[4];
    philox(u, seed, key, layer, 1, at / 4 + n);
#pragma unroll
    for (int e = 0; e < 4; e++) bits |= (uint64_t)(u[e] >= threshold) << (n * 4 + e);
  }
  if (lead) { // T is not a multiple of 4: the word reaches into a ninth block
    uint32_t u[4];
    philox(u, seed, key, layer, 1, at / 4 + 8);
#pragma unroll
    for (int e = 0; e < 4; e++) bits |= (uint64_t)(u[e] >= threshold) << (32 + e);
  }
  mask[row * words + w] = (uint32_t)(bits >> lead);
}
