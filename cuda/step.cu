// What a training step does for all of its tensors or scalars at once: clear
// the gradients, gather the loss, and see that an update has finite numbers.
#include "device.cuh"

// zero_tensors clears every chunk of 8192 values of a table of tensors (see
// elementwise.cu).
// launch: grid chunks, block 256, no dynamic shared; arguments (float* const*
// tensors, const uint64* sizes, const int32* chunks).
KERNEL(256, 4)
zero_tensors(float* const* tensors, const uint64_t* sizes, const int* chunks) {
  const int tensor = chunks[2 * blockIdx.x];
  const size_t from = (size_t)chunks[2 * blockIdx.x + 1] * 8192, left = sizes[tensor] - from;
  const int n = left < 8192 ? (int)left : 8192;
  float* x = tensors[tensor] + from;
  for (int i = threadIdx.x * 4; i + 4 <= n; i += 1024) store4(x + i, make_float4(0, 0, 0, 0));
  if ((int)threadIdx.x < n % 4) x[n / 4 * 4 + threadIdx.x] = 0;
}

// add_sum: total += Σ x, in a fixed order.
// launch: grid 1, block 1024, no dynamic shared; arguments (double* total,
// const float* x, int n).
KERNEL(1024, 1)
add_sum(double* total, const float* x, int n) {
  SHARED double scratch[32];
  double sum = 0;
#pragma unroll 8
  for (int i = threadIdx.x; i < n; i += 1024) sum += x[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *total += sum;
}

// guard ends clip's work (elementwise.cu): the norm's square goes to squares,
// and where the loss is not finite the gradients' factor becomes NaN too, on
// which adamw changes nothing.
// launch: grid 1, block 1, no dynamic shared; arguments (double* clipped,
// double* squares, const double* loss).
KERNEL(32, 1)
guard(double* clipped, double* squares, const double* loss) {
  *squares = clipped[0];
  if (!(*loss < INFINITY && *loss > -INFINITY)) clipped[2] = (double)__uint_as_float(0x7fc00000u);
}
