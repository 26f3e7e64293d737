// Generation of one token with int8 arithmetic (SPEC §7), one launch a step so
// that a whole token is one graph. Every sum has the order of kernel/exact.go
// and no product is fused with an addition: given the same weights the results
// are those of the CPU, bit for bit.
//
// A linear layer's input is q int8 [n·K] with one scale and sums, int32 [n], of
// its parts. Ternary weights are packed 16 to a word: uint32 [n, N, ⌈K/16⌉],
// weight w of column 16i + 4e + b in bits 8b + 2e, 8b + 2e + 1 of word i as
// w + 1; columns from K on hold 1. state is {token, position}, which the host
// sets before each token.
#include "device.cuh"

namespace {

DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
DEVICE float add(float a, float b) { return __fadd_rn(a, b); }

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

// The sixteen accumulators' fold; lanes 0 … 15 and 16 … 31 fold apart.
DEVICE float fold16(float s) {
#pragma unroll
  for (int m = 8; m; m >>= 1) s = add(s, shuffle_xor(s, m));
  return s;
}

// kernel.ExactQuantize8 of z [d] in shared memory by a block, and the sums of
// its parts.
DEVICE void quantize(int8_t* q, float* scale, int* sums, const float* z, int d, int parts) {
  SHARED float scratch[32];
  SHARED int part[8];
  float most = 0;
  for (int i = threadIdx.x; i < d; i += blockDim.x) most = fmaxf(most, fabsf(z[i]));
  if (threadIdx.x < 8) part[threadIdx.x] = 0;
  most = block_max(most, scratch);
  const bool none = most < 4e-37f;
  const float inv = none ? 0 : 127 / most;
  const int width = d / parts;
  for (int i = threadIdx.x; i < d; i += blockDim.x) {
    const int x = none ? 0 : (int)rintf(fminf(fmaxf(mul(z[i], inv), -127.f), 127.f));
    q[i] = (int8_t)x;
    atomicAdd(&part[i / width], x); // of integers: any order
  }
  __syncthreads();
  if ((int)threadIdx.x < parts) sums[threadIdx.x] = part[threadIdx.x];
  if (threadIdx.x == 0) *scale = none ? 0 : most / 127;
}

// One output row by a warp: the products of row r of all n blocks with all n
// parts, each lane those of one block; y_i = Σ_j s[i][j]·x_j·W[i xor j]. WORDS
// are groups of four columns a weight word holds: 4 packed, 1 in int8.
template <int WORDS>
DEVICE void linear_row(float* y, const uint32_t* w, int N, int r, int words, int n, uint64_t signs, const int* x, const int* sums, float gain,
                       int* scratch) {
  const int lane = threadIdx.x % 32, each = 32 / n, k = lane / each;
  const uint32_t* row = w + ((size_t)k * N + r) * words;
  int acc[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (int i = lane % each; i < words; i += each) {
    const uint32_t u = row[i];
#pragma unroll
    for (int e = 0; e < WORDS; e++) {
      const int v = WORDS == 4 ? (int)(u >> (2 * e) & 0x03030303u) : (int)u;
#pragma unroll
      for (int j = 0; j < 8; j++)
        if (j < n) acc[j] = dot4(v, x[(j * words + i) * WORDS + e], acc[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < 8; j++) {
    if (j >= n) break;
    for (int m = each / 2; m; m >>= 1) acc[j] += shuffle_xor(acc[j], m);
    if (WORDS == 4) acc[j] -= sums[j]; // weights are one too large
    const int i = k ^ j;
    if (lane % each == 0) scratch[k * 8 + i] = signs >> (i * 8 + j) & 1 ? -acc[j] : acc[j];
  }
  __syncwarp();
  if (lane < n) {
    int sum = 0;
    for (int b = 0; b < n; b++) sum += scratch[b * 8 + lane];
    y[(size_t)lane * N + r] = mul((float)sum, gain);
  }
}

// Brings x [n, K] to shared memory, parts padded with zeros to words.
DEVICE void load_input(int8_t* x, const int8_t* q, int n, int K, int padded) {
  if (K % 4 == 0) {
    for (int i = threadIdx.x; i < n * padded / 4; i += blockDim.x) {
      const int j = i / (padded / 4), c = i % (padded / 4) * 4;
      ((int*)x)[i] = c < K ? *(const int*)(q + j * K + c) : 0;
    }
  } else {
    for (int i = threadIdx.x; i < n * padded; i += blockDim.x) x[i] = i % padded < K ? q[i / padded * K + i % padded] : (int8_t)0;
  }
}

} // namespace

// decode_embed: h = scale·row of the token.
// launch: grid ⌈d/256⌉, block 256, no dynamic shared; arguments (float* h, const
// int8* table, const float* scales, const int32* state, int d).
KERNEL(256, 1)
decode_embed(float* h, const int8_t* table, const float* scales, const int* state, int d) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  const size_t id = state[0];
  if (i < d) h[i] = mul(scales[id], (float)table[id * d + i]);
}

// decode_norm: h += t unless t is NULL, then q of RMSNorm(h)·w. parts divides d.
// launch: grid 1, block 512, dynamic shared 4·d bytes; arguments (int8* q, float*
// scale, int32* sums, float* h, const float* t, const float* w, int d, int
// parts, float eps).
KERNEL(512, 1)
decode_norm(int8_t* q, float* scale, int* sums, float* h, const float* t, const float* w, int d, int parts, float eps) {
  DYNAMIC_SHARED(shared);
  SHARED float shared_r;
  float* x = (float*)shared;
  for (int i = threadIdx.x; i < d; i += 512) {
    float v = h[i];
    if (t) h[i] = v = add(v, t[i]);
    x[i] = v;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    float s = 0;
#pragma unroll 8
    for (int i = threadIdx.x % 16; i < d; i += 16) s = add(s, mul(x[i], x[i]));
    s = fold16(s);
    if (threadIdx.x == 0) shared_r = 1 / sqrtf(add(s / (float)d, eps));
  }
  __syncthreads();
  const float r = shared_r;
  for (int i = threadIdx.x; i < d; i += 512) x[i] = mul(mul(x[i], r), w[i]);
  __syncthreads();
  quantize(q, scale, sums, x, d, parts);
}

// decode_quantize: q of x.
// launch: grid 1, block 512, dynamic shared 4·d bytes; arguments (int8* q, float*
// scale, int32* sums, const float* x, int d, int parts).
KERNEL(512, 1)
decode_quantize(int8_t* q, float* scale, int* sums, const float* x, int d, int parts) {
  DYNAMIC_SHARED(shared);
  float* z = (float*)shared;
  for (int i = threadIdx.x; i < d; i += 512) z[i] = x[i];
  __syncthreads();
  quantize(q, scale, sums, z, d, parts);
}

// decode_swiglu: q of silu(gate)∘up.
// launch: grid 1, block 512, dynamic shared 4·d bytes; arguments (int8* q, float*
// scale, int32* sums, const float* gate, const float* up, int d, int parts).
KERNEL(512, 1)
decode_swiglu(int8_t* q, float* scale, int* sums, const float* gate, const float* up, int d, int parts) {
  DYNAMIC_SHARED(shared);
  float* z = (float*)shared;
  for (int i = threadIdx.x; i < d; i += 512) {
    const float g = gate[i];
    z[i] = mul(g / add(1, exp_exact(-g)), up[i]);
  }
  __syncthreads();
  quantize(q, scale, sums, z, d, parts);
}

// decode_linear: up to three layers of one input (queries, keys, values; gate
// and up): y_i = float32(sum)·(scale·gain), packed weights of N0, N1, N2 rows a
// block (0: absent). n is 1, 2, 4 or 8; bit 8i + j of signs is set where
// s[i][j] = −1.
// launch: grid ⌈(N0+N1+N2)/4⌉, block 128, dynamic shared n·⌈K/16⌉·16 bytes;
// arguments (float* y0, float* y1, float* y2, const uint32* w0, const uint32*
// w1, const uint32* w2, const float* gain0, const float* gain1, const float*
// gain2, int N0, int N1, int N2, int K, int n, uint64 signs, const int8* q,
// const float* scale, const int32* sums).
KERNEL(128, 8)
decode_linear(float* y0, float* y1, float* y2, const uint32_t* w0, const uint32_t* w1, const uint32_t* w2, const float* gain0, const float* gain1,
              const float* gain2, int N0, int N1, int N2, int K, int n, uint64_t signs, const int8_t* q, const float* scale, const int* sums) {
  DYNAMIC_SHARED(shared);
  SHARED int scratch[4][64];
  const int words = (K + 15) / 16, warp = threadIdx.x / 32;
  load_input((int8_t*)shared, q, n, K, words * 16);
  __syncthreads();
  int r = blockIdx.x * 4 + warp;
  if (r >= N0 + N1 + N2) return;
  float* y = y0;
  const uint32_t* w = w0;
  const float* gain = gain0;
  int N = N0;
  if (r >= N0 + N1)
    r -= N0 + N1, y = y2, w = w2, gain = gain2, N = N2;
  else if (r >= N0)
    r -= N0, y = y1, w = w1, gain = gain1, N = N1;
  linear_row<4>(y, w, N, r, words, n, signs, (const int*)shared, sums, mul(*scale, gain[r]), scratch[warp]);
}

// decode_mixer: the head mixer, int8 weights [n, N, ⌈K/4⌉·4] (transposed: row c
// holds what output c reads, padded with zeros), for each group of n heads.
// launch: grid (⌈N/4⌉, groups), block 128, dynamic shared n·⌈K/4⌉·4 bytes;
// arguments (float* y, const int8* w, const float* gain, int N, int K, int n,
// uint64 signs, const int8* q, const float* scale).
KERNEL(128, 8)
decode_mixer(float* y, const int8_t* w, const float* gain, int N, int K, int n, uint64_t signs, const int8_t* q, const float* scale) {
  DYNAMIC_SHARED(shared);
  SHARED int scratch[4][64];
  const int words = (K + 3) / 4, warp = threadIdx.x / 32, r = blockIdx.x * 4 + warp;
  load_input((int8_t*)shared, q + (size_t)blockIdx.y * n * K, n, K, words * 4);
  __syncthreads();
  if (r >= N) return;
  linear_row<1>(y + (size_t)blockIdx.y * n * N, (const uint32_t*)w, N, r, words, n, signs, (const int*)shared, nullptr, mul(*scale, gain[r]),
                scratch[warp]);
}

// decode_attend: rotates the token's query and key by rot (cosines, then sines,
// [hd/2] each), puts key and value into the cache at slot position mod ring, and
// attends to the last block positions: o = softmax(scale·q·Kᵀ)·V. keys, values:
// float [kv_heads, ring, hd]; block ≤ ring.
// launch: grid heads, block 256, dynamic shared (2·hd + block)·4 bytes; arguments
// (float* o, const float* q, const float* k, const float* v, float* keys, float*
// values, const float* rot, const int32* state, int heads, int kv_heads, int hd,
// int ring, int block, float scale). hd is even and at most 256.
KERNEL(256, 1)
decode_attend(float* o, const float* q, const float* k, const float* v, float* keys, float* values, const float* rot, const int* state, int heads,
              int kv_heads, int hd, int ring, int block, float scale) {
  DYNAMIC_SHARED(shared);
  SHARED float scratch[32];
  SHARED float shared_sum;
  float *sq = (float*)shared, *sk = sq + hd, *p = sk + hd;
  const int h = blockIdx.x, share = heads / kv_heads, g = h / share, pos = state[1];
  const int first = max(0, pos - block + 1), n = pos - first + 1, start = first % ring;
  q += (size_t)h * hd, k += (size_t)g * hd, v += (size_t)g * hd;
  keys += (size_t)g * ring * hd, values += (size_t)g * ring * hd;
  if ((int)threadIdx.x < hd / 2) {
    const int m = threadIdx.x;
    const float c = rot[m], s = rot[hd / 2 + m];
    sq[2 * m] = add(mul(q[2 * m], c), -mul(q[2 * m + 1], s)), sq[2 * m + 1] = add(mul(q[2 * m + 1], c), mul(q[2 * m], s));
    sk[2 * m] = add(mul(k[2 * m], c), -mul(k[2 * m + 1], s)), sk[2 * m + 1] = add(mul(k[2 * m + 1], c), mul(k[2 * m], s));
  }
  __syncthreads();
  auto slot = [&](int i) {
    int at = start + i;
    return at >= ring ? at - ring : at;
  };
  if (h % share == 0 && (int)threadIdx.x < hd) {
    const size_t at = (size_t)(pos % ring) * hd + threadIdx.x;
    keys[at] = sk[threadIdx.x], values[at] = v[threadIdx.x];
  }
  // Sixteen lanes a position, each one accumulator.
  const int lane = threadIdx.x % 16;
  float top = -INFINITY;
  for (int i0 = 0; i0 < n; i0 += 16) {
    const int i = i0 + threadIdx.x / 16;
    float s = 0;
    if (i < n) {
      const float* key = i == n - 1 ? sk : keys + (size_t)slot(i) * hd;
      for (int c = lane; c < hd; c += 16) s = add(s, mul(sq[c], key[c]));
    }
    s = mul(scale, fold16(s));
    if (i < n) {
      top = fmaxf(top, s);
      if (lane == 0) p[i] = s;
    }
  }
  top = block_max(top, scratch);
  for (int i = threadIdx.x; i < n; i += 256) p[i] = exp_exact(add(p[i], -top));
  __syncthreads();
  if (threadIdx.x < 32) {
    float s = 0;
#pragma unroll 8
    for (int i = lane; i < n; i += 16) s = add(s, p[i]);
    s = fold16(s);
    if (threadIdx.x == 0) shared_sum = 1 / s;
  }
  __syncthreads();
  const float inv = shared_sum;
  if ((int)threadIdx.x < hd) {
    float s = 0;
    const int c = threadIdx.x;
#pragma unroll 8
    for (int i = 0; i < n - 1; i++) s = add(s, mul(mul(p[i], inv), values[(size_t)slot(i) * hd + c]));
    o[(size_t)h * hd + c] = add(s, mul(mul(p[n - 1], inv), v[c]));
  }
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
