// Softmax cross-entropy of a chunk of logits, as kernel/loss.go: with x a row,
//
//	loss = log Σ exp x − x[target];  gradient = scale·(softmax(x) − onehot(target))
//
// A target below 0 is ignored: loss 0, gradient 0. The gradient is bf16. Rows of
// logits and of the gradient are ld apart; the gradient's columns vocab … ld−1
// become 0, so that a product over ld is the product over vocab. Loss and sums are
// float32.
#include "device.cuh"

// cross_entropy_bf16: one block a row of bf16 logits. dlogits NULL gives the losses
// alone; it may be logits. ld is a multiple of 8, bases are 16-byte aligned. The
// first cached columns (a multiple of 8, ≥ 0; best all of a row where shared memory
// has room) are read once.
// launch: grid rows, block 512, dynamic shared cached·2 bytes; arguments (float*
// losses, bf16* dlogits, const bf16* logits, const int32* targets, int vocab, int
// ld, float scale, int cached).
KERNEL(512, 2)
cross_entropy_bf16(float* losses, bf16* dlogits, const bf16* logits, const int* targets, int vocab, int ld, float scale, int cached) {
  DYNAMIC_SHARED(shared);
  bf16* const cache = (bf16*)shared;
  SHARED float scratch[2][32];
  const size_t row = blockIdx.x;
  const bf16* x = logits + row * ld;
  bf16* dx = dlogits ? dlogits + row * ld : nullptr;
  const int target = targets[row], step = blockDim.x * 8, zeros = (vocab + 7) / 8 * 8;
  if (target < 0) {
    if (threadIdx.x == 0) losses[row] = 0;
    if (dx)
      for (int c = threadIdx.x * 8; c < ld; c += step) store8(dx + c, make_uint4(0, 0, 0, 0));
    return;
  }
  const float at = to_float(x[target]);
  float top = -INFINITY, sum = 0; // of this thread: its columns' maximum, Σ exp(x − top)
#pragma unroll 4
  for (int c = threadIdx.x * 8; c < vocab; c += step) {
    const uint4 u = load8(x + c);
    float f[8];
    unpack8(f, u);
    if (c < cached) store8(cache + c, u);
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
    unpack8(f, load8(c < cached ? cache + c : x + c));
#pragma unroll
    for (int e = 0; e < 8; e++) {
      f[e] = c + e < vocab ? exp2_fast(f[e] * LOG2E - ac) * f0 : 0;
      if (c + e == target) f[e] -= scale;
    }
    store8(dx + c, pack8(f));
  }
  for (int c = zeros + threadIdx.x * 8; c < ld; c += step) store8(dx + c, make_uint4(0, 0, 0, 0));
}

// cross_entropy_narrow_f32: the same of float logits, one warp a row, for vocab up
// to about 1024 and any ld ≥ vocab.
// launch: grid ⌈rows/4⌉, block 128, no dynamic shared; arguments (float* losses,
// bf16* dlogits, const float* logits, const int32* targets, int rows, int vocab,
// int ld, float scale).
KERNEL(128, 8)
cross_entropy_narrow_f32(float* losses, bf16* dlogits, const float* logits, const int* targets, int rows, int vocab, int ld, float scale) {
  const size_t row = blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= (size_t)rows) return;
  const int lane = threadIdx.x % 32, target = targets[row];
  const float* x = logits + row * ld;
  bf16* dx = dlogits ? dlogits + row * ld : nullptr;
  float top = -INFINITY, sum = 0, f0 = 0, ac = 0;
  if (target >= 0) {
    for (int c = lane; c < vocab; c += 32) top = fmaxf(top, x[c]);
    top = warp_max(top);
    ac = top * LOG2E;
    for (int c = lane; c < vocab; c += 32) sum += exp2_fast(x[c] * LOG2E - ac);
    sum = warp_sum(sum);
    f0 = scale / sum;
  }
  if (lane == 0) losses[row] = target < 0 ? 0 : top - x[target] + logf(sum);
  if (!dx) return;
  for (int c = lane; c < ld; c += 32) {
    float f = 0;
    if (target >= 0 && c < vocab) f = exp2_fast(x[c] * LOG2E - ac) * f0 - (c == target ? scale : 0);
    dx[c] = to_bf16(f);
  }
}

