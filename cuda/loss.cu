// Softmax cross-entropy of a chunk of logits, as kernel/loss.go: with x a row,
//
//	loss = log Σ exp x − x[target];  gradient = scale·(softmax(x) − onehot(target))
//
// A target below 0 is ignored: loss 0, gradient 0. The gradient is bf16 and may
// overwrite bf16 logits. Rows of logits and of the gradient are ld apart; the
// gradient's columns vocab … ld−1 become 0, so that a product over ld is the
// product over vocab. Loss and sums are float32.
#include "device.cuh"

namespace {

// Eight logits from column c on; columns from vocab on count as −∞.
DEVICE void load(float (&f)[8], const bf16* x) { unpack(f, load8(x)); }
DEVICE void load(float (&f)[8], const float* x) {
  float4 a = load4(x), b = load4(x + 4);
  f[0] = a.x, f[1] = a.y, f[2] = a.z, f[3] = a.w, f[4] = b.x, f[5] = b.y, f[6] = b.z, f[7] = b.w;
}
DEVICE void keep(bf16* x, const float (&f)[8]) { store8(x, pack(f)); }
DEVICE void keep(float* x, const float (&f)[8]) {
  store4(x, make_float4(f[0], f[1], f[2], f[3]));
  store4(x + 4, make_float4(f[4], f[5], f[6], f[7]));
}
DEVICE float value(const bf16* x) { return to_float(*x); }
DEVICE float value(const float* x) { return *x; }

// One block a row.
template <class T>
DEVICE void cross_entropy(T* cache, float* losses, bf16* dlogits, const T* logits, const int* targets, int vocab, int ld, float scale, int cached) {
  SHARED float scratch[2][32];
  const size_t row = blockIdx.x;
  const T* x = logits + row * ld;
  bf16* dx = dlogits ? dlogits + row * ld : nullptr;
  const int target = targets[row], step = blockDim.x * 8, zeros = (vocab + 7) / 8 * 8;
  if (target < 0) {
    if (threadIdx.x == 0) losses[row] = 0;
    if (dx)
      for (int c = threadIdx.x * 8; c < ld; c += step) store8(dx + c, vec8{{0, 0, 0, 0}});
    return;
  }
  const float at = value(x + target);
  float top = -INFINITY, sum = 0; // of this thread: its columns' maximum, Σ exp(x − top)
#pragma unroll 4
  for (int c = threadIdx.x * 8; c < vocab; c += step) {
    float f[8];
    load(f, x + c);
    if (c < cached) keep(cache + c, f);
    if (c + 8 > vocab) {
#pragma unroll
      for (int e = 0; e < 8; e++)
        if (c + e >= vocab) f[e] = -INFINITY;
    }
    float m = top;
#pragma unroll
    for (int e = 0; e < 8; e++) m = fmaxf(m, f[e]);
    const float mc = m * LOG2E;
    sum *= exp2_fast(top * LOG2E - mc);
#pragma unroll
    for (int e = 0; e < 8; e++) sum += exp2_fast(f[e] * LOG2E - mc);
    top = m;
  }
  const float all = block_max(top, scratch[0]), ac = all * LOG2E;
  sum = block_sum(sum * exp2_fast(top * LOG2E - ac), scratch[1]);
  if (threadIdx.x == 0) losses[row] = all - at + logf(sum);
  if (!dx) return;
  const float f0 = scale / sum;
#pragma unroll 4
  for (int c = threadIdx.x * 8; c < vocab; c += step) {
    float f[8];
    load(f, c < cached ? cache + c : x + c);
#pragma unroll
    for (int e = 0; e < 8; e++) {
      f[e] = c + e < vocab ? exp2_fast(f[e] * LOG2E - ac) * f0 : 0;
      if (c + e == target) f[e] -= scale;
    }
    keep(dx + c, f);
  }
  for (int c = zeros + threadIdx.x * 8; c < ld; c += step) store8(dx + c, vec8{{0, 0, 0, 0}});
}

// One warp a row, for few columns.
template <class T>
DEVICE void cross_entropy_narrow(float* losses, bf16* dlogits, const T* logits, const int* targets, int rows, int vocab, int ld, float scale) {
  const size_t row = blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= (size_t)rows) return;
  const int lane = threadIdx.x % 32, target = targets[row];
  const T* x = logits + row * ld;
  bf16* dx = dlogits ? dlogits + row * ld : nullptr;
  float top = -INFINITY, sum = 0, f0 = 0, ac = 0;
  if (target >= 0) {
    for (int c = lane; c < vocab; c += 32) top = fmaxf(top, value(x + c));
    top = warp_max(top);
    ac = top * LOG2E;
    for (int c = lane; c < vocab; c += 32) sum += exp2_fast(value(x + c) * LOG2E - ac);
    sum = warp_sum(sum);
    f0 = scale / sum;
  }
  if (lane == 0) losses[row] = target < 0 ? 0 : top - value(x + target) + logf(sum);
  if (!dx) return;
  __syncwarp();
  for (int c = lane; c < ld; c += 32) {
    float f = 0;
    if (target >= 0 && c < vocab) f = exp2_fast(value(x + c) * LOG2E - ac) * f0 - (c == target ? scale : 0);
    dx[c] = to_bf16(f);
  }
}

} // namespace

// cross_entropy_bf16, cross_entropy_f32: logits in bf16 or float; dlogits NULL
// gives the losses alone; for bf16 it may be logits. ld is a multiple of 8,
// bases are 16-byte aligned. The first cached columns (a multiple of 8, ≥ 0;
// best all of a row where shared memory has room) are read once.
// launch: grid rows, block 512, dynamic shared cached·2 (bf16) or cached·4
// (f32) bytes; arguments (float* losses, bf16* dlogits, const bf16* or float*
// logits, const int32* targets, int vocab, int ld, float scale, int cached).
KERNEL(512, 2)
cross_entropy_bf16(float* losses, bf16* dlogits, const bf16* logits, const int* targets, int vocab, int ld, float scale, int cached) {
  DYNAMIC_SHARED(shared);
  cross_entropy<bf16>((bf16*)shared, losses, dlogits, logits, targets, vocab, ld, scale, cached);
}
KERNEL(512, 2)
cross_entropy_f32(float* losses, bf16* dlogits, const float* logits, const int* targets, int vocab, int ld, float scale, int cached) {
  DYNAMIC_SHARED(shared);
  cross_entropy<float>((float*)shared, losses, dlogits, logits, targets, vocab, ld, scale, cached);
}

// cross_entropy_narrow_bf16, cross_entropy_narrow_f32: the same for vocab up to
// about 1024, any ld ≥ vocab.
// launch: grid ⌈rows/4⌉, block 128, no dynamic shared; arguments (float*
// losses, bf16* dlogits, const bf16* or float* logits, const int32* targets,
// int rows, int vocab, int ld, float scale).
KERNEL(128, 8)
cross_entropy_narrow_bf16(float* losses, bf16* dlogits, const bf16* logits, const int* targets, int rows, int vocab, int ld, float scale) {
  cross_entropy_narrow<bf16>(losses, dlogits, logits, targets, rows, vocab, ld, scale);
}
KERNEL(128, 8)
cross_entropy_narrow_f32(float* losses, bf16* dlogits, const float* logits, const int* targets, int rows, int vocab, int ld, float scale) {
  cross_entropy_narrow<float>(losses, dlogits, logits, targets, rows, vocab, ld, scale);
}

// sum_losses: out = Σ losses in float64, in a fixed order.
// launch: grid 1, block 1024, no dynamic shared; arguments (double* out, const
// float* losses, int n).
KERNEL(1024, 1)
sum_losses(double* out, const float* losses, int n) {
  SHARED double scratch[32];
  double sum = 0;
  for (int i = threadIdx.x; i < n; i += 1024) sum += losses[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *out = sum;
}
