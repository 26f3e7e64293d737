// SwiGLU in bf16, as kernel/swiglu.go: y = silu(g)∘u, silu(g) = g·σ(g), and
//
//	du = dy∘silu(g);  dg = dy∘u∘σ(1 + g(1 − σ))
#include "device.cuh"

namespace {

DEVICE float sigmoid(float g) { return __fdividef(1.f, 1.f + exp2_fast(-LOG2E * fmaxf(g, -80.f))); }

DEVICE void backward(float& dg, float& du, float dy, float g, float u) {
  float s = sigmoid(g);
  du = dy * g * s;
  dg = dy * u * s * (1 + g * (1 - s));
}

} // namespace

// swiglu: all pointers 16-byte aligned.
// launch: grid ⌈n/1024⌉, block 128, no dynamic shared; arguments (bf16* y, const
// bf16* gate, const bf16* up, size_t n).
KERNEL(128, 12)
swiglu(bf16* y, const bf16* gate, const bf16* up, size_t n) {
  const size_t i = ((size_t)(gridDim.x - 1 - blockIdx.x) * 128 + threadIdx.x) * 8;
  if (i + 8 <= n) {
    float g[8], u[8];
    unpack8(g, load8_late(gate + i));
    unpack8(u, load8_late(up + i));
#pragma unroll
    for (int e = 0; e < 8; e++) g[e] *= sigmoid(g[e]) * u[e];
    store8(y + i, pack8(g));
  } else {
    for (size_t j = i; j < n; j++) {
      float g = to_float(gate[j]);
      y[j] = to_bf16(g * sigmoid(g) * to_float(up[j]));
    }
  }
}

namespace {

// A row of at most 1024·N values by a block of 128, kept in registers.
template <int N>
DEVICE void quant8_row(bf16* y, const bf16* gate, const bf16* up, int d) {
  SHARED float scratch[32];
  float f[N][8], most = 0;
#pragma unroll
  for (int i = 0; i < N; i++) {
    const int c = (i * 128 + threadIdx.x) * 8;
    uint4 g = make_uint4(0, 0, 0, 0), u = g;
    if (c < d) g = load8_late(gate + c), u = load8_late(up + c);
    float a[8];
    unpack8(f[i], g), unpack8(a, u);
#pragma unroll
    for (int e = 0; e < 8; e++) {
      f[i][e] *= sigmoid(f[i][e]) * a[e];
      most = fmaxf(most, fabsf(f[i][e]));
    }
  }
  most = block_max(most, scratch);
  const float inv = most < 4e-37f ? 0 : 127 / most, s = most / 127;
#pragma unroll
  for (int i = 0; i < N; i++) {
    const int c = (i * 128 + threadIdx.x) * 8;
#pragma unroll
    for (int e = 0; e < 8; e++) f[i][e] = s * rintf(fminf(fmaxf(f[i][e] * inv, -127.f), 127.f));
    if (c < d) store8(y + c, pack8(f[i]));
  }
}

// Any d, reading the row twice.
DEVICE void quant8_any(bf16* y, const bf16* gate, const bf16* up, int d) {
  SHARED float scratch[32];
  auto value = [&](int c) {
    const float g = to_float(gate[c]);
    return g * sigmoid(g) * to_float(up[c]);
  };
  float most = 0;
  for (int c = threadIdx.x; c < d; c += 128) most = fmaxf(most, fabsf(value(c)));
  most = block_max(most, scratch);
  const float inv = most < 4e-37f ? 0 : 127 / most, s = most / 127;
  for (int c = threadIdx.x; c < d; c += 128) y[c] = to_bf16(s * rintf(fminf(fmaxf(value(c) * inv, -127.f), 127.f)));
}

} // namespace

// swiglu_quant8_2048, _4096, _any: swiglu, then each row of d rounded to int8
// levels (kernel.FakeQuant8). The suffix bounds d, a multiple of 8; _any takes
// every d.
// launch: grid rows, block 128, no dynamic shared; arguments (bf16* y, const
// bf16* gate, const bf16* up, int d).
#define QUANT8(D, CALL)                                                    \
  KERNEL(128, 8)                                                           \
  swiglu_quant8_##D(bf16* y, const bf16* gate, const bf16* up, int d) {    \
    const size_t row = (size_t)(gridDim.x - 1 - blockIdx.x) * d;           \
    CALL(y + row, gate + row, up + row, d);                                \
  }
QUANT8(2048, quant8_row<2>)
QUANT8(4096, quant8_row<4>)
QUANT8(any, quant8_any)

// swiglu_backward: dgate and dup overwritten; they may be gate and up.
// launch: grid ⌈n/1024⌉, block 128, no dynamic shared; arguments (bf16* dgate,
// bf16* dup, const bf16* dy, const bf16* gate, const bf16* up, size_t n).
KERNEL(128, 12)
swiglu_backward(bf16* dgate, bf16* dup, const bf16* dy, const bf16* gate, const bf16* up, size_t n) {
  const size_t i = ((size_t)(gridDim.x - 1 - blockIdx.x) * 128 + threadIdx.x) * 8;
  if (i + 8 <= n) {
    float g[8], u[8], d[8];
    unpack8(g, load8_late(gate + i));
    unpack8(u, load8_late(up + i));
    unpack8(d, load8_late(dy + i));
#pragma unroll
    for (int e = 0; e < 8; e++) {
      float dg, du;
      backward(dg, du, d[e], g[e], u[e]);
      g[e] = dg, u[e] = du;
    }
    store8(dgate + i, pack8(g));
    store8(dup + i, pack8(u));
  } else {
    for (size_t j = i; j < n; j++) {
      float dg, du;
      backward(dg, du, to_float(dy[j]), to_float(gate[j]), to_float(up[j]));
      dgate[j] = to_bf16(dg), dup[j] = to_bf16(du);
    }
  }
}
