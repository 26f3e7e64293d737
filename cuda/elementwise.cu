// Sums, a cast, and the optimizer: gradient norm, clipping and AdamW
// over all parameters in three launches with no word to the host.
//
// A table of all parameters lies on the device: arrays of pointers, their
// sizes, and a list of chunks {tensor, chunk of 8192 values in it}, one block a
// chunk.
#include "device.cuh"

namespace {
constexpr int kChunk = 8192;
}

// add_f32_bf16: y = a + b, the residual sum; y may be a.
// launch: grid ⌈n/1024⌉, block 256, no dynamic shared; arguments (float* y,
// const float* a, const bf16* b, size_t n).
KERNEL(256, 4)
add_f32_bf16(float* y, const float* a, const bf16* b, size_t n) {
  const size_t i = ((size_t)blockIdx.x * 256 + threadIdx.x) * 4;
  if (i + 4 <= n) {
    float4 p = load4(a + i), q = load4(b + i);
    store4(y + i, make_float4(p.x + q.x, p.y + q.y, p.z + q.z, p.w + q.w));
  } else {
    for (size_t j = i; j < n; j++) y[j] = a[j] + to_float(b[j]);
  }
}

// add_f32: y = a + b. add_bf16: the same in bf16.
// launch: grid ⌈n/1024⌉, block 256, no dynamic shared; arguments (float* y,
// const float* a, const float* b, size_t n) or (bf16* y, const bf16* a, const
// bf16* b, size_t n).
KERNEL(256, 4)
add_f32(float* y, const float* a, const float* b, size_t n) {
  const size_t i = ((size_t)blockIdx.x * 256 + threadIdx.x) * 4;
  if (i + 4 <= n) {
    float4 p = load4(a + i), q = load4(b + i);
    store4(y + i, make_float4(p.x + q.x, p.y + q.y, p.z + q.z, p.w + q.w));
  } else {
    for (size_t j = i; j < n; j++) y[j] = a[j] + b[j];
  }
}
KERNEL(256, 4)
add_bf16(bf16* y, const bf16* a, const bf16* b, size_t n) {
  const size_t i = ((size_t)blockIdx.x * 256 + threadIdx.x) * 4;
  if (i + 4 <= n) {
    float4 p = load4(a + i), q = load4(b + i);
    store4(y + i, make_float4(p.x + q.x, p.y + q.y, p.z + q.z, p.w + q.w));
  } else {
    for (size_t j = i; j < n; j++) y[j] = to_bf16(to_float(a[j]) + to_float(b[j]));
  }
}

// to_bf16_f32 rounds to nearest even.
// launch: grid ⌈n/1024⌉, block 256, no dynamic shared; arguments (bf16* y, const
// float* x, size_t n).
KERNEL(256, 4)
to_bf16_f32(bf16* y, const float* x, size_t n) {
  const size_t i = ((size_t)blockIdx.x * 256 + threadIdx.x) * 4;
  if (i + 4 <= n)
    store4(y + i, load4(x + i));
  else
    for (size_t j = i; j < n; j++) y[j] = to_bf16(x[j]);
}

// sum_squares: sums [chunks] of the squares of each chunk of gradients.
// launch: grid chunks, block 256, no dynamic shared; arguments (double* sums,
// const float* const* g, const uint64* sizes, const int32* chunks).
KERNEL(256, 4)
sum_squares(double* sums, const float* const* g, const uint64_t* sizes, const int* chunks) {
  SHARED float scratch[32];
  const int tensor = chunks[2 * blockIdx.x];
  const size_t from = (size_t)chunks[2 * blockIdx.x + 1] * kChunk;
  const float* x = g[tensor] + from;
  const size_t left = sizes[tensor] - from;
  const int n = left < kChunk ? (int)left : kChunk;
  float sum = 0;
#pragma unroll 4
  for (int i = threadIdx.x * 4; i + 4 <= n; i += 1024) {
    float4 v = load4(x + i);
    sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  if ((int)threadIdx.x < n % 4) {
    float v = x[n / 4 * 4 + threadIdx.x];
    sum += v * v;
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// clip adds the chunks' sums in order: out[0] the norm's square, out[1] the
// norm, out[2] the factor for the gradients: clip/norm where clip > 0 and the
// norm is larger, else 1; NaN where the norm is not finite, on which adamw
// changes nothing.
// launch: grid 1, block 1024, no dynamic shared; arguments (double* out, const
// double* sums, int chunks, float clip).
KERNEL(1024, 1)
clip(double* out, const double* sums, int chunks, float clip) {
  SHARED double scratch[32];
  double sum = 0;
  for (int i = threadIdx.x; i < chunks; i += 1024) sum += sums[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) {
    const double norm = sqrt(sum);
    double f = clip > 0 && norm > clip ? clip / norm : 1;
    if (!(norm < INFINITY)) f = (double)__uint_as_float(0x7fc00000u);
    out[0] = sum, out[1] = norm, out[2] = f;
  }
}

// adamw is kernel.AdamW for every parameter (see there for the formula), with
//
//	step, float [8]: lr, β₁, 1−β₁, β₂, 1−β₂, 1/c1, 1/√c2, eps
//	groups, float [tensors, 2]: factor of lr, weight decay
//
// and the gradients' factor from clip's out[2].
// launch: grid chunks, block 256, no dynamic shared; arguments (float* const*
// w, float* const* g, float* const* m, float* const* v, const uint64* sizes,
// const float* groups, const int32* chunks, const float* step, const double*
// clipped).
KERNEL(256, 4)
adamw(float* const* ws, float* const* gs, float* const* ms, float* const* vs, const uint64_t* sizes, const float* groups, const int* chunks,
      const float* step, const double* clipped) {
  const int tensor = chunks[2 * blockIdx.x];
  const size_t from = (size_t)chunks[2 * blockIdx.x + 1] * kChunk;
  const size_t left = sizes[tensor] - from;
  const int n = left < kChunk ? (int)left : kChunk;
  float *w = ws[tensor] + from, *g = gs[tensor] + from, *m = ms[tensor] + from, *v = vs[tensor] + from;
  const float scale = (float)clipped[2];
  const float lr = step[0] * groups[2 * tensor], keep = 1 - lr * groups[2 * tensor + 1];
  const float b1 = step[1], b1c = step[2], b2 = step[3], b2c = step[4], rate = lr * step[5], root = step[6], eps = step[7];
  if (scale != scale) return;
  auto update = [&](float& wi, float gi, float& mi, float& vi) {
    const float d = gi * scale;
    mi = b1 * mi + b1c * d;
    vi = b2 * vi + b2c * d * d;
    wi = keep * wi - rate * mi / (sqrtf(vi) * root + eps);
  };
#pragma unroll 2
  for (int i = threadIdx.x * 4; i + 4 <= n; i += 1024) {
    float4 a = load4(w + i), b = load4(g + i), c = load4(m + i), d = load4(v + i);
    update(a.x, b.x, c.x, d.x);
    update(a.y, b.y, c.y, d.y);
    update(a.z, b.z, c.z, d.z);
    update(a.w, b.w, c.w, d.w);
    store4(w + i, a);
    store4(m + i, c);
    store4(v + i, d);
  }
  if ((int)threadIdx.x < n % 4) {
    const int i = n / 4 * 4 + threadIdx.x;
    update(w[i], g[i], m[i], v[i]);
  }
}
