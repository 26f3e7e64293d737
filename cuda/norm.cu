// RMSNorm, as kernel/norm.go: z = h·r∘w by rows of d, r = 1/√(mean(h²) + eps),
// and its gradient
//
//	dh = r·dz∘w − h·r³·mean(dz∘w∘h);  dw = Σ over rows of r·dz∘h
//
// h, dh, w and dw are float32 (the residual stream), z and dz bf16. The forward
// can add a bf16 tensor to the stream first and round z to int8 levels after.
#include "device.cuh"

namespace {

// round8 is kernel.FakeQuant8's rounding: s·clamp(roundeven(x·inv), ±127).
DEVICE float round8(float x, float inv, float s) { return s * rintf(fminf(fmaxf(x * inv, -127.f), 127.f)); }

DEVICE float4 add4(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
DEVICE float4 mul4(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
DEVICE float4 scale4(float4 a, float f) { return make_float4(a.x * f, a.y * f, a.z * f, a.w * f); }
DEVICE float dot4f(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }
DEVICE float4 as_floats(uint2 u) { return make_float4(low_float(u.x), high_float(u.x), low_float(u.y), high_float(u.y)); }
DEVICE float most4(float4 a) { return fmaxf(fmaxf(fabsf(a.x), fabsf(a.y)), fmaxf(fabsf(a.z), fabsf(a.w))); }

// Forward of a row of at most 128·N values by a warp, d a multiple of 4.
template <int N>
DEVICE void forward_row(bf16* z, float* hout, const float* h, const bf16* t, const float* w, int d, float eps, int quant) {
  const int lane = threadIdx.x % 32;
  float4 x[N];
  float sum = 0, most = 0;
#pragma unroll
  for (int i = 0; i < N; i++) {
    int c = (i * 32 + lane) * 4;
    x[i] = c < d ? load4_late(h + c) : make_float4(0, 0, 0, 0);
  }
  if (t) {
#pragma unroll
    for (int i = 0; i < N; i++) {
      int c = (i * 32 + lane) * 4;
      if (c < d) {
        x[i] = add4(x[i], load4_late(t + c));
        store4_late(hout + c, x[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < N; i++) sum += dot4f(x[i], x[i]);
  const float r = 1 / sqrtf(warp_sum(sum) / d + eps);
#pragma unroll
  for (int i = 0; i < N; i++) {
    int c = (i * 32 + lane) * 4;
    if (c < d) x[i] = mul4(scale4(x[i], r), load4(w + c));
    most = fmaxf(most, most4(x[i]));
  }
  if (quant) {
    most = warp_max(most);
    const float inv = most < 4e-37f ? 0 : 127 / most, s = most / 127;
#pragma unroll
    for (int i = 0; i < N; i++)
      x[i] = make_float4(round8(x[i].x, inv, s), round8(x[i].y, inv, s), round8(x[i].z, inv, s), round8(x[i].w, inv, s));
  }
#pragma unroll
  for (int i = 0; i < N; i++) {
    int c = (i * 32 + lane) * 4;
    if (c < d) store4(z + c, x[i]);
  }
}

// Any d, reading the row again.
DEVICE void forward_any(bf16* z, float* hout, const float* h, const bf16* t, const float* w, int d, float eps, int quant) {
  const int lane = threadIdx.x % 32;
  float sum = 0, most = 0;
  for (int c = lane; c < d; c += 32) {
    float x = h[c];
    if (t) hout[c] = x = x + to_float(t[c]);
    sum += x * x;
  }
  const float r = 1 / sqrtf(warp_sum(sum) / d + eps);
  const float* x = t ? hout : h;
  float inv = 0, s = 0;
  if (quant) {
    for (int c = lane; c < d; c += 32) most = fmaxf(most, fabsf(x[c] * r * w[c]));
    most = warp_max(most);
    inv = most < 4e-37f ? 0 : 127 / most, s = most / 127;
  }
  for (int c = lane; c < d; c += 32) {
    float y = x[c] * r * w[c];
    z[c] = to_bf16(quant ? round8(y, inv, s) : y);
  }
}

// Backward of the rows of one warp: dw's part stays in registers.
template <int N>
DEVICE void backward_rows(float* shared, float* dh, bf16* dh16, float* part, const bf16* dz, const float* h, const float* w, int rows, int d,
                          float eps, int acc) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const float4 zero = make_float4(0, 0, 0, 0);
  float4 dw[N];
#pragma unroll
  for (int i = 0; i < N; i++) dw[i] = zero;
  for (int row = blockIdx.x * warps + warp; row < rows; row += gridDim.x * warps) {
    const size_t at = (size_t)row * d;
    float4 x[N], old[N]; // all loads of the row together
    uint2 g[N];
    float square = 0, dot = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
      const int c = (i * 32 + lane) * 4;
      x[i] = c < d ? load4_late(h + at + c) : zero;
      g[i] = c < d ? __ldcs((const uint2*)(dz + at + c)) : make_uint2(0, 0);
      old[i] = acc && c < d ? load4_late(dh + at + c) : zero;
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
      const int c = (i * 32 + lane) * 4;
      square += dot4f(x[i], x[i]);
      if (c < d) dot += dot4f(mul4(as_floats(g[i]), load4(w + c)), x[i]);
    }
    const float r = 1 / sqrtf(warp_sum(square) / d + eps);
    const float k = r * r * r * warp_sum(dot) / d;
#pragma unroll
    for (int i = 0; i < N; i++) {
      const int c = (i * 32 + lane) * 4;
      if (c >= d) continue;
      const float4 rg = scale4(as_floats(g[i]), r);
      dw[i] = add4(dw[i], mul4(rg, x[i]));
      float4 y = add4(mul4(rg, load4(w + c)), scale4(x[i], -k));
      if (acc) y = add4(y, old[i]);
      store4_late(dh + at + c, y);
      if (dh16) store4(dh16 + at + c, y);
    }
  }
  // The warps' parts, added in order.
  for (int turn = 0; turn < warps; turn++) {
    if (warp == turn) {
#pragma unroll
      for (int i = 0; i < N; i++) {
        int c = (i * 32 + lane) * 4;
        if (c < d) store4(shared + c, turn ? add4(dw[i], load4(shared + c)) : dw[i]);
      }
    }
    __syncthreads();
  }
  for (int c = threadIdx.x; c < d; c += blockDim.x) part[(size_t)blockIdx.x * d + c] = shared[c];
}

// Backward of the rows of one block, 1024·N ≥ d values each.
template <int N>
DEVICE void backward_wide(float* dh, bf16* dh16, float* part, const bf16* dz, const float* h, const float* w, int rows, int d, float eps, int acc) {
  SHARED float2 scratch[2][8];
  const float4 zero = make_float4(0, 0, 0, 0);
  float4 dw[N];
#pragma unroll
  for (int i = 0; i < N; i++) dw[i] = zero;
  int turn = 0; // a row's sums may still be read while the next row's are written
  for (int row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1) {
    const size_t at = (size_t)row * d;
    float4 x[N], old[N];
    uint2 g[N];
    float square = 0, dot = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
      const int c = (i * 256 + threadIdx.x) * 4;
      x[i] = c < d ? load4_late(h + at + c) : zero;
      g[i] = c < d ? __ldcs((const uint2*)(dz + at + c)) : make_uint2(0, 0);
      old[i] = acc && c < d ? load4_late(dh + at + c) : zero;
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
      const int c = (i * 256 + threadIdx.x) * 4;
      square += dot4f(x[i], x[i]);
      if (c < d) dot += dot4f(mul4(as_floats(g[i]), load4(w + c)), x[i]);
    }
    square = warp_sum(square), dot = warp_sum(dot);
    if (threadIdx.x % 32 == 0) scratch[turn][threadIdx.x / 32].x = square, scratch[turn][threadIdx.x / 32].y = dot;
    __syncthreads();
    square = dot = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) square += scratch[turn][i].x, dot += scratch[turn][i].y;
    const float r = 1 / sqrtf(square / d + eps), k = r * r * r * dot / d;
#pragma unroll
    for (int i = 0; i < N; i++) {
      const int c = (i * 256 + threadIdx.x) * 4;
      if (c >= d) continue;
      const float4 rg = scale4(as_floats(g[i]), r);
      dw[i] = add4(dw[i], mul4(rg, x[i]));
      float4 y = add4(mul4(rg, load4(w + c)), scale4(x[i], -k));
      if (acc) y = add4(y, old[i]);
      store4_late(dh + at + c, y);
      if (dh16) store4(dh16 + at + c, y);
    }
  }
#pragma unroll
  for (int i = 0; i < N; i++) {
    const int c = (i * 256 + threadIdx.x) * 4;
    if (c < d) store4(part + (size_t)blockIdx.x * d + c, dw[i]);
  }
}

} // namespace

// rmsnorm_512, _1024, _2048, _any: z from h, or with t not NULL from hout = h +
// t (hout may be h). quant: round z to int8 levels by rows. The suffix bounds
// d, a multiple of 4; _any takes every d.
// launch: grid ⌈rows/8⌉, block 256, no dynamic shared; arguments (bf16* z,
// float* hout, const float* h, const bf16* t, const float* w, int rows, int d,
// float eps, int quant).
#define FORWARD(D, BLOCKS, CALL)                                                                                                \
  KERNEL(256, BLOCKS)                                                                                                           \
  rmsnorm_##D(bf16* z, float* hout, const float* h, const bf16* t, const float* w, int rows, int d, float eps, int quant) {      \
    const size_t row = blockIdx.x * 8 + threadIdx.x / 32;                                                                       \
    if (row >= (size_t)rows) return;                                                                                            \
    CALL(z + row * d, hout + row * d, h + row * d, t ? t + row * d : nullptr, w, d, eps, quant);                                 \
  }
FORWARD(512, 6, forward_row<4>)
FORWARD(1024, 4, forward_row<8>)
FORWARD(2048, 2, forward_row<16>)
FORWARD(any, 4, forward_any)

// rmsnorm_backward_512, _1024, _2048, _4096, _any: dh overwritten, or with acc added
// to; dh16, if not NULL, receives the new dh in bf16; part [blocks, d] the
// blocks' sums for dw, which rmsnorm_dw adds up. The suffix bounds d, a
// multiple of 4; _any takes every d.
// launch: grid blocks = any number up to ⌈rows/6⌉, for _1024 and above up to
// rows, best as many as run at once (512: 4 a multiprocessor, 1024: 6, 2048: 4,
// 4096 and any: 2); block 192 (which fits beside a block of gemm90), for _1024
// and above 256; dynamic shared 4·d bytes (_1024 and above:
// none); arguments (float* dh, bf16* dh16, float* part, const bf16* dz, const
// float* h, const float* w, int rows, int d, float eps, int acc).
#define BACKWARD(D, N, BLOCKS)                                                                                                       \
  KERNEL(192, BLOCKS)                                                                                                                \
  rmsnorm_backward_##D(float* dh, bf16* dh16, float* part, const bf16* dz, const float* h, const float* w, int rows, int d, float eps, \
                       int acc) {                                                                                                    \
    DYNAMIC_SHARED(shared);                                                                                                          \
    backward_rows<N>((float*)shared, dh, dh16, part, dz, h, w, rows, d, eps, acc);                                                   \
  }
BACKWARD(512, 4, 4)

#define BACKWARD_WIDE(D, N, BLOCKS)                                                                                                  \
  KERNEL(256, BLOCKS)                                                                                                                \
  rmsnorm_backward_##D(float* dh, bf16* dh16, float* part, const bf16* dz, const float* h, const float* w, int rows, int d, float eps, \
                       int acc) {                                                                                                    \
    backward_wide<N>(dh, dh16, part, dz, h, w, rows, d, eps, acc);                                                                   \
  }
BACKWARD_WIDE(1024, 1, 6)
BACKWARD_WIDE(2048, 2, 4)
BACKWARD_WIDE(4096, 4, 2)

KERNEL(256, 2)
rmsnorm_backward_any(float* dh, bf16* dh16, float* part, const bf16* dz, const float* h, const float* w, int rows, int d, float eps, int acc) {
  SHARED float scratch[2][32];
  part += (size_t)blockIdx.x * d;
  for (int c = threadIdx.x; c < d; c += 256) part[c] = 0;
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const size_t at = (size_t)row * d;
    float square = 0, dot = 0;
    for (int c = threadIdx.x; c < d; c += 256) {
      float x = h[at + c];
      square += x * x;
      dot += to_float(dz[at + c]) * w[c] * x;
    }
    __syncthreads();
    square = block_sum(square, scratch[0]), dot = block_sum(dot, scratch[1]);
    const float r = 1 / sqrtf(square / d + eps), k = r * r * r * dot / d;
    for (int c = threadIdx.x; c < d; c += 256) {
      float x = h[at + c], rg = r * to_float(dz[at + c]), y = rg * w[c] - k * x;
      part[c] += rg * x;
      if (acc) y += dh[at + c];
      dh[at + c] = y;
      if (dh16) dh16[at + c] = to_bf16(y);
    }
  }
}

// rmsnorm_dw: dw += Σ over blocks of part, in a fixed order.
// launch: grid ⌈d/32⌉, block 1024, no dynamic shared; arguments (float* dw,
// const float* part, int blocks, int d).
KERNEL(1024, 1)
rmsnorm_dw(float* dw, const float* part, int blocks, int d) {
  SHARED float sums[32][33];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = blockIdx.x * 32 + lane;
  float sum = 0;
  if (c < d) {
#pragma unroll 8
    for (int i = warp; i < blocks; i += 32) sum += part[(size_t)i * d + c];
  }
  sums[lane][warp] = sum;
  __syncthreads();
  sum = warp_sum(sums[warp][lane]);
  const int to = blockIdx.x * 32 + warp;
  if (lane == 0 && to < d) dw[to] += sum;
}

// fake_quant8 rounds rows of bf16 to int8 levels (kernel.FakeQuant8); y may be x.
// launch: grid ⌈rows/8⌉, block 256, no dynamic shared; arguments (bf16* y,
// const bf16* x, int rows, int d).
KERNEL(256, 4)
fake_quant8(bf16* y, const bf16* x, int rows, int d) {
  const size_t row = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= (size_t)rows) return;
  const int lane = threadIdx.x % 32;
  x += row * d, y += row * d;
  float most = 0;
  if (d % 8 == 0) {
    for (int c = lane * 8; c < d; c += 256) {
      float f[8];
      unpack8(f, load8(x + c));
#pragma unroll
      for (int e = 0; e < 8; e++) most = fmaxf(most, fabsf(f[e]));
    }
  } else {
    for (int c = lane; c < d; c += 32) most = fmaxf(most, fabsf(to_float(x[c])));
  }
  most = warp_max(most);
  const float inv = most < 4e-37f ? 0 : 127 / most, s = most / 127;
  if (d % 8 == 0) {
    for (int c = lane * 8; c < d; c += 256) {
      float f[8];
      unpack8(f, load8(x + c));
#pragma unroll
      for (int e = 0; e < 8; e++) f[e] = round8(f[e], inv, s);
      store8(y + c, pack8(f));
    }
  } else {
    for (int c = lane; c < d; c += 32) y[c] = to_bf16(round8(to_float(x[c]), inv, s));
  }
}
