// Generation of one token with int8 arithmetic (SPEC §7), one launch a step so
// that a whole token is one graph. Every sum has the order of kernel/exact.go
// and no product is fused with an addition: given the same weights the results
// are those of the CPU, bit for bit.
//
// Each block of a linear layer rounds the layer's input itself (a launch costs
// more than 512 roundings). Ternary weights are packed 16 to a word: uint32 [n, N, ⌈K/16⌉],
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

enum { kNorm = 0, kPlain = 1, kSwiGLU = 2 };

// What a linear layer reads, z [d] in shared memory, by a block:
//
//	kNorm     RMSNorm(a + b)·w, b may be NULL; the sum goes to sum, which may be NULL and is not a
//	kPlain    a
//	kSwiGLU   silu(a)∘b
DEVICE void prepare(float* z, int input, const float* a, const float* b, const float* w, float* sum, int d, float eps) {
  SHARED float shared_r;
  for (int i = threadIdx.x; i < d; i += blockDim.x) {
    float v = a[i];
    if (input == kNorm) {
      if (b) v = add(v, b[i]);
      if (sum) sum[i] = v;
    } else if (input == kSwiGLU) {
      v = mul(v / add(1, exp_exact(-v)), b[i]);
    }
    z[i] = v;
  }
  __syncthreads();
  if (input != kNorm) return;
  if (threadIdx.x < 32) {
    float s = 0;
#pragma unroll 8
    for (int i = threadIdx.x % 16; i < d; i += 16) s = add(s, mul(z[i], z[i]));
    s = fold16(s);
    if (threadIdx.x == 0) shared_r = 1 / sqrtf(add(s / (float)d, eps));
  }
  __syncthreads();
  const float r = shared_r;
  for (int i = threadIdx.x; i < d; i += blockDim.x) z[i] = mul(mul(z[i], r), w[i]);
  __syncthreads();
}

// kernel.ExactQuantize8 of z [d]: to q, part j of K values at q + j·padded, zeros
// between; and the sums of n parts from part first on. Returns the scale.
DEVICE float quantize(int8_t* q, int* sums, const float* z, int d, int first, int n, int K, int padded) {
  SHARED float scratch[32];
  float most = 0;
  for (int i = threadIdx.x; i < d; i += blockDim.x) most = fmaxf(most, fabsf(z[i]));
  if (threadIdx.x < 8) sums[threadIdx.x] = 0;
  most = block_max(most, scratch);
  const bool none = most < 4e-37f;
  const float inv = none ? 0 : 127 / most;
  for (int j = 0; j < n; j++) {
    int sum = 0;
    for (int c = threadIdx.x; c < padded; c += blockDim.x) {
      const int x = none || c >= K ? 0 : (int)rintf(fminf(fmaxf(mul(z[(first + j) * K + c], inv), -127.f), 127.f));
      q[j * padded + c] = (int8_t)x;
      sum += x;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0 && sum) atomicAdd(&sums[j], sum); // of integers: any order
  }
  __syncthreads();
  return none ? 0 : most / 127;
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

// decode_norm: q int8 [d] and its scale of RMSNorm(a + b)·w, for decode_logits;
// b may be NULL.
// launch: grid 1, block 512, dynamic shared 4·d bytes; arguments (int8* q, float*
// scale, const float* a, const float* b, const float* w, int d, float eps).
KERNEL(512, 1)
decode_norm(int8_t* q, float* scale, const float* a, const float* b, const float* w, int d, float eps) {
  DYNAMIC_SHARED(shared);
  SHARED int sums[8];
  float* z = (float*)shared;
  prepare(z, kNorm, a, b, w, nullptr, d, eps);
  const float s = quantize(q, sums, z, d, 0, 1, d, d);
  if (threadIdx.x == 0) *scale = s;
}

// decode_linear: up to three layers of one input (queries, keys, values; gate
// and up): y_i = float32(sum)·(scale·gain), packed weights of N0, N1, N2 rows a
// block (0: absent). n is 1, 2, 4 or 8; bit 8i + j of signs is set where
// s[i][j] = −1. The input, of n·K values, is by input: 0 RMSNorm(a + b)·w (b may
// be NULL; sum receives a + b unless NULL, and is not a), 1 a, 2 silu(a)∘b.
// launch: grid ⌈(N0+N1+N2)/4⌉, block 128, dynamic shared n·(4·K + 16·⌈K/16⌉) + 16
// bytes; arguments (float* y0, float* y1, float* y2, const uint32* w0, const
// uint32* w1, const uint32* w2, const float* gain0, const float* gain1, const
// float* gain2, int N0, int N1, int N2, int K, int n, uint64 signs, int input,
// const float* a, const float* b, const float* w, float* sum, float eps).
KERNEL(128, 8)
decode_linear(float* y0, float* y1, float* y2, const uint32_t* w0, const uint32_t* w1, const uint32_t* w2, const float* gain0, const float* gain1,
              const float* gain2, int N0, int N1, int N2, int K, int n, uint64_t signs, int input, const float* a, const float* b, const float* w,
              float* sum, float eps) {
  DYNAMIC_SHARED(shared);
  SHARED int scratch[4][64], sums[8];
  const int words = (K + 15) / 16, warp = threadIdx.x / 32, d = n * K;
  float* z = (float*)shared;
  int8_t* x = (int8_t*)shared + (d + 3) / 4 * 16;
  prepare(z, input, a, b, w, blockIdx.x == 0 ? sum : nullptr, d, eps);
  const float scale = quantize(x, sums, z, d, 0, n, K, words * 16);
  int r = blockIdx.x * 4 + warp;
  if (r >= N0 + N1 + N2) return;
  float* y = y0;
  const uint32_t* p = w0;
  const float* gain = gain0;
  int N = N0;
  if (r >= N0 + N1)
    r -= N0 + N1, y = y2, p = w2, gain = gain2, N = N2;
  else if (r >= N0)
    r -= N0, y = y1, p = w1, gain = gain1, N = N1;
  linear_row<4>(y, p, N, r, words, n, signs, (const int*)x, sums, mul(scale, gain[r]), scratch[warp]);
}

// decode_mixer: the head mixer, int8 weights [n, N, ⌈K/4⌉·4] (transposed: row c
// holds what output c reads, padded with zeros), for each group of n heads of
// the heads' outputs a [groups, n, K], rounded with one scale.
// launch: grid (⌈N/4⌉, groups), block 128, dynamic shared 4·groups·n·K +
// 4·n·⌈K/4⌉ + 16 bytes; arguments (float* y, const int8* w, const float* gain,
// int N, int K, int n, uint64 signs, const float* a).
KERNEL(128, 8)
decode_mixer(float* y, const int8_t* w, const float* gain, int N, int K, int n, uint64_t signs, const float* a) {
  DYNAMIC_SHARED(shared);
  SHARED int scratch[4][64], sums[8];
  const int words = (K + 3) / 4, warp = threadIdx.x / 32, r = blockIdx.x * 4 + warp, d = gridDim.y * n * K;
  float* z = (float*)shared;
  int8_t* x = (int8_t*)shared + (d + 3) / 4 * 16;
  prepare(z, kPlain, a, nullptr, nullptr, nullptr, d, 0);
  const float scale = quantize(x, sums, z, d, blockIdx.y * n, n, K, words * 4);
  if (r >= N) return;
  linear_row<1>(y + (size_t)blockIdx.y * n * N, (const uint32_t*)w, N, r, words, n, signs, (const int*)x, nullptr, mul(scale, gain[r]), scratch[warp]);
}

// decode_attend: rotates the token's query and key by rot (cosines, then sines,
// [hd/2] each), puts key and value into the cache at slot position mod ring, and
// attends to the last block positions: o = softmax(scale·q·Kᵀ)·V. keys, values:
// float [kv_heads, ring, hd]; block ≤ ring.
// launch: grid heads, block 256, dynamic shared 65536 + (2·hd + block)·4
// bytes; arguments (float* o, const float* q, const float* k, const float* v, float* keys, float*
// values, const float* rot, const int32* state, int heads, int kv_heads, int hd,
// int ring, int block, float scale). hd is even and at most 256.
KERNEL(256, 1)
decode_attend(float* o, const float* q, const float* k, const float* v, float* keys, float* values, const float* rot, const int* state, int heads,
              int kv_heads, int hd, int ring, int block, float scale) {
  DYNAMIC_SHARED(shared);
  SHARED float scratch[32];
  SHARED float shared_sum;
  constexpr int STAGE = 8192; // values of one stage
  float *sv = (float*)shared, *sq = sv + 2 * STAGE, *sk = sq + hd, *p = sk + hd;
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
  // Values on their way to shared memory, as many positions as fit a stage.
  const int each = STAGE / hd;
  auto load = [&](int i0) {
    const uint32_t to = shared_address(sv) + i0 / each % 2 * STAGE * 4;
    const int count = min(each, n - i0);
    if (hd % 4 == 0) {
      for (int e = threadIdx.x * 4; e < count * hd; e += 1024) {
        const int i = i0 + e / hd;
        cp_async16(to + e * 4, (i == n - 1 ? v : values + (size_t)slot(i) * hd) + e % hd, 16);
      }
    } else {
      for (int e = threadIdx.x; e < count * hd; e += 256) {
        const int i = i0 + e / hd;
        cp_async4(to + e * 4, (i == n - 1 ? v : values + (size_t)slot(i) * hd) + e % hd, 4);
      }
    }
    cp_async_commit();
  };
  load(0);
  // Sixteen lanes a position, each one accumulator; eight positions at a time.
  constexpr int AHEAD = 8;
  const int lane = threadIdx.x % 16;
  float top = -INFINITY;
  for (int i0 = threadIdx.x / 16; i0 - (int)threadIdx.x / 16 < n; i0 += 16 * AHEAD) {
    const float* key[AHEAD];
    float s[AHEAD];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      const int i = i0 + u * 16;
      key[u] = i < n - 1 ? keys + (size_t)slot(i) * hd : sk;
      s[u] = 0;
    }
#pragma unroll 4
    for (int c = lane; c < hd; c += 16) {
      const float x = sq[c];
#pragma unroll
      for (int u = 0; u < AHEAD; u++) s[u] = add(s[u], mul(x, key[u][c]));
    }
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
      const int i = i0 + u * 16;
      const float x = mul(scale, fold16(s[u]));
      if (i >= n) continue;
      top = fmaxf(top, x);
      if (lane == 0) p[i] = x;
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
  for (int i = threadIdx.x; i < n; i += 256) p[i] = mul(p[i], inv);
  float sum = 0;
  for (int i0 = 0; i0 < n; i0 += each) {
    cp_async_wait<0>();
    __syncthreads();
    if (i0 + each < n) load(i0 + each);
    if ((int)threadIdx.x < hd) {
      const float* x = sv + i0 / each % 2 * STAGE + threadIdx.x;
      const int count = min(each, n - i0);
#pragma unroll 16
      for (int i = 0; i < count; i++) sum = add(sum, mul(p[i0 + i], x[i * hd]));
    }
  }
  if ((int)threadIdx.x < hd) o[(size_t)h * hd + threadIdx.x] = sum;
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
